//! An account as the server knows it: what is the same for all of its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::ssh_key::public::KeyData;

use crate::error::{Error, Result};
use crate::exchange::settings::{Account, Limits, Role};
use crate::exchange::tree::Home;

use super::disk;
use super::fetched::Fetched;
use super::keys::account_keys;
use super::path::Folder;
use super::rate::Rate;
use super::uploads::Uploads;

/// An account and what is going on in its name.
pub(super) struct Member {
    pub name: String,
    pub role: Role,
    pub home: Home,
    pub limits: Limits,
    pub delete_fetched: bool,
    pub keys: Vec<KeyData>,
    pub rate: Option<Rate>,
    pub uploads: Uploads,
    pub fetched: Fetched,
    sessions: AtomicUsize,
}

/// A connection of an account, given back when it is dropped.
pub(super) struct Seat(Arc<Member>);

impl Member {
    /// Makes its folders, and reads its keys.
    pub(super) fn new(account: &Account, home: Home, general: &Limits) -> Result<Self> {
        let limits = account.limits(general);
        let made = home.create(account.role);
        made.map_err(|source| Error::Read { name: home.path().display().to_string(), source })?;
        Ok(Member {
            name: account.name.clone(),
            role: account.role,
            keys: account_keys(account)?,
            rate: limits.bytes_per_second.map(Rate::new),
            uploads: Uploads::default(),
            fetched: Fetched::of(&home),
            delete_fetched: account.delete_fetched,
            sessions: AtomicUsize::new(0),
            limits,
            home,
        })
    }

    /// A place for another connection, if there is one.
    pub(super) fn sit(self: &Arc<Self>) -> Option<Seat> {
        let one_more = |now| (now < self.limits.sessions).then_some(now + 1);
        let sat = self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        sat.ok().map(|_| Seat(Arc::clone(self)))
    }

    /// A folder of its tree, open.
    pub(super) fn folder(&self, folder: &Folder) -> std::io::Result<disk::Folder> {
        match folder {
            Folder::Inbox => disk::Folder::open(&self.home.inbox()),
            Folder::Receipts => disk::Folder::open(&self.home.receipts()),
            Folder::Outbox => disk::Folder::open(&self.home.outbox()),
            Folder::Month(month) => disk::Folder::open(&self.home.outbox())?.folder(month),
        }
    }

    /// Where its files lie while they are uploaded.
    pub(super) fn uploading(&self) -> std::io::Result<disk::Folder> {
        disk::Folder::open(&self.home.uploads())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}
