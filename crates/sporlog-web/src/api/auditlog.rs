//! OS2faktor Login's audit-log API, to the letter of its description.
//!
//! A client polls `head` and reads on from the last id that it has; ids ascend, and none ever becomes
//! visible below one that has been given out.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::logs::{Head, head_of, page_of};
use super::page::Shape;
use super::params::Params;
use super::reader::Reader;
use crate::app::App;
use crate::problem::Problem;

/// Records of a page.
pub(super) const PAGE: u64 = 100;

/// The newest id; 0 when the log is empty. Cheap: poll it.
#[utoipa::path(get, path = "/api/auditlog/head", tag = "Audit log (OS2faktor)",
    params(
        ("wait" = Option<u64>, Query, description = "Wait for up to so many seconds for the log to move on", minimum = 0, maximum = 60),
        ("after" = Option<u64>, Query, description = "With `wait`: answer at once if the head is above this already", format = "uint64", minimum = 0),
    ),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "The newest id", body = Head),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not read this log", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn head(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    reader: Reader,
) -> Result<Response, Problem> {
    head_of(&app, &app.settings.auditlog, query.as_deref(), &reader).await
}

/// Up to 100 records with an id above `offset`, ascending.
#[utoipa::path(get, path = "/api/auditlog/read", tag = "Audit log (OS2faktor)",
    params(("offset" = Option<u64>, Query, description = "The last id that you have read; 0 if none", format = "uint64", minimum = 0)),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "Records; none at the log's end", body = Vec<AuditRecord>),
        (status = 400, description = "The offset is no non-negative integer", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not read this log", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn read(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    reader: Reader,
) -> Result<Response, Problem> {
    let after = Params::new(query.as_deref()).number("offset")?.unwrap_or(0);
    page_of(&app, &app.settings.auditlog, after, PAGE, Shape::Records, &reader).await
}

/// An audit record. All keys are always present, `null` where something is unknown.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, non_snake_case, reason = "it describes what is written elsewhere")]
pub struct AuditRecord {
    /// Its id, by which to read on.
    id: u64,
    /// When it happened, local time.
    #[schema(example = "2022-07-26T06:50:55", required)]
    tts: Option<String>,
    /// The address of whoever did it.
    #[schema(required)]
    ipAddress: Option<String>,
    /// The same for all records of a session.
    #[schema(required)]
    correlationId: Option<String>,
    /// The person it is about, by the source's own number.
    #[schema(required)]
    personId: Option<i64>,
    /// That person's name.
    #[schema(required)]
    personName: Option<String>,
    /// That person's CPR number.
    #[schema(required)]
    cpr: Option<String>,
    /// Who did it, if it was somebody else.
    #[schema(required)]
    performerId: Option<i64>,
    /// Their name.
    #[schema(required)]
    performerName: Option<String>,
    /// What was done: `LOGIN`, `LOGOUT`, `WRONG_PASSWORD`, `CPR_LOOKUP` and others; an open list.
    #[schema(required)]
    logAction: Option<String>,
    /// The same in a few words.
    #[schema(required)]
    message: Option<String>,
    /// The domain that the person belongs to.
    #[schema(required)]
    personDomain: Option<String>,
    /// The person's account there.
    #[schema(required)]
    samaccountName: Option<String>,
    /// What `detailContent` is: `JSON`, `XML` or `TEXT`; in old records `XML_ZIP`, Base64 of raw deflate.
    #[schema(required)]
    detailType: Option<String>,
    /// Details; can be large.
    #[schema(required)]
    detailContent: Option<String>,
    /// More details; can be large.
    #[schema(required)]
    detailSupplement: Option<String>,
}
