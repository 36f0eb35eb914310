//! Directory listings, read from disk portion by portion as the client asks for more.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::time::Instant;

use chrono::{DateTime, Local, TimeDelta, Utc};

use crate::settings::Role;

use super::account::AccountState;
use super::disk;
use super::packets::{Attributes, Entry};
use super::path::{self, Folder, VirtualPath};
use super::refusal::Refusal;

/// Entries in one answer.
const AT_ONCE: usize = 100;
/// The mode bits of a folder.
const IS_FOLDER: u32 = 0o040_000;

/// A listing that a client is reading.
pub(super) struct Listing {
    owner: String,
    is_inbox: bool,
    /// What is listed first: folders, or files that were delivered of late, and may or may not lie in the inbox still.
    first: VecDeque<(String, Attributes)>,
    /// The names of such files, which are left out of what the disk has.
    listed: HashSet<String>,
    sources: VecDeque<Source>,
}

/// A folder on the disk whose files are listed.
struct Source {
    folder: disk::Folder,
    names: disk::Names,
    /// Whether the folders named like a month are listed instead of the files.
    months: bool,
    /// A folder whose names were listed before and are left out here.
    except: Option<disk::Folder>,
}

impl Source {
    fn new(folder: disk::Folder, months: bool, except: Option<disk::Folder>) -> io::Result<Self> {
        Ok(Source { names: folder.names()?, folder, months, except })
    }

    fn next(&mut self) -> io::Result<Option<(String, Attributes)>> {
        while let Some(name) = self.names.next_name()? {
            let attributes = match self.months {
                true if path::is_month(&name) => self.folder.folder(&name).and_then(|month| month.own()),
                true => continue,
                false => self.folder.stat(&name),
            };
            match attributes {
                // Not a regular file, or removed in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) if self.has_been_listed(&name)? => {}
                Ok(attributes) => return Ok(Some((name, attributes))),
            }
        }
        Ok(None)
    }

    fn has_been_listed(&self, name: &str) -> io::Result<bool> {
        self.except.as_ref().map_or(Ok(false), |except| except.has(name))
    }
}

impl Listing {
    /// Begins the listing of a folder, as a session sees it that began at `began`.
    pub(super) fn open(account: &AccountState, began: Instant, path: &VirtualPath) -> Result<Self, Refusal> {
        let mut listing = Listing {
            owner: account.name.clone(),
            is_inbox: *path == VirtualPath::Folder(Folder::Inbox),
            first: VecDeque::new(),
            listed: HashSet::new(),
            sources: VecDeque::new(),
        };
        match path {
            VirtualPath::Root => {
                let folders: &[_] = match account.role {
                    Role::Supplier => &[Folder::Inbox, Folder::Receipts],
                    Role::Municipality => &[Folder::Outbox],
                };
                for folder in folders {
                    listing.first.push_back((folder.name().to_owned(), account.folder(folder)?.own()?));
                }
            }
            VirtualPath::Folder(Folder::Inbox) => {
                for (name, before) in account.delivered.list(&account.home, began) {
                    let attributes = super::uploads::stat(account, &name).unwrap_or(before);
                    listing.listed.insert(name.clone());
                    listing.first.push_back((name, attributes));
                }
                // Incomplete uploads and complete files lie in two folders; the client sees one.
                listing.sources.push_back(Source::new(account.uploading()?, false, None)?);
                let inbox = account.folder(&Folder::Inbox)?;
                listing.sources.push_back(Source::new(inbox, false, Some(account.uploading()?))?);
            }
            VirtualPath::Folder(folder) => {
                let months = *folder == Folder::Outbox;
                listing.sources.push_back(Source::new(account.folder(folder)?, months, None)?);
            }
            VirtualPath::File(folder, name) => {
                let found = stat_file(account, folder, name);
                return Err(found.map_or_else(|missing| missing, |_| Refusal::failure("not a folder")));
            }
        }
        Ok(listing)
    }

    /// The next entries; none at the end.
    pub(super) fn more(&mut self, account: &AccountState) -> Result<Vec<Entry>, Refusal> {
        let mut entries = Vec::new();
        while entries.len() < AT_ONCE {
            if let Some((name, attributes)) = self.first.pop_front() {
                entries.push(self.entry(name, attributes));
                continue;
            }
            let Some(source) = self.sources.front_mut() else { break };
            match source.next()? {
                Some((name, _)) if self.listed.contains(&name) => {}
                Some((name, attributes)) => {
                    let up_to_gap = self.is_inbox.then(|| account.uploads.up_to_gap(&name, attributes));
                    entries.push(self.entry(name, up_to_gap.unwrap_or(attributes)));
                }
                None => drop(self.sources.pop_front()),
            }
        }
        Ok(entries)
    }

    fn entry(&self, name: String, attributes: Attributes) -> Entry {
        Entry { long: long(&name, &self.owner, &attributes, Utc::now()), name, attributes }
    }
}

/// The attributes of a file or folder.
pub(super) fn stat(account: &AccountState, path: &VirtualPath) -> Result<Attributes, Refusal> {
    match path {
        VirtualPath::Root => Ok(disk::Folder::open(account.home.path())?.own()?),
        VirtualPath::Folder(folder) => Ok(account.folder(folder)?.own()?),
        VirtualPath::File(folder, name) => stat_file(account, folder, name),
    }
}

fn stat_file(account: &AccountState, folder: &Folder, name: &str) -> Result<Attributes, Refusal> {
    match folder {
        Folder::Inbox => super::uploads::stat(account, name),
        folder => Ok(account.folder(folder)?.stat(name)?),
    }
}

/// An entry as `ls -l` would show it.
fn long(name: &str, owner: &str, attributes: &Attributes, now: DateTime<Utc>) -> String {
    let kind = if attributes.mode & 0o170_000 == IS_FOLDER { 'd' } else { '-' };
    let may = |bit: u32, letter| if attributes.mode & bit != 0 { letter } else { '-' };
    let mode: String =
        (0..9).rev().zip("rwxrwxrwx".chars()).map(|(bit, letter)| may(1 << bit, letter)).collect();
    let changed = DateTime::from_timestamp(attributes.changed.into(), 0).unwrap_or_default();
    let is_recent = (now - changed).abs() < TimeDelta::days(182);
    let form = if is_recent { "%b %e %H:%M" } else { "%b %e  %Y" };
    let changed = changed.with_timezone(&Local).format(form);
    format!("{kind}{mode}    1 {owner:<8} sporlog  {:>12} {changed} {name}", attributes.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_looks_as_clients_expect() {
        let attributes = Attributes { size: 1234, mode: 0o100_640, changed: 1_700_000_000 };
        let then = DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default();
        let line = long("a b.csv", "ky", &attributes, then);
        assert!(line.starts_with("-rw-r-----    1 ky       sporlog          1234 Nov 1"), "{line}");
        assert!(line.ends_with(" a b.csv") && line.contains(':'), "{line}");
        let folder = Attributes { mode: 0o040_750, ..attributes };
        let line = long("ind", "ky", &folder, then + TimeDelta::days(400));
        assert!(line.starts_with("drwxr-x---") && line.contains("2023 ind"), "{line}");
    }
}
