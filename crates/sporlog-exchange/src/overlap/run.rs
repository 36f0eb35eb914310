//! A run: the keys of a contiguous range of the log's ids, sorted, in a file.
//!
//! ```text
//! header     what is in it, with a checksum
//! blocks     of a slice each, some slices have several:
//!            systems  (system, where its keys end) …      u32, u32
//!            heads    32 bits of each key, ascending      u32 …
//!            tails    in the same order                   u64 …
//! directory  where the blocks are
//! ```
//!
//! A comparison reads systems and heads, and tails only where heads agree. The file is written beside,
//! made durable, and renamed. A damaged one is told by its header and directory, and made anew from the
//! log; the log, not the run, is what counts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

use super::key::{Key, Seeds, Systems};

const MAGIC: u64 = u64::from_le_bytes(*b"SPLRUN\x00\x01");
/// A run of so many bytes is read whole: there may be thousands of small ones.
const SMALL: u64 = 128 << 10;
const HEADER_WORDS: usize = 16;
const HEADER: u64 = 8 * HEADER_WORDS as u64;
const ENTRY_WORDS: usize = 3;
/// What the names of files begin with that are being written …
pub(super) const UNFINISHED: &str = ".tmp-";
/// … and what those of whole runs end in.
pub(super) const FINISHED: &str = ".run";

/// What a run covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covers {
    /// A number for the log that the ids are of.
    pub log: u64,
    pub first: u64,
    pub last: u64,
    /// When the first and the last row were received, in microseconds UTC.
    pub oldest: i64,
    pub newest: i64,
}

/// A run on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub path: PathBuf,
    pub covers: Covers,
    pub systems: Systems,
    size: u64,
    directory: u64,
    blocks: u64,
    checksum: u64,
}

/// Where the keys of a slice lie, or some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub slice: u32,
    pub systems: u32,
    pub keys: u32,
    pub at: u64,
}

/// A run that is being read.
pub(super) struct Open {
    content: Content,
    blocks: Vec<Block>,
}

/// Where it is read from.
enum Content {
    File(File),
    /// All of a small one.
    Memory(Vec<u8>),
}

/// A run that is being written; dropped, it is gone.
pub(super) struct Draft {
    file: NamedTempFile,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    end: u64,
    blocks: Vec<Block>,
    systems: Systems,
}

impl Block {
    /// Where the heads begin.
    pub fn heads(&self) -> u64 {
        self.at + 8 * u64::from(self.systems)
    }

    /// Where the tails begin.
    pub fn tails(&self) -> u64 {
        self.heads() + 4 * u64::from(self.keys)
    }

    fn end(&self) -> u64 {
        self.tails() + 8 * u64::from(self.keys)
    }
}

impl Run {
    /// The run in this file, if it is whole, and of keys that `seeds` have made.
    pub fn open(path: &Path, seeds: &Seeds) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut header = [0; HEADER as usize];
        if size < HEADER {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let Some(run) = Self::parse(path, size, &header, seeds) else { return Ok(None) };
        Ok(run.read_directory(&file, seeds)?.map(|_| run))
    }

    fn parse(path: &Path, size: u64, header: &[u8], seeds: &Seeds) -> Option<Self> {
        let words: Vec<u64> = header.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let &[
            magic,
            stamp,
            log,
            first,
            last,
            oldest,
            newest,
            a,
            b,
            c,
            d,
            whole,
            directory,
            blocks,
            checksum,
            sum,
        ] = words.as_slice()
        else {
            return None;
        };
        let intact = magic == MAGIC
            && stamp == seeds.stamp()
            && sum == seeds.checksum(header.get(..HEADER as usize - 8)?)
            && size == whole;
        let covers = Covers { log, first, last, oldest: oldest as i64, newest: newest as i64 };
        let run = Run {
            path: path.to_owned(),
            covers,
            systems: Systems([a, b, c, d]),
            size,
            directory,
            blocks,
            checksum,
        };
        intact.then_some(run)
    }

    fn header(&self, seeds: &Seeds) -> Vec<u8> {
        let Covers { log, first, last, oldest, newest } = self.covers;
        let Systems([a, b, c, d]) = self.systems;
        let words = [
            MAGIC,
            seeds.stamp(),
            log,
            first,
            last,
            oldest as u64,
            newest as u64,
            a,
            b,
            c,
            d,
            self.size,
            self.directory,
            self.blocks,
            self.checksum,
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(seeds.checksum(&bytes).to_le_bytes());
        bytes
    }

    /// Whether the file is still there, as long as it was.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == self.size)
    }

    /// The bytes that it takes in memory while it is read, and the files that are open then.
    pub fn cost(&self) -> (u64, usize) {
        if self.is_small() { (self.size, 0) } else { (self.size - self.directory, 1) }
    }

    fn is_small(&self) -> bool {
        self.size <= SMALL
    }

    /// Opens it to read.
    pub fn reader(&self, seeds: &Seeds) -> io::Result<Open> {
        let file = File::open(&self.path)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "this run of the index is damaged");
        let blocks = self.read_directory(&file, seeds)?.ok_or_else(damaged)?;
        let content = if self.is_small() {
            let mut bytes = vec![0; self.directory as usize];
            file.read_exact_at(&mut bytes, 0)?;
            Content::Memory(bytes)
        } else {
            Content::File(file)
        };
        Ok(Open { content, blocks })
    }

    fn read_directory(&self, file: &File, seeds: &Seeds) -> io::Result<Option<Vec<Block>>> {
        let length = self.blocks.saturating_mul(8 * ENTRY_WORDS as u64);
        if self.directory.saturating_add(length) != self.size {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut bytes, self.directory)?;
        if seeds.checksum(&bytes) != self.checksum {
            return Ok(None);
        }
        let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (entries, _) = words.as_chunks::<ENTRY_WORDS>();
        let block = |&[slice, counts, at]: &[u64; ENTRY_WORDS]| {
            let (systems, keys) = ((counts >> 32) as u32, counts as u32);
            Block { slice: slice as u32, systems, keys, at }
        };
        Ok(Some(entries.iter().map(block).collect()))
    }
}

impl Open {
    /// The blocks of a slice.
    pub fn blocks(&self, slice: usize) -> &[Block] {
        let from = self.blocks.partition_point(|block| (block.slice as usize) < slice);
        let to = self.blocks.partition_point(|block| (block.slice as usize) <= slice);
        self.blocks.get(from..to).unwrap_or_default()
    }

    /// Reads `length` bytes from `at` on.
    pub fn read(&self, at: u64, length: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        match &self.content {
            Content::File(file) => {
                bytes.resize(length, 0);
                file.read_exact_at(bytes, at)
            }
            Content::Memory(content) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let wanted = content.get(at..at.saturating_add(length));
                bytes.clear();
                bytes.extend_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

impl Draft {
    pub fn begin(folder: &Path) -> io::Result<Self> {
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
        Ok(Draft { file, written: Mutex::new(Written { end: HEADER, ..Written::default() }) })
    }

    /// Adds sorted keys of a slice; what is there twice is written once. Any thread may do so.
    pub fn write(&self, slice: usize, keys: &[Key]) -> io::Result<()> {
        let mut unique: Vec<&Key> = Vec::with_capacity(keys.len());
        for key in keys {
            if unique.last().is_none_or(|last| !last.same(key)) {
                unique.push(key);
            }
        }
        let mut bytes = Vec::with_capacity(unique.len() * 12 + 64);
        let (mut systems, mut end, mut present) = (0, 0, Systems::default());
        for of_one in unique.chunk_by(|a, b| a.system() == b.system()) {
            let Some(first) = of_one.first() else { continue };
            systems += 1;
            end += of_one.len() as u32;
            present.add(first.system());
            bytes.extend_from_slice(&u32::from(first.system()).to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        unique.iter().for_each(|key| bytes.extend_from_slice(&key.hash().to_le_bytes()));
        unique.iter().for_each(|key| bytes.extend_from_slice(&key.tail.to_le_bytes()));
        let at = {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let at = written.end;
            let block = Block { slice: slice as u32, systems, keys: end, at };
            written.end = block.end();
            written.blocks.push(block);
            written.systems.join(&present);
            at
        };
        self.file.as_file().write_all_at(&bytes, at)
    }

    /// Completes the file and makes it durable. It still has no name to be found by.
    pub fn finish(self, folder: &Path, covers: Covers, seeds: &Seeds) -> io::Result<(NamedTempFile, Run)> {
        let Draft { file, written } = self;
        let Written { end, mut blocks, systems } =
            written.into_inner().unwrap_or_else(PoisonError::into_inner);
        blocks.sort_unstable_by_key(|block| (block.slice, block.at));
        let words = blocks.iter().flat_map(|block| {
            [u64::from(block.slice), u64::from(block.systems) << 32 | u64::from(block.keys), block.at]
        });
        let directory: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let Covers { first, last, newest, .. } = covers;
        let run = Run {
            path: folder.join(format!("{first}-{last}-{newest}{FINISHED}")),
            covers,
            systems,
            size: end + directory.len() as u64,
            directory: end,
            blocks: blocks.len() as u64,
            checksum: seeds.checksum(&directory),
        };
        file.as_file().write_all_at(&directory, end)?;
        file.as_file().write_all_at(&run.header(seeds), 0)?;
        file.as_file().sync_data()?;
        Ok((file, run))
    }
}
