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
    let writer = CsvRows::new(batch)?;
    let bytes: usize = writer.columns.iter().map(|column| column.bytes(&rows)).sum();
    out.reserve(bytes + rows.len() * (3 * writer.columns.len() + 1));
    rows.for_each(|row| writer.write(row, out));
    Ok(())
}

/// The rows of a batch as CSV, one by one: for those that sort them into several files.
pub struct CsvRows<'a> {
    columns: Vec<Texts<'a>>,
}

impl<'a> CsvRows<'a> {
    /// Of a batch that has the revision log's columns, among others perhaps.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, ColumnError> {
        let column = |name| Ok(Texts::new(column(batch, name, DataType::Utf8)?));
        Ok(CsvRows { columns: REVISION_COLUMNS.into_iter().map(column).collect::<Result<_, _>>()? })
    }

    /// Writes a row, with its line's end. One past the batch's end is a row of empty texts.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        let mut before: &[u8] = b"\"";
        for column in &self.columns {
            out.extend_from_slice(before);
            before = b"\",\"";
            let text = column.text(row);
            // Many columns are empty in most rows.
            if text.is_empty() {
                continue;
            }
            if column.has_quotes && memchr::memchr(b'"', text).is_some() {
                push_doubled(text, out);
            } else {
                out.extend_from_slice(text);
            }
        }
        out.extend_from_slice(b"\"\r\n");
    }
}

/// A column, looked through once for quotes.
struct Texts<'a> {
    texts: &'a StringArray,
    offsets: &'a [i32],
    data: &'a [u8],
    has_nulls: bool,
    has_quotes: bool,
}

impl<'a> Texts<'a> {
    fn new(texts: &'a StringArray) -> Self {
        let (offsets, data) = (texts.value_offsets(), texts.value_data());
        let has_nulls = texts.null_count() > 0;
        let mut column = Texts { texts, offsets, data, has_nulls, has_quotes: false };
        column.has_quotes = memchr::memchr(b'"', column.used(&(0..texts.len()))).is_some();
        column
    }

    fn text(&self, row: usize) -> &'a [u8] {
        if self.has_nulls && row < self.texts.len() && self.texts.is_null(row) {
            return &[];
        }
        self.used(&(row..row + 1))
    }

    /// The bytes of these rows.
    fn used(&self, rows: &Range<usize>) -> &'a [u8] {
        let offset = |row: usize| self.offsets.get(row).map_or(0, |&at| at as usize);
        self.data.get(offset(rows.start)..offset(rows.end)).unwrap_or_default()
    }

    fn bytes(&self, rows: &Range<usize>) -> usize {
        self.used(rows).len()
    }
}

fn push_doubled(text: &[u8], out: &mut Vec<u8>) {
    let mut parts = text.split(|byte| *byte == b'"');
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(b"\"\"");
        out.extend_from_slice(part);
    }
}
