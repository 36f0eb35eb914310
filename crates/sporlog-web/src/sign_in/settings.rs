//! What is configured about the sign-in of persons.
//!
//! ```toml
//! [pages.session]
//! idle_minutes = 15
//! hours = 8
//!
//! [[pages.provider]]
//! id = "idporten"                         # in addresses: /sign-in/idporten
//! label = "ID-porten"                     # on the button
//! issuer = "https://idporten.no"          # exactly as its tokens have it in iss
//! client_id = "…"
//! client_secret_file = "idporten.secret"  # or client_secret_env = "NAME"
//! acr_values = ["idporten-loa-high"]      # asked for; one of them has to be answered
//! claim = ["pid"]                         # holds the personal number
//! ```

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

use super::demo;
use crate::access::{SettingsError, is_allowed};

/// The longest session that may be set.
const MOST_HOURS: u32 = 24;

/// The section `[pages.session]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// A session in which nothing is asked for ends after so many minutes.
    pub idle_minutes: u32,
    /// A session ends after so many hours in any case.
    pub hours: u32,
}

impl Default for SessionSettings {
    fn default() -> Self {
        SessionSettings { idle_minutes: 15, hours: 8 }
    }
}

/// A provider that persons sign in with: `[[pages.provider]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// What it is called in addresses: small letters, digits and hyphens.
    pub id: String,
    /// What stands on its button.
    pub label: String,
    /// Who it is, exactly as its tokens have it in `iss`; its metadata are found below.
    pub issuer: String,
    /// What the provider calls this server.
    pub client_id: String,
    /// The file with the secret that the provider knows this server by.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// The environment variable with that secret. With neither, the client is a public one.
    #[serde(default)]
    pub client_secret_env: Option<String>,
    /// What is asked for besides `openid`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The levels of sign-in that are enough. They are asked for, and one of them has to be answered.
    pub acr_values: Vec<String>,
    /// The claim that says the level; it may be a list.
    #[serde(default = "acr")]
    pub acr_claim: String,
    /// The claims that may hold the personal number; the first that is there decides.
    #[serde(default = "pid")]
    pub claim: Vec<String>,
    /// What else is sent along when somebody signs in, such as a broker's choice of an identity provider.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Send people there to sign out by an address and not by a form. The ID token, which says who they are, then
    /// stands in an address.
    #[serde(default)]
    pub sign_out_by_get: bool,
    /// Talk to it over unencrypted HTTP on another machine. Whoever can change what goes over that network can
    /// then be anybody.
    #[serde(default)]
    pub allow_http: bool,
}

fn acr() -> String {
    "acr".to_owned()
}

fn pid() -> Vec<String> {
    vec!["pid".to_owned()]
}

impl SessionSettings {
    /// The idle time in seconds.
    pub fn idle(&self) -> i64 {
        i64::from(self.idle_minutes) * 60
    }

    /// The longest a session lasts, in seconds.
    pub fn longest(&self) -> i64 {
        i64::from(self.hours) * 3600
    }

    /// Says what is wrong with the settings.
    pub fn check(&self) -> Result<(), SettingsError> {
        let right =
            (1..=MOST_HOURS).contains(&self.hours) && (1..=self.hours * 60).contains(&self.idle_minutes);
        right.then_some(()).ok_or_else(|| {
            SettingsError::Wrong(format!(
                "pages.session: hours is 1 to {MOST_HOURS}, and idle_minutes at least 1 and no longer than hours"
            ))
        })
    }
}

impl ProviderSettings {
    /// Makes paths that are relative those below `folder`.
    pub fn relative_to(&mut self, folder: &Path) {
        if let Some(file) = &mut self.client_secret_file {
            *file = folder.join(&file);
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.id.is_empty()
            || !self.id.bytes().all(plain)
            || [demo::ID, "callback"].contains(&self.id.as_str())
        {
            return Err(
                "id: small letters, digits and hyphens are expected, and neither 'demo' nor 'callback'",
            );
        }
        if self.label.is_empty() || self.client_id.is_empty() {
            return Err("label and client_id must not be empty");
        }
        let issuer = Url::parse(&self.issuer).map_err(|_| "issuer: an address is expected")?;
        if !is_allowed(&issuer, self.allow_http) {
            return Err("issuer: an https address is expected (allow_http = true allows http)");
        }
        if self.client_secret_file.is_some() && self.client_secret_env.is_some() {
            return Err("set either client_secret_file or client_secret_env, not both");
        }
        if self.acr_values.is_empty() || self.acr_values.iter().any(String::is_empty) {
            return Err("acr_values: say which levels of sign-in are enough");
        }
        if self.claim.is_empty() || self.claim.iter().any(String::is_empty) {
            return Err("claim: say which claim holds the personal number");
        }
        const OURS: [&str; 9] = [
            "response_type",
            "client_id",
            "redirect_uri",
            "state",
            "nonce",
            "scope",
            "code_challenge",
            "code_challenge_method",
            "acr_values",
        ];
        if self.parameters.keys().any(|name| OURS.contains(&name.as_str())) {
            return Err("parameters: what the protocol itself sends cannot be set here");
        }
        Ok(())
    }
}

/// Says what is wrong with providers, as far as can be seen without asking them.
pub fn check_providers(providers: &[ProviderSettings], address: Option<&Url>) -> Result<(), SettingsError> {
    let mut ids = HashSet::new();
    for provider in providers {
        let mut twice = || ids.insert(&provider.id).then_some(()).ok_or("its id is there twice");
        let wrong = |reason| SettingsError::Wrong(format!("pages.provider '{}': {reason}", provider.id));
        provider.check().and_then(|()| twice()).map_err(wrong)?;
    }
    let right = |url: &Url| {
        is_allowed(url, false) && url.path() == "/" && url.query().is_none() && url.username().is_empty()
    };
    let needed = !providers.is_empty();
    (!needed || address.is_some_and(right)).then_some(()).ok_or_else(|| {
        SettingsError::Wrong(
            "pages.address: the address at which persons reach this server is expected, such as \
             \"https://innsyn.example.org\": https (or http on this machine), without a path"
                .into(),
        )
    })
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
