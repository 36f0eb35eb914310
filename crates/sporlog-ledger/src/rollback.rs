//! A log that ends before what was signed for goes on from where it ends, on record.
//!
//! An older copy of a log's files may have been put in the place of newer ones: by an operator who has no
//! better one, or by somebody who wants records to be forgotten. So writers and readers refuse such a log,
//! until somebody decides that it is to go on. The decision is a signed commit of the log, which says how far
//! the log had been signed. Steps, and what a crash after each of them leaves:
//!
//! 1. Commits and frames of the journal that do not follow the last ones of the copy are removed, since one between
//!    them is missing.
//! 2. The signed commit is made, which takes over the frames of the copy. The log is refused as before, until the steps below are done.
//! 3. A checkpoint for the last record takes the place of the newer one. Tiles beyond that record, Delta checkpoints
//!    and the note on the table are removed: all of them can be derived from the commits.
//! 4. The mark beside the key is set to the commit. The log is a log as any other.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use tlog_tiles::checkpoint::Checkpoint;

use crate::commit::{GivenUp, RolledBack, commit_name};
use crate::copy::tiles_of;
use crate::delta::{DELTA_LOG, Protocol};
use crate::error::{Error, Result};
use crate::flush::take_over;
use crate::high_water_mark::{HighWaterMark, MarkFile};
use crate::keys::LogKeys;
use crate::log::Shared;
use crate::storage::Storage;
use crate::store::Store;
use crate::table::{Committed, Expected};
use crate::table_state::{Positions, TableState};
use crate::tlog::{
    finished_file, read_checkpoint, read_note, root_at, sign_checkpoint, tlog_name, try_get_tile,
};
use crate::tree::{Tree, partial_names};
use crate::writer::WriterOptions;

/// A log and the state that it is rolled back to.
struct RollBack {
    shared: Shared,
    /// The state after the last commit and frame of the copy.
    state: TableState,
    /// How far the journal of the copy has taken in sources.
    positions: Positions,
    /// How far the log is known to have been signed, if the copy ends before that.
    mark: Option<HighWaterMark>,
    /// How many records the checkpoint covers.
    covered: u64,
    /// The tree of the records that are there; `None` if tiles are missing, so that all are to be derived.
    tree: Option<Tree>,
}

impl Store {
    /// Lets a log go on that ends before its checkpoint, or before what its key is known to have signed. Gives
    /// what is given up; `None`, and nothing is changed, if the log ends before neither. Nothing is
    /// changed either if `dry_run` is set.
    pub async fn roll_back(&self, name: &str, dry_run: bool) -> Result<Option<RolledBack>> {
        let (keys, dir) = self.load_keys(name)?;
        let Some(mut log) = self.plan_roll_back(name, dry_run).await? else { return Ok(None) };
        let rolled_back = RolledBack { from: log.signed_for(), to: log.state.size };
        if dry_run {
            return Ok(Some(rolled_back));
        }
        log.remove_later_commits().await?;
        log.commit(&keys).await?;
        log.replace_checkpoint(&keys).await?;
        log.set_mark(&dir)?;
        self.close_writer(name, &log.shared).await?;
        Ok(Some(rolled_back))
    }

    /// Looks at all that says how far the log once went, and refuses a log whose records cannot be shown to be those
    /// that were signed for. `None` if there is nothing to roll back.
    async fn plan_roll_back(&self, name: &str, dry_run: bool) -> Result<Option<RollBack>> {
        let cannot = |reason| cannot(name, reason);
        let (shared, mark) = match self.open_log(name, None).await {
            Err(Error::RolledBack { .. }) => {
                return Err(cannot("not even its first commit is there: restore it from a backup"));
            }
            opened => opened?,
        };
        let storage = &shared.storage;
        let checkpoint = read_checkpoint(storage, &shared.vkey).await?;
        let covered = checkpoint.as_ref().map_or(0, Checkpoint::size);
        let note = read_note(storage, &shared.vkey).await?;
        let noted = note.as_ref().map_or(0, |note| note.version);
        let opened = self.log(name).await;
        if opened.as_ref().is_ok_and(|log| covered <= log.head() && noted <= log.state().version) {
            if note.is_none() && !dry_run {
                // An earlier call was killed before its last step.
                self.close_writer(name, &shared).await?;
            }
            return Ok(None);
        }
        // Of the note, only whether commits are signed counts: its Delta checkpoint may be too new.
        let mut note = note.filter(|note| !note.signed_commits);
        note.iter_mut().for_each(|note| note.files.clear());
        let expected = Expected { key: &shared.key, mark: None, note: note.as_ref() };
        let (state, sources) = shared.table.load(&expected).await?;
        let held_against = Expected { mark: mark.as_ref(), ..expected };
        let mark = match shared.table.load(&held_against).await {
            Ok(_) => None,
            Err(_) => mark,
        };
        if mark.is_none() && covered <= state.size && noted <= state.version {
            // Nothing is missing at its end; what keeps it from being opened is something else.
            return opened.map(|_| None);
        }
        if !state.signed && root_at(storage, checkpoint.as_ref(), state.size).await? != Some(state.root) {
            return Err(cannot(
                "its commits are not signed one by one, as an earlier version of this program made them, and its \
                 tiles do not prove that its records are those that were signed for: restore it from a backup",
            ));
        }
        let tree = edge(storage, state.size).await?.filter(|tree| tree.root() == state.root);
        if covered > state.size && tree.is_none() && state.first() > 1 {
            return Err(cannot(
                "the tiles of its last record are missing, and they cannot be computed, as records have expired: \
                 restore it from a backup",
            ));
        }
        Ok(Some(RollBack { shared, state, positions: sources.journal, mark, covered, tree }))
    }

    /// Opens and closes a writer, which derives the tiles that are missing and writes the note on the table.
    async fn close_writer(&self, name: &str, shared: &Shared) -> Result<()> {
        self.writer(name, shared.kind, WriterOptions { take_turns: true }).await?.close().await
    }
}

/// The steps, in their order.
impl RollBack {
    /// The newest record that had been signed for.
    fn signed_for(&self) -> u64 {
        self.covered.max(self.mark.as_ref().map_or(0, |mark| mark.size))
    }

    /// Step 1: removes the commits that do not follow the last one of the copy.
    async fn remove_later_commits(&self) -> Result<()> {
        let mut later = self.shared.storage.list(DELTA_LOG).await?;
        later.retain(|name| name.ends_with(".json") && *name > commit_name(self.state.version));
        let segments = self.shared.table.segments.names().await?;
        let later_segments = segments.into_iter().filter(|(version, _)| *version != self.state.version);
        later.extend(later_segments.map(|(_, name)| name));
        self.shared.storage.remove(later).await
    }

    /// Step 2: commits, signed, how far the log had been signed.
    async fn commit(&mut self, keys: &LogKeys) -> Result<()> {
        let given_up =
            GivenUp { size: self.signed_for(), version: self.mark.as_ref().map(|mark| mark.version) };
        let protocol = (!self.state.signed).then(Protocol::current);
        let mut change = take_over(&self.shared, &self.state, &self.positions, Vec::new()).await?;
        (change.given_up, change.protocol) = (Some(given_up), protocol);
        let now = chrono::Utc::now().timestamp_millis();
        match self.shared.table.commit(keys, &self.state, &change, now).await? {
            Committed::Done(state) => self.state = state,
            Committed::Taken | Committed::Unknown(_) => {
                return Err(cannot(&self.shared.name, "another process has committed meanwhile"));
            }
        }
        Ok(())
    }

    /// Step 3: a checkpoint for the last record, then no tiles beyond that record, no Delta checkpoint and no note.
    async fn replace_checkpoint(&self, keys: &LogKeys) -> Result<()> {
        let storage = &self.shared.storage;
        let mut covered = self.covered;
        if covered > self.state.size {
            covered = self.tree.as_ref().map_or(0, Tree::size);
            match &self.tree {
                Some(tree) => {
                    let files =
                        tree.partial_files().into_iter().map(|(path, bytes)| (tlog_name(&path), bytes));
                    let files: Vec<_> = files.collect();
                    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
                    storage.put_many(files).await?;
                    storage.sync(&names).await?;
                    let checkpoint = sign_checkpoint(keys, tree.size(), tree.root())?;
                    storage.put(&tlog_name("checkpoint"), checkpoint.into()).await?;
                }
                // The writer derives all tiles from the records.
                None => storage.remove(vec![tlog_name("checkpoint")]).await?,
            }
        }
        let needed: HashSet<String> = tiles_of(covered).map(|(name, _)| name).collect();
        let mut beyond = storage.list(&tlog_name("tile")).await?;
        beyond.retain(|name| !needed.contains(name));
        let delta_checkpoints =
            storage.list(DELTA_LOG).await?.into_iter().filter(|name| !name.ends_with(".json"));
        beyond.extend(delta_checkpoints.chain([tlog_name("table")]));
        storage.remove(beyond).await
    }

    /// Step 4: the mark beside the key is the commit of step 2.
    fn set_mark(&self, dir: &Path) -> Result<()> {
        let state = HighWaterMark::from(&self.state);
        let mark = MarkFile::open(dir, &self.shared.name, &state)?;
        mark.write(&state)?;
        mark.sync()
    }
}

fn cannot(log: &str, reason: &str) -> Error {
    Error::Copy { log: log.to_owned(), reason: reason.to_owned() }
}

/// The edge of the tree at `size`, where only the tiles of a larger tree may be stored; `None` if those that
/// it needs are missing.
async fn edge(storage: &Storage, size: u64) -> Result<Option<Tree>> {
    let mut files = HashMap::new();
    for path in partial_names(size) {
        let Some(bytes) = tile_or_wider(storage, &path).await? else { return Ok(None) };
        files.insert(path, bytes);
    }
    Ok(Tree::restore(size, |path| files.get(path).cloned().ok_or(())).ok())
}

async fn tile_or_wider(storage: &Storage, path: &str) -> Result<Option<Bytes>> {
    if let Some(bytes) = try_get_tile(storage, path).await? {
        return Ok(Some(bytes));
    }
    let Some((finished, length)) = finished_file(path) else { return Ok(None) };
    for name in storage.list(&tlog_name(&format!("{finished}.p"))).await? {
        let bytes = storage.get(&name).await?;
        if bytes.len() >= length {
            return Ok(Some(bytes.slice(..length)));
        }
    }
    Ok(None)
}
