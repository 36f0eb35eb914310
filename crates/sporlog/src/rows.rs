//! Records on their way out: as JSON lines, or as CSV.

use std::io::Write;

use anyhow::{Context, Result};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use sporlog_ledger::Log;
use sporlog_record::Kind;
use sporlog_record::canonical::EntryWriter;
use sporlog_record::revision::{write_csv_header, write_csv_rows};

use crate::cli::Shape;

/// Writes a log's records, batch by batch.
pub struct RowWriter<'a> {
    log: &'a str,
    kind: Kind,
    shape: Shape,
    buffer: Vec<u8>,
    begun: bool,
}

impl<'a> RowWriter<'a> {
    /// Begins.
    pub fn new(log: &'a Log, shape: Shape) -> Self {
        RowWriter { log: log.name(), kind: log.kind(), shape, buffer: Vec::new(), begun: false }
    }

    /// Writes the records of `batch`, which has the log's columns.
    pub fn write(&mut self, batch: &RecordBatch, out: &mut impl Write) -> Result<()> {
        self.buffer.clear();
        match self.shape {
            Shape::Entries | Shape::Records => self.json(batch)?,
            Shape::Csv if self.kind == Kind::Revision => {
                if !self.begun {
                    write_csv_header(&mut self.buffer);
                }
                write_csv_rows(batch, 0..batch.num_rows(), &mut self.buffer)?;
            }
            Shape::Csv => {
                let csv = arrow::csv::WriterBuilder::new().with_header(!self.begun);
                csv.build(&mut self.buffer).write(batch)?;
            }
        }
        self.begun = true;
        Ok(out.write_all(&self.buffer)?)
    }

    fn json(&mut self, batch: &RecordBatch) -> Result<()> {
        let (ids, received) = numbers(batch)?;
        let mut writer = EntryWriter::new(self.log, self.kind, batch)?;
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

type Integers<T> = arrow::array::PrimitiveArray<T>;

/// The records' ids, and when they were received.
pub fn numbers(batch: &RecordBatch) -> Result<(&Integers<Int64Type>, &Integers<TimestampMicrosecondType>)> {
    let ids = batch.column_by_name("id").and_then(|c| c.as_primitive_opt());
    let received = batch.column_by_name("received_at").and_then(|c| c.as_primitive_opt());
    ids.zip(received).context("the log gave rows without a number")
}
