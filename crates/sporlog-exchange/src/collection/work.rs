//! A day's files, from the rows to the outbox: gathered in one pass, made durable, signed, recorded in
//! the access log, and shown.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use sporlog_ledger::Log;
use tokio::runtime::Handle;

use super::days::Day;
use super::manifest::{FORMAT, Manifest};
use super::outbox::{Outbox, Scratch, failed};
use super::plan::{Plan, Target};
use super::scan_rows::{Organisations, Source, count, scan_rows, stopped};
use super::split_writer::{FileInfo, SplitWriter};
use super::{Collected, CollectionRequest, OPEN_FILES, Progress};
use crate::settings::Role;
use sporlog_intake::access_event::AccessEvent;
use sporlog_intake::blocking::blocking;
use sporlog_intake::writers::{Writers, record_access};
use sporlog_intake::{Error, Result};

/// Files that are synced side by side.
const SYNCING: usize = 8;
/// Access events that are recorded side by side.
const RECORDING: usize = 16;
/// How long the newest checkpoint is waited for, and how often it is looked at.
const CHECKPOINT_TRIES: u32 = 100;
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(100);

/// A collection at work.
pub(super) struct Collection<'a> {
    /// The exchange's folder.
    pub root: &'a Path,
    pub log: &'a Log,
    pub writers: &'a dyn Writers,
    pub request: &'a CollectionRequest,
    pub progress: Progress,
    /// Ids that will be looked through …
    pub total: u64,
    /// … and that have been.
    pub done: Arc<AtomicU64>,
}

/// The files of one target, complete and not shown.
type Written = Vec<(PathBuf, FileInfo)>;

impl Collection<'_> {
    /// Makes the folders that are not there, and removes what an earlier collection left half-written.
    pub(super) async fn make_room(&self, plans: &[Plan]) -> Result<()> {
        let mut homes: Vec<_> = plans.iter().flat_map(|plan| &plan.targets).map(|t| t.home.clone()).collect();
        homes.dedup();
        let make = move || {
            homes.iter().try_for_each(|home| {
                home.create(Role::Municipality).map_err(failed(home.path()))?;
                Scratch::clear(home)
            })
        };
        blocking(make).await
    }

    pub(super) async fn run(&self, plan: &Plan) -> Result<Vec<Collected>> {
        let mut collected = Vec::new();
        for targets in plan.targets.chunks(OPEN_FILES) {
            if self.request.dry_run {
                collected.extend(self.count(&plan.day, targets).await?);
            } else {
                let written = self.write(&plan.day, targets).await?;
                collected.extend(self.show(&plan.day, targets, written).await?);
            }
            self.done.fetch_add(plan.day.rows(), Ordering::Relaxed);
        }
        Ok(collected)
    }

    /// The rows of each target, in one pass.
    async fn write(&self, day: &Day, targets: &[Target]) -> Result<Vec<Written>> {
        let (organisations, indexes) = organisations(targets);
        let parts = |(target, at): (&Target, usize)| {
            let sink = Scratch::new(&target.home, &target.organisation, day.day);
            (at, SplitWriter::new(sink, &target.organisation, day.day, self.request.max_bytes))
        };
        let parts: Vec<_> = targets.iter().zip(indexes).map(parts).collect();
        let (log, ids, stop, progress) =
            (self.log.clone(), day.ids.clone(), self.request.stop.clone(), self.progress());
        let runtime = Handle::current();
        blocking(move || {
            let source = Source {
                log: &log,
                ids: &ids,
                organisations: &organisations,
                stop: &stop,
                progress: &progress,
            };
            let written = scan_rows(&source, parts, &runtime)?;
            let written = written.into_iter().map(SplitWriter::finish).collect::<Result<Vec<Written>>>()?;
            sync(&written)?;
            Ok(written)
        })
        .await
    }

    async fn count(&self, day: &Day, targets: &[Target]) -> Result<Vec<Collected>> {
        let (organisations, indexes) = organisations(targets);
        let (log, ids, stop, progress) =
            (self.log.clone(), day.ids.clone(), self.request.stop.clone(), self.progress());
        let runtime = Handle::current();
        let counts = blocking(move || {
            let source = Source {
                log: &log,
                ids: &ids,
                organisations: &organisations,
                stop: &stop,
                progress: &progress,
            };
            count(&source, &runtime)
        });
        let counts = counts.await?;
        let counted = |(target, at): (&Target, usize)| {
            let rows = counts.get(at).copied().unwrap_or_default();
            self.collected(day, target, rows, Vec::new(), true)
        };
        Ok(targets.iter().zip(indexes).map(counted).collect())
    }

    /// Records the access events, and shows the files.
    async fn show(&self, day: &Day, targets: &[Target], written: Vec<Written>) -> Result<Vec<Collected>> {
        let checkpoint = String::from_utf8_lossy(&self.checkpoint_at(day.size).await?).into_owned();
        let mut ready = Vec::with_capacity(targets.len());
        for (target, written) in targets.iter().zip(written) {
            let manifest = self.manifest(day, target, &written, &checkpoint)?;
            ready.push((target, manifest, written));
        }
        // Absence is shown only where it is for good.
        let shown = |manifest: &Manifest| manifest.complete || manifest.rows > 0;
        let events = ready.iter().filter(|(_, manifest, _)| shown(manifest));
        let events: Vec<_> = events.map(|(target, manifest, _)| self.record(target, manifest)).collect();
        futures::stream::iter(events).buffer_unordered(RECORDING).try_collect::<()>().await?;
        let mut collected = Vec::with_capacity(ready.len());
        for (target, manifest, written) in ready {
            if self.request.stop.load(Ordering::Acquire) {
                return Err(stopped());
            }
            let info = manifest.files.clone();
            let (rows, changed) = (manifest.rows, shown(&manifest));
            let changed = changed && self.show_one(target, manifest, written).await?;
            if changed {
                metrics::counter!("sporlog_collect_rows_total").increment(rows);
                let bytes = info.iter().map(|info| info.bytes).sum();
                metrics::counter!("sporlog_collect_bytes_total").increment(bytes);
            }
            collected.push(self.collected(day, target, rows, info, changed));
        }
        Ok(collected)
    }

    async fn show_one(&self, target: &Target, manifest: Manifest, written: Written) -> Result<bool> {
        let (root, target) = (self.root.to_owned(), target.clone());
        let files: Vec<_> = written.into_iter().map(|(path, _)| path).collect();
        blocking(move || target.outbox(&root).show(&manifest, &files)).await
    }

    fn manifest(&self, day: &Day, target: &Target, written: &Written, checkpoint: &str) -> Result<Manifest> {
        let files: Vec<_> = written.iter().map(|(_, info)| info.clone()).collect();
        let mut manifest = Manifest {
            format: FORMAT.to_owned(),
            organisation: target.organisation.clone(),
            day: day.day,
            log: self.log.name().to_owned(),
            complete: day.complete,
            rows: files.iter().map(|info| info.rows).sum(),
            first_id: files.first().map(|info| info.first_id),
            last_id: files.last().map(|info| info.last_id),
            scanned: day.scanned(),
            files,
            tree_size: day.size,
            checkpoint: checkpoint.to_owned(),
            statement: String::new(),
        };
        manifest.sign(self.log)?;
        Ok(manifest)
    }

    async fn record(&self, target: &Target, manifest: &Manifest) -> Result<()> {
        let Manifest { organisation, day, rows, .. } = manifest;
        let event = AccessEvent {
            performer: &self.request.performer,
            action: "COLLECT",
            subject: None,
            address: None,
            correlation: None,
            message: format!("collect {} of {organisation} on {day} for {}", manifest.log, target.account),
            parameters: json!({
                "log": manifest.log,
                "account": target.account,
                "organisation": organisation,
                "day": day,
                "complete": manifest.complete,
                "rows": rows,
                "files": manifest.files.len(),
                "program": sporlog_intake::access_event::ORIGIN,
            }),
        };
        record_access(self.writers, &event).await
    }

    /// A record is visible a moment before its checkpoint is.
    async fn checkpoint_at(&self, size: u64) -> Result<Vec<u8>> {
        for _ in 0..CHECKPOINT_TRIES {
            match self.log.checkpoint_at(size).await {
                Err(sporlog_ledger::Error::NotCovered { .. }) => tokio::time::sleep(CHECKPOINT_PAUSE).await,
                checkpoint => return Ok(checkpoint?),
            }
        }
        Ok(self.log.checkpoint_at(size).await?)
    }

    fn collected(
        &self,
        day: &Day,
        target: &Target,
        rows: u64,
        files: Vec<FileInfo>,
        changed: bool,
    ) -> Collected {
        Collected {
            day: day.day,
            account: target.account.clone(),
            organisation: target.organisation.clone(),
            complete: day.complete,
            rows,
            bytes: files.iter().map(|info| info.bytes).sum(),
            folder: target.outbox(self.root).folder(day.day),
            files,
            changed,
        }
    }

    fn progress(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let (progress, before, total) =
            (self.progress.clone(), self.done.load(Ordering::Relaxed), self.total);
        move |done| progress(before + done, total)
    }
}

/// Each number once, and which one each target's is.
fn organisations(targets: &[Target]) -> (Organisations, Vec<usize>) {
    let mut numbers: Vec<&str> = targets.iter().map(|target| target.organisation.as_str()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let index = |target: &Target| numbers.binary_search(&target.organisation.as_str()).unwrap_or_default();
    (Organisations::new(numbers.iter().copied()), targets.iter().map(index).collect())
}

/// Makes all of them durable, several side by side.
fn sync(written: &[Written]) -> Result<()> {
    let paths: Vec<&PathBuf> = written.iter().flatten().map(|(path, _)| path).collect();
    let share = paths.len().div_ceil(SYNCING).max(1);
    std::thread::scope(|scope| {
        let sync = |path: &PathBuf| File::open(path).and_then(|file| file.sync_all()).map_err(failed(path));
        let spawn = |paths| scope.spawn(move || <[&PathBuf]>::iter(paths).try_for_each(|path| sync(path)));
        let threads: Vec<_> = paths.chunks(share).map(spawn).collect();
        let mut threads = threads.into_iter();
        threads.try_for_each(|t| t.join().map_err(|_| Error::Internal("a thread has failed".into()))?)
    })
}

impl Target {
    pub(super) fn outbox<'a>(&'a self, root: &'a Path) -> Outbox<'a> {
        Outbox { home: &self.home, root, account: &self.account }
    }
}
