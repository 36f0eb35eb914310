//! Delivering into a log for somebody: who they are, what they may, and what their request carries
//! besides records.
//!
//! A delivery is not recorded as an access to the data is: each record names its sender in its origin.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use sporlog_intake::{access_event, quarantine};
use sporlog_ledger::Error;
use sporlog_record::Kind;
use sporlog_record::identifier::mask_text;

use super::page::Bounds;
use crate::access::{Permission, Principal};
use crate::app::App;
use crate::problem::Problem;
use crate::server::RequestedBy;

/// Headers that tie a record to the sender's own logs.
const CORRELATION: [&str; 3] = ["x-correlation-id", "traceparent", "x-request-id"];
/// One with a longer value is not kept.
const LONGEST_VALUE: usize = 200;

/// Somebody who delivers.
pub struct Sender {
    /// Who.
    pub principal: Principal,
    /// Their request's correlation headers, as they are kept with a record.
    pub envelope: Option<String>,
}

impl FromRequestParts<App> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, app).await?;
        RequestedBy::note(&parts.extensions, principal.name.clone());
        Ok(Sender { principal, envelope: envelope(&parts.headers) })
    }
}

impl Sender {
    /// The kind of a log, if they may deliver into it: otherwise 403, or 404 if there is none.
    pub async fn kind(&self, app: &App, log: &str) -> Result<Kind, Problem> {
        self.principal.require(Permission::Write, log)?;
        if log == access_event::LOG || log == quarantine::LOG {
            return Err(Problem::forbidden(format!(
                "the log '{log}' is Sporlog's own; nothing is delivered into it"
            )));
        }
        app.catalog.kind(log).await.map_err(|error| match error {
            Error::NoSuchLog(name) => Problem::not_found(format!("there is no log '{}'", mask_text(&name))),
            error => error.into(),
        })
    }

    /// Whose records they may deliver: those that name one of their organisations, or all.
    pub fn bounds(&self, kind: Kind) -> Result<Bounds, Problem> {
        let nobodys = "you may deliver certain organisations' records only, and these name none";
        Bounds::of(&self.principal, kind).map_err(|_| Problem::forbidden(nobodys))
    }
}

/// `{"headers":[["x-correlation-id","…"]]}`; `None` if there is nothing to keep.
fn envelope(headers: &HeaderMap) -> Option<String> {
    let kept = |name: &'static str| {
        let value = headers.get(name)?.to_str().ok()?;
        let fit = (1..=LONGEST_VALUE).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
        fit.then_some([name, value])
    };
    let kept: Vec<_> = CORRELATION.into_iter().filter_map(kept).collect();
    (!kept.is_empty()).then(|| serde_json::json!({ "headers": kept }).to_string())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn kept(pairs: &[(&'static str, &[u8])]) -> Option<String> {
        let pair = |(name, value): &(&'static str, &[u8])| {
            ((*name).parse().unwrap(), HeaderValue::from_bytes(value).unwrap())
        };
        envelope(&pairs.iter().map(pair).collect())
    }

    #[test]
    fn correlation_is_kept_as_it_came() {
        assert_eq!(kept(&[("accept", b"x")]), None);
        let expected = r#"{"headers":[["x-correlation-id","a\"\\b"],["traceparent","00-1-2-01"]]}"#;
        assert_eq!(
            kept(&[("traceparent", b"00-1-2-01"), ("x-correlation-id", b"a\"\\b")]).as_deref(),
            Some(expected)
        );
    }

    #[test]
    fn what_is_unfit_is_dropped() {
        let longest = [b'x'; LONGEST_VALUE];
        assert!(kept(&[("x-request-id", &longest)]).is_some());
        let too_long = [b'x'; LONGEST_VALUE + 1];
        for value in [&too_long[..], b"", b"two words", b"tab\tbed", b"\xe6\xf8\xe5"] {
            assert_eq!(kept(&[("x-request-id", value)]), None, "{value:?}");
        }
    }
}
