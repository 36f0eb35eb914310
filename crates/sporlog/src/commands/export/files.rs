//! The files of one day, which become visible together when all of them are complete.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Error, Result};
use chrono::NaiveDate;
use serde::Serialize;
use sporlog_exchange::collection::split_writer::{FileSink, SplitWriter, file_name};

use crate::cli::ExportRevisionArgs;
use crate::outfile::{Complete, OutFile};

/// A file that is there.
#[derive(Debug, Serialize)]
pub struct Written {
    /// Where.
    #[serde(rename = "file")]
    pub path: PathBuf,
    /// The day of receipt.
    pub day: NaiveDate,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// The files of one day, being written.
pub struct DayFiles {
    folder: OutFolder,
    parts: SplitWriter<OutFolder>,
}

/// Where they will be.
#[derive(Clone)]
struct OutFolder {
    folder: PathBuf,
    organisation: String,
    day: NaiveDate,
    replace: bool,
}

impl OutFolder {
    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(file_name(&self.organisation, self.day, number))
    }
}

impl FileSink for OutFolder {
    type Open = OutFile;
    type Closed = (PathBuf, Complete);
    type Error = Error;

    fn open(&mut self, number: usize) -> Result<OutFile> {
        OutFile::create(&self.path(number), self.replace)
    }

    fn write(&mut self, file: &mut OutFile, bytes: &[u8]) -> Result<()> {
        file.write_all(bytes).with_context(|| file.path().display().to_string())
    }

    fn close(&mut self, file: OutFile) -> Result<(PathBuf, Complete)> {
        Ok((file.path().to_owned(), file.complete()?))
    }
}

impl DayFiles {
    /// Begins without a file.
    pub fn begin(args: &ExportRevisionArgs, day: NaiveDate) -> Self {
        let folder = OutFolder {
            folder: args.out.clone(),
            organisation: args.organisation.clone(),
            day,
            replace: args.force,
        };
        let parts = SplitWriter::new(folder.clone(), &args.organisation, day, args.max_bytes);
        DayFiles { folder, parts }
    }

    /// The day.
    pub fn day(&self) -> NaiveDate {
        self.folder.day
    }

    /// Appends rows of CSV, whose ids are given.
    pub fn append(&mut self, ids: &[u64], csv: &[u8]) -> Result<()> {
        self.parts.append(ids, csv)
    }

    /// Shows all of the day's files. Those of an earlier export that are replaced and are not needed
    /// any more go.
    pub fn show(self) -> Result<Vec<Written>> {
        let DayFiles { folder, parts } = self;
        let complete = parts.finish()?;
        let count = complete.len();
        let mut written = Vec::with_capacity(count);
        for ((path, file), info) in complete {
            file.show()?;
            let (day, rows, bytes, sha256) = (folder.day, info.rows, info.bytes, info.sha256);
            written.push(Written { path, day, rows, bytes, sha256 });
        }
        if folder.replace {
            let stale = (count + 1..).map(|number| folder.path(number)).take_while(|path| path.exists());
            for path in stale {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(written)
    }
}
