//! Revision CSV: the reader finds where records end, and the workers parse slabs of whole records.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sporlog_record::revision::{Header, Splitter, file_remarks, parse_slab};

use super::{Context, Judged, PART_BYTES, Receiver, RefusedRecord, Summary, run};
use crate::error::Result;

/// Whole records, and the line that the first one begins on.
struct Slab {
    bytes: Vec<u8>,
    first_line: u64,
}

pub(super) fn deliver(
    context: &Context<'_>,
    mut reader: impl Read,
    receiver: &dyn Receiver,
) -> Result<Summary> {
    let options = context.options;
    let mut buffer = Vec::with_capacity(PART_BYTES);
    fill(&mut reader, &mut buffer, Header::MAX_BYTES).map_err(|e| context.read_error(e))?;
    let header = Header::parse(&buffer, &options.rules)?;
    let header_bytes = buffer[..header.body()].to_vec();
    let mut splitter = Splitter::new(&header, &options.rules);
    let unquoted = AtomicBool::new(header.unquoted());
    let blank_lines = AtomicU64::new(0);
    // Buffers go back to the reader: allocating one of this size takes longer than filling it.
    let (returned, spare) = crossbeam_channel::unbounded::<Vec<u8>>();

    let read = |hand_on: &mut dyn FnMut(Slab) -> bool| {
        buffer.drain(..header.body());
        let mut seen = 0;
        loop {
            fill(&mut reader, &mut buffer, PART_BYTES).map_err(|e| context.read_error(e))?;
            let fresh = &buffer[seen..];
            if fresh.is_empty() {
                let first_line = splitter.finish(&header, &buffer)?;
                if !buffer.is_empty() {
                    hand_on(Slab { bytes: std::mem::take(&mut buffer), first_line });
                }
                return Ok(());
            }
            let cut = splitter.split(fresh)?;
            if cut.end > 0 {
                let end = seen + cut.end;
                let mut rest = spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(PART_BYTES));
                rest.extend_from_slice(&buffer[end..]);
                buffer.truncate(end);
                let bytes = std::mem::replace(&mut buffer, rest);
                if !hand_on(Slab { bytes, first_line: cut.first_line }) {
                    return Ok(());
                }
            }
            seen = buffer.len();
        }
    };
    let judge = |slab: Slab| {
        let origin = context.origin;
        let parsed =
            parse_slab(&header, &options.rules, &slab.bytes, slab.first_line, origin, options.collect)?;
        if parsed.unquoted {
            unquoted.store(true, Ordering::Relaxed);
        }
        blank_lines.fetch_add(parsed.blank_lines, Ordering::Relaxed);
        let mut buffer = slab.bytes;
        buffer.clear();
        let _ = returned.send(buffer);
        let refused = parsed.refused.into_iter().map(|row| RefusedRecord {
            line: row.line,
            content: row.bytes,
            findings: row.findings,
        });
        let judged = Judged {
            accepted: parsed.rows.num_rows() as u64,
            remarks: parsed.remarks,
            refused: refused.collect(),
            findings: parsed.findings,
        };
        Ok((parsed.rows, judged))
    };
    let mut summary = run(options.workers, receiver, &header_bytes, read, judge)?;
    summary.file_remarks = header.remarks().to_vec();
    summary.file_remarks.extend(file_remarks(unquoted.into_inner(), blank_lines.into_inner()));
    summary.header = header_bytes;
    Ok(summary)
}

/// Reads until `buffer` holds `wanted` bytes or the source ends. Reads at least once.
fn fill(reader: &mut impl Read, buffer: &mut Vec<u8>, wanted: usize) -> std::io::Result<()> {
    let missing = wanted.saturating_sub(buffer.len()).max(64 << 10);
    reader.take(missing as u64).read_to_end(buffer).map(drop)
}
