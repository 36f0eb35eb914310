//! Where the segments of a journal lie, and what appending to one has to keep apart.
//!
//! | | on a disk | in a bucket |
//! |---|---|---|
//! | a segment | one file, to which frames are appended | one object a frame, `journal/<version>/<number>` |
//! | one writer at a time | has the [writer lock](crate::writer_lock) | puts the next number, which has to be new |
//! | a commit takes a segment over | under the lock | after a last frame without records, the *seal* |
//! | a segment that is taken over | goes at once | goes after [`GRACE`](crate::segment_objects::GRACE) |
//!
//! The seal keeps a frame from being appended beside the commit, which would not take it over: after a seal nothing is
//! appended to the segment, and whoever wants to has to commit first. A writer that slept through all this must not find
//! the number free because the segment is gone. So segments stay for some time, and a writer that has not
//! looked at the log for [`TRUSTED`] looks again before it appends.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::{Error, Result};
use crate::journal::{Extent, Failed, Tail};
use crate::segment_files::SegmentFiles;
use crate::segment_objects::SegmentObjects;
use crate::storage::Storage;

/// In a bucket, what a process knows of the log is relied on for so long: until then a writer's put has to be answered.
const TRUSTED: TimeDelta = TimeDelta::minutes(5);

/// Whether what was known of the log at this time is still relied on. By the clock of the machine, which goes on while the
/// machine sleeps.
pub(crate) fn is_trusted(known_at: DateTime<Utc>) -> bool {
    (Utc::now() - known_at).abs() < TRUSTED
}

/// The segments of one log.
#[derive(Debug, Clone)]
pub(crate) enum Segments {
    Files(SegmentFiles),
    Objects(SegmentObjects),
}

impl Segments {
    /// Those of the log in `storage`.
    pub(crate) fn of(storage: &Storage) -> Self {
        match storage.directory() {
            Some(folder) => Segments::Files(SegmentFiles::new(folder)),
            None => Segments::Objects(SegmentObjects::new(storage.clone())),
        }
    }

    /// The folder that the writer lock is in, where writers have one.
    pub(crate) fn lock_folder(&self) -> Option<PathBuf> {
        match self {
            Segments::Files(files) => Some(files.folder()),
            Segments::Objects(_) => None,
        }
    }

    /// Whether a segment is sealed before a commit takes it over.
    pub(crate) fn are_sealed(&self) -> bool {
        matches!(self, Segments::Objects(_))
    }

    /// What is at the end of a segment that is no whole frame.
    pub(crate) fn tail(&self) -> Tail {
        match self {
            Segments::Files(_) => Tail::Torn,
            Segments::Objects(_) => Tail::Damaged,
        }
    }

    /// The bytes of the frames that follow `after` in its segment; `None` if there is no such segment. They are durable.
    pub(crate) async fn read(&self, after: &Extent) -> Result<Option<Vec<u8>>> {
        match self {
            Segments::Files(files) => {
                let (files, version, start) = (files.clone(), after.version, after.bytes);
                let read = tokio::task::spawn_blocking(move || files.read(version, start)).await;
                read.map_err(|e| Error::Io { what: after.name(), source: e.into() })?
            }
            Segments::Objects(objects) => objects.read(after).await.map(Some),
        }
    }

    /// Appends the bytes of a frame to the segment, which goes as far as `before`; durable when it returns. Only for
    /// whoever may block its thread.
    pub(crate) async fn append(&self, before: &Extent, frame: Vec<u8>) -> Result<(), Failed> {
        match self {
            Segments::Files(files) => files.append(before, &frame),
            Segments::Objects(objects) => objects.append(before, frame).await,
        }
    }

    /// Fails if a segment does not go as far as `extent`, which this process has read or written. In a bucket this is not
    /// looked for: it would cost a request.
    pub(crate) fn check(&self, extent: &Extent) -> Result<()> {
        match self {
            Segments::Files(files) => files.check(extent),
            Segments::Objects(_) => Ok(()),
        }
    }

    /// Puts a copy of the segment that goes as far as `extent` in the place of what is there; these are the segments of
    /// the log in `storage`.
    pub(crate) async fn put_copy(&self, storage: &Storage, extent: &Extent, bytes: Vec<u8>) -> Result<()> {
        match self {
            Segments::Files(_) => storage.put(&extent.name(), bytes.into()).await,
            Segments::Objects(objects) => objects.put_copy(extent, &bytes).await,
        }
    }

    /// The names of all files of segments, with the version that each follows.
    pub(crate) async fn names(&self) -> Result<Vec<(u64, String)>> {
        match self {
            Segments::Files(files) => files.names(),
            Segments::Objects(objects) => objects.names().await,
        }
    }

    /// Removes the segments before that of `version`, which the table has; in a bucket, those that the table has had for
    /// [`GRACE`](crate::segment_objects::GRACE).
    pub(crate) async fn remove_before(&self, version: u64) -> Result<()> {
        match self {
            Segments::Files(files) => files.remove_before(version),
            Segments::Objects(objects) => objects.remove_dead().await,
        }
    }
}
