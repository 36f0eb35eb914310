//! Disclosures and audit records: JSON in, columns out.
//!
//! [`RecordReader`] finds the records of a file, [`RowsBuilder`] turns each into a row or says why
//! it cannot, and [`quarantine`] turns what was refused into rows of its own.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};

use crate::identifier::mask_text;
use crate::{Finding, Kind, Position, Rules};

mod auditlog;
mod disclosure;
mod members;
mod notes;
pub mod quarantine;
mod scan;
mod split;
mod text;
mod window;

use auditlog::AuditlogColumns;
use disclosure::DisclosureColumns;
use members::{Field, Members, Other, SyntaxError, Value};
use notes::{LISTED, Notes, Place};
use text::Unfit;

pub use notes::remarks_column;
pub use split::{FileError, RawRecord, RecordReader};

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It became a row. These are the remarks, which are stored with it.
    Accepted(Vec<Finding>),
    /// It did not. These are all the errors, and the remarks as well.
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
    native: NativeColumns,
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

#[derive(Debug)]
enum NativeColumns {
    Disclosure(Box<DisclosureColumns>),
    Auditlog(Box<AuditlogColumns>),
    /// The kind's records do not come as JSON.
    Unsupported,
}

/// A kind's own columns, and its own rules.
trait Columns<const N: usize> {
    /// The names of the members that its records have.
    const NAMES: [&'static str; N];

    /// A record that is found to be in order.
    type Row<'a>;

    /// Judges a record. `None` only if an error was noted.
    fn judge<'a>(members: &mut Members<'a, N>, rules: &Rules, notes: &mut Notes) -> Option<Self::Row<'a>>;

    /// When it happened, as a local time in microseconds.
    fn occurred_at(row: &Self::Row<'_>) -> Option<i64>;

    /// Appends a row.
    fn append(&mut self, row: Self::Row<'_>);

    /// The columns in the order of [`Kind::columns`]; empty afterwards.
    fn finish(&mut self) -> Vec<ArrayRef>;
}

impl<'r> RowsBuilder<'r> {
    /// Begins without rows. The kind is [`Kind::Disclosure`] or [`Kind::Auditlog`]: records of the
    /// others do not come as JSON, and are all refused.
    pub fn new(kind: Kind, rules: &'r Rules) -> Self {
        Self::with(kind, rules, Room::default())
    }

    /// The same for a record or a few: without the room for a thousand that columns begin with, which
    /// takes longer to have than such a record to judge.
    pub fn for_few(kind: Kind, rules: &'r Rules) -> Self {
        Self::with(kind, rules, Room { values: 1, bytes: 64 })
    }

    fn with(kind: Kind, rules: &'r Rules, room: Room) -> Self {
        let native = match kind {
            Kind::Disclosure => NativeColumns::Disclosure(Box::new(DisclosureColumns::with(room))),
            Kind::Auditlog => NativeColumns::Auditlog(Box::new(AuditlogColumns::with(room))),
            Kind::Revision | Kind::Quarantine => NativeColumns::Unsupported,
        };
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
        let (common, rules) = (&mut self.common, self.rules);
        let judged = match &mut self.native {
            NativeColumns::Disclosure(columns) => push(columns.as_mut(), common, rules, bytes, origin, at),
            NativeColumns::Auditlog(columns) => push(columns.as_mut(), common, rules, bytes, origin, at),
            NativeColumns::Unsupported => {
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
        match &mut self.native {
            NativeColumns::Disclosure(native) => columns.extend(native.finish()),
            NativeColumns::Auditlog(native) => columns.extend(native.finish()),
            NativeColumns::Unsupported => return RecordBatch::new_empty(self.kind.row_schema()),
        }
        columns.push(Arc::new(extra.finish()));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(self.kind.row_schema(), columns)
            .expect("every push appends one value of the schema's type to each column")
    }
}

fn push<const N: usize, C: Columns<N>>(
    columns: &mut C,
    common: &mut CommonColumns,
    rules: &Rules,
    bytes: &[u8],
    origin: &str,
    at: Position,
) -> Judged {
    let limit = rules.max_record_bytes;
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
    let (text, mut members) = match Members::parse(text, &C::NAMES) {
        Ok(members) => (text, members),
        Err(SyntaxError { rule, text: reason, offset }) => {
            let Some((without, first)) = text::blank_comments(text) else {
                return refuse(rule, reason, text::position(text, offset, at));
            };
            blanked = without;
            notes.remark(
                "",
                "comments",
                "JSON has no comments: these were passed over",
                Place::Offset(first),
            );
            match Members::parse(&blanked, &C::NAMES) {
                Ok(members) => (blanked.as_str(), members),
                Err(SyntaxError { rule, text: reason, offset }) => {
                    notes.error("", rule, reason, Place::Offset(offset));
                    return Judged::Refused(notes.into_findings(text, at));
                }
            }
        }
    };
    note_repeated(&members.repeated, &mut notes);
    let row = C::judge(&mut members, rules, &mut notes);
    let extra = collect_others(text, &members.others, &mut notes);
    match row {
        Some(row) if !notes.has_errors() => {
            let findings = notes.into_findings(text, at);
            common.occurred_at.append_option(C::occurred_at(&row));
            common.origin.append_value(origin);
            common.remarks.append_option(remarks_column(&findings));
            common.extra.append_option(extra);
            columns.append(row);
            Judged::Accepted(findings)
        }
        _ => Judged::Refused(notes.into_findings(text, at)),
    }
}

/// A refusal for one reason that is not about one field.
fn refuse(rule: &'static str, text: impl Into<Cow<'static, str>>, position: Position) -> Judged {
    let mut notes = Notes::default();
    notes.error("", rule, text, Place::Record);
    Judged::Refused(notes.into_findings("", position))
}

fn note_repeated(repeated: &[(Cow<str>, u32)], notes: &mut Notes) {
    for (name, ordinal) in repeated.iter().take(LISTED) {
        let text = "the field is there more than once, and only one of them can be right";
        notes.error(shown(name), "duplicate", text, Place::Name(*ordinal));
    }
    if let Some(more) = repeated.len().checked_sub(LISTED).filter(|more| *more > 0) {
        notes.error("", "duplicate", format!("{more} more fields are there more than once"), Place::Record);
    }
}

/// The members that the spec does not know, as one JSON object in the order given. One whose value is `null`
/// says as much as one that is absent, and is left out.
fn collect_others(text: &str, others: &[Other], notes: &mut Notes) -> Option<String> {
    if others.is_empty() {
        return None;
    }
    let spans = text::members(text);
    let mut extra = String::new();
    let mut unknown_fields = 0_usize;
    for Other { name, ordinal, unknown } in others {
        let value = spans.get(*ordinal as usize).and_then(|span| text.get(span.value.clone()));
        let Some(value) = value.filter(|value| *value != "null") else { continue };
        unknown_fields += usize::from(*unknown);
        if *unknown && unknown_fields <= LISTED {
            let text = "the spec does not know this field; it is kept as it is";
            notes.remark(shown(name), "unknown-field", text, Place::Name(*ordinal));
        }
        extra.push(if extra.is_empty() { '{' } else { ',' });
        extra.push_str(&serde_json::to_string(name).unwrap_or_default());
        extra.push(':');
        let (rule, reason) = match text::compact(value, &mut extra) {
            Ok(()) => continue,
            Err(Unfit::Depth) => ("depth", "the value is nested too deep"),
            Err(Unfit::Surrogate) => ("json", "the value has half of a surrogate pair (\\uD800 to \\uDFFF)"),
        };
        notes.error(shown(name), rule, reason, Place::Value(*ordinal));
        return None;
    }
    if let Some(unlisted) = unknown_fields.checked_sub(LISTED).filter(|unlisted| *unlisted > 0) {
        notes.remark(
            "",
            "unknown-field",
            format!("{unlisted} more fields are unknown, and kept"),
            Place::Record,
        );
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

/// The text of a member that has to be one.
fn text_of<'a>(field: &mut Field<'a>, name: &'static str, notes: &mut Notes) -> Option<Cow<'a, str>> {
    let place = field.place();
    match std::mem::take(&mut field.value) {
        Value::Text(text) => Some(text),
        Value::Absent => None,
        Value::Integer(_) => {
            notes.error(name, "type", "a text is expected here, and this is a number", place);
            None
        }
        Value::Wrong(what) => {
            notes.error(name, "type", format!("a text is expected here, and this is {what}"), place);
            None
        }
    }
}

/// The integer of a member that has to be one.
fn integer_of(field: &Field, name: &'static str, notes: &mut Notes) -> Option<i64> {
    let what = match &field.value {
        Value::Integer(number) => return Some(*number),
        Value::Absent => return None,
        Value::Text(_) => "a text",
        Value::Wrong(what) => what,
    };
    notes.error(name, "type", format!("an integer is expected here, and this is {what}"), field.place());
    None
}

#[cfg(test)]
mod tests;
