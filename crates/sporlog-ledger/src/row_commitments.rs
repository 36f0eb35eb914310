//! Rows get their numbers, and are committed to.
//!
//! This is pure computation, the same for a single record and for a slab of fifty thousand.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use sporlog_record::Kind;
use sporlog_record::canonical::EntryWriter;
use tlog_tiles::tlog::{self, Hash};

use crate::error::{Error, Result};
use crate::keys::{Commitment, LogKeys};
use crate::schema;
use crate::times::Times;

/// Rows that have their ids, with what the tree needs of them.
pub(crate) struct NumberedRows {
    /// The columns of the table.
    pub batch: RecordBatch,
    /// A commitment per row, and its leaf hash.
    pub entries: Vec<(Commitment, Hash)>,
    /// The earliest and latest `occurred_at`.
    pub occurred: Option<(i64, i64)>,
}

/// What numbering rows and committing to them takes of a log.
#[derive(Debug, Clone)]
pub(crate) struct RowCommitter {
    pub log: Arc<str>,
    pub kind: Kind,
    pub keys: Arc<LogKeys>,
}

impl RowCommitter {
    /// Numbers `rows` from `first` on and commits to them.
    pub(crate) fn number_and_commit(
        &self,
        rows: &RecordBatch,
        first: u64,
        received_at: i64,
    ) -> Result<NumberedRows> {
        let batch = number(self.kind, rows, first, received_at)?;
        let entries = self.commitments(&batch, &mut Vec::new())?;
        let Times { occurred, .. } = Times::of(&batch);
        Ok(NumberedRows { batch, entries, occurred })
    }

    /// The commitments of rows that have their numbers; `buffer` is scratch space.
    pub(crate) fn commitments(
        &self,
        batch: &RecordBatch,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<(Commitment, Hash)>> {
        let mut writer = entry_writer(&self.log, self.kind, batch)?;
        let (ids, received) = numbers(batch)?;
        let commit = |row: usize| {
            let id = ids.value(row) as u64;
            buffer.clear();
            writer.write_entry(row, id, received.value(row), buffer);
            let commitment = self.keys.commit(id, buffer);
            (commitment, tlog::record_hash(&commitment))
        };
        Ok((0..batch.num_rows()).map(commit).collect())
    }
}

/// The writer of canonical JSON over a batch of the table.
pub(crate) fn entry_writer<'a>(log: &str, kind: Kind, batch: &'a RecordBatch) -> Result<EntryWriter<'a>> {
    EntryWriter::new(log, kind, batch).map_err(|e| Error::Columns(e.to_string()))
}

/// The columns `id` and `received_at` (µs UTC) of a batch of the table.
pub fn numbers(batch: &RecordBatch) -> Result<(&Int64Array, &TimestampMicrosecondArray)> {
    let ids = batch.column_by_name("id").and_then(|c| c.as_primitive_opt());
    let received = batch.column_by_name("received_at").and_then(|c| c.as_primitive_opt());
    ids.zip(received).ok_or_else(|| Error::Columns("`id` or `received_at` is missing".into()))
}

/// Puts `id` and `received_at` before the record's columns.
fn number(kind: Kind, rows: &RecordBatch, first: u64, received_at: i64) -> Result<RecordBatch> {
    let wanted = kind.row_schema();
    if rows.schema().fields() != wanted.fields() {
        return Err(Error::Columns(format!("they are not those of {kind}")));
    }
    let count = rows.num_rows();
    let ids = Int64Array::from_iter_values((0..count as i64).map(|n| first as i64 + n));
    let received = TimestampMicrosecondArray::from_value(received_at, count).with_timezone("UTC");
    let numbered: [ArrayRef; 2] = [Arc::new(ids), Arc::new(received)];
    let columns = numbered.into_iter().chain(rows.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(schema::table_schema(kind), columns)?)
}
