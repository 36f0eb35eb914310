//! Our own keys: made, told apart, compared, given another secret, and revoked.
//!
//! A key is `sporlog_<id>_<secret>`. The id is public and finds the key; the secret is 32 bytes
//! from the system's generator, of which only the SHA-256 is kept. A slow hash would protect
//! nothing: it is for secrets that people think up, and nobody tries out 2²⁵⁶ of these. It would
//! only let every request pay for it.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sporlog_record::identifier::mask_text;
use subtle::ConstantTimeEq;

use super::{BoundError, Role, bounds};
use sporlog_record::hex;

/// What every key begins with.
pub const PREFIX: &str = "sporlog_";
/// Twelve letters and digits of 32 sorts: 60 bits, so that no two keys have the same.
const ID_LENGTH: usize = 12;
const ID_LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// The longest name of a key, in characters.
const LONGEST_NAME: usize = 64;
/// What is written to the file, for those who will read it once its form has changed.
const VERSION: u32 = 1;

/// Where keys are kept. `current` and `used` are called for every request and must not block.
pub trait KeyRegistry: Send + Sync {
    /// The keys as they were a moment ago.
    fn current(&self) -> Arc<KeyRing>;
    /// Sees to it that the keys are those of this moment: called when somebody shows one that is not
    /// known, which may have just been made.
    fn renew(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// The key of this id has just been used.
    fn used(&self, id: &str);
}

/// What is to be known of a new key.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What it is called: 1 to 64 characters, unique among the keys that are not revoked.
    pub name: String,
    /// What its holder is.
    pub role: Role,
    /// As [`Principal::logs`](super::Principal::logs).
    pub logs: Vec<String>,
    /// As [`Principal::organisations`](super::Principal::organisations).
    pub organisations: Vec<String>,
    /// From when on it is refused.
    pub expires: Option<DateTime<Utc>>,
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Finds it; no secret.
    pub id: Arc<str>,
    /// What it is called.
    pub name: Arc<str>,
    /// What its holder is.
    pub role: Role,
    /// As [`Principal::logs`](super::Principal::logs).
    pub logs: Vec<String>,
    /// As [`Principal::organisations`](super::Principal::organisations).
    pub organisations: Vec<String>,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// From when on it is refused.
    pub expires: Option<DateTime<Utc>>,
    /// Since when it is refused for good.
    pub revoked: Option<DateTime<Utc>>,
    sha256: SecretDigest,
    /// The secret before the last rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<OldSecret>,
}

/// A secret that is taken for some time yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldSecret {
    sha256: SecretDigest,
    /// From when on it is refused.
    pub until: DateTime<Utc>,
}

/// All keys, those that are revoked included: their names stand in old records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: HashMap<Arc<str>, Key>,
}

/// Why a key is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// There is no such key, or its secret is another one.
    Unknown,
    /// It was revoked.
    Revoked,
    /// It has run out.
    Expired,
}

/// What is wrong with keys, or with what is to be done to them.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// They cannot be read.
    #[error("this is no list of keys: {0}")]
    Format(#[from] serde_json::Error),
    /// They are in a form that a later version writes.
    #[error("the list of keys is of version {0}, and this program knows version {VERSION}")]
    Version(u32),
    /// One of them, or two that are the same, cannot be.
    #[error("the list of keys is damaged at the key '{0}'")]
    Damaged(String),
    /// The name cannot be one.
    #[error(
        "a key's name has 1 to {LONGEST_NAME} characters, none of them a control character, and no personal number in it"
    )]
    Name,
    /// The name is another key's.
    #[error("there is a key '{0}' already; revoke it first, or choose another name")]
    Taken(String),
    /// Logs or organisations that cannot be.
    #[error(transparent)]
    Bound(#[from] BoundError),
    /// It would never be accepted.
    #[error("the key would have expired already")]
    Expired,
    /// Nothing of this name.
    #[error("there is no key '{0}'")]
    NoSuchKey(String),
    /// It was.
    #[error("the key '{0}' is revoked already")]
    Revoked(String),
    /// No secret could be made.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// The keys as they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<K> {
    version: u32,
    keys: Vec<K>,
}

impl KeyRing {
    /// Reads keys from JSON, as [`KeyRing::to_json`] writes them.
    pub fn from_json(json: &[u8]) -> Result<Self, KeyRingError> {
        let written: Written<Key> = serde_json::from_slice(json)?;
        if written.version != VERSION {
            return Err(KeyRingError::Version(written.version));
        }
        let mut keys = HashMap::with_capacity(written.keys.len());
        for key in written.keys {
            let id = Arc::clone(&key.id);
            if !is_id(&id) || keys.insert(Arc::clone(&id), key).is_some() {
                return Err(KeyRingError::Damaged(mask_text(&id).into_owned()));
            }
        }
        Ok(KeyRing { keys })
    }

    /// The keys as JSON, the oldest first.
    pub fn to_json(&self) -> Result<Vec<u8>, KeyRingError> {
        let mut json = serde_json::to_vec_pretty(&Written { version: VERSION, keys: self.keys() })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Makes a key. Gives it, and what its holder has to send: that is kept nowhere.
    pub fn create(&mut self, new: NewKey, now: DateTime<Utc>) -> Result<(Key, String), KeyRingError> {
        let length = new.name.chars().count();
        let masked = mask_text(&new.name);
        if length == 0 || length > LONGEST_NAME || new.name.contains(char::is_control) || masked != new.name {
            return Err(KeyRingError::Name);
        }
        if self.active(&new.name).is_some() {
            return Err(KeyRingError::Taken(new.name));
        }
        bounds::check(&new.logs, &new.organisations)?;
        if new.expires.is_some_and(|expires| expires <= now) {
            return Err(KeyRingError::Expired);
        }
        let secret = new_secret()?;
        let id = new_id()?;
        let key = Key {
            id: Arc::clone(&id),
            name: new.name.into(),
            role: new.role,
            logs: new.logs,
            organisations: new.organisations,
            created: now,
            expires: new.expires,
            revoked: None,
            sha256: SecretDigest::of(&secret),
            old: None,
        };
        let presented = format!("{PREFIX}{id}_{secret}");
        self.keys.insert(id, key.clone());
        Ok((key, presented))
    }

    /// Gives the key of this name another secret. The one that it has is taken until `until`, and one before that no more:
    /// the key stays the same one, with its id. Gives the key, and what its holder has to send.
    pub fn rotate(&mut self, name: &str, until: DateTime<Utc>) -> Result<(Key, String), KeyRingError> {
        let key = self.active_mut(name)?;
        let secret = new_secret()?;
        let old = std::mem::replace(&mut key.sha256, SecretDigest::of(&secret));
        key.old = Some(OldSecret { sha256: old, until });
        Ok((key.clone(), format!("{PREFIX}{}_{secret}", key.id)))
    }

    /// Revokes the key of this name.
    pub fn revoke(&mut self, name: &str, now: DateTime<Utc>) -> Result<Key, KeyRingError> {
        let key = self.active_mut(name)?;
        key.revoked = Some(now);
        Ok(key.clone())
    }

    /// The key that was sent, if it is accepted at this time. Only who sends the right secret is told that the key is
    /// revoked or has run out.
    pub fn find(&self, presented: &str, now: DateTime<Utc>) -> Result<&Key, KeyRefusal> {
        let (id, secret) = split(presented).ok_or(KeyRefusal::Unknown)?;
        let sent = SecretDigest::of(secret);
        let key = self.keys.get(id);
        // An unknown id takes as long as a known one: its digest is compared with zeros, which are the digest of no
        // secret that anybody has.
        let old = key.and_then(|key| key.old.as_ref());
        let kept = key.map_or(&[0; 32], |key| &key.sha256.0);
        let same = bool::from(sent.0.ct_eq(kept));
        let same_as_old = bool::from(sent.0.ct_eq(old.map_or(&[0; 32], |old| &old.sha256.0)));
        match key {
            Some(key) if same || same_as_old => match (key.revoked, key.expires) {
                (Some(_), _) => Err(KeyRefusal::Revoked),
                (None, Some(expires)) if expires <= now => Err(KeyRefusal::Expired),
                _ if !same && old.is_none_or(|old| old.until <= now) => Err(KeyRefusal::Expired),
                _ => Ok(key),
            },
            _ => Err(KeyRefusal::Unknown),
        }
    }

    /// All keys, the oldest first.
    pub fn keys(&self) -> Vec<&Key> {
        let mut keys: Vec<&Key> = self.keys.values().collect();
        keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        keys
    }

    /// The key of this name that is not revoked.
    fn active(&self, name: &str) -> Option<&Key> {
        self.keys.values().find(|key| &*key.name == name && key.revoked.is_none())
    }

    fn active_mut(&mut self, name: &str) -> Result<&mut Key, KeyRingError> {
        let before = self.keys.values().any(|key| &*key.name == name);
        let active = self.keys.values_mut().find(|key| &*key.name == name && key.revoked.is_none());
        active.ok_or_else(|| {
            let name = mask_text(name).into_owned();
            if before { KeyRingError::Revoked(name) } else { KeyRingError::NoSuchKey(name) }
        })
    }
}

/// The id and the secret of what may be a key.
fn split(presented: &str) -> Option<(&str, &str)> {
    let (id, secret) = presented.strip_prefix(PREFIX)?.split_once('_')?;
    // A key is 43 characters of secret; to hash what is much longer would be work for nothing.
    (is_id(id) && secret.len() == 43).then_some((id, secret))
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| ID_LETTERS.contains(&byte))
}

fn new_secret() -> Result<String, getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(secret))
}

fn new_id() -> Result<Arc<str>, getrandom::Error> {
    let mut bytes = [0; ID_LENGTH];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ID_LETTERS[usize::from(byte % 32)])).collect::<String>().into())
}

/// SHA-256 of a secret. In hexadecimal where it is written.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct SecretDigest([u8; 32]);

impl SecretDigest {
    fn of(secret: &str) -> Self {
        SecretDigest(Sha256::digest(secret).into())
    }
}

impl std::fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl From<SecretDigest> for String {
    fn from(digest: SecretDigest) -> String {
        hex(digest.0)
    }
}

impl TryFrom<String> for SecretDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "a SHA-256 in hexadecimal is expected";
        let mut digest = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong);
        }
        for (at, byte) in digest.iter_mut().enumerate() {
            let pair = text.get(2 * at..2 * at + 2).filter(|pair| !pair.starts_with('+')).ok_or(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong)?;
        }
        Ok(SecretDigest(digest))
    }
}

#[cfg(test)]
#[path = "keyring/tests.rs"]
mod tests;
