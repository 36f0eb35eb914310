//! The manifest: the contents of a municipality's files of a day, signed with the log's key.

use std::path::Path;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sporlog_ledger::{Log, open_checkpoint, open_note};

use super::day_files::FileInfo;
use sporlog_intake::{Error, Result};

/// The format's name and version.
pub const FORMAT: &str = "sporlog-collection/1";

/// The contents of a municipality's files of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The municipality's CVR number.
    pub organisation: String,
    /// The day of receipt, UTC.
    pub day: NaiveDate,
    /// The log that the rows are from.
    pub log: String,
    /// Whether the day was over: all rows that were or will be received on the day are among `scanned`.
    pub complete: bool,
    /// The municipality's rows.
    pub rows: u64,
    /// The id of the municipality's first row.
    pub first_id: Option<u64>,
    /// The id of the municipality's last row.
    pub last_id: Option<u64>,
    /// From the first to the last id of all the log's rows of the day, whoever's; absent if there are none.
    /// Rows of other days are among them only where a clock was wrong.
    pub scanned: Option<Scanned>,
    /// The files, in order.
    pub files: Vec<FileInfo>,
    /// The id of the day's last row or, of a day without rows, of the last row before: the size of the log then.
    pub tree_size: u64,
    /// The signed checkpoint of the log's tree of that size (C2SP tlog-checkpoint).
    pub checkpoint: String,
    /// All of the above but the checkpoint, signed with the log's key (C2SP signed-note).
    pub statement: String,
}

/// Ids that were looked through, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Manifest {
    /// `revisionslog_<CVR>_<day>.manifest.json`.
    pub fn file_name(organisation: &str, day: NaiveDate) -> String {
        format!("revisionslog_{organisation}_{day}.manifest.json")
    }

    /// Signs the manifest with the log's key.
    pub(super) fn sign(&mut self, log: &Log) -> Result<()> {
        let note = log.sign_statement(FORMAT, &self.lines())?;
        self.statement = String::from_utf8_lossy(&note).into_owned();
        Ok(())
    }

    /// The bytes of the manifest's file.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::Internal(e.to_string()));
        bytes.map(|bytes| [bytes, b"\n".to_vec()].concat())
    }

    /// Reads the manifest at `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |source| Error::Read { name: path.display().to_string(), source };
        let bytes = std::fs::read(path).map_err(fail)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| fail(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))
    }

    /// The problems with the manifest's signatures, if `vkey` is the log's public key.
    pub fn check_signatures(&self, vkey: &str) -> Vec<String> {
        let mut problems = Vec::new();
        match open_checkpoint(self.checkpoint.as_bytes(), vkey) {
            Err(reason) => problems.push(format!("the checkpoint: {reason}")),
            Ok(checkpoint) if checkpoint.size() != self.tree_size => problems.push(format!(
                "the checkpoint is of {} records, and treeSize says {}",
                checkpoint.size(),
                self.tree_size
            )),
            Ok(_) => {}
        }
        let origin = vkey.split('+').next().unwrap_or_default();
        match open_note(self.statement.as_bytes(), vkey) {
            Err(reason) => problems.push(format!("the statement: {reason}")),
            Ok(text) if text != format!("{FORMAT}\n{origin}\n{}", self.lines()) => {
                problems.push("the statement says something else than the manifest".to_owned());
            }
            Ok(_) => {}
        }
        problems
    }

    /// The text of the statement, below the first two lines.
    fn lines(&self) -> String {
        let id = |id: Option<u64>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let (first, last) = (id(self.first_id), id(self.last_id));
        let (from, to) = (id(self.scanned.map(|s| s.first)), id(self.scanned.map(|s| s.last)));
        let state = if self.complete { "complete" } else { "so far" };
        let mut lines = format!(
            "log {}\norganisation {}\nday {} {state}\nrows {} {first} {last}\nscanned {from} {to}\ntree {}\n",
            self.log, self.organisation, self.day, self.rows, self.tree_size
        );
        for FileInfo { name, rows, first_id, last_id, bytes, sha256 } in &self.files {
            lines.push_str(&format!("file {name} {rows} {first_id} {last_id} {bytes} {sha256}\n"));
        }
        lines
    }
}
