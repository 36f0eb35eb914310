//! A delivery that has been taken out of the inbox, in a folder of its own until it is dealt with.
//!
//! ```text
//! taken/<id>/file/<name>     the file, moved here from the inbox by one rename
//! taken/<id>/decided.json    the receipt, written before the commit and again after it
//! ```
//!
//! Whatever is found here at a start is taken up again. A file without a decision is dealt with from the
//! beginning. With one, the log knows whether the commit came about (a position named after the delivery
//! is part of it), and all the rest may be done twice.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, Utc};
use rustix::fs::OFlags;

use super::receipt::Receipt;
use super::tree::Home;
use crate::durable::{make_folder, put, sync_folder};

/// How the time stands in a delivery's id.
const TIME: &str = "%Y%m%dT%H%M%SZ";
const DECIDED: &str = "decided.json";

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    /// Its size.
    pub size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// That of a regular file; `None` for anything else.
    pub fn of(metadata: &fs::Metadata) -> Option<Self> {
        metadata.is_file().then(|| Stamp {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Opens a file that was delivered. What is no regular file is an error.
pub(super) fn open(path: &Path) -> io::Result<(File, Stamp)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    let stamp = Stamp::of(&file.metadata()?);
    let stamp = stamp.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))?;
    Ok((file, stamp))
}

/// A delivery that has been taken out of the inbox.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its id.
    pub id: String,
    /// The account that it came from.
    pub account: String,
    /// The file's name.
    pub name: OsString,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    home: Home,
}

impl Claim {
    /// A delivery that is about to be taken; nothing has happened yet.
    pub fn plan(home: &Home, account: &str, name: &OsStr) -> Self {
        let taken_at = Utc::now();
        let random = uuid::Uuid::new_v4().simple().to_string();
        let id = format!("{}-{}", taken_at.format(TIME), random.get(..8).unwrap_or_default());
        Claim { id, account: account.to_owned(), name: name.to_owned(), taken_at, home: home.clone() }
    }

    /// The same file, about to be taken now.
    pub fn anew(&self) -> Self {
        Claim::plan(&self.home, &self.account, &self.name)
    }

    /// Takes the file out of one of the account's folders; whether it was still there.
    pub fn take_from(&self, from: &Path) -> io::Result<bool> {
        let taken = self.try_to_take(from);
        match taken {
            Ok(()) => Ok(true),
            // It has been moved, though that may not be durable yet: it is to be dealt with from there.
            Err(_) if self.file().symlink_metadata().is_ok() => Ok(true),
            Err(error) => {
                self.clear()?;
                if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) }
            }
        }
    }

    fn try_to_take(&self, from: &Path) -> io::Result<()> {
        make_folder(&self.file_folder())?;
        sync_folder(&self.folder())?;
        sync_folder(&self.home.taken())?;
        fs::rename(from.join(&self.name), self.file())?;
        sync_folder(&self.file_folder())?;
        sync_folder(from)
    }

    /// What an account's deliveries were left as by whoever ran before, oldest first. Folders from which
    /// nothing is left to be done are cleared away.
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
            let inside = match fs::read_dir(claim.file_folder()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                inside => inside?.next().transpose()?,
            };
            match inside {
                Some(file) => {
                    claim.name = file.file_name();
                    claims.push(claim);
                }
                // The rename had not come, or all was done but for this.
                None => claim.clear()?,
            }
        }
        claims.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(claims)
    }

    /// Where the file lies.
    pub fn file(&self) -> PathBuf {
        self.file_folder().join(&self.name)
    }

    /// Takes the file out of the inbox; whether it was still there.
    pub fn take(&self) -> io::Result<bool> {
        self.take_from(&self.home.inbox())
    }

    /// Where the file lies before it is taken.
    pub fn waiting(&self) -> PathBuf {
        self.home.inbox().join(&self.name)
    }

    /// The source that a commit of this delivery moves on: it tells afterwards that it came about.
    pub fn position(&self) -> String {
        format!("delivery:{}", self.id)
    }

    /// What has been decided, if that was written down.
    pub fn decided(&self) -> io::Result<Option<Receipt>> {
        match fs::read(self.folder().join(DECIDED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // It is renamed into place when it is whole: what cannot be read was not ours.
            bytes => Ok(serde_json::from_slice(&bytes?).ok()),
        }
    }

    /// Writes down what has been decided; durable when this returns.
    pub fn decide(&self, receipt: &Receipt) -> io::Result<()> {
        let bytes = serde_json::to_vec(receipt)?;
        make_folder(&self.folder())?;
        put(&self.folder().join("decided.tmp"), &self.folder().join(DECIDED), &bytes)
    }

    /// Removes the file; what it held is in the log, or was before.
    pub fn drop_file(&self) -> io::Result<()> {
        match fs::remove_file(self.file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.clear()
    }

    /// Keeps the file aside, whole, with its receipt.
    pub fn keep_aside(&self, receipt: &[u8]) -> io::Result<()> {
        let folder = self.home.refused().join(&self.id);
        make_folder(&folder)?;
        put(&self.home.scratch().join(format!("{}.json", self.id)), &folder.join("receipt.json"), receipt)?;
        // Its own folder: it may be called receipt.json, too.
        let kept = folder.join("file");
        make_folder(&kept)?;
        match fs::rename(self.file(), kept.join(&self.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sync_folder(&kept)?;
        sync_folder(&folder)?;
        sync_folder(&self.home.refused())?;
        self.clear()
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.folder()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_folder(&self.home.taken()),
        }
    }

    fn folder(&self) -> PathBuf {
        self.home.taken().join(&self.id)
    }

    fn file_folder(&self) -> PathBuf {
        self.folder().join("file")
    }
}

/// When the delivery of this id was taken.
fn time_of(id: &str) -> Option<DateTime<Utc>> {
    let (time, _) = id.split_once('-')?;
    Some(NaiveDateTime::parse_from_str(time, TIME).ok()?.and_utc())
}
