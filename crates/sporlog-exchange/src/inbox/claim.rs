//! A claim: a delivery that has been moved out of the inbox, into a folder of its own until it is dealt with.
//!
//! ```text
//! .sporlog/taken/<id>/file/<name>     the file, moved here from the inbox by one rename
//! .sporlog/taken/<id>/decided.json    the receipt, written before the commit and again after it
//! ```
//!
//! What a crash can leave here, and what the next start does about it ([`Claim::left_over`]):
//!
//! | left | next start |
//! |---|---|
//! | a folder without a file | the rename did not happen, or all was done: the folder is removed |
//! | a file without `decided.json` | the delivery is ingested from the beginning |
//! | a file with `decided.json` | the log has the position [`Claim::position`] if the commit came about; what follows the commit is done again |

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};
use rustix::fs::OFlags;

use crate::receipt::{ID_TIME, Receipt, delivery_id};
use crate::tree::Home;
use sporlog_ledger::local_files::{found, make_folder, replace, sync_folder};

const DECIDED: &str = "decided.json";

/// The state of a file: two stamps differ if the file was replaced or written to in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// The stamp of a regular file; `None` for anything else.
    pub fn of(metadata: &fs::Metadata) -> Option<Self> {
        metadata.is_file().then(|| Stamp {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Opens a regular file for reading. A link is not followed; anything but a regular file is an error.
pub(super) fn open(path: &Path) -> io::Result<(File, Stamp)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    let stamp = Stamp::of(&file.metadata()?);
    let stamp = stamp.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))?;
    Ok((file, stamp))
}

/// What lies in a claim's folder as its file.
pub(super) enum ClaimedFile {
    /// The delivered file, open, and its state by then.
    Regular(File, Stamp),
    /// A link, a folder or the like.
    NotRegular,
    /// Nothing: somebody has removed the file.
    Missing,
}

/// A delivery that has been moved out of the inbox, or is about to be.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// The delivery's id.
    pub id: String,
    /// The account that the file came from.
    pub account: String,
    /// The file's name.
    pub name: OsString,
    /// When the claim was made.
    pub taken_at: DateTime<Utc>,
    /// The account's folders.
    pub home: Home,
}

impl Claim {
    /// A claim on a file of the account. Nothing on disk has changed yet.
    pub fn plan(home: &Home, account: &str, name: &OsStr) -> Self {
        let taken_at = Utc::now();
        Claim {
            id: delivery_id(taken_at),
            account: account.to_owned(),
            name: name.to_owned(),
            taken_at,
            home: home.clone(),
        }
    }

    /// Moves the file out of the inbox; durable when this returns. `false`: the file is not there any more.
    pub fn take(&self) -> io::Result<bool> {
        self.take_from(&self.home.inbox())
    }

    /// Moves the file out of one of the account's folders; durable when this returns. `false`: the file is not
    /// there any more.
    pub fn take_from(&self, from: &Path) -> io::Result<bool> {
        match self.try_to_take(from) {
            Ok(()) => Ok(true),
            // The file was moved, and only a sync failed: it is dealt with from where it is.
            Err(_) if self.file().symlink_metadata().is_ok() => Ok(true),
            Err(error) => {
                self.remove_folder()?;
                if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) }
            }
        }
    }

    fn try_to_take(&self, from: &Path) -> io::Result<()> {
        // A crash before the rename leaves an empty folder, and the file where it was.
        make_folder(&self.file_folder())?;
        sync_folder(&self.folder())?;
        sync_folder(&self.home.taken())?;
        fs::rename(from.join(&self.name), self.file())?;
        // A crash from here on leaves the claimed file, which the next start finds.
        sync_folder(&self.file_folder())?;
        sync_folder(from)
    }

    /// The account's claims that an earlier process has left, oldest first. Folders in which nothing is left to
    /// be done are removed.
    pub fn left_over(home: &Home, account: &str) -> io::Result<Vec<Self>> {
        let mut claims = Vec::new();
        for entry in fs::read_dir(home.taken())? {
            let Ok(id) = entry?.file_name().into_string() else { continue };
            let Some(taken_at) = time_of(&id) else { continue };
            let mut claim = Claim {
                id,
                account: account.to_owned(),
                name: OsString::new(),
                taken_at,
                home: home.clone(),
            };
            let inside = found(fs::read_dir(claim.file_folder()))?;
            match inside.and_then(|mut inside| inside.next()).transpose()? {
                Some(file) => {
                    claim.name = file.file_name();
                    claims.push(claim);
                }
                // The file was never moved here, or is gone because all was done.
                None => claim.remove_folder()?,
            }
        }
        claims.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(claims)
    }

    /// The path of the claimed file.
    pub fn file(&self) -> PathBuf {
        self.file_folder().join(&self.name)
    }

    /// Opens the claimed file.
    pub fn open(&self) -> io::Result<ClaimedFile> {
        let path = self.file();
        match found(path.symlink_metadata())? {
            Some(metadata) if metadata.is_file() => {
                open(&path).map(|(file, stamp)| ClaimedFile::Regular(file, stamp))
            }
            Some(_) => Ok(ClaimedFile::NotRegular),
            None => Ok(ClaimedFile::Missing),
        }
    }

    /// The source position in the log that the commit of this delivery moves. The log has this position if,
    /// and only if, the commit came about.
    pub fn position(&self) -> String {
        format!("delivery:{}", self.id)
    }

    /// The decision that was written down, if there is one.
    pub fn decision(&self) -> io::Result<Option<Receipt>> {
        let bytes = found(fs::read(self.folder().join(DECIDED)))?;
        // The file is renamed into place when it is whole, so one that is no receipt is not ours.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Writes down what has been decided, in place of an earlier decision; durable when this returns.
    pub fn write_decision(&self, receipt: &Receipt) -> io::Result<()> {
        let bytes = serde_json::to_vec(receipt)?;
        make_folder(&self.folder())?;
        replace(&self.folder().join("decided.tmp"), &self.folder().join(DECIDED), &bytes, 0o640)
    }

    /// Removes the file and the claim's folder. To be called when the log has the file's rows.
    pub fn remove_file(&self) -> io::Result<()> {
        found(fs::remove_file(self.file()))?;
        self.remove_folder()
    }

    /// Moves the file into the folder of refused files, with its receipt beside it, and removes the claim's
    /// folder.
    pub fn keep_aside(&self, receipt: &[u8]) -> io::Result<()> {
        let folder = self.home.refused().join(&self.id);
        make_folder(&folder)?;
        replace(
            &self.home.scratch().join(format!("{}.json", self.id)),
            &folder.join("receipt.json"),
            receipt,
            0o640,
        )?;
        // In a folder of its own, because the file may be called receipt.json, too.
        let kept = folder.join("file");
        make_folder(&kept)?;
        found(fs::rename(self.file(), kept.join(&self.name)))?;
        sync_folder(&kept)?;
        sync_folder(&folder)?;
        sync_folder(&self.home.refused())?;
        self.remove_folder()
    }

    fn remove_folder(&self) -> io::Result<()> {
        found(fs::remove_dir_all(self.folder()))?;
        sync_folder(&self.home.taken())
    }

    fn folder(&self) -> PathBuf {
        self.home.taken().join(&self.id)
    }

    fn file_folder(&self) -> PathBuf {
        self.folder().join("file")
    }
}

/// When the delivery with this id was claimed.
fn time_of(id: &str) -> Option<DateTime<Utc>> {
    let (time, _) = id.split_once('-')?;
    Some(NaiveDateTime::parse_from_str(time, ID_TIME).ok()?.and_utc())
}
