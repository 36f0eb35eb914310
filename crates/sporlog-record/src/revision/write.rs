//! Columns become CSV again: the 23 columns in the order of the spec, every one in quotes, lines
//! ended as RFC 4180 has it. A null is an empty text; fields that the spec does not know are not
//! part of the format and stay behind.

use std::ops::Range;

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;

use crate::canonical::{ColumnError, column};
use crate::kind::REVISION_COLUMNS;

/// Writes the header, with its line's end.
pub fn write_csv_header(out: &mut Vec<u8>) {
    for (number, name) in REVISION_COLUMNS.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"\"" } else { b"\",\"" });
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(b"\"\r\n");
}

/// Writes some rows of a batch that has the revision log's columns, among others perhaps.
///
/// Rows past the batch's end are none.
pub fn write_csv_rows(batch: &RecordBatch, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), ColumnError> {
    let rows = rows.start.min(batch.num_rows())..rows.end.min(batch.num_rows());
    let mut columns = Vec::with_capacity(REVISION_COLUMNS.len());
    for name in REVISION_COLUMNS {
        columns.push(Texts::new(column(batch, name, DataType::Utf8)?, &rows));
    }
    let bytes: usize = columns.iter().map(|column| column.bytes).sum();
    out.reserve(bytes + rows.len() * (3 * columns.len() + 1));
    for row in rows {
        let mut before: &[u8] = b"\"";
        for column in &columns {
            out.extend_from_slice(before);
            before = b"\",\"";
            if column.texts.is_null(row) {
                continue;
            }
            let text = column.texts.value(row);
            if column.has_quotes && memchr::memchr(b'"', text.as_bytes()).is_some() {
                push_doubled(text, out);
            } else {
                out.extend_from_slice(text.as_bytes());
            }
        }
        out.extend_from_slice(b"\"\r\n");
    }
    Ok(())
}

/// A column, looked through once for quotes.
struct Texts<'a> {
    texts: &'a StringArray,
    bytes: usize,
    has_quotes: bool,
}

impl<'a> Texts<'a> {
    fn new(texts: &'a StringArray, rows: &Range<usize>) -> Self {
        let offset = |row: usize| texts.value_offsets().get(row).map_or(0, |&at| at as usize);
        let used = texts.value_data().get(offset(rows.start)..offset(rows.end)).unwrap_or_default();
        Texts { texts, bytes: used.len(), has_quotes: memchr::memchr(b'"', used).is_some() }
    }
}

fn push_doubled(text: &str, out: &mut Vec<u8>) {
    let mut parts = text.split('"');
    out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        out.extend_from_slice(b"\"\"");
        out.extend_from_slice(part.as_bytes());
    }
}
