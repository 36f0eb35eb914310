//! The pages over a store, asked as a browser would ask.

mod catalogue;
mod list;
mod permits;
mod record;
mod roles;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::DataType;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use sporlog_intake::access_event::LOG;
use sporlog_ledger::Append;
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::time::parse_iso;
use sporlog_record::{Kind, Position, Rules};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::server::{Rates, ServerSettings, layers};
use crate::sign_in::tests::{cookie_of, demo_app};

/// Two people of the synthetic series.
pub const KARI: &str = "25922947409";
pub const BO: &str = "6101010000";

pub struct Site {
    _folder: TempDir,
    pub app: App,
    router: Router,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Site {
    pub fn new(set: impl FnOnce(&mut PagesSettings)) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = PagesSettings::default();
        set(&mut settings);
        settings.check().expect("good settings");
        let app = demo_app(folder.path(), Pages::new(settings, Explanations::default(), None));
        let router = served(app.clone()).merge(crate::api::routes(app.clone()));
        let router = layers(router, &ServerSettings::default(), Rates::new(&Default::default()), []);
        Site { _folder: folder, app, router }
    }

    /// Appends records in the JSON of their kind.
    pub async fn put(&self, log: &str, records: &[Value]) {
        let kind = self.app.catalog.kind(log).await.expect("a kind");
        let rows = match kind {
            Kind::Revision => revision(records),
            _ => {
                let rules = Rules::default();
                let mut rows = RowsBuilder::for_few(kind, &rules);
                for record in records {
                    let judged =
                        rows.push(record.to_string().as_bytes(), "test", Position { line: 1, column: 1 });
                    assert!(matches!(judged, Judged::Accepted(_)), "{record}");
                }
                rows.finish()
            }
        };
        self.app.catalog.append(log, Append { rows, positions: Vec::new() }).await.expect("appended");
    }

    pub async fn get(&self, person: &str, path: &str) -> Answer {
        let cookie = if person.is_empty() { String::new() } else { cookie_of(&self.app, person) };
        self.ask(path, &[("cookie", &cookie), ("accept-language", "en")]).await
    }

    pub async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request =
            headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        let response = self.router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
        let (parts, body) = response.expect("answered").into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body").to_vec();
        let body = String::from_utf8(body).expect("text");
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// The actions that the log `access` has.
    pub async fn accesses(&self) -> Vec<String> {
        use arrow::array::AsArray;
        use futures::TryStreamExt;
        let Some(log) = self.app.catalog.log(LOG).await.expect("readable") else { return Vec::new() };
        let batches: Vec<_> = log.read(0, None).try_collect().await.expect("read");
        let actions = batches.iter().flat_map(|batch| {
            let actions = batch.column_by_name("logAction").expect("a column").as_string::<i32>().clone();
            actions.iter().map(|action| action.unwrap_or_default().to_owned()).collect::<Vec<_>>()
        });
        actions.collect()
    }
}

/// Rows of a revision log, from objects of texts.
fn revision(records: &[Value]) -> RecordBatch {
    let schema = Kind::Revision.row_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        let texts = records.iter().map(|record| record.get(field.name()).and_then(Value::as_str));
        match field.data_type() {
            DataType::Utf8 if field.name() == "origin" => {
                Arc::new(StringArray::from(vec!["test"; records.len()]))
            }
            DataType::Utf8 => Arc::new(texts.collect::<StringArray>()),
            DataType::Timestamp(..) => {
                let times =
                    records.iter().map(|r| parse_iso(r["TransaktionsTid"].as_str().expect("a time")).ok());
                Arc::new(times.collect::<TimestampMicrosecondArray>())
            }
            other => new_null_array(other, records.len()),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("rows")
}

/// A disclosure about Kari at this time.
pub fn disclosure(time: &str) -> Value {
    json!({
        "person": KARI, "mottaker": "974761076", "tema": "PEN", "behandlingsGrunnlag": "hjemmel",
        "uthentingsTidspunkt": time, "leverteData": "eyJhIjoxfQ==",
    })
}

/// The same with other fields.
pub fn disclosure_with(time: &str, fields: Value) -> Value {
    let mut disclosure = disclosure(time);
    for (name, value) in fields.as_object().expect("an object") {
        disclosure[name] = value.clone();
    }
    disclosure
}

/// The ids of the records that a list links to, in its order.
pub fn linked(body: &str) -> Vec<u64> {
    let links = body.split("href=\"/my/disclosure/").skip(1);
    links.map(|link| link.split('"').next().expect("a quote").parse().expect("an id")).collect()
}
