//! Which of many rows a log has already.
//!
//! The rows of a bulk append are compared while they are staged: the log cannot change meanwhile, and if another
//! process appends to it, the bulk append is not committed. All keys of the rows are sorted once, with 16 bytes each
//! in memory, and merged with the identities in each file's key index, which are sorted, too. The columns are read of
//! those rows alone that come up, and of all rows where a file has no index, or one of an earlier version, and in
//! the journal.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use futures::stream::{StreamExt, TryStreamExt};
use tokio::task::JoinError;

use crate::error::{Error, Result};
use crate::keyindex::{self, RowKey, indexed, row_hash, row_keys};
use crate::log::{Log, Shared};
use crate::recent::Part;
use crate::row_commitments::numbers;
use crate::scan;

/// Parts that are compared at once.
const AT_ONCE: usize = 4;
/// If more than one in so many of a file's rows come up, reading all of them is as quick.
const MOST: usize = 4;

/// The rows of a bulk append, as far as they are pushed.
#[derive(Default)]
pub(crate) struct PushedRows {
    parts: BTreeMap<u64, PushedPart>,
}

struct PushedPart {
    /// Where the part's rows are among all.
    rows: Range<usize>,
    /// Their keys, which count from the first of all rows.
    keys: Vec<RowKey>,
}

impl PushedRows {
    /// Adds a part that comes after `before` rows; its keys count from its own first row.
    pub(crate) fn push(&mut self, part: u64, before: u64, rows: usize, keys: &[RowKey]) {
        let keys = keys.iter().map(|key| key + RowKey::from(before)).collect();
        let rows = before as usize..before as usize + rows;
        self.parts.insert(part, PushedPart { rows, keys });
    }

    /// Which of these rows `log` has, received at `from` (microseconds UTC) or later.
    pub(crate) async fn compare(self, log: &Log, from: i64) -> Result<Overlap> {
        let failed = |e: JoinError| Error::failed(log.name(), format!("comparing rows: {e}"));
        let sort = move || {
            let mut keys = Vec::with_capacity(self.parts.values().map(|part| part.keys.len()).sum());
            let mut parts = BTreeMap::new();
            for (number, part) in self.parts {
                keys.extend(part.keys);
                parts.insert(number, part.rows);
            }
            keys.sort_unstable();
            (keys, parts)
        };
        let (keys, parts) = tokio::task::spawn_blocking(sort).await.map_err(failed)?;
        let keys = Arc::new(keys);
        let (mut known, mut received) = (BooleanBufferBuilder::new(keys.len()), BTreeMap::new());
        known.append_n(keys.len(), false);
        let mut parts_there: Vec<_> = log.state().parts().collect();
        parts_there.retain(|part| part.received().1 >= from && !keys.is_empty());
        let compare = |part: Part| {
            let (shared, keys) = (log.shared.clone(), keys.clone());
            // A task of its own, so that it may run on the other core.
            let task = tokio::spawn(async move { compare_with(&shared, &part, &keys, from).await });
            async move { task.await.map_err(failed)? }
        };
        let mut compared = futures::stream::iter(parts_there).map(compare).buffered(AT_ONCE);
        while let Some(found) = compared.try_next().await? {
            found.keys.iter().for_each(|key| known.set_bit(*key, true));
            for more in found.received {
                let all = received.entry(more.at).or_insert(ReceivedBefore { rows: 0, ..more });
                all.first_id = all.first_id.min(more.first_id);
                all.last_id = all.last_id.max(more.last_id);
                all.rows += more.rows;
            }
        }
        let rows = parts.values().map(|rows| rows.end).max().unwrap_or(0);
        let mut is_new = BooleanBufferBuilder::new(rows);
        is_new.append_n(rows, true);
        let mut first = 0;
        for same in keys.chunk_by(|a, b| row_hash(*a) == row_hash(*b)) {
            if known.get_bit(first) {
                same.iter().for_each(|key| is_new.set_bit(*key as u32 as usize, false));
            }
            first += same.len();
        }
        Ok(Overlap { parts, is_new: is_new.finish(), received: received.into_values().collect() })
    }
}

/// The rows among those compared that the log has already.
#[derive(Debug, Clone)]
pub struct Overlap {
    parts: BTreeMap<u64, Range<usize>>,
    is_new: BooleanBuffer,
    received: Vec<ReceivedBefore>,
}

/// Rows of a log that were received together, and are among those that were looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedBefore {
    /// When they were received, in microseconds UTC.
    pub at: i64,
    /// The first one's id.
    pub first_id: u64,
    /// The last one's id.
    pub last_id: u64,
    /// How many of the log's rows they are.
    pub rows: u64,
}

impl Overlap {
    /// How many of the rows compared the log has.
    pub fn rows(&self) -> u64 {
        (self.is_new.len() - self.is_new.count_set_bits()) as u64
    }

    /// The log's rows that are among those compared, by the time of their receipt, the earliest first.
    pub fn received(&self) -> &[ReceivedBefore] {
        &self.received
    }

    /// Of `rows`, the same that were pushed as this part, those that the log has not. `None`: they are others.
    pub fn only_new(&self, part: u64, rows: &RecordBatch) -> Option<Result<RecordBatch>> {
        let range = self.parts.get(&part).filter(|range| range.len() == rows.num_rows())?;
        let is_new = self.is_new.slice(range.start, range.len());
        Some(filter_record_batch(rows, &BooleanArray::new(is_new, None)).map_err(Error::from))
    }
}

impl Log {
    /// Which of `rows`, columns as in [`Kind::row_schema`](sporlog_record::Kind::row_schema), the log has, received
    /// at `from` (microseconds UTC) or later. What is appended after the call is not considered.
    pub async fn overlap(&self, rows: &RecordBatch, from: i64) -> Result<Overlap> {
        let mut pushed = PushedRows::default();
        pushed.push(0, 0, rows.num_rows(), &row_keys(self.kind(), rows));
        pushed.compare(self, from).await
    }
}

/// What a part has of the rows that are looked for.
#[derive(Default)]
struct Found {
    /// Which of the keys that are looked for, the first of those with the same identity; some may be here more than
    /// once.
    keys: Vec<usize>,
    /// Rows of the part, by the time of their receipt.
    received: Vec<ReceivedBefore>,
}

/// Which of the rows with these keys, which ascend, `part` has.
async fn compare_with(shared: &Shared, part: &Part, keys: &[RowKey], from: i64) -> Result<Found> {
    let columns = [shared.kind.identity_columns(), &["id", "received_at"]].concat();
    let mut batches = match candidates(shared, part, keys).await? {
        Some(rows) if rows.is_empty() => return Ok(Found::default()),
        Some(rows) if rows.len() < part.rows() as usize / MOST => {
            scan::rows_of(shared, part, &rows, Some(&columns)).await?
        }
        _ => scan::select(shared, part, None, Some(&columns)).await?,
    };
    let mut found = Found::default();
    while let Some(batch) = batches.try_next().await? {
        let (ids, times) = numbers(&batch)?;
        for key in row_keys(shared.kind, &batch) {
            let row = key as u32 as usize;
            let (id, at) = (ids.value(row) as u64, times.value(row));
            if at < from {
                continue;
            }
            let first = keys.partition_point(|wanted| row_hash(*wanted) < row_hash(key));
            if keys.get(first).is_some_and(|wanted| row_hash(*wanted) == row_hash(key)) {
                found.keys.push(first);
                match found.received.last_mut().filter(|last| last.at == at) {
                    Some(last) => (last.last_id, last.rows) = (id, last.rows + 1),
                    None => found.received.push(ReceivedBefore { at, first_id: id, last_id: id, rows: 1 }),
                }
            }
        }
    }
    Ok(found)
}

/// The rows of `part` whose entries in its key index are like those of `keys`, ascending; `None` if there is no index,
/// or the index does not say.
async fn candidates(shared: &Shared, part: &Part, keys: &[RowKey]) -> Result<Option<Vec<u32>>> {
    let Some(file) = part.indexed() else { return Ok(None) };
    let wanted = |min: u32, max: u32| {
        let first = keys.partition_point(|key| ((key >> 96) as u32) < min);
        keys.get(first).is_some_and(|key| (key >> 96) as u32 <= max)
    };
    let Some(mut batches) = keyindex::identities(shared, file, wanted).await? else { return Ok(None) };
    let (mut rows, mut rest) = (Vec::new(), keys);
    while let Some(batch) = batches.try_next().await? {
        for (there, row) in keyindex::indexed_rows(file, &batch)? {
            rest = from_on(rest, there);
            if rest.first().is_some_and(|key| indexed(*key) == there) {
                rows.push(row);
            }
        }
    }
    rows.sort_unstable();
    Ok(Some(rows))
}

/// The keys, which ascend, from the first on that is not less than `there`. It is looked for in steps that grow, for
/// it is near where the index is as dense as the keys, and far where they are many more.
fn from_on(keys: &[RowKey], there: u64) -> &[RowKey] {
    let less = |key: &RowKey| indexed(*key) < there;
    let mut step = 1;
    while keys.get(step).is_some_and(less) {
        step *= 2;
    }
    let near = keys.get(..=step).unwrap_or(keys);
    &keys[near.partition_point(less)..]
}
