//! How a person signs in, and what is known of them until they sign out.
//!
//! | module | idea |
//! |---|---|
//! | `settings` | what is configured |
//! | `session` | a person's session, in a cookie |
//! | `cookies`, `keys` | cookies that only this server's instances read, and their keys |
//! | `flow` | the steps of signing in and out |
//! | `provider`, `http` | an OpenID provider: its metadata, what its tokens say, and how it is asked |
//! | `failure` | why a person could not sign in |
//! | `demo` | people who do not exist, for trying things out |

mod cookies;
mod demo;
mod failure;
mod flow;
mod http;
mod keys;
mod provider;
mod session;
mod settings;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use chrono::TimeDelta;
use url::Url;

use crate::{App, Problem};
use cookies::Cookies;
use provider::Provider;
use session::Sessions;

pub use demo::{Country, DemoError, DemoPerson};
pub use keys::{SessionKeys, SessionKeysError, SessionRegistry};
pub use session::{CSRF_FIELD, SignedIn, renew};
pub use settings::{ProviderSettings, SessionSettings, SignInSettingsError, check_providers};

/// A way to sign in, as a page offers it: a link to `/sign-in/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Button {
    /// The provider's id.
    pub id: String,
    /// What stands on the button.
    pub label: String,
}

/// How persons sign in: with providers, or by choosing one of some people who do not exist.
pub struct SignIn {
    sessions: Sessions,
    providers: Vec<Provider>,
    demo: Vec<DemoPerson>,
}

impl SignIn {
    /// With these providers, each with the secret that it knows this server by. `address` is where persons reach
    /// this server, and `leeway` by how much a provider's clock may differ from ours.
    pub fn with_providers(
        providers: Vec<(ProviderSettings, Option<String>)>,
        address: &Url,
        leeway: TimeDelta,
        settings: SessionSettings,
        registry: Arc<dyn SessionRegistry>,
    ) -> Result<Self, SignInSettingsError> {
        let new = |(settings, secret)| Provider::new(settings, secret, address, leeway);
        let providers = providers.into_iter().map(new).collect::<Result<_, _>>()?;
        let sessions = Sessions { cookies: Cookies { registry, secure: true }, settings };
        Ok(SignIn { sessions, providers, demo: Vec::new() })
    }

    /// By choosing one of these people. Their cookies go over plain HTTP, so the server has to be on loopback.
    pub fn demo(
        people: Vec<DemoPerson>,
        settings: SessionSettings,
        registry: Arc<dyn SessionRegistry>,
    ) -> Result<Self, DemoError> {
        demo::check(&people)?;
        let sessions = Sessions { cookies: Cookies { registry, secure: false }, settings };
        Ok(SignIn { sessions, providers: Vec::new(), demo: people })
    }

    /// Whether the people who sign in do not exist; each page then says so.
    pub fn is_demo(&self) -> bool {
        self.demo_people().is_some()
    }

    fn demo_people(&self) -> Option<&[DemoPerson]> {
        (!self.demo.is_empty()).then_some(&self.demo)
    }

    fn provider(&self, id: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.settings.id == id)
    }

    fn has_issuer(&self, issuer: &str) -> bool {
        self.providers.iter().any(|provider| provider.settings.issuer == issuer)
    }
}

/// The ways to sign in, for the front page.
pub fn buttons(app: &App) -> Vec<Button> {
    let Some(sign_in) = app.sign_in() else { return Vec::new() };
    let demo = sign_in.is_demo().then(|| Button { id: demo::ID.into(), label: "Demo".into() });
    let button = |Provider { settings, .. }: &Provider| Button {
        id: settings.id.clone(),
        label: settings.label.clone(),
    };
    demo.into_iter().chain(sign_in.providers.iter().map(button)).collect()
}

/// The routes of signing in and out. [`renew`] goes around them and the pages.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/sign-in/{provider}", get(flow::begin))
        .route("/sign-in/callback", get(flow::callback))
        .route("/sign-in/demo", get(demo::choose).post(demo::sign_in))
        .route("/sign-out", post(flow::sign_out))
        .route("/sign-out/front-channel", get(flow::front_channel))
}

fn no_such_way() -> Problem {
    Problem::not_found("there is no such way to sign in")
}
