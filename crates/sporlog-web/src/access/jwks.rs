//! An issuer's public keys: what it publishes, and whether one of them signed a token.

use std::str::FromStr;

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::Value;

use super::token::Token;

/// No issuer has so many keys; without a limit, a token that names none would be tried with all.
const MOST: usize = 64;

/// An issuer's keys, as it published them at some time.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    /// As they were published.
    json: Vec<u8>,
    keys: Vec<PublicKey>,
}

#[derive(Debug)]
struct PublicKey {
    id: Option<String>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// Whether a token's signature is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verified {
    /// By one of the keys.
    Good,
    /// The key that the token names is there, and it did not sign it.
    Bad,
    /// By none of these keys; there may be newer ones.
    UnknownKey,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

impl IssuerKeys {
    /// Reads a JWK set (RFC 7517). Keys that are not public keys for signatures are left out; a set
    /// without any is refused, so that it does not take the place of a better one.
    pub(super) fn from_jwks(json: Vec<u8>) -> Result<Self, &'static str> {
        let published: Published = serde_json::from_slice(&json).map_err(|_| "this is no JWK set")?;
        // Read one by one: a key of a new sort is no reason to do without the others.
        let read = |value| PublicKey::from_jwk(&serde_json::from_value(value).ok()?);
        let keys: Vec<_> = published.keys.into_iter().filter_map(read).take(MOST).collect();
        if keys.is_empty() {
            return Err("the JWK set has no public key for signatures (RSA, EC or Ed25519)");
        }
        Ok(IssuerKeys { json, keys })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the issuer published the same bytes.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.json == other.json
    }

    /// Whether one of them signed the token. The algorithm is one of those that the issuer may use,
    /// and the key's own kind has to fit it: no public key ever serves as a shared secret.
    pub(super) fn verify(&self, token: &Token<'_>, algorithm: Algorithm) -> Verified {
        let named = |key: &&PublicKey| match (&key.id, &token.key_id) {
            (Some(id), Some(wanted)) => id == wanted,
            _ => true,
        };
        let signed = |key: &PublicKey| {
            // An error here is a key or a signature that is malformed: it does not verify.
            crypto::verify(token.signature, token.signed.as_bytes(), &key.key, algorithm).unwrap_or(false)
        };
        let mut candidates = self.keys.iter().filter(named).filter(|key| key.fits(algorithm));
        if candidates.any(signed) {
            return Verified::Good;
        }
        let there = token.key_id.is_some() && self.keys.iter().any(|key| key.id == token.key_id);
        if there { Verified::Bad } else { Verified::UnknownKey }
    }
}

impl PublicKey {
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(KeyAlgorithm::UNKNOWN_ALGORITHM) => return None,
            Some(algorithm) => Some(Algorithm::try_from(algorithm).ok()?),
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let usable = for_signatures && key.family() != AlgorithmFamily::Hmac;
        usable.then(|| PublicKey { id: jwk.common.key_id.clone(), algorithm, key })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family() && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// An algorithm that takes a private key to sign with, by its name.
pub(super) fn asymmetric(name: &str) -> Option<Algorithm> {
    let algorithm = Algorithm::from_str(name).ok()?;
    (algorithm.family() != AlgorithmFamily::Hmac).then_some(algorithm)
}
