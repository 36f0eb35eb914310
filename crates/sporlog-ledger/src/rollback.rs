//! A log that ends before what was signed for goes on from where it ends, on record.
//!
//! An older copy of a log's files may have been put in the place of newer ones: by an operator who has no
//! better one, or by somebody who wants records to be forgotten. So writers and readers refuse such a log,
//! until somebody decides that it is to go on. The decision is a signed commit of the log, which says how far
//! the log had been signed. Steps, and what a crash after each of them leaves:
//!
//! 1. What follows the last commit of the copy, and does not belong to it, is removed: commits after a missing
//!    one, Delta checkpoints, the note on the table. All of it can be derived from the commits.
//! 2. The signed commit is made. The log is refused as before, until the steps below are done.
//! 3. Tiles beyond the last record are removed; a checkpoint for the last record takes the place of the newer one.
//! 4. The mark beside the key is set to the commit. The log is a log as any other.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tile::TileHashReader;
use tlog_tiles::tlog::{self, Hash};

use crate::commit::{Change, GivenUp, commit_name};
use crate::copy::tiles_of;
use crate::delta::{DELTA_LOG, Protocol};
use crate::error::{Error, Result};
use crate::high_water_mark::{HighWaterMark, MarkFile};
use crate::storage::Storage;
use crate::store::Store;
use crate::table::{Committed, Expected};
use crate::tlog::{FetchedTiles, finished_file, read_checkpoint, read_note, tlog_name, try_get_tile};
use crate::tree::{Tree, partial_names};
use crate::writer::WriterOptions;

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The newest record that had been signed for.
    pub from: u64,
    /// The newest record that there is.
    pub to: u64,
}

impl Store {
    /// Lets a log go on that ends before its checkpoint, or before what its key is known to have signed. Gives
    /// what is given up; `None`, and nothing is changed, if the log ends before neither. Nothing is
    /// changed either if `dry_run` is set.
    pub async fn roll_back(&self, name: &str, dry_run: bool) -> Result<Option<RolledBack>> {
        let (keys, dir) = self.load_keys(name)?;
        let cannot = |reason: &str| Error::Copy { log: name.to_owned(), reason: reason.to_owned() };
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
                self.writer(name, shared.kind, WriterOptions { take_turns: true }).await?.close().await?;
            }
            return Ok(None);
        }
        // Of the note, only whether commits are signed counts: its Delta checkpoint may be too new.
        let mut note = note.filter(|note| !note.signed_commits);
        note.iter_mut().for_each(|note| note.files.clear());
        let expected = Expected { key: &shared.key, mark: None, note: note.as_ref() };
        let (state, _) = shared.table.load(&expected).await?;
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
        let from = covered.max(mark.as_ref().map_or(0, |mark| mark.size));
        let rolled_back = RolledBack { from, to: state.size };
        if dry_run {
            return Ok(Some(rolled_back));
        }

        let mut left = storage.list(DELTA_LOG).await?;
        left.retain(|name| name.ends_with(".json") && *name > commit_name(state.version));
        storage.remove(left).await?;

        let given_up = GivenUp { size: from, version: mark.as_ref().map(|mark| mark.version) };
        let protocol = (!state.signed).then(Protocol::current);
        let change = Change { given_up: Some(given_up), protocol, ..Change::default() };
        let now = chrono::Utc::now().timestamp_millis();
        let committed = shared.table.commit(&keys, &state, &change, now, std::future::ready(Ok(()))).await?;
        let Committed::Done(state) = committed else {
            return Err(cannot("another process has committed meanwhile"));
        };

        let mut base = covered;
        if covered > state.size {
            base = tree.as_ref().map_or(0, Tree::size);
            match tree {
                Some(tree) => {
                    let files =
                        tree.partial_files().into_iter().map(|(path, bytes)| (tlog_name(&path), bytes));
                    let files: Vec<_> = files.collect();
                    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
                    storage.put_many(files).await?;
                    storage.sync(&names).await?;
                    let checkpoint = Checkpoint::new(keys.origin(), tree.size(), tree.root(), "")
                        .map_err(|e| Error::damaged(tlog_name("checkpoint"), e))?;
                    let text = String::from_utf8_lossy(&checkpoint.to_bytes()).into_owned();
                    storage.put(&tlog_name("checkpoint"), keys.sign(&text)?.into()).await?;
                }
                // The writer derives all tiles from the records.
                None => storage.remove(vec![tlog_name("checkpoint")]).await?,
            }
        }
        let needed: HashSet<String> = tiles_of(base).map(|(name, _)| name).collect();
        let mut left = storage.list(&tlog_name("tile")).await?;
        left.retain(|name| !needed.contains(name));
        let delta_checkpoints =
            storage.list(DELTA_LOG).await?.into_iter().filter(|name| !name.ends_with(".json"));
        left.extend(delta_checkpoints.chain([tlog_name("table")]));
        storage.remove(left).await?;

        let mark = MarkFile::open(&dir, name, &HighWaterMark::from(&state))?;
        mark.write(&HighWaterMark::from(&state))?;
        mark.sync()?;
        self.writer(name, shared.kind, WriterOptions { take_turns: true }).await?.close().await?;
        Ok(Some(rolled_back))
    }
}

/// The root of the tree as it was at `size`, by the tiles of the signed `checkpoint`; `None` if they do not say.
async fn root_at(storage: &Storage, checkpoint: Option<&Checkpoint>, size: u64) -> Result<Option<Hash>> {
    let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.size() >= size && size > 0) else {
        return Ok(None);
    };
    let tiles = match FetchedTiles::fetch(storage, checkpoint.size(), &[size - 1]).await {
        Err(Error::Damaged { .. }) => return Ok(None),
        tiles => tiles?,
    };
    let reader = TileHashReader::new(checkpoint.size(), *checkpoint.hash(), &tiles);
    Ok(tlog::tree_hash(size, &reader).ok())
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
