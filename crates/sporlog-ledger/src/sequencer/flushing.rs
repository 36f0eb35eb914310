//! When the journal is put into the table, and how.
//!
//! Files of many records are written in the background while frames are appended; the commit then has just the last
//! records to write. A crash before the commit leaves the journal as it was, and perhaps files that nothing refers to;
//! after it, a segment of an earlier version, which the next flush removes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{LOOK, Sequencer};
use crate::delta::{DataFile, names_of};
use crate::error::{Error, Result};
use crate::flush::{take_over, write_file};
use crate::segment_objects::GRACE;

/// The journal goes into the table at once when it has so many records: they are in memory, and read anew when the log is
/// opened …
pub(super) const MOST_RECORDS: u64 = 64 << 10;
/// … or when all journals of the process have so many bytes, and it has its share of them.
const MOST_BYTES: u64 = 64 << 20;
const SHARE: u64 = 4 << 20;
/// What is larger, and comes at once, does not go through the journal.
pub(super) const LARGE_BYTES: usize = 32 << 20;
/// With at least so many records, a file of its own is worth while …
pub(super) const MANY_RECORDS: u64 = 4_096;
/// … after this time, in which more may come. Whoever reads the table alone is behind by it; and each flush leaves a commit
/// for good.
const KEEP_MANY: Duration = Duration::from_secs(5);
/// Fewer are kept so long: a log that gets a record a minute becomes a file an hour.
const KEEP_FEW: Duration = Duration::from_hours(1);
/// In a bucket each frame is an object, which whoever opens the log has to get.
const MOST_OBJECTS: u64 = 256;
/// After a failure, it is tried again after this time.
const PAUSE: Duration = Duration::from_secs(1);

/// Appends wait if a journal has so many records while files are written in the background, or all of them so many bytes,
/// and it has its share of them.
const TOO_MANY_RECORDS: u64 = 4 * MOST_RECORDS;
const TOO_MANY_BYTES: u64 = 2 * MOST_BYTES;

/// The bytes of all journals that this process appends to.
static BYTES_OF_ALL: AtomicU64 = AtomicU64::new(0);

/// What one journal adds to [`BYTES_OF_ALL`].
#[derive(Default)]
pub(super) struct CountedBytes(u64);

impl CountedBytes {
    fn set(&mut self, bytes: u64) {
        BYTES_OF_ALL.fetch_add(bytes, Ordering::Relaxed);
        BYTES_OF_ALL.fetch_sub(std::mem::replace(&mut self.0, bytes), Ordering::Relaxed);
    }
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Files of the journal's oldest records, written in the background.
pub(super) struct Encoding {
    /// The version of the table that the journal follows.
    version: u64,
    files: Vec<DataFile>,
    /// The next file, as long as it is being written.
    next: Option<JoinHandle<Result<DataFile>>>,
}

impl Sequencer {
    /// How long the journal may still grow; `None` if there is nothing in it.
    pub(super) fn until_flush(&self) -> Option<Duration> {
        let recent = &self.state.recent;
        let records = recent.records();
        if let Some(next) = self.encoding.as_ref().and_then(|encoding| encoding.next.as_ref()) {
            let wait = !next.is_finished() && !self.is_too_large();
            return Some(if wait { LOOK } else { Duration::ZERO });
        }
        if recent.is_empty() || self.stopped.is_some() {
            return None;
        }
        let keep = match records {
            MOST_RECORDS.. => Duration::ZERO,
            _ if recent.sealed || self.has_share_of(MOST_BYTES) => Duration::ZERO,
            _ if recent.extent.frames >= MOST_OBJECTS && self.shared.table.segments.are_sealed() => {
                Duration::ZERO
            }
            MANY_RECORDS.. => KEEP_MANY,
            _ => KEEP_FEW,
        };
        // If the clock went back, at once.
        let age = u64::try_from(chrono::Utc::now().timestamp_millis() - recent.since).unwrap_or(u64::MAX);
        let pause = self.flush_failed.map_or(Duration::ZERO, |at| PAUSE.saturating_sub(at.elapsed()));
        Some(keep.saturating_sub(Duration::from_millis(age)).max(pause))
    }

    /// Whether there is so much in the journal that nothing more is appended before it is in the table.
    pub(super) fn is_too_large(&self) -> bool {
        self.state.recent.records() >= TOO_MANY_RECORDS || self.has_share_of(TOO_MANY_BYTES)
    }

    /// Whether all journals have so many bytes, and this one its share of them.
    fn has_share_of(&self, bytes: u64) -> bool {
        self.state.recent.bytes >= SHARE && BYTES_OF_ALL.load(Ordering::Relaxed) >= bytes
    }

    /// Puts the journal into the table if it is time. The records are stored already: a failure is tried again.
    pub(super) fn flush_if_due(&mut self) {
        self.counted.set(self.state.recent.bytes);
        if self.until_flush() != Some(Duration::ZERO) {
            return;
        }
        let files = self.written_in_background();
        if self.stopped.is_some() || self.flush_failed.is_some_and(|at| at.elapsed() < PAUSE) {
            return self.discard(names_of(&files));
        }
        let written: u64 = files.iter().map(DataFile::rows).sum();
        let records = self.state.recent.records();
        let is_large = files.is_empty() && self.state.recent.bytes >= SHARE;
        let many = records - written >= MANY_RECORDS || is_large;
        let next = (many && !self.is_too_large()).then(|| self.write_in_background(&files));
        let goes_on = next.is_some();
        self.encoding = Some(Encoding { version: self.state.version, files, next });
        if goes_on {
            return;
        }
        self.flush_failed = match self.lock().and_then(|()| self.flush()) {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(log = %self.shared.name, %error, "the newest records could not be put into the table; it is tried again");
                Some(Instant::now())
            }
        };
    }

    /// Writes the records of the journal after those in `files`.
    fn write_in_background(&self, files: &[DataFile]) -> JoinHandle<Result<DataFile>> {
        let records = self.state.recent.after(files.last().map_or(0, |file| file.last));
        let (shared, runtime) = (self.shared.clone(), self.runtime.clone());
        self.runtime.spawn_blocking(move || runtime.block_on(write_file(&shared, &records)))
    }

    /// The files that were written in the background, if they are of the journal as it is now. Waits for the last.
    fn written_in_background(&mut self) -> Vec<DataFile> {
        let Some(Encoding { version, mut files, next }) = self.encoding.take() else { return Vec::new() };
        if let Some(next) = next {
            let written = self.runtime.block_on(next);
            match written.map_err(|e| Error::failed(&self.shared.name, e)).and_then(|written| written) {
                Ok(file) => files.push(file),
                // Its records are written once more.
                Err(error) => {
                    self.flush_failed = Some(Instant::now());
                    tracing::warn!(log = %self.shared.name, %error, "the newest records could not be written to a file");
                }
            }
        }
        if version != self.state.version {
            self.discard(names_of(&files));
            files.clear();
        }
        files
    }

    /// Puts the journal into the table, under the writer lock. In a bucket, others may have appended since.
    pub(super) fn flush(&mut self) -> Result<()> {
        while !self.state.recent.is_empty() {
            self.take_over()?;
        }
        Ok(())
    }

    /// Puts the journal into the table as [`flush`](Self::flush) does, but leaves a journal that has nothing except a seal.
    pub(super) fn flush_records(&mut self) -> Result<()> {
        while !self.state.recent.is_bare() {
            self.take_over()?;
        }
        Ok(())
    }

    /// Commits the change that [`flush::take_over`](take_over) makes of the journal, unless another process is first.
    fn take_over(&mut self) -> Result<()> {
        self.seal()?;
        let files = self.written_in_background();
        let written = names_of(&files);
        let positions = self.shared.positions().journal.clone();
        let change = take_over(&self.shared, &self.state, &positions, files);
        let change = self.runtime.block_on(change).inspect_err(|_| self.discard(written))?;
        let written = names_of(&change.added);
        let committed = self.commit_next(change);
        match committed {
            Ok(true) => self.remove_dead_segments(),
            // What is left is begun anew.
            Ok(false) | Err(_) => self.discard(written),
        }
        committed.map(drop)
    }

    /// Many records are put into the table before the end; few are found in the journal when the log is opened.
    pub(super) fn flush_before_the_end(&mut self) {
        if self.state.recent.records() >= MANY_RECORDS
            && self.stopped.is_none()
            && let Err(error) = self.lock().and_then(|()| self.flush())
        {
            tracing::warn!(log = %self.shared.name, %error, "the newest records are left in the journal");
        }
        let files = self.written_in_background();
        self.discard(names_of(&files));
    }

    /// Removes the segments whose frames the table has.
    fn remove_dead_segments(&mut self) {
        let segments = &self.shared.table.segments;
        // They go after some time, and each look costs a request.
        if segments.are_sealed() && self.swept.is_some_and(|at| at.elapsed() < GRACE) {
            return;
        }
        self.swept = Some(Instant::now());
        if let Err(error) = self.runtime.block_on(segments.remove_before(self.state.version)) {
            tracing::warn!(log = %self.shared.name, %error, "a segment of the journal that the table has is left behind");
        }
    }
}
