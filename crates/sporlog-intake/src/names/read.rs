//! Public registers' downloads, as they come.
//!
//! | register | download |
//! |---|---|
//! | organisations | Enhetsregisteret's units, as JSON or CSV; CVR's companies, as JSON (with earlier names) or CSV |
//! | topics | the kodeverk `Tema` with its `betydninger` as JSON |
//! | all | CSV with a column for the number or code and one for the name, and if need be one for the first day |
//!
//! The files have up to a thousand columns, of which those named below are looked at. A file that is compressed is
//! unpacked. JSON is an array, objects one after the other, or an object around them.

use std::io::{BufRead, BufReader, Read};

use chrono::NaiveDate;
use serde_json::{Map, Value};
use sporlog_record::identifier::{cvr, mask_text, organisasjonsnummer};
use sporlog_record::json::RecordReader;

use super::{NameKind, NamesError};

/// Longer names are cut.
const LONGEST_NAME: usize = 300;
/// Longer keys are none.
const LONGEST_KEY: usize = 200;

/// A name as a download has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: String,
    /// The first day, `2019-05-01`; empty if the download does not say.
    pub from: String,
    pub name: String,
}

/// What becomes of what is read: an entry, or where and why something is none.
pub(super) type Taken = Result<Entry, String>;

/// The names of columns and fields: small letters, without hyphens, underscores and spaces.
struct Columns {
    key: &'static [&'static str],
    name: &'static [&'static str],
}

/// The first day.
const FROM: &[&str] = &["gyldigfra", "fra", "from", "virkningfra"];

fn columns(kind: NameKind) -> Columns {
    match kind {
        NameKind::Organisations => Columns {
            key: &["organisasjonsnummer", "orgnr", "cvrnummer", "cvrnr", "cvr", "nummer", "number"],
            name: &["navn", "virksomhedsnavn", "name"],
        },
        NameKind::Topics => Columns {
            key: &["kode", "tema", "code", "topic"],
            name: &["navn", "term", "beskrivelse", "name"],
        },
        NameKind::Systems => Columns {
            key: &["system", "systemid", "id", "uuid", "instans", "kalderitsysteminstans"],
            name: &["navn", "systemnavn", "name", "kalderitsystemnavn"],
        },
    }
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_' | ' ' | '"'));
    letters.flat_map(char::to_lowercase).collect()
}

/// Reads a download.
pub(super) fn read(
    kind: NameKind,
    name: &str,
    reader: impl Read,
    take: &mut dyn FnMut(Taken),
) -> Result<(), NamesError> {
    let mut reader = BufReader::with_capacity(1 << 18, reader);
    let fail = |source| NamesError::File { name: name.to_owned(), source };
    if reader.fill_buf().map_err(fail)?.starts_with("\u{feff}".as_bytes()) {
        reader.consume(3);
    }
    let begin = reader.fill_buf().map_err(fail)?;
    match begin.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[' | b'{') => json(kind, name, reader, take),
        _ => csv(kind, name, reader, take),
    }
}

fn csv(
    kind: NameKind,
    name: &str,
    mut reader: impl BufRead,
    take: &mut dyn FnMut(Taken),
) -> Result<(), NamesError> {
    let unknown = |reason: String| NamesError::Unknown { name: name.to_owned(), reason };
    let mut first = Vec::new();
    reader
        .read_until(b'\n', &mut first)
        .map_err(|source| NamesError::File { name: name.to_owned(), source })?;
    let count = |separator: u8| first.iter().filter(|byte| **byte == separator).count();
    let separator = [b',', b';', b'\t'].into_iter().max_by_key(|separator| count(*separator)).unwrap_or(b',');
    let whole = first.as_slice().chain(reader);
    let mut rows = csv::ReaderBuilder::new();
    let rows = rows.delimiter(separator).has_headers(false).flexible(true).from_reader(whole);
    let mut found: Option<Places> = None;
    for row in rows.into_byte_records() {
        let row = row.map_err(|error| unknown(error.to_string()))?;
        // Behind the first line, the reader stands between the two characters of a line's end.
        let behind = u64::from(found.is_some() && first.ends_with(b"\r\n"));
        let line = row.position().map_or(0, csv::Position::line) + behind;
        let text = |at: usize| row.get(at).and_then(|field| std::str::from_utf8(field).ok());
        let (key, name, from) = match found {
            Some(places) => places,
            None => {
                let first: Vec<_> = (0..row.len()).map(|at| plain(text(at).unwrap_or_default())).collect();
                let (places, header) = places(kind, &first).ok_or_else(|| {
                    let Columns { key, name } = columns(kind);
                    let (keys, names, there) = (key.join(", "), name.join(", "), first.join(", "));
                    let there: String = mask_text(&there).chars().take(500).collect();
                    unknown(format!(
                        "the first line is expected to name a column of {kind} (one of {keys}) and one of their names \
                         (one of {names}); the columns there are {there}"
                    ))
                })?;
                found = Some(places);
                if header {
                    continue;
                }
                places
            }
        };
        let entry = match (text(key), text(name)) {
            (Some(key), Some(name)) => entry(kind, key, from.and_then(text), name),
            _ => Err("a number or code and a name in UTF-8 are expected".to_owned()),
        };
        take(entry.map_err(|reason| format!("line {line}: {reason}")));
    }
    Ok(())
}

/// Where a row's number or code, its name and its first day stand.
type Places = (usize, usize, Option<usize>);

/// By a table's first row, and whether that row is a header; `None` if it does not say.
fn places(kind: NameKind, first: &[String]) -> Option<(Places, bool)> {
    let find = |names: &[&str]| names.iter().find_map(|name| first.iter().position(|one| one == name));
    let known = columns(kind);
    if let Some((key, name)) = find(known.key).zip(find(known.name)) {
        return Some(((key, name, find(FROM)), true));
    }
    let header =
        NameKind::ALL.map(columns).iter().any(|other| find(other.key).or(find(other.name)).is_some());
    match first.len() {
        2 | 3 if !header => Some(((0, 1, (first.len() == 3).then_some(2)), false)),
        _ => None,
    }
}

fn json(
    kind: NameKind,
    name: &str,
    reader: impl Read,
    take: &mut dyn FnMut(Taken),
) -> Result<(), NamesError> {
    let unknown = |reason: String| NamesError::Unknown { name: name.to_owned(), reason };
    // A download may be one object, of whatever length.
    for (count, record) in (1..).zip(RecordReader::new(reader, usize::MAX)) {
        let record = record.map_err(|error| unknown(error.to_string()))?;
        let value = serde_json::from_slice(&record.bytes)
            .map_err(|error| unknown(format!("object {count}: {error}")))?;
        walk(kind, &value, &mut |taken| take(taken.map_err(|reason| format!("object {count}: {reason}"))));
    }
    Ok(())
}

/// Takes what an object, or one within it, says.
fn walk(kind: NameKind, value: &Value, take: &mut dyn FnMut(Taken)) {
    match value {
        Value::Array(several) => several.iter().for_each(|one| walk(kind, one, take)),
        Value::Object(object) => {
            let known = columns(kind);
            if kind == NameKind::Topics
                && let Some(Value::Object(meanings)) = object.get("betydninger")
            {
                return meanings.iter().for_each(|(code, meanings)| topic(code, meanings, take));
            }
            let Some(key) = field(object, known.key) else {
                return object.values().for_each(|inner| walk(kind, inner, take));
            };
            if let Some(Value::Array(names)) = object.get("navne") {
                return names.iter().for_each(|name| take(period(kind, &key, name)));
            }
            let name =
                field(object, known.name).ok_or_else(|| format!("there is no {}", known.name.join(" or ")));
            take(name.and_then(|name| entry(kind, &key, field(object, FROM).as_deref(), &name)));
        }
        _ => {}
    }
}

/// One of a company's names, as CVR has them.
fn period(kind: NameKind, key: &str, name: &Value) -> Taken {
    let from = name.pointer("/periode/gyldigFra").and_then(Value::as_str);
    let name = name.get("navn").and_then(Value::as_str).ok_or("a name in navne has no navn")?;
    entry(kind, key, from, name)
}

/// What a topic meant from when on, as the kodeverk has it.
fn topic(code: &str, meanings: &Value, take: &mut dyn FnMut(Taken)) {
    for meaning in meanings.as_array().into_iter().flatten() {
        let from = meaning.get("gyldigFra").and_then(Value::as_str);
        let descriptions = meaning.get("beskrivelser").and_then(Value::as_object);
        let description = descriptions.and_then(|all| all.get("nb").or_else(|| all.values().next()));
        let text = |field| description?.get(field)?.as_str().filter(|text: &&str| !text.is_empty());
        let name = text("term").or_else(|| text("tekst"));
        let name = name.ok_or_else(|| format!("the code {code} has no beskrivelser with a term"));
        take(name.and_then(|name| entry(NameKind::Topics, code, from, name)));
    }
}

/// The first of these fields that is there: a text or a number.
fn field(object: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let found = names.iter().find_map(|name| {
        let (_, value) = object.iter().find(|(field, _)| plain(field) == *name)?;
        Some(value)
    })?;
    match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn entry(kind: NameKind, key: &str, from: Option<&str>, name: &str) -> Taken {
    let (key, name) = (tidy(key, LONGEST_KEY + 1), tidy(name, LONGEST_NAME));
    if kind == NameKind::Organisations && !organisasjonsnummer::is_valid(&key) && !cvr::is_valid(&key) {
        return Err(format!("'{}' is neither an organisasjonsnummer nor a CVR number", shown(&key)));
    }
    if key.is_empty() || key.chars().count() > LONGEST_KEY {
        return Err(format!("a number or code of 1 to {LONGEST_KEY} characters is expected"));
    }
    if name.is_empty() {
        return Err(format!("{} has an empty name", shown(&key)));
    }
    let from = match from.map(str::trim).filter(|from| !from.is_empty()) {
        None => String::new(),
        Some(from) => {
            let day = from.get(..10).and_then(|day| NaiveDate::parse_from_str(day, "%Y-%m-%d").ok());
            day.ok_or_else(|| format!("{}: a first day such as 2019-05-01 is expected", shown(&key)))?
                .to_string()
        }
    };
    Ok(Entry { key, from, name })
}

/// A key as an error shows it: a wrong one may be a personal number.
fn shown(key: &str) -> String {
    mask_text(key).chars().take(40).collect()
}

/// Text on one line, without what cannot be seen.
fn tidy(text: &str, longest: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(longest).collect()
}
