//! Compares a delivery's keys with the runs: slice by slice, in parallel.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use chrono::{DateTime, Utc};

use super::key::{Key, SLICES, sort};
use super::run::{Draft, Open};
use super::search::Search;
use super::spill::Spilled;
use sporlog_intake::import::Rows;
use sporlog_intake::{Error, Result};

/// The most threads; each has some megabytes of keys.
const MAX_THREADS: usize = 4;

/// The overlapping rows of a delivery, and the runs that have them.
#[derive(Debug, Clone, Default)]
pub struct Found {
    parts: Arc<BTreeMap<u64, Part>>,
    runs: Vec<Hit>,
    rows: u64,
}

/// A range of the log that has rows of the delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The first one's id.
    pub first_id: u64,
    /// The last one's id.
    pub last_id: u64,
    /// When the last one was received.
    pub received_at: DateTime<Utc>,
    /// How many rows of the delivery are among them.
    pub rows: u64,
}

/// A part of a delivery: the number of its rows, and a bit for each overlapping row.
#[derive(Debug, Clone)]
struct Part {
    rows: usize,
    bits: Vec<u64>,
}

/// Passes on the rows that do not overlap.
pub struct Filter {
    parts: Arc<BTreeMap<u64, Part>>,
    rest: Arc<dyn Rows>,
}

impl Found {
    /// Whether no row overlaps.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// How many rows of the delivery overlap.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The ranges that have them, oldest first. A row that is in several ranges counts in each.
    pub fn runs(&self) -> &[Hit] {
        &self.runs
    }

    /// Leaves the overlapping rows out of the same delivery, and passes the others to `rest`.
    pub fn filter(&self, rest: Arc<dyn Rows>) -> Filter {
        Filter { parts: self.parts.clone(), rest }
    }
}

impl Rows for Filter {
    fn rows(&self, part: u64, rows: RecordBatch) -> Result<RecordBatch> {
        let changed = || Error::Internal("the file is not the one that was compared".into());
        let found = self.parts.get(&part).ok_or_else(changed)?;
        if found.rows != rows.num_rows() {
            return Err(changed());
        }
        let rows = if found.bits.is_empty() {
            rows
        } else {
            let bit = |row: usize| found.bits.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1);
            let kept: BooleanArray = (0..found.rows).map(|row| Some(!bit(row))).collect();
            filter_record_batch(&rows, &kept).map_err(|e| Error::Internal(e.to_string()))?
        };
        self.rest.rows(part, rows)
    }
}

/// The overlapping rows found so far.
pub(super) struct Finding {
    parts: BTreeMap<u64, Part>,
    rows: u64,
}

impl Finding {
    pub fn begin(parts: &BTreeMap<u64, usize>) -> Self {
        let part = |(number, rows): (&u64, &usize)| (*number, Part { rows: *rows, bits: Vec::new() });
        Finding { parts: parts.iter().map(part).collect(), rows: 0 }
    }

    fn mark(&mut self, part: u64, row: usize) {
        let Some(part) = self.parts.get_mut(&part).filter(|part| row < part.rows) else { return };
        if part.bits.is_empty() {
            part.bits = vec![0; part.rows.div_ceil(64)];
        }
        if let Some(word) = part.bits.get_mut(row / 64) {
            let bit = 1 << (row % 64);
            self.rows += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    pub fn end(self, runs: Vec<Hit>) -> Found {
        Found { parts: Arc::new(self.parts), runs, rows: self.rows }
    }
}

/// Compares all keys with some runs, and writes `draft`, if there is one. Returns for each run how many rows it
/// has.
pub(super) fn pass(
    keys: &Spilled,
    runs: &[Open],
    draft: Option<&Draft>,
    finding: Option<&Mutex<Finding>>,
    folder: &Path,
) -> Result<Vec<u64>> {
    let failed = |source| Error::Read { name: folder.display().to_string(), source };
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || -> Result<Vec<u64>> {
        let mut counts = vec![0; runs.len()];
        let (ours, seen, search) = (Vec::new(), Vec::new(), Search::default());
        let mut worker = Worker { keys, runs, draft, finding, ours, seen, search };
        loop {
            let slice = next.fetch_add(1, Ordering::Relaxed);
            if slice >= SLICES || stop.load(Ordering::Relaxed) {
                return Ok(counts);
            }
            let groups = keys.groups(slice);
            let done = groups.into_iter().try_for_each(|group| worker.group(slice, group, &mut counts));
            if let Err(error) = done {
                stop.store(true, Ordering::Relaxed);
                return Err(failed(error));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut sums = vec![0; runs.len()];
        for thread in threads {
            let counts = thread.join().map_err(|_| Error::Internal("a thread panicked".into()))??;
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        Ok(sums)
    })
}

struct Worker<'a> {
    keys: &'a Spilled,
    runs: &'a [Open],
    draft: Option<&'a Draft>,
    finding: Option<&'a Mutex<Finding>>,
    ours: Vec<Key>,
    /// Which of our keys some run has.
    seen: Vec<bool>,
    search: Search,
}

impl Worker<'_> {
    fn group(&mut self, slice: usize, chunks: Range<usize>, counts: &mut [u64]) -> std::io::Result<()> {
        self.keys.load(slice, chunks, &mut self.ours)?;
        sort(&mut self.ours);
        if let Some(draft) = self.draft {
            draft.write(slice, &self.ours)?;
        }
        self.seen.clear();
        self.seen.resize(self.ours.len(), false);
        let mut hits = Vec::new();
        for (run, count) in self.runs.iter().zip(counts) {
            hits.clear();
            for block in run.blocks(slice) {
                self.search.find(run, block, &self.ours, &mut hits)?;
            }
            // A key may lie in several blocks of one run.
            hits.sort_unstable();
            hits.dedup();
            *count += hits.len() as u64;
            for hit in &hits {
                if let Some(seen) = self.seen.get_mut(*hit as usize) {
                    *seen = true;
                }
            }
        }
        let Some(finding) = self.finding else { return Ok(()) };
        let mut finding = finding.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in self.ours.iter().zip(&self.seen).filter(|(_, seen)| **seen) {
            if let Some((part, row)) = self.keys.place(key) {
                finding.mark(part, row);
            }
        }
        Ok(())
    }
}
