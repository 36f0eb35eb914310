//! What a row is known by: 112 bits of hashes of its system and its id.
//!
//! ```text
//! head   8 bits of the id's hash (the slice) │ 8 bits of the system's hash │ 32 further bits of the id's
//! tail  64 bits of a second hash
//! ```
//!
//! The hash of an id begins with that of its system, so the same id in two systems makes two keys. With a
//! billion keys, the odds that two different ones are taken for one are below one in 10¹⁵.
//! Nothing is gained by making two ids collide on purpose: a supplier could as well deliver the same id twice.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use twox_hash::XxHash64;
use uuid::Uuid;

use super::run::UNFINISHED;
use sporlog_intake::{Error, Result};

/// What keys are made of, besides the hashes' seeds.
pub(super) const SYSTEM: &str = "KalderItSystemInstans";
pub(super) const LOG_ID: &str = "LogId";
pub(super) const TRANSACTION: &str = "TransaktionsId";

/// Keys are dealt with a slice at a time, so that one fits into the processor's cache.
pub(super) const SLICES: usize = 256;

/// The file of the seeds in the index's folder, and what it begins with.
const SEEDS: &str = "seeds";
const MAGIC: [u8; 8] = *b"SPLSEED\x01";

/// A row's key, and where the row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub head: u64,
    pub tail: u64,
    pub place: u64,
}

impl Key {
    pub fn slice(&self) -> usize {
        (self.head >> 40) as usize & (SLICES - 1)
    }

    pub fn system(&self) -> u8 {
        (self.head >> 32) as u8
    }

    pub fn hash(&self) -> u32 {
        self.head as u32
    }

    pub fn same(&self, other: &Key) -> bool {
        (self.head, self.tail) == (other.head, other.tail)
    }
}

/// In ascending order. Few heads are alike, so they are what is sorted by.
pub(super) fn sort(keys: &mut [Key]) {
    keys.sort_unstable_by_key(|key| key.head);
    for alike in keys.chunk_by_mut(|a, b| a.head == b.head) {
        if alike.len() > 1 {
            alike.sort_unstable_by_key(|key| key.tail);
        }
    }
}

/// Which systems there are, by eight bits of their hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Systems(pub [u64; 4]);

impl Systems {
    pub fn add(&mut self, system: u8) {
        if let Some(word) = self.0.get_mut(usize::from(system >> 6)) {
            *word |= 1 << (system & 63);
        }
    }

    pub fn join(&mut self, others: &Systems) {
        self.0.iter_mut().zip(&others.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    pub fn meet(&self, others: &Systems) -> bool {
        self.0.iter().zip(&others.0).any(|(mine, theirs)| mine & theirs != 0)
    }
}

/// What makes our hashes ours. They are the same as long as the folder is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeds {
    head: u64,
    tail: u64,
}

/// How the ids of one system are hashed.
#[derive(Clone, Copy)]
struct Hashing {
    system: u64,
    head: u64,
    tail: u64,
}

impl Seeds {
    /// Those of `folder`; if it has none, or they are damaged, it gets new ones.
    pub fn of(folder: &Path) -> Result<Self> {
        let path = folder.join(SEEDS);
        let fail = |source| Error::Read { name: path.display().to_string(), source };
        match fs::read(&path) {
            Ok(bytes) => {
                if let Some(seeds) = Self::parse(&bytes) {
                    return Ok(seeds);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let random = || {
            let (high, low) = Uuid::new_v4().as_u64_pair();
            XxHash64::oneshot(high, &low.to_le_bytes())
        };
        let seeds = Seeds { head: random(), tail: random() };
        seeds.write(folder, &path).map_err(fail)?;
        Ok(seeds)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (head, rest) = rest.split_first_chunk::<8>()?;
        let (tail, rest) = rest.split_first_chunk::<8>()?;
        let seeds = Seeds { head: u64::from_le_bytes(*head), tail: u64::from_le_bytes(*tail) };
        (*magic == MAGIC && rest == seeds.stamp().to_le_bytes()).then_some(seeds)
    }

    fn write(&self, folder: &Path, path: &Path) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
        let words = [self.head, self.tail, self.stamp()];
        file.write_all(&MAGIC)?;
        words.iter().try_for_each(|word| file.write_all(&word.to_le_bytes()))?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|e| e.error)
    }

    /// What tells keys of these seeds from those of others.
    pub fn stamp(&self) -> u64 {
        self.checksum(&MAGIC)
    }

    /// A checksum of what is written in the index.
    pub fn checksum(&self, bytes: &[u8]) -> u64 {
        XxHash64::oneshot(self.head ^ self.tail.rotate_left(32), bytes)
    }

    /// The keys of `rows` of a batch, whose place is the row; rows without any id have none.
    pub fn keys(&self, batch: &RecordBatch, rows: Range<usize>, keys: &mut Vec<Key>) -> Result<()> {
        let column = |name: &str| -> Result<&StringArray> {
            let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or_else(|| Error::Internal(format!("rows to compare have no column {name}")))
        };
        let (systems, log_ids, transactions) = (column(SYSTEM)?, column(LOG_ID)?, column(TRANSACTION)?);
        // Most files are of one system.
        let mut known: Option<(&str, Hashing)> = None;
        keys.reserve(rows.len());
        for row in rows {
            let Some(system) = text(systems, row) else { continue };
            let hashing = match known {
                Some((name, hashing)) if name == system => hashing,
                _ => known.insert((system, self.hashing(system))).1,
            };
            let key = match (text(log_ids, row), text(transactions, row)) {
                (Some(id), _) => hashing.key(0, id, row),
                (None, Some(id)) => hashing.key(0x9e37_79b9_7f4a_7c15, id, row),
                (None, None) => continue,
            };
            keys.push(key);
        }
        Ok(())
    }

    fn hashing(&self, system: &str) -> Hashing {
        let head = XxHash64::oneshot(self.head, system.as_bytes());
        let tail = XxHash64::oneshot(self.tail, system.as_bytes());
        Hashing { system: head >> 56, head, tail }
    }
}

impl Hashing {
    /// `kind` keeps the kinds of id apart.
    fn key(&self, kind: u64, id: &str, row: usize) -> Key {
        let hash = XxHash64::oneshot(self.head ^ kind, id.as_bytes());
        let tail = XxHash64::oneshot(self.tail ^ kind, id.as_bytes());
        let slice = hash >> 56;
        let head = slice << 40 | self.system << 32 | (hash >> 24) & 0xffff_ffff;
        Key { head, tail, place: row as u64 }
    }
}

/// A row's text, if it has one.
fn text(column: &StringArray, row: usize) -> Option<&str> {
    let present = row < column.len() && column.is_valid(row);
    present.then(|| column.value(row)).filter(|text| !text.is_empty())
}
