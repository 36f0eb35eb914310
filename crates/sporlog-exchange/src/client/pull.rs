//! Fetching: each file of a remote folder once.
//!
//! A file is known by its address, its size and the time of its last change; if any of these differs, it is fetched again,
//! and a file of the same name here stays beside it (`day.2.csv`). A file is complete when it has the size that the server
//! reported, and the server reports the same afterwards: a file that is being written there is left for the next run.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::Utc;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use russh_sftp::protocol::{FileType, OpenFlags};
use sporlog_intake::blocking::blocking;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{Access, Connection, Entry, FileInfo, RemoteFile};
use super::error::{Error, Result};
use super::journal::{self, Journal, Line, Step};
use super::link::Link;
use super::part::{Installed, Part, Whole};
use super::{Item, Outcome, Watch, manifest, names};
use crate::name::is_temporary;

/// How deep folders are searched.
const DEEPEST: usize = 16;
/// Files and folders that are remembered, so that a tree without end does not fill the memory.
const MOST_FILES: usize = 1_000_000;
/// How often a file that changes meanwhile is fetched from its beginning.
const ATTEMPTS: u32 = 3;
/// Pieces that wait to be written to the disk.
const WAITING: usize = 16;

/// What is fetched, and where to.
#[derive(Debug, Clone)]
pub struct Pull {
    /// The folder here.
    pub into: PathBuf,
    /// Patterns of names, with `*` and `?`; all files if there are none.
    pub patterns: Vec<String>,
    /// Folders in the folder are searched, too.
    pub recursive: bool,
    /// Files that are safely here are removed from the server.
    pub delete: bool,
    /// Nothing is fetched.
    pub rehearse: bool,
    /// Files that were fetched before are fetched again.
    pub again: bool,
}

/// A file of the server.
struct Found {
    entry: Entry,
    /// The file's folder, below the one that is searched.
    below: PathBuf,
}

struct Run<'a> {
    wanted: &'a Pull,
    access: &'a Access,
    watch: &'a dyn Watch,
    journal: Journal,
    link: Link<'a>,
    /// The addresses of the files that this run has fetched.
    fetched: HashSet<String>,
}

/// Fetches the wanted files, and reports each to `watch`. An error is one that concerns all of them.
pub async fn pull(access: &Access, wanted: &Pull, watch: &dyn Watch, stop: &CancellationToken) -> Result<()> {
    let mut link = Link::new(access, stop);
    let place = wanted.into.join(journal::NAME);
    if wanted.rehearse {
        let known = blocking(move || Journal::peek(&place)).await?;
        for found in list(&mut link, access, wanted, watch).await? {
            let remote = access.address.of(&found.entry.path);
            let is_known = !wanted.again && is_known(known.get(&remote), found.entry.info);
            let mut item = Item::new(if is_known { Outcome::Known } else { Outcome::Due }, remote);
            item.bytes = found.entry.info.size;
            watch.done(&item);
        }
        link.close().await;
        return Ok(());
    }
    make_folder(&wanted.into).await?;
    let journal = blocking(move || Journal::open(&place)).await?;
    let mut run = Run { wanted, access, watch, journal, link, fetched: HashSet::new() };
    let found = list(&mut run.link, access, wanted, watch).await?;
    for file in &found {
        let item = run.fetch(file).await?;
        watch.done(&item);
    }
    run.check_manifests(&found).await?;
    run.link.close().await;
    Ok(())
}

async fn make_folder(folder: &Path) -> Result<()> {
    let folder = folder.to_owned();
    blocking(move || fs::create_dir_all(&folder).map_err(|e| Error::local(&folder, e))).await
}

fn is_known(line: Option<&Line>, info: FileInfo) -> bool {
    line.is_some_and(|line| line.step == Step::Fetched && line.size == info.size && line.mtime == info.mtime)
}

/// The wanted files, as the server lists them. Names that no file here may have are reported to `watch`.
async fn list(link: &mut Link<'_>, access: &Access, wanted: &Pull, watch: &dyn Watch) -> Result<Vec<Found>> {
    let report = |outcome, path: &str, note: &str| {
        let mut item = Item::new(outcome, access.address.of(path).escape_debug().to_string());
        item.remark(note);
        watch.done(&item);
    };
    let mut found = Vec::new();
    let mut folders = vec![(access.address.folder.clone(), PathBuf::new(), 0)];
    while let Some((folder, below, depth)) = folders.pop() {
        let entries = match link.with(async |connection| connection.list(&folder).await).await {
            Err(error) if depth > 0 && error.is_of_one_file() => {
                report(Outcome::Failed, &folder, &error.to_string());
                continue;
            }
            listed => listed?,
        };
        for entry in entries {
            let is_folder = entry.kind == FileType::Dir;
            let is_wanted = match entry.kind {
                FileType::Dir => wanted.recursive && depth < DEEPEST && !entry.name.starts_with('.'),
                FileType::File => {
                    names::matches_any(&wanted.patterns, &entry.name)
                        && !is_temporary(OsStr::new(&entry.name))
                }
                // A link may lead anywhere, and a device has no end.
                _ => false,
            };
            if !is_wanted {
                continue;
            }
            if found.len() + folders.len() >= MOST_FILES {
                return Err(Error::Settings(format!("{}: there are too many files", access.address)));
            }
            match names::objection(&entry.name) {
                Some(objection) => report(Outcome::Refused, &entry.path, objection),
                None if is_folder => folders.push((entry.path, below.join(&entry.name), depth + 1)),
                None => found.push(Found { entry, below: below.clone() }),
            }
        }
    }
    // Manifests last: once a manifest is here, the files that it names are, too.
    found.sort_by_cached_key(|file| (file.entry.name.ends_with(manifest::ENDING), file.entry.path.clone()));
    Ok(found)
}

impl Run<'_> {
    /// Fetches one file, if it is not here. A failure that concerns this file only does not end the run.
    async fn fetch(&mut self, found: &Found) -> Result<Item> {
        let remote = self.access.address.of(&found.entry.path);
        let mut item = Item::new(Outcome::Fetched, remote);
        item.bytes = found.entry.info.size;
        let line = self.journal.of(&item.remote).filter(|line| is_known(Some(line), found.entry.info));
        let fetched = if let Some(line) = line.filter(|_| !self.wanted.again) {
            item.outcome = Outcome::Known;
            (item.file, item.sha256) = (self.shown(&line.file), line.sha256);
            Ok(found.entry.info)
        } else {
            self.fetch_new(found, &mut item).await
        };
        match fetched {
            Ok(info) if self.wanted.delete => self.remove(found, info, &mut item).await?,
            Ok(_) => {}
            Err(error) if error.is_of_one_file() => {
                item.outcome = Outcome::Failed;
                item.remark(&error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(item)
    }

    /// Fetches a file, moves it to its place and appends it to the journal.
    async fn fetch_new(&mut self, found: &Found, item: &mut Item) -> Result<FileInfo> {
        let folder = self.wanted.into.join(&found.below);
        make_folder(&folder).await?;
        let mut attempts = 1;
        let (part, info) = loop {
            match self.receive(found, &folder, item).await {
                Err(Error::Changing(_)) if attempts < ATTEMPTS => attempts += 1,
                received => break received?,
            }
        };
        let name = found.entry.name.clone();
        let Installed { name, was_there, sha256 } = blocking(move || part.install(&folder, &name)).await?;
        let file = found.below.join(&name).to_string_lossy().into_owned();
        item.file = self.shown(&file);
        (item.bytes, item.transferred) = (info.size, true);
        item.sha256.clone_from(&sha256);
        if was_there {
            item.remark("the same bytes were here already");
        } else if name != found.entry.name {
            item.remark("another file of this name was here already; both are kept");
        }
        let (step, remote, receipt) = (Step::Fetched, item.remote.clone(), String::new());
        let (size, mtime) = (info.size, info.mtime);
        let line = Line { at: Utc::now(), step, remote, file, size, mtime, sha256, receipt };
        self.journal.append(line).await?;
        self.fetched.insert(item.remote.clone());
        Ok(info)
    }

    /// Receives all bytes of a file, over several connections if need be.
    async fn receive(&mut self, found: &Found, folder: &Path, item: &mut Item) -> Result<(Part, FileInfo)> {
        let (path, name, watch) = (&found.entry.path, &found.entry.name, self.watch);
        let remote = item.remote.clone();
        let mut writer: Option<JoinHandle<Result<Part>>> = None;
        let mut resumed_at = None;
        let received = self.link.with(async |connection| {
            let info = connection.stat(path).await?;
            let whole = Whole { remote: remote.clone(), size: info.size, mtime: info.mtime };
            let (place, own) = (folder.to_owned(), name.clone());
            let part = blocking(move || Part::open(&place, &own, whole)).await?;
            let from = part.length();
            resumed_at.get_or_insert(from);
            watch.begun(name, info.size);
            let (pieces, waiting) = mpsc::channel(WAITING);
            writer = Some(tokio::task::spawn_blocking(move || write(part, waiting)));
            let read = match connection.open_file(path, OpenFlags::READ).await {
                Ok(file) => {
                    let read = read(connection, &file, from, info.size, &pieces, watch).await;
                    // The file was only read: a failure to close it does not matter.
                    if !read.as_ref().is_err_and(Error::is_lost) {
                        let _ = file.close().await;
                    }
                    read
                }
                Err(error) => Err(error),
            };
            drop(pieces);
            let part = join(writer.take()).await?;
            let verified = match read {
                Ok(()) => verify(connection, path, info, part.length()).await,
                failed => failed,
            };
            match verified {
                Ok(()) => Ok((part, info)),
                Err(error) => {
                    if matches!(error, Error::Changing(_)) {
                        tokio::task::spawn_blocking(move || part.discard()).await?;
                    }
                    Err(error)
                }
            }
        });
        let received = received.await;
        // A stop ends the work anywhere: the bytes that have come are made durable before anything else is done.
        if let Some(writer) = writer {
            join(Some(writer)).await?;
        }
        item.resumed_at = resumed_at.unwrap_or(0);
        received
    }

    /// Removes from the server a file that is safely here, if it is still the same there.
    async fn remove(&mut self, found: &Found, info: FileInfo, item: &mut Item) -> Result<()> {
        let path = &found.entry.path;
        let removed = self.link.with(async |connection| match connection.find(path).await? {
            Some(now) if now != info => {
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
                item.remark(&format!("the file is here, but was not removed from the server: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Compares the files that this run has fetched with the manifests beside them.
    async fn check_manifests(&self, found: &[Found]) -> Result<()> {
        for found in found.iter().filter(|found| found.entry.name.ends_with(manifest::ENDING)) {
            let address = self.access.address.of(&found.entry.path);
            let Some(line) = self.journal.of(&address).filter(|line| line.size <= manifest::LARGEST) else {
                continue;
            };
            // The manifest may have been taken away since an earlier run.
            let Ok(text) = tokio::fs::read(self.wanted.into.join(&line.file)).await else { continue };
            let folder = address.strip_suffix(&found.entry.name).unwrap_or_default();
            for (name, sha256) in manifest::mentions(&text) {
                let remote = format!("{folder}{name}");
                let is_new = self.fetched.contains(&address) || self.fetched.contains(&remote);
                let file = self.journal.of(&remote).filter(|file| is_new && file.sha256 != sha256);
                let Some(file) = file else { continue };
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

/// Reads the bytes from `from` to `size` in order, with many requests under way, and passes them on to the writer.
async fn read(
    connection: &Connection,
    file: &RemoteFile<'_>,
    from: u64,
    size: u64,
    pieces: &mpsc::Sender<Vec<u8>>,
    watch: &dyn Watch,
) -> Result<()> {
    let (mut next, mut done) = (from, from);
    let mut requests = FuturesOrdered::new();
    loop {
        while next < size && requests.len() < connection.requests() {
            let length = (size - next).min(u64::from(connection.chunk)) as u32;
            let offset = next;
            requests.push_back(async move { (length, file.read(offset, length).await) });
            next += u64::from(length);
        }
        let Some((length, bytes)) = connection.in_time(requests.next()).await? else { return Ok(()) };
        let bytes = bytes?;
        if bytes.len() as u64 != u64::from(length) {
            return Err(Error::Changing("the file became shorter while it was fetched".to_owned()));
        }
        done += u64::from(length);
        // If the writer has ended, it says why.
        if pieces.send(bytes).await.is_err() {
            return Ok(());
        }
        watch.at(done);
    }
}

/// Writes the pieces. Whatever ends them, those that have come are made durable. Blocks.
fn write(mut part: Part, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<Part> {
    while let Some(bytes) = pieces.blocking_recv() {
        part.write(&bytes)?;
    }
    part.keep()?;
    Ok(part)
}

/// The writer's part. A writer is started before it is joined.
async fn join(writer: Option<JoinHandle<Result<Part>>>) -> Result<Part> {
    match writer {
        Some(writer) => writer.await?,
        None => Err(Error::Lost("nothing was written".to_owned())),
    }
}

/// Checks that the file is still what it was, and that all of it is here.
async fn verify(connection: &Connection, path: &str, info: FileInfo, length: u64) -> Result<()> {
    if connection.stat(path).await? != info {
        let text = "the file changed while it was fetched; it is left for the next run";
        return Err(Error::Changing(text.to_owned()));
    }
    if length != info.size {
        return Err(Error::Changing(format!("{length} bytes came instead of {}", info.size)));
    }
    Ok(())
}
