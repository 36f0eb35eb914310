//! A disclosure by HTTP, at the path and with the answer of the service that runs at NAV.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use sporlog_record::Kind;

use super::content;
use super::idempotency::{IdempotencyKey, REPLAYED, store};
use super::judge::{Judge, Layout};
use super::sender::Sender;
use crate::app::App;
use crate::problem::Problem;

/// Hands in one disclosure.
///
/// The answer comes when the disclosure is durable, and is its id: a number, and nothing else. Send an
/// `Idempotency-Key` if you may have to try again: the same request then gets the same id.
///
/// `X-Correlation-ID`, `traceparent` and `X-Request-ID` are kept with the record.
#[utoipa::path(post, path = "/sporingslogg/api/post", tag = "Disclosures (Sporingslogg)",
    params(("Idempotency-Key" = Option<String>, Header, description = "Which request this is, by a text of your own; a retry says the same", min_length = 1, max_length = 255, pattern = "^[!-~]{1,255}$")),
    request_body(content = NewDisclosure, content_type = "application/json"),
    security(("key" = []), ("token" = [])),
    responses(
        (status = 200, description = "Stored; the record's id", body = u64, content_type = "application/json",
            headers(("Idempotency-Replayed" = String, description = "`true` if it was stored by an earlier request with the same key"))),
        (status = 400, description = "The record is refused, for the reasons in `errors`; or a header is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody knows who asks", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "You may not deliver into this log", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key came with another body before, or its record has expired", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not at this moment; try again", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn post(
    State(app): State<App>,
    sender: Sender,
    key: IdempotencyKey,
    request: Request,
) -> Result<Response, Problem> {
    let log = &*app.settings.disclosure;
    let kind = sender.kind(&app, log).await?;
    if kind != Kind::Disclosure {
        tracing::error!(log, %kind, "the log that is configured for disclosures holds other records");
        return Err(Problem::unavailable("this server is not set up for disclosures"));
    }
    let bounds = sender.bounds(kind)?;
    content::layout(request.headers(), false)?;
    let body = content::read(request).await?;
    let once = key.once(&sender);
    let Sender { principal, envelope } = sender;
    let judge = Judge { kind, rules: app.rules(), sender: principal.name, bounds, envelope };
    let batch = judge.judge(body, Layout::Object).await?;
    let stored = store(&app, log, &batch, once.as_ref()).await?;
    let Some(kept) = stored.kept.first() else {
        let errors = batch.refused().flat_map(|(_, findings, _)| findings.to_vec()).collect();
        let refused = Problem::bad_request("the record is refused; nothing was stored");
        return Err(refused.with_errors(errors));
    };
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut response = ([json], kept.id.to_string()).into_response();
    if stored.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A disclosure as it is handed in. A check digit that does not match, a text that is no Base64, or one that is
/// longer than the specification says, is remarked on and no reason for refusal. Fields that are not known are
/// kept; `null`, and an empty text where one may be left out, are the same as no field. The greatest lengths
/// can be set otherwise for a server.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, non_snake_case, reason = "it describes what is read elsewhere")]
pub struct NewDisclosure {
    /// The person: a fødselsnummer or D-number, 11 digits.
    #[schema(pattern = "^[0-9]{11}$")]
    person: String,
    /// To whom: an organisasjonsnummer, 9 digits.
    #[schema(pattern = "^[0-9]{9}$")]
    mottaker: String,
    /// What sort of data.
    #[schema(min_length = 3, max_length = 3, example = "PEN")]
    tema: String,
    /// On what ground: consent, or a law.
    #[schema(min_length = 1, max_length = 1_000)]
    behandlingsGrunnlag: String,
    /// When it was fetched: ISO 8601, local time, no zone.
    #[schema(
        example = "2018-10-19T12:24:21.675",
        pattern = "^([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[048]|[2468][048]|[13579][26])00)-02-29)[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]{1,9})?)?$"
    )]
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
    #[schema(pattern = "^([0-9]{9})?$")]
    leverandoer: Option<String>,
}
