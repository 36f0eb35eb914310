//! Splits CSV into files that stay below a size, for `sporlog export revision` and for the collection.
//!
//! A [`FileSink`] decides where the files are, and when they become visible.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sporlog_record::hex;
use sporlog_record::revision::write_csv_header;

/// A file stays below so many bytes, as the specification demands.
pub const MAX_BYTES: u64 = 2_000_000_000;

/// `revisionslog_<CVR>_<day>_<nn>.csv`.
pub fn file_name(organisation: &str, day: NaiveDate, number: usize) -> String {
    format!("revisionslog_{organisation}_{day}_{number:02}.csv")
}

/// Makes the files.
pub trait FileSink {
    /// A file that is being written.
    type Open;
    /// A file that is complete.
    type Closed;
    /// The error of a failed operation.
    type Error;

    /// Begins the file of this number, from 1.
    fn open(&mut self, number: usize) -> Result<Self::Open, Self::Error>;

    /// Appends to a file.
    fn write(&mut self, file: &mut Self::Open, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Completes a file.
    fn close(&mut self, file: Self::Open) -> Result<Self::Closed, Self::Error>;
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// The first one's id in the log.
    pub first_id: u64,
    /// The last one's id in the log.
    pub last_id: u64,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Writes one organisation's rows of a day into as many files as are needed.
pub struct SplitWriter<S: FileSink> {
    sink: S,
    organisation: String,
    day: NaiveDate,
    max_bytes: u64,
    closed: Vec<(S::Closed, FileInfo)>,
    open: Option<OpenPart<S::Open>>,
}

struct OpenPart<F> {
    file: F,
    digest: Sha256,
    info: FileInfo,
}

impl<S: FileSink> SplitWriter<S> {
    /// Begins without a file: without rows, no file is made.
    pub fn new(sink: S, organisation: &str, day: NaiveDate, max_bytes: u64) -> Self {
        SplitWriter {
            sink,
            organisation: organisation.to_owned(),
            day,
            max_bytes,
            closed: Vec::new(),
            open: None,
        }
    }

    /// The day.
    pub fn day(&self) -> NaiveDate {
        self.day
    }

    /// Appends rows of CSV, whose ids are given.
    pub fn append(&mut self, ids: &[u64], csv: &[u8]) -> Result<(), S::Error> {
        if self.has_room(csv.len()) {
            return self.write(ids, csv);
        }
        // The file's limit is reached within these rows, so they are written one by one.
        for (row, id) in split_rows(csv).zip(ids) {
            // A row that is too large for any file gets one of its own.
            if !self.has_room(row.len()) {
                self.close()?;
            }
            self.write(std::slice::from_ref(id), row)?;
        }
        Ok(())
    }

    /// Completes the last file, and returns all files.
    pub fn finish(mut self) -> Result<Vec<(S::Closed, FileInfo)>, S::Error> {
        self.close()?;
        Ok(self.closed)
    }

    /// Whether the file stays below its limit with so many bytes more.
    fn has_room(&self, bytes: usize) -> bool {
        let used = match &self.open {
            Some(open) => open.info.bytes,
            None => header().len() as u64,
        };
        used.saturating_add(bytes as u64) < self.max_bytes
    }

    fn write(&mut self, ids: &[u64], csv: &[u8]) -> Result<(), S::Error> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let number = self.closed.len() + 1;
                let file = self.sink.open(number)?;
                let info = FileInfo {
                    name: file_name(&self.organisation, self.day, number),
                    rows: 0,
                    first_id: *first,
                    last_id: *last,
                    bytes: 0,
                    sha256: String::new(),
                };
                let open = none.insert(OpenPart { file, digest: Sha256::new(), info });
                open.write(&mut self.sink, &header())?;
                open
            }
        };
        open.info.rows += ids.len() as u64;
        open.info.last_id = *last;
        open.write(&mut self.sink, csv)
    }

    fn close(&mut self) -> Result<(), S::Error> {
        if let Some(OpenPart { file, digest, mut info }) = self.open.take() {
            info.sha256 = hex(digest.finalize());
            self.closed.push((self.sink.close(file)?, info));
        }
        Ok(())
    }
}

impl<F> OpenPart<F> {
    fn write<S: FileSink<Open = F>>(&mut self, sink: &mut S, bytes: &[u8]) -> Result<(), S::Error> {
        self.digest.update(bytes);
        self.info.bytes += bytes.len() as u64;
        sink.write(&mut self.file, bytes)
    }
}

fn header() -> Vec<u8> {
    let mut header = Vec::new();
    write_csv_header(&mut header);
    header
}

/// The rows of CSV with their line ends. A line end within quotes is text.
fn split_rows(csv: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    csv.split_inclusive(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b'\n' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    struct InMemory;

    impl FileSink for InMemory {
        type Open = Vec<u8>;
        type Closed = Vec<u8>;
        type Error = Infallible;

        fn open(&mut self, _: usize) -> Result<Vec<u8>, Infallible> {
            Ok(Vec::new())
        }

        fn write(&mut self, file: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Infallible> {
            file.extend_from_slice(bytes);
            Ok(())
        }

        fn close(&mut self, file: Vec<u8>) -> Result<Vec<u8>, Infallible> {
            Ok(file)
        }
    }

    #[test]
    fn rows_end_where_no_quote_is_open() {
        let csv = b"\"a\",\"b\r\nc\"\r\n\"say \"\"\n\"\"\",\"\"\r\n";
        let rows: Vec<_> = split_rows(csv).collect();
        assert_eq!(rows, [&csv[..12], &csv[12..]]);
    }

    #[test]
    fn a_file_ends_before_it_would_reach_its_limit() {
        let room = header().len() as u64;
        let mut parts = SplitWriter::new(InMemory, "64942212", NaiveDate::default(), room + 9);
        let row = |text: &str| format!("\"{text}\"\r\n").into_bytes();
        let (short, long) = (row(""), row("far too long for any file"));
        parts.append(&[3, 5], &[short.clone(), short.clone()].concat()).expect("written");
        parts.append(&[7, 8, 9], &[short.clone(), long.clone(), short.clone()].concat()).expect("written");
        let files = parts.finish().expect("complete");
        let info: Vec<_> = files.iter().map(|(_, f)| (f.rows, f.first_id, f.last_id)).collect();
        assert_eq!(info, [(2, 3, 5), (1, 7, 7), (1, 8, 8), (1, 9, 9)]);
        assert_eq!(files[2].0, [header(), long].concat());
        assert_eq!(files[2].1.name, "revisionslog_64942212_1970-01-01_03.csv");
        assert!(
            files
                .iter()
                .all(|(file, info)| info.bytes == file.len() as u64
                    && info.sha256 == hex(Sha256::digest(file)))
        );
    }
}
