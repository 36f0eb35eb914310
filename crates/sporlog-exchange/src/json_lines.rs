//! Files to which lines of JSON objects are only ever appended. A crash can leave an incomplete last line: the next
//! writer ends it, and readers skip it. All of this blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sporlog_ledger::local_files::{found, sync_parent};

/// Opens a file to append to, made with `mode` if it is missing; its name is durable when this returns.
pub(crate) fn open(path: &Path, mode: u32) -> io::Result<File> {
    let is_new = !path.exists();
    let file = OpenOptions::new().read(true).append(true).create(true).mode(mode).open(path)?;
    if is_new {
        sync_parent(path)?;
    }
    Ok(file)
}

/// Appends a line; durable when this returns. Only one writer at a time may do so.
pub(crate) fn append(file: &mut File, value: &impl Serialize) -> io::Result<()> {
    let end = file.metadata()?.len();
    let mut last = [b'\n'];
    if end > 0 {
        file.read_exact_at(&mut last, end - 1)?;
    }
    let torn = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{torn}{}\n", serde_json::to_string(value)?).as_bytes())?;
    file.sync_data()
}

/// Calls `each` with what the lines hold, in order. What is no such value is passed over.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, mut each: impl FnMut(T)) -> io::Result<()> {
    let Some(file) = found(File::open(path))? else { return Ok(()) };
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(value) = serde_json::from_slice(&line?) {
            each(value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_torn_line_is_passed_over_and_harms_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        let lines = || {
            let mut lines = Vec::new();
            read(&path, |line: [u32; 1]| lines.push(line[0])).expect("read");
            lines
        };
        for torn in ["", "[", "[7", "[1,2", &format!("[{}", "x".repeat(200_000))] {
            fs::write(&path, format!("[1]\n[2]\n{torn}")).expect("written");
            assert_eq!(lines(), [1, 2]);
            let mut file = open(&path, 0o600).expect("opened");
            append(&mut file, &[3]).expect("appended");
            append(&mut file, &[4]).expect("appended");
            assert_eq!(lines(), [1, 2, 3, 4]);
        }
        fs::write(&path, "[1]\nx\n[2]\n").expect("written");
        assert_eq!(lines(), [1, 2]);
        fs::remove_file(&path).expect("removed");
        assert!(lines().is_empty());
        append(&mut open(&path, 0o600).expect("made"), &[5]).expect("appended");
        assert_eq!(lines(), [5]);
    }
}
