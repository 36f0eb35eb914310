//! Access tokens: what is asked of a JSON Web Token beyond its form. Nothing here is trusted before
//! [`KeySet`](sporlog_record::jose::KeySet) has verified the signature.
//!
//! Read strictly, as RFC 8725 advises: Base64url without padding, no `crit`, and a `typ` that is
//! that of an access token if there is one.

use serde_json::Value;
use sporlog_record::jose::{Claims, STRICT, Token};

use super::refusal::Refusal;

/// Longer tokens are not looked at. Those with many groups have some kilobytes.
const LONGEST: usize = 16 << 10;

/// Takes a token apart.
pub(super) fn parse(token: &str) -> Result<Token<'_>, Refusal> {
    if token.len() > LONGEST {
        return Err(Refusal::TOKEN_TOO_LONG);
    }
    let token = Token::parse(token, &STRICT).map_err(|_| Refusal::TOKEN_MALFORMED)?;
    if token.header.contains_key("crit") {
        return Err(Refusal::TOKEN_CRITICAL);
    }
    if let Some(typ) = token.header.get("typ") {
        let typ = typ.as_str().ok_or(Refusal::TOKEN_MALFORMED)?.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if !matches!(typ, "jwt" | "at+jwt") {
            return Err(Refusal::TOKEN_TYPE);
        }
    }
    if token.header.get("kid").is_some_and(|id| !id.is_string()) {
        return Err(Refusal::TOKEN_MALFORMED);
    }
    Ok(token)
}

/// The issuer that the claims name (`iss`).
pub(super) fn issuer(claims: &Claims) -> Option<&str> {
    claims.get("iss")?.as_str()
}

/// Whether the token is meant for one of these (`aud`, a text or a list of texts).
pub(super) fn is_for(claims: &Claims, audience: &[String]) -> bool {
    let ours = |one: &Value| one.as_str().is_some_and(|one| audience.iter().any(|ours| ours == one));
    match claims.get("aud") {
        Some(Value::Array(several)) => several.iter().any(ours),
        Some(one) => ours(one),
        None => false,
    }
}

/// Until when the token is valid, in seconds since 1970, if it is valid at `now`. A token without an
/// end is none.
pub(super) fn valid_until(claims: &Claims, now: f64, leeway: f64) -> Result<f64, Refusal> {
    let time = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Refusal::TOKEN_MALFORMED),
    };
    let until = time("exp")?.ok_or(Refusal::TOKEN_EXPIRED)? + leeway;
    if until <= now {
        return Err(Refusal::TOKEN_EXPIRED);
    }
    match time("nbf")? {
        Some(from) if from - leeway > now => Err(Refusal::TOKEN_NOT_YET),
        _ => Ok(until),
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
