//! Why a person could not sign in.

use axum::http::StatusCode;

/// Why a person could not sign in. What went wrong in detail is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The provider cannot be asked.
    Unavailable,
    /// The person broke off, or the provider refused them.
    Refused,
    /// This browser has not begun this sign-in, or too long ago, or has finished it already.
    Begun,
    /// The code that the person brought is used or too old.
    Code,
    /// The token cannot be believed.
    Token,
    /// The person signed in at a level that is not enough.
    Level,
    /// The provider does not say who the person is.
    Person,
}

impl Failure {
    /// The status of the page that says so, and the key of its text.
    pub(super) fn answer(self) -> (StatusCode, &'static str) {
        match self {
            Failure::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "sign-in.unavailable"),
            Failure::Refused => (StatusCode::FORBIDDEN, "sign-in.refused"),
            Failure::Begun => (StatusCode::BAD_REQUEST, "sign-in.begun"),
            Failure::Code => (StatusCode::BAD_REQUEST, "sign-in.code"),
            Failure::Token => (StatusCode::BAD_GATEWAY, "sign-in.token"),
            Failure::Level => (StatusCode::FORBIDDEN, "sign-in.level"),
            Failure::Person => (StatusCode::BAD_GATEWAY, "sign-in.person"),
        }
    }
}
