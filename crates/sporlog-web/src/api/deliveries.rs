//! Whole files by HTTP: spooled until they are there to the last byte, then imported with a receipt.
//!
//! A body that breaks off is never imported. A file is taken at most once, by the digest of its bytes,
//! so whoever is unsure just sends it again.

use axum::Json;
use axum::body::HttpBody;
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use metrics::counter;
use serde::Serialize;
use sporlog_exchange::Receipt;
use sporlog_exchange::receipt::{Earlier, Note, Outcome, delivery_id};
use sporlog_exchange::register::BY_HTTP;
use sporlog_intake::Error;
use sporlog_intake::delivery::{Options, damage};
use sporlog_intake::import::import;
use sporlog_intake::spool::{Spool, Spooled};
use sporlog_ledger::Error as LedgerError;
use sporlog_record::Kind;

use super::content;
use super::delivered::Delivery;
use super::file_name::file_name;
use super::params::Params;
use super::sender::Sender;
use crate::app::App;
use crate::problem::Problem;
use crate::server::metrics::INTAKE_RECORDS;
use crate::server::{Class, RequestPermit};

/// How often an import is begun anew because others have appended meanwhile.
const TRIES: usize = 3;

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
        ("kind" = Option<String>, Query, description = "What is in the file: `revision` (CSV), `disclosure`, `auditlog` or `mfa` (JSON); if not said, what the log holds", pattern = "^(revision|disclosure|auditlog|mfa)$"),
        ("file" = Option<String>, Query, description = "The file's name, which the receipt and the records' origin show; `Content-Disposition` may give it instead", example = "day.csv"),
    ),
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"), (String = "application/gzip"), (String = "application/zstd"), (String = "application/octet-stream")), description = "The file"),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 201, description = "Taken in; rows that were refused alone are in the quarantine", body = Delivery, content_type = "application/json"),
        (status = 200, description = "The same bytes are there already, since `alreadySince`; nothing was stored now", body = Delivery, content_type = "application/json"),
        (status = 400, description = "The body broke off, or a parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not deliver files into this log", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such log", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The file is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is no file of records", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The file is refused whole, for the reasons in `refused`; nothing was stored", body = Delivery, content_type = "application/json"),
        (status = 503, description = "Too many deliveries are under way, or not at this moment; try again", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn deliver(
    State(app): State<App>,
    permit: RequestPermit,
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
    permit.move_to(Class::Delivery)?;
    let spooled = spool(&app, request, limit).await?;
    let taken_at = Utc::now();
    let account = format!("{BY_HTTP}{}", sender.principal.name);
    let begun = Receipt::begun(&delivery_id(taken_at), &account, name, &log, taken_at);
    let receipt = import_spooled(&app, kind, &spooled, begun).await?;
    register(&app, &receipt).await;
    let duplicates = u64::from(receipt.outcome == Outcome::Repeated);
    for (outcome, records) in
        [("accepted", receipt.accepted), ("refused", receipt.quarantined), ("duplicate", duplicates)]
    {
        if records > 0 {
            let labels =
                [("source", "delivery".to_owned()), ("log", log.clone()), ("outcome", outcome.to_owned())];
            counter!(INTAKE_RECORDS, &labels).increment(records);
        }
    }
    let status = match receipt.outcome {
        Outcome::Accepted => StatusCode::CREATED,
        Outcome::Repeated => StatusCode::OK,
        Outcome::Refused => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let already_since = receipt.repeats.as_ref().map(|earlier| earlier.received_at);
    Ok((status, Json(Answer { receipt, kind, already_since })).into_response())
}

/// A receipt as those of the exchange are, with what a sender of files of several kinds wants to see.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(flatten)]
    receipt: Receipt,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    already_since: Option<DateTime<Utc>>,
}

/// Adds a delivery to the register. Its rows are stored already, so a failure is none of the sender's.
async fn register(app: &App, receipt: &Receipt) {
    let Some(register) = app.register.clone() else { return };
    let (delivery, receipt) = (receipt.delivery.clone(), receipt.clone());
    let added = tokio::task::spawn_blocking(move || register.add(&receipt)).await;
    if let Err(error) = added.unwrap_or_else(|error| Err(error.into())) {
        tracing::error!(delivery, %error, "the delivery is missing in the register");
    }
}

/// The log that a delivery is for, and what it holds.
async fn target(app: &App, params: &Params<'_>, sender: &Sender) -> Result<(String, Kind), Problem> {
    let wanted = match params.text("kind")? {
        None => None,
        Some(name) => {
            let kind = name.parse().ok().filter(|kind| Kind::DELIVERED.contains(kind));
            let unknown = || Problem::bad_request("'kind' has to be revision, disclosure, auditlog or mfa");
            Some(kind.ok_or_else(unknown)?)
        }
    };
    let settings = &app.settings;
    let log = params.text("log")?.unwrap_or(match wanted {
        Some(Kind::Disclosure) => &settings.disclosure,
        Some(Kind::Auditlog) => &settings.auditlog,
        Some(Kind::Mfa) => &settings.mfa,
        Some(Kind::Revision | Kind::Quarantine) | None => &settings.revision,
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
        let folder = app.settings.spool.as_ref().map(|folder| folder.display());
        tracing::error!(%error, folder = folder.map(tracing::field::display), "a delivery could not be spooled");
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

/// Imports the file; tries again when others have appended to the log meanwhile. Gives `begun`, filled in.
async fn import_spooled(
    app: &App,
    kind: Kind,
    spooled: &Spooled,
    begun: Receipt,
) -> Result<Receipt, Problem> {
    let mut tries = 1;
    loop {
        match try_import(app, kind, spooled, &begun).await {
            Ok(receipt) => {
                let seconds = (Utc::now() - begun.taken_at).to_std().unwrap_or_default().as_secs_f64();
                return Ok(Receipt { seconds, ..receipt });
            }
            Err(Error::Overtaken(_)) if tries < TRIES => tries += 1,
            Err(Error::Ledger(failure)) => {
                if let LedgerError::Stopped { log, .. } = &failure {
                    app.catalog.forget(log).await;
                }
                let again = matches!(failure, LedgerError::Fenced { .. } | LedgerError::Stopped { .. });
                if !again || tries == TRIES {
                    return Err(failure.into());
                }
                tries += 1;
            }
            Err(Error::Read { source, .. }) if let Some(damage) = damage(&source) => {
                return Ok(Receipt { bytes: spooled.bytes(), refused: vec![Note::from(&damage)], ..begun });
            }
            Err(failure) => return Err(Problem::internal(&failure)),
        }
    }
}

async fn try_import(app: &App, kind: Kind, spooled: &Spooled, begun: &Receipt) -> Result<Receipt, Error> {
    let writer = app.catalog.writer(&begun.log).await?;
    let overlap =
        app.exchange.as_ref().map(|exchange| exchange.settings.now().overlap_policy()).unwrap_or_default();
    let options = Options { overlap, ..Options::new(kind, app.rules()) };
    let source = spooled.source(&begun.file)?;
    let import = import(&writer, app.catalog.quarantine(), source, options, |_| ()).await?;
    let receipt = Receipt {
        received_at: import.received_at,
        first_id: import.first_id,
        last_id: import.last_id,
        ..begun.clone().of_import(&import)
    };
    Ok(match import.already_since {
        None => Receipt { overlaps: import.overlaps, ..receipt },
        Some(received_at) => {
            let earlier = Earlier { delivery: None, file: None, received_at, rows: None };
            Receipt { outcome: Outcome::Repeated, repeats: Some(earlier), ..receipt }
        }
    })
}
