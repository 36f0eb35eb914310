//! The ways to sign in: with providers, or as one of some people who do not exist.

use std::sync::Arc;

use chrono::TimeDelta;
use url::Url;

use super::cookies::Cookies;
use super::demo::{self, DemoError, DemoPerson};
use super::keys::SessionRegistry;
use super::provider::Provider;
use super::session::Sessions;
use super::settings::{ProviderSettings, SessionSettings};
use crate::access::SettingsError;

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
    pub(super) sessions: Sessions,
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
    ) -> Result<Self, SettingsError> {
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

    /// The people to choose from, if there are no providers.
    pub(super) fn demo_people(&self) -> Option<&[DemoPerson]> {
        (!self.demo.is_empty()).then_some(&self.demo)
    }

    /// The provider with this id.
    pub(super) fn provider(&self, id: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.settings.id == id)
    }

    /// Whether a provider issues its tokens under this name.
    pub(super) fn has_issuer(&self, issuer: &str) -> bool {
        self.providers.iter().any(|provider| provider.settings.issuer == issuer)
    }
    /// The ways to sign in, for the front page.
    pub fn buttons(&self) -> Vec<Button> {
        let demo = self.is_demo().then(|| Button { id: demo::ID.into(), label: "Demo".into() });
        let button = |Provider { settings, .. }: &Provider| Button {
            id: settings.id.clone(),
            label: settings.label.clone(),
        };
        demo.into_iter().chain(self.providers.iter().map(button)).collect()
    }
}
