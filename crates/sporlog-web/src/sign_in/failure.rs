//! Why a person could not sign in, as a page in plain words.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::page::page;

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
    fn status(self) -> StatusCode {
        match self {
            Failure::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Token | Failure::Person => StatusCode::BAD_GATEWAY,
            Failure::Refused | Failure::Level => StatusCode::FORBIDDEN,
            Failure::Begun | Failure::Code => StatusCode::BAD_REQUEST,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Failure::Unavailable => "The sign-in service does not answer. Try again in a few minutes.",
            Failure::Refused => "The sign-in was cancelled. You can begin again from the front page.",
            Failure::Begun => {
                "This sign-in was not begun in this browser, took too long, or is over already. Begin again from \
                 the front page. If this happens each time, allow cookies for this site."
            }
            Failure::Code => "The sign-in took too long. Begin again from the front page.",
            Failure::Token => {
                "The answer of the sign-in service could not be trusted, so you are not signed in. Try again; if \
                 this happens each time, tell us."
            }
            Failure::Level => {
                "You have to sign in in a more secure way to see this data. Begin again, and choose another way at \
                 the sign-in service."
            }
            Failure::Person => {
                "The sign-in service did not tell us your personal number, so nothing can be shown."
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = format!("<p>{}</p><p><a href=\"/\">To the front page</a></p>", self.text());
        (self.status(), page("You are not signed in", &body)).into_response()
    }
}
