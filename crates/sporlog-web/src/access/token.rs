//! A JSON Web Token (RFC 7519) in compact form: taken apart, and its claims read. Nothing here is
//! trusted before [`IssuerKeys`](super::jwks::IssuerKeys) has verified the signature.
//!
//! Read strictly, as RFC 8725 advises: Base64url without padding, no `crit`, and a `typ` that is
//! that of an access token if there is one.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Longer tokens are not looked at. Those with many groups have some kilobytes.
const LONGEST: usize = 16 << 10;

/// What a token says.
pub(crate) type Claims = Map<String, Value>;

/// A token, taken apart.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// `alg`.
    pub algorithm: String,
    /// `kid`.
    pub key_id: Option<String>,
    pub claims: Claims,
    /// Header and claims as they were signed.
    pub signed: &'a str,
    /// The signature, in Base64url.
    pub signature: &'a str,
}

impl<'a> Token<'a> {
    /// Takes it apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::TokenTooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::TokenMalformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::TokenMalformed)?;
        // A second dot in the claims is none of Base64's characters.
        let header = object(header).ok_or(Refusal::TokenMalformed)?;
        let claims = object(claims).ok_or(Refusal::TokenMalformed)?;
        if header.contains_key("crit") {
            return Err(Refusal::TokenCritical);
        }
        if let Some(typ) = header.get("typ") {
            let typ = typ.as_str().ok_or(Refusal::TokenMalformed)?.to_ascii_lowercase();
            let typ = typ.strip_prefix("application/").unwrap_or(&typ);
            if !matches!(typ, "jwt" | "at+jwt") {
                return Err(Refusal::TokenType);
            }
        }
        let text = |name| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Refusal::TokenMalformed),
        };
        let algorithm = text("alg")?.ok_or(Refusal::TokenMalformed)?;
        Ok(Token { algorithm, key_id: text("kid")?, claims, signed, signature })
    }

    /// `iss`.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// Whether it is meant for one of these (`aud`, a text or a list of texts).
    pub(super) fn is_for(&self, audience: &[String]) -> bool {
        let ours = |one: &Value| one.as_str().is_some_and(|one| audience.iter().any(|ours| ours == one));
        match self.claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        }
    }

    /// Until when it is valid, in seconds since 1970, if it is valid at `now`. A token without an
    /// end is none.
    pub(super) fn valid_until(&self, now: f64, leeway: f64) -> Result<f64, Refusal> {
        let time = |name| match self.claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Refusal::TokenMalformed),
        };
        let until = time("exp")?.ok_or(Refusal::TokenExpired)? + leeway;
        if until <= now {
            return Err(Refusal::TokenExpired);
        }
        match time("nbf")? {
            Some(from) if from - leeway > now => Err(Refusal::TokenNotYet),
            _ => Ok(until),
        }
    }
}

/// The claim at this path. A claim whose own name has dots in it comes before a path of the same
/// letters.
pub(crate) fn claim<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    claim(claims.get(first)?.as_object()?, rest)
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
