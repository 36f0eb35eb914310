//! A person's own disclosures, at the path and in the shape of the service that runs at NAV.

use axum::extract::State;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use sporlog_ledger::{Find, Key, find_in_all};
use sporlog_record::Kind;

use super::page::{Bounds, Page, Shape};
use super::reader::Trace;
use crate::access::Person;
use crate::app::App;
use crate::problem::Problem;

/// What has been handed out about you: to whom, when and on what ground; the newest first.
#[utoipa::path(get, path = "/api/les", tag = "Disclosures (Sporingslogg)",
    security(("token" = [])),
    responses(
        (status = 200, description = "Your disclosures", body = Vec<Disclosure>),
        (status = 400, description = "The request says twice who asks", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is missing or not valid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You have to sign in at a higher level", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn les(State(app): State<App>, person: Person, trace: Trace) -> Result<Response, Problem> {
    let logs = app.catalog.matching(Kind::Disclosure, &app.settings.les).await?;
    let names: Vec<_> = logs.iter().map(|log| log.name().to_owned()).collect();
    let parameters = json!({"logs": names, "issuer": &*person.issuer, "acr": person.acr});
    let message = "a person read their own disclosures".to_owned();
    let recorded = trace.record(&app, "the person", "LES", Some(&person.pid), message, parameters);
    let find = Find { key: Key::Subject(person.pid.clone()), from: None, to: None, limit: None };
    let batches = find_in_all(logs, find).map_ok(|(_, batch)| batch).boxed();
    let page = Page {
        log: app.settings.disclosure.clone(),
        kind: Kind::Disclosure,
        batches,
        limit: u64::MAX,
        shape: Shape::Own,
        bounds: Bounds::default(),
    };
    page.respond(recorded).await
}

/// What was handed out about a person. What is not known is left out.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, non_snake_case, reason = "it describes what is written and read elsewhere")]
pub struct Disclosure {
    /// The record's id in its log. Not sent in.
    #[schema(read_only)]
    id: Option<String>,
    /// The person: a fødselsnummer or D-number, 11 digits.
    #[schema(pattern = "^[0-9]{11}$")]
    person: String,
    /// To whom: an organisasjonsnummer, 9 digits.
    #[schema(pattern = "^[0-9]{9}$")]
    mottaker: String,
    /// What sort of data.
    #[schema(min_length = 3, max_length = 3)]
    tema: String,
    /// On what ground: consent, or a law.
    #[schema(min_length = 1, max_length = 1_000)]
    behandlingsGrunnlag: String,
    /// When it was fetched: ISO 8601, local time, no zone.
    #[schema(example = "2018-10-19T12:24:21.675")]
    uthentingsTidspunkt: String,
    /// The data, in Base64.
    #[schema(min_length = 1, max_length = 16_777_216)]
    leverteData: String,
    /// The consent token.
    #[schema(max_length = 16_384)]
    samtykkeToken: Option<String>,
    /// The request that was answered with the data.
    #[schema(max_length = 16_777_216)]
    dataForespoersel: Option<String>,
    /// Who has the agreement on delivery, where that is not the recipient: an organisasjonsnummer.
    #[schema(pattern = "^[0-9]{9}$")]
    leverandoer: Option<String>,
}
