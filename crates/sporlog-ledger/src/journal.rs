//! The journal: the newest records of a log, as frames that are appended to a file.
//!
//! A *segment*, `journal/<version>`, has the frames that follow the table's commit of that version. The commit after
//! it has all records of the segment, as a data file, and names the segment's last frame; then the segment is dead,
//! and goes. So the log is the table and the frames of the segment of the table's version.
//!
//! A *frame* is one group commit, and stored once it is durable:
//!
//! ```text
//! length of the rest (u32) ‖ length of the head (u32) ‖ head (JSON) ‖ rows (Arrow IPC stream) ‖ signature ‖ digest
//! ```
//!
//! In a bucket, many rows are compressed (by LZ4, which the stream says itself). The digest is the SHA-256 of all before
//! it. The signature (Ed25519, by the log's key) is over a text with the chain after this frame, which begins with the chain
//! over the table's commits ([`crate::commit`]):
//!
//! ```text
//! chain(v, 0) = chain(v),   chain(v, n) = SHA-256(chain(v, n - 1) ‖ SHA-256(frame n up to its signature))
//! ```
//!
//! So a frame vouches for all before it, and nobody without the key can add one. A crash may leave a *torn tail*: a
//! last frame that is short, or whose digest is wrong. It has not been acknowledged. Anything else that is wrong is
//! damage.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tlog_tiles::tlog::Hash;

use crate::commit::Position;
use crate::delta::Sha;
use crate::error::{Error, Result};
use crate::keys::{LogKeys, PublicKey};

/// The folder of the journal within the log's.
pub(crate) const JOURNAL: &str = "journal";

/// The name of the segment that follows the table's commit of `version`, relative to the log's folder.
pub(crate) fn segment_name(version: u64) -> String {
    format!("{JOURNAL}/{version:020}")
}

/// The version that the segment follows whose file, or one of whose objects, is `name`; `None` if that is no such name.
pub(crate) fn segment_version(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(JOURNAL)?.strip_prefix('/')?.split('/').next()?;
    digits.parse().ok().filter(|_| digits.len() == 20)
}

/// How far a segment goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The version of the table that the segment follows.
    pub version: u64,
    /// How many frames it has, and their bytes.
    pub frames: u64,
    pub bytes: u64,
    /// The chain over all commits up to `version` and these frames.
    pub chain: Sha,
    /// The digest of the last frame, with which it ends; zeros if there is none.
    pub digest: Sha,
}

impl Extent {
    /// Of no frames after the commit of `version`, after which the chain is `chain`.
    pub(crate) fn none(version: u64, chain: Sha) -> Self {
        Extent { version, frames: 0, bytes: 0, chain, digest: Sha::default() }
    }

    /// The segment's file.
    pub(crate) fn name(&self) -> String {
        segment_name(self.version)
    }
}

/// Why a frame is not stored.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The segment is as it was before.
    Cleanly(Error),
    /// Another process has appended.
    Taken,
    /// Whether the frame is stored is not known.
    Unsure(Error),
}

/// One group commit.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Columns of the table; there may be no row.
    pub rows: RecordBatch,
    /// How far sources have been taken in with it.
    pub positions: Vec<(String, Position)>,
    /// The log's size and the tree's root after it.
    pub size: u64,
    pub root: Hash,
    /// When it was made, in milliseconds UTC.
    pub at: i64,
    /// Whether it is the last of its segment, without records ([`crate::segment`]).
    pub seal: bool,
}

#[derive(Serialize, Deserialize)]
struct Head {
    size: u64,
    root: String,
    at: i64,
    positions: Vec<(String, i64)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    seal: bool,
}

/// From so many bytes on, the rows of a frame are compressed if that is asked for.
const PACKED_FROM: usize = 64 << 10;

const SIGNATURE: usize = 64;
const DIGEST: usize = size_of::<Sha>();
/// The two lengths, the signature and the digest.
const LEAST: usize = 8 + SIGNATURE + DIGEST;

impl Frame {
    /// The bytes of this frame, which is the next one after `before`, and how far the segment goes with it. Many rows are
    /// compressed (LZ4) if they are to be `packed`.
    pub(crate) fn encode(&self, keys: &LogKeys, before: &Extent, packed: bool) -> Result<(Vec<u8>, Extent)> {
        let unwritable = |e: &dyn std::fmt::Display| Error::damaged(before.name(), e);
        let head = Head {
            size: self.size,
            root: BASE64_STANDARD.encode(self.root.0),
            at: self.at,
            positions: self.positions.iter().map(|(app, position)| (app.clone(), position.version)).collect(),
            seal: self.seal,
        };
        let head = serde_json::to_vec(&head).map_err(|e| unwritable(&e))?;
        let memory = self.rows.get_array_memory_size();
        let compression = (packed && memory >= PACKED_FROM).then_some(CompressionType::LZ4_FRAME);
        let options = IpcWriteOptions::default().try_with_compression(compression)?;
        let mut bytes = Vec::with_capacity(4_096 + head.len() + memory);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&head);
        let mut rows = StreamWriter::try_new_with_options(&mut bytes, &self.rows.schema(), options)?;
        rows.write(&self.rows)?;
        rows.finish()?;
        let length = u32::try_from(bytes.len() - 4 + SIGNATURE + DIGEST);
        let length = length.map_err(|_| unwritable(&"a frame cannot be of 4 GB"))?;
        bytes[..4].copy_from_slice(&length.to_le_bytes());

        let mut hasher = Sha256::new().chain_update(&bytes);
        let mut after = before.clone();
        after.frames += 1;
        after.chain = extend(&before.chain, hasher.clone().finalize().into());
        let signature = keys.sign_frame(after.version, after.frames, &after.chain)?;
        hasher.update(&signature);
        after.digest = hasher.finalize().into();
        bytes.extend_from_slice(&signature);
        bytes.extend_from_slice(&after.digest);
        after.bytes += bytes.len() as u64;
        Ok((bytes, after))
    }
}

fn extend(chain: &Sha, digest: Sha) -> Sha {
    Sha256::new().chain_update(chain).chain_update(digest).finalize().into()
}

/// A frame in the bytes of a segment, not decoded yet.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// How far the segment goes with it.
    pub after: Extent,
    head: Range<usize>,
    rows: Range<usize>,
    signature: Range<usize>,
}

/// What is at the end of a segment and is no whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// What a crash left of an append.
    Torn,
    /// Damage: frames are there as a whole or not at all.
    Damaged,
}

/// The frames in `bytes`, which follow `before` in a segment.
pub(crate) fn scan(before: &Extent, bytes: &[u8], tail: Tail) -> Result<Vec<Scanned>> {
    let (frames, damage) = scan_all(before, bytes, tail);
    damage.map_or(Ok(frames), Err)
}

/// The same up to the first frame that is damaged, and what is wrong with that.
pub(crate) fn scan_all(before: &Extent, bytes: &[u8], tail: Tail) -> (Vec<Scanned>, Option<Error>) {
    let mut frames: Vec<Scanned> = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let last = frames.last().map_or(before, |frame| &frame.after);
        let damaged = || {
            let problem = format!("its frame {}, at byte {}, has been changed", last.frames + 1, last.bytes);
            Error::damaged(last.name(), problem)
        };
        let Some(frame) = frame_at(bytes, start) else {
            let damage = (tail == Tail::Damaged).then(damaged);
            return (frames, damage);
        };
        let mut after = last.clone();
        after.frames += 1;
        after.bytes += frame.len() as u64;
        let (body, digest) = frame.split_at(frame.len() - DIGEST);
        let (signed, signature) = body.split_at(body.len() - SIGNATURE);
        let mut hasher = Sha256::new().chain_update(signed);
        let content: Sha = hasher.clone().finalize().into();
        hasher.update(signature);
        after.digest = hasher.finalize().into();
        if after.digest != digest {
            if start + frame.len() == bytes.len() && tail == Tail::Torn {
                break;
            }
            let damage = damaged();
            return (frames, Some(damage));
        }
        after.chain = extend(&last.chain, content);
        let head = number(signed, 4).map(|length| start + 8..start + 8 + length);
        let end = start + signed.len();
        let Some(head) = head.filter(|head| head.end <= end) else {
            let damage = damaged();
            return (frames, Some(damage));
        };
        let signature = end..end + SIGNATURE;
        start += frame.len();
        frames.push(Scanned { after, rows: head.end..end, head, signature });
    }
    (frames, None)
}

/// The bytes of the frame that begins at `start`; `None` if they are not all there.
fn frame_at(bytes: &[u8], start: usize) -> Option<&[u8]> {
    let length = number(bytes, start)?.checked_add(4)?;
    bytes.get(start..start.checked_add(length)?).filter(|frame| frame.len() >= LEAST)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
}

impl Scanned {
    /// Whether the log's key has signed for this frame and all before it; `bytes` are those that were scanned.
    pub(crate) fn check_signature(&self, key: &PublicKey, bytes: &[u8]) -> Result<()> {
        let signature = bytes.get(self.signature.clone()).unwrap_or_default();
        let Extent { version, frames, chain, .. } = &self.after;
        if key.signed_frame(*version, *frames, chain, signature) {
            return Ok(());
        }
        let problem = format!(
            "its frame {} does not follow those before it, or is not signed by the log's key",
            self.after.frames
        );
        Err(Error::damaged(self.after.name(), problem))
    }

    /// The frame; `bytes` are those that were scanned. Only for what the log's key has signed for.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Frame> {
        let name = self.after.name();
        let bad = |e: &dyn std::fmt::Display| {
            Error::damaged(&name, format!("its frame {} cannot be read: {e}", self.after.frames))
        };
        let part = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        let Head { size, root, at, positions, seal } =
            serde_json::from_slice(part(&self.head)).map_err(|e| bad(&e))?;
        let root = BASE64_STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let mut rows = StreamReader::try_new(part(&self.rows), None).map_err(|e| bad(&e))?;
        let rows = rows.next().ok_or_else(|| bad(&"it has no rows"))?.map_err(|e| bad(&e))?;
        Ok(Frame {
            rows,
            positions: positions.into_iter().map(|(app, version)| (app, Position { version, at })).collect(),
            size,
            root: Hash(root.ok_or_else(|| bad(&"its root is malformed"))?),
            at,
            seal,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn keys(dir: &std::path::Path) -> LogKeys {
        LogKeys::generate(dir, "log", "sporlog.invalid/log").expect("keys")
    }

    fn frame(size: u64, texts: &[String]) -> Frame {
        let first = size + 1 - texts.len() as u64;
        let ids = Int64Array::from_iter_values((first..=size).map(|id| id as i64));
        let columns: [(_, ArrayRef); 2] =
            [("id", Arc::new(ids)), ("text", Arc::new(StringArray::from_iter_values(texts)))];
        let rows = RecordBatch::try_from_iter(columns).expect("columns");
        let positions = vec![(format!("source:{size}"), Position { version: size as i64, at: 7 })];
        Frame { rows, positions, size, root: Hash([size as u8; 32]), at: 7, seal: false }
    }

    /// A segment of frames with so many rows each, and where each frame ends.
    fn segment(keys: &LogKeys, counts: &[usize]) -> (Vec<u8>, Vec<Extent>) {
        let (mut bytes, mut size) = (Vec::new(), 0);
        let mut extents = vec![Extent::none(3, [9; 32])];
        for count in counts {
            size += *count as u64;
            let texts: Vec<_> = (0..*count).map(|n| format!("text {n}")).collect();
            let (more, after) =
                frame(size, &texts).encode(keys, &extents[extents.len() - 1], true).expect("bytes");
            bytes.extend(more);
            extents.push(after);
        }
        (bytes, extents)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Frames are read back; a cut leaves those before it, and any other change of one that is not the last is
        /// told, by the frame or by the signature of the last.
        #[test]
        fn frames_are_read_back_and_changes_are_told(
            counts in prop::collection::vec(0..5_usize, 1..6),
            at in any::<prop::sample::Index>(),
            with in 1..=255_u8,
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let keys = keys(dir.path());
            let key = PublicKey::parse(keys.vkey()).expect("a key");
            let (bytes, extents) = segment(&keys, &counts);
            let scanned = scan(&extents[0], &bytes, Tail::Torn).expect("frames");
            prop_assert_eq!(scanned.iter().map(|f| &f.after).collect::<Vec<_>>(), extents[1..].iter().collect::<Vec<_>>());
            prop_assert_eq!(extents[counts.len()].bytes, bytes.len() as u64);
            for (frame, count) in scanned.iter().zip(&counts) {
                frame.check_signature(&key, &bytes).expect("signed");
                let decoded = frame.decode(&bytes).expect("a frame");
                prop_assert_eq!(decoded.rows.num_rows(), *count);
                prop_assert_eq!(decoded.positions[0].1.version, decoded.size as i64);
            }
            // From any frame on.
            let middle = &extents[at.index(extents.len())];
            let rest = &bytes[middle.bytes as usize..];
            prop_assert_eq!(scan(middle, rest, Tail::Torn).expect("frames").len() as u64, extents.len() as u64 - 1 - middle.frames);

            let at = at.index(bytes.len());
            let whole = extents.iter().rposition(|extent| extent.bytes <= at as u64).expect("a start");
            let cut = scan(&extents[0], &bytes[..at], Tail::Torn).expect("a torn tail");
            prop_assert_eq!(cut.len(), whole);
            let mut changed = bytes.clone();
            changed[at] ^= with;
            match scan(&extents[0], &changed, Tail::Torn) {
                Ok(found) => prop_assert_eq!(found.len(), whole),
                Err(error) => prop_assert!(error.to_string().contains(&format!("frame {},", whole + 1)), "{}", error),
            }
        }
    }

    #[test]
    fn many_rows_are_compressed_if_they_are_to_be() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = keys(dir.path());
        let texts: Vec<_> = (0..4_096).map(|n| format!("the same text, and one number: {n}")).collect();
        let (frame, before) = (frame(4_096, &texts), Extent::none(3, [9; 32]));
        let encoded = [false, true].map(|packed| frame.encode(&keys, &before, packed).expect("bytes"));
        assert!(encoded[1].0.len() * 2 < encoded[0].0.len());
        for (bytes, after) in encoded {
            let scanned = scan(&before, &bytes, Tail::Damaged).expect("a frame");
            assert_eq!(scanned[0].after, after);
            assert_eq!(scanned[0].decode(&bytes).expect("rows").rows, frame.rows);
        }
    }

    #[test]
    fn frames_that_changed_places_are_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = keys(dir.path());
        let key = PublicKey::parse(keys.vkey()).expect("a key");
        let (bytes, extents) = segment(&keys, &[2, 2, 2]);
        let part = |n: usize| bytes[extents[n].bytes as usize..extents[n + 1].bytes as usize].to_vec();
        for (order, first_wrong) in
            [(&[0, 2, 1][..], 2), (&[1, 0, 2], 1), (&[0, 1, 1], 3), (&[0, 2], 2), (&[1, 2], 1)]
        {
            let changed = order.iter().flat_map(|n| part(*n)).collect::<Vec<_>>();
            let scanned = scan(&extents[0], &changed, Tail::Torn).expect("whole frames");
            let wrong = scanned.iter().position(|frame| frame.check_signature(&key, &changed).is_err());
            assert_eq!(wrong.map(|n| n + 1), Some(first_wrong), "{order:?}");
            assert!(scanned[scanned.len() - 1].check_signature(&key, &changed).is_err());
        }
        // After another commit, and by another key.
        let scanned = scan(&Extent::none(3, [8; 32]), &bytes, Tail::Torn).expect("whole frames");
        assert!(scanned[0].check_signature(&key, &bytes).is_err());
        let other = tempfile::tempdir().expect("a folder");
        let other = PublicKey::parse(self::keys(other.path()).vkey()).expect("a key");
        let scanned = scan(&extents[0], &bytes, Tail::Torn).expect("whole frames");
        assert!(scanned[0].check_signature(&other, &bytes).is_err());
    }
}
