//! How far a log has been signed, remembered beside its key and so outside the log's folder.
//!
//! Whoever can write to the log's folder and has no key can still put an older copy of the log there.
//! Every commit of that copy is signed. The high-water mark, `<keys>/<log>.signed`, is what such a copy
//! falls short of: a reader that has the keys, and every writer, refuses it.
//!
//! The mark is written after each commit, and synced when the log is published; a commit is durable
//! before the mark names it. So the mark is a lower bound: it may lag after a power cut, and it is
//! never ahead of what was committed. It is one line of a fixed length, written in one piece:
//!
//! ```text
//! sporlog-signed/1 <version, 20 digits> <size, 20 digits> <chain, 64 hexadecimal digits> <check>
//! ```

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sporlog_record::hex;

use crate::delta::{Sha, unhex};
use crate::error::{Error, Result};
use crate::local_files::write_new;
use crate::table_state::TableState;

const HEADER: &str = "sporlog-signed/1";

/// How often reading is tried again: a writer may be writing the mark at that moment.
const READ_TRIES: u32 = 5;
const READ_PAUSE: Duration = Duration::from_millis(10);

/// The newest commit that is known to have been signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HighWaterMark {
    pub version: u64,
    pub size: u64,
    pub chain: Sha,
}

impl From<&TableState> for HighWaterMark {
    fn from(state: &TableState) -> Self {
        HighWaterMark { version: state.version, size: state.size, chain: state.chain }
    }
}

const SUFFIX: &str = ".signed";

fn mark_file(keys: &Path, log: &str) -> PathBuf {
    keys.join(format!("{log}{SUFFIX}"))
}

/// The names of the logs that have a mark in the key folder `keys`.
pub(crate) fn marked_logs(keys: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(keys).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned)).collect()
}

impl HighWaterMark {
    /// The mark of `log`, whose keys lie in `keys`; `None` if nothing has been signed with them yet.
    pub(crate) fn load(keys: &Path, log: &str) -> Result<Option<Self>> {
        let path = mark_file(keys, log);
        for attempt in 1.. {
            match std::fs::read_to_string(&path) {
                Ok(line) => match Self::parse(&line) {
                    Some(mark) => return Ok(Some(mark)),
                    None if attempt == READ_TRIES => break,
                    None => std::thread::sleep(READ_PAUSE),
                },
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(Error::Io { what: path.display().to_string(), source }),
            }
        }
        Err(Error::Keys {
            log: log.into(),
            place: path.display().to_string(),
            reason: format!(
                "a line beginning with '{HEADER}' is expected, and the file has something else; put it back from a copy \
                 of the key folder, or remove it: an older copy of the log is then not noticed until the next append"
            ),
        })
    }

    fn line(&self) -> String {
        let line = format!("{HEADER} {:020} {:020} {}", self.version, self.size, hex(self.chain));
        format!("{line} {}\n", checksum(&line))
    }

    fn parse(line: &str) -> Option<Self> {
        let (line, given) = line.strip_suffix('\n')?.rsplit_once(' ')?;
        let mut parts = line.split(' ');
        let (header, version, size) = (parts.next()?, parts.next()?, parts.next()?);
        let chain = unhex(parts.next()?)?;
        if header != HEADER || given != checksum(line) {
            return None;
        }
        Some(HighWaterMark { version: version.parse().ok()?, size: size.parse().ok()?, chain })
    }
}

/// Detects a line that is half old and half new.
fn checksum(line: &str) -> String {
    hex(Sha256::digest(line))[..8].to_owned()
}

/// The mark's file, open for writing. Where the key folder cannot be written to, as a mounted Kubernetes
/// Secret, there is none: a warning says so, and an older copy of the log is then not noticed.
pub(crate) struct MarkFile {
    path: PathBuf,
    file: Option<File>,
}

impl MarkFile {
    /// Opens the mark of `log`, or makes it with `mark`.
    pub(crate) fn open(keys: &Path, log: &str, mark: &HighWaterMark) -> Result<Self> {
        let path = mark_file(keys, log);
        let open = || OpenOptions::new().write(true).open(&path);
        let opened = open().or_else(|_| match write_new(&path, mark.line().as_bytes()) {
            // Another process may make it at this moment.
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
            _ => open(),
        });
        let file = match opened {
            Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                tracing::warn!(
                    log,
                    file = %path.display(),
                    error = %e,
                    "how far the log is signed cannot be remembered: an older copy of the log would not be noticed"
                );
                None
            }
            opened => Some(opened.map_err(|source| Error::Io { what: path.display().to_string(), source })?),
        };
        Ok(MarkFile { path, file })
    }

    /// Writes the mark. A process that is killed afterwards does not lose the mark; a power cut may.
    pub(crate) fn write(&self, mark: &HighWaterMark) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(mark.line().as_bytes(), 0).map_err(|e| self.failed(e))
    }

    /// Makes the newest mark durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|e| self.failed(e))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Io { what: self.path.display().to_string(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_torn_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(HighWaterMark::load(dir.path(), "log").unwrap(), None);
        let mark = |n: u8| HighWaterMark { version: n.into(), size: 10 * u64::from(n), chain: [n; 32] };
        let file = MarkFile::open(dir.path(), "log", &mark(1)).unwrap();
        assert_eq!(HighWaterMark::load(dir.path(), "log").unwrap(), Some(mark(1)));
        file.write(&mark(200)).unwrap();
        file.sync().unwrap();
        assert_eq!(HighWaterMark::load(dir.path(), "log").unwrap(), Some(mark(200)));
        // Half of one line and half of another.
        file.file.unwrap().write_all_at(&mark(100).line().as_bytes()[..80], 0).unwrap();
        assert!(matches!(HighWaterMark::load(dir.path(), "log"), Err(Error::Keys { .. })));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_has_no_mark() {
        // Nobody can make a file there, not even root.
        let folder = Path::new("/sys");
        let mark = HighWaterMark { version: 1, size: 1, chain: [1; 32] };
        let file = MarkFile::open(folder, "sporlog-test", &mark).unwrap();
        assert!(file.file.is_none());
        file.write(&mark).unwrap();
        file.sync().unwrap();
        assert_eq!(HighWaterMark::load(folder, "sporlog-test").unwrap(), None);
    }
}
