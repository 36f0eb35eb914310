//! Publishes a municipality's files: all files of a day, and the manifest last.
//!
//! If a manifest is in the outbox, so are all its files, complete. So the manifest is removed before a file is
//! replaced. A crash leaves either the old files with their manifest, or files without a manifest, which the
//! next collection replaces. The record of the collected day is removed first and written last, so the next
//! collection knows that the day is not done.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::split_writer::{FileInfo, FileSink, file_name};
use crate::tree::Home;
use sporlog_intake::durable::{put, sync_folder};
use sporlog_intake::{Error, Result};
use sporlog_record::hex;

/// The buffer of a file. It is small because hundreds are open at once.
const BUFFER: usize = 64 << 10;
/// The folder of the records of collected days, in the exchange's folder.
pub(super) const COLLECTED: &str = "collected";

/// The folder in which an account's files of a day are written until they are complete.
pub(super) struct Scratch {
    folder: PathBuf,
    organisation: String,
    day: NaiveDate,
}

impl Scratch {
    /// A folder in the account's scratch folder. [`clear`](Self::clear) removes what an earlier collection left.
    pub(super) fn new(home: &Home, organisation: &str, day: NaiveDate) -> Self {
        Scratch { folder: scratch(home), organisation: organisation.to_owned(), day }
    }

    /// Makes the folder, and removes all files in it.
    pub(super) fn clear(home: &Home) -> Result<()> {
        let folder = scratch(home);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&folder)(error)),
            _ => {}
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed(&folder))
    }
}

fn scratch(home: &Home) -> PathBuf {
    home.scratch().join("collection")
}

impl FileSink for Scratch {
    type Open = (PathBuf, BufWriter<File>);
    type Closed = PathBuf;
    type Error = Error;

    fn open(&mut self, number: usize) -> Result<Self::Open> {
        let path = self.folder.join(file_name(&self.organisation, self.day, number));
        let file = create(&path).map_err(failed(&path))?;
        Ok((path, BufWriter::with_capacity(BUFFER, file)))
    }

    fn write(&mut self, (path, file): &mut Self::Open, bytes: &[u8]) -> Result<()> {
        file.write_all(bytes).map_err(failed(path))
    }

    fn close(&mut self, (path, mut file): Self::Open) -> Result<PathBuf> {
        // Synced later, in parallel with the others.
        file.flush().map_err(failed(&path))?;
        Ok(path)
    }
}

/// The group may read the file, because the users of another SFTP server are in the group.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
}

/// An account's outbox, and the records of its collected days.
pub(super) struct Outbox<'a> {
    pub home: &'a Home,
    /// The exchange's folder.
    pub root: &'a Path,
    /// The account.
    pub account: &'a str,
}

impl Outbox<'_> {
    /// The folder of a day's files.
    pub(super) fn folder(&self, day: NaiveDate) -> PathBuf {
        self.home.outbox().join(day.format("%Y-%m").to_string())
    }

    /// The record of a collected day, if there is one.
    pub(super) fn collected(&self, organisation: &str, day: NaiveDate) -> Result<Option<Manifest>> {
        match Manifest::read(&self.record(organisation, day)) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first day that was collected.
    pub(super) fn first_day(&self) -> Result<Option<NaiveDate>> {
        let folder = self.records();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(failed(&folder))?,
        };
        let mut first: Option<NaiveDate> = None;
        for entry in entries {
            let name = entry.map_err(failed(&folder))?.file_name();
            let day =
                name.to_str().and_then(|name| name.strip_suffix(".json")?.split_once('_')?.1.parse().ok());
            first = first.into_iter().chain(day).min();
        }
        Ok(first)
    }

    /// Publishes a day's files, which are complete and synced. Returns false if all were there already.
    pub(super) fn show(&self, manifest: &Manifest, written: &[PathBuf]) -> Result<bool> {
        let folder = self.folder(manifest.day);
        make_folder(&folder).map_err(failed(&folder))?;
        let name = Manifest::file_name(&manifest.organisation, manifest.day);
        let showing = Showing {
            written: manifest
                .files
                .iter()
                .zip(written)
                .map(|(info, path)| (path.as_path(), folder.join(&info.name), is_there(&folder, info)))
                .collect(),
            stale: self.stale(&folder, manifest)?,
            bytes: manifest.to_bytes()?,
            beside: scratch(self.home).join(&name),
            manifest: folder.join(&name),
            record: self.record(&manifest.organisation, manifest.day),
            folder: &folder,
        };
        showing.run().map_err(failed(&folder))
    }

    /// Files of an earlier collection of the day that this one does not have.
    fn stale(&self, folder: &Path, manifest: &Manifest) -> Result<Vec<PathBuf>> {
        let wanted: HashSet<&str> = manifest.files.iter().map(|info| info.name.as_str()).collect();
        let mut stale = Vec::new();
        for (name, path) in csv_files(folder, &manifest.organisation, manifest.day)? {
            if !wanted.contains(name.as_str()) {
                stale.push(path);
            }
        }
        Ok(stale)
    }

    fn records(&self) -> PathBuf {
        self.root.join(COLLECTED).join(self.account)
    }

    fn record(&self, organisation: &str, day: NaiveDate) -> PathBuf {
        self.records().join(format!("{organisation}_{day}.json"))
    }
}

/// A day's files that are to be published.
struct Showing<'a> {
    folder: &'a Path,
    /// The path of each file, its path in the outbox, and whether it is there already.
    written: Vec<(&'a Path, PathBuf, bool)>,
    /// Files that have to be removed.
    stale: Vec<PathBuf>,
    /// The manifest.
    bytes: Vec<u8>,
    /// Where the manifest is written until it is complete.
    beside: PathBuf,
    manifest: PathBuf,
    record: PathBuf,
}

impl Showing<'_> {
    fn run(&self) -> io::Result<bool> {
        let has_manifest = |path: &Path| fs::read(path).is_ok_and(|there| there == self.bytes);
        let same_files = self.written.iter().all(|(.., same)| *same) && self.stale.is_empty();
        let changed = !same_files || !has_manifest(&self.manifest);
        if changed {
            remove(&self.record)?;
            remove(&self.manifest)?;
        }
        for (path, to, same) in &self.written {
            if *same { fs::remove_file(path)? } else { fs::rename(path, to)? }
        }
        if changed {
            self.stale.iter().try_for_each(fs::remove_file)?;
            sync_folder(self.folder)?;
            put(&self.beside, &self.manifest, &self.bytes)?;
        }
        if !has_manifest(&self.record) {
            if let Some(records) = self.record.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(records)?;
            }
            put(&self.record.with_extension("tmp"), &self.record, &self.bytes)?;
        }
        Ok(changed)
    }
}

/// The CSV files of a day that are in `folder`.
pub(super) fn csv_files(folder: &Path, organisation: &str, day: NaiveDate) -> Result<Vec<(String, PathBuf)>> {
    let prefix = format!("revisionslog_{organisation}_{day}_");
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".csv")).is_some_and(is_number) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// Whether the file exists with the same bytes.
fn is_there(folder: &Path, info: &FileInfo) -> bool {
    let path = folder.join(&info.name);
    let same_size =
        fs::symlink_metadata(&path).is_ok_and(|there| there.is_file() && there.len() == info.bytes);
    same_size && digest(&path, |_| {}).is_ok_and(|sha256| sha256 == info.sha256)
}

/// A file's SHA-256; `see` is called with its bytes.
pub(super) fn digest(path: &Path, mut see: impl FnMut(&[u8])) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(hex(digest.finalize()));
        }
        digest.update(bytes);
        see(bytes);
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o770).create(folder)?;
        folder.parent().map_or(Ok(()), sync_folder)?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        // Synced, because after a crash the manifest must not be there when its files have changed.
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
    }
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let name = path.display().to_string();
    move |source| Error::Read { name, source }
}
