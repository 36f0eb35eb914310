//! Overlapping rows: which rows of a delivery the log has already received within the last days.
//!
//! ```text
//! prepare ─► KeyCollector: keys of the rows, on disk ─► compare: with the runs ─► Found
//!                                                                              │
//! commit  ─► keep: the keys become a run            prepare again, filtered ◄──┘ if rows are skipped
//! ```
//!
//! A row overlaps if the log has a row of the same system with the same `LogId`, or with the same
//! `TransaktionsId` where neither has a `LogId`, whichever way that row came in. Rows of one delivery are not
//! compared with each other.
//!
//! The index is derived from the log alone. It consists of [runs](run), each for a contiguous range of ids;
//! [`Index::catch_up`] makes missing runs. Deleting the folder loses nothing. Memory is a few megabytes for each
//! thread and a bit for each row, whatever the size of the delivery and of the log. Only one process at a time
//! may use a folder.
//!
//! | module | idea |
//! |---|---|
//! | `key` | the key of a row: hashes of its system and id |
//! | `collect_keys`, `spill` | the keys of a delivery, collected on disk while it is read |
//! | `run` | the keys of a range of ids, as a file |
//! | `compare`, `search` | which keys of a delivery the runs have |
//! | `catch_up` | runs for ids that have none, from the log |

mod catch_up;
mod collect_keys;
mod compare;
mod key;
mod run;
mod search;
mod spill;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

pub use collect_keys::{KeyCollector, Keys};
pub use compare::{Filter, Found, Hit};

use compare::{Finding, pass};
use key::Seeds;
use run::{Covers, Draft, FINISHED, Run, UNFINISHED};
use sporlog_intake::durable::make_folder;
use sporlog_intake::{Error, Result};

/// Limits on the runs that are compared at once: open files, and bytes in memory.
const OPEN_FILES: usize = 128;
const OPEN_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 16 << 20 };

/// The index of one log: the keys of all rows received within some days.
pub struct Index {
    folder: PathBuf,
    window: TimeDelta,
    seeds: Seeds,
    state: Mutex<State>,
    catching_up: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The runs by their first ids; their ranges do not overlap.
    runs: BTreeMap<u64, Arc<Run>>,
    /// A number for the log, once it is known.
    log: Option<u64>,
}

impl State {
    /// Whether a run covers any of these ids.
    fn covers(&self, first: u64, last: u64) -> bool {
        self.runs.range(..=last).next_back().is_some_and(|(_, run)| run.covers.last >= first)
    }
}

impl Index {
    /// Opens the index in `folder`, which is made if it is missing. Rows count for `days` after they were
    /// received. Damaged runs are removed, and made again by [`catch_up`](Index::catch_up). Blocks.
    pub fn open(folder: &Path, days: u32) -> Result<Self> {
        let failed = |source| Error::Read { name: folder.display().to_string(), source };
        make_folder(folder).map_err(failed)?;
        let seeds = Seeds::of(folder)?;
        let mut state = State::default();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.ends_with(FINISHED) {
                match Run::open(&path, &seeds).map_err(failed)? {
                    Some(run) if !state.covers(run.covers.first, run.covers.last) => {
                        state.runs.insert(run.covers.first, Arc::new(run));
                    }
                    _ => {
                        tracing::info!(run = %name.escape_debug(), "a file of the index of overlapping rows is damaged; it is made again from the log");
                        remove(&path)?;
                    }
                }
            } else if name.starts_with(UNFINISHED) {
                remove(&path)?;
            }
        }
        Ok(Index {
            folder: folder.to_owned(),
            window: TimeDelta::days(days.into()),
            seeds,
            state: Mutex::new(state),
            catching_up: tokio::sync::Mutex::default(),
        })
    }

    /// A collector of a delivery's keys, to be passed to [`prepare`](sporlog_intake::import::prepare).
    pub fn collect_keys(&self) -> Arc<KeyCollector> {
        Arc::new(KeyCollector::new(self.folder.clone(), self.seeds))
    }

    /// Which of the rows the log has, received within the window before `now`. The index has to have
    /// [caught up](Index::catch_up). A row that came in alone or with few others may count up to an hour longer
    /// than the window. Blocks.
    pub fn compare(&self, keys: &Keys, now: DateTime<Utc>) -> Result<Found> {
        let began = std::time::Instant::now();
        let compared = self.try_compare(keys, now);
        tracing::debug!(
            rows = keys.rows(),
            seconds = began.elapsed().as_secs_f64(),
            "compared with the index"
        );
        if compared.is_err() {
            // A damaged run is removed, so that the next catch-up makes it again.
            self.drop_damaged();
        }
        compared
    }

    fn try_compare(&self, keys: &Keys, now: DateTime<Utc>) -> Result<Found> {
        let finding = Finding::begin(&keys.parts);
        let Some(spilled) = &keys.spilled else { return Ok(finding.end(Vec::new())) };
        let finding = Mutex::new(finding);
        let from = (now - self.window).timestamp_micros();
        let mut runs = self.runs();
        runs.retain(|run| run.covers.newest >= from && run.systems.meet(&spilled.systems));
        let mut hits = Vec::new();
        let (mut rest, mut first) = (runs.as_slice(), true);
        while !rest.is_empty() {
            let (runs, others) = rest.split_at(open_together(rest));
            rest = others;
            let open = |run: &Arc<Run>| run.reader(&self.seeds).map_err(|e| failed(&run.path, e));
            let opened = runs.iter().map(open).collect::<Result<Vec<_>>>()?;
            // In the first pass the keys are sorted, so their own run is written along the way.
            let draft = if first { Some(self.draft()?) } else { None };
            first = false;
            let counts = pass(spilled, &opened, draft.as_ref(), Some(&finding), &self.folder)?;
            if draft.is_some() {
                *keys.draft.lock().unwrap_or_else(PoisonError::into_inner) = draft;
            }
            hits.extend(runs.iter().zip(counts).filter(|(_, rows)| *rows > 0).map(|(run, rows)| Hit {
                first_id: run.covers.first,
                last_id: run.covers.last,
                received_at: DateTime::from_timestamp_micros(run.covers.newest).unwrap_or_default(),
                rows,
            }));
        }
        Ok(finding.into_inner().unwrap_or_else(PoisonError::into_inner).end(hits))
    }

    /// Adds the keys of a delivery that was stored with these ids, so that they need not be read from the log.
    /// If this fails, or is not called, the next [`catch_up`](Index::catch_up) does it. Blocks, and syncs files.
    pub fn keep(&self, keys: Keys, first_id: u64, last_id: u64, received_at: DateTime<Utc>) -> Result<()> {
        let Some(log) = self.state().log.filter(|_| keys.rows() > 0) else { return Ok(()) };
        if last_id.checked_sub(first_id).map(|rows| rows + 1) != Some(keys.rows()) {
            tracing::warn!(
                "the number of rows stored is not the number of keys collected; the keys are read from the log"
            );
            return Ok(());
        }
        let received_at = received_at.timestamp_micros();
        let covers = Covers { log, first: first_id, last: last_id, oldest: received_at, newest: received_at };
        let draft = keys.draft.into_inner().unwrap_or_else(PoisonError::into_inner);
        let draft = match (draft, &keys.spilled) {
            (Some(draft), _) => draft,
            (None, Some(spilled)) => self.write(spilled)?,
            (None, None) => return Ok(()),
        };
        self.add(draft, covers)
    }

    /// Writes a run of these keys.
    fn write(&self, spilled: &spill::Spilled) -> Result<Draft> {
        let draft = self.draft()?;
        pass(spilled, &[], Some(&draft), None, &self.folder)?;
        Ok(draft)
    }

    fn draft(&self) -> Result<Draft> {
        Draft::begin(&self.folder).map_err(|e| failed(&self.folder, e))
    }

    /// Completes a run and adds it to the index, unless its ids are covered already.
    fn add(&self, draft: Draft, covers: Covers) -> Result<()> {
        let finished = draft.finish(&self.folder, covers, &self.seeds);
        let (file, run) = finished.map_err(|e| failed(&self.folder, e))?;
        let mut state = self.state();
        if !state.covers(covers.first, covers.last) {
            file.persist(&run.path).map_err(|e| failed(&run.path, e.error))?;
            state.runs.insert(covers.first, Arc::new(run));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> Vec<Arc<Run>> {
        self.state().runs.values().cloned().collect()
    }

    fn drop_damaged(&self) {
        let intact = |run: &Run| matches!(Run::open(&run.path, &self.seeds), Ok(Some(same)) if same == *run);
        for run in self.runs().iter().filter(|run| !intact(run)) {
            if let Err(error) = self.forget(run) {
                tracing::warn!(%error, "a damaged file of the index of overlapping rows cannot be removed");
            }
        }
    }

    fn forget(&self, run: &Run) -> Result<()> {
        self.state().runs.remove(&run.covers.first);
        remove(&run.path)
    }
}

/// How many of these runs may be open at once; at least one.
fn open_together(runs: &[Arc<Run>]) -> usize {
    let (mut bytes, mut files) = (0, 0);
    let fits = |run: &&Arc<Run>| {
        let cost = run.cost();
        (bytes, files) = (bytes + cost.0, files + cost.1);
        bytes <= OPEN_BYTES && files <= OPEN_FILES
    };
    runs.iter().take_while(fits).count().max(1).min(runs.len())
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Read { name: path.display().to_string(), source }
}

/// Removes a file, if it exists.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}
