//! The Merkle tree built anew for a verification, and compared with what is stored as it grows.
//!
//! Entries come from the records, where those can be read and the log's secret is at hand, and from
//! the stored bundles otherwise. Up to an end, which the checkpoint covers, tiles and bundles have
//! to be those stored; beyond, only the root counts, which the newest commit states.

use std::sync::Arc;

use bytes::Bytes;
use tlog_tiles::tlog::{self, Hash};

use crate::delta::DataFile;
use crate::error::{Error, Result};
use crate::keys::Commitment;
use crate::storage::Storage;
use crate::tlog::{BUNDLE_ENTRY, ENTRIES, HASH, get_earlier_tile, get_tile, tlog_name};
use crate::tree::{TILE_WIDTH, TileFile, Tree, bundle_path, place_of, tile_path};
use crate::verified::Verified;

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
        while self.tree.size() < last {
            let (n, skip) = (self.tree.size() / TILE_WIDTH, (self.tree.size() % TILE_WIDTH) as usize);
            let width = (self.covered - n * TILE_WIDTH).min(TILE_WIDTH);
            let wanted = (last - self.tree.size()) as usize;
            let path = bundle_path(n, width);
            let bundle = get_tile(self.storage, &path).await;
            let bundle = bundle.unwrap_or_else(|error| {
                verified.found(error);
                Bytes::new()
            });
            let whole = bundle.len() == width as usize * BUNDLE_ENTRY;
            if !whole && !bundle.is_empty() {
                verified.found(Error::damaged(
                    tlog_name(&path),
                    "it does not have the length that its name says",
                ));
            }
            verified.check(self.verify_bundle(&path, &bundle, &tile_path(0, n, width)).await);
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
            self.compare(verified).await;
        }
    }

    /// Entries that are taken as they are have to be those that the stored tile has the hashes of.
    async fn verify_bundle(&self, path: &str, bundle: &[u8], tile: &str) -> Result<()> {
        let hashes = get_tile(self.storage, tile).await?;
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

    /// Compares what has become full with the stored files.
    pub(crate) async fn compare(&mut self, verified: &mut Verified) {
        for (path, bytes) in std::mem::take(&mut self.full) {
            self.compare_file(verified, &path, &bytes).await;
        }
    }

    async fn compare_file(&self, verified: &mut Verified, path: &str, computed: &[u8]) {
        let (name, stored) = match get_earlier_tile(self.storage, path, self.covered).await {
            Ok(stored) => stored,
            Err(error) => return verified.found(error),
        };
        if stored == computed {
            return;
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
        verified.found(Error::damaged(name, problem));
    }

    /// Compares all up to the end; gives the root there.
    pub(crate) async fn finish(&mut self, verified: &mut Verified) -> Hash {
        self.copy_entries(verified, self.end).await;
        self.compare(verified).await;
        let (root, partial) = std::mem::take(&mut self.at_end);
        for (path, bytes) in &partial {
            self.compare_file(verified, path, bytes).await;
        }
        root
    }
}
