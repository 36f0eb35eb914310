//! Lists of folders, read from the disk as the client asks for more.

use std::collections::VecDeque;
use std::io;

use chrono::{DateTime, Local, TimeDelta, Utc};

use crate::exchange::settings::Role;

use super::disk;
use super::member::Member;
use super::path::{self, Folder, Place};
use super::refusal::Refusal;
use super::wire::{Attributes, Entry};

/// Entries that are told at once.
const AT_ONCE: usize = 100;
/// The bits of a mode that say that it is a folder's.
const IS_FOLDER: u32 = 0o040_000;

/// A list that is being read.
pub(super) struct Listing {
    owner: String,
    /// What is listed without reading: folders.
    folders: VecDeque<Folder>,
    sources: VecDeque<Source>,
}

/// A folder on the disk whose files are listed.
struct Source {
    folder: disk::Folder,
    names: disk::Names,
    /// Its folders are listed instead of its files, if they are months.
    months: bool,
    /// What lies in here as well has been listed already.
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
                // No file, or gone in the meantime.
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
    /// Begins to list what a path names.
    pub(super) fn open(member: &Member, place: &Place) -> Result<Self, Refusal> {
        let mut listing =
            Listing { owner: member.name.clone(), folders: VecDeque::new(), sources: VecDeque::new() };
        match place {
            Place::Root => {
                listing.folders.extend(match member.role {
                    Role::Supplier => vec![Folder::Inbox, Folder::Receipts],
                    Role::Municipality => vec![Folder::Outbox],
                });
            }
            Place::Folder(Folder::Inbox) => {
                // What is being uploaded and what waits: for the client, it is one folder.
                listing.sources.push_back(Source::new(member.uploading()?, false, None)?);
                let inbox = member.folder(&Folder::Inbox)?;
                listing.sources.push_back(Source::new(inbox, false, Some(member.uploading()?))?);
            }
            Place::Folder(folder) => {
                let months = *folder == Folder::Outbox;
                listing.sources.push_back(Source::new(member.folder(folder)?, months, None)?);
            }
            Place::File(folder, name) => {
                let found = stat_file(member, folder, name);
                return Err(found.map_or_else(|missing| missing, |_| Refusal::failure("this is no folder")));
            }
        }
        Ok(listing)
    }

    /// Some more entries; none at the end.
    pub(super) fn more(&mut self, member: &Member) -> Result<Vec<Entry>, Refusal> {
        let mut entries = Vec::new();
        while let Some(folder) = self.folders.pop_front() {
            let attributes = member.folder(&folder)?.own()?;
            entries.push(self.entry(folder.name().to_owned(), attributes));
        }
        while entries.len() < AT_ONCE {
            let Some(source) = self.sources.front_mut() else { break };
            match source.next()? {
                Some((name, attributes)) => entries.push(self.entry(name, attributes)),
                None => drop(self.sources.pop_front()),
            }
        }
        Ok(entries)
    }

    fn entry(&self, name: String, attributes: Attributes) -> Entry {
        Entry { long: long(&name, &self.owner, &attributes, Utc::now()), name, attributes }
    }
}

/// What is known of something.
pub(super) fn stat(member: &Member, place: &Place) -> Result<Attributes, Refusal> {
    match place {
        Place::Root => Ok(disk::Folder::open(member.home.path())?.own()?),
        Place::Folder(folder) => Ok(member.folder(folder)?.own()?),
        Place::File(folder, name) => stat_file(member, folder, name),
    }
}

fn stat_file(member: &Member, folder: &Folder, name: &str) -> Result<Attributes, Refusal> {
    match folder {
        Folder::Inbox => super::uploads::stat(member, name),
        folder => Ok(member.folder(folder)?.stat(name)?),
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
