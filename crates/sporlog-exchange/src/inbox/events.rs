//! What the SFTP server tells the inbox: which files of an account it has closed.
//!
//! The server reports; the inbox takes the reports out when it scans next. A report that is lost (by a kill)
//! costs nothing but time: the file is then found complete by its age.

use std::ffi::OsString;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sporlog_intake::blocking::lock;
use tokio::sync::Notify;

/// A file in an account's inbox that the SFTP server has closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedFile {
    /// The account that it was uploaded by.
    pub account: String,
    /// The file's name in the inbox.
    pub name: OsString,
    /// Whether nothing more will be written to it: it got this name by a rename from a temporary one.
    pub is_final: bool,
    /// When it was closed.
    pub at: Instant,
}

/// Reports from the SFTP server to the inbox.
#[derive(Debug, Default)]
pub struct InboxEvents {
    closed: Mutex<Vec<ClosedFile>>,
    wake: Notify,
}

impl InboxEvents {
    /// Reports that a file in the account's inbox has been closed, and wakes the inbox up.
    pub fn file_closed(&self, account: &str, name: &str, is_final: bool) {
        let closed =
            ClosedFile { account: account.to_owned(), name: name.into(), is_final, at: Instant::now() };
        lock(&self.closed).push(closed);
        self.wake();
    }

    /// Takes out all reports since the last call.
    pub fn take_closed(&self) -> Vec<ClosedFile> {
        std::mem::take(&mut *lock(&self.closed))
    }

    /// Waits for the next report or [`wake`](InboxEvents::wake), but no longer than `timeout`.
    pub(super) async fn wait(&self, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, self.wake.notified()).await;
    }

    /// Ends the current or the next [`wait`](InboxEvents::wait).
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }
}
