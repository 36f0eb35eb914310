//! The transparency log's folder, `tlog/`: what anyone may read to check the log.
//!
//! | file | what it is |
//! |---|---|
//! | `checkpoint` | the newest size and root, signed (C2SP tlog-checkpoint) |
//! | `tile/<L>/<N>[.p/<W>]` | hashes of the tree (C2SP tlog-tiles) |
//! | `tile/entries/<N>[.p/<W>]` | the entries: commitments, 32 bytes each behind their length |
//! | `table` | a signed note of our own: the chain over the table's commits up to a version, and the newest Delta checkpoint's digest |
//! | `expired/<first>-<last>` | a signed note of our own for each range of records that retention removed |
//! | `key` | the public key, for convenience; whoever checks takes it from elsewhere |
//! | `keys` | a signed note of our own on the keys that the log has had, once its key was replaced |
//!
//! The tiles follow the table and can always be derived from it again. A checkpoint is written
//! only when everything below it is on the disk.

use std::collections::hash_map::Entry;

use bytes::Bytes;
use futures::future::try_join_all;
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tile::{Tile, TileHashReader, TileReader};
use tlog_tiles::tlog::{self, Hash};

use crate::delta::{Sha, checkpoint_version, unhex};
use crate::error::{Error, Result};
use crate::keys::{Commitment, LogKeys, open_note};
use crate::storage::Storage;
use crate::table_state::TableState;
use crate::tree::{TILE_HEIGHT, TileFile, Tree, is_full_at, partial_names, path_at, tile_path};
use sporlog_record::hex;

/// The folder of the transparency log within the log's.
pub(crate) const TLOG: &str = "tlog";

/// Where the entry bundles lie.
pub(crate) const ENTRIES: &str = "tile/entries/";
/// Bytes of a hash in a tile.
pub(crate) const HASH: usize = 32;
/// Bytes of a commitment in a bundle, with its length.
pub(crate) const BUNDLE_ENTRY: usize = 2 + size_of::<Commitment>();

/// A file of the transparency log, named relative to the log's folder.
pub(crate) fn tlog_name(file: &str) -> String {
    format!("{TLOG}/{file}")
}

/// Writes what follows a commit: tiles, then the checkpoint, then the note on the table.
pub(crate) struct Publisher {
    storage: Storage,
    /// Tiles that are written with the next checkpoint.
    waiting: Vec<TileFile>,
    /// What has been written and not synced.
    unsynced: Vec<String>,
    /// Unfinished tiles that a finished one has replaced; they go when it is published.
    finished: Vec<String>,
    /// The size that the newest checkpoint covers, if there is one.
    published: Option<u64>,
    /// The table's version that the newest note covers.
    noted: Option<u64>,
    /// The newest Delta checkpoint and its digest, for the note.
    delta_checkpoint: Option<(String, Sha)>,
    /// Older ones. The newest of them is kept: somebody may be opening the table by it.
    older_checkpoints: Vec<String>,
}

impl Publisher {
    /// For the log in `storage`, whose tree as published is given back too.
    pub(crate) async fn open(storage: Storage, vkey: &str) -> Result<(Self, Tree)> {
        let checkpoint = read_checkpoint(&storage, vkey).await?;
        let size = checkpoint.as_ref().map_or(0, Checkpoint::size);
        let tree = read_tree(&storage, size, size).await?;
        if let Some(checkpoint) = &checkpoint
            && tree.root() != *checkpoint.hash()
        {
            return Err(Error::damaged(tlog_name("tile"), "the tiles do not give the checkpoint's root"));
        }
        let note = read_note(&storage, vkey).await?;
        let publisher = Publisher {
            storage,
            waiting: Vec::new(),
            unsynced: Vec::new(),
            finished: Vec::new(),
            published: checkpoint.is_some().then_some(size),
            // A note of an earlier version of this program is written anew.
            noted: note.as_ref().filter(|note| note.signed_commits).map(|note| note.version),
            delta_checkpoint: note.and_then(TableNote::delta_checkpoint),
            older_checkpoints: Vec::new(),
        };
        Ok((publisher, tree))
    }

    fn note_written(&mut self, name: &str) {
        self.unsynced.push(name.to_owned());
        if !name.contains(".p/") {
            self.finished.push(format!("{name}.p"));
        }
    }

    /// Writes tiles ahead of their checkpoint.
    pub(crate) async fn write(&mut self, files: Vec<TileFile>) -> Result<()> {
        let files: Vec<_> = files.into_iter().map(|(name, bytes)| (tlog_name(&name), bytes)).collect();
        let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
        // What could not be written must not be waited for when the rest is synced.
        self.storage.put_many(files).await?;
        names.iter().for_each(|name| self.note_written(name));
        Ok(())
    }

    /// These tiles are written with the next checkpoint.
    pub(crate) fn write_later(&mut self, files: Vec<TileFile>) {
        self.waiting.extend(files);
    }

    /// Of the tiles that wait, those are left out that other writers have published.
    pub(crate) async fn leave_out_published(&mut self, vkey: &str) -> Result<()> {
        let newest = read_checkpoint(&self.storage, vkey).await?;
        let size = newest.map_or(0, |newest| newest.size());
        self.waiting.retain(|(path, _)| !is_full_at(path, size));
        Ok(())
    }

    /// How many tiles wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The size that the newest checkpoint covers.
    pub(crate) fn covered(&self) -> u64 {
        self.published.unwrap_or_default()
    }

    /// The Delta checkpoint `file` is what the next note on the table vouches for.
    pub(crate) fn set_delta_checkpoint(&mut self, file: (String, Sha)) {
        let name = file.0.clone();
        let older = self.delta_checkpoint.replace(file).map(|(name, _)| name);
        self.older_checkpoints.extend(older.filter(|older| *older != name));
        self.noted = None;
    }

    /// Publishes the tree and the table's state; does nothing if that is done.
    pub(crate) async fn publish(&mut self, tree: &Tree, state: &TableState, keys: &LogKeys) -> Result<()> {
        if self.published != Some(tree.size()) {
            let written = self.write_unfinished(tree).await;
            let checkpoint = sign_checkpoint(keys, tree.size(), tree.root())?;
            // Where several writers take turns, another may be as far or ahead: a checkpoint never goes back.
            // The other has then removed unfinished tiles whose finished tile it has published, ours among them.
            let newer = |there: Option<Bytes>| -> Result<Option<Bytes>> {
                let there = there.map(|there| parse_checkpoint(&there, keys.vkey())).transpose()?;
                Ok(there.is_none_or(|there| there.size() < tree.size()).then(|| checkpoint.clone().into()))
            };
            match written {
                Ok(()) => self.storage.update(&tlog_name(CHECKPOINT), newer).await?,
                Err(error) => {
                    let there = self.storage.try_get(&tlog_name(CHECKPOINT)).await?;
                    if newer(there)?.is_some() {
                        return Err(error);
                    }
                }
            }
            // Not a second time: a crash could leave them torn, and the published checkpoint needs them.
            self.waiting.clear();
            self.unsynced.clear();
            self.published = Some(tree.size());
        }
        if self.noted != Some(state.version) {
            self.write_note(state, keys).await?;
            self.noted = Some(state.version);
        }
        self.remove_replaced().await
    }

    /// Writes the tiles that wait and the unfinished ones of `tree`, and makes all tiles durable.
    async fn write_unfinished(&mut self, tree: &Tree) -> Result<()> {
        // Tiles of the higher levels are often published already. These must not be written
        // again: a crash could leave them torn, and the published checkpoint needs them.
        let standing = self.published.map_or_else(Vec::new, partial_names);
        let partial = tree.partial_files().into_iter().filter(|(name, _)| !standing.contains(name));
        self.write(self.waiting.iter().cloned().chain(partial).collect()).await?;
        self.storage.sync(&self.unsynced).await
    }

    /// Writes the note on the table. Where several writers take turns, another may be ahead: neither the
    /// version nor the Delta checkpoint that a note names goes back.
    async fn write_note(&mut self, state: &TableState, keys: &LogKeys) -> Result<()> {
        let ours = TableNote {
            origin: keys.origin().to_owned(),
            version: state.version,
            chain: state.chain,
            signed_commits: true,
            files: self.delta_checkpoint.iter().cloned().collect(),
        };
        let update = |there: Option<Bytes>| {
            let mut note = ours.clone();
            let there = there.and_then(|there| open_table_note(&there, keys.vkey()));
            if let Some(there) = there.filter(|there| there.signed_commits) {
                if there.version > note.version {
                    (note.version, note.chain) = (there.version, there.chain);
                }
                // Names of checkpoints are in the order of their versions.
                note.files =
                    self.delta_checkpoint.clone().max(there.delta_checkpoint()).into_iter().collect();
            }
            Ok(Some(keys.sign(&note.text())?.into()))
        };
        self.storage.update(&tlog_name("table"), update).await?;
        let removed = self.older_checkpoints.len().saturating_sub(1);
        self.storage.remove(self.older_checkpoints.drain(..removed).collect()).await
    }

    /// Removes unfinished tiles whose finished tile is published.
    async fn remove_replaced(&mut self) -> Result<()> {
        // A bulk append finishes thousands of tiles, of which only the first on each level can
        // have been published unfinished: it stood at the edge of the tree before.
        let mut seen = std::collections::HashSet::new();
        let level_of = |name: &str| name.split('/').nth(2).map(str::to_owned);
        self.finished.retain(|name| seen.insert(level_of(name)));
        for folder in std::mem::take(&mut self.finished) {
            let stale = self.storage.list(&folder).await?;
            self.storage.remove(stale).await?;
        }
        Ok(())
    }
}

/// The edge of the tree as it was at `size`, by the tiles of the published one, of `published` entries.
pub(crate) async fn read_tree(storage: &Storage, size: u64, published: u64) -> Result<Tree> {
    let mut files = std::collections::HashMap::new();
    let tile = |path: String| async move {
        let (_, bytes) = get_earlier_tile(storage, &path, published).await?;
        Ok::<_, Error>((path, bytes))
    };
    for (path, bytes) in try_join_all(partial_names(size).into_iter().map(tile)).await? {
        if finished_file(&path).is_none_or(|(_, length)| bytes.len() != length) {
            return Err(Error::damaged(tlog_name(&path), "it does not have the length that its name says"));
        }
        files.insert(path, bytes);
    }
    Tree::restore(size, |path| {
        files.get(path).cloned().ok_or_else(|| Error::damaged(tlog_name(path), "it is missing"))
    })
}

/// A tile or bundle that has to be there.
pub(crate) async fn get_tile(storage: &Storage, path: &str) -> Result<Bytes> {
    let tile = try_get_tile(storage, path).await?;
    tile.ok_or_else(|| Error::damaged(tlog_name(path), "it is missing"))
}

/// A tile or bundle of the tree as it was, which the published one of `published` entries begins with, and the name of the
/// file that it was read from.
pub(crate) async fn get_earlier_tile(
    storage: &Storage,
    path: &str,
    published: u64,
) -> Result<(String, Bytes)> {
    let stored = path_at(path, published);
    let bytes = get_tile(storage, &stored).await?;
    let earlier = finished_file(path).filter(|_| stored != path);
    let length = earlier.map_or(bytes.len(), |(_, length)| length.min(bytes.len()));
    Ok((tlog_name(&stored), bytes.slice(..length)))
}

/// A tile or bundle. An unfinished one may have gone since its size was read: then the finished
/// one is there, and begins with it.
pub(crate) async fn try_get_tile(storage: &Storage, path: &str) -> Result<Option<Bytes>> {
    if let Some(bytes) = storage.try_get(&tlog_name(path)).await? {
        return Ok(Some(bytes));
    }
    let Some((finished, length)) = finished_file(path) else { return Ok(None) };
    let finished = storage.try_get(&tlog_name(finished)).await?;
    Ok(finished.filter(|bytes| bytes.len() >= length).map(|bytes| bytes.slice(..length)))
}

/// For an unfinished tile or bundle: the finished one's path, and how many of its bytes are the unfinished one.
pub(crate) fn finished_file(path: &str) -> Option<(&str, usize)> {
    let (finished, width) = path.split_once(".p/")?;
    let each = if path.starts_with(ENTRIES) { BUNDLE_ENTRY } else { HASH };
    Some((finished, width.parse::<usize>().ok()? * each))
}

/// The newest note on the table, if there is one and its signature holds.
pub(crate) async fn read_note(storage: &Storage, vkey: &str) -> Result<Option<TableNote>> {
    let note = storage.try_get(&tlog_name("table")).await?;
    Ok(note.and_then(|note| open_table_note(&note, vkey)))
}

fn open_table_note(note: &[u8], vkey: &str) -> Option<TableNote> {
    open_note(note, vkey).ok().and_then(|text| TableNote::parse(&text))
}

pub(crate) const CHECKPOINT: &str = "checkpoint";

/// The newest checkpoint, if one has been published; its signature is checked.
pub(crate) async fn read_checkpoint(storage: &Storage, vkey: &str) -> Result<Option<Checkpoint>> {
    let note = storage.try_get(&tlog_name(CHECKPOINT)).await?;
    note.map(|note| parse_checkpoint(&note, vkey)).transpose()
}

/// The signed checkpoint of a tree.
pub(crate) fn sign_checkpoint(keys: &LogKeys, size: u64, root: Hash) -> Result<Vec<u8>> {
    let checkpoint = Checkpoint::new(keys.origin(), size, root, "")
        .map_err(|e| Error::damaged(tlog_name(CHECKPOINT), e))?;
    keys.sign(&String::from_utf8_lossy(&checkpoint.to_bytes()))
}

pub(crate) fn parse_checkpoint(note: &[u8], vkey: &str) -> Result<Checkpoint> {
    open_checkpoint(note, vkey).map_err(|e| Error::damaged(tlog_name(CHECKPOINT), e))
}

/// A signed checkpoint's content, if `vkey` signed it and it is of the key's log.
pub fn open_checkpoint(note: &[u8], vkey: &str) -> Result<Checkpoint, String> {
    let text = open_note(note, vkey)?;
    let checkpoint = Checkpoint::from_bytes(text.as_bytes()).map_err(|e| e.to_string())?;
    let name = vkey.split('+').next().unwrap_or_default();
    if checkpoint.origin() != name {
        return Err(format!("it is a checkpoint of '{}', not of '{name}'", checkpoint.origin()));
    }
    Ok(checkpoint)
}

/// What the note on the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableNote {
    origin: String,
    /// The version that the digest goes up to.
    pub version: u64,
    /// The chain over all commits up to that version.
    pub chain: Sha,
    /// Whether the commits are signed one by one, which those of earlier versions of this program are not.
    pub signed_commits: bool,
    /// The newest Delta checkpoint, with its digest. Earlier versions of this program name the hint on
    /// that checkpoint, too.
    pub files: Vec<(String, Sha)>,
}

const TABLE_NOTE: &str = "sporlog-table/2";
/// The note of earlier versions of this program, which do not sign commits.
const TABLE_NOTE_UNSIGNED: &str = "sporlog-table/1";

impl TableNote {
    fn text(&self) -> String {
        let header = if self.signed_commits { TABLE_NOTE } else { TABLE_NOTE_UNSIGNED };
        let mut text = format!("{header}\n{}\n{}\n{}\n", self.origin, self.version, hex(self.chain));
        for (name, digest) in &self.files {
            text.push_str(&format!("{name} {}\n", hex(digest)));
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let signed_commits = match lines.next()? {
            TABLE_NOTE => true,
            TABLE_NOTE_UNSIGNED => false,
            _ => return None,
        };
        let origin = lines.next()?.to_owned();
        let version = lines.next()?.parse().ok()?;
        let chain = unhex(lines.next()?)?;
        let file = |line: &str| {
            let (name, digest) = line.split_once(' ')?;
            Some((name.to_owned(), unhex(digest)?))
        };
        let files = lines.map(file).collect::<Option<_>>()?;
        Some(TableNote { origin, version, chain, signed_commits, files })
    }

    /// The Delta checkpoint that the note vouches for, and its digest.
    fn delta_checkpoint(self) -> Option<(String, Sha)> {
        self.files.into_iter().find(|(name, _)| checkpoint_version(name).is_some())
    }
}

const KEYS_NOTE: &str = "sporlog-log-keys/1";
/// The note on a log's keys, in `tlog/`; there is none before the first rotation.
pub(crate) const KEYS: &str = "keys";

/// The text of the note on a log's keys.
pub(crate) fn keys_note(keys: &LogKeys) -> String {
    format!("{KEYS_NOTE}\n{}\n{}", keys.origin(), keys.vkeys())
}

/// The keys that `given` vouches for, in the note on the log's keys; `given` alone if there is no note.
pub(crate) async fn vouched_keys(storage: &Storage, given: &str) -> Result<String> {
    let name = tlog_name(KEYS);
    let note = storage.try_get(&name).await?;
    let keys = note.map(|note| open_keys(&note, given).map_err(|e| Error::damaged(name, e))).transpose()?;
    Ok(keys.unwrap_or_else(|| given.to_owned()))
}

/// The keys in a note on a log's keys, if `given` has signed it.
pub(crate) fn open_keys(note: &[u8], given: &str) -> Result<String, String> {
    let text = open_note(note, given)?;
    let keys = text.strip_prefix(KEYS_NOTE).and_then(|rest| rest.strip_prefix('\n'));
    let (_, keys) = keys.and_then(|rest| rest.split_once('\n')).ok_or("it is no note on a log's keys")?;
    Ok(keys.to_owned())
}

/// A range of records that retention removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The first id removed.
    pub first: u64,
    /// The last id removed.
    pub last: u64,
    /// When, RFC 3339.
    pub at: String,
}

const EXPIRY_NOTE: &str = "sporlog-expiry/1";

/// The note on the expiry of these records, relative to the log's folder.
pub(crate) fn expiry_name(first: u64, last: u64) -> String {
    tlog_name(&format!("expired/{first:020}-{last:020}"))
}

impl Expiry {
    fn name(&self) -> String {
        expiry_name(self.first, self.last)
    }

    /// Writes the signed note.
    pub(crate) async fn write(&self, storage: &Storage, keys: &LogKeys) -> Result<()> {
        let Expiry { first, last, at } = self;
        let text = format!("{EXPIRY_NOTE}\n{}\n{first}\n{last}\n{at}\n", keys.origin());
        storage.put(&self.name(), keys.sign(&text)?.into()).await
    }

    /// All that have been written, in order; each signature is checked.
    pub(crate) async fn read_all(storage: &Storage, vkey: &str) -> Result<Vec<Expiry>> {
        let mut names = storage.list(&tlog_name("expired")).await?;
        names.sort();
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let text = open_note(&storage.get(&name).await?, vkey).map_err(|e| Error::damaged(&name, e))?;
            let lines: Vec<_> = text.lines().collect();
            let [EXPIRY_NOTE, _, first, last, at] = lines[..] else {
                return Err(Error::damaged(name, "it is no note of an expiry"));
            };
            let id = |text: &str| text.parse::<u64>().map_err(|e| Error::damaged(&name, e));
            let expiry = Expiry { first: id(first)?, last: id(last)?, at: at.to_owned() };
            if expiry.name() != name {
                return Err(Error::damaged(name, "it is about other records than its name says"));
            }
            all.push(expiry);
        }
        Ok(all)
    }
}

/// Tiles fetched beforehand, for `tlog_tiles`' proofs, which check each of them against the root.
pub(crate) struct FetchedTiles {
    tiles: std::collections::HashMap<String, Bytes>,
}

impl FetchedTiles {
    /// Fetches what proofs about the given leaves need in a tree of `size`.
    pub(crate) async fn fetch(storage: &Storage, size: u64, leaves: &[u64]) -> Result<Self> {
        let mut tiles = std::collections::HashMap::new();
        // Proving needs the tiles above a leaf, and those at the right edges of the trees in question.
        for level in 0..8u8 {
            let hashes = size >> (TILE_HEIGHT * level);
            if hashes == 0 {
                break;
            }
            for leaf in leaves.iter().copied().chain([size - 1]) {
                let n = ((leaf >> (TILE_HEIGHT * level)) / 256).min((hashes - 1) / 256);
                for n in [n, (hashes - 1) / 256] {
                    let path = tile_path(level, n, (hashes - n * 256).min(256));
                    if let Entry::Vacant(place) = tiles.entry(path.clone()) {
                        place.insert(get_tile(storage, &path).await?);
                    }
                }
            }
        }
        Ok(FetchedTiles { tiles })
    }
}

impl TileReader for FetchedTiles {
    fn height(&self) -> u8 {
        TILE_HEIGHT
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        let read = |tile: &Tile| {
            let path = tile_path(tile.level(), tile.level_index(), u64::from(tile.width()));
            self.tiles.get(&path).map(|bytes| bytes.to_vec()).ok_or(tlog::Error::InvalidTile)
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

/// The root of the tree as it was at `size`, by the tiles of the signed `checkpoint`; `None` if they do not say.
pub(crate) async fn root_at(
    storage: &Storage,
    checkpoint: Option<&Checkpoint>,
    size: u64,
) -> Result<Option<Hash>> {
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
