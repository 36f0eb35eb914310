//! How a person signs in, and what is known of them until they sign out.
//!
//! | module | idea |
//! |---|---|
//! | `settings` | what is configured |
//! | `session` | a person's session, in a cookie |
//! | `cookies`, `keys` | cookies that only this server's instances read, and their keys |
//! | `demo` | people who do not exist, for trying things out |

mod cookies;
mod demo;
mod keys;
mod session;
mod settings;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use chrono::Utc;

use crate::{App, Problem};
use cookies::{Cookies, SESSION};
use session::{Identity, Sessions};

pub use demo::{Country, DemoError, DemoPerson};
pub use keys::{SessionKeys, SessionKeysError, SessionRegistry};
pub use session::{CSRF_FIELD, SignedIn, renew};
pub use settings::{ProviderSettings, SessionSettings, SignInSettingsError, check_providers};

/// Where a person goes who has signed in.
const HOME: &str = "/my";

/// A way to sign in, as a page offers it: a link to `/sign-in/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Button {
    /// The provider's id.
    pub id: String,
    /// What stands on the button.
    pub label: String,
}

/// How persons sign in.
pub struct SignIn {
    sessions: Sessions,
    demo: Vec<DemoPerson>,
}

impl SignIn {
    /// By choosing one of these people, who do not exist.
    pub fn demo(
        people: Vec<DemoPerson>,
        settings: SessionSettings,
        registry: Arc<dyn SessionRegistry>,
    ) -> Result<Self, DemoError> {
        demo::check(&people)?;
        Ok(SignIn {
            sessions: Sessions { cookies: Cookies { registry, secure: false }, settings },
            demo: people,
        })
    }

    /// The people to choose from, if this is a demo.
    fn demo_people(&self) -> Option<&[DemoPerson]> {
        (!self.demo.is_empty()).then_some(&self.demo)
    }

    /// Whether the people who sign in do not exist; each page then says so.
    pub fn is_demo(&self) -> bool {
        self.demo_people().is_some()
    }
}

/// The ways to sign in, for the front page.
pub fn buttons(app: &App) -> Vec<Button> {
    let demo = app.sign_in().is_some_and(SignIn::is_demo);
    demo.then(|| Button { id: demo::ID.into(), label: "Demo".into() }).into_iter().collect()
}

/// The routes of signing in and out. [`renew`] goes around them and the pages.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/sign-in/{provider}", get(begin))
        .route("/sign-in/demo", get(begin_demo).post(demo::choose))
        .route("/sign-out", post(sign_out))
}

async fn begin_demo(State(app): State<App>) -> Result<Response, Problem> {
    let people = app.sign_in().and_then(SignIn::demo_people);
    people.map(|people| demo::chooser(people).into_response()).ok_or_else(no_such_way)
}

async fn begin(State(_app): State<App>, Path(_provider): Path<String>) -> Result<Response, Problem> {
    Err(no_such_way())
}

fn no_such_way() -> Problem {
    Problem::not_found("there is no such way to sign in")
}

/// Begins a session.
fn signed_in(app: &App, who: Identity) -> Result<Response, Problem> {
    let sign_in = app.sign_in().ok_or_else(no_such_way)?;
    let now = Utc::now().timestamp();
    let session = sign_in.sessions.begin(who, now).map_err(|error| Problem::internal(&error))?;
    let cookie = sign_in.sessions.cookie(&session, now);
    let cookie = cookie.ok_or_else(|| Problem::unavailable("there is no key to make a session with"))?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(HOME)).into_response())
}

async fn sign_out(State(app): State<App>, session: SignedIn, body: Bytes) -> Result<Response, Problem> {
    session.check_form(&body)?;
    let sign_in = app.sign_in().ok_or_else(no_such_way)?;
    sign_in.sessions.end(&session).await;
    let gone =
        sign_in.sessions.cookies.remove(SESSION).into_iter().map(|cookie| (header::SET_COOKIE, cookie));
    let mut response = Redirect::to("/").into_response();
    response.headers_mut().extend(gone);
    Ok(response)
}
