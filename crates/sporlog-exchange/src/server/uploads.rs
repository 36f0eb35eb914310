//! Uploads: a file is written beside the inbox, by one writer at a time, and moved into the inbox when it is
//! closed.
//!
//! ```text
//! open ─► .sporlog/uploads/<name> ── close ─► ind/<name>          reported to the inbox: closed
//!                   ▲                              │
//!                   └── opened again, to resume ───┘
//! open ─► .sporlog/uploads/<name>.part ── close ─► stays ── rename ─► ind/<name>   reported: closed, final
//! ```
//!
//! A connection that ends without closing the file leaves it in `.sporlog/uploads`, to be resumed; so does a
//! crash of the server. Either way the file is cut off at its first gap, and whoever asks how long it is while it is
//! written is told where the first gap begins: a client resumes at that byte. A file with a gap cannot be closed.
//! A writer that was silent for a while loses its file to the next connection that opens it, because its own
//! connection may be dead without the server knowing.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use sporlog_intake::blocking::lock;
use tokio::task::JoinHandle;

use crate::name::is_temporary;
use crate::tree::Home;

use super::account::{AccountState, Writer};
use super::disk::{self, blocking};
use super::extents::Extents;
use super::packets::{Attributes, flags};
use super::path::Folder;
use super::refusal::Refusal;

/// After so many bytes the file is synced in the background, so that little is left to sync when it is closed.
const SYNC_EVERY: u64 = 32 << 20;

/// The writer of an upload, unless another connection has taken the file over. Locked while bytes are written, so that
/// after a takeover the former writer does not write any more.
fn lock_own(writer: &Mutex<Writer>) -> Result<MutexGuard<'_, Writer>, Refusal> {
    let writer = lock(writer);
    if writer.is_revoked {
        return Err(Refusal::failure("another upload of this name has taken over"));
    }
    Ok(writer)
}

/// A file that is being uploaded. Dropped without being closed, it stays where it is.
pub(super) struct Upload {
    account: Arc<AccountState>,
    pub name: String,
    file: Arc<File>,
    writer: Arc<Mutex<Writer>>,
    appends: bool,
    /// How long the file is to be, as far as is known: all of these bytes have to come.
    size: u64,
    /// Bytes written through this handle.
    pub written: u64,
    /// Why the file cannot become complete any more.
    failed: Option<&'static str>,
    unsynced: u64,
    syncing: Option<JoinHandle<()>>,
}

impl Upload {
    /// Opens a file of the inbox for writing.
    pub(super) fn open(account: &Arc<AccountState>, name: &str, wanted: u32) -> Result<Self, Refusal> {
        let (writer, before) = account.uploads.claim(name)?;
        let opened = open_file(account, name, wanted).and_then(|file| {
            // An upload is gone on with where it has come to without a gap.
            let end = disk::before_hole(&file)?.min(before.unwrap_or(u64::MAX));
            if end < disk::of_file(&file)?.size {
                file.set_len(end)?;
            }
            Ok((end, file))
        });
        let (size, file) = opened.inspect_err(|_| account.uploads.release(name, &writer))?;
        lock(&writer).extents = Extents::whole(size);
        Ok(Upload {
            account: Arc::clone(account),
            name: name.to_owned(),
            file: Arc::new(file),
            writer,
            appends: wanted & flags::APPEND != 0,
            size,
            written: 0,
            failed: None,
            unsynced: 0,
            syncing: None,
        })
    }

    /// Writes bytes; they are in the file when this returns.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Refusal> {
        let offset = if self.appends { self.size } else { offset };
        let limit = self.account.limits.file_bytes;
        let len = data.len() as u64;
        let Some(end) = offset.checked_add(len).filter(|&end| end <= limit) else {
            self.failed = Some("the file is too large");
            return Err(Refusal::failure(format!("a file has {limit} bytes at most")));
        };
        let mut writer = lock_own(&self.writer)?;
        if let Some(why) = self.failed {
            // The client may have sent further writes before it got the error.
            return Err(Refusal::failure(format!("the upload has failed: {why}")));
        }
        if let Err(error) = blocking(|| self.file.write_all_at(data, offset)) {
            self.failed = Some("the file could not be written in full");
            writer.extents.truncate(offset);
            // Also makes room on a full disk.
            let _ = blocking(|| self.file.set_len(writer.extents.prefix()));
            return Err(error.into());
        }
        writer.last_write = Instant::now();
        if !writer.extents.add(offset, end) {
            self.failed = Some("it was written in too many pieces with gaps between them");
        }
        drop(writer);
        self.size = self.size.max(end);
        self.written += len;
        self.unsynced += len;
        if self.unsynced >= SYNC_EVERY {
            self.sync_behind();
        }
        Ok(())
    }

    fn sync_behind(&mut self) {
        if self.syncing.as_ref().is_none_or(JoinHandle::is_finished) {
            let file = Arc::clone(&self.file);
            self.unsynced = 0;
            // An error is not lost: the system reports it again to the sync when the file is closed.
            self.syncing = Some(tokio::task::spawn_blocking(move || drop(file.sync_data())));
        }
    }

    /// Truncates the file, or extends it within the limit.
    pub(super) fn set_size(&mut self, size: u64) -> Result<(), Refusal> {
        if size > self.account.limits.file_bytes {
            return Err(Refusal::failure("a file may not become so large"));
        }
        let mut writer = lock_own(&self.writer)?;
        blocking(|| self.file.set_len(size))?;
        writer.extents.truncate(size);
        drop(writer);
        self.size = size;
        Ok(())
    }

    pub(super) fn attributes(&self) -> Result<Attributes, Refusal> {
        Ok(disk::of_file(&self.file)?)
    }

    /// Makes the bytes written so far durable.
    pub(super) async fn sync(&self) -> Result<(), Refusal> {
        let file = Arc::clone(&self.file);
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        Ok(synced.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))?)
    }

    /// Begins to close the file. Fails if a write has failed, if the file has a gap, or if another connection has taken
    /// over.
    pub(super) fn begin_close(&self) -> Result<(), Refusal> {
        let mut writer = lock_own(&self.writer)?;
        let incomplete = |why: &str| Err(Refusal::failure(format!("the upload is incomplete: {why}")));
        if let Some(why) = self.failed {
            return incomplete(why);
        }
        let begin = writer.extents.prefix();
        if begin < self.size {
            let end = writer.extents.gap_end(self.size);
            let why =
                format!("the bytes from {begin} to {end} did not come; go on at {begin}, or begin anew");
            return incomplete(&why);
        }
        writer.is_closing = true;
        Ok(())
    }

    /// Moves the synced file into the inbox, unless its name is a temporary one. Returns whether the file was
    /// moved.
    pub(super) fn finish(&self) -> Result<bool, Refusal> {
        blocking(|| {
            let uploads = self.account.uploading()?;
            if is_temporary(OsStr::new(&self.name)) {
                uploads.sync()?;
                return Ok(false);
            }
            let inbox = self.account.folder(&Folder::Inbox)?;
            uploads.rename(&self.name, &inbox, &self.name, true)?;
            inbox.sync()?;
            uploads.sync()?;
            Ok(true)
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let writer = lock(&self.writer);
        let end = writer.extents.prefix();
        // A file that has been closed has no gap, and is not touched: it may lie in the inbox.
        if !writer.is_revoked && disk::of_file(&self.file).is_ok_and(|file| file.size > end) {
            // If this fails, the next start cuts the file off.
            let _ = self.file.set_len(end);
        }
        drop(writer);
        self.account.uploads.release(&self.name, &self.writer);
    }
}

/// Opens the file beside the inbox: a new file, or the one that is to be resumed, from either folder.
fn open_file(account: &AccountState, name: &str, wanted: u32) -> Result<File, Refusal> {
    let has = |flag| wanted & flag != 0;
    let (uploads, inbox) = (account.uploading()?, account.folder(&Folder::Inbox)?);
    let (is_partial, waits) = (uploads.has(name)?, inbox.has(name)?);
    if has(flags::EXCLUDE) && (is_partial || waits) {
        return Err(Refusal::failure("a file of this name is there already"));
    }
    if !is_partial && !waits {
        if !has(flags::CREATE) && !has(flags::TRUNCATE) {
            return Err(Refusal::missing());
        }
        let limit = account.limits.files;
        if inbox.count(None, limit)? + uploads.count(Some(&inbox), limit)? >= limit {
            return Err(Refusal::failure(format!("{limit} files are waiting already, and more may not")));
        }
    }
    if !is_partial && waits && !has(flags::TRUNCATE) {
        // This fails if the inbox has just claimed the file: then there is nothing to resume.
        inbox.rename(name, &uploads, name, true)?;
    }
    Ok(uploads.write(name, true, has(flags::TRUNCATE))?)
}

/// The result of a rename.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renamed {
    /// The file lies in the inbox; `is_final` if it had a temporary name before.
    Delivered { is_final: bool },
    /// The file lies beside the inbox, as an incomplete upload.
    Beside,
}

/// Renames a file of the inbox. A change from a temporary name to another completes the file.
pub(super) fn rename(
    account: &AccountState,
    from: &str,
    to: &str,
    replace: bool,
) -> Result<Renamed, Refusal> {
    if account.uploads.is_active(from) || account.uploads.is_active(to) {
        return Err(Refusal::failure("this file is still open"));
    }
    let (uploads, inbox) = (account.uploading()?, account.folder(&Folder::Inbox)?);
    if !replace && (uploads.has(to)? || inbox.has(to)?) {
        return Err(Refusal::failure("a file of this name is there already"));
    }
    let (was_temporary, has_final_name) = (is_temporary(OsStr::new(from)), !is_temporary(OsStr::new(to)));
    let is_partial = uploads.has(from)?;
    // An incomplete upload under a final name does not become complete by a rename to another final name.
    let delivered = has_final_name && (was_temporary || !is_partial);
    let source = if is_partial { &uploads } else { &inbox };
    let target = if delivered { &inbox } else { &uploads };
    source.rename(from, target, to, replace)?;
    target.sync()?;
    source.sync()?;
    Ok(if delivered { Renamed::Delivered { is_final: was_temporary } } else { Renamed::Beside })
}

/// Removes a file that has not been claimed.
pub(super) fn remove(account: &AccountState, name: &str) -> Result<(), Refusal> {
    if account.uploads.is_active(name) {
        return Err(Refusal::failure("this file is still open"));
    }
    let folders = [account.uploading()?, account.folder(&Folder::Inbox)?];
    let mut found = false;
    for folder in folders {
        if folder.has(name)? {
            folder.remove(name)?;
            folder.sync()?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(Refusal::missing()) }
}

/// The attributes of a file of the inbox, complete or not.
pub(super) fn stat(account: &AccountState, name: &str) -> Result<Attributes, Refusal> {
    match account.uploading()?.stat(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(account.folder(&Folder::Inbox)?.stat(name)?)
        }
        attributes => Ok(account.uploads.up_to_gap(name, attributes?)),
    }
}

/// Cuts incomplete uploads off at their first gap, where a killed server has not done so. Gaps are told by the holes
/// that the file system has left.
pub(super) fn cut_at_gaps(home: &Home) -> std::io::Result<()> {
    let uploads = disk::Folder::open(&home.uploads())?;
    let mut names = uploads.names()?;
    while let Some(name) = names.next_name()? {
        // What is no regular file is no upload.
        let Ok(file) = uploads.write(&name, false, false) else { continue };
        let end = disk::before_hole(&file)?;
        if end < disk::of_file(&file)?.size {
            file.set_len(end)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
