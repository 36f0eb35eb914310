//! A person's session: who has signed in, and until when. The whole of it is in an encrypted cookie, so any
//! instance serves any request.
//!
//! A session ends when nothing was asked for within the idle time, at its latest hour, or when the person signs
//! out. [`renew`](super::renew) puts off the idle time of each request that a handler asked the session of.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::cookies::{Cookies, SESSION};
use super::settings::SessionSettings;

/// The field of a form that holds [`SignedIn::csrf`].
pub const CSRF_FIELD: &str = "csrf";

/// A person who has signed in. As an extractor it sends whoever has no session to the front page (303).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// Their personal number: a fødselsnummer (11 digits) or a CPR number (10 digits).
    pub pid: String,
    /// The id of the provider that vouches for them.
    #[serde(with = "text")]
    pub provider: Arc<str>,
    /// At which level they signed in, as the provider calls it.
    pub acr: Option<String>,
    /// What they are called, if the provider says so.
    pub name: Option<String>,
    /// When the session ends unless something is asked for before: seconds since 1970.
    pub idle_until: i64,
    /// When the session ends in any case: seconds since 1970.
    pub ends: i64,
    /// What the session is called among those that have ended. A secret: form tokens are made of it.
    id: String,
    /// What the provider calls the session, if it may end it (`iss` and `sid`, hashed).
    theirs: Option<String>,
}

/// What a sign-in found out.
#[derive(Default)]
pub(super) struct Identity {
    pub pid: String,
    pub provider: Arc<str>,
    pub acr: Option<String>,
    pub name: Option<String>,
    /// See [`provider_session`].
    pub session: Option<String>,
}

/// Begins, opens, renews and ends sessions.
pub(super) struct Sessions {
    pub cookies: Cookies,
    pub settings: SessionSettings,
}

impl Sessions {
    /// A new session.
    pub(super) fn begin(&self, who: Identity, now: i64) -> Result<SignedIn, getrandom::Error> {
        let mut id = [0; 18];
        getrandom::fill(&mut id)?;
        let ends = now + self.settings.longest();
        Ok(SignedIn {
            pid: who.pid,
            provider: who.provider,
            acr: who.acr,
            name: who.name,
            idle_until: (now + self.settings.idle()).min(ends),
            ends,
            id: URL_SAFE_NO_PAD.encode(id),
            theirs: who.session,
        })
    }

    /// The session that the request belongs to, renewed, if it has not ended.
    pub(super) fn open(&self, headers: &HeaderMap, now: i64) -> Option<SignedIn> {
        let session: SignedIn = self.cookies.open(headers, SESSION)?;
        let over = |id: &String| self.cookies.registry.has_ended(id);
        if now >= session.idle_until.min(session.ends)
            || over(&session.id)
            || session.theirs.as_ref().is_some_and(over)
        {
            return None;
        }
        let idle_until = (now + self.settings.idle()).min(session.ends);
        Some(SignedIn { idle_until, ..session })
    }

    /// `Set-Cookie` with the session.
    pub(super) fn cookie(&self, session: &SignedIn, now: i64) -> Option<HeaderValue> {
        self.cookies.seal(SESSION, session, now, None)
    }

    /// Whether `Set-Cookie` is about a session.
    pub(super) fn is_session(&self, set: &HeaderValue) -> bool {
        set.as_bytes().starts_with(self.cookies.name(SESSION).as_bytes())
    }

    /// Ends the session on every instance; copies of its cookie are worth nothing any more.
    pub(super) async fn end(&self, session: &SignedIn) {
        self.cookies.registry.end(session.id.clone(), session.ends, usize::MAX).await;
    }
}

/// What a session of a provider is called among those that have ended.
pub(super) fn provider_session(issuer: &str, sid: &str) -> String {
    let digest = Sha256::new().chain_update(issuer).chain_update([0]).chain_update(sid).finalize();
    URL_SAFE_NO_PAD.encode(digest)
}

impl SignedIn {
    /// What each form that changes something sends in the field [`CSRF_FIELD`].
    pub fn csrf(&self) -> String {
        let digest = Sha256::new().chain_update("form").chain_update(&self.id).finalize();
        URL_SAFE_NO_PAD.encode(digest)
    }

    /// Whether the body of a form (`application/x-www-form-urlencoded`) has this session's token.
    pub fn has_made(&self, body: &[u8]) -> bool {
        let token = url::form_urlencoded::parse(body).find(|(name, _)| name == CSRF_FIELD);
        let given = token.map(|(_, token)| token).unwrap_or_default();
        given.as_bytes().ct_eq(self.csrf().as_bytes()).into()
    }
}

impl fmt::Debug for SignedIn {
    /// Without name and number: this ends in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SignedIn");
        shown.field("provider", &self.provider).field("acr", &self.acr).field("ends", &self.ends);
        shown.finish_non_exhaustive()
    }
}

/// A shared text, as JSON has it.
mod text {
    use super::{Arc, Deserialize};

    pub(super) fn serialize<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Into::into)
    }
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
