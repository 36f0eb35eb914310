//! What was delivered, what is missing and since when, for those who look after it.
//!
//! Deliveries and suppliers are no personal data, so an access to them is not recorded; nor is it shown what
//! stood in a row that was refused. File names and ids are all that is told of a delivery's content.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use chrono::{DateTime, NaiveTime, Utc};
use sporlog_exchange::monitor::{self, Query, SupplierStatus};
use sporlog_exchange::receipt::{Note, Outcome};
use sporlog_exchange::{Receipt, Register};
use sporlog_record::identifier::mask_text;
use sporlog_record::time::parse_date;

use super::params::Params;
use super::reader::Reader;
use crate::access::Permission;
use crate::app::{App, Exchange};
use crate::problem::Problem;

mod schema;

pub(super) use schema::Delivery;
use schema::Supplier;

/// Deliveries of a page, unless something else is asked for, and at most.
const PAGE: u64 = 100;
const MAX_PAGE: u64 = 1_000;

/// The files that were delivered, over SFTP and by HTTP, and what became of each, the newest first.
///
/// To read on, ask again with the last delivery's id as `before`: each comes exactly once, also while new
/// ones come in. Takes the role `audit` or `admin` for the log that the exchange delivers into.
#[utoipa::path(get, path = "/api/deliveries", tag = "Deliveries",
    params(
        ("before" = Option<String>, Query, description = "Only what was taken before the delivery with this id", example = "20261103T061500Z-5f0c9ab1"),
        ("limit" = Option<u64>, Query, description = "At most so many; 100 unless something else is said", minimum = 1, maximum = 1000),
        ("account" = Option<String>, Query, description = "Only this supplier's; `http:` and the key's name for what came by HTTP", example = "ky-leverandoer"),
        ("outcome" = Option<String>, Query, description = "Only what was decided so", pattern = "^(accepted|repeated|refused)$", example = "refused"),
        ("since" = Option<String>, Query, description = "Only what was taken on this day (UTC) or later", format = "date", example = "2026-11-03"),
    ),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "Deliveries; fewer than asked for, or none, at the end", body = Vec<Delivery>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not see this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no delivery with the id in `before`, or no register", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn list(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    reader: Reader,
) -> Result<Json<Vec<Receipt>>, Problem> {
    let query = Query { logs: reader.principal.logs.clone(), ..wanted(&Params::new(query.as_deref()))? };
    let no_such = || Problem::not_found("there is no delivery with the id in 'before'");
    let register = register(&app, &reader)?;
    let found = blocking(move || monitor::list(&register, &query)).await?;
    Ok(Json(found.ok_or_else(no_such)?.into_iter().map(masked).collect()))
}

/// The suppliers: who is on time, since when a delivery is missing, what came in the last 35 days, and
/// whether the newest day brought as many rows as usual.
///
/// A volume is `low` with less than a third, and `high` with more than three times, the median of the last
/// eight days of the same weekday. Takes the role `audit` or `admin` for the log that the exchange delivers into.
#[utoipa::path(get, path = "/api/deliveries/suppliers", tag = "Deliveries",
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "In the order of the configuration", body = Vec<Supplier>),
        (status = 400, description = "The request says twice who asks", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not see this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no exchange", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn suppliers(State(app): State<App>, reader: Reader) -> Result<Json<Vec<SupplierStatus>>, Problem> {
    check(&app, &reader)?;
    let none = || Problem::not_found("there is no exchange here: the configuration has no section [sftp]");
    let Exchange { settings, root } = app.exchange.clone().ok_or_else(none)?;
    Ok(Json(blocking(move || monitor::suppliers(&settings.now(), &root, Utc::now())).await?))
}

/// One delivery: what became of it, without the rows that were refused, which stand in the supplier's
/// own receipt and in the quarantine.
#[utoipa::path(get, path = "/api/deliveries/{id}", tag = "Deliveries",
    params(("id" = String, Path, description = "The delivery's id", example = "20261103T061500Z-5f0c9ab1")),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "The delivery", body = Delivery),
        (status = 400, description = "The request says twice who asks, or is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not see this", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such delivery, or no register", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn one(
    State(app): State<App>,
    Path(id): Path<String>,
    reader: Reader,
) -> Result<Json<Receipt>, Problem> {
    let register = register(&app, &reader)?;
    let found = blocking(move || monitor::find(&register, &id)).await?;
    let found = found.filter(|delivery| reader.principal.covers(&delivery.log));
    let no_such = || Problem::not_found("there is no delivery with this id");
    Ok(Json(masked(found.ok_or_else(no_such)?)))
}

/// The register, for one who may read it.
fn register(app: &App, reader: &Reader) -> Result<Register, Problem> {
    check(app, reader)?;
    let none =
        || Problem::not_found("there is no register of deliveries here: set `sftp.root` to a folder for it");
    app.register.clone().ok_or_else(none)
}

/// Refuses whoever may not audit the log that the exchange delivers into.
fn check(app: &App, reader: &Reader) -> Result<(), Problem> {
    let delivered = app.exchange.as_ref().map(|exchange| exchange.settings.now().log.clone());
    let log = delivered.as_ref().unwrap_or(&app.settings.revision);
    reader.principal.require(Permission::Audit, log)?;
    if reader.principal.bounded_to().is_some() {
        let detail = "your key is bound to organisations, and deliveries hold rows of any";
        return Err(Problem::forbidden(detail));
    }
    Ok(())
}

/// Looks something up in a thread that may block.
async fn blocking<T, E>(look: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Problem>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let found = tokio::task::spawn_blocking(look).await.map_err(|error| Problem::internal(&error))?;
    found.map_err(|error| Problem::internal(&error))
}

fn wanted(params: &Params<'_>) -> Result<Query, Problem> {
    let limit = params.number_within("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let outcome = match params.text("outcome")? {
        None => None,
        Some("accepted") => Some(Outcome::Accepted),
        Some("repeated") => Some(Outcome::Repeated),
        Some("refused") => Some(Outcome::Refused),
        Some(_) => return Err(Problem::bad_request("'outcome' has to be accepted, repeated or refused")),
    };
    Ok(Query {
        logs: Vec::new(),
        accounts: params.text("account")?.map(str::to_owned).into_iter().collect(),
        outcome,
        since: params.text("since")?.map(first_moment).transpose()?,
        before: params.text("before")?.map(str::to_owned),
        limit: usize::try_from(limit).ok(),
    })
}

/// The beginning of a day, in UTC.
fn first_moment(day: &str) -> Result<DateTime<Utc>, Problem> {
    let expected = || Problem::bad_request("'since' has to be a date such as 2026-11-03");
    let day = parse_date(day).ok_or_else(expected)?;
    Ok(day.and_time(NaiveTime::MIN).and_utc())
}

/// Without personal numbers in what is remarked on the file, which may quote it.
fn masked(mut receipt: Receipt) -> Receipt {
    for Note { text, .. } in receipt.refused.iter_mut().chain(&mut receipt.file_remarks) {
        *text = mask_text(text).into_owned();
    }
    receipt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_strictly() {
        let status =
            |query: &str| wanted(&Params::new(Some(query))).map(|_| 200).unwrap_or_else(|p| p.status);
        for good in [
            "",
            "limit=1&account=a&outcome=refused&since=2026-11-03&before=x",
            "limit=1000",
            "since=0001-01-01",
            "since=9999-12-31",
            "account=",
            "before=",
            "unknown=1",
        ] {
            assert_eq!(status(good), 200, "{good}");
        }
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=99999999999999999999",
            "limit=x",
            "limit",
            "limit=1&limit=1",
            "outcome=",
            "outcome=Refused",
            "outcome=refused&outcome=refused",
            "since=",
            "since=2026-1-3",
            "since=%2B026-01-03",
            "since=2026-02-30",
            "since=2026-11-03T00:00:00Z",
            "since=-2026-1-03",
            "account=a&account=b",
            "before=a&before=b",
        ] {
            assert_eq!(status(wrong), 400, "{wrong}");
        }
    }
}
