//! Commits that replace or delete files. Only expiry removes records. No file is deleted before the commit
//! that takes it out of the table is durable.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::Sequencer;
use super::publishing::lock;
use crate::commit::Change;
use crate::compact::data_file_of;
use crate::delta::{DataFile, names_of};
use crate::error::Result;
use crate::tlog::Expiry;

impl Sequencer {
    /// Puts one file in the place of several that hold the same records. False if one of those is gone.
    pub(super) fn replace(&mut self, change: Change) -> Result<bool> {
        self.check_running()?;
        // Readers in this process may have seen a newer state than this sequencer, and chosen by that.
        self.lock()?;
        self.catch_up()?;
        self.commit(change)
    }

    /// Takes the files of the months before `month` out of the table, and deletes them. A crash at any
    /// step leaves a log that verifies: before the commit, signed notes about records that are still
    /// there; after it, files that the next clean-up deletes.
    pub(super) fn expire(&mut self, month: &str) -> Result<Vec<Arc<DataFile>>> {
        self.check_running()?;
        self.lock()?;
        self.catch_up()?;
        self.flush()?;
        loop {
            // Nothing is published any more by a writer that has stopped meanwhile.
            self.check_running()?;
            let expired = |file: &&Arc<DataFile>| file.month() < month;
            let files: Vec<_> = self.state.files.iter().filter(expired).cloned().collect();
            let Some(newest) = files.last() else { return Ok(files) };
            // The tree has to cover a record before the record goes: it could not be derived any more.
            if lock(&self.publisher()).covered() < newest.last {
                self.follow_others()?;
                // So that a checkpoint is published at once.
                self.publishing.is_needed();
                self.publish()?;
                continue;
            }
            let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            // The notes come first, so that a gap is never unexplained.
            for (first, last) in ranges(&files) {
                let expiry = Expiry { first, last, at: at.clone() };
                self.runtime.block_on(expiry.write(&self.shared.storage, &self.committer.keys))?;
            }
            if self.commit(Change { removed: files.clone(), ..Change::default() })? {
                // Unlike after a compaction, the files go at once: they are to be forgotten.
                let names = names_of(files.iter().map(|f| &**f));
                self.runtime.block_on(self.shared.storage.remove(names))?;
                return Ok(files);
            }
            // Another process has changed one of the files: begun anew with those there are now.
        }
    }

    /// Deletes those of the files `left` that no version of the log refers to. A commit names the data files among them, and those whose key index is among
    /// them, before one is deleted: so a process that is still writing such a file learns that it must
    /// not commit it.
    pub(super) fn clean_up(&mut self, left: Vec<String>) -> Result<usize> {
        self.check_running()?;
        loop {
            let known = self.state.files.iter().flat_map(|file| [file.name(), file.index_name()]);
            let known: HashSet<_> = known.collect();
            let names: Vec<_> = left.iter().filter(|name| !known.contains(*name)).cloned().collect();
            let discarded: BTreeSet<_> = names.iter().filter_map(|name| data_file_of(name)).collect();
            let change = Change { discarded: discarded.into_iter().collect(), ..Change::default() };
            if change.discarded.is_empty() || self.commit(change)? {
                let count = names.len();
                self.runtime.block_on(self.shared.storage.remove(names))?;
                return Ok(count);
            }
        }
    }
}

/// The ranges of ids that `files`, in the order of their ids, hold without a gap.
fn ranges(files: &[Arc<DataFile>]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for file in files {
        match ranges.last_mut().filter(|(_, last)| *last + 1 == file.first) {
            Some((_, last)) => *last = file.last,
            None => ranges.push((file.first, file.last)),
        }
    }
    ranges
}
