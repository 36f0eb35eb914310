//! The one that appends: a thread per log, and the whole life of a batch from top to bottom.
//!
//! The sequencer takes the rows that wait, numbers them, commits to them, and appends one frame to the journal
//! ([`crate::journal`]). The records are stored when that frame is durable: the callers are answered, and the tiles and
//! the checkpoint follow. After a crash in between, the next sequencer derives them from the records. The table
//! follows in larger steps ([`flushing`]). What is very much at once, and everything where there is no journal, is a
//! commit of the table.
//!
//! A bulk append ([`crate::bulk`]) borrows the log for as long as it lasts and comes back with
//! files that are already written; only the commit is made here.
//!
//! Everything in [`Sequencer`] belongs to its thread. Readers see only what it sends to
//! [`Shared::state`].

mod appending;
mod flushing;
mod housekeeping;
mod other_writers;
mod publishing;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::clock::WatchedClock;
use crate::commit::{Change, Position};
use crate::delta::{DataFile, Sha, names_of};
use crate::error::{Error, Result};
use crate::high_water_mark::MarkFile;
use crate::log::{Log, Shared};
use crate::recover::{Recovered, recover};
use crate::row_commitments::RowCommitter;
use crate::table_state::{Sources, TableState};
use crate::tree::Tree;
use crate::writer::{
    Advance, Answer, Appended, BulkGrant, BulkResult, Command, Outcome, Writer, WriterOptions,
};
use crate::writer_lock::{WriterLock, is_used};
use appending::{Waiting, batch_with};
use flushing::{CountedBytes, Encoding};
use other_writers::Turn;
use publishing::{Publishing, lock};

/// Requests that may wait before senders have to.
const QUEUE: usize = 1_024;
/// Why a log is not written to.
const NOT_LOCKED: &str = "it has a journal, whose lock this file system does not have or does not share with other \
                          machines: write to it on the machine that has its disk, or put the journal into the table there \
                          (`sporlog compact`), end all writers, and remove the log's folder `journal`";
/// The writer lock is kept so long when nothing more waits: to take it again costs some reads.
const HOLD: Duration = Duration::from_millis(1);
/// How often it is looked whether work in the background is done.
const LOOK: Duration = Duration::from_millis(5);
/// Commits between Delta checkpoints, from which the table opens at once; and the time between them,
/// since each takes as long as many commits.
const CHECKPOINT_EVERY: usize = 256;
/// A checkpoint holds all files and all positions of sources. Where these are many, it follows after a share
/// of that number of commits, so that what checkpoints cost grows with the log and no faster.
const CHECKPOINT_SHARE: usize = 16;
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(10);
/// Commits between looks for small files to merge.
const MERGE_EVERY: u64 = 32;

pub(crate) struct Sequencer {
    shared: Arc<Shared>,
    options: WriterOptions,
    runtime: Handle,
    committer: RowCommitter,
    state: TableState,
    tree: Tree,
    publishing: Publishing,
    /// How far the log has been signed, beside its key.
    mark: Arc<MarkFile>,
    /// The writer lock. A bucket needs none; on a file system without locks there is no journal.
    lock: Option<WriterLock>,
    /// The log's size when this sequencer last appended, or took over what others have appended since.
    ours: u64,
    turn: Turn,
    /// When it was last certain what others have written.
    known_at: DateTime<Utc>,
    /// When segments that the table has were last removed.
    swept: Option<Instant>,
    /// Files that are being written of the journal's records.
    encoding: Option<Encoding>,
    /// The journal's bytes, as they are counted for the process.
    counted: CountedBytes,
    /// When the journal could not be put into the table.
    flush_failed: Option<Instant>,
    /// Files that a commit of any process has said are deleted, since this sequencer began. What is
    /// still being written under such a name must not be committed any more.
    discarded: HashSet<String>,
    /// When a Delta checkpoint was last begun.
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
        // Deriving tiles may take long.
        let known_at = Utc::now();
        let Recovered { state, tree, publisher, mark, newest_receipt } = recover(&shared, &committer).await?;
        let clock = WatchedClock::new(shared.clock, newest_receipt);
        let lock = match shared.table.segments.lock_folder() {
            Some(folder) => {
                let lock = WriterLock::new(folder.clone())
                    .map_err(|source| Error::Io { what: folder.display().to_string(), source })?;
                if lock.is_none() && is_used(&folder) {
                    return Err(Error::failed(&shared.name, NOT_LOCKED));
                }
                lock
            }
            None => None,
        };
        let ours = state.size;
        Ok(Sequencer {
            shared,
            options,
            runtime: Handle::current(),
            committer,
            state,
            tree,
            publishing: Publishing::new(publisher),
            mark: Arc::new(mark),
            lock,
            ours,
            turn: Turn::default(),
            known_at,
            swept: None,
            encoding: None,
            counted: CountedBytes::default(),
            flush_failed: None,
            discarded: HashSet::new(),
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
                Command::Flush(answer) => {
                    let flushed = self.check_running().and_then(|()| self.lock()).and_then(|()| self.flush());
                    let _ = answer.send(flushed);
                }
                Command::DeltaCheckpoint(file) => {
                    self.set_delta_checkpoint(file);
                }
                Command::Close(answer) => {
                    self.flush_before_the_end();
                    self.wait_for_checkpoint(&mut commands, &mut held);
                    let _ = answer.send(self.publish());
                    return;
                }
            }
        }
        self.flush_before_the_end();
        let _ = self.publish();
    }

    /// The next command; publishes while there is none.
    fn next(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        held: &mut VecDeque<Command>,
    ) -> Option<Command> {
        loop {
            self.publish_if_due();
            self.flush_if_due();
            self.yield_lock();
            if let Some(command) = held.pop_front() {
                return Some(command);
            }
            let held_lock = self.lock.as_ref().is_some_and(WriterLock::is_held).then_some(HOLD);
            let publish = self.until_publish();
            let waits = publish.into_iter().chain(self.until_flush());
            let Some(idle) = held_lock.or_else(|| waits.min()) else {
                return commands.blocking_recv();
            };
            let next = async { tokio::time::timeout(idle, commands.recv()).await };
            match self.runtime.block_on(next) {
                Ok(command) => return command,
                Err(_) if held_lock.is_some() => self.unlock(),
                Err(_) if publish == Some(idle) => self.publish_in_background(),
                Err(_) => {}
            }
        }
    }

    /// The state has moved on, and these positions with it: readers may see it, and it is to be
    /// published.
    fn moved_on(&mut self, moved: Sources) {
        self.shared.advance(self.state.clone(), moved);
        if let Err(error) = self.mark.write(&(&self.state).into()) {
            tracing::error!(log = %self.shared.name, %error, "what has been signed could not be remembered");
        }
        self.publishing.is_needed();
    }

    /// The same after a commit of the table, by this process or another.
    fn committed(&mut self, moved: Sources) {
        self.moved_on(moved);
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
        let entries = self.state.files.len() + self.shared.positions().table.len();
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

    /// The next checkpoint vouches for this Delta checkpoint, too.
    fn set_delta_checkpoint(&mut self, file: (String, Sha)) {
        lock(&self.publisher()).set_delta_checkpoint(file);
        self.publishing.is_needed();
    }

    /// Lends the log to a bulk append and waits for its return.
    fn bulk(&mut self, answer: Answer<BulkGrant>) {
        // What others have appended before would make the bulk append fail at its end.
        let caught_up = self.check_running().and_then(|()| self.lock()).and_then(|()| self.catch_up());
        let ready = caught_up.and_then(|()| self.follow_others());
        let ready = ready.and_then(|_| self.check_turn());
        // Others may append meanwhile; then the bulk append fails.
        self.unlock();
        if let Err(error) = ready {
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
        let at = chrono::Utc::now().timestamp_millis();
        let moved =
            |(app, advance): (String, Advance)| (app, Position { version: advance.arrives(first), at });
        let positions = positions.into_iter().map(moved).collect();
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
                    self.set_delta_checkpoint(file);
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
