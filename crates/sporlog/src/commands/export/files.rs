//! The files of one day, which become visible together when all of them are complete.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use chrono::NaiveDate;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sporlog_record::revision::write_csv_header;

use crate::cli::ExportRevisionArgs;
use crate::outfile::{Complete, OutFile};
use crate::output::hex;

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
    day: NaiveDate,
    folder: PathBuf,
    organisation: String,
    max_bytes: u64,
    replace: bool,
    complete: Vec<(Complete, Written)>,
    open: Option<OpenFile>,
}

struct OpenFile {
    file: OutFile,
    digest: Sha256,
    rows: u64,
    bytes: u64,
}

impl DayFiles {
    /// Begins without a file.
    pub fn begin(args: &ExportRevisionArgs, day: NaiveDate) -> Result<Self> {
        Ok(DayFiles {
            day,
            folder: args.out.clone(),
            organisation: args.organisation.clone(),
            max_bytes: args.max_bytes,
            replace: args.force,
            complete: Vec::new(),
            open: None,
        })
    }

    /// The day.
    pub fn day(&self) -> NaiveDate {
        self.day
    }

    /// Appends so many rows of CSV.
    pub fn append(&mut self, rows: u64, csv: &[u8]) -> Result<()> {
        if self.has_room(csv.len())? {
            return self.write(rows, csv);
        }
        // The file ends somewhere in here: row by row, then.
        for row in split_rows(csv) {
            // A row that is too large for any file gets one of its own.
            if !self.has_room(row.len())? && self.open_file()?.rows > 0 {
                self.complete_file()?;
            }
            self.write(1, row)?;
        }
        Ok(())
    }

    /// Whether so many bytes more keep the file below its limit.
    fn has_room(&mut self, bytes: usize) -> Result<bool> {
        let max = self.max_bytes;
        Ok(self.open_file()?.bytes + (bytes as u64) < max)
    }

    fn write(&mut self, rows: u64, csv: &[u8]) -> Result<()> {
        let open = self.open_file()?;
        open.rows += rows;
        open.write(csv)
    }

    fn open_file(&mut self) -> Result<&mut OpenFile> {
        if self.open.is_none() {
            let path = self.path(self.complete.len() + 1);
            let file = OutFile::create(&path, self.replace)?;
            let mut open = OpenFile { file, digest: Sha256::new(), rows: 0, bytes: 0 };
            let mut header = Vec::new();
            write_csv_header(&mut header);
            open.write(&header)?;
            self.open = Some(open);
        }
        self.open.as_mut().context("a file was just opened")
    }

    fn complete_file(&mut self) -> Result<()> {
        if let Some(OpenFile { file, digest, rows, bytes }) = self.open.take() {
            let (path, sha256) = (file.path().to_owned(), hex(&digest.finalize()));
            self.complete.push((file.complete()?, Written { path, day: self.day, rows, bytes, sha256 }));
        }
        Ok(())
    }

    /// Shows all of the day's files. Those of an earlier export that are replaced and are not needed
    /// any more go.
    pub fn show(mut self) -> Result<Vec<Written>> {
        self.complete_file()?;
        let count = self.complete.len();
        let mut written = Vec::with_capacity(count);
        for (file, facts) in std::mem::take(&mut self.complete) {
            file.show()?;
            written.push(facts);
        }
        if self.replace {
            let stale = (count + 1..).map(|number| self.path(number)).take_while(|path| path.exists());
            for path in stale {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(written)
    }

    fn path(&self, number: usize) -> PathBuf {
        file_path(&self.folder, &self.organisation, self.day, number)
    }
}

fn file_path(folder: &Path, organisation: &str, day: NaiveDate, number: usize) -> PathBuf {
    folder.join(format!("revisionslog_{organisation}_{day}_{number:02}.csv"))
}

/// The rows of CSV with their line ends. A line end within quotes is text.
fn split_rows(csv: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    csv.split_inclusive(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b'\n' && !quoted
    })
}

impl OpenFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).with_context(|| self.file.path().display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_where_no_quote_is_open() {
        let csv = b"\"a\",\"b\r\nc\"\r\n\"say \"\"\n\"\"\",\"\"\r\n";
        let rows: Vec<_> = split_rows(csv).collect();
        assert_eq!(rows, [&csv[..12], &csv[12..]]);
    }
}
