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
use crate::files::PageIndexes;
use crate::journal::Frame;
use crate::keys::Commitment;
use crate::log::{KeySource, Log, Shared};
use crate::rebuild::Rebuilt;
use crate::replay::{Newest, Replayed, replay};
use crate::row_commitments::{RowCommitter, numbers};
use crate::storage::Storage;
use crate::times::Times;
use crate::tlog::{Expiry, expiry_name, read_checkpoint, tlog_name};
use crate::verified::Verified;

/// How often a log is verified while files are taken out of its table.
const TRIES: usize = 10;
/// Row groups whose commitments are computed at once.
const AT_ONCE: usize = 3;

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
    async fn files_went_after(&self, version: u64) -> Result<bool> {
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
        let Replayed { files, frames, newest } = replay(shared, &mut verified).await?;
        if let Some(checkpoint) = &checkpoint {
            verified.check(verify_root(&newest, checkpoint));
        }
        let expiries = match Expiry::read_all(&shared.storage, &shared.vkeys).await {
            Ok(expiries) => expiries,
            Err(error) => {
                verified.found(error);
                Vec::new()
            }
        };
        let mut rebuilt = Rebuilt::new(&shared.storage, &files, checkpoint);
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
            let whole = verify_digest(&shared.storage, &file.name(), file.sha256).await;
            if let Some(index) = file.index {
                verified.check(verify_digest(&shared.storage, &file.index_name(), index).await);
            }
            verified.files += 1;
            // A file that is not what was written is not even opened.
            let read = match whole {
                Ok(()) => self.verify_records(&mut verified, &mut rebuilt, file, progress).await,
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                // What cannot be read is made up for from the entries, so that the rest is checked too.
                verified.found(error);
                rebuilt.copy_entries(&mut verified, file.last).await;
            }
        }
        for frame in &frames {
            let rows = frame.rows.num_rows() as u64;
            let first = frame.size + 1 - rows;
            if first > next {
                self.verify_gap(&mut verified, &mut rebuilt, &expiries, next, first - 1).await?;
            }
            next = frame.size + 1;
            let read = self.verify_frame(&mut verified, &mut rebuilt, frame, &newest.name).await;
            verified.check(read);
        }
        if next <= verified.head {
            let head = verified.head;
            self.verify_gap(&mut verified, &mut rebuilt, &expiries, next, head).await?;
        }
        rebuilt.finish(&mut verified, &newest).await;
        Ok(verified)
    }

    /// The copy of the public key, where the key is known from elsewhere.
    async fn verify_key(&self, verified: &mut Verified) {
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

    /// The records of one frame: their numbers, and their commitments if the secret is at hand.
    async fn verify_frame(
        &self,
        verified: &mut Verified,
        rebuilt: &mut Rebuilt<'_>,
        frame: &Frame,
        name: &str,
    ) -> Result<()> {
        let Shared { kind, keys, name: log, .. } = &*self.shared;
        let Some((keys, _)) = keys else {
            rebuilt.copy_entries(verified, frame.size).await;
            return Ok(());
        };
        check_ids(name, &frame.rows, frame.size + 1 - frame.rows.num_rows() as u64)?;
        let committer = RowCommitter { log: log.clone(), kind: *kind, keys: keys.clone() };
        let entries = committer.commitments(&frame.rows, &mut Vec::new())?;
        entries.iter().for_each(|(entry, leaf)| rebuilt.push(entry, leaf));
        verified.records += entries.len() as u64;
        rebuilt.compare(verified).await;
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
        let Some((keys, _)) = &shared.keys else {
            rebuilt.copy_entries(verified, file.last).await;
            return Ok(());
        };
        let committer = RowCommitter { log: shared.name.clone(), kind: shared.kind, keys: keys.clone() };
        let name: Arc<str> = file.name().into();
        let open = shared.files.open(&shared.storage, &name, PageIndexes::Locations).await?;
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
            let (shared, committer, name) = (shared.clone(), committer.clone(), name.clone());
            tokio::spawn(async move { commitments_of(&shared, &committer, &name, group, first, rows).await })
        };
        let mut computed = futures::stream::iter(parts).map(commit).buffered(AT_ONCE);
        let mut times = Times::default();
        while let Some(group) = computed.next().await {
            let (entries, group_times) = group.map_err(|e| Error::failed(&shared.name, e))??;
            times = times.and(group_times);
            for (entry, leaf) in &entries {
                rebuilt.push(entry, leaf);
            }
            verified.records += entries.len() as u64;
            rebuilt.compare(verified).await;
            progress(verified.records);
        }
        if (times.occurred, times.received) != (file.occurred, Some(file.received)) {
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
    let open = shared.files.open(&shared.storage, name, PageIndexes::Locations).await?;
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

/// The newest commit's root, where the checkpoint is of the same size.
fn verify_root(newest: &Newest, checkpoint: &Checkpoint) -> Result<()> {
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
