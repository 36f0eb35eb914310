//! What handlers work with, and the whole of the routes.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use sporlog_exchange::{LiveSettings, Register};
use sporlog_intake::names::{Names, NamesFiles};
use sporlog_record::Rules;
use tokio::sync::watch;

use crate::access::AccessControl;
use crate::api::settings::ApiSettings;
use crate::catalog::Catalog;
use crate::pages::configured::Pages;
use crate::sign_in::ways::SignIn;

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<AppState>);

/// What an [`App`] has. A field that may be missing is `None` until it is set, before the app is made.
pub struct AppState {
    /// The logs.
    pub catalog: Catalog,
    /// Who asks.
    pub access: AccessControl,
    /// What is served, and from where.
    pub settings: ApiSettings,
    rules: Rules,
    /// The exchange that deliveries come over.
    pub exchange: Option<Exchange>,
    /// The register of deliveries, which is the exchange's if there is one.
    pub register: Option<Register>,
    /// How persons sign in, if they can.
    pub sign_in: Option<SignIn>,
    /// The pages for persons, as they are configured.
    pub pages: Pages,
    /// Registers of names.
    pub names: Option<Arc<NamesFiles>>,
    /// Turns true when the server is about to stop.
    stopping: watch::Sender<bool>,
}

/// The exchange that deliveries come over.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Who takes part.
    pub settings: LiveSettings,
    /// Its folder.
    pub root: PathBuf,
}

impl AppState {
    /// Records are judged by `rules`.
    pub fn new(catalog: Catalog, access: AccessControl, settings: ApiSettings, rules: Rules) -> Self {
        AppState {
            catalog,
            access,
            settings,
            rules,
            exchange: None,
            register: None,
            sign_in: None,
            pages: Pages::default(),
            names: None,
            stopping: watch::channel(false).0,
        }
    }
}

impl From<AppState> for App {
    fn from(state: AppState) -> Self {
        App(Arc::new(state))
    }
}

impl App {
    /// What organisations, topics and systems are called.
    pub fn names(&self) -> Names {
        self.names.as_ref().map(|names| names.current()).unwrap_or_default()
    }

    /// How records are judged now.
    pub fn rules(&self) -> Rules {
        Rules { now: chrono::Local::now().naive_local(), ..self.rules.clone() }
    }

    /// Tells those who wait for something to happen that the server is about to stop.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits for `what`, but not longer than `limit`, nor while the server wants to stop.
    pub async fn wait(&self, limit: Duration, what: impl Future<Output = ()>) {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            () = what => {}
            () = tokio::time::sleep(limit) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Whether the server is about to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

impl Deref for App {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.0
    }
}

impl FromRef<App> for AccessControl {
    fn from_ref(app: &App) -> Self {
        app.access.clone()
    }
}
