//! The state of an account that all of its connections share.

use std::sync::Arc;

use russh::keys::ssh_key::public::KeyData;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::{Account, Limits, Role};
use crate::tree::Home;
use sporlog_intake::{Error, Result};

use super::disk;
use super::fetched::Fetched;
use super::keys::account_keys;
use super::path::Folder;
use super::rate::Rate;
use super::uploads::Uploads;

/// An account: its settings, its keys, and what its connections are doing.
pub(super) struct AccountState {
    pub name: String,
    pub role: Role,
    pub home: Home,
    pub limits: Limits,
    pub delete_fetched: bool,
    pub keys: Vec<KeyData>,
    pub rate: Option<Rate>,
    pub uploads: Uploads,
    pub fetched: Fetched,
    sessions: Arc<Semaphore>,
}

impl AccountState {
    /// Makes the account's folders, and reads its keys.
    pub(super) fn new(account: &Account, home: Home, general: &Limits) -> Result<Self> {
        let limits = account.limits(general);
        let made = home.create(account.role);
        made.map_err(|source| Error::Read { name: home.path().display().to_string(), source })?;
        Ok(AccountState {
            name: account.name.clone(),
            role: account.role,
            keys: account_keys(account)?,
            rate: limits.bytes_per_second.map(Rate::new),
            uploads: Uploads::default(),
            fetched: Fetched::of(&home),
            delete_fetched: account.delete_fetched,
            sessions: Arc::new(Semaphore::new(limits.sessions.min(Semaphore::MAX_PERMITS))),
            limits,
            home,
        })
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
