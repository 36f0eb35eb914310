//! Housekeeping: many small files into few large ones, Delta checkpoints, retention, left-overs.
//!
//! None of it changes a record: merged files hold the same rows with the same ids in the same
//! order, and what retention removes stays committed to.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Handle;

use crate::bulk::PartSink;
use crate::commit::{Change, Commit};
use crate::datafile::{FileWriter, GROUP_ROWS, GroupEncoder, PACKED_FROM};
use crate::delta::{DELTA_LOG, DataFile, TABLE, checkpoint_version, month_of};
use crate::delta_checkpoint;
use crate::error::{Error, Result};
use crate::keyindex::{self, Postings};
use crate::log::{Log, Shared};
use crate::recent::Part;
use crate::scan;
use crate::storage::is_unfinished;
use crate::table::COMMITS_AT_ONCE;
use crate::table_state::TableState;
use crate::times::widest;
use crate::verify::verify_digest;
use crate::writer::{Command, Writer};

/// A merged file is not made larger than this.
const MERGED_ROWS: u64 = 1 << 20;
const MERGED_BYTES: u64 = 512 << 20;
/// Bytes of columns in a row group, where records are large.
const GROUP_BYTES: usize = 64 << 20;
/// A file that another process is writing has been written to within this time, and a Delta checkpoint that another process
/// is about to sign for or to hint at.
const UNFINISHED: Duration = Duration::from_mins(10);
/// So many neighbours of about one size are merged in the background.
const NEIGHBOURS: usize = 16;

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files merged.
    pub merged: usize,
    /// Files that they became.
    pub into: usize,
    /// Left-over files removed.
    pub cleaned: usize,
}

/// What retention removed, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Files.
    pub files: usize,
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
    /// The oldest id that is left, one above the newest if none is.
    pub first_left: u64,
}

impl Writer {
    /// Merges all that is small, removes left-over files older than `grace`, and writes a Delta
    /// checkpoint.
    pub async fn compact(&self, grace: Duration) -> Result<Compacted> {
        let mut done = Compacted::default();
        self.flush().await?;
        // What comes meanwhile is left for the next time, so that this ends.
        let newest = self.log().head();
        loop {
            let state = self.log().state();
            let there = state.files.partition_point(|file| file.last <= newest);
            let Some(run) = full_run(&state.files[..there]) else { break };
            let merged = run.len();
            if self.merge(run).await? {
                done.merged += merged;
                done.into += 1;
            }
        }
        self.delta_checkpoint(self.log().shared.checkpointing.clone()).await?;
        done.cleaned = self.clean_up(grace, None).await?;
        Ok(done)
    }

    /// Deletes left-over files that are older than `grace` and, if `before` is given, belong to an
    /// earlier month.
    async fn clean_up(&self, grace: Duration, before: Option<&str>) -> Result<usize> {
        let left = left_overs(&self.log().shared, grace, before).await?;
        self.ask(|answer| Command::CleanUp(left, answer)).await
    }

    /// Writes a Delta checkpoint, which is signed for with the next note on the table. In turns,
    /// so that the one that is told of last is the one that was written last.
    pub(crate) async fn delta_checkpoint(&self, turn: Arc<tokio::sync::Mutex<()>>) -> Result<()> {
        let _turn = turn.lock().await;
        let shared = &self.log().shared;
        let (state, positions) = shared.snapshot();
        let written = delta_checkpoint::write(&shared.storage, &state, &positions).await?;
        self.tell(Command::DeltaCheckpoint(written)).await;
        Ok(())
    }

    /// Merges neighbours of about one size, if there are enough of them.
    pub(crate) async fn compact_tiers(&self) -> Result<()> {
        while let Some(run) = tier_run(&self.log().state().files) {
            self.merge(run).await?;
        }
        Ok(())
    }

    async fn merge(&self, removed: Vec<Arc<DataFile>>) -> Result<bool> {
        let shared = self.log().shared.clone();
        let files = removed.clone();
        let runtime = Handle::current();
        let merge = move || merge_files(&runtime, &shared, &files);
        // One at a time in a process, however many logs it has: each holds a row group in memory.
        static MERGING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(1);
        let turn = MERGING.acquire().await;
        let merged = tokio::task::spawn_blocking(merge).await;
        drop(turn);
        let added = match merged.map_err(|e| Error::failed(self.log().name(), e))? {
            Ok(added) => added,
            Err(error) => {
                // Another process may have replaced or expired the files while they were read.
                self.log().refresh().await?;
                let state = self.log().state();
                let changed = removed.iter().any(|file| !state.has(file));
                return if changed { Ok(false) } else { Err(error) };
            }
        };
        let names = vec![added.name(), added.index_name()];
        let change = Change { added: vec![added], removed, ..Change::default() };
        let replaced = self.ask(|answer| Command::Replace(change.into(), answer)).await;
        // After a failure, it may be in the table all the same.
        if matches!(replaced, Ok(false)) {
            self.log().shared.storage.remove(names).await?;
        }
        replaced
    }

    /// Removes the records received before `month` (`2026-11`); only says what it would remove
    /// if `dry_run` is set.
    pub async fn expire(&self, month: &str, dry_run: bool) -> Result<Expired> {
        if dry_run {
            return Ok(self.log().expirable(month));
        }
        let files = self.ask(|answer| Command::Expire(month.to_owned(), answer)).await?;
        self.clean_up(Duration::ZERO, Some(month)).await?;
        Ok(Expired::of(&files, &self.log().state()))
    }
}

impl Log {
    /// What [`Writer::expire`] would remove.
    pub fn expirable(&self, month: &str) -> Expired {
        let state = self.state();
        let mut expired = Expired { first_left: state.size + 1, ..Expired::default() };
        for part in state.parts() {
            match &part {
                Part::File(file) if file.month() < month => {
                    expired.files += 1;
                    expired.bytes += file.size;
                    expired.records += file.rows();
                }
                // These become a file of the table before they are removed.
                Part::Recent(rows) if *month_of(rows.received.0) < *month => expired.records += part.rows(),
                _ => expired.first_left = expired.first_left.min(part.first()),
            }
        }
        expired
    }
}

impl Expired {
    /// Of these files, which have been taken out; `state` is what is left.
    fn of(files: &[Arc<DataFile>], state: &TableState) -> Self {
        Expired {
            files: files.len(),
            records: files.iter().map(|f| f.rows()).sum(),
            bytes: files.iter().map(|f| f.size).sum(),
            first_left: state.first(),
        }
    }
}

/// The first run of neighbours that can be merged into a file of no more than the full size.
fn full_run(files: &[Arc<DataFile>]) -> Option<Vec<Arc<DataFile>>> {
    let mut start = 0;
    while start < files.len() {
        let run = fitting(&files[start..]);
        if run.len() > 1 {
            return Some(run.to_vec());
        }
        start += 1;
    }
    None
}

/// As many of the first files, of one month, as fit into one.
fn fitting(files: &[Arc<DataFile>]) -> &[Arc<DataFile>] {
    let (mut rows, mut bytes) = (0, 0);
    let fits = |file: &&Arc<DataFile>| {
        rows += file.rows();
        bytes += file.size;
        rows <= MERGED_ROWS && bytes <= MERGED_BYTES && file.month() == files[0].month()
    };
    &files[..files.iter().take_while(fits).count()]
}

/// A run of neighbours none of which is larger than its tier, smallest tier first: at least [`NEIGHBOURS`] files, or as many as
/// fill one. Tiers grow eightfold, so that a record is rewritten once per tier and not once per merge.
fn tier_run(files: &[Arc<DataFile>]) -> Option<Vec<Arc<DataFile>>> {
    let is_small = |file: &Arc<DataFile>| file.rows() <= MERGED_ROWS / 2 && file.size <= MERGED_BYTES / 2;
    let mut tier = 64;
    while tier < MERGED_ROWS {
        let mut start = 0;
        while start < files.len() {
            let length = files[start..].iter().take_while(|file| file.rows() <= tier).count();
            let streak = &files[start..start + length];
            let (run, after) = streak.split_at(fitting(streak).len());
            let fills_one = after.first().is_some_and(|next| next.month() == files[start].month());
            if run.len() >= NEIGHBOURS || (run.len() > 1 && fills_one && run.iter().all(is_small)) {
                return Some(run.to_vec());
            }
            start += run.len().max(1);
        }
        tier *= 8;
    }
    None
}

/// Writes one file with the rows of `files`, which are neighbours.
fn merge_files(runtime: &Handle, shared: &Arc<Shared>, files: &[Arc<DataFile>]) -> Result<DataFile> {
    let (Some(oldest), Some(newest)) = (files.first(), files.last()) else {
        return Err(Error::failed(&shared.name, "there is nothing to merge"));
    };
    // The month stays that of the records, whenever they are merged.
    let mut file = DataFile::new(oldest.first, newest.last, oldest.received.0);
    let received = files.iter().map(|file| file.received);
    file.received = received.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or(oldest.received);
    let name = file.name();
    let packed = files.iter().map(|file| file.size).sum::<u64>() >= PACKED_FROM as u64;
    let encoder = GroupEncoder::new(shared.kind, packed).map_err(Error::parquet(&name))?;
    let sink = PartSink::new(runtime.clone(), &shared.storage, &name);
    let mut writer = FileWriter::new(shared.kind, packed, sink).map_err(Error::parquet(&name))?;
    let mut postings = Postings::default();
    let mut group: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut group_rows, mut group_bytes) = (0u64, 0, 0);
    for source in files {
        // What is merged is signed for anew: a file that was changed must not get into a new one.
        runtime.block_on(verify_digest(&shared.storage, &source.name(), source.sha256))?;
        let mut batches = runtime.block_on(scan::select(shared, &Part::File(source.clone()), None, None))?;
        while let Some(batch) = runtime.block_on(batches.try_next())? {
            postings.append(Postings::of(shared.kind, &batch), rows as u32);
            rows += batch.num_rows() as u64;
            group_rows += batch.num_rows();
            group_bytes += batch.get_array_memory_size();
            group.push(batch);
            if group_rows >= GROUP_ROWS || group_bytes >= GROUP_BYTES {
                writer
                    .append(encoder.encode(&group).map_err(Error::parquet(&name))?)
                    .map_err(Error::parquet(&name))?;
                group.clear();
                (group_rows, group_bytes) = (0, 0);
            }
        }
        file.occurred = widest(file.occurred, source.occurred);
    }
    if !group.is_empty() {
        writer
            .append(encoder.encode(&group).map_err(Error::parquet(&name))?)
            .map_err(Error::parquet(&name))?;
    }
    if rows != file.rows() {
        return Err(Error::damaged(oldest.name(), format!("{rows} rows where {} should be", file.rows())));
    }
    let (sink, size, sha256) = writer.finish().map_err(Error::parquet(&name))?;
    (file.size, file.sha256) = (size, sha256);
    sink.complete().map_err(Error::storage(&name))?;
    if file.rows() >= keyindex::MIN_ROWS {
        runtime.block_on(keyindex::write(&shared.storage, shared.kind, &mut file, postings))?;
    }
    Ok(file)
}

/// All files of the log's folder that may be left over, were last written and have been in the table more than `grace` ago
/// and, if `before` is given, belong to an earlier month: what a merge or a newer Delta checkpoint replaced, and what a killed
/// process left. Some of them may belong to the newest version all the same.
async fn left_overs(shared: &Shared, grace: Duration, before: Option<&str>) -> Result<Vec<String>> {
    let now = chrono::Utc::now();
    let oldest_kept = |name: &str| {
        let is_in_work = is_unfinished(name) || checkpoint_version(name).is_some();
        now - if is_in_work { grace.max(UNFINISHED) } else { grace }
    };
    let checkpoint = delta_checkpoint::oldest_needed(&shared.storage, &shared.vkey).await?;
    let replaced = |name: &str| checkpoint_version(name).is_some_and(|version| version < checkpoint);
    let (mut left, mut new_commits) = (Vec::new(), Vec::new());
    for (name, modified) in shared.storage.list_all().await? {
        let month = name.split('/').nth(1).and_then(|part| part.strip_prefix("month="));
        let wanted = before.is_none_or(|before| month.is_some_and(|month| month < before));
        let is_old = modified <= oldest_kept(&name);
        if wanted && is_old && (is_removable(&name) || replaced(&name)) {
            left.push(name);
        } else if !is_old && name.starts_with(DELTA_LOG) && name.ends_with(".json") {
            new_commits.push(name);
        }
    }
    // Whatever these took out of the table was there a short time ago.
    let removed = |name: String| async move {
        let commit = Commit::parse(&name, &shared.storage.get(&name).await?)?;
        Ok::<_, Error>(commit.removed().map(|path| format!("{TABLE}/{path}")).collect::<Vec<_>>())
    };
    let removed = futures::stream::iter(new_commits).map(removed).buffer_unordered(COMMITS_AT_ONCE);
    let removed: HashSet<_> = removed.try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
    left.retain(|name| data_file_of(name).is_none_or(|file| !removed.contains(&file)));
    Ok(left)
}

/// The data file that `name`, relative to the log's folder, is or is the key index of.
pub(crate) fn data_file_of(name: &str) -> Option<String> {
    let below = name.strip_prefix(TABLE_MONTH).or_else(|| name.strip_prefix(INDEX_MONTH))?;
    name.ends_with(".parquet").then(|| format!("{TABLE_MONTH}{below}"))
}

const TABLE_MONTH: &str = "table/month=";
const INDEX_MONTH: &str = "index/month=";

/// Whether `name` is a file that nobody misses if no version of the log refers to it: a data file, a key
/// index, or an unfinished file.
fn is_removable(name: &str) -> bool {
    data_file_of(name).is_some() || is_unfinished(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbouring files of so many rows, which take 100 bytes each.
    fn files(rows: &[u64]) -> Vec<Arc<DataFile>> {
        let mut last = 0;
        let file = |rows: &u64| {
            let mut file = DataFile::new(last + 1, last + rows, 1_700_000_000_000_000);
            (last, file.size) = (last + rows, rows * 100);
            Arc::new(file)
        };
        rows.iter().map(file).collect()
    }

    fn first_run(rows: &[u64]) -> Option<(u64, usize)> {
        tier_run(&files(rows)).map(|run| (run[0].first, run.len()))
    }

    #[test]
    fn many_small_files_are_merged_and_as_many_large_ones_as_fill_one() {
        assert_eq!(first_run(&[10; 15]), None);
        assert_eq!(first_run(&[10; 16]), Some((1, 16)));
        // Sixteen of these would be more than one file.
        assert_eq!(first_run(&[200_000; 5]), None);
        assert_eq!(first_run(&[200_000; 6]), Some((1, 5)));
        // Behind one that is as large as files get.
        assert_eq!(
            first_run(&[1_000_000, 200_000, 200_000, 200_000, 200_000, 200_000, 200_000]),
            Some((1_000_001, 5))
        );
        // Neither is a nearly full one written anew for each that comes.
        assert_eq!(first_run(&[1_000_000, 40_000, 40_000, 40_000]), None);
    }
}
