//! A file while it is fetched (`.<name>.part`), with a note beside it (`.<name>.part.json`).
//!
//! The note says of which remote file this is a part, and how many of its bytes are durable: only these are kept
//! after a stop, a kill or a power cut. All of this blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{Error, Result};
use super::names::versions;
use sporlog_ledger::local_files::{rename_new, sync_folder};
use sporlog_record::hex;

/// Each time so many bytes have come, they are made durable.
const KEEP_EVERY: u64 = 32 << 20;

/// The remote file, at one state of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whole {
    pub remote: String,
    pub size: u64,
    pub mtime: i64,
}

#[derive(Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    whole: Whole,
    kept: u64,
}

/// A file that is being fetched.
pub(super) struct Part {
    whole: Whole,
    path: PathBuf,
    file: File,
    digest: Sha256,
    length: u64,
    kept: u64,
}

/// A complete file in its place.
#[derive(Debug)]
pub(super) struct Installed {
    pub name: String,
    /// The same bytes were there before, under this name.
    pub was_there: bool,
    pub sha256: String,
}

impl Part {
    /// Opens the part of `whole`, with the durable bytes that an earlier run or connection has received of it; a part
    /// of another file is truncated.
    pub fn open(folder: &Path, name: &str, whole: Whole) -> Result<Self> {
        let path = folder.join(format!(".{name}.part"));
        let failed = |e| Error::local(&path, e);
        let mut options = OpenOptions::new();
        // The files are about people: not for everybody on this machine.
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let mut file = options.open(&path).map_err(failed)?;
        let there = file.metadata().map_err(failed)?.len();
        let kept =
            match fs::read(note_of(&path)).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok()) {
                Some(note) if note.whole == whole => note.kept.min(there).min(whole.size),
                _ => 0,
            };
        let mut digest = Sha256::new();
        hash(&mut file, kept, &mut digest).map_err(failed)?;
        file.set_len(kept).map_err(failed)?;
        file.seek(SeekFrom::Start(kept)).map_err(failed)?;
        let part = Part { whole, path: path.clone(), file, digest, length: kept, kept };
        part.note().map_err(failed)?;
        Ok(part)
    }

    /// How many bytes have been received.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends received bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::local(&self.path, e))?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        if self.length - self.kept >= KEEP_EVERY { self.keep() } else { Ok(()) }
    }

    /// Makes the received bytes durable, so that a later run can resume after them.
    pub fn keep(&mut self) -> Result<()> {
        let kept = self.file.sync_data().and_then(|()| {
            self.kept = self.length;
            self.note()
        });
        kept.map_err(|e| Error::local(&self.path, e))
    }

    /// Removes the part.
    pub fn discard(self) {
        // If a file stays, the next run truncates it: the note is gone, or is about another state of the remote file.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(note_of(&self.path));
    }

    /// Renames the complete file into its place; durable when this returns. A file of the same name with other bytes
    /// stays, and this one gets a number.
    pub fn install(self, folder: &Path, name: &str) -> Result<Installed> {
        let failed = |e| Error::local(&self.path, e);
        self.file.sync_all().map_err(failed)?;
        let digest = self.digest.clone().finalize();
        let sha256 = hex(digest);
        for candidate in versions(name) {
            let target = folder.join(&candidate);
            match rename_new(&self.path, &target) {
                Ok(()) => {
                    let _ = fs::remove_file(note_of(&self.path));
                    sync_folder(folder).map_err(failed)?;
                    return Ok(Installed { name: candidate, was_there: false, sha256 });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::local(&target, error)),
            }
            if sha256_of(&target, self.length).map_err(|e| Error::local(&target, e))?.as_ref()
                == Some(&sha256)
            {
                self.discard();
                return Ok(Installed { name: candidate, was_there: true, sha256 });
            }
        }
        Err(failed(io::Error::other("there are too many other files of this name")))
    }

    fn note(&self) -> io::Result<()> {
        let note = Note { whole: self.whole.clone(), kept: self.kept };
        let (path, beside) = (note_of(&self.path), self.path.with_extension("note"));
        // Without a sync: if the note is lost, an older one is there, or the file is fetched from its beginning.
        fs::write(&beside, serde_json::to_vec(&note)?)?;
        fs::rename(&beside, path)
    }
}

fn note_of(part: &Path) -> PathBuf {
    part.with_extension("part.json")
}

/// The SHA-256 of a regular file of this size, in hexadecimal; `None` if the file has another size.
pub(super) fn sha256_of(path: &Path, size: u64) -> io::Result<Option<String>> {
    let facts = fs::symlink_metadata(path)?;
    if !facts.is_file() || facts.len() != size {
        return Ok(None);
    }
    let mut digest = Sha256::new();
    hash(&mut File::open(path)?, size, &mut digest)?;
    Ok(Some(hex(digest.finalize())))
}

/// The digest of the next `length` bytes.
pub(super) fn hash(file: &mut File, length: u64, digest: &mut Sha256) -> io::Result<()> {
    let mut left = length;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        digest.update(buffer.get(..read).unwrap_or_default());
        left -= read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(size: u64, mtime: i64) -> Whole {
        Whole { remote: "sftp://u@h:22/a.csv".into(), size, mtime }
    }

    #[test]
    fn it_goes_on_where_it_is_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut part = Part::open(folder.path(), "a.csv", whole(9, 7)).expect("begun");
        part.write(b"abc").expect("written");
        part.keep().expect("kept");
        part.write(b"xxx").expect("written, but not kept");
        drop(part);
        let mut part = Part::open(folder.path(), "a.csv", whole(9, 7)).expect("resumed");
        assert_eq!(part.length(), 3);
        part.write(b"defghi").expect("written");
        let installed = part.install(folder.path(), "a.csv").expect("installed");
        assert_eq!((installed.name.as_str(), installed.was_there), ("a.csv", false));
        assert_eq!(fs::read(folder.path().join("a.csv")).expect("read"), b"abcdefghi");
        assert_eq!(Some(installed.sha256), sha256_of(&folder.path().join("a.csv"), 9).expect("hashed"));
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing of ours is left");
    }

    #[test]
    fn a_part_of_another_file_is_not_built_upon() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut part = Part::open(folder.path(), "a.csv", whole(9, 7)).expect("begun");
        part.write(b"abc").expect("written");
        part.keep().expect("kept");
        drop(part);
        for other in [whole(9, 8), whole(8, 7)] {
            let part = Part::open(folder.path(), "a.csv", other).expect("begun anew");
            assert_eq!(part.length(), 0);
        }
    }

    #[test]
    fn a_torn_note_is_no_note() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut part = Part::open(folder.path(), "a.csv", whole(9, 7)).expect("begun");
        part.write(b"abc").expect("written");
        part.keep().expect("kept");
        fs::write(folder.path().join(".a.csv.part.json"), "{\"remote").expect("torn");
        assert_eq!(Part::open(folder.path(), "a.csv", whole(9, 7)).expect("begun anew").length(), 0);
    }

    #[test]
    fn another_file_of_the_name_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.csv"), "old").expect("written");
        let install = |bytes: &[u8]| {
            let mut part = Part::open(folder.path(), "a.csv", whole(3, 7)).expect("begun");
            part.write(bytes).expect("written");
            let installed = part.install(folder.path(), "a.csv").expect("installed");
            (installed.name, installed.was_there)
        };
        assert_eq!(install(b"new"), ("a.2.csv".to_owned(), false));
        assert_eq!(install(b"new"), ("a.2.csv".to_owned(), true));
        assert_eq!(install(b"old"), ("a.csv".to_owned(), true));
        assert_eq!(fs::read(folder.path().join("a.csv")).expect("read"), b"old");
        assert_eq!(fs::read(folder.path().join("a.2.csv")).expect("read"), b"new");
    }
}
