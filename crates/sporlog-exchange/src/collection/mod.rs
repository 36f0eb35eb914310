//! The collection: each municipality's rows of a day, as files in its outbox.
//!
//! ```text
//! <home>/ud/<yyyy-mm>/revisionslog_<CVR>_<day>_01.csv
//! <home>/ud/<yyyy-mm>/revisionslog_<CVR>_<day>.manifest.json
//! ```
//!
//! A municipality gets the rows whose `KalderOrganisation` is one of its CVR numbers, and no others: a
//! set of files for each number and each day of receipt (UTC), in the order of the log's ids. The log is
//! read once for all municipalities. Files are written aside, synced and renamed, the manifest last; the
//! same day gives the same bytes again, CSV and manifest alike, once it is over.
//!
//! # What a municipality can prove
//!
//! With a manifest, its files and the log's public key alone:
//!
//! - The log's key signed this list of files, with their digests, rows and ids (`statement`): they are
//!   what the log's keeper handed out, not a byte changed, and no file of them is missing.
//! - The keeper stated that these are all rows of the municipality that were received on the day, among the
//!   ids `scanned`, and that the log had `treeSize` rows then; where there were none, that there were none.
//! - The keeper committed to the contents of the whole log up to then (`checkpoint`). Two manifests, or a
//!   manifest and the log of later, can be held against each other: the tree only grows
//!   (`sporlog verify LOG --since`), so a row cannot be slipped in or taken out afterwards unseen.
//!
//! It cannot prove alone that no row was left out, nor that a row of the CSV is the one committed to:
//! that takes the other rows, or a salt, which it does not have. Who has access to the log can: an
//! auditor counts the municipality's rows of the day among the ids `scanned` and compares with `rows`, once
//! `sporlog verify` has said that the log is what the tree says; and `sporlog prove LOG ID` gives, for
//! any single row, a proof that the municipality checks against this very key. That is why each file's
//! first and last id are listed. A false manifest is thus a signed one, which the log convicts.
//!
//! | module | idea |
//! |---|---|
//! | [`split_writer`] | CSV into files that stay below a size |
//! | [`days`] | days of receipt, and which ids they have |
//! | `scan_rows` | the rows of many organisations in one pass |
//! | [`manifest`] | what the files of a day hold, signed |
//! | `outbox` | a day's files become visible together |
//! | `plan` | whose files of which days are to be written |
//! | `work` | a day's files, from the rows to the outbox |
//! | [`check`] | the receiving side: is everything there, and as it was? |
//! | [`nightly`] | each night, by itself |

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sporlog_ledger::Log;
use sporlog_record::Kind;

use crate::settings::{Role, Settings};
use outbox::failed;
use plan::{Plan, Target};
use scan_rows::stopped;
use split_writer::{FileInfo, MAX_BYTES};
use sporlog_intake::durable::private_file;
use sporlog_intake::writers::Writers;
use sporlog_intake::{Error, Result};
use work::Collection;

pub mod check;
pub mod days;
pub mod manifest;
pub mod nightly;
mod outbox;
mod plan;
mod scan_rows;
pub mod split_writer;
#[cfg(test)]
mod tests;
mod work;

pub use nightly::Nightly;

/// The most files that are open at once; if more are due, the day is scanned again for the others.
const OPEN_FILES: usize = 256;
/// How often to check whether another collection has ended.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Called with the number of ids scanned so far, and the number of all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Selects days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Days {
    /// All days that are over and not collected yet: of the last 35 days, those with rows in the log, and all
    /// since the account's first collection.
    Due,
    /// The days that are due, and the current day as far as it has come.
    DueAndSoFar,
    /// This day, whether or not it has been collected.
    Of(NaiveDate),
}

/// What a collection is to write.
#[derive(Debug, Clone)]
pub struct CollectionRequest {
    /// Selects days.
    pub days: Days,
    /// Only these accounts; all municipalities if the list is empty.
    pub accounts: Vec<String>,
    /// Whether rows are only counted, and nothing is written.
    pub dry_run: bool,
    /// Who runs the collection, for the access log.
    pub performer: String,
    /// A file stays below so many bytes.
    pub max_bytes: u64,
    /// Set to end the collection: files that are not published by then are not published.
    pub stop: Arc<AtomicBool>,
}

impl CollectionRequest {
    /// A collection of these days for all municipalities.
    pub fn new(days: Days, performer: &str) -> Self {
        CollectionRequest {
            days,
            accounts: Vec::new(),
            dry_run: false,
            performer: performer.to_owned(),
            max_bytes: MAX_BYTES,
            stop: Arc::default(),
        }
    }
}

/// A municipality's files of a day.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// The day of receipt.
    pub day: NaiveDate,
    /// The account.
    pub account: String,
    /// The CVR number.
    pub organisation: String,
    /// Whether the day is over.
    pub complete: bool,
    /// Its rows.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The folder that the files are in.
    pub folder: PathBuf,
    /// The files.
    pub files: Vec<FileInfo>,
    /// Whether anything was written; false if all files were there already.
    pub changed: bool,
}

/// Writes the files of the municipalities in `settings`, in order of days and accounts.
///
/// `root` is the exchange's folder. Each municipality's collection is recorded in the access log before its
/// files are published. One collection runs at a time: this waits for another one, in whichever process.
pub async fn collect(
    settings: &Settings,
    root: &Path,
    log: &Log,
    writers: &dyn Writers,
    request: &CollectionRequest,
    progress: Progress,
) -> Result<Vec<Collected>> {
    collect_as_of(settings, root, log, writers, request, progress, Utc::now).await
}

async fn collect_as_of(
    settings: &Settings,
    root: &Path,
    log: &Log,
    writers: &dyn Writers,
    request: &CollectionRequest,
    progress: Progress,
    now: impl Fn() -> DateTime<Utc>,
) -> Result<Vec<Collected>> {
    if log.kind() != Kind::Revision {
        let text = format!("sftp.log: the log '{}' holds {} records, not revision", log.name(), log.kind());
        return Err(Error::Settings(text));
    }
    let targets = targets(settings, root, &request.accounts)?;
    let _lock = if request.dry_run { None } else { Some(lock(root, &request.stop).await?) };
    // Before the log is read: rows received later may be of a later day.
    let now = now();
    log.refresh().await?;
    let plans = plan::due(log, root, targets, request.days, now).await?;
    let collection = Collection {
        root,
        log,
        writers,
        request,
        progress,
        total: plans.iter().map(Plan::ids).sum(),
        done: Arc::new(AtomicU64::new(0)),
    };
    if !request.dry_run {
        collection.make_room(&plans).await?;
    }
    let mut collected = Vec::new();
    for plan in &plans {
        collected.extend(collection.run(plan).await?);
    }
    Ok(collected)
}

/// The municipalities and CVR numbers that files may be written for.
fn targets(settings: &Settings, root: &Path, only: &[String]) -> Result<Vec<Target>> {
    for name in only {
        if settings.account(name).is_none_or(|account| account.role != Role::Municipality) {
            return Err(Error::Settings(format!("there is no municipality's account '{name}' in [sftp]")));
        }
    }
    let mut targets = Vec::new();
    for account in settings.accounts.iter().filter(|account| account.role == Role::Municipality) {
        if !only.is_empty() && !only.contains(&account.name) {
            continue;
        }
        let mut numbers = account.cvr.clone();
        numbers.sort();
        numbers.dedup();
        let target = |organisation| Target {
            account: account.name.clone(),
            home: settings.home(root, account),
            organisation,
        };
        targets.extend(numbers.into_iter().map(target));
    }
    Ok(targets)
}

/// Waits for other collections. Dropping the file releases the lock.
async fn lock(root: &Path, stop: &AtomicBool) -> Result<File> {
    let folder = root.join(outbox::COLLECTED);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed(&folder))?;
    // No account's name begins with a dot.
    let path = folder.join(".lock");
    let file = private_file().truncate(false).open(&path).map_err(failed(&path))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
            Err(TryLockError::WouldBlock) if stop.load(Ordering::Acquire) => return Err(stopped()),
            Err(TryLockError::WouldBlock) => {}
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for another collection to end");
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
