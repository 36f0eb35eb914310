//! The keys that tokens' signatures are verified with.

use std::str::FromStr;

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};

use super::Token;

/// The issuers' public keys, as they publish them (a JWK set).
///
/// Only signatures that take a private key to make are verified at all: `none` and the HMAC
/// algorithms never verify, whatever is in the set.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It cannot be read.
    #[error("this is no JWK set ({{\"keys\": […]}}): {0}")]
    Format(#[from] serde_json::Error),
    /// It has no key that a signature could be verified with.
    #[error("no key of this JWK set is a public key for signatures (RSA, EC or Ed25519)")]
    NoKeys,
}

impl KeySet {
    /// Reads a JWK set. Keys of other kinds, or for other uses, are left out.
    pub fn from_jwks(json: &[u8]) -> Result<KeySet, KeySetError> {
        let set: JwkSet = serde_json::from_slice(json)?;
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::from_jwk).collect();
        if keys.is_empty() { Err(KeySetError::NoKeys) } else { Ok(KeySet { keys }) }
    }

    /// Whether a token's signature was made with one of the keys. If the token names its key, then
    /// with that one, or one that has no name.
    pub fn verify(&self, token: &Token) -> bool {
        let Ok(algorithm) = Algorithm::from_str(&token.algorithm) else {
            return false;
        };
        if algorithm.family() == AlgorithmFamily::Hmac {
            return false;
        }
        self.keys.iter().filter(|key| key.is_meant_for(token, algorithm)).any(|key| {
            // An error here is a key or a signature that is malformed: it does not verify.
            crypto::verify(token.signature, token.signed.as_bytes(), &key.key, algorithm).unwrap_or(false)
        })
    }
}

impl Key {
    fn from_jwk(jwk: &Jwk) -> Option<Key> {
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(KeyAlgorithm::UNKNOWN_ALGORITHM) => return None,
            Some(algorithm) => Some(Algorithm::try_from(algorithm).ok()?),
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let usable = for_signatures && key.family() != AlgorithmFamily::Hmac;
        usable.then(|| Key { id: jwk.common.key_id.clone(), algorithm, key })
    }

    fn is_meant_for(&self, token: &Token, algorithm: Algorithm) -> bool {
        let same_id = match (&self.id, &token.key_id) {
            (Some(id), Some(wanted)) => id == wanted,
            _ => true,
        };
        same_id
            && self.key.family() == algorithm.family()
            && self.algorithm.is_none_or(|only| only == algorithm)
    }
}
