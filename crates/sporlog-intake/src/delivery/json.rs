//! Disclosures and audit records in JSON: the reader finds where records end, and the workers parse groups of them.

use std::io::Read;

use sporlog_record::json::{FileError, Judged as JudgedRecord, RawRecord, RecordReader, RowsBuilder};

use super::{Context, Judged, PART_BYTES, Receiver, RefusedRecord, Summary, run};
use crate::error::Result;

/// The most records in a part.
const PART_RECORDS: usize = 32 << 10;

pub(super) fn deliver(context: &Context<'_>, reader: impl Read, receiver: &dyn Receiver) -> Result<Summary> {
    let options = context.options;
    let read = |hand_on: &mut dyn FnMut(Vec<RawRecord>) -> bool| {
        let mut part = Vec::new();
        let mut bytes = 0;
        let mut first = true;
        // Every line of a file in another format would be refused alone, and kept in the quarantine.
        let mut hand_on = |part: Vec<RawRecord>| {
            if std::mem::take(&mut first) && !part.iter().any(is_object) {
                return Err(context.file_error(FileError::NoObject));
            }
            Ok(hand_on(part))
        };
        for record in RecordReader::new(reader, options.rules.max_record_bytes) {
            let record = record.map_err(|e| context.file_error(e))?;
            bytes += record.bytes.len();
            part.push(record);
            if bytes >= PART_BYTES || part.len() >= PART_RECORDS {
                bytes = 0;
                if !hand_on(std::mem::take(&mut part))? {
                    return Ok(());
                }
            }
        }
        if !part.is_empty() {
            hand_on(part)?;
        }
        Ok(())
    };
    let judge = |part: Vec<RawRecord>| {
        let mut builder = RowsBuilder::new(options.kind, &options.rules);
        let mut judged = Judged::default();
        for RawRecord { bytes, at } in part {
            let origin = format!("{}:{}", context.origin, at.line);
            match builder.push(&bytes, &origin, at) {
                JudgedRecord::Accepted(remarks) => {
                    judged.accepted += 1;
                    judged.remarks += remarks.len() as u64;
                    let room = options.collect.saturating_sub(judged.findings.len());
                    judged.findings.extend(remarks.into_iter().take(room));
                }
                JudgedRecord::Refused(findings) => {
                    judged.refused.push(RefusedRecord { line: at.line, content: bytes, findings });
                }
            }
        }
        Ok((builder.finish(), judged))
    };
    run(options.workers, receiver, b"", read, judge)
}

fn is_object(record: &RawRecord) -> bool {
    record.bytes.trim_ascii_start().starts_with(b"{")
}
