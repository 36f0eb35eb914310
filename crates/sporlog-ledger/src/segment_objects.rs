//! The segments of a journal as objects of a bucket: one object a frame.
//!
//! The number of a frame is part of its name, and a name is put if it is new. So of several writers that know the same
//! last frame, one appends the next, and the others learn that they were not first.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::journal::{Extent, Failed, JOURNAL, Tail, scan, segment_version};
use crate::storage::Storage;

/// A segment that the table has taken over stays for at least so long. The clocks of the store and of the writers
/// may differ by what this is longer than [`TRUSTED`](crate::segment::TRUSTED).
pub(crate) const GRACE: Duration = Duration::from_mins(20);

/// Frames that are read at once when there may be many.
const AT_ONCE: u64 = 32;

/// The segments of one log.
#[derive(Debug, Clone)]
pub(crate) struct SegmentObjects {
    /// The log's folder.
    storage: Storage,
}

impl SegmentObjects {
    /// Those of the log in `storage`.
    pub(crate) fn new(storage: Storage) -> Self {
        SegmentObjects { storage }
    }

    /// The bytes of the frames that follow `after` in its segment.
    pub(crate) async fn read(&self, after: &Extent) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut next = after.frames + 1;
        // Mostly there is none, which takes one request; where there are many, the rest is read at once.
        let mut at_once = 1;
        loop {
            let numbers = next..next + at_once;
            let read = |number| async move { self.storage.try_get(&frame_name(after, number)).await };
            let read: Vec<Option<Bytes>> =
                stream::iter(numbers).map(read).buffered(at_once as usize).try_collect().await?;
            let there: Vec<_> = read.into_iter().map_while(|frame| frame).collect();
            bytes.extend(there.iter().flatten());
            if (there.len() as u64) < at_once {
                return Ok(bytes);
            }
            (next, at_once) = (next + at_once, (2 * at_once).min(AT_ONCE));
        }
    }

    /// Appends a frame after the last one of `before`.
    pub(crate) async fn append(&self, before: &Extent, frame: Vec<u8>) -> Result<(), Failed> {
        match self.storage.put_new(&frame_name(before, before.frames + 1), frame.into()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed::Taken),
            Err(error @ Error::Unsure { .. }) => Err(Failed::Unsure(error)),
            Err(error) => Err(Failed::Cleanly(error)),
        }
    }

    /// Puts the frames up to `extent`, whose bytes these are.
    pub(crate) async fn put_copy(&self, extent: &Extent, bytes: &[u8]) -> Result<()> {
        let first = Extent { frames: 0, bytes: 0, ..extent.clone() };
        let (mut frames, mut start) = (Vec::new(), 0);
        for frame in scan(&first, bytes, Tail::Damaged)? {
            let end = frame.after.bytes as usize;
            let frame_bytes = bytes.get(start..end).unwrap_or_default();
            frames.push((frame_name(extent, frame.after.frames), Bytes::copy_from_slice(frame_bytes)));
            start = end;
        }
        self.storage.put_many(frames).await
    }

    /// The names of all frames, with the version that each one's segment follows.
    pub(crate) async fn names(&self) -> Result<Vec<(u64, String)>> {
        let names = self.storage.list(JOURNAL).await?.into_iter();
        Ok(names.filter_map(|name| Some((segment_version(&name)?, name))).collect())
    }

    /// Removes the frames of segments that the table took over more than [`GRACE`] ago.
    pub(crate) async fn remove_dead(&self) -> Result<()> {
        let there = self.storage.folder(JOURNAL).list_all().await?.into_iter();
        let there = there.map(|(name, put_at)| (format!("{JOURNAL}/{name}"), put_at)).collect();
        self.storage.remove(dead(there, Utc::now() - GRACE)).await
    }
}

/// Of the frames `there`, with the times when they were put, those of segments that the table took over before the time
/// `then`. A segment that has a frame of before follows a commit of before, which took all earlier segments over.
fn dead(there: Vec<(String, DateTime<Utc>)>, then: DateTime<Utc>) -> Vec<String> {
    let of_before = there.iter().filter(|(_, put_at)| *put_at < then);
    let newest = of_before.filter_map(|(name, _)| segment_version(name)).max().unwrap_or_default();
    let is_dead = |name: &String| segment_version(name).is_some_and(|version| version < newest);
    there.into_iter().map(|(name, _)| name).filter(is_dead).collect()
}

/// The name of a frame in the segment of `extent`, relative to the log's folder.
fn frame_name(extent: &Extent, number: u64) -> String {
    format!("{}/{number:010}", extent.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_for_some_time_after_its_commit_however_old_its_frames_are() {
        let now = Utc::now();
        let name = |version, number| frame_name(&Extent::none(version, [0; 32]), number);
        let put = |version, number, minutes| (name(version, number), now - Duration::from_mins(minutes));
        // The records of segment 7 came long ago, and it was sealed and taken over just now.
        let mut there = vec![put(6, 1, 90), put(6, 2, 80), put(7, 1, 70), put(7, 2, 60), put(7, 3, 0)];
        let of_6 = [name(6, 1), name(6, 2)];
        assert_eq!(dead(there.clone(), now - GRACE), of_6);
        there.push(put(8, 1, 0));
        assert_eq!(dead(there.clone(), now - GRACE), of_6);
        there.push(put(8, 2, 21));
        assert_eq!(dead(there, now - GRACE), [&of_6[..], &[name(7, 1), name(7, 2), name(7, 3)]].concat());
        assert!(dead(Vec::new(), now).is_empty());
    }
}
