//! The segments of a journal as files of this machine.
//!
//! Frames are appended by whoever holds the [writer lock](crate::writer_lock), and read by anyone. A frame that a
//! reader sees may not be durable yet: reading syncs the file, so that what a reader has seen stays.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::commit::commit_name;
use crate::error::{Error, Result};
use crate::journal::{Extent, Failed, JOURNAL, segment_name, segment_version};
use crate::local_files::{make_folder, private_file, sync_parent};

/// Why nothing is appended where something is not as this process knows it.
pub(crate) const MISSING: &str = "it is missing, or another, although this process has read or written it: the log was changed \
     or put back to an older copy meanwhile; nothing more is appended until it is there again or \
     this process is started anew";

/// The segments of one log.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFiles {
    /// The log's folder.
    folder: PathBuf,
}

impl SegmentFiles {
    /// Those of the log in `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        SegmentFiles { folder }
    }

    /// The folder that they lie in.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.join(JOURNAL)
    }

    fn path(&self, version: u64) -> PathBuf {
        self.folder.join(segment_name(version))
    }

    /// The bytes of a segment from `start` on; `None` if there is no such segment. They are durable.
    pub(crate) fn read(&self, version: u64, start: u64) -> Result<Option<Vec<u8>>> {
        let read = || {
            let mut file = File::open(self.path(version))?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            if !bytes.is_empty() {
                sync_read(&file)?;
            }
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(failed(version)(error)),
        }
    }

    /// Appends the bytes of a frame to the segment, which goes as far as `before`; durable when it returns. What is
    /// beyond `before` is a torn tail, and goes.
    pub(crate) fn append(&self, before: &Extent, frame: &[u8]) -> Result<(), Failed> {
        let cleanly = |error| Failed::Cleanly(failed(before.version)(error));
        let file = self.open(before)?;
        if let Err(error) = file.write_all_at(frame, before.bytes) {
            return Err(match file.set_len(before.bytes) {
                Ok(()) => cleanly(error),
                Err(_) => Failed::Unsure(failed(before.version)(error)),
            });
        }
        file.sync_data().map_err(|error| Failed::Unsure(failed(before.version)(error)))
    }

    /// Fails if a segment does not go as far as `extent`, which this process has read or written.
    pub(crate) fn check(&self, extent: &Extent) -> Result<()> {
        match File::open(self.path(extent.version)) {
            _ if extent.frames == 0 => Ok(()),
            Ok(file) => ends_with(&file, extent),
            Err(error) if absent(&error) => Err(changed(extent)),
            Err(error) => Err(failed(extent.version)(error)),
        }
    }

    /// The segment, open for writing, which goes just as far as `before`.
    fn open(&self, before: &Extent) -> Result<File, Failed> {
        let cleanly = |error| Failed::Cleanly(failed(before.version)(error));
        let path = self.path(before.version);
        let commit = commit_name(before.version);
        if !self.folder.join(&commit).exists() {
            return Err(Failed::Cleanly(Error::damaged(commit, MISSING)));
        }
        let file = match private_file().read(true).create(before.frames == 0).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && before.frames == 0 => {
                make_folder(&self.folder()).and_then(|()| private_file().read(true).open(&path))
            }
            opened => opened,
        };
        let file = match file {
            Err(error) if absent(&error) => return Err(Failed::Cleanly(changed(before))),
            file => file.map_err(cleanly)?,
        };
        if before.frames == 0 {
            // The name has to be durable before a frame can be.
            sync_parent(&path).map_err(cleanly)?;
        } else {
            ends_with(&file, before).map_err(Failed::Cleanly)?;
        }
        if file.metadata().map_err(cleanly)?.len() > before.bytes {
            file.set_len(before.bytes).map_err(cleanly)?;
        }
        Ok(file)
    }

    /// The segments' files, with the version that each follows.
    pub(crate) fn names(&self) -> Result<Vec<(u64, String)>> {
        let entries = match fs::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(error) if absent(&error) => return Ok(Vec::new()),
            Err(source) => return Err(Error::Io { what: JOURNAL.into(), source }),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.map(|name| format!("{JOURNAL}/{name}"));
        Ok(names.filter_map(|name| Some((segment_version(&name)?, name))).collect())
    }

    /// Removes the segments before that of `version`.
    pub(crate) fn remove_before(&self, version: u64) -> Result<()> {
        for (before, name) in self.names()?.into_iter().filter(|(before, _)| *before < version) {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if !absent(&error) => return Err(failed(before)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Fails if the last frame of `extent` is not where it should be.
fn ends_with(file: &File, extent: &Extent) -> Result<()> {
    let mut digest = extent.digest;
    let end = extent.bytes.saturating_sub(digest.len() as u64);
    match file.read_exact_at(&mut digest, end) {
        Ok(()) if digest == extent.digest => Ok(()),
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(failed(extent.version)(error)),
        _ => Err(changed(extent)),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Syncs a file that is only read. Where nothing can be written, there is nothing to sync.
fn sync_read(file: &File) -> io::Result<()> {
    match file.sync_data() {
        Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::InvalidInput) => {
            Ok(())
        }
        synced => synced,
    }
}

fn failed(version: u64) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what: segment_name(version), source }
}

fn changed(before: &Extent) -> Error {
    Error::damaged(before.name(), format!("its frame {}: {MISSING}", before.frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(before: &Extent, frame: &[u8]) -> Extent {
        let mut after = before.clone();
        (after.frames, after.bytes) = (before.frames + 1, before.bytes + frame.len() as u64);
        after.digest.copy_from_slice(&frame[frame.len() - 32..]);
        after
    }

    #[test]
    fn frames_are_appended_where_the_last_one_ends_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let segments = SegmentFiles::new(dir.path().to_owned());
        let commit = dir.path().join(commit_name(7));
        fs::create_dir_all(commit.parent().expect("a folder")).expect("made");
        fs::write(commit, "").expect("written");
        let none = Extent::none(7, [1; 32]);
        assert_eq!(segments.read(7, 0).expect("no file"), None);
        assert!(segments.append(&none, &[1; 100]).is_ok());
        let one = after(&none, &[1; 100]);
        assert!(segments.append(&one, &[2; 50]).is_ok());
        let two = after(&one, &[2; 50]);
        assert_eq!(segments.read(7, 100).expect("bytes"), Some(vec![2; 50]));
        // A torn tail goes.
        fs::write(dir.path().join(two.name()), [vec![1; 100], vec![2; 50], vec![9; 7]].concat())
            .expect("written");
        assert!(segments.append(&two, &[3; 40]).is_ok());
        let three = after(&two, &[3; 40]);
        assert_eq!(segments.read(7, 150).expect("bytes"), Some(vec![3; 40]));
        // What was read or written before has to be there.
        for content in [vec![1; 100], [vec![1; 100], vec![2; 50], vec![4; 40]].concat()] {
            fs::write(dir.path().join(two.name()), &content).expect("written");
            let Err(Failed::Cleanly(error)) = segments.append(&three, &[5; 40]) else {
                panic!("it was appended")
            };
            assert!(error.to_string().contains("put back to an older copy"), "{error}");
            assert_eq!(fs::read(dir.path().join(two.name())).expect("a file"), content);
        }
        assert_eq!(segments.names().expect("a list"), [(7, two.name())]);
        segments.remove_before(7).expect("nothing to remove");
        assert_eq!(segments.names().expect("a list").len(), 1);
        segments.remove_before(8).expect("removed");
        segments.remove_before(8).expect("nothing to remove");
        assert!(matches!(segments.append(&three, &[5; 40]), Err(Failed::Cleanly(Error::Damaged { .. }))));
        assert!(!dir.path().join(two.name()).exists());
    }
}
