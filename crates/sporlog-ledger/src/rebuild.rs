//! The Merkle tree built anew for a verification, and compared with what is stored as it grows.
//!
//! Entries come from the records, where those can be read and the log's secret is at hand, and from
//! the stored bundles otherwise. Up to an end, which the checkpoint covers, tiles and bundles have
//! to be those stored; beyond, only the root counts, which the newest commit states.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tlog_tiles::tlog::{self, Hash};

use crate::delta::DataFile;
use crate::error::{Error, Result};
use crate::keys::Commitment;
use crate::storage::Storage;
use crate::tlog::{BUNDLE_ENTRY, ENTRIES, HASH, get_earlier_tile, get_tile, tlog_name};
use crate::tree::{TILE_WIDTH, TileFile, Tree, bundle_path, place_of, tile_path};
use crate::verified::Verified;

/// Stored files that are read at once …
const AT_ONCE: usize = 32;
/// … and in a bucket, where each takes a request: a million records have 7,800.
const AT_ONCE_IN_BUCKET: usize = 128;

fn at_once(storage: &Storage) -> usize {
    if storage.directory().is_some() { AT_ONCE } else { AT_ONCE_IN_BUCKET }
}

/// See the [module](self).
pub(crate) struct Rebuilt<'a> {
    storage: &'a Storage,
    /// The data files, to say which one a record is in.
    files: &'a [Arc<DataFile>],
    /// How many entries the stored tiles and bundles have.
    covered: u64,
    /// Up to where they are compared.
    end: u64,
    tree: Tree,
    /// Files that have become full and are still to be compared.
    full: Vec<TileFile>,
    /// The root and the unfinished files at `end`.
    at_end: (Hash, Vec<TileFile>),
}

impl<'a> Rebuilt<'a> {
    /// Goes on from `tree`.
    pub(crate) fn new(
        storage: &'a Storage,
        files: &'a [Arc<DataFile>],
        covered: u64,
        end: u64,
        tree: Tree,
    ) -> Self {
        let at_end = (tlog::EMPTY_HASH, Vec::new());
        let mut rebuilt = Rebuilt { storage, files, covered, end, tree, full: Vec::new(), at_end };
        rebuilt.reached();
        rebuilt
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn push(&mut self, entry: &Commitment, leaf: &Hash) {
        // What the checkpoint does not cover yet has no tiles to be compared with, but leads to the
        // root that the newest commit states.
        let covered = self.tree.size() < self.end;
        let full = &mut self.full;
        self.tree.push(entry, leaf, &mut |file| {
            if covered {
                full.push(file);
            }
        });
        self.reached();
    }

    fn reached(&mut self) {
        if self.tree.size() == self.end {
            self.at_end = (self.tree.root(), self.tree.partial_files());
        }
    }

    /// Takes entries from the stored bundles, up to the id `last`.
    pub(crate) async fn copy_entries(&mut self, verified: &mut Verified, last: u64) {
        let last = last.min(self.end);
        let (storage, covered) = (self.storage, self.covered);
        let read = |n: u64| async move {
            let width = (covered - n * TILE_WIDTH).min(TILE_WIDTH);
            let (bundle, tile) = (bundle_path(n, width), tile_path(0, n, width));
            let stored = futures::join!(get_tile(storage, &bundle), get_tile(storage, &tile));
            (n, width, bundle, tile, stored)
        };
        let numbers = self.tree.size() / TILE_WIDTH..last.div_ceil(TILE_WIDTH);
        let mut read = stream::iter(numbers).map(read).buffered(at_once(storage));
        while self.tree.size() < last
            && let Some((n, width, path, tile, (bundle, hashes))) = read.next().await
        {
            let (skip, wanted) =
                ((self.tree.size() % TILE_WIDTH) as usize, (last - self.tree.size()) as usize);
            let bundle = bundle.unwrap_or_else(|error| {
                verified.found(error);
                Bytes::new()
            });
            if bundle.len() != width as usize * BUNDLE_ENTRY && !bundle.is_empty() {
                verified.found(Error::damaged(
                    tlog_name(&path),
                    "it does not have the length that its name says",
                ));
            }
            verified.check(hashes.and_then(|hashes| verify_bundle(&path, &bundle, &tile, &hashes)));
            let before = self.tree.size();
            for entry in bundle.chunks_exact(BUNDLE_ENTRY).skip(skip).take(wanted) {
                if let Ok(commitment) = Commitment::try_from(&entry[2..]) {
                    self.push(&commitment, &tlog::record_hash(&commitment));
                }
            }
            // What is missing stays missing; the tree goes on with zeros, so that it ends.
            let reached = (before + wanted as u64).min((n + 1) * TILE_WIDTH);
            while self.tree.size() < reached {
                self.push(&Commitment::default(), &tlog::record_hash(&Commitment::default()));
            }
            if self.full.len() >= at_once(storage) {
                self.compare(verified).await;
            }
        }
    }

    /// Compares what has become full with the stored files.
    pub(crate) async fn compare(&mut self, verified: &mut Verified) {
        let full = std::mem::take(&mut self.full);
        self.compare_files(verified, &full).await;
    }

    async fn compare_files(&self, verified: &mut Verified, files: &[TileFile]) {
        let compares: Vec<_> = files.iter().map(|(path, bytes)| self.compare_file(path, bytes)).collect();
        let mut compared = stream::iter(compares).buffered(at_once(self.storage));
        while let Some(result) = compared.next().await {
            verified.check(result);
        }
    }

    async fn compare_file(&self, path: &str, computed: &[u8]) -> Result<()> {
        let (name, stored) = get_earlier_tile(self.storage, path, self.covered).await?;
        if stored == computed {
            return Ok(());
        }
        let mut problem = "it does not match what is computed from the records".to_owned();
        if path.starts_with(ENTRIES) {
            let same = |(a, b): &(&[u8], &[u8])| a == b;
            let pairs = stored.chunks(BUNDLE_ENTRY).zip(computed.chunks(BUNDLE_ENTRY));
            let n = place_of(path).1 * TILE_WIDTH + pairs.take_while(same).count() as u64 + 1;
            problem = match self.files.iter().find(|file| file.first <= n && n <= file.last) {
                Some(file) => format!("it does not match record {n}, stored in {}", file.name()),
                None => format!("it does not match record {n}"),
            };
        }
        Err(Error::damaged(name, problem))
    }

    /// Compares all up to the end; gives the root there.
    pub(crate) async fn finish(&mut self, verified: &mut Verified) -> Hash {
        self.copy_entries(verified, self.end).await;
        self.compare(verified).await;
        let (root, partial) = std::mem::take(&mut self.at_end);
        self.compare_files(verified, &partial).await;
        root
    }
}

/// Entries that are taken as they are have to be those that the stored tile has the hashes of.
fn verify_bundle(path: &str, bundle: &[u8], tile: &str, hashes: &[u8]) -> Result<()> {
    let matches = |(entry, hash): &(&[u8], &[u8])| {
        let length = size_of::<Commitment>() as u16;
        entry.strip_prefix(&length.to_be_bytes()).is_some_and(|e| tlog::record_hash(e).0 == **hash)
    };
    let pairs = bundle.chunks(BUNDLE_ENTRY).zip(hashes.chunks(HASH));
    let same = pairs.take_while(matches).count();
    if same * BUNDLE_ENTRY == bundle.len() {
        return Ok(());
    }
    let record = place_of(path).1 * TILE_WIDTH + same as u64 + 1;
    let problem = format!("it does not match {} from record {record} on", tlog_name(tile));
    Err(Error::damaged(tlog_name(path), problem))
}
