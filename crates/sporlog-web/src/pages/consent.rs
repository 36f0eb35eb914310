//! The consent that came with a disclosure, in words: from whom, to whom, for what, valid until when, whether it
//! fits the disclosure, and whether its signature verifies.

use sporlog_record::consent::{self, Consent, Disclosure, Validity};
use sporlog_record::identifier::mask;
use sporlog_record::jose::{LENIENT, Token};

use super::entry::Entry;
use super::html::{LONG, data};
use super::layout::Fact;
use super::texts::calendar;
use super::words::{Words, remark};
use crate::App;

/// A consent in words.
pub struct Shown {
    /// What the token says; none if it is no consent.
    pub facts: Vec<Fact>,
    /// What does not fit, in words.
    pub doubts: Vec<String>,
    /// Whether the signature verifies, in words.
    pub signature: &'static str,
}

/// The consent of an entry that has a token.
pub fn show(app: &App, entry: &Entry, pid: &str, words: &Words<'_>) -> Option<Shown> {
    let token = entry.text("samtykkeToken")?;
    let t = words.t;
    let disclosure = Disclosure {
        person: pid,
        mottaker: entry.text("mottaker").unwrap_or_default(),
        leverandoer: entry.text("leverandoer"),
        uthentings_tidspunkt: entry.occurred,
    };
    let remarks = consent::judge(token, &disclosure, None);
    let mut doubts: Vec<_> =
        remarks.iter().filter_map(|found| remark(found.rule)).map(|key| t.t(key).to_owned()).collect();
    doubts.dedup();
    let parsed = Token::parse(token, &LENIENT).ok();
    let keys = app.rules().consent_keys;
    let signature = t.t(match (&parsed, keys) {
        (_, None) => "consent.unchecked",
        (Some(token), Some(keys)) if consent::is_signed(token, &keys) => "consent.signed",
        _ => "consent.unsigned",
    });
    let consent = parsed.and_then(|token| Consent::find(&token.claims, pid));
    let mut facts = Vec::new();
    let mut fact = |key: &str, value: String| {
        facts.push(Fact { name: t.t(key).to_owned(), value: data(&value, LONG) });
    };
    if let Some(consent) = consent {
        let party = |number: &str| match number {
            own if own == pid => t.t("consent.you").to_owned(),
            number if number.len() > 9 => mask(number),
            number => match words.organisation(number, entry.occurred) {
                Some(name) => format!("{name} ({number})"),
                None => number.to_owned(),
            },
        };
        fact("consent.from", party(&consent.offered_by));
        fact("consent.to", party(&consent.covered_by));
        if let Some(handled_by) = &consent.handled_by {
            fact("consent.handled", party(handled_by));
        }
        if !consent.rights.is_empty() {
            fact("consent.rights", consent.rights.join(", "));
        }
        if let Some(given) = consent.given {
            fact("consent.given", t.moment(calendar(given)));
        }
        if let Validity::Until(end) = consent.validity {
            fact("consent.until", t.moment(calendar(end)));
        }
    }
    Some(Shown { facts, doubts, signature })
}
