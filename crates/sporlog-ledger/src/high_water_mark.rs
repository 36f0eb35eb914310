//! How far a log has been signed, remembered beside its key and so outside the log's folder.
//!
//! Whoever can write to the log's folder and has no key can still put an older copy of the log there.
//! Every commit of that copy is signed. The high-water mark, `<keys>/<log>.signed`, is what such a copy
//! falls short of: a reader that has the keys, and every writer, refuses it.
//!
//! The mark is written after each commit and each frame of the journal, and synced when the log is published; both are
//! durable before the mark names them. So the mark is a lower bound: it may lag after a power cut, and it is
//! never ahead of what was committed. It is one line of a fixed length, written in one piece:
//!
//! ```text
//! sporlog-signed/2 <version> <size> <root> <chain> <frames> <chain after the frames> <check>
//! ```
//!
//! Numbers have 20 digits, chains 64 hexadecimal ones. Earlier versions of this program wrote no frames, and `/1`.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sporlog_record::hex;
use tlog_tiles::tlog::Hash;

use crate::delta::{Sha, unhex};
use crate::error::{Error, Result};
use crate::journal::Extent;
use crate::local_files::write_new;
use crate::storage::Storage;
use crate::table_state::TableState;
use crate::tlog::{read_checkpoint, root_at, tlog_name};

const HEADER: &str = "sporlog-signed/2";
const HEADER_WITHOUT_FRAMES: &str = "sporlog-signed/1";

/// How often reading is tried again: a writer may be writing the mark at that moment.
const READ_TRIES: u32 = 5;
const READ_PAUSE: Duration = Duration::from_millis(10);

/// The newest commit that is known to have been signed, and the newest frame after it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HighWaterMark {
    pub version: u64,
    pub size: u64,
    /// The tree's root; `None` in marks of earlier versions of this program.
    pub root: Option<Hash>,
    /// The chain after the commit.
    pub chain: Sha,
    pub frames: u64,
    /// The chain after the frames.
    pub end: Sha,
}

impl From<&TableState> for HighWaterMark {
    fn from(state: &TableState) -> Self {
        let Extent { frames, chain: end, .. } = state.recent.extent;
        let TableState { version, size, root, chain, .. } = *state;
        HighWaterMark { version, size, root: Some(root), chain, frames, end }
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

    /// Holds the mark against the tree of a log that has gone on to a later version: frames are taken over into the table
    /// as a whole, and only the tree says which records they began with. Where the tiles do not go so far, so be it.
    pub(crate) async fn check_root(&self, storage: &Storage, vkey: &str, state: &TableState) -> Result<()> {
        if self.frames == 0 || self.version == state.version {
            return Ok(());
        }
        let checkpoint = read_checkpoint(storage, vkey).await?;
        let root = root_at(storage, checkpoint.as_ref(), self.size).await?;
        if root.is_none() || self.root.is_none() || root == self.root {
            return Ok(());
        }
        let problem = format!(
            "the first {} records are not those that were signed: the log was put back to an older copy, and went on \
             from there",
            self.size
        );
        Err(Error::damaged(tlog_name("checkpoint"), problem))
    }

    fn line(&self) -> String {
        let HighWaterMark { version, size, root, chain, frames, end } = self;
        let root = hex(root.unwrap_or_default().0);
        let line =
            format!("{HEADER} {version:020} {size:020} {root} {} {frames:020} {}", hex(chain), hex(end));
        format!("{line} {}\n", checksum(&line))
    }

    fn parse(line: &str) -> Option<Self> {
        let (line, given) = line.strip_suffix('\n')?.rsplit_once(' ')?;
        let parts: Vec<_> = line.split(' ').collect();
        let (version, size, root, chain, frames, end) = match parts[..] {
            [HEADER, version, size, root, chain, frames, end] => {
                (version, size, Some(Hash(unhex(root)?)), chain, frames, end)
            }
            [HEADER_WITHOUT_FRAMES, version, size, chain] => (version, size, None, chain, "0", chain),
            _ => return None,
        };
        let number = |text: &str| text.parse().ok();
        let mark = HighWaterMark {
            version: number(version)?,
            size: number(size)?,
            root,
            chain: unhex(chain)?,
            frames: number(frames)?,
            end: unhex(end)?,
        };
        (given == checksum(line)).then_some(mark)
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
        let mark = |n: u8| HighWaterMark {
            version: n.into(),
            size: 10 * u64::from(n),
            root: Some(Hash([n + 2; 32])),
            chain: [n; 32],
            frames: 3 * u64::from(n),
            end: [n + 1; 32],
        };
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
    fn a_mark_of_an_earlier_version_is_read_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("{HEADER_WITHOUT_FRAMES} {:020} {:020} {}", 7, 70, hex([5; 32]));
        std::fs::write(dir.path().join("log.signed"), format!("{line} {}\n", checksum(&line))).unwrap();
        let old = HighWaterMark { version: 7, size: 70, root: None, chain: [5; 32], frames: 0, end: [5; 32] };
        assert_eq!(HighWaterMark::load(dir.path(), "log").unwrap(), Some(old.clone()));
        let newer = HighWaterMark { frames: 1, end: [6; 32], size: 71, root: Some(Hash([7; 32])), ..old };
        MarkFile::open(dir.path(), "log", &newer).unwrap().write(&newer).unwrap();
        assert_eq!(HighWaterMark::load(dir.path(), "log").unwrap(), Some(newer));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_has_no_mark() {
        // Nobody can make a file there, not even root.
        let folder = Path::new("/sys");
        let mark = HighWaterMark { version: 1, size: 1, root: None, chain: [1; 32], frames: 0, end: [1; 32] };
        let file = MarkFile::open(folder, "sporlog-test", &mark).unwrap();
        assert!(file.file.is_none());
        file.write(&mark).unwrap();
        file.sync().unwrap();
        assert_eq!(HighWaterMark::load(folder, "sporlog-test").unwrap(), None);
    }
}
