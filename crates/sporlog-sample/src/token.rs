//! Consent tokens, of both shapes that Altinn has had. Well-formed, and agreeing with the record;
//! only the signature is noise.

use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta};
use sporlog_record::hex;

use crate::chance::Dice;
use crate::clock::Moment;
use crate::text::{base64url, noise, put, uuid};

const SERVICES: [&str; 5] =
    ["\"4629_2\"", "\"4630_2\"", "\"4629_2\",\"4630_2\"", "\"5234_1\",\"5235_1\"", "\"5616_1\""];
const RESOURCES: [&str; 5] = [
    "nav-samtykke-inntekt",
    "nav-samtykke-ytelser",
    "nav-samtykke-forsikring",
    "nav-samtykke-sykepenger",
    "nav-samtykke-laanesoeknad",
];

/// A person's consent to hand something out to a recipient.
#[derive(Default)]
pub(crate) struct Consent {
    id: u128,
    /// Given through Altinn 2, and so a token of its own; else a Maskinporten token.
    altinn2: bool,
    given: String,
    until: String,
    ends: i64,
    right: usize,
}

impl Consent {
    /// A consent given up to two months before `now` and valid until some time after `end`.
    pub(crate) fn new(dice: &mut Dice, now: &Moment, end: NaiveDate) -> Self {
        let given = now.0 - TimeDelta::minutes(dice.within(3, 60 * 24 * 60) as i64);
        let until = end.checked_add_days(Days::new(dice.within(1, 300))).unwrap_or(end);
        let mut consent = Consent {
            id: dice.wide(),
            // Altinn 2's were withdrawn in 2026; what had been given then is still about.
            altinn2: dice.percent(if given.year() < 2026 { 65 } else { 15 }),
            ends: until.and_time(NaiveTime::MIN).and_utc().timestamp(),
            right: dice.below(5) as usize,
            until: format!("{until}T23:59:59"),
            ..Consent::default()
        };
        consent.given = format!("{}.{:03}", given.format("%Y-%m-%dT%H:%M:%S"), dice.below(1_000));
        consent
    }

    /// Appends a token that states the consent, issued at `now`; fewer than 1,000 characters.
    /// `claims` is scratch space.
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        claims: &mut Vec<u8>,
        dice: &mut Dice,
        parties: Parties,
        now: &Moment,
    ) {
        claims.clear();
        let issued = now.0.and_utc().timestamp();
        let (header, signature) = if self.altinn2 {
            self.altinn2_claims(claims, &parties, issued);
            (r#"{"alg":"RS256","typ":"JWT","x5t":"Fq0WtzAn2u4bGlw0x8Yq1lVZ7bA"}"#, 342)
        } else {
            self.maskinporten_claims(claims, dice, &parties, issued);
            (r#"{"kid":"mp-consent-2025-1","alg":"ES256"}"#, 86)
        };
        base64url(out, header.as_bytes());
        out.push(b'.');
        base64url(out, claims);
        out.push(b'.');
        // The last letter stands for less than six bits, and must leave the rest 0.
        noise(out, dice, signature - 1);
        out.push(b'A');
    }

    fn altinn2_claims(&self, out: &mut Vec<u8>, parties: &Parties, issued: i64) {
        put! { out;
            "{\"AuthorizationCode\":\"" (uuid(self.id)) "\",\"OfferedBy\":\"" (parties.person)
            "\",\"CoveredBy\":\"" (parties.recipient)
        }
        if let Some(supplier) = parties.supplier {
            put! { out; "\",\"HandledBy\":\"" supplier }
        }
        put! { out;
            "\",\"DelegatedDate\":\"" (&self.given) "\",\"ValidToDate\":\"" (&self.until) "\",\"Services\":["
            (SERVICES[self.right]) "],\"iss\":\"altinn.no\",\"nbf\":" (issued.unsigned_abs()) ",\"exp\":"
            (self.ends.unsigned_abs()) "}"
        }
    }

    fn maskinporten_claims(&self, out: &mut Vec<u8>, dice: &mut Dice, parties: &Parties, issued: i64) {
        put! { out;
            "{\"authorization_details\":[{\"type\":\"urn:altinn:consent\",\"id\":\"" (uuid(self.id))
            "\",\"from\":\"urn:altinn:person:identifier-no:" (parties.person)
            "\",\"to\":{\"authority\":\"iso6523-actorid-upis\",\"ID\":\"0192:" (parties.recipient)
            "\"},\"consented\":\"" (&self.given) "+00:00\",\"validTo\":\"" (&self.until)
            "+00:00\",\"consentRights\":[{\"action\":[\"consent\"],"
            "\"resource\":[{\"type\":\"urn:altinn:resource\",\"value\":\"" (RESOURCES[self.right])
            "\"}]}]}],\"iss\":\"https://maskinporten.no/\",\"iat\":" (issued.unsigned_abs()) ",\"exp\":"
        }
        // A quarter of an hour by the local clock taken as UTC: no shorter than it says, anywhere.
        put! { out; (issued.unsigned_abs() + 900) ",\"jti\":\"" (hex(dice.bits().to_be_bytes())) "\"}" }
    }
}

/// Whom a token names.
pub(crate) struct Parties<'a> {
    pub(crate) person: &'a [u8],
    pub(crate) recipient: &'a [u8],
    pub(crate) supplier: Option<&'a [u8]>,
}
