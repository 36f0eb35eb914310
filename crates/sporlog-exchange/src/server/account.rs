//! The state of an account that all of its connections share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use russh::keys::ssh_key::public::KeyData;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::{Account, Limits, Role};
use crate::tree::Home;
use sporlog_intake::blocking::lock;
use sporlog_intake::{Error, Result};

use super::delivered::Delivered;
use super::disk;
use super::extents::Extents;
use super::fetched::Fetched;
use super::keys::account_keys;
use super::packets::Attributes;
use super::path::Folder;
use super::rate::Rate;
use super::refusal::Refusal;

/// A writer that was silent for so long may lose its file to another connection.
pub(super) const SILENT: Duration = Duration::from_secs(15);

/// An account: its settings, its keys, and what its connections are doing.
pub(super) struct AccountState {
    pub name: String,
    pub role: Role,
    pub home: Home,
    pub limits: Limits,
    pub delete_fetched: bool,
    pub keys: Vec<KeyData>,
    pub rate: Option<Rate>,
    pub uploads: Arc<Uploads>,
    pub delivered: Delivered,
    pub fetched: Fetched,
    sessions: Arc<Semaphore>,
    /// The settings that this was made from.
    pub configured: Account,
    is_replaced: AtomicBool,
}

impl AccountState {
    /// Makes the account's folders, and reads its keys. `before` is the account's state until now: connections that are
    /// about to end may have files open, which stay theirs.
    pub(super) fn new(
        account: &Account,
        home: Home,
        general: &Limits,
        before: Option<&AccountState>,
    ) -> Result<Self> {
        let limits = account.limits(general);
        let made = home.create(account.role);
        made.map_err(|source| Error::Read { name: home.path().display().to_string(), source })?;
        Ok(AccountState {
            name: account.name.clone(),
            role: account.role,
            keys: account_keys(account)?,
            rate: limits.bytes_per_second.map(Rate::new),
            uploads: before.map(|before| Arc::clone(&before.uploads)).unwrap_or_default(),
            delivered: Delivered::default(),
            fetched: Fetched::of(&home),
            delete_fetched: account.delete_fetched,
            sessions: Arc::new(Semaphore::new(limits.sessions.min(Semaphore::MAX_PERMITS))),
            configured: account.clone(),
            is_replaced: AtomicBool::new(false),
            limits,
            home,
        })
    }

    /// Has the connections that signed in with this state end: the account is gone or another by now.
    pub(super) fn end_connections(&self) {
        self.is_replaced.store(true, Ordering::Relaxed);
    }

    /// Whether connections that signed in with this state are to end.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }

    /// A permit for another connection; `None` if the account has as many as it may.
    pub(super) fn acquire_session(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sessions).try_acquire_owned().ok()
    }

    /// Opens a folder of the account.
    pub(super) fn folder(&self, folder: &Folder) -> std::io::Result<disk::Folder> {
        match folder {
            Folder::Inbox => disk::Folder::open(&self.home.inbox()),
            Folder::Receipts => disk::Folder::open(&self.home.receipts()),
            Folder::Outbox => disk::Folder::open(&self.home.outbox()),
            Folder::Month(month) => disk::Folder::open(&self.home.outbox())?.folder(month),
        }
    }

    /// Opens the folder that files lie in while they are uploaded.
    pub(super) fn uploading(&self) -> std::io::Result<disk::Folder> {
        disk::Folder::open(&self.home.uploads())
    }
}

/// The files of an account that are being written, by their names.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    pub active: Mutex<HashMap<String, Arc<Mutex<Writer>>>>,
}

/// The connection that writes a file.
#[derive(Debug)]
pub(super) struct Writer {
    pub last_write: Instant,
    /// Which bytes of the file have been written.
    pub extents: Extents,
    /// Another connection has taken the file over.
    pub is_revoked: bool,
    /// The client has closed the file, and it is being synced.
    pub is_closing: bool,
}

impl Uploads {
    /// Makes the caller the writer of `name`. Returns also how far a former writer has come, whom the caller replaces.
    pub(super) fn claim(&self, name: &str) -> Result<(Arc<Mutex<Writer>>, Option<u64>), Refusal> {
        let mut active = lock(&self.active);
        let mut before = None;
        if let Some(other) = active.get(name) {
            let mut other = lock(other);
            let silent = other.last_write.elapsed();
            if other.is_closing {
                return Err(Refusal::failure("this file is just being closed"));
            }
            if silent < SILENT {
                return Err(Refusal::failure(format!(
                    "this file is being uploaded by another; if that one stays silent, try again in {} seconds",
                    (SILENT - silent).as_secs() + 1
                )));
            }
            other.is_revoked = true;
            before = Some(other.extents.prefix());
        }
        let (last_write, extents) = (Instant::now(), Extents::default());
        let writer = Writer { last_write, extents, is_revoked: false, is_closing: false };
        let writer = Arc::new(Mutex::new(writer));
        active.insert(name.to_owned(), Arc::clone(&writer));
        Ok((writer, before))
    }

    pub(super) fn release(&self, name: &str, writer: &Arc<Mutex<Writer>>) {
        let mut active = lock(&self.active);
        if active.get(name).is_some_and(|current| Arc::ptr_eq(current, writer)) {
            active.remove(name);
        }
    }

    /// The attributes of a file as a client is to see them: while it is written, it ends at its first gap.
    pub(super) fn up_to_gap(&self, name: &str, attributes: Attributes) -> Attributes {
        let writer = lock(&self.active).get(name).map(Arc::clone);
        let end = writer.map_or(u64::MAX, |writer| lock(&writer).extents.prefix());
        Attributes { size: attributes.size.min(end), ..attributes }
    }

    /// Whether a connection has this file open for writing.
    pub(super) fn is_active(&self, name: &str) -> bool {
        lock(&self.active).contains_key(name)
    }
}
