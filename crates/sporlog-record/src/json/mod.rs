//! JSON in, columns out, for the kinds whose records are JSON.
//!
//! [`RecordReader`] finds the records of a file, and [`RowsBuilder`] turns each into a row or says why it cannot.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};

use crate::column::{Column, Content};
use crate::identifier::mask_text;
use crate::kind::{Format, Json};
use crate::{Finding, Kind, Position, Rules};

pub(crate) mod fields;
pub(crate) mod notes;
mod reader;
mod scan;
mod text;

use fields::{Fields, Other, SyntaxError, Value};
use notes::{Notes, Place};
use text::Unfit;

pub use notes::remarks_column;
pub use reader::{FileError, RawRecord, RecordReader};

/// Of findings about names that nobody knows, or that are repeated, so many are listed one by one.
/// How many there may be is up to the sender alone.
const LISTED: usize = 50;

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// The record became a row. These are the remarks, which are stored with it.
    Accepted(Vec<Finding>),
    /// The record is refused. These are all the errors, and the remarks as well.
    Refused(Vec<Finding>),
}

/// Collects records of one kind as rows.
///
/// A text column can hold 2 GB, so [`finish`](Self::finish) is due long before
/// [`bytes`](Self::bytes) comes near that.
#[derive(Debug)]
pub struct RowsBuilder<'r> {
    kind: Kind,
    rules: &'r Rules,
    common: CommonColumns,
    native: Vec<ColumnBuilder>,
    rows: usize,
    bytes: usize,
}

/// The room that columns begin with.
#[derive(Debug, Clone, Copy)]
struct Room {
    values: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Room { values: 1_024, bytes: 1_024 }
    }
}

impl Room {
    fn texts(self) -> StringBuilder {
        StringBuilder::with_capacity(self.values, self.bytes)
    }
}

/// The columns that rows of every kind have.
#[derive(Debug)]
struct CommonColumns {
    occurred_at: TimestampMicrosecondBuilder,
    origin: StringBuilder,
    remarks: StringBuilder,
    envelope: StringBuilder,
    extra: StringBuilder,
}

impl CommonColumns {
    fn with(room: Room) -> Self {
        CommonColumns {
            occurred_at: TimestampMicrosecondBuilder::with_capacity(room.values),
            origin: room.texts(),
            remarks: room.texts(),
            envelope: room.texts(),
            extra: room.texts(),
        }
    }
}

/// A kind's own column.
#[derive(Debug)]
enum ColumnBuilder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Binary(BinaryBuilder),
}

impl ColumnBuilder {
    fn with(column: &Column, room: Room) -> Self {
        match column.content {
            Content::Text | Content::Json | Content::Encoding => ColumnBuilder::Text(room.texts()),
            Content::Integer => ColumnBuilder::Integer(Int64Builder::with_capacity(room.values)),
            Content::Bytes | Content::Encoded(_) => {
                ColumnBuilder::Binary(BinaryBuilder::with_capacity(room.values, room.bytes))
            }
        }
    }

    fn append(&mut self, value: Value<'_>) {
        match (self, value) {
            (ColumnBuilder::Text(column), Value::Text(text)) => column.append_value(text),
            (ColumnBuilder::Integer(column), Value::Integer(number)) => column.append_value(number),
            (ColumnBuilder::Binary(column), Value::Text(text)) => column.append_value(text.as_bytes()),
            (ColumnBuilder::Binary(column), Value::Bytes(bytes)) => column.append_value(bytes),
            (ColumnBuilder::Text(column), _) => column.append_null(),
            (ColumnBuilder::Integer(column), _) => column.append_null(),
            (ColumnBuilder::Binary(column), _) => column.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Text(column) => Arc::new(column.finish()),
            ColumnBuilder::Integer(column) => Arc::new(column.finish()),
            ColumnBuilder::Binary(column) => Arc::new(column.finish()),
        }
    }
}

impl<'r> RowsBuilder<'r> {
    /// Begins without rows. Records of a kind that is not delivered as JSON are all refused.
    pub fn new(kind: Kind, rules: &'r Rules) -> Self {
        Self::with(kind, rules, Room::default())
    }

    /// The same for a record or a few: without the room for a thousand that columns begin with, which
    /// takes longer to have than such a record to judge.
    pub fn for_few(kind: Kind, rules: &'r Rules) -> Self {
        Self::with(kind, rules, Room { values: 1, bytes: 64 })
    }

    fn with(kind: Kind, rules: &'r Rules, room: Room) -> Self {
        let native = kind.columns().iter().map(|column| ColumnBuilder::with(column, room)).collect();
        RowsBuilder { kind, rules, common: CommonColumns::with(room), native, rows: 0, bytes: 0 }
    }

    /// Parses and judges one record, which begins at `at` of its source; an accepted one becomes a
    /// row.
    pub fn push(&mut self, bytes: &[u8], origin: &str, at: Position) -> Judged {
        self.push_with(bytes, origin, None, at)
    }

    /// The same for a record whose message carried more than the record. `envelope` is that, as a
    /// JSON object without white space; it is stored as it is.
    pub fn push_with(&mut self, bytes: &[u8], origin: &str, envelope: Option<&str>, at: Position) -> Judged {
        let judged = match self.kind.format() {
            Format::Json(json) => self.judge(json, bytes, origin, at),
            Format::Csv | Format::Internal => {
                let text = format!("records of the kind '{}' do not come as JSON", self.kind);
                refuse("kind", text, at)
            }
        };
        if let Judged::Accepted(remarks) = &judged {
            self.rows += 1;
            self.common.envelope.append_option(envelope);
            self.bytes += envelope.map_or(0, str::len);
            self.bytes += bytes.len() + origin.len() + 64 * remarks.len() + 128;
        }
        judged
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the rows take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows, of [`Kind::row_schema`]. The builder is empty again.
    pub fn finish(&mut self) -> RecordBatch {
        let CommonColumns { occurred_at, origin, remarks, envelope, extra } = &mut self.common;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(occurred_at.finish()),
            Arc::new(origin.finish()),
            Arc::new(remarks.finish()),
            Arc::new(envelope.finish()),
        ];
        columns.extend(self.native.iter_mut().map(ColumnBuilder::finish));
        columns.push(Arc::new(extra.finish()));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(self.kind.row_schema(), columns)
            .expect("every push appends one value of the schema's type to each column")
    }

    fn judge(&mut self, json: Json, bytes: &[u8], origin: &str, at: Position) -> Judged {
        let limit = self.rules.max_record_bytes;
        if bytes.len() > limit {
            return refuse("record-size", format!("the record has more than {limit} bytes"), at);
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = match simdutf8::compat::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let offset = error.valid_up_to();
                let before = std::str::from_utf8(bytes.get(..offset).unwrap_or_default());
                let position = text::position(before.unwrap_or_default(), offset, at);
                let byte = bytes.get(offset).copied().unwrap_or_default();
                return refuse("encoding", format!("the record is not UTF-8 (byte 0x{byte:02X})"), position);
            }
        };
        let mut notes = Notes::default();
        let blanked;
        let (text, mut fields) = match Fields::parse(text, json.fields) {
            Ok(fields) => (text, fields),
            Err(SyntaxError { rule, text: reason, offset }) => {
                let Some((without, first)) = text::blank_comments(text) else {
                    return refuse(rule, reason, text::position(text, offset, at));
                };
                blanked = without;
                let text = "JSON has no comments: these were passed over";
                notes.remark(Place::Offset(first), "comments", text);
                match Fields::parse(&blanked, json.fields) {
                    Ok(fields) => (blanked.as_str(), fields),
                    Err(SyntaxError { rule, text: reason, offset }) => {
                        notes.error(Place::Offset(offset), rule, reason);
                        return Judged::Refused(notes.into_findings(&blanked, at));
                    }
                }
            }
        };
        note_repeated(&fields.repeated, &mut notes);
        fields.check_types(&mut notes);
        fields.check_visible(self.kind, &mut notes);
        let occurred_at = (json.judge)(&mut fields, self.rules, &mut notes);
        let extra = collect_others(&fields.others, &mut notes);
        let refused = notes.has_errors();
        let findings = notes.into_findings(text, at);
        if refused {
            return Judged::Refused(findings);
        }
        let common = &mut self.common;
        common.occurred_at.append_option(occurred_at);
        common.origin.append_value(origin);
        common.remarks.append_option(remarks_column(&findings));
        common.extra.append_option(extra);
        for (column, value) in self.native.iter_mut().zip(fields.into_values()) {
            column.append(value);
        }
        Judged::Accepted(findings)
    }
}

/// A refusal for one reason that is not about one field.
fn refuse(rule: &'static str, text: impl Into<Cow<'static, str>>, position: Position) -> Judged {
    let mut notes = Notes::default();
    notes.error(Place::Record, rule, text);
    Judged::Refused(notes.into_findings("", position))
}

fn note_repeated(repeated: &[(Cow<str>, u32)], notes: &mut Notes) {
    for (name, ordinal) in repeated.iter().take(LISTED) {
        let text = "the field is there more than once, and only one of them can be right";
        notes.error((shown(name), Place::Name(*ordinal)), "duplicate", text);
    }
    if let Some(more) = repeated.len().checked_sub(LISTED).filter(|more| *more > 0) {
        notes.error(Place::Record, "duplicate", format!("{more} more fields are there more than once"));
    }
}

/// The members that the spec does not know, as one JSON object in the order given. One whose value is `null`
/// says as much as one that is absent, and is left out.
fn collect_others(others: &[Other], notes: &mut Notes) -> Option<String> {
    let mut extra = String::new();
    let mut unknown_fields = 0_usize;
    for Other { name, ordinal, value, unknown } in others.iter().filter(|other| other.value != "null") {
        unknown_fields += usize::from(*unknown);
        if *unknown && unknown_fields <= LISTED {
            let text = "the spec does not know this field; it is kept as it is";
            notes.remark((shown(name), Place::Name(*ordinal)), "unknown-field", text);
        }
        extra.push(if extra.is_empty() { '{' } else { ',' });
        extra.push_str(&serde_json::to_string(name).unwrap_or_default());
        extra.push(':');
        let (rule, reason) = match text::compact(value, &mut extra) {
            Ok(()) => continue,
            Err(Unfit::Depth) => ("depth", "the value is nested too deep"),
            Err(Unfit::Surrogate) => ("json", "the value has half of a surrogate pair (\\uD800 to \\uDFFF)"),
        };
        notes.error((shown(name), Place::Value(*ordinal)), rule, reason);
        return None;
    }
    if let Some(unlisted) = unknown_fields.checked_sub(LISTED).filter(|unlisted| *unlisted > 0) {
        let text = format!("{unlisted} more fields are unknown, and kept");
        notes.remark(Place::Record, "unknown-field", text);
    }
    if extra.is_empty() {
        return None;
    }
    extra.push('}');
    Some(extra)
}

/// A field's name that is the sender's own, fit to be shown: not endless, and no personal number.
fn shown(name: &str) -> String {
    let end = name.char_indices().nth(60).map_or(name.len(), |(end, _)| end);
    mask_text(name.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
