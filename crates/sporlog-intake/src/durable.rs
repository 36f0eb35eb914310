//! Files that are whole or not there, and durable once they are.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub use sporlog_ledger::local_files::{make_folder, private_file, rename_new, sync_folder};

/// Writes a small file `beside` its place and renames it to `path`, in place of what is there; durable
/// when this returns.
pub fn put(beside: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}
