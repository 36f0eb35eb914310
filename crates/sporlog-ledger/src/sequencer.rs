//! The one that appends: a thread per log, and the whole life of a batch from top to bottom.
//!
//! The sequencer takes the rows that wait, numbers them, commits to them, writes a Parquet file and commits one
//! version of the table. The records are stored when that commit is: the callers are answered, and
//! the tiles and the checkpoint follow. After a crash in between, the next sequencer
//! derives them from the table.
//!
//! A bulk append ([`crate::bulk`]) borrows the log for as long as it lasts and comes back with
//! files that are already written; only the commit is made here.
//!
//! Everything in [`Sequencer`] belongs to its thread. Readers see only what it sends to
//! [`Shared::state`].

mod housekeeping;
mod other_writers;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::compute::concat_batches;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::OptionFuture;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::clock::WatchedClock;
use crate::commit::{Change, Position};
use crate::datafile;
use crate::delta::{DataFile, names_of};
use crate::error::{Error, Result};
use crate::high_water_mark::MarkFile;
use crate::keyindex;
use crate::log::{Log, Shared};
use crate::recover::{Recovered, recover};
use crate::row_commitments::RowCommitter;
use crate::table_state::TableState;
use crate::tlog::Publisher;
use crate::tree::Tree;
use crate::writer::{
    Advance, Answer, Append, Appended, BulkGrant, BulkResult, Command, Outcome, Writer, WriterOptions,
};

/// Requests that may wait before senders have to.
const QUEUE: usize = 1_024;
/// Rows and bytes that go into one commit of waiting requests.
const BATCH_ROWS: usize = 64 << 10;
const BATCH_BYTES: usize = 64 << 20;
/// A checkpoint follows when nothing has come for so long …
const PUBLISH_IDLE: Duration = Duration::from_millis(5);
/// … and the last one was so long ago …
const PUBLISH_PAUSE: Duration = Duration::from_millis(100);
/// … and at the latest after so long.
const PUBLISH_DELAY: Duration = Duration::from_millis(200);
/// Commits between Delta checkpoints, from which the table opens at once; and the time between them,
/// since each takes as long as many commits.
const CHECKPOINT_EVERY: usize = 256;
/// A checkpoint holds all files and all positions of sources. Where these are many, it follows after a share
/// of that number of commits, so that what checkpoints cost grows with the log and no faster.
const CHECKPOINT_SHARE: usize = 16;
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(10);
/// Commits between looks for small files to merge.
const MERGE_EVERY: u64 = 32;

struct Waiting {
    append: Append,
    answer: Answer<Outcome>,
}

pub(crate) struct Sequencer {
    shared: Arc<Shared>,
    options: WriterOptions,
    runtime: Handle,
    committer: RowCommitter,
    state: TableState,
    tree: Tree,
    publisher: Publisher,
    /// How far the log has been signed, beside its key.
    mark: MarkFile,
    /// Files that a commit of any process has said are deleted, since this sequencer began. What is
    /// still being written under such a name must not be committed any more.
    discarded: HashSet<String>,
    /// When the oldest commit that is not published yet was made.
    unpublished: Option<Instant>,
    /// When it was last published, and when a Delta checkpoint was last begun.
    published: Option<Instant>,
    checkpointed: Option<Instant>,
    /// Commits since this sequencer began, and since a Delta checkpoint was last begun.
    commits: u64,
    unchecked: usize,
    /// Whether files are being merged.
    merging: Arc<AtomicBool>,
    /// What times of receipt are taken from.
    clock: WatchedClock,
    /// For background work to report back with, without keeping the sequencer alive.
    myself: mpsc::WeakSender<Command>,
    /// Why this sequencer no longer appends.
    stopped: Option<String>,
    /// Whether its last commit may be stored, so that its files have to stay.
    unsure: bool,
}

impl Sequencer {
    /// Starts the sequencer of `log`. What a crash left undone is done first.
    pub(crate) async fn start(log: Log, options: WriterOptions) -> Result<Writer> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let sequencer = Sequencer::open(log.shared.clone(), options, sender.downgrade()).await?;
        let spawned = std::thread::Builder::new()
            .name(format!("sequencer-{}", log.name()))
            .spawn(move || sequencer.run(receiver));
        spawned.map_err(|source| Error::Io { what: "starting the sequencer".into(), source })?;
        Ok(Writer::new(log, sender))
    }

    async fn open(
        shared: Arc<Shared>,
        options: WriterOptions,
        myself: mpsc::WeakSender<Command>,
    ) -> Result<Self> {
        let keys = Log { shared: shared.clone() }.keys()?.clone();
        let committer = RowCommitter { log: shared.name.clone(), kind: shared.kind, keys };
        let Recovered { state, tree, publisher, mark, newest_receipt } = recover(&shared, &committer).await?;
        let clock = WatchedClock::new(shared.clock, newest_receipt);
        Ok(Sequencer {
            shared,
            options,
            runtime: Handle::current(),
            committer,
            state,
            tree,
            publisher,
            mark,
            discarded: HashSet::new(),
            unpublished: Some(Instant::now()),
            published: None,
            checkpointed: None,
            commits: 0,
            unchecked: 0,
            merging: Arc::default(),
            clock,
            myself,
            stopped: None,
            unsure: false,
        })
    }

    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut held = VecDeque::new();
        while let Some(command) = self.next(&mut commands, &mut held) {
            match command {
                Command::Append(append, answer) => {
                    let batch = batch_with(Waiting { append, answer }, &mut commands, &mut held);
                    self.append(batch);
                }
                Command::Bulk(answer) => self.bulk(answer),
                Command::Replace(change, answer) => {
                    let _ = answer.send(self.replace(*change));
                }
                Command::Expire(month, answer) => {
                    let _ = answer.send(self.expire(&month));
                }
                Command::CleanUp(left, answer) => {
                    let _ = answer.send(self.clean_up(left));
                }
                Command::DeltaCheckpoint(file) => {
                    self.publisher.set_delta_checkpoint(file);
                    self.unpublished.get_or_insert_with(Instant::now);
                }
                Command::Close(answer) => {
                    self.wait_for_checkpoint(&mut commands, &mut held);
                    let _ = answer.send(self.publish());
                    return;
                }
            }
        }
        let _ = self.publish();
    }

    /// The next command; publishes while there is none.
    fn next(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        held: &mut VecDeque<Command>,
    ) -> Option<Command> {
        loop {
            let due = self.unpublished.is_some_and(|since| since.elapsed() >= PUBLISH_DELAY);
            if due && let Err(error) = self.publish() {
                tracing::error!(log = %self.shared.name, %error, "publishing failed; it is tried again");
            }
            if let Some(command) = held.pop_front() {
                return Some(command);
            }
            if self.unpublished.is_none() {
                return commands.blocking_recv();
            }
            let pause =
                self.published.map_or(Duration::ZERO, |at| PUBLISH_PAUSE.saturating_sub(at.elapsed()));
            let idle = async { tokio::time::timeout(pause.max(PUBLISH_IDLE), commands.recv()).await };
            match self.runtime.block_on(idle) {
                Ok(command) => return command,
                Err(_) => {
                    if let Err(error) = self.publish() {
                        tracing::error!(log = %self.shared.name, %error, "publishing failed; it is tried again");
                        // Not at once: whatever ails the store will need a moment.
                        std::thread::sleep(PUBLISH_DELAY);
                    }
                }
            }
        }
    }

    /// Appends the waiting requests as one commit, and answers them.
    fn append(&mut self, mut waiting: Vec<Waiting>) {
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
    fn known(&self, positions: &[(String, Advance)]) -> Option<(String, Position)> {
        let stored = self.shared.positions();
        positions.iter().find_map(|(app, advance)| {
            let there = stored.get(app).copied();
            let nowhere = Position { version: -1, at: 0 };
            (!advance.possible(there.map(|there| there.version)))
                .then(|| (app.clone(), there.unwrap_or(nowhere)))
        })
    }

    /// Counts a commit of records and how long it took, for those who watch.
    fn measured<T>(&self, records: u64, began: Instant, stored: bool, result: Result<T>) -> Result<T> {
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

    /// One commit of all these requests. `None` when others have appended and this writer takes
    /// turns: then nothing is stored, and the numbers are others'.
    fn append_fresh(&mut self, requests: &[Waiting]) -> Result<Option<Appended>> {
        self.check_running()?;
        if self.follow_others()? {
            return Ok(None);
        }
        let batches = requests.iter().map(|r| &r.append.rows);
        let rows = concat_batches(&self.shared.kind.row_schema(), batches)
            .map_err(|e| Error::Columns(e.to_string()))?;
        let first = self.state.size + 1;
        let received_at = self.clock.receive(&self.shared.name);
        let numbered = self.committer.number_and_commit(&rows, first, received_at)?;
        let mut tree = self.tree.clone();
        let mut full = Vec::new();
        numbered.entries.iter().for_each(|(entry, leaf)| tree.push(entry, leaf, &mut |file| full.push(file)));

        let (mut added, mut write) = (Vec::new(), None);
        if rows.num_rows() > 0 {
            let bytes = datafile::encode(self.shared.kind, &numbered.batch)
                .map_err(Error::parquet("a new data file"))?;
            let mut file = DataFile::new(first, tree.size(), received_at);
            file.occurred = numbered.occurred;
            (file.size, file.sha256) = (bytes.len() as u64, Sha256::digest(&bytes).into());
            if file.rows() >= keyindex::MIN_ROWS {
                let Shared { storage, kind, .. } = &*self.shared;
                self.runtime.block_on(keyindex::write(storage, *kind, &mut file, numbered.postings))?;
            }
            write = Some((file.name(), bytes));
            added.push(file);
        }
        let written = names_of(&added);
        let storage = self.shared.storage.clone();
        let write = write.map(async |(name, bytes): (String, Bytes)| storage.put_unknown(&name, bytes).await);
        let write = OptionFuture::from(write).map(|written| written.unwrap_or(Ok(())));
        let mut positions = Vec::new();
        let mut next = first;
        for Append { rows, positions: advances } in requests.iter().map(|r| &r.append) {
            positions.extend(advances.iter().map(|(app, advance)| (app.clone(), advance.arrives(next))));
            next += rows.num_rows() as u64;
        }
        let change =
            Change { added, positions, appended: Some((tree.size(), tree.root())), ..Change::default() };
        let committed = self.commit_after(write, change);
        if !matches!(committed, Ok(true)) {
            self.discard(written);
            return committed.map(|_| None);
        }
        self.tree = tree;
        self.write_full_tiles(full);
        Ok(Some(Appended { first, last: self.state.size, received_at }))
    }

    /// The state has moved on, and these positions with it: readers may see it, and it is to be
    /// published.
    fn committed(&mut self, moved: impl IntoIterator<Item = (String, Position)>) {
        self.shared.advance(self.state.clone(), moved);
        if let Err(error) = self.mark.write(&(&self.state).into()) {
            tracing::error!(log = %self.shared.name, %error, "what has been signed could not be remembered");
        }
        self.unpublished.get_or_insert_with(Instant::now);
        self.commits += 1;
        self.unchecked += 1;
        if self.delta_checkpoint_is_due() {
            self.shared.forget_old();
            (self.checkpointed, self.unchecked) = (Some(Instant::now()), 0);
            self.in_background("writing a Delta checkpoint", |writer| {
                // Cloned at once: closing waits for whoever has one.
                let turn = writer.log().shared.checkpointing.clone();
                async move { writer.delta_checkpoint(turn).await }
            });
        }
        if self.commits.is_multiple_of(MERGE_EVERY) && !self.merging.swap(true, Ordering::AcqRel) {
            let merging = self.merging.clone();
            self.in_background("merging small files", |writer| async move {
                let merged = writer.compact_tiers().await;
                merging.store(false, Ordering::Release);
                merged
            });
        }
    }

    fn delta_checkpoint_is_due(&self) -> bool {
        let entries = self.state.files.len() + self.shared.positions().len();
        self.unchecked >= CHECKPOINT_EVERY.max(entries / CHECKPOINT_SHARE)
            && self.checkpointed.is_none_or(|at| at.elapsed() >= CHECKPOINT_PAUSE)
    }

    /// Work that reports back as any other caller does; it does not keep the sequencer alive.
    fn in_background<F>(&self, what: &'static str, work: impl FnOnce(Writer) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let Some(sender) = self.myself.upgrade() else { return };
        let log = Log { shared: self.shared.clone() };
        let name = self.shared.name.clone();
        let work = work(Writer::new(log, sender));
        self.runtime.spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(log = %name, %error, "{what} failed");
            }
        });
    }

    /// Tiles that have become full are written ahead of the checkpoint.
    fn write_full_tiles(&mut self, full: Vec<(String, Bytes)>) {
        if full.is_empty() || self.stopped.is_some() {
            return;
        }
        if let Err(error) = self.runtime.block_on(self.publisher.write(full)) {
            self.stop_without_tiles(&error);
        }
    }

    /// The records are committed: failing now would deny what is true. Without its tiles this
    /// sequencer cannot go on, though; the next one derives them.
    fn stop_without_tiles(&mut self, error: &Error) {
        tracing::error!(log = %self.shared.name, %error, "tiles could not be written");
        self.stopped = Some(format!("tiles could not be written ({error})"));
    }

    fn publish(&mut self) -> Result<()> {
        if self.stopped.is_some() || self.unpublished.is_none() {
            return Ok(());
        }
        let publish = self.publisher.publish(&self.tree, &self.state, &self.committer.keys);
        self.runtime.block_on(publish)?;
        self.mark.sync()?;
        (self.unpublished, self.published) = (None, Some(Instant::now()));
        Ok(())
    }

    /// Lends the log to a bulk append and waits for its return.
    fn bulk(&mut self, answer: Answer<BulkGrant>) {
        if let Err(error) = self.check_running().and_then(|()| self.follow_others().map(drop)) {
            let _ = answer.send(Err(error));
            return;
        }
        let (returned, back) = oneshot::channel();
        let grant = BulkGrant {
            committer: self.committer.clone(),
            tree: self.tree.clone(),
            received_at: self.clock.receive(&self.shared.name),
            shared: self.shared.clone(),
            returned,
        };
        if answer.send(Ok(grant)).is_err() {
            return;
        }
        // A bulk append that was given up drops its end.
        let Ok((result, answer)) = back.blocking_recv() else { return };
        let (began, records) = (Instant::now(), result.files.iter().map(DataFile::rows).sum());
        let outcome = self.finish_bulk(result);
        let stored = matches!(outcome, Ok(Outcome::Appended(_)));
        let _ = answer.send(self.measured(records, began, stored, outcome));
    }

    fn finish_bulk(&mut self, bulk: BulkResult) -> Result<Outcome> {
        let BulkResult { files, tree, tiles, positions, received_at } = bulk;
        let names = names_of(&files);
        if let Some((app, position)) = self.known(&positions) {
            self.discard(names);
            return Ok(Outcome::AlreadyThere { app, position });
        }
        let first = self.state.size + 1;
        let positions = positions.into_iter().map(|(app, advance)| (app, advance.arrives(first))).collect();
        let change = Change {
            added: files,
            positions,
            appended: Some((tree.size(), tree.root())),
            ..Change::default()
        };
        match self.commit(change) {
            Ok(true) => {
                self.tree = tree;
                if let Err(error) = tiles.read(|tiles| self.write_full_tiles(tiles)) {
                    self.stop_without_tiles(&error);
                }
                if let Err(error) = self.publish() {
                    tracing::error!(log = %self.shared.name, %error, "publishing failed; it is tried again");
                }
                Ok(Outcome::Appended(Appended { first, last: self.state.size, received_at }))
            }
            Ok(false) => {
                self.discard(names);
                let log = self.shared.name.to_string();
                Err(Error::Fenced { log, version: self.state.version })
            }
            Err(error) => {
                self.discard(names);
                Err(error)
            }
        }
    }

    /// A Delta checkpoint that is being written in the background has to be signed for.
    fn wait_for_checkpoint(&mut self, commands: &mut mpsc::Receiver<Command>, held: &mut VecDeque<Command>) {
        // What else comes is dropped, which tells whoever asks that this writer is closed.
        while Arc::strong_count(&self.shared.checkpointing) > 1 || !commands.is_empty() || !held.is_empty() {
            let command = held.pop_front().or_else(|| commands.try_recv().ok());
            match command {
                Some(Command::DeltaCheckpoint(file)) => {
                    self.publisher.set_delta_checkpoint(file);
                    self.unpublished.get_or_insert_with(Instant::now);
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Removes files that did not make it into the table. What stays behind is found by `compact`.
    fn discard(&self, names: Vec<String>) {
        if self.unsure {
            return;
        }
        if let Err(error) = self.runtime.block_on(self.shared.storage.remove(names)) {
            tracing::warn!(log = %self.shared.name, %error, "files of a failed append are left behind");
        }
    }

    fn check_running(&self) -> Result<()> {
        self.stopped.as_ref().map_or(Ok(()), |reason| {
            Err(Error::Stopped { log: self.shared.name.to_string(), reason: reason.clone() })
        })
    }
}

/// Takes further waiting requests, as many as go well into one commit.
fn batch_with(
    first: Waiting,
    commands: &mut mpsc::Receiver<Command>,
    held: &mut VecDeque<Command>,
) -> Vec<Waiting> {
    let size = |w: &Waiting| (w.append.rows.num_rows(), w.append.rows.get_array_memory_size());
    let (mut rows, mut bytes) = size(&first);
    let mut batch = vec![first];
    while rows < BATCH_ROWS && bytes < BATCH_BYTES {
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
