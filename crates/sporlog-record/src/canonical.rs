//! An entry's canonical JSON: the bytes that are committed to, and that every API gives out.
//!
//! The bytes follow from the columns alone and never change for a record: fields in the order of
//! the spec, no white space, strings escaped as little as JSON allows (as RFC 8785 does). JSON
//! that is stored as JSON (`remarks`, `extra`, `reasons`) is put in as it is stored. What is
//! written here is hashed for each record that is appended, so nothing is allocated for a row.

use std::ops::Range;

use arrow::array::{Array, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};

use crate::Kind;
use crate::column::{Column, Content};
use crate::kind::{ENVELOPE, EXTRA};

/// A batch that lacks a column, or has it in another type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// The column is not there.
    #[error("column '{0}' is missing")]
    Missing(&'static str),
    /// The column is of a type that is not read.
    #[error("column '{column}' is {found}, where {expected} was expected")]
    Type {
        /// The column's name.
        column: &'static str,
        /// The type that the kind's schema gives it.
        expected: DataType,
        /// The type that it has.
        found: DataType,
    },
}

/// Writes the entries of one batch.
///
/// Every `write_` method appends to `out`. A `row` past the batch's end panics, as slices do.
pub struct EntryWriter<'a> {
    /// `{"log":"…","id":`, with which an entry begins.
    opening: Vec<u8>,
    received_at: ReceivedAt,
    origin: &'a StringArray,
    remarks: &'a StringArray,
    envelope: &'a StringArray,
    fields: Vec<Field<'a>>,
    extra: &'a StringArray,
    /// The records' own API has the log's id as its first field.
    wire_id: bool,
}

/// One field of the record.
struct Field<'a> {
    /// `,"name":`, for a text with its opening quote.
    key: Vec<u8>,
    values: Values<'a>,
    /// Written as `null` where there is no value, instead of left out.
    always: bool,
}

/// Where a field's values are, and how they are written.
enum Values<'a> {
    Text(&'a StringArray, Plain),
    Number(&'a Int64Array),
    /// JSON already.
    Json(&'a StringArray),
    /// Any bytes, in Base64.
    Base64(&'a BinaryArray),
    /// A text whose Base64 was undone for storing it where the second column says `base64`.
    Stored(&'a BinaryArray, &'a StringArray),
}

impl<'a> EntryWriter<'a> {
    /// For the rows of the log named `log`: any batch that has the columns of
    /// [`Kind::row_schema`], among others perhaps, in any order.
    pub fn new(log: &str, kind: Kind, rows: &'a RecordBatch) -> Result<Self, ColumnError> {
        let mut opening = b"{\"log\":".to_vec();
        push_json_string(log, &mut opening);
        opening.extend_from_slice(b",\"id\":");

        let mut fields = Vec::new();
        for &Column { name, content, shows_null: always, .. } in kind.columns() {
            let values = match content {
                Content::Encoding => continue, // says how to write another column
                Content::Encoded(encoding) => {
                    let encoding = column(rows, encoding, DataType::Utf8)?;
                    Values::Stored(column(rows, name, DataType::Binary)?, encoding)
                }
                Content::Bytes => Values::Base64(column(rows, name, DataType::Binary)?),
                Content::Json => Values::Json(column(rows, name, DataType::Utf8)?),
                Content::Integer => Values::Number(column(rows, name, DataType::Int64)?),
                Content::Text => Values::Text(column(rows, name, DataType::Utf8)?, Plain::default()),
            };
            let quote = match values {
                Values::Number(_) | Values::Json(_) => "",
                _ => "\"",
            };
            let key = format!(",\"{name}\":{quote}").into_bytes();
            fields.push(Field { key, values, always });
        }
        Ok(EntryWriter {
            opening,
            received_at: ReceivedAt::default(),
            origin: column(rows, "origin", DataType::Utf8)?,
            remarks: column(rows, "remarks", DataType::Utf8)?,
            envelope: column(rows, ENVELOPE, DataType::Utf8)?,
            fields,
            extra: column(rows, EXTRA, DataType::Utf8)?,
            wire_id: kind.definition().shows_id,
        })
    }

    /// Writes the entry: `{"log","id","receivedAt","origin","remarks","envelope","record"}`, without
    /// `envelope` where there is none.
    ///
    /// `received_at_micros` is microseconds since 1970 in UTC.
    pub fn write_entry(&mut self, row: usize, id: u64, received_at_micros: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.opening);
        push_number(id, out);
        out.extend_from_slice(b",\"receivedAt\":\"");
        out.extend_from_slice(self.received_at.text(received_at_micros).as_bytes());
        out.extend_from_slice(b"\",\"origin\":");
        push_json_string(self.origin.value(row), out);
        out.extend_from_slice(b",\"remarks\":");
        let remarks = if self.remarks.is_null(row) { "[]" } else { self.remarks.value(row) };
        out.extend_from_slice(remarks.as_bytes());
        if self.envelope.is_valid(row) {
            out.extend_from_slice(b",\"envelope\":");
            out.extend_from_slice(self.envelope.value(row).as_bytes());
        }
        out.extend_from_slice(b",\"record\":");
        self.write_record(row, out);
        out.push(b'}');
    }

    /// Writes the record alone, as it stands in the entry.
    pub fn write_record(&mut self, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_fields(row, out);
        // Every field is written with a comma before it; the first one's becomes the brace.
        match out.get_mut(start) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
    }

    /// Writes the record as the API of its kind gives it: an audit record with `id` first and just the
    /// fields of that API, the others as they stand in the entry.
    pub fn write_wire(&mut self, row: usize, id: u64, out: &mut Vec<u8>) {
        if !self.wire_id {
            return self.write_record(row, out);
        }
        out.extend_from_slice(b"{\"id\":");
        push_number(id, out);
        for field in self.fields.iter_mut().filter(|field| field.always) {
            field.write(row, out);
        }
        out.push(b'}');
    }

    /// Writes each field with a comma before it.
    fn write_fields(&mut self, row: usize, out: &mut Vec<u8>) {
        for field in &mut self.fields {
            field.write(row, out);
        }
        if !self.extra.is_null(row) {
            let object = self.extra.value(row);
            let members = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            if let Some(members) = members.filter(|members| !members.is_empty()) {
                out.push(b',');
                out.extend_from_slice(members.as_bytes());
            }
        }
    }
}

impl Field<'_> {
    #[inline]
    fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        let null = match &self.values {
            Values::Text(texts, _) | Values::Json(texts) => texts.is_null(row),
            Values::Number(numbers) => numbers.is_null(row),
            Values::Base64(bytes) | Values::Stored(bytes, _) => bytes.is_null(row),
        };
        if null {
            if self.always {
                out.extend_from_slice(self.key.strip_suffix(b"\"").unwrap_or(&self.key));
                out.extend_from_slice(b"null");
            }
            return;
        }
        out.extend_from_slice(&self.key);
        match &mut self.values {
            Values::Text(texts, plain) => {
                let text = texts.value(row);
                if plain.covers(texts, row) {
                    out.extend_from_slice(text.as_bytes());
                } else {
                    push_escaped(text, out);
                }
                out.push(b'"');
            }
            Values::Json(texts) => out.extend_from_slice(texts.value(row).as_bytes()),
            Values::Number(numbers) => {
                let number = numbers.value(row);
                if number < 0 {
                    out.push(b'-');
                }
                push_number(number.unsigned_abs(), out);
            }
            Values::Base64(bytes) => {
                push_base64(bytes.value(row), out);
                out.push(b'"');
            }
            Values::Stored(bytes, encoding) => {
                let bytes = bytes.value(row);
                if encoding.is_valid(row) && encoding.value(row) == "base64" {
                    push_base64(bytes, out);
                } else {
                    // Stored as it came, so it is UTF-8: it came as JSON.
                    push_escaped(&String::from_utf8_lossy(bytes), out);
                }
                out.push(b'"');
            }
        }
    }
}

/// Some rows of a column, looked through at once for characters that need an escape: rows are
/// mostly written one after the other, and short texts are too short for vector instructions.
#[derive(Default)]
struct Plain {
    rows: Range<usize>,
    plain: bool,
}

impl Plain {
    const ROWS: usize = 64;
    const BYTES: usize = 64 << 10;

    /// Whether this row's text needs no escape for sure.
    #[inline]
    fn covers(&mut self, texts: &StringArray, row: usize) -> bool {
        if !self.rows.contains(&row) {
            self.look(texts, row);
        }
        self.plain
    }

    fn look(&mut self, texts: &StringArray, row: usize) {
        let last = (row + Self::ROWS).min(texts.len());
        let offset = |row: usize| texts.value_offsets().get(row).map_or(0, |&at| at as usize);
        let bytes = texts.value_data().get(offset(row)..offset(last)).unwrap_or_default();
        if bytes.len() <= Self::BYTES {
            self.rows = row..last;
            self.plain = is_plain(bytes);
        } else {
            self.rows = row..row + 1; // long texts are looked at one by one
            self.plain = false;
        }
    }
}

/// The last time of receipt that was written: a batch is received at once.
#[derive(Default)]
struct ReceivedAt {
    micros: i64,
    text: String,
}

impl ReceivedAt {
    fn text(&mut self, micros: i64) -> &str {
        if self.text.is_empty() || self.micros != micros {
            let edge = if micros < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
            let time = DateTime::from_timestamp_micros(micros).unwrap_or(edge);
            self.text = time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            self.micros = micros;
        }
        &self.text
    }
}

/// The column of this name, as the array type that `expected` has.
pub(crate) fn column<'a, T: Array + 'static>(
    rows: &'a RecordBatch,
    name: &'static str,
    expected: DataType,
) -> Result<&'a T, ColumnError> {
    let column = rows.column_by_name(name).ok_or(ColumnError::Missing(name))?;
    column.as_any().downcast_ref().ok_or_else(|| ColumnError::Type {
        column: name,
        expected,
        found: column.data_type().clone(),
    })
}

/// Writes a number in decimal.
pub(crate) fn push_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut length = 1; // zero has a digit too
    for (count, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            length = count + 1;
            break;
        }
    }
    out.extend_from_slice(&digits[digits.len() - length..]);
}

/// Writes a JSON string, with its quotes.
pub(crate) fn push_json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(text, out);
    out.push(b'"');
}

/// Writes what stands between a JSON string's quotes.
#[inline]
fn push_escaped(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        push_with_escapes(text, out);
    }
}

/// Whether no character of a JSON string needs an escape. There is no early exit, so that it
/// compiles to vector instructions: nearly every text is plain.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, &byte| plain & is_plain_byte(byte))
}

#[inline]
fn is_plain_byte(byte: u8) -> bool {
    (byte >= 0x20) & (byte != b'"') & (byte != b'\\')
}

#[cold]
fn push_with_escapes(text: &str, out: &mut Vec<u8>) {
    // Escaped as RFC 8785 has it, too. Writing a text into bytes cannot fail.
    let quoted = serde_json::to_vec(text).unwrap_or_default();
    out.extend_from_slice(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
}

fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = base64::encoded_len(bytes.len(), true).unwrap_or_default();
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    // The room is what this many bytes take, so it cannot be too small.
    let written = BASE64.encode_slice(bytes, room).unwrap_or_default();
    out.truncate(start + written);
}

#[cfg(test)]
mod tests;
