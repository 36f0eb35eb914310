//! Runs for ids that have none: rows that came by HTTP or `sporlog import`, or before the index was there.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, Int64Type, TimestampMicrosecondType};
use chrono::Utc;
use futures::TryStreamExt;
use sporlog_ledger::Log;
use tokio::sync::mpsc;

use super::key::{Key, LOG_ID, SYSTEM, TRANSACTION};
use super::run::Covers;
use super::spill::{CHUNK_KEYS, Spill};
use super::{Index, failed};
use sporlog_intake::blocking::blocking;
use sporlog_intake::{Error, Result};

/// What is read of the log.
const COLUMNS: &[&str] = &["id", RECEIVED_AT, SYSTEM, LOG_ID, TRANSACTION];
const RECEIVED_AT: &str = "received_at";
/// Rows received together have a run of their own if there are more than so many: they are a delivery …
const DELIVERY: usize = 10_000;
/// … and others one for each hour.
const HOUR: i64 = 3_600_000_000;
/// Batches between the reader and the builder.
const WAITING: usize = 16;

impl Index {
    /// Makes runs for what the log has received within the window and no run has yet, and removes those
    /// that are not needed any more. Quick when there is nothing to do. The log has to be fresh: of
    /// one that stands still, younger runs would be taken for those of another. Rows that are stored during this
    /// call may be missing until the next: hold the log, or call it again while it is held.
    pub async fn catch_up(self: &Arc<Self>, log: &Log) -> Result<()> {
        let from = (Utc::now() - self.window).timestamp_micros();
        self.catch_up_from(log, from).await
    }

    /// What was received before `from` is old.
    pub(super) async fn catch_up_from(self: &Arc<Self>, log: &Log, from: i64) -> Result<()> {
        let _alone = self.catching_up.lock().await;
        let (first, head) = (log.first(), log.head());
        let (index, number) = (self.clone(), self.seeds.checksum(log.vkey().as_bytes()));
        blocking(move || index.tidy(number, first, head, from)).await?;
        let young = log.received_by(|at| at >= from).await?.remove(&true).unwrap_or_default();
        for gap in self.gaps(&young) {
            self.build(log, number, gap).await?;
        }
        Ok(())
    }

    /// Drops what is of another log, gone, or old.
    fn tidy(&self, log: u64, first: u64, head: u64, from: i64) -> Result<()> {
        self.state().log = Some(log);
        for run in self.runs() {
            let covers = &run.covers;
            let ours = covers.log == log && covers.last <= head && run.is_there();
            if !ours || covers.newest < from || covers.last < first {
                self.forget(&run)?;
            }
        }
        Ok(())
    }

    /// What no run has of these ids, oldest first.
    fn gaps(&self, young: &[Range<u64>]) -> Vec<Range<u64>> {
        let state = self.state();
        let mut gaps = Vec::new();
        for ids in young {
            let mut next = ids.start;
            for run in state.runs.range(..ids.end).map(|(_, run)| &run.covers) {
                if next < run.first {
                    gaps.push(next..run.first);
                }
                next = next.max(run.last + 1);
            }
            if next < ids.end {
                gaps.push(next..ids.end);
            }
        }
        gaps
    }

    async fn build(self: &Arc<Self>, log: &Log, number: u64, ids: Range<u64>) -> Result<()> {
        let (sender, mut batches) = mpsc::channel::<Option<RecordBatch>>(WAITING);
        let index = self.clone();
        let builder = tokio::task::spawn_blocking(move || {
            let mut builder = Builder { index: &index, log: number, open: None, group: Group::default() };
            while let Some(batch) = batches.blocking_recv() {
                match batch {
                    Some(batch) => builder.batch(&batch)?,
                    None => return builder.end(),
                }
            }
            // The log could not be read to the end.
            Ok(())
        });
        let mut rows = log.read_columns(ids.start - 1, Some(ids.end - ids.start), COLUMNS);
        let unread = loop {
            let batch = match rows.try_next().await {
                Ok(batch) => batch,
                Err(error) => break Some(error),
            };
            let end = batch.is_none();
            // A builder that is gone has failed, and says why.
            if sender.send(batch).await.is_err() || end {
                break None;
            }
        };
        drop(sender);
        let built = builder.await.map_err(|e| Error::Internal(e.to_string()))?;
        unread.map_or(built, |error| Err(error.into()))
    }
}

/// Cuts rows that are read from the log into runs.
struct Builder<'a> {
    index: &'a Index,
    log: u64,
    open: Option<Growing>,
    group: Group,
}

/// A run that is being gathered.
struct Growing {
    spill: Spill,
    keys: Vec<Key>,
    covers: Covers,
}

/// Rows that were received together.
#[derive(Default)]
struct Group {
    /// The first and last id, and when; absent before the first row.
    covers: Option<Covers>,
    /// Their keys, as long as they may be too few for a run of their own.
    keys: Vec<Key>,
    /// They are in a run of their own.
    alone: bool,
}

impl Builder<'_> {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let ids = values::<Int64Type>(batch, "id")?.values();
        let times = values::<TimestampMicrosecondType>(batch, RECEIVED_AT)?.values();
        let mut begin = 0;
        for together in times.chunk_by(|a, b| a == b) {
            let rows = begin..begin + together.len();
            begin = rows.end;
            let ends = ids.get(rows.start).zip(ids.get(rows.end - 1)).zip(together.first());
            let Some(((first, last), at)) = ends else { continue };
            let covers =
                Covers { log: self.log, first: *first as u64, last: *last as u64, oldest: *at, newest: *at };
            match &mut self.group.covers {
                Some(group) if group.newest == *at && group.last + 1 == covers.first => {
                    group.last = covers.last
                }
                _ => {
                    self.end_group()?;
                    self.group.covers = Some(covers);
                }
            }
            self.index.seeds.keys(batch, rows, &mut self.group.keys)?;
            self.hand_on()?;
        }
        Ok(())
    }

    /// Rows that turn out to be a delivery go into a run of their own.
    fn hand_on(&mut self) -> Result<()> {
        let Some(covers) = self.group.covers else { return Ok(()) };
        if !self.group.alone && (covers.last - covers.first) as usize >= DELIVERY {
            self.close()?;
            self.group.alone = true;
        }
        if self.group.alone {
            let keys = std::mem::take(&mut self.group.keys);
            self.grow(covers, keys)?;
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let Group { covers, keys, alone } = std::mem::take(&mut self.group);
        let Some(covers) = covers else { return Ok(()) };
        if alone {
            return self.close();
        }
        let together = |open: &Growing| {
            open.covers.newest / HOUR == covers.newest / HOUR && open.covers.last + 1 == covers.first
        };
        if !self.open.as_ref().is_some_and(together) {
            self.close()?;
        }
        self.grow(covers, keys)
    }

    /// Adds keys to the open run, which then covers these as well.
    fn grow(&mut self, covers: Covers, mut keys: Vec<Key>) -> Result<()> {
        let fail = |e| failed(&self.index.folder, e);
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let spill = Spill::begin(&self.index.folder).map_err(fail)?;
                none.insert(Growing { spill, keys: Vec::new(), covers })
            }
        };
        open.covers.last = covers.last;
        open.covers.oldest = open.covers.oldest.min(covers.oldest);
        open.covers.newest = open.covers.newest.max(covers.newest);
        open.keys.append(&mut keys);
        while open.keys.len() >= CHUNK_KEYS {
            let rest = open.keys.split_off(CHUNK_KEYS);
            open.spill.push(0, &open.keys).map_err(fail)?;
            open.keys = rest;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some(Growing { spill, keys, covers }) = self.open.take() else { return Ok(()) };
        spill.push(0, &keys).map_err(|e| failed(&self.index.folder, e))?;
        let draft = self.index.write(&spill.finish())?;
        self.index.add(draft, covers)
    }

    fn end(mut self) -> Result<()> {
        self.end_group()?;
        self.close()
    }
}

fn values<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Result<&'a PrimitiveArray<T>> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<T>());
    let column = column.filter(|column| column.null_count() == 0);
    column.ok_or_else(|| Error::Internal(format!("the log's rows have no {name}")))
}
