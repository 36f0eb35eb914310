//! Recomputes everything, from the records up.
//!
//! Every commitment from its record, every tile from the commitments, the root from the tiles,
//! and that against the signed checkpoint; every commit of the Delta log against the signed note
//! on the table; every data file and index against its digest in the Delta log. Whoever changed,
//! removed, added or reordered a record, or a byte of any of these files, is found out, and the
//! file is named.
//!
//! Without the log's secret, all but the first step is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tlog::{self, Hash};

use crate::error::{Error, Result};
use crate::files::Pages;
use crate::keys::{Commitment, open_note};
use crate::log::{Log, Shared};
use crate::seal::{Sealer, numbers};
use crate::storage::Storage;
use crate::table::{DataFile, Sha, commit_name, extend_chain, parse_commit};
use crate::tlog::{Expiry, TableNote, read_checkpoint, tlog_name};
use crate::tree::{TILE_WIDTH, Tree, bundle_path};

/// Row groups whose commitments are computed at once.
const AT_ONCE: usize = 3;
/// Commits read at once.
const COMMITS_AT_ONCE: usize = 16;
/// Bytes of a commitment in a bundle, with its length.
const BUNDLE_ENTRY: usize = 2 + size_of::<Commitment>();

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the log's folder.
    pub file: String,
    /// What is wrong.
    pub problem: String,
}

/// What a verification found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// The newest id.
    pub head: u64,
    /// Records whose commitment was recomputed.
    pub records: u64,
    /// Records that retention removed, and whose removal is signed for.
    pub expired: u64,
    /// Data files read.
    pub files: usize,
    /// Commits of the Delta log read.
    pub commits: u64,
    /// Whether the log's secret was at hand, without which records are only checked by their files' digests.
    pub with_secret: bool,
    /// All that is wrong; empty when nothing is.
    pub problems: Vec<Problem>,
}

impl Verified {
    fn found(&mut self, error: Error) {
        let (file, problem) = match error {
            Error::Damaged { file, problem } => (file, problem),
            Error::Storage { file, source: object_store::Error::NotFound { .. } } => {
                (file, "it is missing".into())
            }
            Error::Storage { file, source } => (file, source.to_string()),
            Error::Parquet { file, source } => (file, format!("it cannot be read: {source}")),
            other => ("-".into(), other.to_string()),
        };
        if !self.problems.iter().any(|p| p.file == file && p.problem == problem) {
            self.problems.push(Problem { file, problem });
        }
    }

    fn check(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.found(error);
        }
    }
}

impl Log {
    /// Verifies the whole log. `progress` is told now and then how many records are done.
    pub async fn verify(&self, progress: impl Fn(u64) + Send + Sync) -> Result<Verified> {
        let shared = &self.shared;
        let mut verified = Verified { with_secret: shared.keys.is_some(), ..Verified::default() };
        let files = self.verify_table(&mut verified).await?;

        let checkpoint = match read_checkpoint(&shared.storage, &shared.vkey).await {
            Ok(Some(checkpoint)) => Some(checkpoint),
            Ok(None) => {
                verified.found(Error::damaged(tlog_name("checkpoint"), "it is missing"));
                None
            }
            Err(error) => {
                verified.found(error);
                None
            }
        };
        let expiries = match Expiry::read_all(&shared.storage, &shared.vkey).await {
            Ok(expiries) => expiries,
            Err(error) => {
                verified.found(error);
                Vec::new()
            }
        };
        let mut rebuilt = Rebuilt::new(&shared.storage, checkpoint);
        let mut next = 1;
        for file in &files {
            if file.first > next {
                self.verify_gap(&mut verified, &mut rebuilt, &expiries, next, file.first - 1).await?;
            } else if file.first < next {
                let problem =
                    format!("it holds the ids from {} on, which other files hold already", file.first);
                verified.found(Error::damaged(file.name(), problem));
                continue;
            }
            next = file.last + 1;
            let digest = verify_digest(&shared.storage, &file.name(), file.sha256).await;
            verified.check(digest);
            if let Some(index) = file.index {
                verified.check(verify_digest(&shared.storage, &file.index_name(), index).await);
            }
            verified.files += 1;
            if let Err(error) = self.verify_records(&mut verified, &mut rebuilt, file, &progress).await {
                // What cannot be read is made up for from the entries, so that the rest is checked too.
                verified.found(error);
                rebuilt.copy_entries(&mut verified, file.last).await;
            }
        }
        if next <= verified.head {
            let head = verified.head;
            self.verify_gap(&mut verified, &mut rebuilt, &expiries, next, head).await?;
        }
        rebuilt.finish(&mut verified).await;
        Ok(verified)
    }

    /// Replays the Delta log; gives the files that it says there are.
    async fn verify_table(&self, verified: &mut Verified) -> Result<Vec<DataFile>> {
        let (storage, table) = (&self.shared.storage, &self.shared.table);
        let note = storage.try_get(&tlog_name("table")).await?;
        let note = note.ok_or_else(|| "it is missing".to_owned());
        let note = note.and_then(|note| open_note(&note, &self.shared.vkey));
        let note =
            note.and_then(|text| TableNote::parse(&text).ok_or_else(|| "it is no note on a table".into()));
        let note = note.map_err(|problem| verified.found(Error::damaged(tlog_name("table"), problem))).ok();

        let mut files: BTreeMap<String, DataFile> = BTreeMap::new();
        let mut chain = Sha::default();
        let mut commits = futures::stream::iter(0..)
            .map(|version| async move { (version, table.read_commit(version).await) })
            .buffered(COMMITS_AT_ONCE);
        let mut root = None;
        while let Some((version, read)) = commits.next().await {
            let Some(bytes) = read? else { break };
            let name = commit_name(version);
            verified.commits += 1;
            match parse_commit(&name, &bytes) {
                Ok(parsed) => {
                    match parsed.statement() {
                        Some((size, stated, previous)) => {
                            if previous != chain {
                                let before = commit_name(version.saturating_sub(1));
                                verified.found(Error::damaged(
                                    before,
                                    "it is not what the commit after it vouches for",
                                ));
                            }
                            verified.head = size;
                            root = Some((name.clone(), size, stated));
                        }
                        None => verified.found(Error::damaged(&name, "this commit was not made by Sporlog")),
                    }
                    for path in &parsed.removed {
                        if files.remove(path).is_none() {
                            verified.found(Error::damaged(
                                &name,
                                format!("it removes {path}, which is not there"),
                            ));
                        }
                    }
                    files.extend(parsed.added.into_iter().map(|file| (file.path.clone(), file)));
                }
                Err(error) => verified.found(error),
            }
            chain = extend_chain(&chain, &bytes);
            if let Some(note) = note.as_ref().filter(|note| note.version == version)
                && note.chain != chain
            {
                let problem =
                    format!("the commits up to version {version} are not those that were signed for");
                verified.found(Error::damaged(name, problem));
            }
        }
        if let Some(note) = &note {
            if note.version >= verified.commits {
                let name = commit_name(verified.commits);
                verified.found(Error::damaged(
                    name,
                    format!("it is missing; commits up to {} were signed for", note.version),
                ));
            }
            for (name, digest) in &note.files {
                // A newer checkpoint may have replaced the hint since; the note then follows shortly.
                verified.check(verify_digest(storage, name, *digest).await);
            }
        }
        if let Some((name, size, stated)) = root {
            verified.check(self.verify_root(&name, size, stated).await);
        }
        let mut files: Vec<_> = files.into_values().collect();
        files.sort_by_key(|f| f.first);
        Ok(files)
    }

    /// The newest commit's root, where the checkpoint is of the same size.
    async fn verify_root(&self, name: &str, size: u64, stated: Hash) -> Result<()> {
        match read_checkpoint(&self.shared.storage, &self.shared.vkey).await {
            Ok(Some(checkpoint)) if checkpoint.size() == size && *checkpoint.hash() != stated => {
                Err(Error::damaged(name, "it states another root than the checkpoint"))
            }
            Ok(Some(checkpoint)) if checkpoint.size() > size => Err(Error::damaged(
                name,
                format!("the table ends at record {size}, and the checkpoint covers {}", checkpoint.size()),
            )),
            // A checkpoint that cannot be read is reported where it is read.
            _ => Ok(()),
        }
    }

    /// Ids that no file holds: retention must have signed for them.
    async fn verify_gap(
        &self,
        verified: &mut Verified,
        rebuilt: &mut Rebuilt<'_>,
        expiries: &[Expiry],
        first: u64,
        last: u64,
    ) -> Result<()> {
        let mut next = first;
        for expiry in expiries {
            if expiry.first <= next && expiry.last >= next {
                next = expiry.last + 1;
            }
        }
        let signed = next.min(last + 1);
        verified.expired += signed - first;
        if signed <= last {
            let problem =
                format!("the records {signed} to {last} are missing, and no expiry was signed for them");
            verified.found(Error::damaged(crate::table::TABLE, problem));
        }
        rebuilt.copy_entries(verified, last).await;
        Ok(())
    }

    /// The records of one file: their numbers, and their commitments if the secret is at hand.
    async fn verify_records(
        &self,
        verified: &mut Verified,
        rebuilt: &mut Rebuilt<'_>,
        file: &DataFile,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let shared = &self.shared;
        let Some(keys) = &shared.keys else {
            rebuilt.copy_entries(verified, file.last).await;
            return Ok(());
        };
        let sealer = Sealer { log: shared.name.clone(), kind: shared.kind, keys: keys.clone() };
        let name: Arc<str> = file.name().into();
        let open = shared.files.open(&shared.storage, &name, Pages::Locations).await?;
        let mut first = file.first;
        let groups: Vec<_> = open.metadata().row_groups().iter().map(|g| g.num_rows() as u64).collect();
        let mut parts = Vec::with_capacity(groups.len());
        for (group, rows) in groups.into_iter().enumerate() {
            parts.push((group, first, rows));
            first += rows;
        }
        if first != file.last + 1 {
            return Err(Error::damaged(
                &*name,
                format!("it has {} rows, not {}", first - file.first, file.rows()),
            ));
        }
        let commit = |(group, first, rows): (usize, u64, u64)| {
            let (shared, sealer, name) = (shared.clone(), sealer.clone(), name.clone());
            tokio::spawn(async move { commitments_of(&shared, &sealer, &name, group, first, rows).await })
        };
        let mut computed = futures::stream::iter(parts).map(commit).buffered(AT_ONCE);
        while let Some(entries) = computed.next().await {
            let entries = entries
                .map_err(|e| Error::Failed { log: shared.name.to_string(), reason: e.to_string() })??;
            for (entry, leaf) in &entries {
                rebuilt.push(entry, leaf);
            }
            verified.records += entries.len() as u64;
            rebuilt.compare(verified, Some(file)).await;
            progress(verified.records);
        }
        Ok(())
    }
}

/// The commitments of one row group, whose ids have to be those expected.
async fn commitments_of(
    shared: &Shared,
    sealer: &Sealer,
    name: &str,
    group: usize,
    first: u64,
    rows: u64,
) -> Result<Vec<(Commitment, Hash)>> {
    let open = shared.files.open(&shared.storage, name, Pages::Locations).await?;
    let stream =
        open.with_row_groups(vec![group]).with_batch_size(4_096).build().map_err(Error::parquet(name))?;
    let mut stream = stream.map_err(Error::parquet_stream(name));
    let mut entries = Vec::with_capacity(rows as usize);
    let mut buffer = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        check_ids(name, &batch, first + entries.len() as u64)?;
        entries.extend(sealer.commitments(&batch, &mut buffer)?);
    }
    Ok(entries)
}

fn check_ids(name: &str, batch: &RecordBatch, first: u64) -> Result<()> {
    let (ids, _) = numbers(batch)?;
    match ids.values().iter().zip(first..).find(|(id, expected)| **id as u64 != *expected) {
        Some((id, expected)) => {
            Err(Error::damaged(name, format!("record {id} stands where record {expected} should be")))
        }
        None => Ok(()),
    }
}

/// A file's digest, taken piece by piece.
async fn verify_digest(storage: &Storage, name: &str, expected: Sha) -> Result<()> {
    let got = storage.store().get(&storage.path(name)).await.map_err(Error::storage(name))?;
    let mut chunks = got.into_stream();
    let mut digest = Sha256::new();
    while let Some(chunk) = chunks.try_next().await.map_err(Error::storage(name))? {
        digest.update(&chunk);
    }
    if Sha::from(digest.finalize()) != expected {
        return Err(Error::damaged(name, "it has been changed: its digest is not the recorded one"));
    }
    Ok(())
}

/// The tree, built anew and compared with what is stored as it grows.
struct Rebuilt<'a> {
    storage: &'a Storage,
    checkpoint: Option<Checkpoint>,
    tree: Tree,
    /// Files that have become full and are still to be compared.
    full: Vec<(String, Bytes)>,
}

impl<'a> Rebuilt<'a> {
    fn new(storage: &'a Storage, checkpoint: Option<Checkpoint>) -> Self {
        Rebuilt { storage, checkpoint, tree: Tree::default(), full: Vec::new() }
    }

    fn published(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, Checkpoint::size)
    }

    fn push(&mut self, entry: &Commitment, leaf: &Hash) {
        // What the checkpoint does not cover yet has no tiles to be compared with.
        if self.tree.size() < self.published() {
            let full = &mut self.full;
            self.tree.push(entry, leaf, &mut |file| full.push(file));
        }
    }

    /// Takes entries from the stored bundles, up to the id `last`.
    async fn copy_entries(&mut self, verified: &mut Verified, last: u64) {
        let last = last.min(self.published());
        while self.tree.size() < last {
            let (n, skip) = (self.tree.size() / TILE_WIDTH, (self.tree.size() % TILE_WIDTH) as usize);
            let width = (self.published() - n * TILE_WIDTH).min(TILE_WIDTH);
            let wanted = (last - self.tree.size()) as usize;
            let path = bundle_path(n, width);
            let bundle = self.storage.get(&tlog_name(&path)).await;
            let bundle = bundle.unwrap_or_else(|error| {
                verified.found(error);
                Bytes::new()
            });
            let whole = bundle.len() == width as usize * BUNDLE_ENTRY;
            if !whole && !bundle.is_empty() {
                verified.found(Error::damaged(
                    tlog_name(&path),
                    "it does not have the length that its name says",
                ));
            }
            let before = self.tree.size();
            for entry in bundle.chunks_exact(BUNDLE_ENTRY).skip(skip).take(wanted) {
                if let Ok(commitment) = Commitment::try_from(&entry[2..]) {
                    self.push(&commitment, &tlog::record_hash(&commitment));
                }
            }
            // What is missing stays missing; the tree goes on with zeros, so that it ends.
            let reached = (before + wanted as u64).min((n + 1) * TILE_WIDTH);
            while self.tree.size() < reached {
                self.push(&Commitment::default(), &tlog::record_hash(&Commitment::default()));
            }
            self.compare(verified, None).await;
        }
    }

    /// Compares what has become full with the stored files.
    async fn compare(&mut self, verified: &mut Verified, source: Option<&DataFile>) {
        for (path, bytes) in std::mem::take(&mut self.full) {
            self.compare_file(verified, source, &path, &bytes).await;
        }
    }

    async fn compare_file(
        &self,
        verified: &mut Verified,
        source: Option<&DataFile>,
        path: &str,
        computed: &[u8],
    ) {
        let name = tlog_name(path);
        let stored = match self.storage.get(&name).await {
            Ok(stored) => stored,
            Err(error) => return verified.found(error),
        };
        if stored == computed {
            return;
        }
        let mut problem = "it does not match what is computed from the records".to_owned();
        if path.starts_with("tile/entries/") {
            let same = |(a, b): &(&[u8], &[u8])| a == b;
            let pairs = stored.chunks(BUNDLE_ENTRY).zip(computed.chunks(BUNDLE_ENTRY));
            let n = bundle_number(path) * TILE_WIDTH + pairs.take_while(same).count() as u64 + 1;
            problem = match source {
                Some(file) => format!("it does not match record {n}, stored in {}", file.name()),
                None => format!("it does not match from record {n} on"),
            };
        }
        verified.found(Error::damaged(name, problem));
    }

    async fn finish(&mut self, verified: &mut Verified) {
        self.copy_entries(verified, self.published()).await;
        self.compare(verified, None).await;
        for (path, bytes) in self.tree.partial_files() {
            self.compare_file(verified, None, &path, &bytes).await;
        }
        if let Some(checkpoint) = &self.checkpoint
            && self.tree.root() != *checkpoint.hash()
        {
            let problem = "the records do not lead to the root that was signed";
            verified.found(Error::damaged(tlog_name("checkpoint"), problem));
        }
    }
}

/// The number in `tile/entries/x001/x234/067[.p/…]`.
fn bundle_number(path: &str) -> u64 {
    let digits = path.trim_start_matches("tile/entries/").split(".p/").next().unwrap_or_default();
    digits.split('/').fold(0, |n, part| n * 1_000 + part.trim_start_matches('x').parse::<u64>().unwrap_or(0))
}
