//! The keys of those who use the server, in files beside the logs' keys.
//!
//! | file | holds |
//! |---|---|
//! | `apikeys.json` | the keys, without their secrets |
//! | `apikeys.used.json` | when each was last used, to half a minute |
//! | `apikeys.lock` | nothing; whoever changes one of the others holds a lock on it |
//!
//! A file is replaced as a whole, so that a reader sees the old one or the new one. Two commands at
//! once take turns, and neither undoes what the other did.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use sporlog_intake::blocking::blocking;
use sporlog_ledger::local_files;
use sporlog_web::access::KeyRing;

mod follow;

/// When keys were last used, by their ids.
pub type LastUse = BTreeMap<String, DateTime<Utc>>;

/// The files in a folder of keys.
#[derive(Debug, Clone)]
pub struct KeyFile {
    folder: PathBuf,
}

/// The files, while nobody else changes them.
pub struct Locked<'a> {
    files: &'a KeyFile,
    /// Released when it is closed.
    _lock: File,
}

impl KeyFile {
    /// Those in this folder, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        KeyFile { folder: folder.into() }
    }

    /// The keys; none if there is no file.
    pub fn ring(&self) -> Result<KeyRing> {
        let path = self.keys();
        let Some(json) = read(&path)? else { return Ok(KeyRing::default()) };
        KeyRing::from_json(&json).with_context(|| path.display().to_string())
    }

    /// When keys were last used.
    pub fn last_use(&self) -> Result<LastUse> {
        let path = self.uses();
        let Some(json) = read(&path)? else { return Ok(LastUse::new()) };
        serde_json::from_slice(&json).with_context(|| path.display().to_string())
    }

    /// Waits until nobody else changes the files. Makes the folder if it is not there.
    pub fn lock(&self) -> Result<Locked<'_>> {
        Ok(Locked { files: self, _lock: lock(&self.folder, "apikeys.lock")? })
    }

    fn keys(&self) -> PathBuf {
        self.folder.join("apikeys.json")
    }

    fn uses(&self) -> PathBuf {
        self.folder.join("apikeys.used.json")
    }
}

impl Locked<'_> {
    /// Replaces the keys.
    pub fn save(&self, ring: &KeyRing) -> Result<()> {
        replace(&self.files.keys(), &ring.to_json()?)
    }

    /// Adds when keys were last used; what is there already and is later stays.
    fn add_uses(&self, uses: &LastUse) -> Result<()> {
        // What cannot be read is of less worth than what is known now.
        let mut all = self.files.last_use().unwrap_or_default();
        for (id, time) in uses {
            let last = all.entry(id.clone()).or_insert(*time);
            *last = (*last).max(*time);
        }
        replace(&self.files.uses(), &serde_json::to_vec_pretty(&all)?)
    }
}

/// Waits until nobody else holds the lock of this name. Makes the folder if it is not there.
pub fn lock(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(name);
    let lock = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.lock()?;
        Ok::<_, io::Error>(file)
    };
    lock().with_context(|| path.display().to_string())
}

/// Replaces a file that is for its owner alone: written beside its place first, under a name that only the holder
/// of a lock uses.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let replaced = local_files::replace(&path.with_extension("tmp"), path, bytes, 0o600);
    replaced.with_context(|| path.display().to_string())
}

/// What a file holds, if there is one.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    found(std::fs::read(path)).with_context(|| path.display().to_string())
}

/// What tells one state of a file from another: every change makes a new file, or a longer one.
pub type Stamp = (u64, (i64, i64), u64);

/// The state that a file is in, if there is one.
pub fn stamp(path: &Path) -> Result<Option<Stamp>> {
    let file = found(path.metadata()).with_context(|| path.display().to_string())?;
    Ok(file.map(|file| (file.ino(), (file.mtime(), file.mtime_nsec()), file.len())))
}

/// Does work that may block once a second, with the second's number. Of failures one after the other, `failed` is logged
/// once, and not every second.
pub async fn every_second(failed: &'static str, work: impl Fn(u32) -> Result<()> + Clone + Send + 'static) {
    let mut failing = false;
    for second in 1.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let work = work.clone();
        let done = blocking(move || work(second)).await;
        if let Err(error) = done.as_ref()
            && !failing
        {
            tracing::error!(error = format!("{error:#}"), "{failed}");
        }
        failing = done.is_err();
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests;
