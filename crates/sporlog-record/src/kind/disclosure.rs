//! Disclosures, as Norway's Sporingslogg has them: what was handed out about a person, to whom, when and on what
//! ground. A disclosure is made by a system and names no user.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::IgnoredAny;

use super::{Definition, Format, Json, Roles};
use crate::column::{Column, Content};
use crate::identifier::{fodselsnummer, mask, organisasjonsnummer};
use crate::json::fields::{Fields, Value};
use crate::json::notes::Notes;
use crate::{Rules, consent, time};

const COLUMNS: [Column; 10] = [
    Column::text("person").distinct().required(),
    Column::text("mottaker").required(),
    Column::text("tema").required(),
    Column::text("behandlingsGrunnlag").required(),
    Column::text("uthentingsTidspunkt").distinct().required(),
    Column::new("leverteData", Content::Encoded("leverteDataEncoding")).distinct().required(),
    Column::new("leverteDataEncoding", Content::Encoding),
    Column::text("samtykkeToken").distinct(),
    Column::text("dataForespoersel").distinct(),
    Column::text("leverandoer"),
];

const PERSON: usize = 0;
const MOTTAKER: usize = 1;
const TEMA: usize = 2;
const BEHANDLINGS_GRUNNLAG: usize = 3;
const UTHENTINGS_TIDSPUNKT: usize = 4;
const LEVERTE_DATA: usize = 5;
const LEVERTE_DATA_ENCODING: usize = 6;
const SAMTYKKE_TOKEN: usize = 7;
const DATA_FORESPOERSEL: usize = 8;
const LEVERANDOER: usize = 9;

/// 1990 by the wall clock, before which nothing was handed out that is logged now.
const YEAR_1990: i64 = 631_152_000 * 1_000_000;

pub(super) static DEFINITION: Definition = Definition {
    name: "disclosure",
    format: Format::Json(Json { fields: &COLUMNS, judge }),
    columns: &COLUMNS,
    roles: Some(Roles {
        actor: &[],
        subject: &["person"],
        organisation: &["leverandoer"],
        recipient: &["mottaker"],
        system: &[],
        action: &["tema"],
        ground: &["behandlingsGrunnlag"],
        case_id: &[],
        time: "uthentingsTidspunkt",
    }),
    organisations: &["mottaker", "leverandoer"],
    identity: &[],
    source_id: &[],
    shows_id: false,
};

fn judge(fields: &mut Fields<'_>, rules: &Rules, notes: &mut Notes) -> Option<i64> {
    for optional in [SAMTYKKE_TOKEN, DATA_FORESPOERSEL, LEVERANDOER] {
        if fields.text(optional) == Some("") {
            fields.set(optional, Value::Absent);
        }
    }
    let limits = &rules.disclosure;
    // The greatest length in the middle is the one that the document on Sporingslogg gives.
    check_length(fields, TEMA, [3, 3, 3], notes);
    check_length(fields, BEHANDLINGS_GRUNNLAG, [1, 100, limits.behandlingsGrunnlag], notes);
    check_length(fields, LEVERTE_DATA, [1, 1_000_000, limits.leverteData], notes);
    check_length(fields, SAMTYKKE_TOKEN, [0, 1_000, limits.samtykkeToken], notes);
    check_length(fields, DATA_FORESPOERSEL, [0, 100_000, limits.dataForespoersel], notes);

    check_digits(fields, PERSON, 11, fodselsnummer::is_valid, notes);
    check_digits(fields, MOTTAKER, 9, organisasjonsnummer::is_valid, notes);
    let occurred_at = occurred_at(fields, time::micros(rules.now), notes);
    if let Some(bytes) = decode_payload(fields, notes) {
        fields.set(LEVERTE_DATA, Value::Bytes(bytes));
        fields.set(LEVERTE_DATA_ENCODING, Value::Text("base64".into()));
    }
    if let (Some(token), Some(person), Some(mottaker)) =
        (fields.text(SAMTYKKE_TOKEN), fields.text(PERSON), fields.text(MOTTAKER))
    {
        let leverandoer = fields.text(LEVERANDOER);
        let disclosure =
            consent::Disclosure { person, mottaker, leverandoer, uthentings_tidspunkt: occurred_at };
        for consent::Remark { rule, text } in
            consent::judge(token, &disclosure, rules.consent_keys.as_deref())
        {
            notes.remark(fields.at(SAMTYKKE_TOKEN), rule, text);
        }
    }
    check_digits(fields, LEVERANDOER, 9, organisasjonsnummer::is_valid, notes);
    occurred_at
}

/// Notes a text whose length in characters is less than the first number, or more than one of the others.
fn check_length(fields: &Fields<'_>, field: usize, [min, documented, max]: [usize; 3], notes: &mut Notes) {
    let Some(text) = fields.text(field) else { return };
    // No text has more characters than bytes, so most need not be counted.
    if text.len() <= documented.min(max) && text.len() >= 4 * min {
        return;
    }
    let length = text.chars().count();
    if length > max || length < min {
        let expected = match (min, max) {
            (0, max) => format!("at most {max}"),
            (min, max) if min == max => format!("exactly {min}"),
            (min, max) => format!("{min} to {max}"),
        };
        let text = format!("the text has {length} characters, where {expected} are expected");
        notes.error(fields.at(field), "length", text);
    } else if length > documented {
        let text =
            format!("the text has {length} characters, where the specification has at most {documented}");
        notes.remark(fields.at(field), "length", text);
    }
}

/// Notes an identifier that has not so many digits, or whose check digits do not match.
fn check_digits(
    fields: &Fields<'_>,
    field: usize,
    digits: usize,
    is_valid: fn(&str) -> bool,
    notes: &mut Notes,
) {
    let Some(text) = fields.text(field) else { return };
    let shown = || if digits > 9 || text.len() > 9 { mask(text) } else { text.to_owned() };
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        notes.error(fields.at(field), "digits", format!("{digits} digits are expected here: {}", shown()));
    } else if !is_valid(text) {
        notes.remark(fields.at(field), "check-digit", format!("the check digits do not match: {}", shown()));
    }
}

fn occurred_at(fields: &Fields<'_>, now: i64, notes: &mut Notes) -> Option<i64> {
    let at = fields.at(UTHENTINGS_TIDSPUNKT);
    match time::parse_iso(fields.text(UTHENTINGS_TIDSPUNKT)?) {
        Ok(time) => {
            if time > now {
                notes.remark(at, "future", "the time lies in the future");
            } else if time < YEAR_1990 {
                notes.remark(at, "past", "the time lies before 1990");
            }
            Some(time)
        }
        Err(error) => {
            notes.error(at, "time", error.to_string());
            None
        }
    }
}

/// What `leverteData` encodes, if encoding it again gives the same text; else the text is stored as given.
fn decode_payload(fields: &Fields<'_>, notes: &mut Notes) -> Option<Vec<u8>> {
    let text = fields.text(LEVERTE_DATA).filter(|text| !text.is_empty())?;
    let at = fields.at(LEVERTE_DATA);
    // This engine takes only what it would itself have written: the padding is there, and
    // the bits that are left over are zero.
    let exact = STANDARD.decode(text).ok();
    let liberal = if exact.is_none() { decode_liberally(text) } else { None };
    match exact.as_ref().or(liberal.as_ref()) {
        None => notes.remark(at, "base64", "the text is not Base64; it is kept as given"),
        Some(bytes) => {
            let json = simdutf8::basic::from_utf8(bytes)
                .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
            if !json {
                notes.remark(at, "payload-json", "what the text encodes is not JSON");
            }
        }
    }
    exact
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
