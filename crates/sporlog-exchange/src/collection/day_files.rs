//! The CSV files of an organisation's day in a folder: their names, what they hold, and how they are published.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sporlog_intake::{Error, Result};
use sporlog_ledger::local_files::{rename_new, sync_folder};
use sporlog_record::hex;

/// A file stays below so many bytes, as the specification demands.
pub const MAX_BYTES: u64 = 2_000_000_000;
/// Files that are synced side by side.
const SYNCING: usize = 8;

/// A file and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// The file's name.
    pub name: String,
    /// How many rows the file has.
    pub rows: u64,
    /// The first row's id in the log.
    pub first_id: u64,
    /// The last row's id in the log.
    pub last_id: u64,
    /// The file's size.
    pub bytes: u64,
    /// The file's SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A complete file, and where it lies.
pub(super) type WrittenFile = (PathBuf, FileInfo);

/// `revisionslog_<CVR>_<day>_<nn>.csv`.
pub fn file_name(organisation: &str, day: NaiveDate, number: usize) -> String {
    format!("revisionslog_{organisation}_{day}_{number:02}.csv")
}

/// The names of the day's files that are in `folder`.
pub(super) fn names_in(folder: &Path, organisation: &str, day: NaiveDate) -> io::Result<Vec<String>> {
    let prefix = format!("revisionslog_{organisation}_{day}_");
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".csv")).is_some_and(is_number) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Moves all of a day's files to `folder`; durable when this returns. With an organisation's day in `replace`, they
/// replace that day's files, and of these the ones that are not needed any more are removed. Without, a name that
/// is taken is an error of the kind `AlreadyExists`.
pub(super) fn publish(
    written: &[WrittenFile],
    folder: &Path,
    replace: Option<(&str, NaiveDate)>,
) -> io::Result<()> {
    for (path, info) in written {
        let target = folder.join(&info.name);
        if replace.is_some() { fs::rename(path, target)? } else { rename_new(path, &target)? }
    }
    if let Some((organisation, day)) = replace {
        for name in names_in(folder, organisation, day)? {
            if !written.iter().any(|(_, info)| info.name == name) {
                fs::remove_file(folder.join(name))?;
            }
        }
    }
    sync_folder(folder)
}

/// Makes the contents of all files durable, several side by side.
pub(super) fn sync(written: &[Vec<WrittenFile>]) -> Result<()> {
    let paths: Vec<&PathBuf> = written.iter().flatten().map(|(path, _)| path).collect();
    let sync = |path: &PathBuf| File::open(path).and_then(|file| file.sync_all()).map_err(failed(path));
    thread::scope(|scope| {
        let share = paths.len().div_ceil(SYNCING).max(1);
        let spawn = |paths| scope.spawn(move || <[&PathBuf]>::iter(paths).try_for_each(|path| sync(path)));
        let threads: Vec<_> = paths.chunks(share).map(spawn).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().map_err(|_| Error::Internal("a thread has failed".into()))?
        };
        threads.into_iter().try_for_each(join)
    })
}

/// Whether `folder` has this very file.
pub(super) fn is_in(folder: &Path, info: &FileInfo) -> bool {
    let path = folder.join(&info.name);
    let same_size = fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.len() == info.bytes);
    same_size && digest(&path, |_| {}).is_ok_and(|sha256| sha256 == info.sha256)
}

/// A file's SHA-256; `see` is called with the file's bytes.
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

/// The error of an operation on the file or folder at `path`.
pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let name = path.display().to_string();
    move |source| Error::Read { name, source }
}
