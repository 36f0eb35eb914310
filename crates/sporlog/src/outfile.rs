//! A file of results that becomes visible only when it is complete.
//!
//! It is written under another name beside its place, synced, and then renamed. A file that is
//! there already is replaced only on request, and what was left unfinished is removed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sporlog_ledger::local_files::{rename_new, sync_parent};

use crate::cli::OutArgs;
use crate::output::Output;

/// Where a result goes.
pub enum Sink {
    File(OutFile),
    Standard(Output),
}

impl Sink {
    /// The file that is asked for, or else standard output.
    pub fn open(args: &OutArgs) -> Result<Self> {
        Ok(match &args.out {
            Some(path) => Sink::File(OutFile::create(path, args.force)?),
            None => Sink::Standard(Output::new()?),
        })
    }

    /// Makes the result visible, all of it.
    pub fn finish(self) -> Result<()> {
        match self {
            Sink::File(file) => file.finish(),
            Sink::Standard(mut out) => Ok(out.flush()?),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::File(file) => file.write(bytes),
            Sink::Standard(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::File(file) => file.flush(),
            Sink::Standard(out) => out.flush(),
        }
    }
}

/// A file that is being written.
pub struct OutFile {
    file: Option<BufWriter<File>>,
    written_as: PathBuf,
    path: PathBuf,
    replace: bool,
}

impl OutFile {
    /// Begins the file at `path`.
    pub fn create(path: &Path, replace: bool) -> Result<Self> {
        if !replace && path.symlink_metadata().is_ok() {
            bail!(already_there(path));
        }
        let Some(name) = path.file_name() else { bail!("{}: this is no name for a file", path.display()) };
        // A leading dot keeps it from those who fetch `*.csv`; the number keeps apart two who write
        // the same file at once.
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        let written_as = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&written_as);
        let file = file.with_context(|| written_as.display().to_string())?;
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(OutFile { file, written_as, path: path.to_owned(), replace })
    }

    /// Syncs the file, and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        let sync = |file: BufWriter<File>| {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()
        };
        let synced = self.file.take().map_or(Ok(()), sync);
        let OutFile { written_as, path, replace, .. } = &self;
        synced.with_context(|| written_as.display().to_string())?;
        let moved = if *replace { std::fs::rename(written_as, path) } else { rename_new(written_as, path) };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(already_there(path)),
            moved => moved.with_context(|| path.display().to_string())?,
        }
        sync_parent(path).with_context(|| path.display().to_string())
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file
                .write(bytes)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))),
            None => Err(io::Error::other("the file is complete")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        // Gone already, if it was shown.
        let _ = std::fs::remove_file(&self.written_as);
    }
}

/// The message that a file is not replaced without being asked to.
pub fn already_there(path: &Path) -> String {
    format!("{}: the file is there already; --force replaces it", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_visible_only_when_complete() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out.csv");
        let mut file = OutFile::create(&path, false).expect("begun");
        file.write_all(b"half").expect("written");
        assert!(!path.exists());
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0);
        let mut file = OutFile::create(&path, false).expect("begun");
        file.write_all(b"whole").expect("written");
        file.finish().expect("shown");
        assert_eq!(std::fs::read(&path).expect("read"), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1);
    }

    #[test]
    fn it_replaces_only_on_request() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out.csv");
        std::fs::write(&path, b"old").expect("written");
        assert!(OutFile::create(&path, false).is_err());
        OutFile::create(&path, true).and_then(OutFile::finish).expect("replaced");
        assert_eq!(std::fs::read(&path).expect("read"), b"");
        // It came in between.
        std::fs::remove_file(&path).expect("removed");
        let late = OutFile::create(&path, false).expect("begun");
        std::fs::write(&path, b"other").expect("written");
        assert!(late.finish().is_err());
        assert_eq!(std::fs::read(&path).expect("read"), b"other");
    }
}
