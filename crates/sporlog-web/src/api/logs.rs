//! Any log, by its ids: how far it goes, what is in it, and the proof of it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use sporlog_ledger::{Error, Log};
use utoipa::ToSchema;

use super::page::{Bounds, Page, Shape};
use super::params::Params;
use super::reader::Reader;
use crate::access::Permission;
use crate::app::App;
use crate::problem::Problem;
use crate::server::Class;

/// Records of a page, unless something else is asked for, and at most.
const PAGE: u64 = 100;
const MAX_PAGE: u64 = 1_000;
/// The longest that a request may wait for a log to move on, in seconds.
pub(super) const MAX_WAIT: u64 = 60;
/// A log that another process writes to, or that is begun by another, is looked at again so often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How far a log goes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Head {
    /// The newest id; 0 when the log is empty.
    #[schema(example = 7192, minimum = 0)]
    pub head: u64,
}

/// A log.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogInfo {
    /// Its name.
    #[schema(example = "auditlog")]
    name: String,
    /// What its records are.
    #[schema(example = "auditlog")]
    kind: &'static str,
    /// The oldest id that retention has left; one above `head` if there is none.
    first: u64,
    /// The newest id; 0 when the log is empty.
    head: u64,
    /// The public key that its checkpoints are signed with (C2SP signed-note).
    vkey: String,
}

/// The logs that you may read and that have been begun.
#[utoipa::path(get, path = "/api/logs", tag = "Logs",
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "By name", body = Vec<LogInfo>),
        (status = 400, description = "The request says twice who asks", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn list(State(app): State<App>, reader: Reader) -> Result<Json<Vec<LogInfo>>, Problem> {
    let mut logs = Vec::new();
    for name in app.catalog.names().await? {
        if reader.principal.require(Permission::Read, &name).is_ok()
            && let Some(log) = app.catalog.log(&name).await?
        {
            let (kind, vkey) = (log.kind().name(), log.vkey().to_owned());
            logs.push(LogInfo { name, kind, first: log.first(), head: log.head(), vkey });
        }
    }
    Ok(Json(logs))
}

/// How far the log goes. Cheap; with `wait`, answered as soon as it goes further.
#[utoipa::path(get, path = "/api/logs/{log}/head", tag = "Logs",
    params(
        ("log" = String, Path, description = "The log's name", example = "auditlog"),
        ("wait" = Option<u64>, Query, description = "Wait for up to so many seconds for the log to move on", minimum = 0, maximum = 60),
        ("after" = Option<u64>, Query, description = "With `wait`: answer at once if the head is above this already", format = "uint64", minimum = 0),
    ),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "The newest id", body = Head),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not read this log", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such log", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn head(
    State(app): State<App>,
    Path(log): Path<String>,
    RawQuery(query): RawQuery,
    reader: Reader,
) -> Result<Response, Problem> {
    head_of(&app, &log, query.as_deref(), &reader).await
}

/// See [`head`].
pub(super) async fn head_of(
    app: &App,
    name: &str,
    query: Option<&str>,
    reader: &Reader,
) -> Result<Response, Problem> {
    let head = |log: Option<&Log>| log.map_or(0, Log::head);
    let mut log = reader.log(app, name).await?;
    let mut now = head(log.as_ref());
    if query.is_some() {
        let params = Params::new(query);
        let wait = params.number_within("wait", 0, MAX_WAIT)?.unwrap_or(0);
        let after = params.number("after")?.unwrap_or(now);
        let until = tokio::time::Instant::now() + Duration::from_secs(wait);
        while now <= after && !app.is_stopping() {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                break;
            }
            reader.permit.move_to(Class::LongPoll)?;
            // Asked for before the head is read again, so that no move is missed in between.
            let changes = log.as_ref().map(Log::changes);
            now = head(log.as_ref());
            if now > after {
                break;
            }
            match changes {
                Some(changes) => app.wait(left.min(LOOK_AGAIN), changes).await,
                None => app.wait(left.min(LOOK_AGAIN), std::future::pending()).await,
            }
            log = app.catalog.log(name).await?;
            now = head(log.as_ref());
        }
    }
    Ok(Json(Head { head: now }).into_response())
}

/// Entries with ids above `after`, ascending.
///
/// Keep the last id that you have read and go on from there: every entry comes exactly once. An entry
/// is `{"log","id","receivedAt","origin","remarks","record"}`, with `envelope` before `record` if its
/// message carried more than the record; in just the bytes that the transparency log commits to.
#[utoipa::path(get, path = "/api/logs/{log}/read", tag = "Logs",
    params(
        ("log" = String, Path, description = "The log's name", example = "revision"),
        ("after" = Option<u64>, Query, description = "The last id that you have read; 0 if none", format = "uint64", minimum = 0),
        ("limit" = Option<u64>, Query, description = "At most so many; 100 unless something else is said", minimum = 1, maximum = 1000),
    ),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "Entries; fewer than asked for, or none, at the log's end", body = Vec<Object>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not read this log", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such log", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn read(
    State(app): State<App>,
    Path(log): Path<String>,
    RawQuery(query): RawQuery,
    reader: Reader,
) -> Result<Response, Problem> {
    let params = Params::new(query.as_deref());
    let after = params.number("after")?.unwrap_or(0);
    let limit = params.number_within("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    page_of(&app, &log, after, limit, Shape::Entries, &reader).await
}

/// A page of a log.
pub(super) async fn page_of(
    app: &App,
    name: &str,
    after: u64,
    limit: u64,
    shape: Shape,
    reader: &Reader,
) -> Result<Response, Problem> {
    let log = reader.log(app, name).await?;
    let Some(log) = log.filter(|log| after < log.head()) else {
        return Ok(Json(json!([])).into_response());
    };
    let bounds = Bounds::of(&reader.principal, log.kind())?;
    let message = format!("read {name} after {after}");
    let recorded = reader.record(app, "READ", message, json!({"log": name, "after": after, "limit": limit}));
    let batches = log.read(after, bounds.are_open().then_some(limit));
    let page = Page { log: name.to_owned(), kind: log.kind(), batches, limit, shape, bounds };
    page.respond(recorded).await
}

/// One entry: the bytes that the transparency log commits to.
#[utoipa::path(get, path = "/api/logs/{log}/entries/{id}", tag = "Logs",
    params(
        ("log" = String, Path, description = "The log's name", example = "revision"),
        ("id" = u64, Path, description = "The entry's id", minimum = 1),
    ),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "The entry", body = Object),
        (status = 400, description = "The request says twice who asks", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not read this log", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such log or entry", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn entry(
    State(app): State<App>,
    Path((log, id)): Path<(String, String)>,
    reader: Reader,
) -> Result<Response, Problem> {
    let (log, id) = one(&app, &log, &id, "READ", &reader).await?;
    let entry = log.entry(id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], entry).into_response())
}

/// The proof that an entry is in the log, as C2SP tlog-proof has it; its `extra` is the salt (16 bytes)
/// and the entry.
#[utoipa::path(get, path = "/api/logs/{log}/entries/{id}/proof", tag = "Logs",
    params(
        ("log" = String, Path, description = "The log's name", example = "revision"),
        ("id" = u64, Path, description = "The entry's id", minimum = 1),
    ),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "The proof", body = String, content_type = "text/plain"),
        (status = 400, description = "The request says twice who asks", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not read this log", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such log or entry", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn proof(
    State(app): State<App>,
    Path((log, id)): Path<(String, String)>,
    reader: Reader,
) -> Result<Response, Problem> {
    let (log, id) = one(&app, &log, &id, "PROVE", &reader).await?;
    let proof = log.prove(id).await?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((content_type, proof).into_response())
}

/// The log of an entry that the reader may see, and the entry's id; the access is recorded.
async fn one(app: &App, name: &str, id: &str, action: &str, reader: &Reader) -> Result<(Log, u64), Problem> {
    let no_such = || Problem::not_found(format!("the log '{name}' has no entry of this id for you"));
    let log = reader.log(app, name).await?.ok_or_else(no_such)?;
    let digits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    let id = digits.then(|| id.parse::<u64>().ok()).flatten().ok_or_else(no_such)?;
    let bounds = Bounds::of(&reader.principal, log.kind())?;
    if !bounds.are_open() {
        let record = log.record(id).await.map_err(|error| match error {
            Error::NoSuchRecord { .. } => no_such(),
            error => error.into(),
        })?;
        if !bounds.admit(log.kind(), &record, 0) {
            return Err(no_such());
        }
    }
    let message = format!("{} entry {id} of {name}", action.to_lowercase());
    reader.record(app, action, message, json!({"log": name, "id": id})).await?;
    Ok((log, id))
}
