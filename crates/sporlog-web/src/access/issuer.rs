//! An issuer of tokens, and how its keys are got and kept up to date.
//!
//! The keys are fetched when they are first needed, and again from time to time while tokens come
//! in, without a request waiting for it. A token that names a key not seen so far has them fetched
//! at once, but not more often than every few seconds, whatever is sent. If the issuer cannot be
//! reached, the keys that are there stay in use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::Deserialize;
use sporlog_record::jose::{Algorithm, KeySet, KeySetError, Token, Verified, asymmetric};
use tokio::sync::Mutex;
use url::Url;

use super::grant::Grant;
use super::refusal::Refusal;
use super::settings::{IssuerSettings, is_allowed};
use crate::server::{Class, RequestPermit};

/// The most that is read of what an issuer publishes.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// How often keys are fetched, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Keys older than this are fetched again when they are next used.
    pub refresh: Duration,
    /// So long at least lies between two attempts.
    pub pause: Duration,
    /// So long an attempt takes at most.
    pub timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Pace { refresh: seconds(600), pause: seconds(10), timeout: seconds(10) }
    }
}

/// Why an issuer's keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It could not be reached, or what it answered cannot be used.
    #[error("{url}: {reason}")]
    Answer {
        /// What was asked for.
        url: Box<str>,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("there was no answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
}

/// An issuer of tokens.
pub(super) struct Issuer {
    pub name: Arc<str>,
    pub settings: IssuerSettings,
    algorithms: Vec<Algorithm>,
    source: Source,
    pace: Pace,
    client: reqwest::Client,
    kept: RwLock<Option<Kept>>,
    /// When keys were last asked for. Whoever holds it is fetching.
    last_attempt: Mutex<Option<Instant>>,
    refreshing: AtomicBool,
}

/// Where an issuer's keys are found.
enum Source {
    Discovery(Url),
    Jwks(Url),
}

struct Kept {
    keys: Arc<KeySet>,
    fetched: Instant,
}

/// What an issuer says about itself (OpenID Connect Discovery, RFC 8414), as far as it is used.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Url,
}

impl Issuer {
    /// By settings that were checked; says what is wrong with them if they were not.
    pub(super) fn new(
        settings: &IssuerSettings,
        pace: Pace,
        client: &reqwest::Client,
    ) -> Result<Self, String> {
        let algorithm =
            |name: &String| asymmetric(name).ok_or_else(|| format!("'{name}' is no algorithm that is taken"));
        let source = match settings.jwks_uri() {
            Some(url) => Source::Jwks(url?),
            None => Source::Discovery(settings.discovery_url()?),
        };
        Ok(Issuer {
            name: settings.issuer.as_str().into(),
            algorithms: settings.algorithms.iter().map(algorithm).collect::<Result<_, _>>()?,
            settings: settings.clone(),
            source,
            pace,
            client: client.clone(),
            kept: RwLock::new(None),
            last_attempt: Mutex::new(None),
            refreshing: AtomicBool::new(false),
        })
    }

    /// What the token stands for, if this issuer signed it, and the keys that say so.
    pub(super) async fn verify(
        self: &Arc<Self>,
        token: &Token<'_>,
        permit: &RequestPermit,
    ) -> Result<(Grant, Arc<KeySet>), Refusal> {
        let algorithm = asymmetric(&token.algorithm).filter(|one| self.algorithms.contains(one));
        let algorithm = algorithm.ok_or(Refusal::TOKEN_ALGORITHM)?;
        let mut keys = match self.current() {
            Some(keys) => keys,
            None => self.newer_than(None, permit).await?.ok_or(Refusal::ISSUER_UNAVAILABLE)?,
        };
        let mut verified = keys.verify(token, algorithm);
        if verified == Verified::UnknownKey
            && let Some(newer) = self.newer_than(Some(Arc::clone(&keys)), permit).await?
        {
            verified = newer.verify(token, algorithm);
            keys = newer;
        }
        match verified {
            Verified::Good => Ok((Grant::of(&self.settings, &self.name, &token.claims), keys)),
            Verified::Bad | Verified::UnknownKey => Err(Refusal::TOKEN_SIGNATURE),
        }
    }

    /// The keys that are there. If they are old, newer ones are being fetched once this returns.
    pub(super) fn current(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_ref()?;
        if kept.fetched.elapsed() > self.pace.refresh && !self.refreshing.swap(true, Ordering::Relaxed) {
            let issuer = Arc::clone(self);
            let keys = Arc::clone(&kept.keys);
            tokio::spawn(async move {
                issuer.fetch_once(Some(keys)).await;
                issuer.refreshing.store(false, Ordering::Relaxed);
            });
        }
        Some(Arc::clone(&kept.keys))
    }

    /// Keys that are not these, if there are any by now. Whoever waits for them holds no permit that others need.
    async fn newer_than(
        self: &Arc<Self>,
        seen: Option<Arc<KeySet>>,
        permit: &RequestPermit,
    ) -> Result<Option<Arc<KeySet>>, Refusal> {
        permit.move_to(Class::Issuer).map_err(|_| Refusal::ISSUER_UNAVAILABLE)?;
        let issuer = Arc::clone(self);
        // In a task of its own: a client that hangs up must not break off what others wait for.
        let newer = tokio::spawn(async move { issuer.fetch_once(seen).await }).await.ok().flatten();
        permit.move_to(Class::Request).map_err(|_| Refusal::ISSUER_UNAVAILABLE)?;
        Ok(newer)
    }

    /// Fetches the keys, unless others than those seen are there already, or the last attempt was
    /// just now. Only one at a time does; the others wait for what comes of it.
    async fn fetch_once(&self, seen: Option<Arc<KeySet>>) -> Option<Arc<KeySet>> {
        let mut last_attempt = self.last_attempt.lock().await;
        let other = |keys: &Arc<KeySet>| seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, keys));
        let newer = || self.keys().filter(other);
        let just_now = last_attempt.is_some_and(|then| then.elapsed() < self.pace.pause);
        if newer().is_some() || just_now {
            return newer();
        }
        let fetched = self.fetch().await;
        *last_attempt = Some(Instant::now());
        match fetched {
            Ok(keys) => self.keep(keys),
            Err(error) => {
                tracing::warn!(issuer = %self.name, %error, "the issuer's keys could not be fetched");
            }
        }
        newer()
    }

    /// Fetches the keys, whenever that was last done, and says how many there are.
    pub(super) async fn fetch_now(&self) -> Result<usize, FetchError> {
        let mut last_attempt = self.last_attempt.lock().await;
        let fetched = self.fetch().await;
        *last_attempt = Some(Instant::now());
        let keys = fetched?;
        let count = keys.len();
        self.keep(keys);
        Ok(count)
    }

    fn keys(&self) -> Option<Arc<KeySet>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|kept| Arc::clone(&kept.keys))
    }

    /// Keeps what was fetched. The same keys again stay the same: what they verified still holds.
    fn keep(&self, keys: KeySet) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let keys = match kept.take() {
            Some(before) if *before.keys == keys => before.keys,
            _ => {
                tracing::info!(issuer = %self.name, keys = keys.len(), "the issuer has new keys");
                Arc::new(keys)
            }
        };
        *kept = Some(Kept { keys, fetched: Instant::now() });
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let timeout = self.pace.timeout;
        tokio::time::timeout(timeout, self.fetch_all()).await.map_err(|_| FetchError::Timeout(timeout))?
    }

    async fn fetch_all(&self) -> Result<KeySet, FetchError> {
        let url = match &self.source {
            Source::Jwks(url) => url.clone(),
            Source::Discovery(url) => self.discover(url).await?,
        };
        let json = self.get(&url).await?;
        KeySet::from_jwks(&json).map_err(|error| match error {
            KeySetError::Format(_) => answer(&url, "this is no JWK set"),
            KeySetError::NoKeys => {
                answer(&url, "the JWK set has no public key for signatures (RSA, EC or Ed25519)")
            }
        })
    }

    async fn discover(&self, url: &Url) -> Result<Url, FetchError> {
        let json = self.get(url).await?;
        let metadata: Metadata = serde_json::from_slice(&json).map_err(|_| {
            answer(url, "this does not say issuer and jwks_uri, as an issuer's metadata does")
        })?;
        if metadata.issuer != self.settings.issuer {
            return Err(answer(url, "this is the metadata of another issuer"));
        }
        if !is_allowed(&metadata.jwks_uri, self.settings.allow_http) {
            return Err(answer(url, "its jwks_uri is not an https address"));
        }
        Ok(metadata.jwks_uri)
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let transport = |error: reqwest::Error| answer(url, &with_causes(&error.without_url()));
        let mut response = self.client.get(url.clone()).send().await.map_err(transport)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(answer(url, &format!("the answer is {}", response.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(answer(url, &format!("the answer is longer than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn answer(url: &Url, reason: &str) -> FetchError {
    FetchError::Answer { url: url.as_str().into(), reason: reason.to_owned() }
}

/// An error and what caused it: reqwest's own text says no more than that sending failed.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What issuers are asked with: no redirects, which could lead anywhere.
pub(crate) fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent(concat!("sporlog/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(timeout / 2)
        .timeout(timeout)
        .build()
}
