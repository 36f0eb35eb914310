//! Messages on their way into a log: gathered as bytes, then judged into rows.
//!
//! What is gathered lies in one piece of memory, so that a batch takes little more than its
//! messages do, and its size is known. Each partition's messages are a part of their own, with the
//! offsets that it leads from and to: that is what makes its commit exact.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;
use std::time::Instant;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::{Finding, Kind, Position, Rules};

use super::partition::{Key, Partition};
use crate::error::Result;

/// What is counted for a message besides its bytes.
const OVERHEAD: usize = 64;

/// Messages for one log.
#[derive(Debug)]
pub(super) struct Batch {
    /// Contents and envelopes, one after the other.
    pub bytes: Vec<u8>,
    pub parts: BTreeMap<Key, Part>,
    pub messages: usize,
    /// When the first one came.
    pub begun: Instant,
}

/// One partition's messages.
#[derive(Debug)]
pub(super) struct Part {
    pub generation: u64,
    /// The offset of the last message before these; −1 if there was none.
    pub from: i64,
    /// The offset of the last of these.
    pub to: i64,
    messages: Vec<Slot>,
    /// Empty ones, which are passed over.
    skipped: u64,
}

#[derive(Debug)]
struct Slot {
    offset: i64,
    content: Range<usize>,
    envelope: Range<usize>,
}

impl Batch {
    /// Begins an empty one that is to hold about so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        // Growing piece by piece would leave up to a half of it unused.
        let bytes = Vec::with_capacity(bytes + (bytes >> 4));
        Batch { bytes, parts: BTreeMap::new(), messages: 0, begun: Instant::now() }
    }

    /// Takes a message of `partition`, whose reading moves on. `envelope` appends its envelope.
    pub(super) fn push(
        &mut self,
        key: Key,
        partition: &mut Partition,
        offset: i64,
        content: &[u8],
        envelope: impl FnOnce(&mut Vec<u8>),
    ) {
        let part = self.parts.entry(key).or_insert_with(|| Part {
            generation: partition.generation,
            from: partition.read,
            to: partition.read,
            messages: Vec::new(),
            skipped: 0,
        });
        partition.read = offset;
        part.to = offset;
        self.messages += 1;
        if content.is_empty() {
            part.skipped += 1;
            return;
        }
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(content);
        let split = self.bytes.len();
        envelope(&mut self.bytes);
        let envelope = split..self.bytes.len();
        part.messages.push(Slot { offset, content: begin..split, envelope });
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.messages * OVERHEAD
    }
}

/// A part that has been judged.
#[derive(Debug)]
pub(super) struct JudgedPart {
    pub key: Key,
    pub generation: u64,
    pub from: i64,
    pub to: i64,
    /// All that there were.
    pub messages: u64,
    pub skipped: u64,
    pub refused: Vec<Refused>,
    /// The accepted ones, and the offset of each.
    rows: RecordBatch,
    offsets: Vec<i64>,
}

/// A message that cannot go into its log.
#[derive(Debug)]
pub(super) struct Refused {
    pub offset: i64,
    pub findings: Vec<Finding>,
    pub content: Vec<u8>,
    pub envelope: String,
}

/// Judges a part whose messages lie in `bytes`; `source` is the beginning of their origins.
pub(super) fn judge(
    key: Key,
    part: &Part,
    bytes: &[u8],
    source: &str,
    kind: Kind,
    rules: &Rules,
) -> JudgedPart {
    let mut builder = RowsBuilder::new(kind, rules);
    let mut offsets = Vec::with_capacity(part.messages.len());
    let mut refused = Vec::new();
    let mut origin = String::new();
    let at = Position { line: 1, column: 1 };
    for Slot { offset, content, envelope } in &part.messages {
        let content = bytes.get(content.clone()).unwrap_or_default();
        // It is written as UTF-8.
        let envelope = bytes.get(envelope.clone()).and_then(|envelope| str::from_utf8(envelope).ok());
        origin.clear();
        // Writing into memory cannot fail.
        let _ = write!(origin, "{source}@{offset}");
        match builder.push_with(content, &origin, envelope, at) {
            Judged::Accepted(_) => offsets.push(*offset),
            Judged::Refused(findings) => refused.push(Refused {
                offset: *offset,
                findings,
                content: content.to_vec(),
                envelope: envelope.unwrap_or_default().to_owned(),
            }),
        }
    }
    JudgedPart {
        key,
        generation: part.generation,
        from: part.from,
        to: part.to,
        messages: part.messages.len() as u64 + part.skipped,
        skipped: part.skipped,
        refused,
        rows: builder.finish(),
        offsets,
    }
}

impl JudgedPart {
    /// The accepted messages above the offset `stand` that are not in `without`.
    pub(super) fn rows_above(&self, stand: i64, without: &BTreeSet<i64>) -> Result<RecordBatch> {
        let wanted = |offset: &i64| *offset > stand && !without.contains(offset);
        if self.offsets.iter().all(wanted) {
            return Ok(self.rows.clone());
        }
        let wanted: BooleanArray = self.offsets.iter().map(|offset| Some(wanted(offset))).collect();
        Ok(filter_record_batch(&self.rows, &wanted).map_err(sporlog_ledger::Error::from)?)
    }
}
