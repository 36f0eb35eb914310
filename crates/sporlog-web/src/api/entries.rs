//! Records into any log, many at a time, each judged by itself.

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::to_writer;
use sporlog_record::Position;
use sporlog_record::kind::Format;
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::content;
use super::idempotency::{IdempotencyKey, REPLAYED, Stored, quarantine, store};
use super::judge::{Batch, Judge, Verdict, error};
use super::params::Params;
use super::post::NewDisclosure;
use super::sender::Sender;
use crate::app::App;
use crate::problem::Problem;

/// Hands in records: a JSON object, an array of up to 10,000, or as many lines of JSON.
///
/// Each is judged by itself. What is in order is stored as one commit, in the order sent, and the answer
/// comes when it is durable; what is refused is answered with the reasons, and stored nowhere unless
/// `quarantine=true`. With a key that is bound to organisations, a record that names none of them is
/// refused by the rule `organisation`.
///
/// Send an `Idempotency-Key` if you may have to try again: the same request then gets the same answer, also
/// after a restart. A request of which everything is refused does not use its key up. `X-Correlation-ID`,
/// `traceparent` and `X-Request-ID` are kept with each record.
#[utoipa::path(post, path = "/api/logs/{log}/entries", tag = "Logs",
    params(
        ("log" = String, Path, description = "The log's name; it holds disclosures, audit records or MFA records", example = "auditlog"),
        ("quarantine" = Option<bool>, Query, description = "Whether what is refused goes into the quarantine as well; if not said, it does not"),
        ("Idempotency-Key" = Option<String>, Header, description = "Which request this is, by a text of your own; a retry says the same", min_length = 1, max_length = 255, pattern = "^[!-~]{1,255}$"),
    ),
    request_body(content((Entries = "application/json"), (String = "application/x-ndjson"))),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "All records are stored", body = EntryResults, content_type = "application/json",
            headers(("Idempotency-Replayed" = String, description = "`true` if they were stored by an earlier request with the same key"))),
        (status = 207, description = "Some records are stored, and some refused", body = EntryResults, content_type = "application/json",
            headers(("Idempotency-Replayed" = String, description = "`true` if they were stored by an earlier request with the same key"))),
        (status = 400, description = "There is no record, the array cannot be read, the log takes files only, or a parameter or header is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not deliver into this log", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such log", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large, or has too many records", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "All records are refused (`application/json`); or the Idempotency-Key came with another body before, or its records have expired (`application/problem+json`)",
            content((EntryResults = "application/json"), (Problem = "application/problem+json"))),
        (status = 503, description = "Not at this moment; try again", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn entries(
    State(app): State<App>,
    Path(log): Path<String>,
    RawQuery(query): RawQuery,
    sender: Sender,
    key: IdempotencyKey,
    request: Request,
) -> Result<Response, Problem> {
    let kind = sender.kind(&app, &log).await?;
    if !matches!(kind.format(), Format::Json(_)) {
        let detail = format!("the log '{log}' takes no single records: deliver files, to /api/deliveries");
        return Err(Problem::bad_request(detail));
    }
    let bounds = sender.bounds(kind)?;
    let into_quarantine = match Params::new(query.as_deref()).text("quarantine")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::bad_request("'quarantine' has to be true or false")),
    };
    let layout = content::layout(request.headers(), true)?;
    let body = content::read(request).await?;
    let once = key.once(&sender);
    let Sender { principal, envelope } = sender;
    let judge = Judge { kind, rules: app.rules(), sender: principal.name, bounds, envelope };
    let batch = judge.judge(body, layout).await?;
    let stored = store(&app, &log, &batch, once.as_ref()).await?;
    if into_quarantine {
        quarantine(&app, &log, kind, &batch, once.as_ref()).await?;
    }
    answer(&batch, &stored)
}

fn answer(batch: &Batch, stored: &Stored) -> Result<Response, Problem> {
    let refused = batch.records.len() - stored.kept.len().min(batch.records.len());
    let status = match (stored.kept.len(), refused) {
        (_, 0) => StatusCode::OK,
        (0, _) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::MULTI_STATUS,
    };
    let body = write(batch, stored, refused).map_err(|error| Problem::internal(&error))?;
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut response = (status, [json], body).into_response();
    if stored.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The answer as JSON: see [`EntryResults`]. Remarks are given as they are stored, so that an answer is the
/// same when it is given again.
fn write(batch: &Batch, stored: &Stored, refused: usize) -> serde_json::Result<Vec<u8>> {
    let head = format!("{{\"accepted\":{},\"refused\":{refused},\"results\":[", stored.kept.len());
    let mut out = head.into_bytes();
    let mut kept = stored.kept.iter().peekable();
    for (number, record) in batch.records.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"index\":{},", number + 1).as_bytes());
        match (kept.next_if(|kept| kept.line == record.line), &record.verdict) {
            (Some(kept), _) => {
                let remarks = kept.remarks.as_deref().unwrap_or("[]");
                out.extend_from_slice(format!("\"id\":{},\"remarks\":{remarks}", kept.id).as_bytes());
            }
            (None, Verdict::Refused(findings)) => {
                out.extend_from_slice(b"\"errors\":");
                to_writer(&mut out, findings)?;
            }
            // The rules have changed since the request was answered first.
            (None, Verdict::Accepted(_)) => {
                let text =
                    "the record was refused when the request was first answered: send it with another key";
                out.extend_from_slice(b"\"errors\":");
                to_writer(
                    &mut out,
                    &[error("idempotency", text, Position { line: record.line, column: 1 })],
                )?;
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Records that are handed in.
#[derive(utoipa::ToSchema)]
#[schema(title = "Entries")]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant, reason = "it describes what is read elsewhere")]
pub enum Entries {
    /// One.
    One(NewRecord),
    /// Several.
    Several(NewRecords),
}

/// Records of one kind.
#[derive(utoipa::ToSchema)]
#[schema(min_items = 1, max_items = 10_000)]
#[allow(dead_code, reason = "it describes what is read elsewhere")]
pub struct NewRecords(Vec<NewRecord>);

/// A record, of the log's kind: `anyOf`, as a record of one kind may have the fields of another, too.
pub struct NewRecord;

impl PartialSchema for NewRecord {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(NewDisclosure::name()))
            .item(Ref::from_schema_name(NewAuditRecord::name()))
            .item(Ref::from_schema_name(NewMfaRecord::name()))
            .description(Some("A record, of the log's kind: a disclosure, an audit record, or a log-in with a second factor."))
            .into()
    }
}

impl ToSchema for NewRecord {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((NewDisclosure::name().into(), NewDisclosure::schema()));
        schemas.push((NewAuditRecord::name().into(), NewAuditRecord::schema()));
        schemas.push((NewMfaRecord::name().into(), NewMfaRecord::schema()));
    }
}

/// A log-in with a second factor as it is handed in. Fields that are not known are kept.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, non_snake_case, reason = "it describes what is read elsewhere")]
pub struct NewMfaRecord {
    /// When the second factor was asked for: ISO 8601, local time, no zone, with a space or a `T`.
    #[schema(
        example = "2026-11-03 06:50:55",
        pattern = "^([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[048]|[2468][048]|[13579][26])00)-02-29)[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]{1,9})?)?$"
    )]
    createdTts: Option<String>,
    /// What kind of device it was.
    clientType: Option<String>,
    /// The device.
    deviceId: Option<String>,
    /// When the device fetched the request.
    fetchTts: Option<String>,
    /// When the request was sent to the device.
    pushTts: Option<String>,
    /// When the person answered.
    responseTts: Option<String>,
    /// What came of it.
    status: Option<String>,
    /// The system that asked.
    systemName: Option<String>,
    /// The person's account.
    username: Option<String>,
    /// The record's id where it comes from; `id` is taken as the same.
    sourceId: Option<i64>,
}

/// An audit record as it is handed in. Fields that are not known are kept.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, non_snake_case, reason = "it describes what is read elsewhere")]
pub struct NewAuditRecord {
    /// What was done: `LOGIN`, `LOGOUT`, `WRONG_PASSWORD`, `CPR_LOOKUP` and others; an open list.
    #[schema(min_length = 1, example = "LOGIN")]
    logAction: String,
    /// When it happened: ISO 8601, local time, no zone.
    #[schema(
        example = "2022-07-26T06:50:55",
        pattern = "^([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[048]|[2468][048]|[13579][26])00)-02-29)[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]{1,9})?)?$"
    )]
    tts: Option<String>,
    /// The address of whoever did it.
    ipAddress: Option<String>,
    /// The same for all records of a session.
    correlationId: Option<String>,
    /// The person it is about, by the source's own number.
    personId: Option<i64>,
    /// That person's name.
    personName: Option<String>,
    /// That person's CPR number.
    cpr: Option<String>,
    /// Who did it, if it was somebody else.
    performerId: Option<i64>,
    /// Their name.
    performerName: Option<String>,
    /// The same in a few words.
    message: Option<String>,
    /// The domain that the person belongs to.
    personDomain: Option<String>,
    /// The person's account there.
    samaccountName: Option<String>,
    /// What `detailContent` is: `JSON`, `XML`, `TEXT` or `XML_ZIP`.
    detailType: Option<String>,
    /// Details; can be large.
    detailContent: Option<String>,
    /// More details; can be large.
    detailSupplement: Option<String>,
    /// The record's id where it comes from; `id` is taken as the same.
    sourceId: Option<i64>,
}

/// What became of the records of a request.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "it describes what is written elsewhere")]
pub struct EntryResults {
    /// How many are stored.
    accepted: u64,
    /// How many are refused.
    refused: u64,
    /// Each of them, in the order sent.
    results: Vec<EntryResult>,
}

/// What became of one record: `id` and `remarks` if it is stored, and otherwise `errors`.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "it describes what is written elsewhere")]
pub struct EntryResult {
    /// Which of the request's records it is; from 1.
    #[schema(minimum = 1)]
    index: u64,
    /// Its id in the log.
    #[schema(minimum = 1, nullable = false)]
    id: Option<u64>,
    /// What is doubtful about it, as it is stored with it: `field`, `rule` and `text`.
    #[schema(value_type = Vec<Object>, required = false)]
    remarks: Option<()>,
    /// Why it is refused, as `sporlog check` says it; `line` and `column` are places in the body.
    #[schema(value_type = Vec<Object>, required = false)]
    errors: Option<()>,
}
