//! Records on their way out: as JSON lines, or as CSV.

use std::io::Write;

use anyhow::Result;
use arrow::array::RecordBatch;
use sporlog_ledger::{Log, numbers};
use sporlog_record::Kind;
use sporlog_record::canonical::EntryWriter;
use sporlog_record::kind::Format;
use sporlog_record::revision::{write_csv_header, write_csv_rows};

use crate::cli::Shape;

/// Writes the records of a log, or of several of one kind, batch by batch.
pub struct RowWriter {
    kind: Kind,
    shape: Shape,
    buffer: Vec<u8>,
    begun: bool,
}

impl RowWriter {
    /// Begins.
    pub fn new(kind: Kind, shape: Shape) -> Self {
        RowWriter { kind, shape, buffer: Vec::new(), begun: false }
    }

    /// Writes the records of `batch`, which is `log`'s.
    pub fn write(&mut self, log: &Log, batch: &RecordBatch, out: &mut impl Write) -> Result<()> {
        self.buffer.clear();
        match self.shape {
            Shape::Entries | Shape::Records => self.json(log, batch)?,
            Shape::Csv if matches!(self.kind.format(), Format::Csv) => {
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
