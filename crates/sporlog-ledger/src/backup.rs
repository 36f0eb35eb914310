//! The folder of a backup: copies of all of a store's logs, and beside them what else cannot be made anew.
//!
//! ```text
//! backup.json     written when a backup is finished; without it, there is none
//! logs/<log>/     as in a store: whatever reads a store reads a backup
//! keys-copy/      the keys, if they were asked for
//! exchange/       the exchange's register, and which days have been collected
//! ```
//!
//! The keys do not lie where a store has them, so that nobody appends to a backup by mistake.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::{Error, Result};
use crate::local_files::{found, make_folder, private_file, replace};
use crate::store::{Store, StoreOptions};

/// The file that a finished backup has.
const FINISHED: &str = "backup.json";
/// What it says of its format.
const FORMAT: &str = "sporlog-backup/1";
/// The folder of the keys.
const KEYS: &str = "keys-copy";
/// The file that whoever writes or reads a backup has locked.
const LOCK: &str = ".lock";

/// A backup, opened.
#[derive(Debug)]
pub struct Backup {
    folder: PathBuf,
    store: Store,
    /// Locked: one process at a time writes or reads a backup.
    _lock: File,
}

impl Backup {
    /// The backup in `folder`, to be made or brought up to date.
    pub fn create(folder: &Path) -> Result<Self> {
        make_folder(folder).map_err(failed(folder))?;
        let has_something = fs::read_dir(folder).map_err(failed(folder))?.next().is_some();
        if has_something && !folder.join(LOCK).exists() {
            let reason =
                "there are files in this folder, and it is no backup: an empty folder is expected".into();
            return Err(Error::Location { url: folder.display().to_string(), reason });
        }
        Self::locked(folder)
    }

    /// The finished backup in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.join(FINISHED).is_file() {
            let reason = format!("there is no finished backup here, which would have a file {FINISHED}");
            return Err(Error::Location { url: folder.display().to_string(), reason });
        }
        Self::locked(folder)
    }

    fn locked(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let lock = private_file().open(&path);
        let lock = lock.map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
            Err(TryLockError::WouldBlock) => {
                let reason = "another process is backing up to this folder, or restoring from it".into();
                return Err(Error::Location { url: folder.display().to_string(), reason });
            }
        }
        let folder = folder.canonicalize().map_err(failed(folder))?;
        let store = Store::open(StoreOptions {
            address: folder.display().to_string(),
            keys: Some(folder.join(KEYS)),
            ..StoreOptions::default()
        })?;
        Ok(Backup { folder, store, _lock: lock })
    }

    /// The copies of the logs, as a store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn keys(&self) -> PathBuf {
        self.folder.join(KEYS)
    }

    /// Copies the folder of the keys, but for how far each log was signed: that is about the log itself, and
    /// not about its copy. Gives how many files were copied, and their bytes.
    pub fn add_keys(&self, keys: &Path) -> Result<(u64, u64)> {
        let (mut files, mut bytes) = (0, 0);
        for name in names_in(keys)? {
            if !name.ends_with(".signed") && !name.contains(".tmp-") {
                let (more_files, more_bytes) = copy_path(&keys.join(&name), &self.keys().join(&name), true)?;
                (files, bytes) = (files + more_files, bytes + more_bytes);
            }
        }
        Ok((files, bytes))
    }

    /// Checks that no log's key in `keys` is another one than the backup's of the same name.
    pub fn check_keys(&self, keys: &Path) -> Result<()> {
        for name in names_in(&self.keys())? {
            let (here, there) = (keys.join(&name), self.keys().join(&name));
            let Some(log) = name.strip_suffix(".key").filter(|_| here.exists()) else { continue };
            if fs::read(&here).map_err(failed(&here))? != fs::read(&there).map_err(failed(&there))? {
                let reason = "this is the key of another log of this name than the backup's".to_owned();
                return Err(Error::Keys { log: log.to_owned(), place: here.display().to_string(), reason });
            }
        }
        Ok(())
    }

    /// Puts the keys of the backup into `keys`, where there are none. Gives how many files were copied, and
    /// their bytes.
    pub fn restore_keys(&self, keys: &Path) -> Result<(u64, u64)> {
        self.check_keys(keys)?;
        copy_path(&self.keys(), keys, false)
    }

    /// Where the files of the exchange are.
    pub fn exchange(&self) -> PathBuf {
        self.folder.join("exchange")
    }

    /// Marks the backup as finished, now.
    pub fn finish(&self) -> Result<()> {
        let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let text = format!("{}\n", json!({"format": FORMAT, "finished": at}));
        let path = self.folder.join(FINISHED);
        replace(&path.with_file_name(".tmp-new"), &path, text.as_bytes(), 0o600).map_err(failed(&path))
    }
}

/// The names in a folder; none, if it is not there.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let Some(entries) = found(fs::read_dir(folder)).map_err(failed(folder))? else { return Ok(Vec::new()) };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().unwrap_or_default());
    entries.map(name).collect::<io::Result<_>>().map_err(failed(folder))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let what = path.display().to_string();
    move |source| Error::Io { what, source }
}

/// Copies the file `from`, or all that is in the folder `from`, where `to` does not have the same content.
/// A file that is there and has other content is replaced if `replace_others` says so. Gives how many files were
/// copied, and their bytes. What is not there is no error: a file may go away meanwhile. Names that begin with a dot are locks and unfinished files, and are passed over.
pub fn copy_path(from: &Path, to: &Path, replace_others: bool) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    match fs::read_dir(from) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(failed(from))?.file_name();
                if name.as_bytes().first() != Some(&b'.') {
                    let (more_files, more_bytes) =
                        copy_path(&from.join(&name), &to.join(&name), replace_others)?;
                    (files, bytes) = (files + more_files, bytes + more_bytes);
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let content = fs::read(from).map_err(failed(from))?;
            let there = fs::read(to).ok();
            if there.is_none_or(|there| replace_others && there != content) {
                to.parent()
                    .map_or(Ok(()), make_folder)
                    .and_then(|()| replace(&to.with_file_name(".tmp-new"), to, &content, 0o600))
                    .map_err(failed(to))?;
                (files, bytes) = (1, content.len() as u64);
            }
        }
        Err(error) => return Err(failed(from)(error)),
    }
    Ok((files, bytes))
}
