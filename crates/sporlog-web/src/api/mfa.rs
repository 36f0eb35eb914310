//! OS2faktor Login's MFA log, as its description has it: like the audit log ([`auditlog`](super::auditlog)), with other
//! records.

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::auditlog::PAGE;
use super::logs::{Head, head_of, page_of};
use super::page::Shape;
use super::params::Params;
use super::reader::Reader;
use crate::app::App;
use crate::problem::Problem;

/// The newest id; 0 when the log is empty. Cheap: poll it.
#[utoipa::path(get, path = "/api/auditlog/mfa/head", tag = "Audit log (OS2faktor)",
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
    head_of(&app, &app.settings.mfa, query.as_deref(), &reader).await
}

/// Up to 100 records with an id above `offset`, ascending.
#[utoipa::path(get, path = "/api/auditlog/mfa/read", tag = "Audit log (OS2faktor)",
    params(("offset" = Option<u64>, Query, description = "The last id that you have read; 0 if none", format = "uint64", minimum = 0)),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "Records; none at the log's end", body = Vec<MfaRecord>),
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
    page_of(&app, &app.settings.mfa, after, PAGE, Shape::Records, &reader).await
}

/// A log-in with a second factor. All keys are always present, `null` where something is unknown.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, non_snake_case, reason = "it describes what is written elsewhere")]
pub struct MfaRecord {
    /// Its id, by which to read on.
    id: u64,
    /// What kind of device it was.
    #[schema(required)]
    clientType: Option<String>,
    /// When the second factor was asked for, local time.
    #[schema(example = "2026-11-03 06:50:55", required)]
    createdTts: Option<String>,
    /// The device.
    #[schema(required)]
    deviceId: Option<String>,
    /// When the device fetched the request.
    #[schema(required)]
    fetchTts: Option<String>,
    /// When the request was sent to the device.
    #[schema(required)]
    pushTts: Option<String>,
    /// When the person answered.
    #[schema(required)]
    responseTts: Option<String>,
    /// What came of it.
    #[schema(required)]
    status: Option<String>,
    /// The system that asked.
    #[schema(required)]
    systemName: Option<String>,
    /// The person's account.
    #[schema(required)]
    username: Option<String>,
}
