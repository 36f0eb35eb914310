//! Files to which lines of JSON are only ever appended. A crash can leave an incomplete last line: readers skip
//! it, and the next writer removes it. All of this blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    drop_torn_line(file)?;
    file.write_all(&line)?;
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

/// Truncates the file after its last complete line.
fn drop_torn_line(file: &mut File) -> io::Result<()> {
    const STEP: u64 = 64 << 10;
    let end = file.metadata()?.len();
    let mut from = end;
    let mut block = Vec::new();
    while from > 0 {
        // The last byte alone, as a rule: it ends the last line.
        let start = if from == end { from - 1 } else { from.saturating_sub(STEP) };
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file).take(from - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            let whole = start + at as u64 + 1;
            return if whole == end { Ok(()) } else { file.set_len(whole) };
        }
        from = start;
    }
    file.set_len(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_torn_line_is_passed_over_and_harms_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lines");
        for torn in ["", "7", "[1,2", &"x".repeat(200_000)] {
            fs::write(&path, format!("1\n2\n{torn}")).expect("written");
            let mut file = open(&path, 0o600).expect("opened");
            append(&mut file, &3).expect("appended");
            append(&mut file, &4).expect("appended");
            assert_eq!(fs::read_to_string(&path).expect("read"), "1\n2\n3\n4\n");
        }
        fs::write(&path, "1\nx\n2\n[").expect("written");
        let mut lines = Vec::new();
        read(&path, |line: u32| lines.push(line)).expect("read");
        assert_eq!(lines, [1, 2]);
        read(&folder.path().join("missing"), |_: u32| panic!("a line")).expect("nothing");
    }
}
