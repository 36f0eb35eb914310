//! A store, keys to it and a router over it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use chrono::Utc;
use futures::TryStreamExt;
use serde_json::{Value, json};
use sporlog_ledger::{Store, StoreOptions, numbers};
use sporlog_record::Rules;
use sporlog_record::canonical::EntryWriter;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::access::{AccessControl, KeyRegistry, KeyRing, NewKey, Role};
use crate::api::{ApiSettings, limits, routes};
use crate::server::{Rates, ServerSettings, layers};
use crate::{App, AppState, Catalog};

/// Keys in memory.
struct Keys(Arc<KeyRing>);

impl KeyRegistry for Keys {
    fn current(&self) -> Arc<KeyRing> {
        self.0.clone()
    }

    fn used(&self, _: &str) {}
}

/// A server without a socket. What is in its store outlives it.
pub struct Place {
    folder: TempDir,
    keys: Arc<KeyRing>,
    /// What to send, by the keys' names.
    secrets: HashMap<&'static str, String>,
    settings: ApiSettings,
    rules: Rules,
    pub app: App,
    router: Router,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// That it is a problem of this status.
    #[track_caller]
    pub fn refused(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.json()["status"], status);
        self.json()
    }
}

impl Place {
    pub async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    pub async fn with(set: impl FnOnce(&mut ApiSettings, &mut Rules)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("spool")).unwrap();
        let mut ring = KeyRing::default();
        let mut secrets = HashMap::new();
        for (name, role, logs, organisations) in [
            ("sender", Role::Write, &[][..], &[][..]),
            ("other", Role::Write, &[], &[]),
            ("reader", Role::Read, &[], &[]),
            ("elsewhere", Role::Write, &["auditlog"], &[]),
            ("bounded", Role::Write, &[], &["974761076"]),
            ("admin", Role::Admin, &[], &[]),
            ("auditor", Role::Audit, &[], &[]),
            ("other auditor", Role::Audit, &["auditlog"], &[]),
            ("bounded auditor", Role::Audit, &[], &["974761076"]),
        ] {
            let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
            let (logs, organisations) = (owned(logs), owned(organisations));
            let new = NewKey { name: name.into(), role, logs, organisations, expires: None };
            secrets.insert(name, ring.create(new, Utc::now()).unwrap().1);
        }
        let mut settings = ApiSettings { spool: Some(folder.path().join("spool")), ..ApiSettings::default() };
        let mut rules = Rules::default();
        set(&mut settings, &mut rules);
        let keys = Arc::new(ring);
        let (app, router) = open(&folder, &keys, &settings, &rules, |_| ());
        Place { folder, keys, secrets, settings, rules, app, router }
    }

    /// Stops, in an orderly way or not, and starts again over the same store.
    pub async fn restart(&mut self, orderly: bool) {
        if orderly {
            self.app.catalog.close().await.unwrap();
        }
        self.set_up(|_| ());
    }

    /// Starts over the same store with something else set.
    pub fn set_up(&mut self, set: impl FnOnce(&mut AppState)) {
        (self.app, self.router) = open(&self.folder, &self.keys, &self.settings, &self.rules, set);
    }

    /// The same with other rules.
    pub async fn restart_with(&mut self, set: impl FnOnce(&mut Rules)) {
        set(&mut self.rules);
        self.restart(true).await;
    }

    /// Asks another process, as it were, over the same store.
    pub fn router_over(&mut self, app: App) {
        self.router = served(app);
    }

    /// The routes within their layers.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What to send as this key.
    pub fn secret(&self, key: &str) -> &str {
        &self.secrets[key]
    }

    pub fn request(&self, key: &str, path: &str) -> axum::http::request::Builder {
        Request::post(path).header("apikey", &self.secrets[key])
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Sends JSON to `path`.
    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(
            self.request("sender", path)
                .header("content-type", "application/json")
                .body(body.into())
                .unwrap(),
        )
        .await
    }

    /// The same with an `Idempotency-Key`.
    pub async fn post_once(&self, path: &str, key: &str, body: impl Into<Body>) -> Answer {
        let request = self.request("sender", path).header("idempotency-key", key);
        self.send(request.header("content-type", "application/json").body(body.into()).unwrap()).await
    }

    /// All entries of a log.
    pub async fn entries(&self, log: &str) -> Vec<Value> {
        self.column(log, None).await
    }

    /// The envelopes of all entries of a log, which are not part of the entry.
    pub async fn envelopes(&self, log: &str) -> Vec<Value> {
        self.column(log, Some("envelope")).await
    }

    async fn column(&self, log: &str, column: Option<&str>) -> Vec<Value> {
        use arrow::array::{Array, AsArray};
        let Some(log) = self.app.catalog.log(log).await.unwrap() else { return Vec::new() };
        let batches: Vec<_> = log.read(0, None).try_collect().await.unwrap();
        let mut values = Vec::new();
        for batch in batches {
            let (ids, received) = numbers(&batch).unwrap();
            let mut writer = EntryWriter::new(log.name(), log.kind(), &batch).unwrap();
            for row in 0..batch.num_rows() {
                values.push(match column {
                    Some(column) => {
                        let texts = batch.column_by_name(column).unwrap().as_string::<i32>();
                        texts.is_valid(row).then(|| texts.value(row)).into()
                    }
                    None => {
                        let mut out = Vec::new();
                        writer.write_entry(row, ids.value(row) as u64, received.value(row), &mut out);
                        serde_json::from_slice(&out).unwrap()
                    }
                });
            }
        }
        values
    }

    pub fn store(&self) -> String {
        self.folder.path().join("store").display().to_string()
    }

    /// What lies in the spool's folder.
    pub fn spooled(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("spool")).unwrap().count()
    }
}

/// The routes within their layers.
fn served(app: App) -> Router {
    let own = limits(&app.settings);
    layers(routes(app), &ServerSettings::default(), Rates::new(&Default::default()), own)
}

fn open(
    folder: &TempDir,
    keys: &Arc<KeyRing>,
    settings: &ApiSettings,
    rules: &Rules,
    set: impl FnOnce(&mut AppState),
) -> (App, Router) {
    let address = folder.path().join("store").display().to_string();
    let store = Store::open(StoreOptions { address, create: true, ..StoreOptions::default() }).unwrap();
    let access = AccessControl::new(&Default::default(), Arc::new(Keys(keys.clone()))).unwrap();
    let mut state = AppState::new(Catalog::new(store, []), access, settings.clone(), rules.clone());
    set(&mut state);
    let app = App::from(state);
    let router = served(app.clone());
    (app, router)
}

/// A disclosure that gives no cause for remarks.
pub fn disclosure() -> Value {
    json!({
        "person": "25922947409", "mottaker": "974761076", "tema": "PEN", "behandlingsGrunnlag": "hjemmel",
        "uthentingsTidspunkt": "2018-10-19T12:24:21.675", "leverteData": "e30=",
    })
}

/// The same with one field changed.
pub fn disclosure_with(field: &str, value: impl Into<Value>) -> Value {
    let mut disclosure = disclosure();
    disclosure[field] = value.into();
    disclosure
}
