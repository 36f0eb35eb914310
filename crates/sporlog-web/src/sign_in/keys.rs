//! What all instances of a server share about sessions: the keys of their cookies, and which sessions have ended.
//!
//! A new key is made every day and seals cookies once every instance has had time to read it. Earlier keys open
//! cookies until no session can be left that was sealed with them. Where all this is stored is the business of
//! the [`SessionRegistry`].

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cookie::Key;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// A new key is made after so many seconds.
const ROTATION: i64 = 24 * 3600;
/// So many seconds after it was made, a key seals cookies: by then every instance has read it.
const SPREAD: i64 = 600;
/// For signing and for encryption.
const KEY_BYTES: usize = 64;

/// Where sessions' keys and the ended sessions are kept.
pub trait SessionRegistry: Send + Sync {
    /// The keys as they are now.
    fn keys(&self) -> Arc<SessionKeys>;
    /// Whether the session of this id was ended before its time.
    fn has_ended(&self, id: &str) -> bool;
    /// Ends the session of this id on every instance, unless `most` ended sessions are remembered already. After
    /// `until` no cookie of it would be taken anyway.
    fn end(&self, id: String, until: i64, most: usize) -> BoxFuture<'_, ()>;
}

/// The keys that cookies are sealed with.
#[derive(Clone, Default)]
pub struct SessionKeys(Vec<SessionKey>);

#[derive(Clone)]
struct SessionKey {
    made: i64,
    key: Key,
}

/// A key as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    made: i64,
    key: String,
}

/// Why stored keys cannot be read. The text holds nothing of the keys.
#[derive(Debug, thiserror::Error)]
#[error(
    "the keys of sessions cannot be read; remove the file to have new ones made (everybody has to sign in again)"
)]
pub struct SessionKeysError;

impl SessionKeys {
    /// Reads what [`SessionKeys::to_json`] has written.
    pub fn from_json(json: &[u8]) -> Result<Self, SessionKeysError> {
        let stored: Vec<Stored> = serde_json::from_slice(json).map_err(|_| SessionKeysError)?;
        let read = |Stored { made, key }: Stored| {
            let bytes = STANDARD.decode(key).map_err(|_| SessionKeysError)?;
            let key = Key::try_from(bytes.as_slice()).map_err(|_| SessionKeysError)?;
            Ok(SessionKey { made, key })
        };
        stored.into_iter().map(read).collect::<Result<_, _>>().map(SessionKeys)
    }

    /// The keys as they are stored.
    pub fn to_json(&self) -> Vec<u8> {
        let stored = |one: &SessionKey| Stored { made: one.made, key: STANDARD.encode(one.key.master()) };
        serde_json::to_vec(&self.0.iter().map(stored).collect::<Vec<_>>()).unwrap_or_default()
    }

    /// Makes a new key if the newest is a day old, and drops those that no session of at most `longest` seconds
    /// can have been sealed with. Says whether anything changed.
    pub fn rotate(&mut self, now: i64, longest: i64) -> Result<bool, getrandom::Error> {
        let before = self.0.len();
        // Until the next key seals, a key may seal; a session that it sealed then lasts `longest` at most.
        self.0.retain(|one| one.made > now - (ROTATION + SPREAD + SPREAD + longest));
        let mut changed = self.0.len() != before;
        if self.0.iter().all(|one| one.made <= now - ROTATION) {
            let mut bytes = [0; KEY_BYTES];
            getrandom::fill(&mut bytes)?;
            self.0.push(SessionKey { made: now, key: Key::from(&bytes) });
            changed = true;
        }
        Ok(changed)
    }

    /// The key that seals: the newest that every instance knows by now.
    pub(super) fn sealing(&self, now: i64) -> Option<&Key> {
        let spread = self.0.iter().filter(|one| one.made <= now - SPREAD).max_by_key(|one| one.made);
        spread.or_else(|| self.0.iter().min_by_key(|one| one.made)).map(|one| &one.key)
    }

    /// All keys, the newest first.
    pub(super) fn opening(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().rev().map(|one| &one.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(keys: &SessionKeys) -> Vec<i64> {
        keys.0.iter().map(|one| one.made).collect()
    }

    #[test]
    fn a_key_is_made_each_day_seals_ten_minutes_later_and_opens_until_its_sessions_are_over() {
        let (mut keys, longest) = (SessionKeys::default(), 8 * 3600);
        assert!(keys.rotate(1_000_000, longest).expect("random"));
        assert!(!keys.rotate(1_000_000 + ROTATION - 1, longest).expect("random"));
        let first = keys.sealing(1_000_000).expect("the only one").clone();
        let second = 1_000_000 + ROTATION;
        assert!(keys.rotate(second, longest).expect("random"));
        assert_eq!(keys.sealing(second + SPREAD - 1), Some(&first));
        assert_ne!(keys.sealing(second + SPREAD), Some(&first));
        // The first key seals until `second + SPREAD`, and what it sealed last ends `longest` later.
        assert!(!keys.rotate(second + SPREAD + longest, longest).expect("random"));
        assert_eq!(made(&keys), [1_000_000, second]);
        assert!(keys.rotate(second + 2 * SPREAD + longest, longest).expect("random"));
        assert_eq!(made(&keys), [second]);
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let mut keys = SessionKeys::default();
        keys.rotate(5, 60).expect("random");
        let read = SessionKeys::from_json(&keys.to_json()).expect("read");
        assert_eq!(read.sealing(5), keys.sealing(5));
        for wrong in ["", "{}", "[{}]", r#"[{"made":1,"key":"c2hvcnQ="}]"#, r#"[{"made":1,"key":"?"}]"#] {
            assert!(SessionKeys::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
