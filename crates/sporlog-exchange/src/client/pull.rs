//! Fetching: each file of a remote folder once.
//!
//! A file is known by its address, its size and the time of its last change; if any of these is
//! another, it is fetched again, and a file of the same name here stays beside it (`day.2.csv`). It is
//! complete when it has the size that the server said, and the server still says so afterwards:
//! a file that is being written there is left for later.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::Utc;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use russh_sftp::protocol::FileType;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{Access, Connection, Entry, Facts, RemoteFile};
use super::error::{Error, Result};
use super::journal::{self, Journal, Line, Notes, Step};
use super::known_hosts::is_like;
use super::link::Link;
use super::part::{Installed, Part, Whole};
use super::{Item, Outcome, Watch, local, manifest};
use crate::name::is_temporary;
use sporlog_intake::blocking::blocking;

/// How deep folders are looked into.
const DEEPEST: usize = 16;
/// Files and folders that are taken note of; a tree without end must not fill our memory.
const MOST_FILES: usize = 1_000_000;
/// How often a file that changes meanwhile is begun anew.
const ANEW: u32 = 3;
/// Pieces that wait to be written to the disk.
const WAITING: usize = 16;

/// What is fetched, and where to.
#[derive(Debug, Clone)]
pub struct Pull {
    /// The folder here.
    pub into: PathBuf,
    /// Patterns of names, with `*` and `?`; all files if there are none.
    pub patterns: Vec<String>,
    /// Folders in the folder, too.
    pub recursive: bool,
    /// What is safely here is removed from the server.
    pub delete: bool,
    /// Nothing is fetched.
    pub rehearse: bool,
    /// What was fetched before is fetched, too.
    pub again: bool,
}

/// A file there.
struct Found {
    entry: Entry,
    /// Its folder, below the one that is looked into.
    below: PathBuf,
}

struct Run<'a> {
    wanted: &'a Pull,
    access: &'a Access,
    watch: &'a dyn Watch,
    notes: Notes,
    link: Link<'a>,
    /// What came in now, by its address.
    fetched: HashSet<String>,
}

/// Fetches what is wanted, and tells of each file. An error is one that concerns all of them.
pub async fn pull(access: &Access, wanted: &Pull, watch: &dyn Watch, stop: &CancellationToken) -> Result<()> {
    let mut link = Link::new(access, stop);
    let place = wanted.into.join(journal::NAME);
    if wanted.rehearse {
        let known = blocking(move || Journal::peek(&place)).await?;
        for found in list(&mut link, access, wanted, watch).await? {
            let remote = access.address.of(&found.entry.path);
            let is_known = !wanted.again && is_known(known.get(&remote), found.entry.facts);
            let mut item = Item::new(if is_known { Outcome::Known } else { Outcome::Due }, remote);
            item.bytes = found.entry.facts.size;
            watch.done(&item);
        }
        link.close().await;
        return Ok(());
    }
    let into = wanted.into.clone();
    blocking(move || fs::create_dir_all(&into).map_err(|e| Error::local(&into, e))).await?;
    let notes = Notes::open(&place).await?;
    let mut run = Run { wanted, access, watch, notes, link, fetched: HashSet::new() };
    let found = list(&mut run.link, access, wanted, watch).await?;
    for file in &found {
        let item = run.take(file).await?;
        watch.done(&item);
    }
    run.check_manifests(&found).await?;
    run.link.close().await;
    Ok(())
}

fn is_known(line: Option<&Line>, facts: Facts) -> bool {
    line.is_some_and(|line| {
        line.step == Step::Fetched && line.size == facts.size && line.mtime == facts.mtime
    })
}

/// The files that are wanted, as the server lists them. Names that are none are told of.
async fn list(link: &mut Link<'_>, access: &Access, wanted: &Pull, watch: &dyn Watch) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![(access.address.folder.clone(), PathBuf::new(), 0)];
    while let Some((folder, below, depth)) = folders.pop() {
        let entries = match link.with(async |connection| connection.list(&folder).await).await {
            Err(error) if depth > 0 && error.is_of_one_file() => {
                watch.done(&about(Outcome::Failed, access, &folder, &error.to_string()));
                continue;
            }
            listed => listed?,
        };
        for entry in entries {
            let is_folder = entry.kind == FileType::Dir;
            let is_wanted = match entry.kind {
                FileType::Dir => wanted.recursive && depth < DEEPEST && !entry.name.starts_with('.'),
                FileType::File => wants(wanted, &entry.name),
                // A link may lead anywhere, and what is no file has no end.
                _ => false,
            };
            if !is_wanted {
                continue;
            }
            if found.len() + folders.len() >= MOST_FILES {
                return Err(Error::Settings(format!("{}: there are too many files", access.address)));
            }
            match local::objection(&entry.name) {
                Some(objection) => watch.done(&about(Outcome::Refused, access, &entry.path, objection)),
                None if is_folder => folders.push((entry.path, below.join(&entry.name), depth + 1)),
                None => found.push(Found { entry, below: below.clone() }),
            }
        }
    }
    // Where there is a manifest here, the files that it names are, too.
    found.sort_by_cached_key(|file| (file.entry.name.ends_with(manifest::ENDING), file.entry.path.clone()));
    Ok(found)
}

fn wants(wanted: &Pull, name: &str) -> bool {
    let matches = wanted.patterns.is_empty() || wanted.patterns.iter().any(|pattern| is_like(pattern, name));
    matches && !is_temporary(OsStr::new(name))
}

fn about(outcome: Outcome, access: &Access, path: &str, note: &str) -> Item {
    let mut item = Item::new(outcome, access.address.of(path).escape_debug().to_string());
    item.remark(note);
    item
}

impl Run<'_> {
    /// One file. What goes wrong with it only does not end the run.
    async fn take(&mut self, found: &Found) -> Result<Item> {
        let remote = self.access.address.of(&found.entry.path);
        let line = self.notes.of(&remote).filter(|line| is_known(Some(line), found.entry.facts));
        let mut item = match line {
            Some(line) if !self.wanted.again => {
                let mut item = Item::new(Outcome::Known, remote);
                (item.file, item.bytes, item.sha256) = (self.shown(&line.file), line.size, line.sha256);
                if self.wanted.delete {
                    self.remove(found, found.entry.facts, &mut item).await?;
                }
                return Ok(item);
            }
            _ => Item::new(Outcome::Fetched, remote),
        };
        item.bytes = found.entry.facts.size;
        match self.fetch(found, &mut item).await {
            Ok(facts) => {
                self.fetched.insert(item.remote.clone());
                if self.wanted.delete {
                    self.remove(found, facts, &mut item).await?;
                }
            }
            Err(error) if error.is_of_one_file() => {
                item.outcome = Outcome::Failed;
                item.remark(&error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(item)
    }

    /// Fetches a file, puts it into its place and notes it.
    async fn fetch(&mut self, found: &Found, item: &mut Item) -> Result<Facts> {
        let folder = self.wanted.into.join(&found.below);
        let made = folder.clone();
        blocking(move || fs::create_dir_all(&made).map_err(|e| Error::local(&made, e))).await?;
        let mut tries = 1;
        let (part, facts) = loop {
            match self.receive(found, &folder, item).await {
                Err(Error::Changing(_)) if tries < ANEW => tries += 1,
                received => break received?,
            }
        };
        let (place, name) = (folder.clone(), found.entry.name.clone());
        let Installed { name, was_there, sha256 } = blocking(move || part.install(&place, &name)).await?;
        let file = found.below.join(&name).to_string_lossy().into_owned();
        item.file = self.shown(&file);
        (item.bytes, item.transferred) = (facts.size, true);
        item.sha256.clone_from(&sha256);
        if was_there {
            item.remark("the same bytes were here already");
        } else if name != found.entry.name {
            item.remark("another file of this name was here already; both are kept");
        }
        let (step, remote) = (Step::Fetched, item.remote.clone());
        let line = Line { at: Utc::now(), step, remote, file, size: facts.size, mtime: facts.mtime, sha256 };
        self.notes.append(line).await?;
        Ok(facts)
    }

    /// Gets all bytes of a file, over several connections if need be.
    async fn receive(&mut self, found: &Found, folder: &Path, item: &mut Item) -> Result<(Part, Facts)> {
        let (path, name, watch) = (&found.entry.path, &found.entry.name, self.watch);
        let remote = item.remote.clone();
        let mut writer: Option<JoinHandle<Result<Part>>> = None;
        let mut resumed = None;
        let received = self.link.with(async |connection| {
            let facts = connection.stat(path).await?;
            let whole = Whole { remote: remote.clone(), size: facts.size, mtime: facts.mtime };
            let (place, own) = (folder.to_owned(), name.clone());
            let part = blocking(move || Part::open(&place, &own, whole)).await?;
            let from = part.length();
            resumed.get_or_insert(from);
            watch.begun(name, facts.size);
            let (pieces, waiting) = mpsc::channel(WAITING);
            writer = Some(tokio::task::spawn_blocking(move || write(part, waiting)));
            let file = connection.read(path).await;
            let got = match file {
                Ok(file) => {
                    let got = copy(connection, &file, from, facts.size, &pieces, watch).await;
                    // It was only read: closing it cannot fail in a way that matters.
                    let _ = if got.as_ref().is_err_and(Error::is_lost) { Ok(()) } else { file.close().await };
                    got
                }
                Err(error) => Err(error),
            };
            drop(pieces);
            let part = join(writer.take()).await?;
            let verified = match got {
                Ok(()) => verify(connection, path, facts, part.length()).await,
                failed => failed,
            };
            if let Err(error) = verified {
                if matches!(error, Error::Changing(_)) {
                    let thrown_away = move || {
                        part.discard();
                        Ok::<_, Error>(())
                    };
                    blocking(thrown_away).await?;
                }
                return Err(error);
            }
            Ok((part, facts))
        });
        let received = received.await;
        // We may have been stopped: what came is to be kept before anything else is done.
        if let Some(writer) = writer {
            join(Some(writer)).await?;
        }
        item.resumed_at = resumed.unwrap_or(0);
        received
    }

    /// Removes from the server what is safely here, if it is still the same there.
    async fn remove(&mut self, found: &Found, facts: Facts, item: &mut Item) -> Result<()> {
        let path = &found.entry.path;
        let removed = self.link.with(async |connection| match connection.look(path).await? {
            Some(now) if now != facts => {
                Err(Error::Changing("it has changed; it stays on the server".to_owned()))
            }
            Some(_) => match connection.remove(path).await {
                Err(error) if error.is_absent() => Ok(()),
                removed => removed,
            },
            None => Ok(()),
        });
        match removed.await {
            Ok(()) => item.removed = true,
            Err(error) if error.is_of_one_file() => {
                item.outcome = Outcome::Differs;
                item.remark(&format!("it is here, but was not removed there: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Compares what came in now with the manifests that came with it.
    async fn check_manifests(&self, found: &[Found]) -> Result<()> {
        for found in found.iter().filter(|found| found.entry.name.ends_with(manifest::ENDING)) {
            let address = self.access.address.of(&found.entry.path);
            let Some(line) = self.notes.of(&address).filter(|line| line.size <= manifest::LARGEST) else {
                continue;
            };
            let place = self.wanted.into.join(&line.file);
            // It may have been taken away since an earlier run.
            let Ok(text) = tokio::fs::read(&place).await else { continue };
            let folder = address.strip_suffix(&found.entry.name).unwrap_or_default();
            for (name, sha256) in manifest::mentions(&text) {
                let remote = format!("{folder}{name}");
                let is_new = self.fetched.contains(&address) || self.fetched.contains(&remote);
                let Some(file) = self.notes.of(&remote).filter(|file| is_new && file.sha256 != sha256) else {
                    continue;
                };
                let mut item = Item::new(Outcome::Differs, remote);
                item.file = self.shown(&file.file);
                (item.bytes, item.sha256) = (file.size, file.sha256);
                item.remark(&format!("{} says that its SHA-256 is {sha256}", found.entry.name));
                self.watch.done(&item);
            }
        }
        Ok(())
    }

    fn shown(&self, file: &str) -> String {
        self.wanted.into.join(file).display().to_string()
    }
}

/// Has the bytes from `from` to `size` brought in order, many requests at a time.
async fn copy(
    connection: &Connection,
    file: &RemoteFile<'_>,
    from: u64,
    size: u64,
    pieces: &mpsc::Sender<Vec<u8>>,
    watch: &dyn Watch,
) -> Result<()> {
    let (mut next, mut done) = (from, from);
    let _patience = connection.patience();
    let mut asked = FuturesOrdered::new();
    loop {
        while next < size && asked.len() < connection.requests() {
            let length = (size - next).min(u64::from(connection.chunk())) as u32;
            let offset = next;
            asked.push_back(async move { (length, file.read(offset, length).await) });
            next += u64::from(length);
        }
        let Some((length, bytes)) = connection.soon(asked.next()).await? else { return Ok(()) };
        let bytes = bytes?;
        if bytes.len() as u64 != u64::from(length) {
            return Err(Error::Changing("it became shorter while it was fetched".to_owned()));
        }
        done += u64::from(length);
        // The writer has ended; it says why.
        if pieces.send(bytes).await.is_err() {
            return Ok(());
        }
        watch.at(done);
    }
}

/// Writes what comes. Whatever ends it, what has come is kept.
fn write(mut part: Part, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<Part> {
    while let Some(bytes) = pieces.blocking_recv() {
        part.write(&bytes)?;
    }
    part.keep()?;
    Ok(part)
}

async fn join(writer: Option<JoinHandle<Result<Part>>>) -> Result<Part> {
    match writer {
        Some(writer) => writer.await.map_err(|e| Error::Internal(e.to_string()))?,
        None => Err(Error::Internal("nothing was written".to_owned())),
    }
}

/// Whether the file is still what it was, and all of it is here.
async fn verify(connection: &Connection, path: &str, facts: Facts, length: u64) -> Result<()> {
    let now = connection.stat(path).await?;
    if now != facts {
        return Err(Error::Changing(
            "it changed while it was fetched; it is left for the next time".to_owned(),
        ));
    }
    if length != facts.size {
        return Err(Error::Changing(format!("{length} bytes came instead of {}", facts.size)));
    }
    Ok(())
}
