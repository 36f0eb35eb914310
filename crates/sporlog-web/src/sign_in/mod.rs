//! How a person signs in, and what is known of them until they sign out.
//!
//! | module | idea |
//! |---|---|
//! | `settings` | what is configured |
//! | `ways` | the ways to sign in |
//! | `session`, `extract` | a person's session, in a cookie; a request's |
//! | `cookies`, `keys` | cookies that only this server's instances read, and their keys |
//! | `flow` | the steps of signing in and out |
//! | `provider`, `http` | an OpenID provider: its metadata, what its tokens say, and how it is asked |
//! | `failure` | why a person could not sign in |
//! | `demo` | people who do not exist, for trying things out |

mod cookies;
mod demo;
mod extract;
mod failure;
mod flow;
mod http;
mod keys;
mod provider;
pub(crate) mod session;
pub(crate) mod settings;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod ways;

use axum::Router;
use axum::routing::{get, post};

use crate::App;

pub use demo::{Country, DemoError, DemoPerson};
pub use extract::renew;
pub use keys::{SessionKeys, SessionKeysError, SessionRegistry};
pub use session::{CSRF_FIELD, SignedIn};
pub use settings::{ProviderSettings, SessionSettings, check_providers};
pub use ways::{Button, SignIn};

/// The routes of signing in and out. [`renew`] goes around them and the pages.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/sign-in/{provider}", get(flow::begin))
        .route("/sign-in/callback", get(flow::callback))
        .route("/sign-in/demo", get(flow::choose).post(flow::sign_in_as))
        .route("/sign-out", post(flow::sign_out))
        .route("/sign-out/front-channel", get(flow::front_channel))
}
