//! How waiting requests become records: numbered, committed to, and appended as one frame or commit.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use arrow::compute::concat_batches;
use chrono::Utc;
use tokio::sync::mpsc;

use super::{Sequencer, flushing};
use crate::commit::{Change, Position};
use crate::delta::{month_of, names_of};
use crate::error::{Error, Result};
use crate::flush::write_file;
use crate::journal::{Failed, Frame};
use crate::recent::RecentRows;
use crate::segment::is_trusted;
use crate::table_state::Sources;
use crate::writer::{Advance, Answer, Append, Appended, Command, Outcome};

/// Why an append is given up whose frame may be in a segment that is gone.
const TOO_LATE: &str = "the store took too long to answer";

/// A request to append, and who waits for what becomes of it.
pub(super) struct Waiting {
    pub append: Append,
    pub answer: Answer<Outcome>,
}

impl Sequencer {
    /// Appends the waiting requests as one commit, and answers them.
    pub(super) fn append(&mut self, mut waiting: Vec<Waiting>) {
        loop {
            let (mut fresh, mut doubles) = self.answer_known(waiting);
            if fresh.is_empty() {
                return;
            }
            let began = Instant::now();
            let appended = self.append_fresh(&fresh);
            let records = fresh.iter().map(|request| request.append.rows.num_rows() as u64).sum();
            let stored = matches!(appended, Ok(Some(_)));
            match self.measured(records, began, stored, appended) {
                Ok(Some(appended)) => {
                    let mut first = appended.first;
                    for request in fresh {
                        let last = first + request.append.rows.num_rows() as u64 - 1;
                        let appended = Appended { first, last, ..appended };
                        let _ = request.answer.send(Ok(Outcome::Appended(appended)));
                        first = last + 1;
                    }
                    // Now it is true that theirs are there.
                    waiting = doubles;
                }
                // Somebody else has appended, and we are to take turns: number it anew.
                Ok(None) => {
                    fresh.append(&mut doubles);
                    waiting = fresh;
                }
                Err(error) => {
                    let text = error.to_string();
                    let mut error = Some(error);
                    for request in fresh.into_iter().chain(doubles) {
                        let again = || Error::failed(&self.shared.name, &text);
                        let _ = request.answer.send(Err(error.take().unwrap_or_else(again)));
                    }
                    return;
                }
            }
        }
    }

    /// Answers requests whose positions have been taken in already, and gives the others back:
    /// those to be appended, and those that move the same positions. The latter can only be
    /// answered when the former are stored.
    fn answer_known(&self, waiting: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
        let (mut fresh, mut doubles) = (Vec::with_capacity(waiting.len()), Vec::new());
        let mut claimed = HashSet::new();
        for request in waiting {
            let positions = &request.append.positions;
            if positions.iter().any(|(app, _)| claimed.contains(app)) {
                doubles.push(request);
            } else if let Some((app, position)) = self.known(positions) {
                let _ = request.answer.send(Ok(Outcome::AlreadyThere { app, position }));
            } else {
                claimed.extend(positions.iter().map(|(app, _)| app.clone()));
                fresh.push(request);
            }
        }
        (fresh, doubles)
    }

    /// A position that cannot be moved so, because it has been moved already.
    pub(super) fn known(&self, positions: &[(String, Advance)]) -> Option<(String, Position)> {
        let stored = self.shared.positions();
        positions.iter().find_map(|(app, advance)| {
            let there = stored.get(app);
            let nowhere = Position { version: -1, at: 0 };
            (!advance.possible(there.map(|there| there.version)))
                .then(|| (app.clone(), there.unwrap_or(nowhere)))
        })
    }

    /// Counts a commit of records and how long it took, for those who watch.
    pub(super) fn measured<T>(
        &self,
        records: u64,
        began: Instant,
        stored: bool,
        result: Result<T>,
    ) -> Result<T> {
        let log = self.shared.name.to_string();
        if stored {
            metrics::histogram!("sporlog_commit_seconds", "log" => log.clone()).record(began.elapsed());
            metrics::histogram!("sporlog_commit_records", "log" => log.clone()).record(records as f64);
        }
        if stored || result.is_err() {
            let outcome = if stored { "ok" } else { "failed" };
            metrics::counter!("sporlog_commits_total", "log" => log, "outcome" => outcome).increment(1);
        }
        result
    }

    /// One frame, or commit, of all these requests. `None` when others have written and this writer takes
    /// turns: then nothing is stored, and the numbers are others'.
    fn append_fresh(&mut self, requests: &[Waiting]) -> Result<Option<Appended>> {
        self.check_running()?;
        let extent = self.state.recent.extent.clone();
        self.lock()?;
        let in_bucket = self.shared.table.segments.are_sealed();
        self.pause_after_turn();
        self.look_again()?;
        if self.state.recent.sealed || self.is_too_large() {
            self.flush()?;
        }
        self.check_turn()?;
        if self.follow_others()? || self.state.recent.extent != extent {
            return Ok(None);
        }
        let batches = requests.iter().map(|r| &r.append.rows);
        let rows = concat_batches(&self.shared.kind.row_schema(), batches)
            .map_err(|e| Error::Columns(e.to_string()))?;
        let first = self.state.size + 1;
        let received_at = self.clock.receive(&self.shared.name);
        // Records of different months become different files, so that each month can expire.
        let month = self.state.recent.parts().first().map(|part| month_of(part.received.0));
        if month.is_some_and(|month| month != month_of(received_at)) {
            self.flush()?;
            return Ok(None);
        }
        let numbered = self.committer.number_and_commit(&rows, first, received_at)?;
        let mut tree = self.tree.clone();
        let full = tree.push_all(&numbered.entries);

        let mut positions = Vec::new();
        let (mut next, at) = (first, chrono::Utc::now().timestamp_millis());
        for Append { rows, positions: advances } in requests.iter().map(|r| &r.append) {
            let moved = |(app, advance): &(String, Advance)| {
                (app.clone(), Position { version: advance.arrives(next), at })
            };
            positions.extend(advances.iter().map(moved));
            next += rows.num_rows() as u64;
        }
        let seal = false;
        let frame = Frame { rows: numbered.batch, positions, size: tree.size(), root: tree.root(), at, seal };
        let is_large = rows.num_rows() as u64 >= flushing::MOST_RECORDS
            || rows.get_array_memory_size() >= flushing::LARGE_BYTES;
        let stored = if (in_bucket || self.lock.is_some()) && !is_large {
            self.append_frame(&frame)
        } else {
            self.append_file(frame, received_at, numbered.occurred)
        };
        if !stored? {
            return Ok(None);
        }
        self.tree = tree;
        self.add_full_tiles(full);
        Ok(Some(Appended { first, last: self.state.size, received_at }))
    }

    /// Appends `frame` to the journal. False, and nothing is stored, if others have written meanwhile.
    pub(super) fn append_frame(&mut self, frame: &Frame) -> Result<bool> {
        let shared = self.shared.clone();
        let extent = &self.state.recent.extent;
        if extent.frames == 0 && self.lock.is_some() {
            // The lock may be held since before the log was put back to an older copy. A later frame finds the one
            // before it missing.
            self.runtime.block_on(shared.table.check_newest(&self.state))?;
        }
        // A disk takes the bytes sooner than they are compressed.
        let (bytes, after) =
            frame.encode(&self.committer.keys, extent, shared.table.segments.are_sealed())?;
        let (began, known_at) = (Instant::now(), Utc::now());
        match self.runtime.block_on(shared.table.segments.append(extent, bytes)) {
            Ok(()) if shared.table.segments.are_sealed() && !is_trusted(self.known_at) => {
                return Err(self.unsure(Error::failed(&shared.name, TOO_LATE)));
            }
            Ok(()) => {
                self.known_at = known_at;
                if shared.table.segments.are_sealed() {
                    self.count_frame(began.elapsed());
                }
            }
            Err(Failed::Taken) => return self.catch_up().map(|()| false),
            Err(Failed::Cleanly(error)) => return Err(error),
            Err(Failed::Unsure(error)) => return Err(self.unsure(error)),
        }
        self.state.push(frame, after).map_err(|error| self.poison(error))?;
        self.ours += frame.rows.num_rows() as u64;
        let journal = frame.positions.iter().cloned().collect();
        self.moved_on(Sources { journal, ..Sources::default() });
        Ok(true)
    }

    /// Commits the records of `frame` as a file of the table. False, and nothing is stored, if others have written
    /// meanwhile.
    fn append_file(&mut self, frame: Frame, received_at: i64, occurred: Option<(i64, i64)>) -> Result<bool> {
        let Frame { rows, positions, size, root, .. } = frame;
        let mut change = Change { positions, appended: Some((size, root)), ..Change::default() };
        if rows.num_rows() > 0 {
            let (first, received) = (self.state.size + 1, (received_at, received_at));
            let records = Arc::new(RecentRows { first, last: size, rows, occurred, received });
            change.added.push(self.runtime.block_on(write_file(&self.shared, &[records]))?);
        }
        let written = names_of(&change.added);
        let committed = self.commit(change);
        if !matches!(committed, Ok(true)) {
            self.discard(written);
        }
        committed
    }
}

/// Takes further waiting requests, as many as go well into one commit.
pub(super) fn batch_with(
    first: Waiting,
    commands: &mut mpsc::Receiver<Command>,
    held: &mut VecDeque<Command>,
) -> Vec<Waiting> {
    let size = |w: &Waiting| (w.append.rows.num_rows(), w.append.rows.get_array_memory_size());
    let (mut rows, mut bytes) = size(&first);
    let mut batch = vec![first];
    while rows < flushing::MOST_RECORDS as usize && bytes < flushing::LARGE_BYTES {
        match commands.try_recv() {
            Ok(Command::Append(append, answer)) => {
                let request = Waiting { append, answer };
                let (more_rows, more_bytes) = size(&request);
                (rows, bytes) = (rows + more_rows, bytes + more_bytes);
                batch.push(request);
            }
            Ok(other) => {
                held.push_back(other);
                break;
            }
            Err(_) => break,
        }
    }
    batch
}
