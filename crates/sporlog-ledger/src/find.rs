//! One person's records, or one user's, newest first.
//!
//! Parts of the log are gone through from the newest: a large file is asked for the person's rows in its key
//! index, and only those rows are read; of a small one and of the journal, the key column is read. A few are
//! under way at once, so that the disk and the other core have something to do.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::stream::{StreamExt, TryStreamExt};
use sporlog_record::Kind;

use crate::error::{Error, Result};
use crate::keyindex::{self, Key};
use crate::log::{Log, Shared};
use crate::recent::Part;
use crate::scan;
use crate::schema::table_schema;

/// Parts looked into at once.
const AT_ONCE: usize = 4;
/// Rows of a part that are read together, at least.
const AT_LEAST: usize = 64;

/// Whom to find, and when.
#[derive(Debug, Clone)]
pub struct Find {
    /// The person or the user.
    pub key: Key,
    /// Records of this local time or later (`occurred_at`, in microseconds).
    pub from: Option<i64>,
    /// Records before this local time.
    pub to: Option<i64>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

impl Log {
    /// The records found, in batches; ids descend throughout.
    pub fn find(&self, find: Find) -> scan::Batches {
        let parts: Vec<_> = self.state().parts().rev().collect();
        let shared = self.shared.clone();
        let limit = find.limit.unwrap_or(usize::MAX);
        let wanted = Arc::new(find);
        let look = move |part: Part| {
            let (shared, wanted) = (shared.clone(), wanted.clone());
            // A task of its own, so that it may run on the other core.
            let task = tokio::spawn(async move { find_in(&shared, &part, &wanted).await });
            async move { task.await.map_err(|e| Error::failed("find", e))? }
        };
        let found = futures::stream::iter(parts).map(look).buffered(AT_ONCE);
        let found = found.try_filter(|batch| std::future::ready(batch.num_rows() > 0));
        found
            .scan(limit, |left, batch| {
                let batch = batch.map(|batch| {
                    let batch = batch.slice(0, batch.num_rows().min(*left));
                    *left -= batch.num_rows();
                    batch
                });
                let exhausted = matches!(&batch, Ok(b) if b.num_rows() == 0);
                std::future::ready((!exhausted).then_some(batch))
            })
            .boxed()
    }
}

/// The records of one part, newest first.
async fn find_in(shared: &Shared, part: &Part, find: &Find) -> Result<RecordBatch> {
    let schema = table_schema(shared.kind);
    if !part.may_have_within(find.from, find.to) {
        return Ok(RecordBatch::new_empty(schema));
    }
    let rows = candidates(shared, part, &find.key).await?;
    let limit = find.limit.unwrap_or(usize::MAX);
    let (mut found, mut count) = (Vec::new(), 0);
    // Each row may be in a page of its own, so older ones are read only if the newest are not enough.
    for newest in rows.rchunks(limit.max(AT_LEAST)) {
        let batches: Vec<_> = scan::rows_of(shared, part, newest, None).await?.try_collect().await?;
        let batch = concat_batches(&schema, &batches)?;
        let wanted = newest_first(&batch, &matches(shared.kind, &batch, find))?;
        count += wanted.num_rows();
        found.push(wanted);
        if count >= limit {
            break;
        }
    }
    Ok(concat_batches(&schema, &found)?)
}

/// The rows of `batch` that are wanted, in reverse order.
pub(crate) fn newest_first(batch: &RecordBatch, wanted: &BooleanArray) -> Result<RecordBatch> {
    let batch = filter_record_batch(batch, wanted)?;
    let reversed: UInt32Array = (0..batch.num_rows() as u32).rev().collect();
    Ok(take_record_batch(&batch, &reversed)?)
}

/// The rows of `part` that may be of `key`, ascending. Where two identifiers share a hash, rows of the other
/// one are among them.
pub(crate) async fn candidates(shared: &Shared, part: &Part, key: &Key) -> Result<Vec<u32>> {
    if key.columns(shared.kind).is_empty() {
        return Ok(Vec::new());
    }
    match part.indexed().zip(key.hash()) {
        Some((file, hash)) => keyindex::rows_of(shared, file, hash).await,
        None => look_through(shared, part, key).await,
    }
}

/// The rows of a part without an index, from its key column.
async fn look_through(shared: &Shared, part: &Part, key: &Key) -> Result<Vec<u32>> {
    let columns = key.columns(shared.kind);
    let mut batches = scan::select(shared, part, None, Some(columns)).await?;
    let (mut rows, mut start) = (Vec::new(), 0);
    while let Some(batch) = batches.try_next().await? {
        let matching = has_key(shared.kind, &batch, key);
        rows.extend(matching.iter().zip(start..).filter(|(m, _)| *m == Some(true)).map(|(_, row)| row));
        start += batch.num_rows() as u32;
    }
    Ok(rows)
}

fn matches(kind: Kind, batch: &RecordBatch, find: &Find) -> BooleanArray {
    let key = has_key(kind, batch, &find.key);
    if find.from.is_none() && find.to.is_none() {
        return key;
    }
    let times =
        batch.column_by_name("occurred_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let within = |row: usize| {
        let time = times.filter(|t| t.is_valid(row)).map(|t| t.value(row));
        time.is_some_and(|t| find.from.is_none_or(|from| t >= from) && find.to.is_none_or(|to| t < to))
    };
    key.iter().enumerate().map(|(row, key)| Some(key == Some(true) && within(row))).collect()
}

pub(crate) fn has_key(kind: Kind, batch: &RecordBatch, key: &Key) -> BooleanArray {
    let wanted = key.value();
    match keyindex::identifiers(key.columns(kind), batch) {
        Some(column) => column.iter().map(|value| Some(value == Some(wanted))).collect(),
        None => BooleanArray::from(vec![false; batch.num_rows()]),
    }
}
