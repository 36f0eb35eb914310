//! Why nobody is known by what a request carries: what the client is told, what is counted, what
//! is logged.
//!
//! Every refusal counts in `sporlog_auth_refused_total` under its reason, and leaves a line in the
//! log with the reason alone: never a key, a token, or what stands in one.

use axum::http::StatusCode;

use super::KeyRefusal;
use crate::Problem;

/// Why nobody is known by what a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    /// What is wrong with the key or the token, as RFC 6750 calls it.
    challenge: Option<&'static str>,
    /// Under which it is counted and logged.
    reason: &'static str,
    /// What the client is told.
    detail: &'static str,
}

impl Refusal {
    const fn unauthorized(reason: &'static str, detail: &'static str) -> Self {
        Refusal { status: StatusCode::UNAUTHORIZED, challenge: Some("invalid_token"), reason, detail }
    }

    const fn forbidden(reason: &'static str, detail: &'static str) -> Self {
        Refusal { status: StatusCode::FORBIDDEN, ..Self::unauthorized(reason, detail) }
    }

    /// Whoever shows nothing is told no error, but how to ask.
    const fn unasked(reason: &'static str, detail: &'static str) -> Self {
        Refusal { challenge: None, ..Self::unauthorized(reason, detail) }
    }

    pub const MISSING: Self =
        Self::unasked("missing", "send a key (ApiKey: …) or a token (Authorization: Bearer …)");
    pub const DOUBLED: Self = Refusal {
        status: StatusCode::BAD_REQUEST,
        challenge: Some("invalid_request"),
        reason: "doubled",
        detail: "the request says twice who sends it; send one ApiKey header or one Authorization header",
    };
    pub const SCHEME: Self = Self::unasked("scheme", "of the Authorization schemes, only Bearer is taken");
    pub const UNKNOWN_KEY: Self = Self::unauthorized("key_unknown", "there is no such key");
    pub const REVOKED_KEY: Self =
        Self::unauthorized("key_revoked", "this key was revoked; ask for a new one");
    pub const EXPIRED_KEY: Self =
        Self::unauthorized("key_expired", "this key has run out; ask for a new one");
    pub const KEY_FOR_PERSON: Self =
        Self::unauthorized("key_for_person", "this takes the token of a person, not a key");
    pub const TOKEN_TOO_LONG: Self = Self::unauthorized("token_too_long", "the token is too long");
    pub const TOKEN_MALFORMED: Self =
        Self::unauthorized("token_malformed", "this is neither a key of ours nor a JSON Web Token");
    pub const TOKEN_CRITICAL: Self =
        Self::unauthorized("token_critical", "the token has a crit header, which is not supported");
    pub const TOKEN_TYPE: Self =
        Self::unauthorized("token_type", "this is no access token, by its typ header");
    pub const TOKEN_ALGORITHM: Self =
        Self::unauthorized("token_algorithm", "the token is not signed with an algorithm that is taken");
    pub const TOKEN_ISSUER: Self =
        Self::unauthorized("token_issuer", "tokens of this issuer (iss) are not taken");
    pub const TOKEN_AUDIENCE: Self =
        Self::unauthorized("token_audience", "the token is meant for somebody else (aud)");
    pub const TOKEN_EXPIRED: Self = Self::unauthorized("token_expired", "the token has run out (exp)");
    pub const TOKEN_NOT_YET: Self = Self::unauthorized("token_not_yet", "the token is not valid yet (nbf)");
    pub const TOKEN_SIGNATURE: Self =
        Self::unauthorized("token_signature", "the token's signature is by none of its issuer's keys");
    pub const NO_ROLE: Self =
        Self::forbidden("no_role", "the token is good, but no role is configured for it");
    pub const NO_PERSON: Self =
        Self::forbidden("no_person", "the token is good, but names no person by their number");
    pub const LEVEL: Self =
        Self::forbidden("level", "the level of sign-in (acr) is too low; sign in at a higher one");
    pub const ISSUER_UNAVAILABLE: Self = Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        challenge: None,
        reason: "issuer_unavailable",
        detail: "the keys of the token's issuer cannot be fetched at the moment; try again",
    };

    /// Counts and logs it, and says it to the client.
    pub(super) fn refuse(self) -> Problem {
        let Refusal { status, challenge, reason, detail } = self;
        metrics::counter!("sporlog_auth_refused_total", "reason" => reason).increment(1);
        tracing::info!(target: "sporlog::access", reason, status = status.as_u16(), "not let in");
        match status {
            StatusCode::SERVICE_UNAVAILABLE => Problem::unavailable(detail),
            StatusCode::FORBIDDEN => Problem::forbidden(detail),
            status => Problem { challenge, ..Problem::new(status, detail) },
        }
    }
}

impl From<KeyRefusal> for Refusal {
    fn from(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::Unknown => Refusal::UNKNOWN_KEY,
            KeyRefusal::Revoked => Refusal::REVOKED_KEY,
            KeyRefusal::Expired => Refusal::EXPIRED_KEY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn each_refusal_is_counted_under_its_reason() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            Refusal::REVOKED_KEY.refuse();
            Refusal::REVOKED_KEY.refuse();
            Refusal::TOKEN_EXPIRED.refuse();
        });
        let counted = recorder.handle().render();
        for line in [
            r#"sporlog_auth_refused_total{reason="key_revoked"} 2"#,
            r#"sporlog_auth_refused_total{reason="token_expired"} 1"#,
        ] {
            assert!(counted.contains(line), "{counted}");
        }
    }

    #[test]
    fn what_may_work_later_says_when() {
        let problem = Refusal::ISSUER_UNAVAILABLE.refuse();
        assert_eq!((problem.status, problem.retry_after.is_some()), (503, true));
        assert_eq!(Refusal::DOUBLED.refuse().status, 400);
        assert_eq!(Refusal::LEVEL.refuse().status, 403);
    }
}
