//! The files of one day, which become visible together when all of them are complete.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Error, Result};
use chrono::NaiveDate;
use serde::Serialize;
use sporlog_intake::exchange::collection::parts::{Parts, Shelf, file_name};

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
    place: Place,
    parts: Parts<Place>,
}

/// Where they will be.
#[derive(Clone)]
struct Place {
    folder: PathBuf,
    organisation: String,
    day: NaiveDate,
    replace: bool,
}

impl Place {
    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(file_name(&self.organisation, self.day, number))
    }
}

impl Shelf for Place {
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
        let place = Place {
            folder: args.out.clone(),
            organisation: args.organisation.clone(),
            day,
            replace: args.force,
        };
        let parts = Parts::new(place.clone(), &args.organisation, day, args.max_bytes);
        DayFiles { place, parts }
    }

    /// The day.
    pub fn day(&self) -> NaiveDate {
        self.place.day
    }

    /// Appends rows of CSV, whose ids are given.
    pub fn append(&mut self, ids: &[u64], csv: &[u8]) -> Result<()> {
        self.parts.append(ids, csv)
    }

    /// Shows all of the day's files. Those of an earlier export that are replaced and are not needed
    /// any more go.
    pub fn show(self) -> Result<Vec<Written>> {
        let DayFiles { place, parts } = self;
        let complete = parts.finish()?;
        let count = complete.len();
        let mut written = Vec::with_capacity(count);
        for ((path, file), facts) in complete {
            file.show()?;
            let (day, rows, bytes, sha256) = (place.day, facts.rows, facts.bytes, facts.sha256);
            written.push(Written { path, day, rows, bytes, sha256 });
        }
        if place.replace {
            let stale = (count + 1..).map(|number| place.path(number)).take_while(|path| path.exists());
            for path in stale {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(written)
    }
}
