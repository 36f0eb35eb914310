//! Delivering: each local file once.
//!
//! A file is known by its address on the server, its size and the time of its last change; if only the time differs, by
//! its SHA-256. It is sent under a temporary name, and renamed when the server has all of it, so that nobody there takes
//! a part for the whole.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sporlog_intake::blocking::blocking;
use tokio_util::sync::CancellationToken;

use super::address::seen_from;
use super::connection::Access;
use super::error::{Error, Result};
use super::journal::{self, Journal, Line, Step};
use super::link::Link;
use super::receipts::{self, Awaited};
use super::upload::{self, Plan, Upload};
use super::{Item, Outcome, Watch, names, part};
use crate::name::is_temporary;

/// What is delivered, and how.
#[derive(Debug, Clone)]
pub struct Push {
    /// Files, and folders whose files are meant.
    pub files: Vec<PathBuf>,
    /// Patterns of names in folders, with `*` and `?`; all files if there are none.
    pub patterns: Vec<String>,
    /// What is appended to a name until the server has all of the file; `None` if the file has its own name from the
    /// beginning.
    pub suffix: Option<String>,
    /// The journal; otherwise there is one in each file's folder.
    pub journal: Option<PathBuf>,
    /// Nothing is sent.
    pub rehearse: bool,
    /// Files that were sent before are sent again.
    pub again: bool,
    /// Receipts are waited for.
    pub wait: Option<Wait>,
}

/// Where receipts are found, and how long they are waited for.
#[derive(Debug, Clone)]
pub struct Wait {
    /// The folder of the receipts, seen from that of the files.
    pub folder: String,
    /// How long they are waited for.
    pub at_most: Duration,
}

struct Run<'a> {
    wanted: &'a Push,
    access: &'a Access,
    watch: &'a dyn Watch,
    link: Link<'a>,
    journals: HashMap<PathBuf, Journal>,
    /// The folder of the receipts, if they are waited for.
    receipts: Option<String>,
}

/// Delivers the wanted files, and reports each to `watch`. An error is one that concerns all of them.
pub async fn push(access: &Access, wanted: &Push, watch: &dyn Watch, stop: &CancellationToken) -> Result<()> {
    let (files, patterns) = (wanted.files.clone(), wanted.patterns.clone());
    let files = blocking(move || expand(&files, &patterns)).await?;
    let wait = wanted.wait.as_ref().filter(|_| !wanted.rehearse);
    let receipts = wait.map(|wait| seen_from(&access.address.folder, &wait.folder));
    let link = Link::new(access, stop);
    let mut run = Run { wanted, access, watch, link, journals: HashMap::new(), receipts };
    let mut awaited = Vec::new();
    for file in &files {
        let delivered = run.deliver(file).await?;
        let is_there = matches!(delivered.item.outcome, Outcome::Sent | Outcome::Known);
        if wait.is_some() && is_there && delivered.journal.is_some() {
            awaited.push(delivered);
        } else {
            watch.done(&delivered.item);
        }
    }
    if let Some((folder, wait)) = run.receipts.as_ref().zip(wait) {
        receipts::wait(&mut run.link, folder, wait.at_most, awaited, watch).await?;
    }
    run.link.close().await;
    Ok(())
}

/// The files that are meant, each once. Blocks.
fn expand(files: &[PathBuf], patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = Vec::new();
    for path in files {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let failed = |e| Error::local(path, e);
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let matches = names::matches_any(patterns, &name.to_string_lossy());
            if matches && !is_temporary(&name) && entry.file_type().map_err(failed)?.is_file() {
                found.push(entry.path());
            }
        }
        found.sort();
        all.extend(found);
    }
    let mut seen = HashSet::new();
    all.retain(|path| seen.insert(path.clone()));
    Ok(all)
}

impl Run<'_> {
    /// Delivers one file. A failure that concerns this file only does not end the run.
    async fn deliver(&mut self, file: &Path) -> Result<Awaited> {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        let mut item = Item::new(Outcome::Sent, self.access.address.of(&self.access.address.path(&name)));
        item.file = file.display().to_string();
        let mut awaited = Awaited { item, before: None, journal: None };
        let item = &mut awaited.item;
        if let Some(objection) = names::objection(&name) {
            item.outcome = Outcome::Refused;
            item.remote = item.remote.escape_debug().to_string();
            item.remark(objection);
            return Ok(awaited);
        }
        match self.send(file, name, &mut awaited).await {
            Ok(()) => {}
            Err(error) if error.is_of_one_file() => {
                let item = &mut awaited.item;
                let is_taken = matches!(error, Error::Taken(_));
                item.outcome = if is_taken { Outcome::Refused } else { Outcome::Failed };
                item.remark(&error.to_string());
                let is_refused = matches!(error, Error::Refused { .. }) && !error.is_absent();
                if is_refused && self.wanted.suffix.is_some() {
                    item.remark("if the server allows no temporary names: --as-is");
                }
            }
            Err(error) => return Err(error),
        }
        Ok(awaited)
    }

    async fn send(&mut self, file: &Path, name: String, awaited: &mut Awaited) -> Result<()> {
        let Awaited { item, before, journal: kept } = awaited;
        let path = file.to_owned();
        let (size, mtime) = blocking(move || upload::stat(&path)).await?;
        item.bytes = size;
        let target = self.access.address.path(&name);
        let suffix = self.wanted.suffix.as_deref().unwrap_or_default();
        let (temporary, remote) = (format!("{target}{suffix}"), item.remote.clone());
        let upload = Upload { local: file.to_owned(), name, target, temporary, remote, size, mtime };
        let place = self.wanted.journal.clone().unwrap_or_else(|| file.with_file_name(journal::NAME));
        let (journal, line) = if self.wanted.rehearse {
            (None, blocking(move || Journal::peek(&place)).await?.remove(&upload.remote))
        } else {
            let journal = self.journal(&place).await?;
            let line = journal.of(&upload.remote);
            (Some(journal), line)
        };
        if !self.wanted.again && was_sent(&upload, line.as_ref()).await? {
            item.outcome = Outcome::Known;
            if let Some(line) = line {
                *kept = journal.filter(|_| line.receipt.is_empty());
                item.sha256 = line.sha256;
            }
            return Ok(());
        }
        let Some(journal) = journal else {
            item.outcome = Outcome::Due;
            let plan =
                self.link.with(async |connection| upload.plan(connection, line.as_ref()).await).await?;
            if let Plan::Send(_, from) = plan {
                item.resumed_at = from;
            }
            return Ok(());
        };
        *kept = Some(journal.clone());
        let receipt = self.receipts.as_ref().map(|folder| receipts::path(folder, &upload.name));
        let (watch, mut resumed_at, mut looked) = (self.watch, None, false);
        let sent = self.link.with(async |connection| {
            if let Some(receipt) = receipt.as_ref().filter(|_| !looked) {
                *before = connection.find(receipt).await?;
                looked = true;
            }
            upload.send(connection, &journal, watch, &mut resumed_at).await
        });
        item.sha256 = sent.await?;
        (item.resumed_at, item.transferred) = (resumed_at.unwrap_or(0), true);
        Ok(())
    }

    /// Opens a journal, once in this run: two paths to the same folder lead to one journal, which is locked.
    async fn journal(&mut self, place: &Path) -> Result<Journal> {
        let place = place.to_owned();
        let path = blocking(move || {
            let folder = place.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            let folder = fs::canonicalize(folder).map_err(|e| Error::local(folder, e))?;
            Ok::<_, Error>(folder.join(place.file_name().unwrap_or_default()))
        })
        .await?;
        if let Some(journal) = self.journals.get(&path) {
            return Ok(journal.clone());
        }
        let opened = path.clone();
        let journal = blocking(move || Journal::open(&opened)).await.map_err(|error| match error {
            Error::Local { name, source } => {
                let hint = format!("{source}; --journal says where another can be");
                Error::Local { name, source: std::io::Error::new(source.kind(), hint) }
            }
            error => error,
        })?;
        self.journals.insert(path, journal.clone());
        Ok(journal)
    }
}

/// Whether `line` says that the file's bytes were sent to its address.
async fn was_sent(upload: &Upload, line: Option<&Line>) -> Result<bool> {
    let Some(line) = line.filter(|line| line.step == Step::Sent && line.size == upload.size) else {
        return Ok(false);
    };
    if line.mtime == upload.mtime {
        return Ok(true);
    }
    let (path, size) = (upload.local.clone(), upload.size);
    let sha256 = blocking(move || part::sha256_of(&path, size).map_err(|e| Error::local(&path, e))).await?;
    Ok(sha256.as_ref() == Some(&line.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stand_for_their_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["b.csv", "a.csv", "c.txt", ".hidden.csv", "d.csv.part"] {
            fs::write(path(name), "").expect("written");
        }
        fs::create_dir(path("e.csv")).expect("made");
        let expand = |files: &[PathBuf], patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            super::expand(files, &patterns).expect("expanded")
        };
        let whole = folder.path().to_owned();
        assert_eq!(expand(std::slice::from_ref(&whole), &[]), [path("a.csv"), path("b.csv"), path("c.txt")]);
        assert_eq!(expand(&[path("b.csv"), whole], &["*.csv"]), [path("b.csv"), path("a.csv")]);
        // That it is not there is said where it is sent.
        assert_eq!(expand(&[path("missing")], &[]), [path("missing")]);
    }
}
