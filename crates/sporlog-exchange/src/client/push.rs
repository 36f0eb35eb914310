//! Delivering: each local file once.
//!
//! A file is known by the address that it gets, its size and the time of its last change; if only the
//! time is another, by its SHA-256. It is sent under a temporary name, and gets its own when the server
//! has all of it, so that nobody there takes a part for the whole.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::address::seen_from;
use super::connection::Access;
use super::error::{Error, Result};
use super::journal::{self, Journal, Line, Notes, Step};
use super::known_hosts::is_like;
use super::link::Link;
use super::receipts::{Awaited, Receipts};
use super::upload::{self, Plan, Upload};
use super::{Item, Outcome, Watch, local, part};
use crate::name::is_temporary;
use sporlog_intake::blocking::blocking;

/// What is delivered, and how.
#[derive(Debug, Clone)]
pub struct Push {
    /// Files, and folders whose files are meant.
    pub files: Vec<PathBuf>,
    /// Patterns of names in folders, with `*` and `?`; all files if there are none.
    pub patterns: Vec<String>,
    /// What stands behind a name until all of the file is there; `None` if it is to have its own name
    /// from the beginning.
    pub suffix: Option<String>,
    /// The journal; otherwise there is one in each file's folder.
    pub journal: Option<PathBuf>,
    /// Nothing is sent.
    pub rehearse: bool,
    /// What was sent before is sent, too.
    pub again: bool,
    /// Receipts are waited for.
    pub wait: Option<Wait>,
}

/// For which receipts is waited.
#[derive(Debug, Clone)]
pub struct Wait {
    /// Their folder, seen from that of the files.
    pub folder: String,
    /// How long.
    pub at_most: Duration,
}

struct Run<'a> {
    wanted: &'a Push,
    access: &'a Access,
    watch: &'a dyn Watch,
    link: Link<'a>,
    journals: HashMap<PathBuf, Notes>,
    receipts: Option<Receipts>,
}

/// Delivers what is wanted, and tells of each file. An error is one that concerns all of them.
pub async fn push(access: &Access, wanted: &Push, watch: &dyn Watch, stop: &CancellationToken) -> Result<()> {
    let (files, patterns) = (wanted.files.clone(), wanted.patterns.clone());
    let files = blocking(move || expand(&files, &patterns)).await?;
    let receipts = wanted.wait.as_ref().map(|wait| {
        let folder = seen_from(&access.address.folder, &wait.folder);
        Receipts::new(folder, wait.at_most)
    });
    let link = Link::new(access, stop);
    let mut run = Run { wanted, access, watch, link, journals: HashMap::new(), receipts };
    // Those whose receipts are waited for.
    let mut awaited = Vec::new();
    for file in &files {
        let Some((item, snapshot)) = run.deliver(file).await? else { continue };
        let is_there = matches!(item.outcome, Outcome::Sent | Outcome::Known);
        if run.receipts.is_some() && is_there && !wanted.rehearse {
            awaited.push(Awaited { item, snapshot });
        } else {
            watch.done(&item);
        }
    }
    if let Some(receipts) = &run.receipts {
        receipts.wait(&mut run.link, awaited, watch).await?;
    }
    run.link.close().await;
    Ok(())
}

/// The files that are meant, each once.
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
            let shown = name.to_string_lossy();
            let matches = patterns.is_empty() || patterns.iter().any(|pattern| is_like(pattern, &shown));
            if matches && !is_temporary(&name) && entry.file_type().map_err(failed)?.is_file() {
                found.push(entry.path());
            }
        }
        found.sort();
        all.extend(found);
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|path| seen.insert(path.clone()));
    Ok(all)
}

impl Run<'_> {
    /// One file. What goes wrong with it only does not end the run.
    async fn deliver(&mut self, file: &Path) -> Result<Option<(Item, super::receipts::Snapshot)>> {
        let shown = file.display().to_string();
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        let mut item = Item::new(Outcome::Sent, self.access.address.of(&self.access.address.path(&name)));
        item.file = shown;
        if let Some(objection) = local::objection(&name) {
            item.outcome = Outcome::Refused;
            item.remote = item.remote.escape_debug().to_string();
            item.remark(objection);
            return Ok(Some((item, None)));
        }
        let mut snapshot = None;
        match self.deliver_named(file, name, &mut item, &mut snapshot).await {
            Ok(()) => {}
            Err(error) if error.is_of_one_file() => {
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
        Ok(Some((item, snapshot)))
    }

    async fn deliver_named(
        &mut self,
        file: &Path,
        name: String,
        item: &mut Item,
        snapshot: &mut super::receipts::Snapshot,
    ) -> Result<()> {
        let path = file.to_owned();
        let (size, mtime) = blocking(move || upload::look(&path)).await?;
        item.bytes = size;
        let target = self.access.address.path(&name);
        let suffix = self.wanted.suffix.as_deref().unwrap_or_default();
        let (temporary, remote) = (format!("{target}{suffix}"), item.remote.clone());
        let upload = Upload { local: file.to_owned(), name, target, temporary, remote, size, mtime };
        if self.wanted.rehearse {
            return self.rehearse(&upload, item).await;
        }
        let notes = self.notes(file).await?;
        if !self.wanted.again
            && let Some(line) = sent_before(&upload, notes.of(&upload.remote)).await?
        {
            item.outcome = Outcome::Known;
            item.sha256 = line.sha256;
            return Ok(());
        }
        let (watch, receipts) = (self.watch, self.receipts.as_ref());
        let (mut looked, mut begun) = (false, None);
        let sent = self.link.with(async |connection| {
            if let Some(receipts) = receipts
                && !looked
            {
                *snapshot = receipts.look(connection, &upload.name).await?;
                looked = true;
            }
            upload.send(connection, &notes, watch, &mut begun).await
        });
        item.sha256 = sent.await?;
        (item.resumed_at, item.transferred) = (begun.unwrap_or(0), true);
        Ok(())
    }

    async fn rehearse(&mut self, upload: &Upload, item: &mut Item) -> Result<()> {
        let place = self.journal(&upload.local);
        let mut lines = blocking(move || Journal::peek(&place)).await?;
        let line = lines.remove(&upload.remote);
        if !self.wanted.again
            && let Some(line) = sent_before(upload, line.clone()).await?
        {
            item.outcome = Outcome::Known;
            item.sha256 = line.sha256;
            return Ok(());
        }
        let line = line.filter(|line| line.size == upload.size && line.mtime == upload.mtime);
        let plan = self.link.with(async |connection| upload.plan(connection, line.as_ref()).await).await?;
        item.outcome = Outcome::Due;
        if let Plan::Send(_, from) = plan {
            item.resumed_at = from;
        }
        Ok(())
    }

    /// Where the journal of a file lies.
    fn journal(&self, file: &Path) -> PathBuf {
        let beside = || file.with_file_name(journal::NAME);
        self.wanted.journal.clone().unwrap_or_else(beside)
    }

    async fn notes(&mut self, file: &Path) -> Result<Notes> {
        let place = self.journal(file);
        // Two ways to the same folder are one journal, which is locked.
        let folder = place.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let key = match fs::canonicalize(folder) {
            Ok(folder) => folder.join(place.file_name().unwrap_or_default()),
            Err(error) => return Err(Error::local(folder, error)),
        };
        if let Some(notes) = self.journals.get(&key) {
            return Ok(notes.clone());
        }
        let notes = match Notes::open(&place).await {
            Err(Error::Local { name, source }) => {
                let hint = format!("{source}; --journal says where another can be");
                return Err(Error::Local { name, source: std::io::Error::new(source.kind(), hint) });
            }
            opened => opened?,
        };
        self.journals.insert(key, notes.clone());
        Ok(notes)
    }
}

/// The line that says that these bytes were sent to this address.
async fn sent_before(upload: &Upload, line: Option<Line>) -> Result<Option<Line>> {
    let Some(line) = line.filter(|line| line.step == Step::Sent && line.size == upload.size) else {
        return Ok(None);
    };
    if line.mtime == upload.mtime {
        return Ok(Some(line));
    }
    let (path, size) = (upload.local.clone(), upload.size);
    let sha256 = blocking(move || part::sha256_of(&path, size).map_err(|e| Error::local(&path, e))).await?;
    Ok((sha256.as_ref() == Some(&line.sha256)).then_some(line))
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
