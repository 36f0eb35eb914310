//! Reading a token: its three parts, and the consent in it, in either shape.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::validity;

/// Base64url as tokens have it; padding is not allowed there, and does no harm.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The type of an `authorization_details` entry that is a consent.
const CONSENT_TYPE: &str = "urn:altinn:consent";

/// Why a text is no JSON Web Token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has not three parts.
    #[error("this is no JSON Web Token: it has not three parts with a dot between them")]
    Parts,
    /// The header is not what it must be.
    #[error("this is no JSON Web Token: its header is not a JSON object in Base64url with an alg")]
    Header,
    /// The claims are not what they must be.
    #[error("this is no JSON Web Token: its claims are not a JSON object in Base64url")]
    Claims,
    /// The signature is not what it must be.
    #[error("this is no JSON Web Token: its signature is not Base64url")]
    Signature,
}

/// A JSON Web Token, read but not trusted.
#[derive(Debug, Clone, PartialEq)]
pub struct Token<'a> {
    /// The algorithm that the header names.
    pub algorithm: String,
    /// The key that the header names.
    pub key_id: Option<String>,
    /// Header and claims as they were signed.
    pub(super) signed: &'a str,
    pub(super) signature: &'a str,
    claims: Map<String, Value>,
}

/// What a token says about a consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Who gave it: a person, at times an organisation.
    pub offered_by: String,
    /// Who received it.
    pub covered_by: String,
    /// Who acts for the recipient.
    pub handled_by: Option<String>,
    /// When it was given: a local (Norwegian) time in microseconds.
    pub given: Option<i64>,
    /// What it is for, as the token names it: services, or resources.
    pub rights: Vec<String>,
    /// Until when it is valid.
    pub validity: Validity,
}

/// Until when a consent is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Until this local (Norwegian) time, in microseconds.
    Until(i64),
    /// It says so in a way that cannot be read.
    Unreadable,
    /// It does not say.
    Unstated,
}

impl<'a> Token<'a> {
    /// Takes a token apart. The signature may be empty: such a token is unsigned, but is one.
    pub fn parse(token: &'a str) -> Result<Token<'a>, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Parts)?;
        if claims.contains('.') {
            return Err(TokenError::Parts);
        }
        let header = object(header).ok_or(TokenError::Header)?;
        let claims = object(claims).ok_or(TokenError::Claims)?;
        BASE64URL.decode(signature).map_err(|_| TokenError::Signature)?;
        Ok(Token {
            algorithm: text(header.get("alg")).ok_or(TokenError::Header)?,
            key_id: text(header.get("kid")),
            signed,
            signature,
            claims,
        })
    }

    /// The consent in it; of several, the one that `person` gave, or else the first.
    pub fn consent_for(&self, person: &str) -> Option<Consent> {
        let mut consents = self.consents();
        let first = consents.next()?;
        if first.offered_by == person {
            return Some(first);
        }
        Some(consents.find(|consent| consent.offered_by == person).unwrap_or(first))
    }

    fn consents(&self) -> impl Iterator<Item = Consent> {
        let details = self.claims.get("authorization_details").and_then(Value::as_array);
        let of_maskinporten = details
            .into_iter()
            .flatten()
            .filter(|entry| entry.get("type").and_then(Value::as_str) == Some(CONSENT_TYPE))
            .filter_map(|entry| self.maskinporten_consent(entry));
        self.altinn2_consent().into_iter().chain(of_maskinporten)
    }

    fn altinn2_consent(&self) -> Option<Consent> {
        Some(Consent {
            offered_by: text(self.claims.get("OfferedBy"))?,
            covered_by: text(self.claims.get("CoveredBy"))?,
            handled_by: text(self.claims.get("HandledBy")),
            given: self.claims.get("DelegatedDate").and_then(validity::end),
            rights: texts(self.claims.get("Services")).collect(),
            validity: self.validity(self.claims.get("ValidToDate")),
        })
    }

    fn maskinporten_consent(&self, entry: &Value) -> Option<Consent> {
        Some(Consent {
            offered_by: party(entry.get("from"))?,
            covered_by: party(entry.get("to"))?,
            handled_by: party(self.claims.get("supplier")),
            given: entry.get("consented").and_then(validity::end),
            rights: members(entry.get("consentRights"))
                .flat_map(|right| members(right.get("resource")))
                .flat_map(|resource| texts(resource.get("value")))
                .collect(),
            validity: self.validity(entry.get("validTo")),
        })
    }

    /// When the consent runs out, or else the token.
    fn validity(&self, claim: Option<&Value>) -> Validity {
        match claim.filter(|value| !value.is_null()).or(self.claims.get("exp")) {
            None => Validity::Unstated,
            Some(value) => validity::end(value).map_or(Validity::Unreadable, Validity::Until),
        }
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64URL.decode(part).ok()?).ok()
}

/// A claim that is a text or an integer, and not empty.
fn text(claim: Option<&Value>) -> Option<String> {
    match claim? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// The members of a list, or what stands there alone.
fn members(claim: Option<&Value>) -> impl Iterator<Item = &Value> {
    let list = claim.and_then(Value::as_array);
    let alone = claim.filter(|_| list.is_none());
    alone.into_iter().chain(list.into_iter().flatten())
}

/// The texts of a claim that is a text or a list of texts.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = String> {
    members(claim).filter_map(|member| text(Some(member)))
}

/// The number of a person or an organisation: the end of `urn:altinn:person:identifier-no:…`, of
/// `urn:altinn:organization:identifier-no:…`, or of `{"authority":…,"ID":"0192:…"}`.
fn party(claim: Option<&Value>) -> Option<String> {
    let claim = claim?;
    let number = text(Some(claim.get("ID").unwrap_or(claim)))?;
    Some(number.rsplit_once(':').map_or(number.clone(), |(_, number)| number.to_owned()))
}
