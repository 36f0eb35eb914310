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
pub(super) enum Refusal {
    /// It carries nothing.
    Missing,
    /// It carries several things.
    Doubled,
    /// It carries something else than a bearer token.
    Scheme,
    UnknownKey,
    RevokedKey,
    ExpiredKey,
    /// A key where a person's token is needed.
    KeyForPerson,
    TokenTooLong,
    TokenMalformed,
    /// The token demands something of whoever reads it (`crit`).
    TokenCritical,
    /// The token is one for another purpose (`typ`).
    TokenType,
    TokenAlgorithm,
    TokenIssuer,
    TokenAudience,
    TokenExpired,
    TokenNotYet,
    TokenSignature,
    /// A good token that stands for no role.
    NoRole,
    /// A good token that is not one of a person.
    NoPerson,
    /// A person's token of too low a level of sign-in.
    Level,
    /// The issuer's keys cannot be had.
    IssuerUnavailable,
}

impl Refusal {
    /// Counts and logs it, and says it to the client.
    pub(super) fn refuse(self) -> Problem {
        let (status, reason, detail) = self.parts();
        metrics::counter!("sporlog_auth_refused_total", "reason" => reason).increment(1);
        tracing::info!(target: "sporlog::access", reason, status = status.as_u16(), "not let in");
        match (self, status) {
            (_, StatusCode::SERVICE_UNAVAILABLE) => Problem::unavailable(detail),
            (_, StatusCode::FORBIDDEN) => Problem::forbidden(detail),
            // Whoever shows nothing is told no error, but how to ask.
            (Self::Missing | Self::Scheme, status) => Problem::new(status, detail),
            (Self::Doubled, status) => {
                Problem { challenge: Some("invalid_request"), ..Problem::new(status, detail) }
            }
            (_, status) => Problem { challenge: Some("invalid_token"), ..Problem::new(status, detail) },
        }
    }

    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Missing => {
                (S::UNAUTHORIZED, "missing", "send a key (ApiKey: …) or a token (Authorization: Bearer …)")
            }
            Self::Doubled => (
                S::BAD_REQUEST,
                "doubled",
                "the request says twice who sends it; send one ApiKey header or one Authorization header",
            ),
            Self::Scheme => (S::UNAUTHORIZED, "scheme", "of the Authorization schemes, only Bearer is taken"),
            Self::UnknownKey => (S::UNAUTHORIZED, "key_unknown", "there is no such key"),
            Self::RevokedKey => (S::UNAUTHORIZED, "key_revoked", "this key was revoked; ask for a new one"),
            Self::ExpiredKey => (S::UNAUTHORIZED, "key_expired", "this key has run out; ask for a new one"),
            Self::KeyForPerson => {
                (S::UNAUTHORIZED, "key_for_person", "this takes the token of a person, not a key")
            }
            Self::TokenTooLong => (S::UNAUTHORIZED, "token_too_long", "the token is too long"),
            Self::TokenMalformed => {
                (S::UNAUTHORIZED, "token_malformed", "this is neither a key of ours nor a JSON Web Token")
            }
            Self::TokenCritical => {
                (S::UNAUTHORIZED, "token_critical", "the token has a crit header, which is not supported")
            }
            Self::TokenType => (S::UNAUTHORIZED, "token_type", "this is no access token, by its typ header"),
            Self::TokenAlgorithm => (
                S::UNAUTHORIZED,
                "token_algorithm",
                "the token is not signed with an algorithm that is taken",
            ),
            Self::TokenIssuer => {
                (S::UNAUTHORIZED, "token_issuer", "tokens of this issuer (iss) are not taken")
            }
            Self::TokenAudience => {
                (S::UNAUTHORIZED, "token_audience", "the token is meant for somebody else (aud)")
            }
            Self::TokenExpired => (S::UNAUTHORIZED, "token_expired", "the token has run out (exp)"),
            Self::TokenNotYet => (S::UNAUTHORIZED, "token_not_yet", "the token is not valid yet (nbf)"),
            Self::TokenSignature => {
                (S::UNAUTHORIZED, "token_signature", "the token's signature is by none of its issuer's keys")
            }
            Self::NoRole => (S::FORBIDDEN, "no_role", "the token is good, but no role is configured for it"),
            Self::NoPerson => {
                (S::FORBIDDEN, "no_person", "the token is good, but names no person by their number")
            }
            Self::Level => {
                (S::FORBIDDEN, "level", "the level of sign-in (acr) is too low; sign in at a higher one")
            }
            Self::IssuerUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "issuer_unavailable",
                "the keys of the token's issuer cannot be fetched at the moment; try again",
            ),
        }
    }
}

impl From<KeyRefusal> for Refusal {
    fn from(refusal: KeyRefusal) -> Self {
        match refusal {
            KeyRefusal::Unknown => Refusal::UnknownKey,
            KeyRefusal::Revoked => Refusal::RevokedKey,
            KeyRefusal::Expired => Refusal::ExpiredKey,
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
            Refusal::RevokedKey.refuse();
            Refusal::RevokedKey.refuse();
            Refusal::TokenExpired.refuse();
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
        let problem = Refusal::IssuerUnavailable.refuse();
        assert_eq!((problem.status, problem.retry_after.is_some()), (503, true));
        assert_eq!(Refusal::Doubled.refuse().status, 400);
        assert_eq!(Refusal::Level.refuse().status, 403);
    }
}
