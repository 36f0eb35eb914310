//! The consent in a token, in either shape.

use serde_json::Value;

use super::validity;
use crate::jose::Claims;

/// The type of an `authorization_details` entry that is a consent.
const CONSENT_TYPE: &str = "urn:altinn:consent";

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
    /// The token says so in a way that cannot be read.
    Unreadable,
    /// The token does not say.
    Unstated,
}

impl Consent {
    /// The consent in the claims of a token; of several, the one that `person` gave, or else the first.
    pub fn find(claims: &Claims, person: &str) -> Option<Consent> {
        let details = claims.get("authorization_details").and_then(Value::as_array);
        let of_maskinporten = details
            .into_iter()
            .flatten()
            .filter(|entry| entry.get("type").and_then(Value::as_str) == Some(CONSENT_TYPE))
            .filter_map(|entry| Consent::of_maskinporten(claims, entry));
        let mut consents = Consent::of_altinn2(claims).into_iter().chain(of_maskinporten);
        let first = consents.next()?;
        if first.offered_by == person {
            return Some(first);
        }
        Some(consents.find(|consent| consent.offered_by == person).unwrap_or(first))
    }

    fn of_altinn2(claims: &Claims) -> Option<Consent> {
        Some(Consent {
            offered_by: text(claims.get("OfferedBy"))?,
            covered_by: text(claims.get("CoveredBy"))?,
            handled_by: text(claims.get("HandledBy")),
            given: claims.get("DelegatedDate").and_then(validity::end),
            rights: texts(claims.get("Services")).collect(),
            validity: validity(claims, claims.get("ValidToDate")),
        })
    }

    fn of_maskinporten(claims: &Claims, entry: &Value) -> Option<Consent> {
        Some(Consent {
            offered_by: party(entry.get("from"))?,
            covered_by: party(entry.get("to"))?,
            handled_by: party(claims.get("supplier")),
            given: entry.get("consented").and_then(validity::end),
            rights: members(entry.get("consentRights"))
                .flat_map(|right| members(right.get("resource")))
                .flat_map(|resource| texts(resource.get("value")))
                .collect(),
            validity: validity(claims, entry.get("validTo")),
        })
    }
}

/// When the consent runs out, or else the token.
fn validity(claims: &Claims, claim: Option<&Value>) -> Validity {
    match claim.filter(|value| !value.is_null()).or(claims.get("exp")) {
        None => Validity::Unstated,
        Some(value) => validity::end(value).map_or(Validity::Unreadable, Validity::Until),
    }
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
