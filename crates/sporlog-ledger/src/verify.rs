//! Recomputes everything, from the records up.
//!
//! Every commitment from its record, every tile from the commitments, the root from the tiles,
//! and that against the signed checkpoint; every commit of the Delta log against the signed note
//! on the table; every frame of the journal against its digest and signature; every data file and index against its digest in the Delta log. Whoever changed,
//! removed, added or reordered a record, or a byte of any of these files, is found out, and the
//! file is named.
//!
//! Without the log's secret, all but the first step is done.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::stream::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tlog::Hash;

use crate::commit::{Commit, commit_name};
use crate::delta::{DataFile, Sha, TABLE};
use crate::error::{Error, Result};
use crate::keys::Commitment;
use crate::log::{KeySource, Log, Shared};
use crate::rebuild::Rebuilt;
use crate::replay::{Newest, Replayed, replay};
use crate::row_commitments::{RowCommitter, numbers};
use crate::storage::Storage;
use crate::times::Times;
use crate::tlog::{Expiry, expiry_name, read_checkpoint, tlog_name};
use crate::tree::Tree;
use crate::verified::Verified;

/// How often a log is verified while files are taken out of its table.
pub(crate) const TRIES: usize = 10;
/// Row groups whose commitments are computed at once.
const AT_ONCE: usize = 3;

/// Where the records are that are verified.
pub(crate) struct Records<'a> {
    /// The data files, in the order of their ids.
    pub files: &'a [Arc<DataFile>],
    /// Records of the journal after them, each batch with the id of its first.
    pub recent: Vec<(u64, &'a RecordBatch)>,
    /// The file that these are in.
    pub segment: &'a str,
}

impl Log {
    /// Verifies the whole log. `progress` is told now and then how many records are done. Where files were
    /// removed by other commits meanwhile, and so could not be read, the log is verified anew.
    pub async fn verify(&self, progress: impl Fn(u64) + Send + Sync) -> Result<Verified> {
        for _ in 1..TRIES {
            let verified = self.verify_once(&progress).await?;
            if verified.problems.is_empty() || !self.files_went_after(verified.commits).await? {
                return Ok(verified);
            }
        }
        self.verify_once(&progress).await
    }

    /// Whether a commit of `version` or later has taken files out of the table, or a segment over.
    pub(crate) async fn files_went_after(&self, version: u64) -> Result<bool> {
        let mut commits = self.shared.table.commits(version);
        while let Some((version, bytes)) = commits.try_next().await? {
            let commit = Commit::parse(&commit_name(version), &bytes)?;
            if commit.removed().next().is_some() || commit.journal.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn verify_once(&self, progress: &(impl Fn(u64) + Send + Sync)) -> Result<Verified> {
        let shared = &self.shared;
        let mut verified = Verified { with_secret: shared.keys.is_some(), ..Verified::default() };
        self.verify_key(&mut verified).await;
        // Before the table, which may be moved on meanwhile and must not be shorter.
        let checkpoint = self.verify_checkpoint(&mut verified).await;
        let Replayed { files, frames, newest } = replay(shared, &mut verified).await?;
        if let Some(checkpoint) = &checkpoint {
            verified.check(verify_root(&newest, checkpoint));
        }
        let covered = checkpoint.as_ref().map_or(0, Checkpoint::size);
        let mut rebuilt = Rebuilt::new(&shared.storage, &files, covered, covered, Tree::default());
        let recent = frames.iter().map(|frame| (frame.size + 1 - frame.rows.num_rows() as u64, &frame.rows));
        let records = Records { files: &files, recent: recent.collect(), segment: &newest.segment };
        self.verify_records(&mut verified, &mut rebuilt, &records, 1, newest.size, progress).await?;
        let root = rebuilt.finish(&mut verified).await;
        if checkpoint.is_some_and(|checkpoint| *checkpoint.hash() != root) {
            let problem = "the records do not lead to the root that was signed";
            verified.found(Error::damaged(tlog_name("checkpoint"), problem));
        }
        // Nobody without the log's secret can state the root after a record of theirs.
        let tree = rebuilt.tree();
        if newest.size > covered && newest.size == tree.size() && tree.root() != newest.root {
            let problem = "the records do not lead to the root that it states";
            verified.found(Error::damaged(&newest.name, problem));
        }
        Ok(verified)
    }

    /// The newest checkpoint; a missing or damaged one is a problem.
    pub(crate) async fn verify_checkpoint(&self, verified: &mut Verified) -> Option<Checkpoint> {
        let read = read_checkpoint(&self.shared.storage, &self.shared.vkey).await;
        let missing = || Error::damaged(tlog_name("checkpoint"), "it is missing");
        read.and_then(|read| read.ok_or_else(missing)).map_err(|error| verified.found(error)).ok()
    }

    /// The records `first` to `last`, wherever they are; those that are nowhere must have been removed by retention.
    pub(crate) async fn verify_records(
        &self,
        verified: &mut Verified,
        rebuilt: &mut Rebuilt<'_>,
        records: &Records<'_>,
        first: u64,
        last: u64,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let shared = &self.shared;
        let expiries = match Expiry::read_all(&shared.storage, &shared.vkeys).await {
            Ok(expiries) => expiries,
            Err(error) => {
                verified.found(error);
                Vec::new()
            }
        };
        let mut next = first;
        for file in overlapping(records.files, first, last) {
            let (from, to) = (file.first.max(first), file.last.min(last));
            if from > next {
                self.verify_gap(verified, rebuilt, &expiries, next, from - 1).await?;
            } else if from < next {
                let problem =
                    format!("it holds the ids from {} on, which other files hold already", file.first);
                verified.found(Error::damaged(file.name(), problem));
                continue;
            }
            next = to + 1;
            let digest = |name: String, expected| {
                let storage = shared.storage.clone();
                let digest = tokio::spawn(async move { verify_digest(&storage, &name, expected).await });
                async { digest.await.map_err(|e| Error::failed(&shared.name, e))? }
            };
            let index = file.index.map(|index| digest(file.index_name(), index));
            let whole = digest(file.name(), file.sha256).await;
            if let Some(index) = index {
                verified.check(index.await);
            }
            verified.files += 1;
            // A file that is not what was written is not even opened.
            let read = match whole {
                Ok(()) => self.verify_file(verified, rebuilt, file, from, to, progress).await,
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                // What cannot be read is made up for from the entries, so that the rest is checked too.
                verified.found(error);
                rebuilt.copy_entries(verified, to).await;
            }
        }
        for (at, rows) in &records.recent {
            let (from, end) = ((*at).max(first), (at + rows.num_rows() as u64).min(last + 1));
            if from >= end {
                continue;
            }
            if from > next {
                self.verify_gap(verified, rebuilt, &expiries, next, from - 1).await?;
            }
            next = end;
            let rows = rows.slice((from - at) as usize, (end - from) as usize);
            let read = self.verify_recent(verified, rebuilt, records.segment, from, &rows).await;
            verified.check(read);
        }
        if next <= last {
            self.verify_gap(verified, rebuilt, &expiries, next, last).await?;
        }
        Ok(())
    }

    /// The copy of the public key, where the key is known from elsewhere.
    pub(crate) async fn verify_key(&self, verified: &mut Verified) {
        let problem = match self.key_source() {
            KeySource::Given => "it is another public key than the given one",
            KeySource::KeyFolder => "it is another public key than the one in the key folder",
            KeySource::LogFolder => return,
        };
        let name = tlog_name("key");
        match self.shared.storage.get(&name).await {
            Ok(key) if key == format!("{}\n", self.vkey()) => {}
            Ok(_) => verified.found(Error::damaged(name, problem)),
            Err(error) => verified.found(error),
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
        let mut missing = |from: u64, to: u64| {
            let note = expiry_name(from, to);
            let problem = format!(
                "the records {from} to {to} are missing, and no expiry was signed for them (as {note} would)"
            );
            verified.found(Error::damaged(TABLE, problem));
        };
        let (mut next, mut signed) = (first, 0);
        for expiry in expiries.iter().filter(|e| e.last >= first && e.first <= last) {
            if expiry.first > next {
                missing(next, expiry.first - 1);
            }
            let (from, to) = (expiry.first.max(next), expiry.last.min(last));
            signed += (to + 1).saturating_sub(from);
            next = next.max(to + 1);
        }
        if next <= last {
            missing(next, last);
        }
        verified.expired += signed;
        rebuilt.copy_entries(verified, last).await;
        Ok(())
    }

    /// Records of the journal from `first` on: their numbers, and their commitments if the secret is at hand.
    async fn verify_recent(
        &self,
        verified: &mut Verified,
        rebuilt: &mut Rebuilt<'_>,
        segment: &str,
        first: u64,
        rows: &RecordBatch,
    ) -> Result<()> {
        let Shared { kind, keys, name: log, .. } = &*self.shared;
        let Some((keys, _)) = keys else {
            rebuilt.copy_entries(verified, first + rows.num_rows() as u64 - 1).await;
            return Ok(());
        };
        check_ids(segment, rows, first)?;
        let committer = RowCommitter { log: log.clone(), kind: *kind, keys: keys.clone() };
        let entries = committer.commitments(rows, &mut Vec::new())?;
        entries.iter().for_each(|(entry, leaf)| rebuilt.push(entry, leaf));
        verified.records += entries.len() as u64;
        rebuilt.compare(verified).await;
        Ok(())
    }

    /// The records `from` to `to` of one file: their numbers, and their commitments if the secret is at hand. The
    /// file's statistics are compared where all of the file is read.
    async fn verify_file(
        &self,
        verified: &mut Verified,
        rebuilt: &mut Rebuilt<'_>,
        file: &DataFile,
        from: u64,
        to: u64,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let shared = &self.shared;
        let Some((keys, _)) = &shared.keys else {
            rebuilt.copy_entries(verified, to).await;
            return Ok(());
        };
        let committer = RowCommitter { log: shared.name.clone(), kind: shared.kind, keys: keys.clone() };
        let name: Arc<str> = file.name().into();
        let open = shared.files.open_whole(&shared.storage, &name).await?;
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
        parts.retain(|(_, first, rows)| first + rows > from && *first <= to);
        let mut id = parts.first().map_or(from, |(_, first, _)| *first);
        let commit = |(group, first, rows): (usize, u64, u64)| {
            let (shared, committer, name) = (shared.clone(), committer.clone(), name.clone());
            tokio::spawn(async move { commitments_of(&shared, &committer, &name, group, first, rows).await })
        };
        let mut computed = futures::stream::iter(parts).map(commit).buffered(AT_ONCE);
        let mut times = Times::default();
        while let Some(group) = computed.next().await {
            let (entries, group_times) = group.map_err(|e| Error::failed(&shared.name, e))??;
            times = times.and(group_times);
            for (entry, leaf) in &entries {
                if (from..=to).contains(&id) {
                    rebuilt.push(entry, leaf);
                    verified.records += 1;
                }
                id += 1;
            }
            rebuilt.compare(verified).await;
            progress(verified.records);
        }
        let all = (from, to) == (file.first, file.last);
        if all && (times.occurred, times.received) != (file.occurred, Some(file.received)) {
            let problem = "its statistics in the Delta log are not those of its records";
            return Err(Error::damaged(&*name, problem));
        }
        Ok(())
    }
}

/// The commitments of one row group, whose ids have to be those expected, and the times of its records.
async fn commitments_of(
    shared: &Shared,
    committer: &RowCommitter,
    name: &str,
    group: usize,
    first: u64,
    rows: u64,
) -> Result<(Vec<(Commitment, Hash)>, Times)> {
    let open = shared.files.open_whole(&shared.storage, name).await?;
    let stream =
        open.with_row_groups(vec![group]).with_batch_size(4_096).build().map_err(Error::parquet(name))?;
    let mut stream = stream.map_err(Error::parquet_stream(name));
    let mut entries = Vec::with_capacity(rows as usize);
    let mut buffer = Vec::new();
    let mut times = Times::default();
    while let Some(batch) = stream.try_next().await? {
        check_ids(name, &batch, first + entries.len() as u64)?;
        entries.extend(committer.commitments(&batch, &mut buffer)?);
        times = times.and(Times::of(&batch));
    }
    Ok((entries, times))
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

/// The files that have one of the records `first` to `last`.
pub(crate) fn overlapping(
    files: &[Arc<DataFile>],
    first: u64,
    last: u64,
) -> impl Iterator<Item = &Arc<DataFile>> {
    files.iter().filter(move |file| file.last >= first && file.first <= last)
}

/// The newest commit's root, where the checkpoint is of the same size.
pub(crate) fn verify_root(newest: &Newest, checkpoint: &Checkpoint) -> Result<()> {
    let (size, covered) = (newest.size, checkpoint.size());
    if covered == size && *checkpoint.hash() != newest.root {
        return Err(Error::damaged(&newest.name, "it states another root than the checkpoint"));
    }
    if covered > size {
        let problem = format!("the log ends at record {size}, and the checkpoint covers {covered}");
        return Err(Error::damaged(&newest.segment, problem));
    }
    Ok(())
}

/// A file's digest, taken piece by piece.
pub(crate) async fn verify_digest(storage: &Storage, name: &str, expected: Sha) -> Result<()> {
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
