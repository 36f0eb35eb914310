//! The records of the journal in memory, and one word for where records are: in a data file, or there.
//!
//! Frames may be of a record each. Their rows are put together as they come, eight neighbours at a time, so that
//! there are few batches, and a row is copied but a few times.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use crate::commit::TakenOver;
use crate::delta::{DataFile, Sha};
use crate::error::{Error, Result};
use crate::journal::{Extent, Frame, JOURNAL};
use crate::times::Times;

/// So many neighbours of about one size are put together.
const NEIGHBOURS: usize = 8;

/// Some neighbouring records of the journal.
#[derive(Debug)]
pub(crate) struct RecentRows {
    pub first: u64,
    pub last: u64,
    /// Columns of the table.
    pub rows: RecordBatch,
    /// The earliest and latest `occurred_at` and `received_at`, in microseconds.
    pub occurred: Option<(i64, i64)>,
    pub received: (i64, i64),
}

impl RecentRows {
    /// These rows, the first of which has the id `first`; `None` if there are none.
    fn new(first: u64, rows: RecordBatch) -> Option<Self> {
        let Times { occurred, received } = Times::of(&rows);
        let last = first + rows.num_rows() as u64 - 1;
        received.map(|received| RecentRows { first, last, rows, occurred, received })
    }

    /// The power of [`NEIGHBOURS`] that this many rows are.
    fn tier(&self) -> u32 {
        (self.last + 1 - self.first).ilog(NEIGHBOURS as u64)
    }
}

/// The records that are in the journal and not in the table yet.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    /// How far the segment goes.
    pub extent: Extent,
    /// When the first frame was made, in milliseconds UTC.
    pub since: i64,
    /// Whether nothing may be appended any more.
    pub sealed: bool,
    /// What the rows take in memory.
    pub bytes: u64,
    /// In the order of their ids.
    parts: Vec<Arc<RecentRows>>,
}

impl Recent {
    /// None after the commit of `version`, after which the chain is `chain`.
    pub(crate) fn none(version: u64, chain: Sha) -> Self {
        Recent {
            extent: Extent::none(version, chain),
            since: i64::MAX,
            sealed: false,
            bytes: 0,
            parts: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.extent.frames == 0
    }

    /// Whether there is no frame but a seal.
    pub(crate) fn is_bare(&self) -> bool {
        self.extent.frames == u64::from(self.sealed)
    }

    pub(crate) fn parts(&self) -> &[Arc<RecentRows>] {
        &self.parts
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.parts.iter().map(|part| part.last + 1 - part.first).sum()
    }

    /// What the commit states that takes these over; `None` if there are none.
    pub(crate) fn taken_over(&self) -> Option<TakenOver> {
        let Extent { frames, chain, .. } = &self.extent;
        (!self.is_empty()).then(|| TakenOver::new(*frames, chain))
    }

    /// Adds `frame`, with which the segment goes as far as `after`.
    pub(crate) fn push(&mut self, frame: &Frame, after: Extent) -> Result<()> {
        if self.sealed {
            return Err(Error::damaged(after.name(), format!("its frame {} follows a seal", after.frames)));
        }
        (self.extent, self.sealed) = (after, frame.seal);
        self.since = self.since.min(frame.at);
        let first = frame.size + 1 - frame.rows.num_rows() as u64;
        let Some(rows) = RecentRows::new(first, frame.rows.clone()) else { return Ok(()) };
        for column in rows.rows.columns() {
            self.bytes += column.to_data().get_slice_memory_size()? as u64;
        }
        self.parts.push(Arc::new(rows));
        while let Some(newest) = self.parts.last().map(|part| part.tier()) {
            let small = self.parts.iter().rev().take_while(|part| part.tier() <= newest).count();
            if small < NEIGHBOURS {
                break;
            }
            let small = self.parts.split_off(self.parts.len() - small);
            self.parts.extend(together(&small)?);
        }
        Ok(())
    }

    /// The records with ids above `after`.
    pub(crate) fn after(&self, after: u64) -> Vec<Arc<RecentRows>> {
        let later = |part: &Arc<RecentRows>| match (after + 1).checked_sub(part.first) {
            None | Some(0) => Some(part.clone()),
            Some(skip) => {
                let (skip, rows) = (skip as usize, part.rows.num_rows());
                let rest = (skip < rows).then(|| part.rows.slice(skip, rows - skip));
                RecentRows::new(after + 1, rest?).map(Arc::new)
            }
        };
        self.parts.iter().filter_map(later).collect()
    }
}

/// These neighbours as one.
fn together(parts: &[Arc<RecentRows>]) -> Result<Option<Arc<RecentRows>>> {
    let [oldest, .., newest] = parts else { return Ok(parts.first().cloned()) };
    let rows = concat_batches(&oldest.rows.schema(), parts.iter().map(|part| &part.rows))?;
    let Times { occurred, received } = times_of(parts);
    let received = received.unwrap_or(oldest.received);
    Ok(Some(Arc::new(RecentRows { first: oldest.first, last: newest.last, rows, occurred, received })))
}

/// The earliest and latest times of all of these.
pub(crate) fn times_of(parts: &[Arc<RecentRows>]) -> Times {
    let times = |part: &Arc<RecentRows>| Times { occurred: part.occurred, received: Some(part.received) };
    parts.iter().map(times).fold(Times::default(), Times::and)
}

/// Where some neighbouring records are.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    File(Arc<DataFile>),
    Recent(Arc<RecentRows>),
}

impl Part {
    /// The first record's id.
    pub(crate) fn first(&self) -> u64 {
        match self {
            Part::File(file) => file.first,
            Part::Recent(rows) => rows.first,
        }
    }

    /// The last record's id; all between are there.
    pub(crate) fn last(&self) -> u64 {
        match self {
            Part::File(file) => file.last,
            Part::Recent(rows) => rows.last,
        }
    }

    /// How many records there are.
    pub(crate) fn rows(&self) -> u64 {
        self.last() + 1 - self.first()
    }

    /// The earliest and latest `received_at`, in microseconds UTC.
    pub(crate) fn received(&self) -> (i64, i64) {
        match self {
            Part::File(file) => file.received,
            Part::Recent(rows) => rows.received,
        }
    }

    /// The data file, if it has a key index.
    pub(crate) fn indexed(&self) -> Option<&Arc<DataFile>> {
        match self {
            Part::File(file) => Some(file).filter(|file| file.index.is_some()),
            Part::Recent(_) => None,
        }
    }

    /// The file, for errors.
    pub(crate) fn name(&self) -> String {
        match self {
            Part::File(file) => file.name(),
            Part::Recent(_) => JOURNAL.to_owned(),
        }
    }

    /// Whether something here may have happened from `from` on and before `to` (local times in microseconds).
    /// Where the range of times is not known, it may.
    pub(crate) fn may_have_within(&self, from: Option<i64>, to: Option<i64>) -> bool {
        let occurred = match self {
            Part::File(file) => file.occurred,
            Part::Recent(rows) => rows.occurred,
        };
        occurred.is_none_or(|(earliest, latest)| {
            from.is_none_or(|from| latest >= from) && to.is_none_or(|to| earliest < to)
        })
    }
}
