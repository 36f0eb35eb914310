//! The keys of a delivery, on disk while it is read.
//!
//! Each thread hashes some rows, groups their keys by slice, and writes them to a file without a name,
//! which is gone with its last handle. Afterwards a slice is collected from all of these chunks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::key::{Key, SLICES, Systems};

/// Keys of a chunk.
pub(super) const CHUNK_KEYS: usize = 128 << 10;
/// A slice is dealt with in groups of about so many keys. Only in huge files, or where most rows have
/// the same id, are there more than one.
const GROUP_KEYS: usize = 256 << 10;
/// Bytes of a key: its head, its tail, and its row, which has 32 bits within a part.
const KEY_BYTES: usize = 20;

/// Keys on their way to the disk; any number of threads may push.
pub(super) struct Spill {
    file: Arc<File>,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    end: u64,
    chunks: Vec<Chunk>,
    systems: Systems,
}

/// Keys of one part of the delivery, grouped by slice.
struct Chunk {
    at: u64,
    part: u64,
    /// Where each slice begins, in keys; and the end.
    starts: Vec<u32>,
}

/// All keys of a delivery.
pub(super) struct Spilled {
    file: Arc<File>,
    chunks: Vec<Chunk>,
    pub systems: Systems,
}

impl Spill {
    pub fn begin(folder: &Path) -> io::Result<Self> {
        Ok(Spill { file: Arc::new(tempfile::tempfile_in(folder)?), written: Mutex::default() })
    }

    /// Adds keys of a part of the delivery, at most [`CHUNK_KEYS`]; their places are its rows.
    pub fn push(&self, part: u64, keys: &[Key]) -> io::Result<()> {
        let mut starts = vec![0_u32; SLICES + 1];
        let mut systems = Systems::default();
        for key in keys {
            systems.add(key.system());
            if let Some(count) = starts.get_mut(key.slice() + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut bytes = vec![0; keys.len() * KEY_BYTES];
        for key in keys {
            let Some(next) = next.get_mut(key.slice()) else { continue };
            let at = *next as usize * KEY_BYTES;
            *next += 1;
            if let Some(place) = bytes.get_mut(at..at + KEY_BYTES) {
                place.copy_from_slice(&encode(key));
            }
        }
        let at = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let at = written.end;
            written.end += bytes.len() as u64;
            written.systems.join(&systems);
            written.chunks.push(Chunk { at, part, starts });
            at
        };
        self.file.write_all_at(&bytes, at)
    }

    /// What has been pushed; it is empty afterwards.
    pub fn finish(&self) -> Spilled {
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        let Written { chunks, systems, .. } = written;
        Spilled { file: self.file.clone(), chunks, systems }
    }
}

impl Spilled {
    /// The chunks whose keys of this slice are dealt with together.
    pub fn groups(&self, slice: usize) -> Vec<Range<usize>> {
        let mut groups = Vec::new();
        let (mut begin, mut keys) = (0, 0);
        for (number, chunk) in self.chunks.iter().enumerate() {
            keys += chunk.slice(slice).len();
            if keys >= GROUP_KEYS {
                groups.push(begin..number + 1);
                (begin, keys) = (number + 1, 0);
            }
        }
        if keys > 0 {
            groups.push(begin..self.chunks.len());
        }
        groups
    }

    /// The keys of a slice in these chunks. Their places are the number of a chunk and a row.
    pub fn load(&self, slice: usize, chunks: Range<usize>, keys: &mut Vec<Key>) -> io::Result<()> {
        keys.clear();
        let mut bytes = Vec::new();
        for (number, chunk) in self.chunks.iter().enumerate().skip(chunks.start).take(chunks.len()) {
            let range = chunk.slice(slice);
            bytes.resize(range.len() * KEY_BYTES, 0);
            self.file.read_exact_at(&mut bytes, chunk.at + (range.start * KEY_BYTES) as u64)?;
            let chunk = (number as u64) << 32;
            keys.extend(bytes.as_chunks().0.iter().map(|bytes| decode(bytes, chunk)));
        }
        Ok(())
    }

    /// The part and the row of a key that was loaded.
    pub fn place(&self, key: &Key) -> Option<(u64, usize)> {
        let chunk = self.chunks.get((key.place >> 32) as usize)?;
        Some((chunk.part, (key.place & 0xffff_ffff) as usize))
    }
}

impl Chunk {
    fn slice(&self, slice: usize) -> Range<usize> {
        match self.starts.get(slice..slice + 2) {
            Some(&[start, end]) => start as usize..end as usize,
            _ => 0..0,
        }
    }
}

fn encode(key: &Key) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..8].copy_from_slice(&key.head.to_le_bytes());
    bytes[8..16].copy_from_slice(&key.tail.to_le_bytes());
    bytes[16..].copy_from_slice(&(key.place as u32).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; KEY_BYTES], chunk: u64) -> Key {
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let (head, tail) = (word(0), word(8));
    // The row is the upper half of the last eight bytes.
    Key { head, tail, place: chunk | word(12) >> 32 }
}
