//! Commits beside those of other processes: what is done when another process has committed first.
//!
//! A commit is put under the name of the version after the one that this sequencer knows. If that name is
//! taken, the sequencer takes over what others have committed, and tries again only if its change still
//! holds: the files that it removes are in the table, those that it adds have not been deleted, and nobody
//! has appended or moved its positions meanwhile. Otherwise whoever asked begins anew.

use std::collections::HashSet;

use futures::FutureExt;
use futures::future::OptionFuture;

use super::Sequencer;
use crate::commit::{Change, Position};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::recover::follow_table;
use crate::table::Committed;
use crate::table_state::Positions;
use crate::tlog::Publisher;

impl Sequencer {
    /// Commits `change`, whose files are written.
    pub(super) fn commit(&mut self, change: Change) -> Result<bool> {
        self.commit_after(std::future::ready(Ok(())), change)
    }

    /// Commits `change` when `write` has written its files; where another process has committed, after
    /// that commit, as long as `change` still holds there. False, and nothing is committed, if it does
    /// not: this sequencer then stands where the others left the log.
    pub(super) fn commit_after(
        &mut self,
        write: impl Future<Output = Result<()>>,
        mut change: Change,
    ) -> Result<bool> {
        let mut write = Some(write);
        let now = chrono::Utc::now().timestamp_millis();
        if let Some((size, _)) = change.appended {
            change.positions.push((format!("log:{}", self.shared.name), size as i64));
        }
        loop {
            let written = OptionFuture::from(write.take()).map(|written| written.unwrap_or(Ok(())));
            let (keys, state) = (&self.committer.keys, &self.state);
            let commit = self.shared.table.commit(keys, state, &change, now, written);
            match self.runtime.block_on(commit)? {
                Committed::Done(state) => {
                    self.state = state;
                    self.discarded.extend(change.discarded);
                    let at = |(app, version)| (app, Position { version, at: now });
                    self.committed(change.positions.into_iter().map(at));
                    return Ok(true);
                }
                Committed::Taken => {
                    let size = self.state.size;
                    let others = self.catch_up()?;
                    // If another process has moved a position of this change, the change is stale, even if no
                    // record came with it.
                    let moved = change.positions.iter().any(|(app, _)| others.contains_key(app));
                    let appended = self.state.size != size && change.appended.is_some();
                    if appended && !self.options.take_turns {
                        let (log, version) = (self.shared.name.to_string(), self.state.version);
                        self.stopped = Some(format!("another writer has appended (version {version})"));
                        return Err(Error::Fenced { log, version });
                    }
                    if appended || moved || !self.still_applies(&change) {
                        return Ok(false);
                    }
                }
                Committed::Unknown(error) => {
                    self.stopped = Some(format!("it is not known whether a commit was stored ({error})"));
                    self.unsure = true;
                    return Err(error);
                }
            }
        }
    }

    /// Whether `change` can be made of the state as it is now: the files that it removes are in the
    /// table, those that it adds have not been deleted, and those that it deletes are not in the table.
    pub(super) fn still_applies(&self, change: &Change) -> bool {
        change.removed.iter().all(|file| self.state.has(file))
            && !change.added.iter().any(|file| self.discarded.contains(&file.name()))
            && (change.discarded.is_empty() || {
                let there: HashSet<_> = self.state.files.iter().map(|file| file.name()).collect();
                !change.discarded.iter().any(|name| there.contains(name))
            })
    }

    /// What others have committed could not be read to its end, or is not signed: state and tree may not
    /// go together, so nothing more may be made of them. The next sequencer reads them anew.
    fn poison(&mut self, error: Error) -> Error {
        self.stopped = Some(format!("others have committed, and that could not be taken over ({error})"));
        error
    }

    /// Takes over what others have committed; gives the positions that have moved.
    pub(super) fn catch_up(&mut self) -> Result<Positions> {
        let version = self.state.version;
        let others = self.shared.table.catch_up(&self.shared.key, &mut self.state);
        let others = self.runtime.block_on(others).map_err(|error| self.poison(error))?;
        self.discarded.extend(others.discarded);
        if self.state.version != version {
            self.committed(others.positions.clone());
        }
        Ok(others.positions)
    }

    /// Moves the tree on over what others have appended. True if there was any: positions may have moved.
    pub(super) fn follow_others(&mut self) -> Result<bool> {
        if self.tree.size() == self.state.size {
            return Ok(false);
        }
        loop {
            // What others have published need not be derived, and may have expired since. The state has
            // to be read after it, so that it is not shorter.
            let published = Publisher::open(self.shared.storage.clone(), &self.shared.vkey);
            let published = self.runtime.block_on(published);
            (self.publisher, self.tree) = published.map_err(|error| self.poison(error))?;
            self.catch_up()?;
            let (version, covered) = (self.state.version, self.publisher.covered());
            let Sequencer { shared, committer, state, tree, publisher, .. } = self;
            match self.runtime.block_on(follow_table(shared, committer, state, tree, publisher)) {
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
}
