//! A consistent copy of a log that is written to, compacted and expired meanwhile.
//!
//! A copy is a log's folder at a version that the log once had, without what no version needs any more.
//! The steps, and what a crash after each of them leaves:
//!
//! 1. The checkpoint and the note on the table are read; then the table and the journal, which are at least as new.
//! 2. The checkpoint's tiles, the notes of expiry, the data files of the table's newest version and the frames after it
//!    are copied. A file that is gone has been merged, taken over or expired: then a newer version is copied.
//!    A crash leaves files that no commit of the copy names, which the next run finds there; or more frames after
//!    the copy's newest commit.
//! 3. The commits that the copy does not have are copied, the oldest of them last: only then does a reader
//!    come to the others. A crash before leaves the copy at the version that it had.
//! 4. The note on the table and the checkpoint follow. A crash leaves the earlier ones, which are true.
//! 5. What the copy does not need any more is removed: merged and expired files, replaced tiles.
//! 6. The copy is verified. A file that is damaged in the copy is removed and copied once more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};
use tlog_tiles::checkpoint::Checkpoint;

use crate::commit::{Commit, commit_name};
use crate::delta::{Sha, checkpoint_version};
use crate::delta_checkpoint::{DeltaCheckpoint, last_checkpoint_name};
use crate::error::{Error, Result};
use crate::journal::{Extent, Frame, Tail, scan};
use crate::keys::open_note;
use crate::log::Log;
use crate::segment::Segments;
use crate::storage::Storage;
use crate::store::Store;
use crate::table_state::TableState;
use crate::tlog::{
    BUNDLE_ENTRY, HASH, KEYS, TableNote, get_tile, open_checkpoint, read_checkpoint, root_at, tlog_name,
};
use crate::tree::files_of_level;
use crate::verified::{Problem, Verified};

/// Small files that are read at once, and that are written together.
const AT_ONCE: usize = 16;
const TOGETHER: usize = 1_024;
/// How often, and how long, the signature on a new Delta checkpoint is waited for.
const NOTE_TRIES: usize = 40;
const NOTE_PAUSE: Duration = Duration::from_millis(100);

/// What became of a copy, and how far it goes.
#[derive(Debug, Clone, Default)]
pub struct Copied {
    /// The version of the table.
    pub version: u64,
    /// The oldest id that retention has left; one above `head` if there is none.
    pub first: u64,
    /// The newest id.
    pub head: u64,
    /// How many records the signed checkpoint covers.
    pub covered: u64,
    /// The newest time of receipt, in microseconds UTC; `None` if there are no records.
    pub received_at: Option<i64>,
    /// Files that were copied, and their bytes.
    pub files: u64,
    /// See `files`.
    pub bytes: u64,
    /// What is wrong with the copy; empty when it verifies.
    pub problems: Vec<Problem>,
}

impl Log {
    /// Copies the log into the store `to`, over an earlier copy of it if there is one. Only what that does
    /// not have is copied. `progress` is told how many bytes have been.
    pub async fn copy_to(&self, to: &Store, progress: impl Fn(u64) + Send + Sync) -> Result<Copied> {
        to.check_before_first_log().await?;
        let mut sum = Copied::default();
        for attempt in 1.. {
            let copied = Copier::new(self, to, &progress).await?.copy().await?;
            sum = Copied { files: sum.files + copied.files, bytes: sum.bytes + copied.bytes, ..copied };
            let verified = async {
                let secrets = self.shared.keys.as_ref().map(|(keys, _)| keys.clone());
                let copy = to.copy_to_verify(self.name(), self.vkey(), secrets).await?;
                copy.verify(|_| ()).await
            };
            let verified = verified.await.unwrap_or_else(|error| {
                let mut verified = Verified::default();
                verified.found(error);
                verified
            });
            sum.problems = verified.problems;
            if sum.problems.is_empty() || attempt == 2 {
                break;
            }
            // A problem may also be of a folder, which no file can be copied for anew.
            let there = to.folder_of(self.name()).list_with_sizes("").await?;
            let damaged = sum.problems.iter().map(|problem| &problem.file);
            let damaged: Vec<_> = damaged.filter(|file| there.contains_key(*file)).cloned().collect();
            if damaged.is_empty() {
                break;
            }
            to.folder_of(self.name()).remove(damaged).await?;
        }
        Ok(sum)
    }

    /// How far the log goes, in the terms of a copy.
    pub async fn extent(&self) -> Result<Copied> {
        let checkpoint = crate::tlog::read_checkpoint(&self.shared.storage, self.vkey()).await?;
        Ok(Copied::of(&self.state(), checkpoint.as_ref().map_or(0, Checkpoint::size)))
    }
}

impl Copied {
    fn of(state: &TableState, covered: u64) -> Self {
        Copied {
            version: state.version,
            first: state.first(),
            head: state.size,
            covered,
            received_at: state.parts().map(|part| part.received().1).max(),
            ..Copied::default()
        }
    }
}

struct Copier<'a> {
    log: &'a Log,
    from: &'a Storage,
    to: Storage,
    /// The files of the copy, and their sizes.
    there: HashMap<String, u64>,
    /// The files that the copy needs.
    needed: HashSet<String>,
    files: u64,
    bytes: u64,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl<'a> Copier<'a> {
    async fn new(log: &'a Log, to: &Store, progress: &'a (dyn Fn(u64) + Send + Sync)) -> Result<Self> {
        let to = to.folder_of(log.name());
        let there = to.list_with_sizes("").await?;
        let (needed, from) = (HashSet::new(), &log.shared.storage);
        Ok(Copier { log, from, to, there, needed, files: 0, bytes: 0, progress })
    }

    async fn copy(mut self) -> Result<Copied> {
        let checkpoint = self.from.try_get(&tlog_name("checkpoint")).await?;
        let (note, delta_checkpoint) = self.read_note().await?;
        self.log.refresh().await?;
        let next = self.first_missing_commit().await?;

        let covered = match &checkpoint {
            Some(note) => open_checkpoint(note, self.log.vkey())
                .map_err(|e| Error::damaged(tlog_name("checkpoint"), e))?
                .size(),
            None => 0,
        };
        let mut small: Vec<_> = tiles_of(covered).collect();
        let state = self.copy_data_files().await?;
        // A note of an expiry is written before the commit.
        small.extend(self.from.list(&tlog_name("expired")).await?.into_iter().map(|name| (name, None)));
        self.copy_small(small).await?;
        self.copy_commits(next, state.version).await?;
        for (name, bytes) in delta_checkpoint {
            self.put(name, bytes).await?;
        }
        // A key may have been replaced since the last copy.
        let (keys, key) = (tlog_name(KEYS), tlog_name("key"));
        let last = [
            (keys.clone(), self.from.try_get(&keys).await?),
            (key.clone(), self.from.try_get(&key).await?),
            (tlog_name("table"), note),
            (tlog_name("checkpoint"), checkpoint),
        ];
        for (name, bytes) in last {
            let Some(bytes) = bytes else { continue };
            if self.to.try_get(&name).await?.as_ref() == Some(&bytes) {
                self.needed.insert(name);
            } else {
                self.put(name, bytes).await?;
            }
        }
        let Copier { to, there, needed, files, bytes, .. } = self;
        to.remove(there.into_keys().filter(|name| !needed.contains(name)).collect()).await?;
        Ok(Copied { files, bytes, ..Copied::of(&state, covered) })
    }

    /// The first version that the copy does not have. What it has must be the beginning of this log.
    async fn first_missing_commit(&self) -> Result<u64> {
        let next = (0..).find(|version| !self.there.contains_key(&commit_name(*version))).unwrap_or_default();
        let Some(newest) = next.checked_sub(1) else { return Ok(0) };
        let name = commit_name(newest);
        let (here, there) = (self.from.try_get(&name).await?, self.to.get(&name).await?);
        if here.is_none_or(|here| here != there) {
            return Err(self.no_earlier_state(&name));
        }
        self.check_frames(newest, &there).await?;
        Ok(next)
    }

    fn no_earlier_state(&self, name: &str) -> Error {
        let reason = format!(
            "its copy in {} is no earlier state of it: {name} is not the log's; if that copy is not needed, remove \
             it, or else choose another folder",
            self.to.location("")
        );
        Error::Copy { log: self.log.name().to_owned(), reason }
    }

    /// The note on the table, and the Delta checkpoint that it vouches for. Where the log is written to, a
    /// newer one may just have replaced that: then a newer note follows shortly.
    async fn read_note(&self) -> Result<(Option<Bytes>, Vec<(String, Bytes)>)> {
        for attempt in 1.. {
            let Some(note) = self.from.try_get(&tlog_name("table")).await? else { break };
            let text =
                open_note(&note, self.log.vkey()).map_err(|e| Error::damaged(tlog_name("table"), e))?;
            let files = TableNote::parse(&text).map(|note| note.files).unwrap_or_default();
            let mut whole = Vec::with_capacity(files.len());
            for (name, digest) in &files {
                let bytes = self.from.try_get(name).await?;
                let bytes = bytes.filter(|bytes| Sha::from(Sha256::digest(bytes)) == *digest);
                whole.extend(bytes.map(|bytes| (name.clone(), bytes)));
            }
            if whole.len() == files.len() || attempt == NOTE_TRIES {
                // Other readers of Delta tables find the checkpoint by a hint. The log's own may point to a newer
                // checkpoint; and that of an earlier version of this program is among the files already.
                if let [(name, bytes)] = &whole[..]
                    && let Some(version) = checkpoint_version(name)
                {
                    let hint = DeltaCheckpoint::decode(name, bytes.clone())?.hint(version)?;
                    whole.push((last_checkpoint_name(), hint));
                }
                return Ok((Some(note), whole));
            }
            tokio::time::sleep(NOTE_PAUSE).await;
        }
        Ok((None, Vec::new()))
    }

    /// Copies the data files and indexes of the table's newest version, and gives that version.
    async fn copy_data_files(&mut self) -> Result<Arc<TableState>> {
        loop {
            let state = self.log.state();
            match self.copy_data_files_of(&state).await {
                Ok(()) => return Ok(state),
                Err(error) => {
                    self.log.refresh().await?;
                    if !self.log.state().is_newer(&state) {
                        return Err(match error {
                            Error::Storage { file, source: object_store::Error::NotFound { .. } } => {
                                Error::damaged(file, "it is missing")
                            }
                            error => error,
                        });
                    }
                }
            }
        }
    }

    async fn copy_data_files_of(&mut self, state: &TableState) -> Result<()> {
        self.needed.clear();
        for file in state.files.iter() {
            let index = file.index.map(|digest| (file.index_name(), digest, None));
            for (name, digest, size) in
                [Some((file.name(), file.sha256, Some(file.size))), index].into_iter().flatten()
            {
                let has = self.there.get(&name).is_some_and(|there| size.is_none_or(|size| size == *there));
                if !has {
                    self.copy_checked(&name, digest).await?;
                }
                self.needed.insert(name);
            }
        }
        self.copy_frames(state).await
    }

    /// Copies the segment of the journal as far as `state` goes.
    async fn copy_frames(&mut self, state: &TableState) -> Result<()> {
        let extent = &state.recent.extent;
        if extent.frames == 0 {
            return Ok(());
        }
        let none = Extent::none(state.version, state.chain);
        let mut bytes = self.log.shared.table.segments.read(&none).await?.unwrap_or_default();
        bytes.truncate(extent.bytes as usize);
        let scanned = scan(&none, &bytes, Tail::Torn)?;
        if scanned.last().is_none_or(|newest| newest.after != *extent) {
            return Err(Error::damaged(extent.name(), "its frames are not those that were read before"));
        }
        let to = Segments::of(&self.to);
        if to.read(&none).await?.is_none_or(|there| there != bytes) {
            let size = bytes.len() as u64;
            to.put_copy(&self.to, extent, bytes).await?;
            self.copied(extent.name(), size);
        }
        let of_this = to.names().await?.into_iter().filter(|(version, _)| *version == state.version);
        self.needed.extend(of_this.map(|(_, name)| name));
        Ok(())
    }

    /// Fails if the frames after the newest commit of the copy, of `version`, are not this log's. Frames that are
    /// damaged in the copy do not count.
    async fn check_frames(&self, version: u64, commit: &[u8]) -> Result<()> {
        let commit = Commit::parse(&commit_name(version), commit)?;
        let none = Extent::none(version, commit.chain_after(&commit.previous));
        let Some(there) = Segments::of(&self.to).read(&none).await? else { return Ok(()) };
        let scanned = scan(&none, &there, Tail::Torn);
        let Some(newest) = scanned.ok().and_then(|mut frames| frames.pop()) else { return Ok(()) };
        if newest.check_signature(&self.log.shared.key, &there).is_err() {
            return Ok(());
        }
        let whole = &there[..newest.after.bytes as usize];
        let here = self.log.shared.table.segments.read(&none).await?.unwrap_or_default();
        let same = here.starts_with(whole) || {
            let Frame { size, root, .. } = newest.decode(&there)?;
            let covered = read_checkpoint(self.from, self.log.vkey()).await?;
            here.is_empty()
                && root_at(self.from, covered.as_ref(), size).await?.is_none_or(|here| here == root)
        };
        if same { Ok(()) } else { Err(self.no_earlier_state(&none.name())) }
    }

    /// Copies a file, which has to have this digest.
    async fn copy_checked(&mut self, name: &str, expected: Sha) -> Result<()> {
        let got = self.from.store().get(&self.from.path(name)).await.map_err(Error::storage(name))?;
        let mut digest = Sha256::new();
        let mut size = 0;
        let chunks = got.into_stream().inspect_ok(|chunk| {
            digest.update(chunk);
            size += chunk.len() as u64;
        });
        self.to.put_stream(name, chunks).await?;
        if Sha::from(digest.finalize()) != expected {
            self.to.remove(vec![name.to_owned()]).await?;
            return Err(Error::damaged(name, "it has been changed: its digest is not the recorded one"));
        }
        self.copied(name.to_owned(), size);
        Ok(())
    }

    fn copied(&mut self, name: String, size: u64) {
        self.there.insert(name, size);
        self.files += 1;
        self.bytes += size;
        (self.progress)(self.bytes);
    }

    /// Copies those of these files that the copy does not have, at this size if it is known. Durable when
    /// it returns.
    async fn copy_small(&mut self, names: Vec<(String, Option<u64>)>) -> Result<()> {
        self.needed.extend(names.iter().map(|(name, _)| name.clone()));
        let has = |(name, size): &(String, Option<u64>)| {
            self.there.get(name).is_some_and(|there| size.is_none_or(|size| size == *there))
        };
        let missing: Vec<_> = names.into_iter().filter(|file| !has(file)).map(|(name, _)| name).collect();
        let from = self.from;
        let read = |name: String| async move {
            let tile = name.strip_prefix(&tlog_name("")).filter(|path| path.starts_with("tile/"));
            let bytes = match tile {
                Some(path) => get_tile(from, path).await?,
                None => from.get(&name).await?,
            };
            Ok::<_, Error>((name, bytes))
        };
        let mut batches = stream::iter(missing.clone()).map(read).buffered(AT_ONCE).try_chunks(TOGETHER);
        while let Some(batch) = batches.try_next().await.map_err(|chunks| chunks.1)? {
            let sizes: Vec<_> =
                batch.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
            self.to.put_many(batch).await?;
            sizes.into_iter().for_each(|(name, size)| self.copied(name, size));
        }
        self.to.sync(&missing).await
    }

    /// Copies the commits from `next` to `newest`. With the last step, readers of the copy see them.
    async fn copy_commits(&mut self, next: u64, newest: u64) -> Result<()> {
        let names = |versions: std::ops::RangeInclusive<u64>| versions.map(commit_name);
        self.needed.extend(names(0..=newest));
        // What a run that was killed left beyond the first missing one may be cut off, or too new.
        let left: Vec<_> = self.there.keys().filter(|name| is_commit_from(name, next)).cloned().collect();
        self.there.retain(|name, _| !is_commit_from(name, next));
        self.to.remove(left).await?;
        if next > newest {
            return Ok(());
        }
        self.copy_small(names(next + 1..=newest).map(|name| (name, None)).collect()).await?;
        let first = self.from.get(&commit_name(next)).await?;
        self.put(commit_name(next), first).await
    }

    async fn put(&mut self, name: String, bytes: Bytes) -> Result<()> {
        let size = bytes.len() as u64;
        self.needed.insert(name.clone());
        if self.there.get(&name) == Some(&size) && self.to.get(&name).await? == bytes {
            return Ok(());
        }
        self.to.put(&name, bytes).await?;
        self.copied(name, size);
        Ok(())
    }
}

/// Whether this is a commit's file, of this version or a later one.
fn is_commit_from(name: &str, version: u64) -> bool {
    let first = commit_name(version);
    name.len() == first.len() && name.ends_with(".json") && *name >= *first
}

/// The files of a tree of `size` and their sizes, all levels and the entries.
pub(crate) fn tiles_of(size: u64) -> impl Iterator<Item = (String, Option<u64>)> {
    [None].into_iter().chain((0..8).map(Some)).flat_map(move |level| {
        let each = if level.is_some() { HASH } else { BUNDLE_ENTRY } as u64;
        files_of_level(size, level).map(move |(path, width)| (tlog_name(&path), Some(width * each)))
    })
}
