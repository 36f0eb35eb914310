//! Which records are a person's or a user's: first their ids, at the cost of the key indexes alone, and then
//! of some of these records just the columns that are asked for.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::stream::{StreamExt, TryStreamExt};

use crate::error::Result;
use crate::find::{candidates, has_key, newest_first};
use crate::keyindex::Key;
use crate::log::Log;
use crate::recent::Part;
use crate::scan;

/// Parts looked into at once.
const AT_ONCE: usize = 4;

/// The records of a person or a user, as they were when they were located: what is appended later is not
/// among them, so that pages of them stand still.
#[derive(Clone)]
pub struct Located {
    log: Log,
    key: Key,
    /// The parts of the log with rows of theirs, oldest first; the rows ascend.
    parts: Vec<(Part, Vec<u32>)>,
}

impl Log {
    /// Locates the records of `key`.
    pub async fn locate(&self, key: Key) -> Result<Located> {
        let look = |part: Part| {
            let key = &key;
            async move { Ok::<_, crate::Error>((part.clone(), candidates(&self.shared, &part, key).await?)) }
        };
        let parts: Vec<_> = self.state().parts().collect();
        let parts = futures::stream::iter(parts).map(look).buffered(AT_ONCE);
        let parts = parts.try_filter(|(_, rows)| std::future::ready(!rows.is_empty()));
        let parts = parts.try_collect().await?;
        Ok(Located { log: self.clone(), key, parts })
    }
}

impl Located {
    /// The log that they are in.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// How many there are. By the hashes of the indexes: now and then one too many is counted, among thousands
    /// of millions.
    pub fn count(&self) -> usize {
        self.parts.iter().map(|(_, rows)| rows.len()).sum()
    }

    /// Whether the record with this id may be one of them. [`read`](Located::read) says whether it is.
    pub fn may_have(&self, id: u64) -> bool {
        self.parts.iter().any(|(part, rows)| {
            let row = id.checked_sub(part.first()).and_then(|row| u32::try_from(row).ok());
            row.is_some_and(|row| rows.binary_search(&row).is_ok())
        })
    }

    /// Leaves out parts of the log in which nothing happened from `from` on and before `to` (local times in microseconds);
    /// other records of the parts that are left may lie outside.
    pub fn narrow(&mut self, from: Option<i64>, to: Option<i64>) {
        self.parts.retain(|(part, _)| part.may_have_within(from, to));
    }

    /// Of the newest `limit` ids below `before`, these columns of the records, and their ids and times of
    /// receipt; ids descend throughout. And the id to go on before; `None` if there are no more.
    pub async fn read(
        &self,
        before: u64,
        limit: usize,
        columns: &[&str],
    ) -> Result<(Vec<RecordBatch>, Option<u64>)> {
        let kind = self.log.kind();
        let mut wanted = vec!["id", "received_at"];
        wanted.extend(columns.iter().chain(self.key.columns(kind)));
        let (mut parts, mut left, mut next) = (Vec::new(), limit, None);
        for (part, rows) in self.parts.iter().rev() {
            let end = rows.partition_point(|row| part.first() + u64::from(*row) < before);
            let start = end.saturating_sub(left);
            let rows = rows.get(start..end).unwrap_or_default();
            left -= rows.len();
            if let Some(oldest) = rows.first() {
                parts.push((part, rows));
                next = Some(part.first() + u64::from(*oldest));
            }
            if left == 0 {
                break;
            }
        }
        let more = next.filter(|next| left == 0 && self.oldest().is_some_and(|oldest| oldest < *next));
        let read = |(part, rows): (&Part, &[u32])| {
            let (part, rows, wanted) = (part.clone(), rows.to_vec(), &wanted);
            async move {
                let batches = scan::rows_of(&self.log.shared, &part, &rows, Some(wanted)).await?;
                let batches: Vec<_> = batches.try_collect().await?;
                let Some(first) = batches.first() else { return Ok(None) };
                let batch = concat_batches(&first.schema(), &batches)?;
                Ok::<_, crate::Error>(Some(newest_first(&batch, &has_key(kind, &batch, &self.key))?))
            }
        };
        let parts: Vec<_> = parts.into_iter().map(read).collect();
        let batches = futures::stream::iter(parts).buffered(AT_ONCE);
        let batches = batches.try_filter_map(|batch| std::future::ready(Ok(batch))).try_collect().await?;
        Ok((batches, more))
    }

    fn oldest(&self) -> Option<u64> {
        let (part, rows) = self.parts.first()?;
        Some(part.first() + u64::from(*rows.first()?))
    }
}
