//! Writing beside other processes: the writer lock, the seal, and what is done when another process has written.
//!
//! Whoever has the writer lock writes, and takes over first what others have written since. The lock is let go when
//! nothing more waits, or when somebody waits for it.
//!
//! In a bucket nobody waits for a lock: a frame is put under the next number, and whoever has put the last one is the first to know
//! which number is free. The others would never be in time while records keep coming. So a sequencer that takes turns
//! pauses after [`TURN`] frames, long enough for another to read on and to put a frame of its own.
//!
//! A commit is put under the name of the version after the one that this sequencer knows, besides. Where there are no
//! locks, that name may be taken. Then the sequencer takes over what others have committed, and tries again
//! only if its change still holds: nobody has appended or moved its positions meanwhile, the files that it removes are
//! in the table, and those that it adds have not been deleted. Otherwise whoever asked begins anew.

use std::collections::HashSet;
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono::Utc;

use super::Sequencer;
use crate::commit::{Change, Position};
use crate::error::{Error, Result};
use crate::journal::Frame;
use crate::log::Log;
use crate::recover::follow_table;
use crate::schema::table_schema;
use crate::segment::is_trusted;
use crate::table::{Committed, Expected};
use crate::table_state::{Sources, TableState};
use crate::tlog::Publisher;

/// Frames that a sequencer puts into a bucket before it pauses.
const TURN: u32 = 32;
/// The pause from the last put on, in times of what that took: another's put fails, it reads the frames since its last one in two or
/// three steps, and puts again.
const PAUSE: u32 = 6;

/// The frames that this sequencer has put since its last pause, and how long the last one took.
#[derive(Default)]
pub(super) struct Turn {
    frames: u32,
    took: Duration,
}

/// What a change is made on.
pub(super) struct Before {
    /// The log's size.
    size: u64,
    /// The positions that the change moves.
    positions: Vec<Option<Position>>,
}

impl Sequencer {
    /// Takes the writer lock and takes over what others have written before. Nothing happens if the lock is held, or
    /// if there are no locks.
    pub(super) fn lock(&mut self) -> Result<()> {
        let Some(lock) = self.lock.as_mut().filter(|lock| !lock.is_held()) else { return Ok(()) };
        let failed = |source| Error::Io { what: format!("locking the log '{}'", self.shared.name), source };
        lock.take().map_err(failed)?;
        let there = self.runtime.block_on(self.shared.table.check_newest(&self.state));
        there.and_then(|()| self.catch_up()).inspect_err(|_| self.unlock())
    }

    pub(super) fn unlock(&mut self) {
        if let Some(lock) = &mut self.lock {
            lock.release();
        }
    }

    /// Lets the writer lock go if another process waits for it.
    pub(super) fn yield_lock(&mut self) {
        if self.lock.as_ref().is_some_and(|lock| lock.is_held() && lock.is_wanted()) {
            self.unlock();
        }
    }

    /// Commits `change`, whose files are written, after what others have written and after the journal. False, and
    /// nothing is committed, if `change` does not hold there.
    pub(super) fn commit(&mut self, mut change: Change) -> Result<bool> {
        let before = self.before(&change);
        self.lock()?;
        loop {
            self.flush_records()?;
            self.seal()?;
            if !self.state.recent.is_bare() {
                continue;
            }
            // Sealing may have taken over a commit of another process, so this comes last.
            if !self.holds(&change, &before)? {
                return Ok(false);
            }
            change.journal = self.state.recent.taken_over();
            if self.commit_next(change.clone())? {
                return Ok(true);
            }
        }
    }

    /// Commits `change`, which was made on the state as it is now, as the next version. False, and nothing is committed, if
    /// another process has committed that version: this sequencer then stands where the others left the log.
    pub(super) fn commit_next(&mut self, mut change: Change) -> Result<bool> {
        let now = chrono::Utc::now().timestamp_millis();
        if let Some((size, _)) = change.appended {
            let position = Position { version: size as i64, at: now };
            change.positions.push((format!("log:{}", self.shared.name), position));
        }
        let commit = self.shared.table.commit(&self.committer.keys, &self.state, &change, now);
        match self.runtime.block_on(commit)? {
            Committed::Done(state) => {
                self.ours += state.size - self.state.size;
                self.state = state;
                self.discarded.extend(change.discarded);
                self.committed(Sources {
                    table: change.positions.into_iter().collect(),
                    ..Sources::default()
                });
                Ok(true)
            }
            Committed::Taken => self.catch_up().map(|()| false),
            Committed::Unknown(error) => Err(self.unsure(error)),
        }
    }

    /// Keeps frames from being appended beside the next commit ([`crate::segment`]). Others may have appended before: their
    /// frames are taken over into the state.
    pub(super) fn seal(&mut self) -> Result<()> {
        self.look_again()?;
        while self.shared.table.segments.are_sealed() && !self.state.recent.sealed {
            let TableState { size, root, .. } = self.state;
            let rows = RecordBatch::new_empty(table_schema(self.shared.kind));
            let at = chrono::Utc::now().timestamp_millis();
            self.append_frame(&Frame { rows, positions: Vec::new(), size, root, at, seal: true })?;
        }
        Ok(())
    }

    /// What `change` is made on.
    pub(super) fn before(&self, change: &Change) -> Before {
        let stored = self.shared.positions();
        let positions = change.positions.iter().map(|(app, _)| stored.get(app)).collect();
        Before { size: self.state.size, positions }
    }

    /// Whether `change`, which was made on what was there `before`, can be made on what is there now.
    fn holds(&mut self, change: &Change, before: &Before) -> Result<bool> {
        let appended = self.state.size != before.size && change.appended.is_some();
        if appended {
            self.check_turn()?;
        }
        // If another process has moved a position of this change, the change is stale, even if no record came
        // with it.
        let stale = self.before(change).positions != before.positions;
        Ok(!appended && !stale && self.still_applies(change))
    }

    /// A frame was put, which `took` so long.
    pub(super) fn count_frame(&mut self, took: Duration) {
        self.turn = Turn { frames: self.turn.frames + 1, took };
    }

    /// Pauses if other sequencers of a bucket are to have their turn.
    pub(super) fn pause_after_turn(&mut self) {
        if self.options.take_turns && self.turn.frames >= TURN {
            let since = (Utc::now() - self.known_at).to_std().unwrap_or_default();
            std::thread::sleep((PAUSE * self.turn.took).saturating_sub(since));
            self.turn = Turn::default();
        }
    }

    /// If another process has appended, fails, now and from now on, unless this one takes turns.
    pub(super) fn check_turn(&mut self) -> Result<()> {
        if self.options.take_turns {
            self.ours = self.state.size;
        }
        if self.ours == self.state.size {
            return Ok(());
        }
        let (log, version) = (self.shared.name.to_string(), self.state.version);
        self.stopped = Some(format!("another writer has appended (version {version})"));
        Err(Error::Fenced { log, version })
    }

    /// It is not known whether what was written is stored: nothing more is made of it, and its files stay.
    pub(super) fn unsure(&mut self, error: Error) -> Error {
        self.stopped = Some(format!("it is not known whether a commit was stored ({error})"));
        self.unsure = true;
        error
    }

    /// Whether `change` can be made of the state as it is now: the files that it removes are in the table, those that it
    /// adds have not been deleted, and those that it deletes are not in the table.
    fn still_applies(&self, change: &Change) -> bool {
        change.removed.iter().all(|file| self.state.has(file))
            && !change.added.iter().any(|file| self.discarded.contains(&file.name()))
            && (change.discarded.is_empty() || {
                let there: HashSet<_> = self.state.files.iter().map(|file| file.name()).collect();
                !change.discarded.iter().any(|name| there.contains(name))
            })
    }

    /// What others have committed could not be read to its end, or is not signed: state and tree may not
    /// go together, so nothing more may be made of them. The next sequencer reads them anew.
    pub(super) fn poison(&mut self, error: Error) -> Error {
        self.stopped = Some(format!("others have committed, and that could not be taken over ({error})"));
        error
    }

    /// In a bucket, takes over what others have written if what is known of the log is not relied on any more.
    pub(super) fn look_again(&mut self) -> Result<()> {
        if self.shared.table.segments.are_sealed() && !is_trusted(self.known_at) {
            self.catch_up()?;
        }
        Ok(())
    }

    /// Takes over what others have written.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        self.known_at = Utc::now();
        let before = self.state.recent.extent.clone();
        let shared = self.shared.clone();
        let expected = Expected::signed_by(&shared.key);
        let others = self.runtime.block_on(shared.table.catch_up(&expected, &mut self.state));
        let others = others.map_err(|error| self.poison(error))?;
        self.discarded.extend(others.discarded);
        if self.state.version != before.version {
            self.committed(others.sources);
        } else if self.state.recent.extent != before {
            self.moved_on(others.sources);
        }
        Ok(())
    }

    /// Moves the tree on over what others have appended. True if there was any: positions may have moved.
    pub(super) fn follow_others(&mut self) -> Result<bool> {
        if self.tree.size() == self.state.size {
            return Ok(false);
        }
        if self.follow_journal()? {
            return Ok(true);
        }
        self.settle();
        loop {
            // What others have published need not be derived, and may have expired since. The state has
            // to be read after it, so that it is not shorter.
            let published = Publisher::open(self.shared.storage.clone(), &self.shared.vkey);
            let published = self.runtime.block_on(published);
            let (mut publisher, tree) = published.map_err(|error| self.poison(error))?;
            self.tree = tree;
            self.catch_up()?;
            let (version, covered) = (self.state.version, publisher.covered());
            let Sequencer { shared, committer, state, tree, .. } = self;
            let followed =
                self.runtime.block_on(follow_table(shared, committer, state, tree, &mut publisher));
            self.publish_with(publisher);
            match followed {
                Ok(()) => return Ok(true),
                Err(error) => {
                    // Other processes may have published records and let them expire: after the checkpoint was
                    // read, or while the table was.
                    self.catch_up()?;
                    let log = Log { shared: self.shared.clone() };
                    let now = self.runtime.block_on(log.covered()).map_err(|error| self.poison(error))?;
                    if (self.state.version, now) == (version, covered) {
                        return Err(self.poison(error));
                    }
                }
            }
        }
    }

    /// Moves the tree on over what others have appended to the journal in a bucket, which takes no request. False if some of these
    /// records are in the table by now. On a disk it is not done: there, tiles that others have published must not be written
    /// a second time.
    fn follow_journal(&mut self) -> Result<bool> {
        let (recent, mut tree) = (&self.state.recent, self.tree.clone());
        let records = recent.after(tree.size());
        let is_there = records.first().is_some_and(|part| part.first == tree.size() + 1);
        if !is_there || !self.shared.table.segments.are_sealed() {
            return Ok(false);
        }
        let mut full = Vec::new();
        for part in records {
            full.extend(tree.push_all(&self.committer.commitments(&part.rows, &mut Vec::new())?));
        }
        if tree.root() != self.state.root {
            let name = recent.extent.name();
            let error = Error::damaged(name, "the newest records are not those that were committed");
            return Err(self.poison(error));
        }
        self.tree = tree;
        self.add_tiles_of_others(full);
        Ok(true)
    }
}
