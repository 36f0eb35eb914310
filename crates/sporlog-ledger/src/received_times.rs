//! When records were received.
//!
//! Times of receipt are what clocks said, and need not ascend with the ids. So what was received in a time is any
//! number of ranges of ids. Of each part of the log the earliest and latest time are known; its rows are only looked
//! at where these do not answer the question.

use std::collections::BTreeMap;
use std::ops::Range;

use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::log::{Log, Shared};
use crate::row_commitments::numbers;
use crate::scan::{rows_of, select};
use crate::table_state::TableState;

/// What is read of a row.
const COLUMNS: &[&str] = &["id", "received_at"];

impl Log {
    /// Which ids were received when: for each part that `part` puts a time of receipt into (microseconds UTC),
    /// the ranges of ids, ascending. Of two times, the later one's part must not be the lesser. What is appended
    /// after the call is not in it.
    pub async fn received_by<P: Ord + Copy>(
        &self,
        part: impl Fn(i64) -> P,
    ) -> Result<BTreeMap<P, Vec<Range<u64>>>> {
        let mut ranges = IdRanges(BTreeMap::new());
        let state = self.state();
        for rows in state.parts() {
            let received = rows.received();
            let (earliest, latest) = (part(received.0), part(received.1));
            if earliest == latest {
                ranges.add(earliest, rows.first()..rows.last() + 1);
                continue;
            }
            let mut batches = select(&self.shared, &rows, None, Some(COLUMNS)).await?;
            let mut next = rows.first();
            while let Some(batch) = batches.try_next().await? {
                let (_, times) = numbers(&batch)?;
                for together in times.values().chunk_by(|a, b| a == b) {
                    let end = next + together.len() as u64;
                    together.first().into_iter().for_each(|at| ranges.add(part(*at), next..end));
                    next = end;
                }
            }
            if next != rows.last() + 1 {
                return Err(Error::damaged(rows.name(), "it has not as many rows as the Delta log says"));
            }
        }
        Ok(ranges.0)
    }

    /// When the newest record was received, in microseconds UTC; `None` if there is none, or it has expired.
    pub async fn newest_receipt(&self) -> Result<Option<i64>> {
        newest_receipt(&self.shared, &self.state()).await
    }

    /// The earliest and the latest time of receipt of the records that are left, in microseconds UTC. Answered
    /// from memory.
    pub fn received(&self) -> Option<(i64, i64)> {
        let state = self.state();
        let times = state.parts().map(|part| part.received());
        times.reduce(|(earliest, latest), (from, to)| (earliest.min(from), latest.max(to)))
    }

    /// The earliest time of receipt of the records that are left, in microseconds UTC, if retention has removed
    /// any: of that time and before, others may be gone.
    pub fn expired_until(&self) -> Option<i64> {
        let state = self.state();
        let left: u64 = state.parts().map(|part| part.rows()).sum();
        let earliest = state.parts().map(|part| part.received().0).min();
        (left < state.size).then(|| earliest.unwrap_or(i64::MAX))
    }
}

/// See [`Log::newest_receipt`].
pub(crate) async fn newest_receipt(shared: &Shared, state: &TableState) -> Result<Option<i64>> {
    let Some(part) = state.part_of(state.size) else { return Ok(None) };
    let (earliest, latest) = part.received();
    if earliest == latest {
        return Ok(Some(latest));
    }
    let row = [(part.rows() - 1) as u32];
    let batch = rows_of(shared, &part, &row, Some(COLUMNS)).await?.try_next().await?;
    let batch = batch.filter(|batch| batch.num_rows() == 1);
    let batch =
        batch.ok_or_else(|| Error::damaged(part.name(), "it has fewer rows than the Delta log says"))?;
    Ok(Some(numbers(&batch)?.1.value(0)))
}

/// Ranges of ids by part.
struct IdRanges<P>(BTreeMap<P, Vec<Range<u64>>>);

impl<P: Ord> IdRanges<P> {
    fn add(&mut self, part: P, ids: Range<u64>) {
        let ranges = self.0.entry(part).or_default();
        match ranges.last_mut() {
            Some(last) if last.end == ids.start => last.end = ids.end,
            _ => ranges.push(ids),
        }
    }
}
