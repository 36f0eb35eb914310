//! Disclosures: what was handed out about a person, to whom, when and on what ground.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, StringBuilder};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::IgnoredAny;

use super::{Columns, Members, Notes, Place, Room, text_of};
use crate::identifier::{fodselsnummer, mask, organisasjonsnummer};
use crate::rules::DisclosureLimits;
use crate::{Rules, consent, time};

const PERSON: usize = 0;
const MOTTAKER: usize = 1;
const TEMA: usize = 2;
const BEHANDLINGS_GRUNNLAG: usize = 3;
const UTHENTINGS_TIDSPUNKT: usize = 4;
const LEVERTE_DATA: usize = 5;
const SAMTYKKE_TOKEN: usize = 6;
const DATA_FORESPOERSEL: usize = 7;
const LEVERANDOER: usize = 8;
const FIELDS: usize = 9;

/// 1990 by the wall clock, before which nothing was handed out that is logged now.
const YEAR_1990: i64 = 631_152_000 * 1_000_000;

/// The columns of disclosures.
#[derive(Debug)]
pub(super) struct DisclosureColumns {
    /// By the fields' numbers; that of `leverteData` stays unused.
    texts: [StringBuilder; FIELDS],
    leverte_data: BinaryBuilder,
    leverte_data_encoding: StringBuilder,
}

impl DisclosureColumns {
    pub(super) fn with(room: Room) -> Self {
        DisclosureColumns {
            texts: std::array::from_fn(|_| room.texts()),
            leverte_data: BinaryBuilder::with_capacity(room.values, room.bytes),
            leverte_data_encoding: room.texts(),
        }
    }
}

/// A disclosure that is in order.
pub(super) struct DisclosureRow<'a> {
    texts: [Option<Cow<'a, str>>; FIELDS],
    occurred_at: i64,
    payload: Payload,
}

/// What is stored of `leverteData`.
enum Payload {
    /// What it encodes, in such a way that encoding it again gives the same text.
    Decoded(Vec<u8>),
    /// The text as given.
    AsGiven,
}

impl Columns<FIELDS> for DisclosureColumns {
    const NAMES: [&'static str; FIELDS] = [
        "person",
        "mottaker",
        "tema",
        "behandlingsGrunnlag",
        "uthentingsTidspunkt",
        "leverteData",
        "samtykkeToken",
        "dataForespoersel",
        "leverandoer",
    ];

    type Row<'a> = DisclosureRow<'a>;

    fn judge<'a>(
        members: &mut Members<'a, FIELDS>,
        rules: &Rules,
        notes: &mut Notes,
    ) -> Option<DisclosureRow<'a>> {
        let mut judge = Judge { members, notes, limits: &rules.disclosure };
        let texts: [Option<Cow<str>>; FIELDS] = std::array::from_fn(|field| judge.text(field));
        let text = |field: usize| texts.get(field).and_then(Option::as_deref);

        judge.identifier(PERSON, text(PERSON), 11, fodselsnummer::is_valid);
        judge.identifier(MOTTAKER, text(MOTTAKER), 9, organisasjonsnummer::is_valid);
        let occurred_at = judge.time(text(UTHENTINGS_TIDSPUNKT), time::micros(rules.now));
        let payload = judge.payload(text(LEVERTE_DATA));
        if let (Some(token), Some(person), Some(mottaker)) =
            (text(SAMTYKKE_TOKEN), text(PERSON), text(MOTTAKER))
        {
            let disclosure = consent::Disclosure {
                person,
                mottaker,
                leverandoer: text(LEVERANDOER),
                uthentings_tidspunkt: occurred_at,
            };
            let keys = rules.consent_keys.as_deref();
            for consent::Remark { rule, text } in consent::judge(token, &disclosure, keys) {
                judge.remark(SAMTYKKE_TOKEN, rule, text);
            }
        }
        judge.identifier(LEVERANDOER, text(LEVERANDOER), 9, organisasjonsnummer::is_valid);

        Some(DisclosureRow { occurred_at: occurred_at?, payload: payload?, texts })
    }

    fn occurred_at(row: &DisclosureRow) -> Option<i64> {
        Some(row.occurred_at)
    }

    fn append(&mut self, row: DisclosureRow) {
        let DisclosureRow { mut texts, payload, .. } = row;
        let given = texts.get_mut(LEVERTE_DATA).and_then(Option::take);
        match payload {
            Payload::Decoded(bytes) => {
                self.leverte_data.append_value(bytes);
                self.leverte_data_encoding.append_value("base64");
            }
            Payload::AsGiven => {
                self.leverte_data.append_option(given.as_ref().map(|text| text.as_bytes()));
                self.leverte_data_encoding.append_null();
            }
        }
        for (field, (column, text)) in self.texts.iter_mut().zip(texts).enumerate() {
            if field != LEVERTE_DATA {
                column.append_option(text);
            }
        }
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(FIELDS + 1);
        for (field, column) in self.texts.iter_mut().enumerate() {
            if field == LEVERTE_DATA {
                columns.push(Arc::new(self.leverte_data.finish()));
                columns.push(Arc::new(self.leverte_data_encoding.finish()));
            } else {
                columns.push(Arc::new(column.finish()));
            }
        }
        columns
    }
}

struct Judge<'j, 'a> {
    members: &'j mut Members<'a, FIELDS>,
    notes: &'j mut Notes,
    limits: &'j DisclosureLimits,
}

impl<'a> Judge<'_, 'a> {
    fn error(&mut self, field: usize, rule: &'static str, text: impl Into<Cow<'static, str>>) {
        self.notes.error(name(field), rule, text, self.place(field));
    }

    fn remark(&mut self, field: usize, rule: &'static str, text: impl Into<Cow<'static, str>>) {
        self.notes.remark(name(field), rule, text, self.place(field));
    }

    fn place(&self, field: usize) -> Place {
        self.members.fields.get(field).map_or(Place::Record, |field| field.place())
    }

    /// A field's text, checked for being there and for its length in characters. An optional field whose text
    /// is empty is absent.
    fn text(&mut self, field: usize) -> Option<Cow<'a, str>> {
        let value = self.members.fields.get_mut(field)?;
        let given = value.is_given();
        let text = text_of(value, name(field), self.notes);
        let required = matches!(field, PERSON..=LEVERTE_DATA);
        if required && !given {
            self.error(field, "required", "the field is missing");
        }
        // `documented` is the greatest length that the document on Sporingslogg gives.
        let (min, documented, max) = match field {
            TEMA => (3, 3, 3),
            BEHANDLINGS_GRUNNLAG => (1, 100, self.limits.behandlingsGrunnlag),
            LEVERTE_DATA => (1, 1_000_000, self.limits.leverteData),
            SAMTYKKE_TOKEN => (0, 1_000, self.limits.samtykkeToken),
            DATA_FORESPOERSEL => (0, 100_000, self.limits.dataForespoersel),
            _ => (0, usize::MAX, usize::MAX),
        };
        let text = text.filter(|text| required || !text.is_empty())?;
        // No text has more characters than bytes, so most need not be counted.
        if text.len() > documented.min(max) || text.len() < 4 * min {
            let length = text.chars().count();
            if length > max || length < min {
                let expected = match (min, max) {
                    (0, max) => format!("at most {max}"),
                    (min, max) if min == max => format!("exactly {min}"),
                    (min, max) => format!("{min} to {max}"),
                };
                let text = format!("the text has {length} characters, where {expected} are expected");
                self.error(field, "length", text);
            } else if length > documented {
                let text = format!(
                    "the text has {length} characters, where the specification has at most {documented}"
                );
                self.remark(field, "length", text);
            }
        }
        Some(text)
    }

    fn identifier(&mut self, field: usize, text: Option<&str>, digits: usize, valid: fn(&str) -> bool) {
        let Some(text) = text else { return };
        let shown = || if digits > 9 || text.len() > 9 { mask(text) } else { text.to_owned() };
        if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            self.error(field, "digits", format!("{digits} digits are expected here: {}", shown()));
        } else if !valid(text) {
            self.remark(field, "check-digit", format!("the check digits do not match: {}", shown()));
        }
    }

    fn time(&mut self, text: Option<&str>, now: i64) -> Option<i64> {
        match time::parse_iso(text?) {
            Ok(time) => {
                if time > now {
                    self.remark(UTHENTINGS_TIDSPUNKT, "future", "the time lies in the future");
                } else if time < YEAR_1990 {
                    self.remark(UTHENTINGS_TIDSPUNKT, "past", "the time lies before 1990");
                }
                Some(time)
            }
            Err(error) => {
                self.error(UTHENTINGS_TIDSPUNKT, "time", error.to_string());
                None
            }
        }
    }

    fn payload(&mut self, text: Option<&str>) -> Option<Payload> {
        let text = text.filter(|text| !text.is_empty())?;
        // This engine takes only what it would itself have written: the padding is there, and
        // the bits that are left over are zero.
        if let Ok(bytes) = STANDARD.decode(text) {
            self.check_payload(&bytes);
            return Some(Payload::Decoded(bytes));
        }
        match decode_liberally(text) {
            Some(bytes) => self.check_payload(&bytes),
            None => self.remark(LEVERTE_DATA, "base64", "the text is not Base64; it is kept as given"),
        }
        Some(Payload::AsGiven)
    }

    fn check_payload(&mut self, bytes: &[u8]) {
        let json = simdutf8::basic::from_utf8(bytes)
            .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        if !json {
            self.remark(LEVERTE_DATA, "payload-json", "what the text encodes is not JSON");
        }
    }
}

fn name(field: usize) -> &'static str {
    DisclosureColumns::NAMES.get(field).copied().unwrap_or_default()
}

/// Decodes Base64 of either alphabet, with or without padding and line breaks.
fn decode_liberally(text: &str) -> Option<Vec<u8>> {
    const LIBERAL: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINES: [GeneralPurpose; 2] = [
        GeneralPurpose::new(&alphabet::STANDARD, LIBERAL),
        GeneralPurpose::new(&alphabet::URL_SAFE, LIBERAL),
    ];
    let unbroken: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    ENGINES.iter().find_map(|engine| engine.decode(&unbroken).ok())
}
