//! What was transferred, so that it is not transferred twice: a line of JSON for each step, in the
//! folder of the files.
//!
//! A line is durable before the step after it is taken. A kill may tear the last one; it is left
//! out then, and the step is taken again. Only one run works with a journal at a time.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use sporlog_intake::blocking::blocking;
use sporlog_intake::durable::sync_folder;

/// The journal's name in a folder. Names that begin with a dot are never transferred.
pub const NAME: &str = ".sporlog-exchange.jsonl";

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The remote file is here.
    Fetched,
    /// The local file is being sent, under its temporary name.
    Sending,
    /// All of it is there; only its name is not.
    Complete,
    /// It is there under its name.
    Sent,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at: DateTime<Utc>,
    /// What was done.
    pub step: Step,
    /// The remote file's address.
    pub remote: String,
    /// The local file, below the journal's folder.
    pub file: String,
    /// Its size.
    pub size: u64,
    /// When it was last changed, where it came from: in seconds for one that was fetched, in
    /// nanoseconds for one that was sent.
    pub mtime: i64,
    /// Its SHA-256, in hexadecimal, if it is known by then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

/// A journal, ours for as long as this lives.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// The newest line about each remote file.
    lines: HashMap<String, Line>,
}

impl Journal {
    /// Opens it, made if need be.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::local(path, e);
        let fresh = !path.exists();
        let mut options = OpenOptions::new();
        // What was looked up about people can be told from the files' names at times.
        options.read(true).append(true).create(true).mode(0o640);
        let mut file = options.open(path).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let name = path.display();
            return Err(Error::Busy(format!("{name}: another run is at work; it holds the journal")));
        }
        if fresh && let Some(folder) = path.parent() {
            sync_folder(if folder == Path::new("") { Path::new(".") } else { folder }).map_err(failed)?;
        }
        let lines = read(&file, path).map_err(failed)?;
        if is_torn(&mut file).map_err(failed)? {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Journal { path: path.to_owned(), file, lines })
    }

    /// What is known in the journal at `path`, without working with it.
    pub fn peek(path: &Path) -> Result<HashMap<String, Line>> {
        match File::open(path) {
            Ok(file) => read(&file, path).map_err(|e| Error::local(path, e)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(HashMap::new()),
            Err(error) => Err(Error::local(path, error)),
        }
    }

    /// The newest line about a remote file.
    pub fn of(&self, remote: &str) -> Option<&Line> {
        self.lines.get(remote)
    }

    /// Appends a line; durable when this returns.
    pub fn append(&mut self, line: Line) -> Result<()> {
        let written = serde_json::to_vec(&line).map_err(std::io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            self.file.write_all(&text)?;
            self.file.sync_data()
        });
        written.map_err(|e| Error::local(&self.path, e))?;
        self.lines.insert(line.remote.clone(), line);
        Ok(())
    }
}

/// A journal for tasks, which must not wait for the disk themselves.
#[derive(Clone)]
pub(super) struct Notes(Arc<Mutex<Journal>>);

impl Notes {
    /// Opens the journal, made if need be.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let journal = blocking(move || Journal::open(&path)).await?;
        Ok(Notes(Arc::new(Mutex::new(journal))))
    }

    /// The newest line about a remote file.
    pub fn of(&self, remote: &str) -> Option<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).of(remote).cloned()
    }

    /// Appends a line; durable when this returns.
    pub async fn append(&self, line: Line) -> Result<()> {
        let journal = self.0.clone();
        blocking(move || journal.lock().unwrap_or_else(PoisonError::into_inner).append(line)).await
    }
}

fn read(file: &File, path: &Path) -> std::io::Result<HashMap<String, Line>> {
    let mut lines = HashMap::new();
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    for number in 1_u64.. {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        match serde_json::from_slice::<Line>(&text) {
            Ok(line) => drop(lines.insert(line.remote.clone(), line)),
            Err(_) if text.trim_ascii().is_empty() => {}
            Err(_) => tracing::warn!(journal = %path.display(), line = number, "a torn line is left out"),
        }
    }
    Ok(lines)
}

/// Whether the last line has no end.
fn is_torn(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(remote: &str, size: u64) -> Line {
        let step = Step::Fetched;
        Line {
            at: Utc::now(),
            step,
            remote: remote.into(),
            file: "a".into(),
            size,
            mtime: 1,
            sha256: "ab".into(),
        }
    }

    #[test]
    fn the_newest_line_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        let mut journal = Journal::open(&path).expect("opened");
        for (remote, size) in [("a", 1), ("b", 2), ("a", 3)] {
            journal.append(line(remote, size)).expect("appended");
        }
        drop(journal);
        let journal = Journal::open(&path).expect("opened");
        assert_eq!(journal.of("a").map(|line| line.size), Some(3));
        assert_eq!(journal.of("b").map(|line| line.size), Some(2));
        assert_eq!(journal.of("c"), None);
    }

    #[test]
    fn a_torn_line_is_left_out_and_harms_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        let mut journal = Journal::open(&path).expect("opened");
        journal.append(line("a", 1)).expect("appended");
        journal.file.write_all(b"{\"at\":\"2026-11-21T1").expect("torn");
        drop(journal);
        let mut journal = Journal::open(&path).expect("opened");
        journal.append(line("b", 2)).expect("appended");
        drop(journal);
        let lines = Journal::peek(&path).expect("read");
        assert_eq!(lines.len(), 2);
        assert_eq!(lines.get("b").map(|line| line.size), Some(2));
    }

    #[test]
    fn two_runs_do_not_share_a_journal() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        let first = Journal::open(&path).expect("opened");
        assert!(matches!(Journal::open(&path), Err(Error::Busy(_))));
        drop(first);
        assert!(Journal::open(&path).is_ok());
    }

    #[test]
    fn there_need_not_be_one() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Journal::peek(&folder.path().join(NAME)).expect("read").is_empty());
    }
}
