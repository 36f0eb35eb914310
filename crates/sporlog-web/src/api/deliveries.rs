//! Whole files by HTTP: spooled until they are there to the last byte, then imported with a receipt.
//!
//! A body that breaks off is never imported. A file is taken at most once, by the digest of its bytes,
//! so whoever is unsure just sends it again.

use std::sync::Arc;

use axum::Json;
use axum::body::HttpBody;
use axum::extract::{Extension, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use metrics::counter;
use sporlog_intake::delivery::{Options, damage};
use sporlog_intake::import::{Receipt, import};
use sporlog_intake::spool::{Spool, Spooled};
use sporlog_ledger::Error as LedgerError;
use sporlog_record::Kind;
use tokio::sync::Semaphore;

use super::content;
use super::file_name::file_name;
use super::params::Params;
use super::sender::Sender;
use crate::app::App;
use crate::problem::Problem;
use crate::server::metrics::INTAKE_RECORDS;

/// Deliveries that may be under way at once.
const AT_ONCE: usize = 4;
/// How often an import is begun anew because others have appended meanwhile.
const TRIES: usize = 3;

/// Places for deliveries that are under way.
#[derive(Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Places(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Delivers a file: a revision log in CSV, or records in JSON.
///
/// The body is the file, as it is or packed with gzip or Zstandard. It is imported once all of it has
/// come, and the answer is its receipt: rows that are in order are stored as one commit, and others kept in
/// the quarantine. Rows of a revision log that the log has from another file are not stored again. A file whose very
/// bytes were delivered before is not stored again, so it may be sent again
/// whenever its fate is not known. Keys that are bound to organisations cannot deliver files.
#[utoipa::path(post, path = "/api/deliveries", tag = "Deliveries",
    params(
        ("log" = Option<String>, Query, description = "The log; if not said, the one that is configured for the kind", example = "revision"),
        ("kind" = Option<String>, Query, description = "What is in the file: `revision` (CSV), `disclosure` or `auditlog` (JSON); if not said, what the log holds", pattern = "^(revision|disclosure|auditlog)$"),
        ("file" = Option<String>, Query, description = "The file's name, which the receipt and the records' origin show; `Content-Disposition` may give it instead", example = "day.csv"),
    ),
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"), (String = "application/gzip"), (String = "application/zstd"), (String = "application/octet-stream")), description = "The file"),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 201, description = "Taken in; rows that were refused alone are in the quarantine", body = DeliveryReceipt, content_type = "application/json"),
        (status = 200, description = "The same bytes are there already, since `alreadySince`; nothing was stored now", body = DeliveryReceipt, content_type = "application/json"),
        (status = 400, description = "The body broke off, or a parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not deliver files into this log", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such log", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The file is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no file of records", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The file is refused whole, for the reasons in `refused`; nothing was stored", body = DeliveryReceipt, content_type = "application/json"),
        (status = 503, description = "Too many deliveries are under way, or not at this moment; try again", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn deliver(
    State(app): State<App>,
    Extension(places): Extension<Places>,
    RawQuery(query): RawQuery,
    sender: Sender,
    request: Request,
) -> Result<Response, Problem> {
    let params = Params::new(query.as_deref());
    let (log, kind) = target(&app, &params, &sender).await?;
    content::check_delivery(request.headers())?;
    let name = file_name(params.text("file")?, request.headers());
    let limit = app.settings.max_delivery_bytes;
    if request.body().size_hint().lower() > limit {
        return Err(too_large(limit));
    }
    let place = places.0.try_acquire().map_err(|_| {
        Problem::unavailable(format!("{AT_ONCE} deliveries are under way already; try again in a moment"))
    })?;
    let spooled = spool(&app, request, limit).await?;
    let receipt = import_spooled(&app, &log, kind, &spooled, &name).await?;
    drop(place);
    let duplicates = if receipt.already_since.is_some() { 1 } else { 0 };
    for (outcome, records) in
        [("accepted", receipt.accepted), ("refused", receipt.quarantined), ("duplicate", duplicates)]
    {
        if records > 0 {
            let labels =
                [("source", "delivery".to_owned()), ("log", log.clone()), ("outcome", outcome.to_owned())];
            counter!(INTAKE_RECORDS, &labels).increment(records);
        }
    }
    let status = match (&receipt.already_since, receipt.refused.is_empty()) {
        (_, false) => StatusCode::UNPROCESSABLE_ENTITY,
        (Some(_), true) => StatusCode::OK,
        (None, true) => StatusCode::CREATED,
    };
    Ok((status, Json(receipt)).into_response())
}

/// The log that a delivery is for, and what it holds.
async fn target(app: &App, params: &Params<'_>, sender: &Sender) -> Result<(String, Kind), Problem> {
    let wanted = match params.text("kind")? {
        None => None,
        Some(name) => {
            let kind = name.parse().ok().filter(|kind| Kind::DELIVERED.contains(kind));
            let unknown = || Problem::bad_request("'kind' has to be revision, disclosure or auditlog");
            Some(kind.ok_or_else(unknown)?)
        }
    };
    let settings = &app.settings;
    let log = params.text("log")?.unwrap_or(match wanted {
        Some(Kind::Disclosure) => &settings.disclosure,
        Some(Kind::Auditlog) => &settings.auditlog,
        _ => &settings.revision,
    });
    let kind = sender.kind(app, log).await?;
    if wanted.is_some_and(|wanted| wanted != kind) || !Kind::DELIVERED.contains(&kind) {
        let detail = format!("the log '{log}' holds {kind} records; nothing else can be delivered into it");
        return Err(Problem::bad_request(detail));
    }
    if sender.principal.bounded_to().is_some() {
        // A file is taken in by the import alone, which knows no bounds.
        let detail = "your key is bound to organisations, and files may be of any: deliver with another key";
        return Err(Problem::forbidden(detail));
    }
    Ok((log.to_owned(), kind))
}

/// The whole body, on disk.
async fn spool(app: &App, request: Request, limit: u64) -> Result<Spooled, Problem> {
    let no_place = |error: std::io::Error| {
        tracing::error!(%error, "a delivery could not be spooled");
        Problem::unavailable("there is no place for the file at this moment; try again later")
    };
    let body = request.into_body();
    let announced = body.size_hint().exact();
    let mut spool = Spool::begin(app.settings.spool.as_deref()).await.map_err(no_place)?;
    let mut pieces = body.into_data_stream();
    let broke_off = || Problem::bad_request("the body broke off; nothing was stored: send the file again");
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| broke_off())?;
        if spool.bytes() + piece.len() as u64 > limit {
            return Err(too_large(limit));
        }
        spool.write(&piece).await.map_err(no_place)?;
    }
    if announced.is_some_and(|announced| announced != spool.bytes()) {
        return Err(broke_off());
    }
    spool.finish().await.map_err(no_place)
}

fn too_large(limit: u64) -> Problem {
    let detail = format!("a delivery may have {limit} bytes at most; split it or pack it");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Imports the file; tries again when others have appended to the log meanwhile.
async fn import_spooled(
    app: &App,
    log: &str,
    kind: Kind,
    spooled: &Spooled,
    name: &str,
) -> Result<Receipt, Problem> {
    let mut tries = 1;
    loop {
        let writer = app.catalog.writer(log).await?;
        let source = spooled.source(name).map_err(|error| Problem::internal(&error))?;
        let begun = Receipt::begun(&source, kind, log);
        let overlap = app.exchange().map(|exchange| exchange.settings.overlap_policy()).unwrap_or_default();
        let options = Options { overlap, ..Options::new(kind, app.rules()) };
        let imported = import(&writer, app.catalog.quarantine(), source, options, |_| ()).await;
        match imported {
            Ok(receipt) => return Ok(receipt),
            Err(sporlog_intake::Error::Overtaken(_)) if tries < TRIES => tries += 1,
            Err(sporlog_intake::Error::Ledger(failure)) => {
                if let LedgerError::Stopped { log, .. } = &failure {
                    app.catalog.forget(log).await;
                }
                let again = matches!(failure, LedgerError::Fenced { .. } | LedgerError::Stopped { .. });
                if !again || tries == TRIES {
                    return Err(failure.into());
                }
                tries += 1;
            }
            Err(sporlog_intake::Error::Read { source, .. }) if let Some(damage) = damage(&source) => {
                return Ok(Receipt { refused: vec![damage], ..begun });
            }
            Err(failure) => return Err(Problem::internal(&failure)),
        }
    }
}

/// What became of a delivery.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, non_snake_case, reason = "it describes what is written elsewhere")]
pub struct DeliveryReceipt {
    /// The file's name.
    file: String,
    /// What its records are.
    kind: String,
    /// The log that they are in.
    log: String,
    /// The SHA-256 of the file as delivered, in hexadecimal; absent when it was not read to its end.
    #[schema(required = false)]
    sha256: String,
    /// The file's size as delivered.
    bytes: u64,
    /// Records stored.
    accepted: u64,
    /// Records refused, each kept in the quarantine.
    quarantined: u64,
    /// Remarks on accepted records, skipped ones included.
    remarks: u64,
    /// Rows that the log had before, from other files.
    overlapping: u64,
    /// Overlapping rows that were not stored again.
    skipped: u64,
    /// The first record's id, if any was stored.
    #[schema(required = false, minimum = 1)]
    firstId: u64,
    /// The last record's id.
    #[schema(required = false, minimum = 1)]
    lastId: u64,
    /// When it was received, RFC 3339.
    #[schema(required = false)]
    receivedAt: String,
    /// Since when the same bytes have been there, RFC 3339; then nothing was stored now.
    #[schema(required = false)]
    alreadySince: String,
    /// What the overlapping rows came in: when that was received, and how many rows it shares with this file.
    #[schema(required = false, value_type = Vec<Object>)]
    overlaps: (),
    /// Remarks on the file as a whole.
    #[schema(required = false, value_type = Vec<Object>)]
    fileRemarks: (),
    /// Why the file was refused whole; then nothing of it was stored.
    #[schema(required = false, value_type = Vec<Object>)]
    refused: (),
    /// The refused records: `line`, `column`, `field`, `rule`, `text`, and the row's `TransaktionsId`; the first 10,000
    /// of these notes.
    #[schema(required = false, value_type = Vec<Object>)]
    quarantinedRows: (),
    /// The remarks on accepted records, in the same shape; the first 10,000 of them.
    #[schema(required = false, value_type = Vec<Object>)]
    remarkedRows: (),
    /// How long it took, in seconds.
    seconds: f64,
}
