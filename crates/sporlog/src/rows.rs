//! Records on their way out: as JSON lines, as CSV, or as a table for reading.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use sporlog_ledger::{Log, numbers};
use sporlog_record::Kind;
use sporlog_record::canonical::EntryWriter;
use sporlog_record::kind::Format;
use sporlog_record::revision::{write_csv_header, write_csv_rows};

use crate::cli::Shape;
use crate::text::{Table, print_table, terminal_width, write_csv};

/// Writes the records of a log, or of several of one kind, batch by batch.
pub struct RowWriter {
    kind: Kind,
    shape: Shape,
    buffer: Vec<u8>,
    table: Option<Table>,
    records: u64,
}

impl RowWriter {
    /// Begins.
    pub fn new(kind: Kind, shape: Shape) -> Self {
        RowWriter { kind, shape, buffer: Vec::new(), table: None, records: 0 }
    }

    /// Writes the records of `batch`, which is `log`'s. A table waits for [`RowWriter::finish`].
    pub fn write(&mut self, log: &Log, batch: &RecordBatch, out: &mut impl Write) -> Result<()> {
        let begun = self.records > 0;
        self.records += batch.num_rows() as u64;
        self.buffer.clear();
        match self.shape {
            Shape::Entries | Shape::Records => self.json(log, batch)?,
            Shape::Csv if matches!(self.kind.format(), Format::Csv) => {
                if !begun {
                    write_csv_header(&mut self.buffer);
                }
                write_csv_rows(batch, 0..batch.num_rows(), &mut self.buffer)?;
            }
            Shape::Csv => write_csv(batch, !begun, &mut self.buffer)?,
            Shape::Table => {
                let batch = with_log(log, batch)?;
                self.table.get_or_insert_with(|| Table::new(&batch.schema())).push(&batch)?;
            }
        }
        Ok(out.write_all(&self.buffer)?)
    }

    /// Writes what has waited; gives the number of records.
    pub fn finish(self, out: &mut impl Write) -> Result<u64> {
        if let Some(table) = self.table {
            print_table(&table.without_empty_columns(), terminal_width(), out)?;
        }
        Ok(self.records)
    }

    fn json(&mut self, log: &Log, batch: &RecordBatch) -> Result<()> {
        let (ids, received) = numbers(batch)?;
        let mut writer = EntryWriter::new(log.name(), self.kind, batch)?;
        for row in 0..batch.num_rows() {
            let id = ids.value(row).unsigned_abs();
            match self.shape {
                Shape::Records => writer.write_wire(row, id, &mut self.buffer),
                _ => writer.write_entry(row, id, received.value(row), &mut self.buffer),
            }
            self.buffer.push(b'\n');
        }
        Ok(())
    }
}

/// The records with their log's name in the first column.
fn with_log(log: &Log, batch: &RecordBatch) -> Result<RecordBatch> {
    let names = StringArray::from_iter_values(std::iter::repeat_n(log.name(), batch.num_rows()));
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, column)| (field.name().as_str(), column.clone()));
    let named = std::iter::once(("log", Arc::new(names) as ArrayRef)).chain(columns);
    Ok(RecordBatch::try_from_iter(named)?)
}
