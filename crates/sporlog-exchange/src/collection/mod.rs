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
//! same day, once it is over, gives the same bytes again, CSV and manifest alike.
//!
//! # What a municipality can prove
//!
//! With a manifest, its files and the log's public key alone:
//!
//! - The log's key signed the list of files with their digests, rows and ids (`statement`): the files are the ones
//!   that the log's keeper handed out, not a byte was changed, and none is missing.
//! - The keeper stated that these are all rows of the municipality that were received on the day, among the
//!   ids `scanned`, and that the log had `treeSize` rows then; of a day without rows, that there were none.
//! - The keeper committed to the contents of the whole log up to then (`checkpoint`). Two manifests, or a
//!   manifest and a later state of the log, can be compared: the tree only grows (`sporlog verify LOG --since`),
//!   so nobody can add or remove a row afterwards unseen.
//!
//! The municipality cannot prove alone that no row was left out, nor that a row of the CSV is the one committed to:
//! that takes the other rows, or a salt, and the municipality has neither. Who has access to the log can: an
//! auditor counts the municipality's rows of the day among the ids `scanned` and compares with `rows`, once
//! `sporlog verify` has said that the log is what the tree says; and `sporlog prove LOG ID` gives, for any single
//! row, a proof that the municipality checks against this very key. That is why each file's first and last id are
//! listed. A false manifest is a signed one, and the log proves that it is false.
//!
//! | module | idea |
//! |---|---|
//! | `due_days` | which days' files are to be written, and for whom |
//! | `day_collection` | a day's files, from the log to the outboxes |
//! | `scan_rows` | the rows of many organisations in one pass |
//! | `split_writer` | CSV into files that stay below a size |
//! | [`day_files`] | the CSV files of an organisation's day: names, contents, publication |
//! | `outbox` | a day's files become visible together |
//! | [`manifest`] | what the files of a day hold, signed |
//! | [`check`] | the receiving side: is everything there, and as it was? |
//! | [`export`] | the same files of one organisation, in any folder |
//! | [`nightly`] | each night, by itself |

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sporlog_intake::blocking::blocking;
use sporlog_intake::writers::Writers;
use sporlog_intake::{Error, Result};
use sporlog_ledger::Log;
use sporlog_ledger::local_files::{make_folder, private_file};
use sporlog_record::Kind;
use tokio_util::sync::CancellationToken;

use crate::settings::{Role, Settings};
use crate::tree::Home;
use day_files::{FileInfo, MAX_BYTES, failed};
use outbox::Outbox;
use scan_rows::stopped;

pub mod check;
mod day_collection;
pub mod day_files;
mod due_days;
pub mod export;
pub mod manifest;
pub mod nightly;
mod outbox;
mod scan_rows;
mod split_writer;
#[cfg(test)]
mod tests;

pub use nightly::Nightly;

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

/// Selects the files that a collection writes.
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
    /// Cancelled to end the collection: files that are not published by then are not published.
    pub stop: CancellationToken,
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
            stop: CancellationToken::new(),
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
    /// How many rows the files have.
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

/// A collection of the municipalities' files.
pub struct Collection<'a> {
    /// The exchange's settings, which say who the municipalities are.
    pub settings: &'a Settings,
    /// The exchange's folder.
    pub root: &'a Path,
    /// The log that the rows are in.
    pub log: &'a Log,
    /// The writers of the access log.
    pub writers: &'a dyn Writers,
    /// The files that are to be written.
    pub request: &'a CollectionRequest,
    /// How far the collection has come.
    pub progress: Progress,
}

impl Collection<'_> {
    /// Writes the files, in order of days and accounts. Each municipality's collection is recorded in the access
    /// log before its files are published. One collection runs at a time: this waits for another one, in
    /// whichever process.
    pub async fn run(&self) -> Result<Vec<Collected>> {
        self.run_as_of(Utc::now).await
    }

    async fn run_as_of(&self, now: impl Fn() -> DateTime<Utc>) -> Result<Vec<Collected>> {
        let Collection { settings, root, log, request, .. } = self;
        if log.kind() != Kind::Revision {
            let text =
                format!("sftp.log: the log '{}' holds {} records, not revision", log.name(), log.kind());
            return Err(Error::Settings(text));
        }
        let outboxes = outboxes(settings, root, &request.accounts)?;
        let _lock = if request.dry_run { None } else { Some(lock(root, &request.stop).await?) };
        // Read before the log: rows received later may be of a later day.
        let now = now();
        log.refresh().await?;
        let due = due_days::due_days(log, outboxes, request.days, now).await?;
        if !request.dry_run {
            let outboxes: Vec<_> = due.iter().flat_map(|due| due.outboxes.clone()).collect();
            blocking(move || outboxes.iter().try_for_each(Outbox::prepare)).await?;
        }
        self.collect(&due).await
    }
}

/// An outbox for each CVR number of the municipalities that files may be written for.
fn outboxes(settings: &Settings, root: &Path, only: &[String]) -> Result<Vec<Outbox>> {
    for name in only {
        if settings.account(name).is_none_or(|account| account.role != Role::Municipality) {
            return Err(Error::Settings(format!("there is no municipality's account '{name}' in [sftp]")));
        }
    }
    let municipalities = settings.accounts.iter().filter(|account| account.role == Role::Municipality);
    let wanted = municipalities.filter(|account| only.is_empty() || only.contains(&account.name));
    let outboxes = wanted.flat_map(|account| {
        let numbers: BTreeSet<_> = account.cvr.iter().collect();
        let outbox = |cvr| Outbox::new(root, &account.name, Home::of(root, account), cvr);
        numbers.into_iter().map(|cvr| outbox(cvr)).collect::<Vec<_>>()
    });
    Ok(outboxes.collect())
}

/// Waits for other collections. Dropping the file releases the lock.
async fn lock(root: &Path, stop: &CancellationToken) -> Result<File> {
    let folder = root.join(outbox::COLLECTED);
    make_folder(&folder).map_err(failed(&folder))?;
    // No account's name begins with a dot.
    let path = folder.join(".lock");
    let file = private_file().truncate(false).open(&path).map_err(failed(&path))?;
    let mut waiting = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
            Err(TryLockError::WouldBlock) if stop.is_cancelled() => return Err(stopped()),
            Err(TryLockError::WouldBlock) => {}
        }
        if !std::mem::replace(&mut waiting, true) {
            tracing::info!("waiting for another collection to end");
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
