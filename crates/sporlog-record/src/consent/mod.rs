//! Consent tokens: what they say, and whether that fits the disclosure they came with.
//!
//! Two shapes are known, both JSON Web Tokens: Altinn 2's own, and since then Maskinporten's with
//! an `urn:altinn:consent` among its `authorization_details`. A token is evidence that came with a
//! record, not a key to anything here: whatever is wrong with it is a remark, never an error. So
//! it is judged by the time of the disclosure, not by today's.

use std::borrow::Cow;

use crate::identifier::mask;
use crate::jose::{self, KeySet, Token, Verified};

mod token;
mod validity;

pub use token::{Consent, Validity};

/// Something doubtful about a token, for whoever builds the finding about the field it was in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The rule's name.
    pub rule: &'static str,
    /// What is doubtful; without a personal number in clear.
    pub text: Cow<'static, str>,
}

/// The disclosure that a token came with.
#[derive(Debug, Clone, Copy)]
pub struct Disclosure<'a> {
    /// Whom it is about.
    pub person: &'a str,
    /// Who received the data.
    pub mottaker: &'a str,
    /// Who holds the agreement, where the recipient lets another act for it.
    pub leverandoer: Option<&'a str>,
    /// When, as a local time in microseconds; `None` where that could not be read.
    pub uthentings_tidspunkt: Option<i64>,
}

/// Compares a token with the disclosure it came with, and its signature with the keys, if any.
///
/// - The person must be the one who gave the consent.
/// - The recipient (`CoveredBy`, `to`) must be `mottaker`. Where the disclosure names a
///   `leverandoer`, the two may have changed places: one of them must be the recipient, and
///   if the token says who acts for the recipient (`HandledBy`, `supplier`), that must be the
///   other or the same. A token that names such a helper fits a disclosure that does not.
/// - The consent must not have run out before the disclosure. What counts is how long the consent
///   is valid, and only where the token does not say that, how long the token itself is.
pub fn judge(token: &str, disclosure: &Disclosure, keys: Option<&KeySet>) -> Vec<Remark> {
    let token = match Token::parse(token, &jose::LENIENT) {
        Ok(token) => token,
        Err(error) => return vec![remark("jwt", error.to_string())],
    };
    let mut remarks = Vec::new();
    match Consent::find(&token.claims, disclosure.person) {
        Some(consent) => compare(&consent, disclosure, &mut remarks),
        None => remarks.push(remark(
            "consent-claims",
            "the token holds no consent: neither OfferedBy and CoveredBy, nor an \
             authorization_details entry of type urn:altinn:consent",
        )),
    }
    if keys.is_some_and(|keys| !is_signed(&token, keys)) {
        remarks.push(remark(
            "consent-signature",
            "the token's signature does not verify with any of the configured keys",
        ));
    }
    remarks
}

/// Whether one of `keys` signed the token.
pub fn is_signed(token: &Token<'_>, keys: &KeySet) -> bool {
    let algorithm = jose::asymmetric(&token.algorithm);
    algorithm.is_some_and(|algorithm| keys.verify(token, algorithm) == Verified::Good)
}

fn compare(consent: &Consent, disclosure: &Disclosure, remarks: &mut Vec<Remark>) {
    if consent.offered_by != disclosure.person {
        let text = format!("the consent was given by another: {}", mask(&consent.offered_by));
        remarks.push(remark("consent-person", text));
    }

    let mottaker = disclosure.mottaker;
    let parties = [Some(mottaker), disclosure.leverandoer];
    if !parties.contains(&Some(&consent.covered_by)) {
        let text = format!("the consent names another recipient: {}", named(&consent.covered_by));
        remarks.push(remark("consent-recipient", text));
    } else if let (Some(_), Some(handled_by)) = (disclosure.leverandoer, &consent.handled_by)
        && !parties.contains(&Some(handled_by))
    {
        let text = format!("the consent is handled by another: {}", named(handled_by));
        remarks.push(remark("consent-recipient", text));
    }

    match (consent.validity, disclosure.uthentings_tidspunkt) {
        (Validity::Until(end), Some(time)) if end < time => {
            let end = crate::time::format_local(end);
            remarks.push(remark("consent-expired", format!("the consent had run out at {end}")));
        }
        (Validity::Unreadable, _) => {
            remarks.push(remark("consent-validity", "how long the consent is valid is not written as a time"))
        }
        (Validity::Unstated, _) => {
            remarks.push(remark("consent-validity", "the token does not say how long it is valid"));
        }
        (Validity::Until(_), _) => {}
    }
}

/// Another organisation's number may be shown; what is longer may be a person's.
fn named(number: &str) -> Cow<'_, str> {
    if number.len() <= 9 { Cow::Borrowed(number) } else { Cow::Owned(mask(number)) }
}

fn remark(rule: &'static str, text: impl Into<Cow<'static, str>>) -> Remark {
    Remark { rule, text: text.into() }
}

#[cfg(test)]
mod tests;
