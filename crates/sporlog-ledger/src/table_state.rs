//! The state of a log: the files of its table at a version and the records of the journal after that version, its
//! size and root, and how far sources have been taken in. Pure: commits and frames move a state on, and nothing is
//! read or written here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tlog_tiles::tlog::{EMPTY_HASH, Hash};

use crate::commit::{Commit, Position, commit_name};
use crate::delta::{DataFile, Metadata, Protocol, Sha};
use crate::error::{Error, Result};
use crate::journal::{Extent, Frame};
use crate::recent::{Part, Recent};

/// A log's state.
#[derive(Debug, Clone)]
pub(crate) struct TableState {
    /// The table's version.
    pub version: u64,
    /// The table's files, in the order of their ids.
    pub files: Arc<Vec<Arc<DataFile>>>,
    /// The records that the table does not have yet.
    pub recent: Recent,
    /// The number of records ever appended, which is the newest id.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// The chain over all commits up to this version ([`crate::commit`]).
    pub chain: Sha,
    /// Whether this version's commit has a signature. Those of earlier versions of this program have none.
    pub signed: bool,
    pub protocol: Arc<Protocol>,
    pub metadata: Arc<Metadata>,
}

impl TableState {
    /// The state after the first commit of a table.
    pub(crate) fn first_of(commit: &Commit) -> Result<Self> {
        let name = commit_name(0);
        let stated = |what: &str| Error::damaged(&name, format!("it has no {what}"));
        let protocol = commit.actions.iter().find_map(|action| action.protocol.clone());
        let metadata = commit.actions.iter().find_map(|action| action.meta_data.clone());
        let mut state = TableState {
            version: 0,
            files: Arc::default(),
            recent: Recent::none(0, Sha::default()),
            size: 0,
            root: EMPTY_HASH,
            chain: Sha::default(),
            signed: false,
            protocol: Arc::new(protocol.ok_or_else(|| stated("protocol"))?),
            metadata: Arc::new(metadata.ok_or_else(|| stated("metadata"))?),
        };
        state.moved_to(0, commit, &Sha::default());
        Ok(state)
    }

    /// `commit` is the one of `version`, and the chain before it is `previous`.
    pub(crate) fn moved_to(&mut self, version: u64, commit: &Commit, previous: &Sha) {
        (self.version, self.size, self.root) = (version, commit.size, commit.root);
        self.chain = commit.chain_after(previous);
        self.signed = commit.signature.is_some();
        self.recent = Recent::none(version, self.chain);
    }

    /// Whether this state comes after `other`: by a commit, or by a frame.
    pub(crate) fn is_newer(&self, other: &Self) -> bool {
        (self.version, self.recent.extent.frames) > (other.version, other.recent.extent.frames)
    }

    /// The oldest id that is still there; one above the newest if none is.
    pub(crate) fn first(&self) -> u64 {
        self.parts().next().map_or(self.size + 1, |part| part.first())
    }

    /// Where the records are, in the order of their ids.
    pub(crate) fn parts(&self) -> impl DoubleEndedIterator<Item = Part> {
        let files = self.files.iter().map(|file| Part::File(file.clone()));
        files.chain(self.recent.parts().iter().map(|rows| Part::Recent(rows.clone())))
    }

    /// Where the ids above `after` are, oldest first.
    pub(crate) fn parts_after(&self, after: u64) -> impl Iterator<Item = Part> {
        let files = self.files_after(after).iter().map(|file| Part::File(file.clone()));
        let recent = self.recent.parts().iter().filter(move |rows| rows.last > after);
        files.chain(recent.map(|rows| Part::Recent(rows.clone())))
    }

    /// Where the record `id` is.
    pub(crate) fn part_of(&self, id: u64) -> Option<Part> {
        self.parts_after(id.checked_sub(1)?).next().filter(|part| part.first() <= id)
    }

    /// The files that may hold ids above `after`, oldest first.
    fn files_after(&self, after: u64) -> &[Arc<DataFile>] {
        &self.files[self.files.partition_point(|f| f.last <= after)..]
    }

    /// The file that holds `id`.
    fn file_of(&self, id: u64) -> Option<&Arc<DataFile>> {
        self.files_after(id.checked_sub(1)?).first().filter(|f| f.first <= id)
    }

    /// Whether `file` is a file of this state.
    pub(crate) fn has(&self, file: &DataFile) -> bool {
        self.file_of(file.first).is_some_and(|there| there.path == file.path)
    }

    /// What keeps `commit` from being the next one of this state.
    pub(crate) fn refuses(&self, commit: &Commit) -> Vec<Error> {
        let mut problems = Vec::new();
        if commit.previous != self.chain {
            let before = commit_name(self.version);
            problems.push(Error::damaged(before, "it is not what the commit after it vouches for"));
        }
        let here = &self.recent.extent;
        if !commit.takes_over(here.frames, &here.chain) {
            let problem = format!("it does not take over the {} frames of {}", here.frames, here.name());
            problems.push(Error::damaged(commit_name(self.version + 1), problem));
        }
        let mut removed = commit.removed().peekable();
        if removed.peek().is_some() {
            let there: HashSet<_> = self.files.iter().map(|file| file.path.as_str()).collect();
            for path in removed.filter(|path| !there.contains(path)) {
                let name = commit_name(self.version + 1);
                problems.push(Error::damaged(name, format!("it removes {path}, which is not there")));
            }
        }
        problems
    }

    /// Moves this state on by `commit`, the next one.
    pub(crate) fn apply(&mut self, commit: &Commit) -> Result<()> {
        let version = self.version + 1;
        let added = commit.added(&commit_name(version))?;
        self.replace(added, &commit.removed().collect());
        for action in &commit.actions {
            if let Some(protocol) = &action.protocol {
                self.protocol = Arc::new(protocol.clone());
            }
            if let Some(metadata) = &action.meta_data {
                self.metadata = Arc::new(metadata.clone());
            }
        }
        let previous = self.chain;
        self.moved_to(version, commit, &previous);
        Ok(())
    }

    /// Moves this state on by `frame`, the next one, with which the segment goes as far as `after`.
    pub(crate) fn push(&mut self, frame: &Frame, after: Extent) -> Result<()> {
        if frame.size != self.size + frame.rows.num_rows() as u64 {
            let problem = format!("its frame {} does not have the records that it should", after.frames);
            return Err(Error::damaged(after.name(), problem));
        }
        self.recent.push(frame, after)?;
        (self.size, self.root) = (frame.size, frame.root);
        Ok(())
    }

    /// Takes the `added` files in, and the `removed` paths out.
    pub(crate) fn replace(&mut self, added: Vec<DataFile>, removed: &HashSet<&str>) {
        if !removed.is_empty() {
            Arc::make_mut(&mut self.files).retain(|file| !removed.contains(file.path.as_str()));
        }
        for file in added {
            let at = self.files.partition_point(|f| f.first < file.first);
            Arc::make_mut(&mut self.files).insert(at, Arc::new(file));
        }
    }
}

/// Positions of sources.
pub(crate) type Positions = HashMap<String, Position>;

/// How far all sources have been taken in, or those that have moved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// By the commits of the table.
    pub table: Positions,
    /// By the journal, since the newest commit.
    pub journal: Positions,
}

impl Sources {
    pub(crate) fn get(&self, app: &str) -> Option<Position> {
        self.journal.get(app).or_else(|| self.table.get(app)).copied()
    }

    /// Takes over what a commit has moved, which has all that the journal had.
    pub(crate) fn committed(&mut self, moved: impl IntoIterator<Item = (String, Position)>) {
        self.table.extend(moved);
        self.journal.clear();
    }
}

/// What the names of sources begin with that are a single request each. There is no end to them, so
/// they are forgotten after [`REMEMBERED`].
pub const ONCE: &str = "once:";
/// For how long a single request is remembered.
pub const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// Forgets single requests of long ago; `now_ms` is milliseconds since 1970.
pub(crate) fn forget_old(positions: &mut Positions, now_ms: i64) {
    let oldest = now_ms.saturating_sub(REMEMBERED.as_millis() as i64);
    positions.retain(|app, position| position.at >= oldest || !app.starts_with(ONCE));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_requests_are_forgotten() {
        let week = REMEMBERED.as_millis() as i64;
        let at = |at| Position { version: 1, at };
        let all = [("once:a", 99), ("once:b", 100), ("file:c", 0), ("kafka:t:0", 0)];
        let mut positions: Positions = all.map(|(app, then)| (app.to_owned(), at(then))).into();
        forget_old(&mut positions, week + 100);
        let mut left: Vec<_> = positions.into_keys().collect();
        left.sort();
        assert_eq!(left, ["file:c", "kafka:t:0", "once:b"]);
    }
}
