//! What is configured about access: whose tokens are taken, and what they stand for.
//!
//! ```toml
//! [[access.issuer]]                                # machines, by Maskinporten
//! issuer = "https://maskinporten.no/"              # exactly as its tokens have it in iss
//! discovery = "https://maskinporten.no/.well-known/oauth-authorization-server"
//! audience = ["https://sporlog.example.org"]       # aud; one of these
//! [[access.issuer.role]]                           # the first whose conditions all hold
//! role = "write"
//! logs = ["disclosure"]
//! match = { scope = "sporlog:write" }              # contained in the scopes
//! [[access.issuer.role]]
//! role = "read"
//! organisation_claim = "consumer.ID"               # only what is this organisation's
//! match = { scope = "sporlog:read" }
//!
//! [[access.issuer]]                                # staff, by Entra ID
//! issuer = "https://login.microsoftonline.com/<tenant>/v2.0"
//! audience = ["api://sporlog"]
//! [[access.issuer.role]]
//! role = "audit"
//! match = { roles = "Sporlog.Audit", tid = "<tenant>" }
//!
//! [[access.issuer]]                                # persons, by ID-porten
//! issuer = "https://idporten.no"
//! audience = ["sporlog"]
//! person = { claim = ["pid"], acr = ["idporten-loa-high"] }
//! ```
//!
//! A condition holds if the claim is that text, number or truth value, or a list that contains the
//! text; `scope` and `scp` are lists in a text. A claim within a claim is written with a dot, in
//! quotes: `match = { "consumer.ID" = "0192:974760673" }`.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use sporlog_record::jose::asymmetric;
use url::{Host, Url};

use super::{Role, bounds};

/// A clock that is further off than this many seconds is to be set right.
const MOST_LEEWAY: u64 = 300;
/// Where an issuer describes itself, below its own address.
const DISCOVERY: &str = ".well-known/openid-configuration";

/// The section `[access]`. With nothing in it, only our own keys are taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSettings {
    /// By how many seconds another clock may differ from ours when a token's times are checked.
    pub leeway_seconds: u64,
    /// Whose tokens are taken: `[[access.issuer]]`.
    pub issuer: Vec<IssuerSettings>,
}

impl Default for AccessSettings {
    fn default() -> Self {
        AccessSettings { leeway_seconds: 60, issuer: Vec::new() }
    }
}

/// An issuer of tokens: `[[access.issuer]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// Its name, exactly as its tokens have it in `iss`: an address.
    pub issuer: String,
    /// Where it describes itself; by default `<issuer>/.well-known/openid-configuration`.
    #[serde(default)]
    pub discovery: Option<String>,
    /// Where its public keys are, if it does not describe itself.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// Its tokens must be meant for one of these (`aud`).
    pub audience: Vec<String>,
    /// How its tokens may be signed; by default with any of the RS, PS, ES and EdDSA families.
    #[serde(default = "signed_with_private_keys")]
    pub algorithms: Vec<String>,
    /// Take its keys over unencrypted HTTP from another machine. Whoever can change what goes over
    /// that network can then be anybody.
    #[serde(default)]
    pub allow_http: bool,
    /// Its tokens are those of persons, who read what is recorded about them.
    #[serde(default)]
    pub person: Option<PersonSettings>,
    /// What its tokens of machines stand for: `[[access.issuer.role]]`. The first whose conditions
    /// all hold decides; if none does, the token allows nothing.
    #[serde(default)]
    pub role: Vec<RoleSettings>,
}

/// How a token names a person.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonSettings {
    /// The claims that may hold the personal number; the first that the token has decides.
    #[serde(default = "pid")]
    pub claim: Vec<String>,
    /// The levels of sign-in (`acr`) that are enough; empty: any.
    #[serde(default)]
    pub acr: Vec<String>,
}

/// A role, and the conditions on which a token has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSettings {
    /// `read`, `write`, `audit` or `admin`.
    pub role: Role,
    /// The logs that it is for: names, or patterns that end in `*`; empty: all but Sporlog's own.
    #[serde(default)]
    pub logs: Vec<String>,
    /// The organisations that bound what is seen; empty: all, unless a claim names one.
    #[serde(default)]
    pub organisations: Vec<String>,
    /// The claim that names the organisation that bounds what is seen, such as `consumer.ID`. A
    /// token without it does not have the role.
    #[serde(default)]
    pub organisation_claim: Option<String>,
    /// The conditions: a claim's path, and what it must be or contain. At least one.
    #[serde(rename = "match")]
    pub conditions: BTreeMap<String, String>,
}

/// The algorithms that take a private key to sign with.
fn signed_with_private_keys() -> Vec<String> {
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
        .map(str::to_owned)
        .into()
}

fn pid() -> Vec<String> {
    vec!["pid".to_owned()]
}

/// Why settings of access or of signing in cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A setting cannot be what it is: which one, and what is expected.
    #[error("{0}")]
    Wrong(String),
    /// No HTTP client can be had on this machine.
    #[error("issuers and providers cannot be asked from this machine: {0}")]
    Client(#[from] reqwest::Error),
}

impl SettingsError {
    pub(super) fn issuer(issuer: &str, reason: &str) -> Self {
        SettingsError::Wrong(format!("access.issuer '{issuer}': {reason}"))
    }
}

impl AccessSettings {
    /// Says what is wrong with the settings, as far as can be seen without asking an issuer.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.leeway_seconds > MOST_LEEWAY {
            let text = format!("access.leeway_seconds: at most {MOST_LEEWAY} seconds are allowed");
            return Err(SettingsError::Wrong(text));
        }
        let mut names = HashSet::new();
        for issuer in &self.issuer {
            let checked = issuer.check().and_then(|()| {
                names.insert(&issuer.issuer).then_some(()).ok_or_else(|| "it is there twice".to_owned())
            });
            checked.map_err(|reason| SettingsError::issuer(&issuer.issuer, &reason))?;
        }
        Ok(())
    }
}

impl IssuerSettings {
    fn check(&self) -> Result<(), String> {
        if self.issuer.is_empty() {
            return Err("it needs a name".into());
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return Err("audience: say for whom its tokens must be meant".into());
        }
        if self.algorithms.is_empty() {
            return Err("algorithms: at least one is needed".into());
        }
        if let Some(wrong) = self.algorithms.iter().find(|name| asymmetric(name).is_none()) {
            return Err(format!(
                "algorithms: '{wrong}' is none of {}",
                signed_with_private_keys().join(", ")
            ));
        }
        match self.jwks_uri() {
            Some(_) if self.discovery.is_some() => {
                return Err("set either discovery or jwks_uri, not both".into());
            }
            Some(url) => url.map(|_| ())?,
            None => self.discovery_url().map(|_| ())?,
        }
        if self.person.is_none() && self.role.is_empty() {
            return Err("its tokens stand for nothing; set person, or a [[access.issuer.role]]".into());
        }
        if let Some(person) = &self.person
            && (person.claim.is_empty() || person.claim.iter().any(String::is_empty))
        {
            return Err("person.claim: say which claim holds the personal number".into());
        }
        self.role.iter().try_for_each(RoleSettings::check)
    }

    /// Where its keys are, if that is set.
    pub(super) fn jwks_uri(&self) -> Option<Result<Url, String>> {
        self.jwks_uri.as_deref().map(|url| self.address("jwks_uri", url))
    }

    /// Where it describes itself.
    pub(super) fn discovery_url(&self) -> Result<Url, String> {
        match &self.discovery {
            Some(url) => self.address("discovery", url),
            None => self.address("issuer", &format!("{}/{DISCOVERY}", self.issuer.trim_end_matches('/'))),
        }
    }

    fn address(&self, setting: &str, url: &str) -> Result<Url, String> {
        let parsed = Url::parse(url).map_err(|error| format!("{setting}: '{url}' is no address: {error}"))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(format!("{setting}: an address with a user's name or password in it is not taken"));
        }
        if !is_allowed(&parsed, self.allow_http) {
            return Err(format!(
                "{setting}: '{url}' is not an https address (allow_http = true allows http)"
            ));
        }
        Ok(parsed)
    }
}

impl RoleSettings {
    fn check(&self) -> Result<(), String> {
        let empty = |(path, is): (&String, &String)| path.is_empty() || is.is_empty();
        if self.conditions.is_empty() || self.conditions.iter().any(empty) {
            return Err(
                "role.match: say which tokens have the role, such as match = { scope = \"…\" }".into()
            );
        }
        bounds::check(&self.logs, &self.organisations).map_err(|error| format!("role: {error}"))
    }
}

/// Whether an issuer may be asked here: encrypted, or from this machine, or as allowed.
pub(crate) fn is_allowed(url: &Url, allow_http: bool) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => allow_http || url.host().is_some_and(|host| is_loopback(&host)),
        _ => false,
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
