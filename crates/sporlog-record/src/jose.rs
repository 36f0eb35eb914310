//! JSON Web Tokens in compact form (RFC 7519), and the keys that sign them (RFC 7517). Nothing that a token says is
//! trusted before [`KeySet::verify`] has verified its signature.

use std::str::FromStr;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, crypto};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use jsonwebtoken::Algorithm;

/// Base64url without padding, as tokens have it.
pub const STRICT: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD);
/// Base64url with or without padding: padding is not allowed there, and does no harm.
pub const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// No issuer has so many keys; without a limit, a token that names none would be tried with all.
const MAX_KEYS: usize = 64;

/// What a token says, or its header.
pub type Claims = Map<String, Value>;

/// A token, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Token<'a> {
    /// The algorithm that the header names (`alg`).
    pub algorithm: String,
    /// The key that the header names (`kid`).
    pub key_id: Option<String>,
    /// The header.
    pub header: Claims,
    /// What the token says.
    pub claims: Claims,
    /// Header and claims as they were signed.
    signed: &'a str,
    /// The signature, in Base64url.
    signature: &'a str,
}

/// Why a text is no JSON Web Token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no JSON Web Token: {0}")]
pub struct TokenError(&'static str);

impl<'a> Token<'a> {
    /// Takes a token apart whose parts are in Base64url, [`STRICT`] or [`LENIENT`]. The signature may be empty: such
    /// a token is unsigned, but is one.
    pub fn parse(token: &'a str, base64: &GeneralPurpose) -> Result<Token<'a>, TokenError> {
        let parts = TokenError("it has not three parts with a dot between them");
        let (signed, signature) = token.rsplit_once('.').ok_or(parts)?;
        let (header, claims) = signed.split_once('.').ok_or(parts)?;
        if claims.contains('.') {
            return Err(parts);
        }
        let object = |part| serde_json::from_slice::<Claims>(&base64.decode(part).ok()?).ok();
        let no_header = TokenError("its header is not a JSON object in Base64url with an alg");
        let header = object(header).ok_or(no_header)?;
        let claims = object(claims).ok_or(TokenError("its claims are not a JSON object in Base64url"))?;
        base64.decode(signature).map_err(|_| TokenError("its signature is not Base64url"))?;
        let text = |name| header.get(name).and_then(Value::as_str).map(str::to_owned);
        let algorithm = text("alg").filter(|name| !name.is_empty()).ok_or(no_header)?;
        Ok(Token { algorithm, key_id: text("kid"), header, claims, signed, signature })
    }
}

/// An issuer's public keys, as it publishes them (a JWK set).
///
/// Only signatures that take a private key to make are verified at all: `none` and the HMAC algorithms never verify,
/// whatever is in the set.
#[derive(Debug, Clone)]
pub struct KeySet {
    /// As they were published.
    json: Vec<u8>,
    keys: Vec<PublicKey>,
}

#[derive(Debug, Clone)]
struct PublicKey {
    id: Option<String>,
    /// The one algorithm that the key is for, if it says so.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// Why a key set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The set cannot be read.
    #[error("this is no JWK set ({{\"keys\": […]}}): {0}")]
    Format(#[from] serde_json::Error),
    /// The set has no key that a signature could be verified with.
    #[error("no key of this JWK set is a public key for signatures (RSA, EC or Ed25519)")]
    NoKeys,
}

/// Whether a token's signature is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// One of the keys signed the token.
    Good,
    /// The key that the token names is there, and it did not sign the token.
    Bad,
    /// None of these keys signed the token; there may be newer ones.
    UnknownKey,
}

/// Sets are the same if the same bytes were published.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl KeySet {
    /// Reads a JWK set. Keys that are not public keys for signatures are left out; a set without any is refused, so
    /// that it does not take the place of a better one.
    pub fn from_jwks(json: &[u8]) -> Result<KeySet, KeySetError> {
        #[derive(Deserialize)]
        struct Published {
            keys: Vec<Value>,
        }
        let published: Published = serde_json::from_slice(json)?;
        // Read one by one: a key of a new sort is no reason to do without the others.
        let read = |value| PublicKey::from_jwk(&serde_json::from_value(value).ok()?);
        let keys: Vec<_> = published.keys.into_iter().filter_map(read).take(MAX_KEYS).collect();
        if keys.is_empty() { Err(KeySetError::NoKeys) } else { Ok(KeySet { json: json.to_vec(), keys }) }
    }

    /// How many keys there are.
    #[allow(clippy::len_without_is_empty, reason = "no set is empty")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether one of the keys signed the token: if the token names its key, that one, or one that has no name. The
    /// key's own kind has to fit the algorithm: no public key ever serves as a shared secret.
    pub fn verify(&self, token: &Token<'_>, algorithm: Algorithm) -> Verified {
        let named = |key: &PublicKey| match (&key.id, &token.key_id) {
            (Some(id), Some(wanted)) => id == wanted,
            _ => true,
        };
        let signed = |key: &PublicKey| {
            // An error here is a key or a signature that is malformed: it does not verify.
            crypto::verify(token.signature, token.signed.as_bytes(), &key.key, algorithm).unwrap_or(false)
        };
        if self.keys.iter().any(|key| named(key) && key.fits(algorithm) && signed(key)) {
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
        let family = algorithm.family();
        family != AlgorithmFamily::Hmac
            && self.key.family() == family
            && self.algorithm.is_none_or(|only| only == algorithm)
    }
}

/// An algorithm that takes a private key to sign with, by its name.
pub fn asymmetric(name: &str) -> Option<Algorithm> {
    let algorithm = Algorithm::from_str(name).ok()?;
    (algorithm.family() != AlgorithmFamily::Hmac).then_some(algorithm)
}
