//! Accepted rows, as they become Arrow columns.
//!
//! Rows arrive in chunks that the processor's cache still holds, and each chunk is put in column
//! by column: a short loop that does one thing, with nothing allocated for a row.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray};

use super::header::Header;
use super::scan::Cell;
use crate::Kind;
use crate::canonical::{push_json_string, push_number};
use crate::kind::REVISION_COLUMNS;

/// Values are not added to columns that hold more bytes than this: Arrow counts them in 31 bits.
const FULL: usize = 1 << 30;

/// Rows of one slab that lie in memory one behind the other: their cells, row by row.
pub(super) struct Chunk<'a> {
    /// The chunk's text, and where in the slab it begins.
    pub(super) text: &'a str,
    pub(super) base: usize,
    pub(super) cells: &'a [Cell],
}

impl<'a> Chunk<'a> {
    /// A cell's text as it stands.
    #[inline]
    fn raw(&self, cell: Cell) -> &'a str {
        let start = cell.start().wrapping_sub(self.base);
        let end = cell.end().wrapping_sub(self.base);
        self.text.get(start..end).unwrap_or_default()
    }

    /// A cell's text with its quotes undone.
    #[inline]
    pub(super) fn value(&self, cell: Cell) -> Cow<'a, str> {
        let raw = self.raw(cell);
        if cell.is_escaped() { Cow::Owned(raw.replace("\"\"", "\"")) } else { Cow::Borrowed(raw) }
    }
}

/// One accepted row of a chunk.
pub(super) struct Accepted {
    /// Its number in the chunk.
    pub(super) row: usize,
    pub(super) line: u64,
    pub(super) occurred_at: i64,
    pub(super) remarks: Option<Cow<'static, str>>,
}

/// The columns of one slab, in the making.
pub(super) struct Columns<'a> {
    header: &'a Header,
    origin_prefix: &'a str,
    occurred_at: Vec<i64>,
    origin: StringBuilder,
    remarks: StringBuilder,
    /// The file's known columns: their number in the file, their number in the spec.
    native: Vec<(usize, usize, StringBuilder)>,
    extra: StringBuilder,
    scratch: Vec<u8>,
}

impl<'a> Columns<'a> {
    /// Columns for a slab of `slab_bytes`; `sample` is its beginning, by which room is made.
    pub(super) fn new(
        header: &'a Header,
        origin_prefix: &'a str,
        slab_bytes: usize,
        sample: &Chunk<'_>,
    ) -> Self {
        let width = header.width();
        let share = |bytes: usize| {
            let scale = slab_bytes as f64 / sample.text.len().max(1) as f64;
            (bytes as f64 * scale * 1.04) as usize + 256
        };
        let rows = share(sample.cells.len() / width.max(1)).min(slab_bytes);
        let native = header.places().iter().enumerate().filter_map(|(column, place)| {
            let place = (*place)?;
            let cells = sample.cells.iter().skip(place).step_by(width.max(1));
            let bytes = cells.map(|cell| cell.end() - cell.start()).sum();
            let bytes = share(bytes).min(slab_bytes);
            Some((place, column, StringBuilder::with_capacity(rows, bytes)))
        });
        Columns {
            header,
            origin_prefix,
            occurred_at: Vec::with_capacity(rows),
            origin: StringBuilder::with_capacity(
                rows,
                rows.saturating_mul(origin_prefix.len() + 9).min(FULL),
            ),
            remarks: StringBuilder::with_capacity(rows, 0),
            native: native.collect(),
            extra: StringBuilder::new(),
            scratch: Vec::new(),
        }
    }

    /// Puts rows of a chunk in; `false` if that would be more than a batch can hold.
    pub(super) fn append(&mut self, chunk: &Chunk<'_>, rows: &[Accepted]) -> bool {
        let width = self.header.width();
        let cell = |row: &Accepted, place: usize| chunk.cells.get(row.row * width + place).copied();

        self.occurred_at.extend(rows.iter().map(|row| row.occurred_at));
        for row in rows {
            self.remarks.append_option(row.remarks.as_deref());
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(self.origin_prefix.as_bytes());
        self.scratch.push(b':');
        let prefix = self.scratch.len();
        for row in rows {
            self.scratch.truncate(prefix);
            push_number(row.line, &mut self.scratch);
            self.origin.append_value(std::str::from_utf8(&self.scratch).unwrap_or_default());
        }
        for (place, _, builder) in &mut self.native {
            for row in rows {
                match cell(row, *place) {
                    Some(cell) if cell.is_escaped() => builder.append_value(chunk.value(cell)),
                    Some(cell) if !cell.is_empty() => builder.append_value(chunk.raw(cell)),
                    _ => builder.append_null(),
                }
            }
        }
        if !self.header.unknown().is_empty() {
            for row in rows {
                let unknown = self.header.unknown().iter();
                let fields = unknown.filter_map(|(place, name)| {
                    let cell = cell(row, *place).filter(|cell| !cell.is_empty())?;
                    Some((name.as_str(), chunk.value(cell)))
                });
                match json_object(fields, &mut self.scratch) {
                    Some(json) => self.extra.append_value(json),
                    None => self.extra.append_null(),
                }
            }
        }
        let grown = [&self.origin, &self.remarks, &self.extra];
        grown.iter().all(|builder| builder.values_slice().len() <= FULL)
    }

    /// The rows put in.
    pub(super) fn finish(mut self) -> RecordBatch {
        let rows = self.occurred_at.len();
        let empty: ArrayRef = Arc::new(StringArray::new_null(rows));
        let mut native = vec![empty.clone(); REVISION_COLUMNS.len()];
        for (_, column, builder) in &mut self.native {
            if let Some(slot) = native.get_mut(*column) {
                *slot = Arc::new(builder.finish());
            }
        }
        let extra = self.extra.finish();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(native.len() + 5);
        columns.push(Arc::new(TimestampMicrosecondArray::from(self.occurred_at)));
        columns.push(Arc::new(self.origin.finish()));
        columns.push(Arc::new(self.remarks.finish()));
        columns.push(empty.clone());
        columns.append(&mut native);
        columns.push(if extra.len() == rows { Arc::new(extra) } else { empty });
        RecordBatch::try_new(Kind::Revision.row_schema(), columns)
            .expect("every column has a value for each row, of the schema's type")
    }
}

/// A JSON object of these fields, if there are any.
fn json_object<'s, 't>(
    fields: impl Iterator<Item = (&'t str, Cow<'t, str>)>,
    scratch: &'s mut Vec<u8>,
) -> Option<&'s str> {
    scratch.clear();
    for (name, value) in fields {
        scratch.push(if scratch.is_empty() { b'{' } else { b',' });
        push_json_string(name, scratch);
        scratch.push(b':');
        push_json_string(&value, scratch);
    }
    if scratch.is_empty() {
        return None;
    }
    scratch.push(b'}');
    std::str::from_utf8(scratch).ok()
}
