//! Writes an organisation's rows of a day, as CSV, into files that stay below a size.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::slice;

use chrono::NaiveDate;
use sha2::{Digest, Sha256};
use sporlog_intake::Result;
use sporlog_record::hex;
use sporlog_record::revision::write_csv_header;

use super::day_files::{FileInfo, WrittenFile, failed, file_name};

/// The buffer of a file. It is small because hundreds of files are open at once.
const BUFFER: usize = 64 << 10;

/// An organisation's files of a day, being written. Without rows, no file is made.
pub(super) struct SplitWriter {
    /// The folder that the files are written in.
    folder: PathBuf,
    organisation: String,
    day: NaiveDate,
    /// A file stays below so many bytes.
    max_bytes: u64,
    /// The files' mode, which the umask may narrow.
    mode: u32,
    closed: Vec<WrittenFile>,
    open: Option<OpenFile>,
}

struct OpenFile {
    path: PathBuf,
    file: BufWriter<File>,
    digest: Sha256,
    info: FileInfo,
}

impl SplitWriter {
    /// Begins without a file. `mode` is the files' mode, which the umask may narrow.
    pub(super) fn new(
        folder: PathBuf,
        organisation: &str,
        day: NaiveDate,
        max_bytes: u64,
        mode: u32,
    ) -> Self {
        let organisation = organisation.to_owned();
        SplitWriter { folder, organisation, day, max_bytes, mode, closed: Vec::new(), open: None }
    }

    /// Whose rows the files hold.
    pub(super) fn organisation(&self) -> &str {
        &self.organisation
    }

    /// Appends rows of CSV, whose ids are given.
    pub(super) fn append(&mut self, ids: &[u64], csv: &[u8]) -> Result<()> {
        if self.has_room(csv.len()) {
            return self.write(ids, csv);
        }
        // The file's limit is reached within these rows, so they are written one by one.
        for (row, id) in split_rows(csv).zip(ids) {
            // A row that is too large for any file gets one of its own.
            if !self.has_room(row.len()) {
                self.close()?;
            }
            self.write(slice::from_ref(id), row)?;
        }
        Ok(())
    }

    /// Completes the last file, and returns all files. They are not synced.
    pub(super) fn finish(mut self) -> Result<Vec<WrittenFile>> {
        self.close()?;
        Ok(self.closed)
    }

    /// Whether the file stays below its limit with so many bytes more.
    fn has_room(&self, bytes: usize) -> bool {
        let used = self.open.as_ref().map_or_else(|| header().len() as u64, |open| open.info.bytes);
        used.saturating_add(bytes as u64) < self.max_bytes
    }

    fn write(&mut self, ids: &[u64], csv: &[u8]) -> Result<()> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let name = file_name(&self.organisation, self.day, self.closed.len() + 1);
                let path = self.folder.join(&name);
                let file =
                    OpenOptions::new().write(true).create(true).truncate(true).mode(self.mode).open(&path);
                let file = BufWriter::with_capacity(BUFFER, file.map_err(failed(&path))?);
                let (rows, bytes, sha256) = (0, 0, String::new());
                let info = FileInfo { name, rows, first_id: *first, last_id: *last, bytes, sha256 };
                let open = none.insert(OpenFile { path, file, digest: Sha256::new(), info });
                open.write(&header())?;
                open
            }
        };
        open.info.rows += ids.len() as u64;
        open.info.last_id = *last;
        open.write(csv)
    }

    fn close(&mut self) -> Result<()> {
        if let Some(OpenFile { path, mut file, digest, mut info }) = self.open.take() {
            file.flush().map_err(failed(&path))?;
            info.sha256 = hex(digest.finalize());
            self.closed.push((path, info));
        }
        Ok(())
    }
}

impl OpenFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.info.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(failed(&self.path))
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
    use super::*;

    #[test]
    fn rows_end_where_no_quote_is_open() {
        let csv = b"\"a\",\"b\r\nc\"\r\n\"say \"\"\n\"\"\",\"\"\r\n";
        let rows: Vec<_> = split_rows(csv).collect();
        assert_eq!(rows, [&csv[..12], &csv[12..]]);
    }

    #[test]
    fn a_file_ends_before_it_would_reach_its_limit() {
        let room = header().len() as u64;
        let folder = tempfile::tempdir().expect("a folder");
        let day = NaiveDate::default();
        let mut writer = SplitWriter::new(folder.path().to_owned(), "64942212", day, room + 9, 0o600);
        let row = |text: &str| format!("\"{text}\"\r\n").into_bytes();
        let (short, long) = (row(""), row("far too long for any file"));
        writer.append(&[3, 5], &[short.clone(), short.clone()].concat()).expect("written");
        writer.append(&[7, 8, 9], &[short.clone(), long.clone(), short.clone()].concat()).expect("written");
        let files = writer.finish().expect("complete");
        let files: Vec<_> =
            files.into_iter().map(|(path, info)| (std::fs::read(path).expect("read"), info)).collect();
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
