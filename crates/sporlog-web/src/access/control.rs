//! Finds out who sends a request.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderValue, header};
use chrono::{DateTime, Utc};
use futures::future::join_all;

use super::cache::{Good, TokenCache};
use super::grant::Grant;
use super::issuer::{self, FetchError, Issuer, Pace};
use super::refusal::Refusal;
use super::token;
use super::{AccessSettings, Key, KeyRefusal, KeyRegistry, PREFIX, Person, Principal, SettingsError, Via};
use crate::Problem;
use crate::server::RequestPermit;

/// The header for a key.
const API_KEY: &str = "apikey";

/// Finds out who sends a request. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct AccessControl(Arc<RwLock<Arc<Inner>>>);

struct Inner {
    keys: Arc<dyn KeyRegistry>,
    issuers: HashMap<Arc<str>, Arc<Issuer>>,
    verified: TokenCache,
    leeway: f64,
    pace: Pace,
}

impl Inner {
    fn new(settings: &AccessSettings, keys: Arc<dyn KeyRegistry>, pace: Pace) -> Result<Self, SettingsError> {
        settings.check()?;
        let mut issuers = HashMap::new();
        if !settings.issuer.is_empty() {
            let client = issuer::client(pace.timeout)?;
            for one in &settings.issuer {
                let made = Issuer::new(one, pace, &client);
                let made = made.map_err(|reason| SettingsError::issuer(&one.issuer, &reason))?;
                issuers.insert(Arc::clone(&made.name), Arc::new(made));
            }
        }
        let leeway = settings.leeway_seconds as f64;
        Ok(Inner { keys, issuers, verified: TokenCache::default(), leeway, pace })
    }
}

/// What a request carries.
#[derive(Debug, PartialEq, Eq)]
enum Credential<'a> {
    Key(&'a str),
    Token(&'a str),
}

impl AccessControl {
    /// With these settings and keys. Issuers are asked for their keys only when they are needed, so
    /// one that cannot be reached holds nothing up.
    pub fn new(settings: &AccessSettings, keys: Arc<dyn KeyRegistry>) -> Result<Self, SettingsError> {
        Self::at_pace(settings, keys, Pace::default())
    }

    pub(super) fn at_pace(
        settings: &AccessSettings,
        keys: Arc<dyn KeyRegistry>,
        pace: Pace,
    ) -> Result<Self, SettingsError> {
        Ok(AccessControl(Arc::new(RwLock::new(Arc::new(Inner::new(settings, keys, pace)?)))))
    }

    /// Takes tokens by these settings from now on. Issuers' keys and verified tokens are fetched and verified anew.
    pub fn set(&self, settings: &AccessSettings) -> Result<(), SettingsError> {
        let before = self.now();
        let inner = Inner::new(settings, Arc::clone(&before.keys), before.pace)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(inner);
        Ok(())
    }

    fn now(&self) -> Arc<Inner> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The system or employee who asks: by `ApiKey: …` or `Authorization: Bearer …`, which may hold
    /// a token or one of our keys.
    ///
    /// 400 if the request says it twice, 401 if it does not say it or is not believed, 403 if a good
    /// token stands for no role, 503 if an issuer's keys cannot be had.
    ///
    /// The request's permit is the principal's from then on; while an issuer's keys are waited for, it is of the class
    /// for that.
    pub async fn principal(&self, headers: &HeaderMap, permit: &RequestPermit) -> Result<Principal, Problem> {
        let found = match credential(headers) {
            Ok(Credential::Key(key)) => self.by_key(key).await,
            Ok(Credential::Token(token)) => {
                self.by_token(token, permit).await.and_then(|good| good.principal.clone())
            }
            Err(refusal) => Err(refusal),
        };
        let principal = found.map_err(Refusal::refuse)?;
        permit.held_by(&principal.via)?;
        Ok(principal)
    }

    /// The person who asks: by `Authorization: Bearer …` with a token of theirs.
    ///
    /// Fails as [`AccessControl::principal`] does; 403 also if the token is not one of a person, or
    /// not of a level of sign-in that is enough.
    pub async fn person(&self, headers: &HeaderMap, permit: &RequestPermit) -> Result<Person, Problem> {
        let found = match credential(headers) {
            Ok(Credential::Key(_)) => Err(Refusal::KEY_FOR_PERSON),
            Ok(Credential::Token(token)) => {
                self.by_token(token, permit).await.and_then(|good| good.person.clone())
            }
            Err(refusal) => Err(refusal),
        };
        let person = found.map_err(Refusal::refuse)?;
        permit.held_by(&person.pid)?;
        Ok(person)
    }

    /// Fetches the keys of all issuers now, and says for each how many they are: to see at start, or
    /// when the configuration is checked, whether they can be had.
    pub async fn fetch_keys(&self) -> Vec<(Arc<str>, Result<usize, FetchError>)> {
        let fetch = |issuer: &Arc<Issuer>| {
            let issuer = Arc::clone(issuer);
            async move { (Arc::clone(&issuer.name), issuer.fetch_now().await) }
        };
        join_all(self.now().issuers.values().map(fetch)).await
    }

    async fn by_key(&self, presented: &str) -> Result<Principal, Refusal> {
        let keys = Arc::clone(&self.now().keys);
        let mut ring = keys.current();
        if matches!(ring.find(presented, Utc::now()), Err(KeyRefusal::Unknown)) {
            keys.renew().await;
            ring = keys.current();
        }
        let key = ring.find(presented, Utc::now())?;
        keys.used(&key.id);
        Ok(principal_of(key))
    }

    async fn by_token(&self, presented: &str, permit: &RequestPermit) -> Result<Arc<Grant>, Refusal> {
        let now = seconds(Utc::now());
        let digest = TokenCache::digest(presented);
        let inner = self.now();
        if let Some(grant) = inner.verified.get(&digest, now) {
            return Ok(grant);
        }
        let token = token::parse(presented)?;
        let claims = &token.claims;
        let issuer = token::issuer(claims).and_then(|name| inner.issuers.get(name));
        let issuer = issuer.ok_or(Refusal::TOKEN_ISSUER)?;
        // What costs little is looked at first.
        let until = token::valid_until(claims, now, inner.leeway)?;
        if !token::is_for(claims, &issuer.settings.audience) {
            return Err(Refusal::TOKEN_AUDIENCE);
        }
        let (grant, keys) = issuer.verify(&token, permit).await?;
        let grant = Arc::new(grant);
        let good = Good { grant: Arc::clone(&grant), issuer: Arc::clone(issuer), keys, until };
        inner.verified.insert(digest, good, now);
        Ok(grant)
    }
}

/// What a request carries. Two of anything are refused, and not one of them chosen: somebody else
/// on the way may choose the other.
fn credential(headers: &HeaderMap) -> Result<Credential<'_>, Refusal> {
    let mut keys = headers.get_all(API_KEY).iter();
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    match (keys.next(), keys.next(), authorizations.next(), authorizations.next()) {
        (None, _, None, _) => Err(Refusal::MISSING),
        (Some(key), None, None, _) => key.to_str().map(Credential::Key).map_err(|_| Refusal::UNKNOWN_KEY),
        (None, _, Some(authorization), None) => bearer(authorization),
        _ => Err(Refusal::DOUBLED),
    }
}

fn bearer(authorization: &HeaderValue) -> Result<Credential<'_>, Refusal> {
    let text = authorization.to_str().map_err(|_| Refusal::TOKEN_MALFORMED)?;
    let (scheme, value) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::SCHEME);
    }
    let value = value.trim_start_matches(' ');
    Ok(if value.starts_with(PREFIX) { Credential::Key(value) } else { Credential::Token(value) })
}

fn principal_of(key: &Key) -> Principal {
    Principal {
        name: Arc::clone(&key.name),
        via: Via::ApiKey { id: Arc::clone(&key.id) },
        role: key.role,
        logs: key.logs.clone(),
        organisations: key.organisations.clone(),
    }
}

/// As tokens have times.
fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1000.0
}
