//! Where the files of one of a municipality's CVR numbers go: written aside, and published day by day.
//!
//! If a manifest is in the outbox, so are all its files, complete. So the manifest is removed before a file is
//! replaced. A crash leaves either the old files with their manifest, or files without a manifest, which the
//! next collection replaces. The record of the collected day is removed first and written last, so the next
//! collection knows that the day is not done.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use sporlog_intake::{Error, Result};
use sporlog_ledger::local_files::{found, make_folder, replace, sync_folder};

use super::day_files::{WrittenFile, failed, is_in, names_in, publish};
use super::manifest::Manifest;
use super::split_writer::SplitWriter;
use crate::settings::Role;
use crate::tree::Home;

/// The folder of the records of collected days, in the exchange's folder.
pub(super) const COLLECTED: &str = "collected";
/// The group may read a file, because the users of another SFTP server are in the group.
const MODE: u32 = 0o640;

/// The outbox of a municipality's account for one of its CVR numbers, and the records of its collected days.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    pub account: String,
    /// The CVR number.
    pub organisation: String,
    home: Home,
    /// The folder of the account's records.
    records: PathBuf,
}

impl Outbox {
    /// `root` is the exchange's folder.
    pub(super) fn new(root: &Path, account: &str, home: Home, organisation: &str) -> Self {
        let records = root.join(COLLECTED).join(account);
        Outbox { account: account.to_owned(), organisation: organisation.to_owned(), home, records }
    }

    /// Makes the account's folders, and removes files that an earlier collection left unfinished.
    pub(super) fn prepare(&self) -> Result<()> {
        self.home.create(Role::Municipality).map_err(failed(self.home.path()))?;
        let scratch = self.scratch();
        let removed = found(fs::remove_dir_all(&scratch));
        removed.and_then(|_| make_folder(&scratch)).map_err(failed(&scratch))
    }

    /// The writer of a day's files. They are in a folder that is not served until they are published.
    pub(super) fn writer(&self, day: NaiveDate, max_bytes: u64) -> SplitWriter {
        SplitWriter::new(self.scratch(), &self.organisation, day, max_bytes, MODE)
    }

    /// The folder of a day's files.
    pub(super) fn folder(&self, day: NaiveDate) -> PathBuf {
        self.home.outbox().join(day.format("%Y-%m").to_string())
    }

    /// The manifest of a day that was collected.
    pub(super) fn collected(&self, day: NaiveDate) -> Result<Option<Manifest>> {
        match Manifest::read(&self.record(day)) {
            Err(Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            manifest => manifest.map(Some),
        }
    }

    /// The account's first day that was collected.
    pub(super) fn first_day(&self) -> Result<Option<NaiveDate>> {
        let entries = found(fs::read_dir(&self.records)).map_err(failed(&self.records))?;
        let Some(entries) = entries else { return Ok(None) };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        let day = |name: &str| name.strip_suffix(".json")?.split_once('_')?.1.parse().ok();
        Ok(names.map_err(failed(&self.records))?.iter().filter_map(|name| day(name.to_str()?)).min())
    }

    /// Publishes a day's files, which are complete and synced. Returns false if all were there already.
    pub(super) fn publish(&self, manifest: &Manifest, written: &[WrittenFile]) -> Result<bool> {
        let folder = self.folder(manifest.day);
        self.try_publish(&folder, &manifest.to_bytes()?, manifest, written).map_err(failed(&folder))
    }

    fn try_publish(
        &self,
        folder: &Path,
        bytes: &[u8],
        manifest: &Manifest,
        written: &[WrittenFile],
    ) -> io::Result<bool> {
        if !folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o770).create(folder)?;
            folder.parent().map_or(Ok(()), sync_folder)?;
        }
        let name = Manifest::file_name(&self.organisation, manifest.day);
        let (path, record) = (folder.join(&name), self.record(manifest.day));
        let has_manifest = |path: &Path| fs::read(path).is_ok_and(|there| there == bytes);
        let same_files = names_in(folder, &self.organisation, manifest.day)?.len() == written.len()
            && written.iter().all(|(_, info)| is_in(folder, info));
        let changed = !same_files || !has_manifest(&path);
        if changed {
            // After a crash from here on, the day has no record, and is collected again.
            remove(&record)?;
            remove(&path)?;
            // After a crash from here on, files may be new or old, and there is no manifest.
            publish(written, folder, Some((&self.organisation, manifest.day)))?;
            replace(&self.scratch().join(&name), &path, bytes, MODE)?;
        } else {
            written.iter().try_for_each(|(path, _)| fs::remove_file(path))?;
        }
        if !has_manifest(&record) {
            make_folder(&self.records)?;
            replace(&record.with_extension("tmp"), &record, bytes, MODE)?;
        }
        Ok(changed)
    }

    fn scratch(&self) -> PathBuf {
        self.home.scratch().join("collection")
    }

    fn record(&self, day: NaiveDate) -> PathBuf {
        self.records.join(format!("{}_{day}.json", self.organisation))
    }
}

/// Removes a file, if it is there; durable when this returns.
fn remove(path: &Path) -> io::Result<()> {
    let removed = found(fs::remove_file(path))?;
    removed.and(path.parent()).map_or(Ok(()), sync_folder)
}
