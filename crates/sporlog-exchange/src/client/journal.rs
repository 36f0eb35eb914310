//! The journal of what was transferred, so that nothing is transferred twice: a line of JSON for each step, in the
//! folder of the files.
//!
//! A line is durable before the step after it is taken. A kill may tear the last line; the step is taken again then.
//! Only one run works with a journal at a time.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sporlog_intake::blocking::{blocking, lock};

use super::error::{Error, Result};
use crate::json_lines;

/// The journal's name in a folder. Names that begin with a dot are never transferred.
pub const NAME: &str = ".sporlog-exchange.jsonl";

/// A step of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The remote file is here.
    Fetched,
    /// The local file is being sent, under its temporary name.
    Sending,
    /// The server has all of the file; only its name is missing.
    Complete,
    /// The server has the file under its name.
    Sent,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When the step was taken.
    pub at: DateTime<Utc>,
    /// The step.
    pub step: Step,
    /// The remote file's address.
    pub remote: String,
    /// The local file, below the journal's folder.
    pub file: String,
    /// The file's size.
    pub size: u64,
    /// When the file was last changed at its source: in seconds for one that was fetched, in nanoseconds for one
    /// that was sent.
    pub mtime: i64,
    /// The file's SHA-256, in hexadecimal, if it is known by then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The delivery whose receipt has been reported; empty until then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receipt: String,
}

/// A journal, locked for as long as a clone of this lives.
#[derive(Clone)]
pub(super) struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    path: PathBuf,
    file: File,
    /// The newest line about each remote file.
    lines: HashMap<String, Line>,
}

impl Journal {
    /// Opens the journal, made if it is missing. Blocks.
    pub fn open(path: &Path) -> Result<Self> {
        // Files' names can tell whose data was looked up.
        let file = json_lines::open(path, 0o640).map_err(|e| Error::local(path, e))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let name = path.display();
            return Err(Error::Busy(format!("{name}: another run is at work; it holds the journal")));
        }
        let lines = Journal::peek(path)?;
        Ok(Journal(Arc::new(Mutex::new(Inner { path: path.to_owned(), file, lines }))))
    }

    /// The newest line about each remote file, without locking the journal. Blocks.
    pub fn peek(path: &Path) -> Result<HashMap<String, Line>> {
        let mut lines = HashMap::new();
        let read = json_lines::read(path, |line: Line| drop(lines.insert(line.remote.clone(), line)));
        read.map_err(|e| Error::local(path, e))?;
        Ok(lines)
    }

    /// The newest line about a remote file.
    pub fn of(&self, remote: &str) -> Option<Line> {
        lock(&self.0).lines.get(remote).cloned()
    }

    /// Appends a line; durable when this returns.
    pub async fn append(&self, line: Line) -> Result<()> {
        let journal = self.clone();
        blocking(move || {
            let mut inner = lock(&journal.0);
            json_lines::append(&mut inner.file, &line).map_err(|e| Error::local(&inner.path, e))?;
            inner.lines.insert(line.remote.clone(), line);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(remote: &str, size: u64) -> Line {
        let (remote, file, sha256) = (remote.into(), "a".into(), "ab".into());
        let receipt = String::new();
        Line { at: Utc::now(), step: Step::Fetched, remote, file, size, mtime: 1, sha256, receipt }
    }

    #[tokio::test]
    async fn the_newest_line_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(NAME);
        let journal = Journal::open(&path).expect("opened");
        for (remote, size) in [("a", 1), ("b", 2), ("a", 3)] {
            journal.append(line(remote, size)).await.expect("appended");
        }
        drop(journal);
        let journal = Journal::open(&path).expect("opened");
        assert_eq!(journal.of("a").map(|line| line.size), Some(3));
        assert_eq!(journal.of("b").map(|line| line.size), Some(2));
        assert_eq!(journal.of("c"), None);
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
}
