//! The right edge of a log's Merkle tree, and the tiles that fall off it.
//!
//! The tree is RFC 6962's, its tiles C2SP tlog-tiles' (height 8, so 256 hashes a tile). Only the
//! unfinished tile of each level is held in memory: that is enough to append and to know the root.
//! The Merkle arithmetic is `tlog_tiles`'; this module only keeps what it needs at hand.

use bytes::Bytes;
use tlog_tiles::tile::Tile;
use tlog_tiles::tlog::{self, Hash, HashReader};

use crate::keys::Commitment;

/// Hashes in a full tile.
pub(crate) const TILE_WIDTH: u64 = 256;
/// The height of a tile, in levels of the tree.
pub(crate) const TILE_HEIGHT: u8 = 8;
/// Bytes of a hash.
const HASH: usize = 32;

/// A file of the transparency log, relative to its folder, and its content.
pub(crate) type TileFile = (String, Bytes);

/// A tree that can be appended to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    size: u64,
    /// The unfinished tile of each tile level, hashes one after the other.
    edge: Vec<Vec<u8>>,
    /// The unfinished entry bundle: each commitment behind its length (C2SP tlog-tiles).
    bundle: Vec<u8>,
}

impl Tree {
    /// The tree whose edge is read back from its tiles; `read` gives the content of a file.
    pub(crate) fn restore<E>(size: u64, mut read: impl FnMut(&str) -> Result<Bytes, E>) -> Result<Self, E> {
        let mut tree = Tree { size, ..Tree::default() };
        for path in partial_tiles(size) {
            tree.edge.push(match path {
                Some(path) => read(&path)?.to_vec(),
                None => Vec::new(),
            });
        }
        if !size.is_multiple_of(TILE_WIDTH) {
            tree.bundle = read(&bundle_path(size / TILE_WIDTH, size % TILE_WIDTH))?.to_vec();
        }
        Ok(tree)
    }

    /// How many entries there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds an entry, whose leaf hash is given too. What becomes full is handed to `full`.
    pub(crate) fn push(&mut self, entry: &Commitment, leaf: &Hash, full: &mut impl FnMut(TileFile)) {
        self.bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
        self.bundle.extend_from_slice(entry);
        let n = self.size / TILE_WIDTH;
        self.size += 1;
        if self.size.is_multiple_of(TILE_WIDTH) {
            let bytes = std::mem::take(&mut self.bundle);
            full((bundle_path(n, TILE_WIDTH), bytes.into()));
        }
        self.push_hash(0, leaf, full);
    }

    /// Adds these entries; gives what becomes full.
    pub(crate) fn push_all(&mut self, entries: &[(Commitment, Hash)]) -> Vec<TileFile> {
        let mut full = Vec::new();
        entries.iter().for_each(|(entry, leaf)| self.push(entry, leaf, &mut |file| full.push(file)));
        full
    }

    fn push_hash(&mut self, level: usize, hash: &Hash, full: &mut impl FnMut(TileFile)) {
        if self.edge.len() <= level {
            self.edge.push(Vec::new());
        }
        let tile = &mut self.edge[level];
        tile.extend_from_slice(&hash.0);
        if tile.len() == TILE_WIDTH as usize * HASH {
            let tile = std::mem::take(tile);
            let above = Tile::subtree_hash(&tile);
            let n = (self.size - 1) >> (TILE_HEIGHT as usize * (level + 1));
            full((tile_path(level as u8, n, TILE_WIDTH), tile.into()));
            self.push_hash(level + 1, &above, full);
        }
    }

    /// The unfinished tiles and bundle: with the full ones handed out so far, all files that a
    /// checkpoint of this size needs.
    pub(crate) fn partial_files(&self) -> Vec<TileFile> {
        let tiles = partial_tiles(self.size)
            .zip(&self.edge)
            .filter_map(|(path, tile)| path.map(|path| (path, Bytes::copy_from_slice(tile))));
        let width = self.size % TILE_WIDTH;
        let bundle = (width > 0)
            .then(|| (bundle_path(self.size / TILE_WIDTH, width), Bytes::copy_from_slice(&self.bundle)));
        tiles.chain(bundle).collect()
    }

    /// The root hash.
    pub(crate) fn root(&self) -> Hash {
        // Every subtree that the root is made of lies in the unfinished tiles.
        tlog::tree_hash(self.size, self).unwrap_or(tlog::EMPTY_HASH)
    }
}

impl HashReader for Tree {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        let read = |&index: &u64| {
            let tile = Tile::from_index(TILE_HEIGHT, index);
            let data = self.edge.get(tile.level() as usize).ok_or(tlog::Error::InvalidTile)?;
            tile.hash_at_index(data, index)
        };
        indexes.iter().map(read).collect()
    }
}

/// The names of the unfinished tiles and bundle of a tree of `size`.
pub(crate) fn partial_names(size: u64) -> Vec<String> {
    let width = size % TILE_WIDTH;
    let bundle = (width > 0).then(|| bundle_path(size / TILE_WIDTH, width));
    partial_tiles(size).flatten().chain(bundle).collect()
}

/// For each tile level of a tree of `size`: the path of its unfinished tile, if it has hashes.
fn partial_tiles(size: u64) -> impl Iterator<Item = Option<String>> {
    let levels = (0u8..8).map(move |level| (level, size >> (TILE_HEIGHT * level)));
    levels.take_while(|(_, hashes)| *hashes > 0).map(|(level, hashes)| {
        let (n, width) = (hashes / TILE_WIDTH, hashes % TILE_WIDTH);
        (width > 0).then(|| tile_path(level, n, width))
    })
}

/// `tile/<L>/<N>[.p/<W>]`.
pub(crate) fn tile_path(level: u8, n: u64, width: u64) -> String {
    let tile = Tile::new(TILE_HEIGHT, level, n, width as u32, false);
    // The library writes the height into the path, as Go's checksum database does; C2SP leaves it out.
    tile.path().replacen("tile/8/", "tile/", 1)
}

/// `tile/entries/<N>[.p/<W>]`.
pub(crate) fn bundle_path(n: u64, width: u64) -> String {
    tile_path(0, n, width).replacen("tile/0/", "tile/entries/", 1)
}

/// Whether the tile or bundle at `path` is full in a tree of `size`.
pub(crate) fn is_full_at(path: &str, size: u64) -> bool {
    let (level, n) = place_of(path);
    size >> (TILE_HEIGHT * level.unwrap_or(0)) >= (n + 1) * TILE_WIDTH
}

/// The path that a tile or bundle has in a tree of `size`, which may have more hashes or entries in it.
pub(crate) fn path_at(path: &str, size: u64) -> String {
    let (level, n) = place_of(path);
    let width = (size >> (TILE_HEIGHT * level.unwrap_or(0))).saturating_sub(n * TILE_WIDTH).min(TILE_WIDTH);
    level.map_or_else(|| bundle_path(n, width), |level| tile_path(level, n, width))
}

/// The level and number of the tile `tile/<L>/x001/x234/067[.p/<W>]`; of a bundle, which has no level, the number.
pub(crate) fn place_of(path: &str) -> (Option<u8>, u64) {
    let (level, digits) = path.trim_start_matches("tile/").split_once('/').unwrap_or_default();
    let digits = digits.split(".p/").next().unwrap_or_default().split('/');
    let digit = |part: &str| part.trim_start_matches('x').parse::<u64>().unwrap_or(0);
    (level.parse().ok(), digits.fold(0, |n, part| n * 1_000 + digit(part)))
}

/// The files of a tree of `size` that hold the hashes of `level` and the entries, complete ones
/// first and the unfinished one last: its path, and how many hashes or entries it has.
pub(crate) fn files_of_level(size: u64, level: Option<u8>) -> impl Iterator<Item = (String, u64)> {
    let hashes = size >> (TILE_HEIGHT * level.unwrap_or(0));
    (0..hashes.div_ceil(TILE_WIDTH)).map(move |n| {
        let width = (hashes - n * TILE_WIDTH).min(TILE_WIDTH);
        (level.map_or_else(|| bundle_path(n, width), |level| tile_path(level, n, width)), width)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn grow(tree: &mut Tree, files: &mut HashMap<String, Bytes>, count: u64) {
        for _ in 0..count {
            let mut entry = [0u8; 32];
            entry[..8].copy_from_slice(&tree.size().to_be_bytes());
            tree.push(&entry, &tlog::record_hash(&entry), &mut |(path, bytes)| {
                files.insert(path, bytes);
            });
        }
        files.extend(tree.partial_files());
    }

    /// The same tree by the library's own storage scheme, all hashes in one array.
    struct Stored(Vec<Hash>);
    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
            Ok(indexes.iter().map(|&i| self.0[i as usize]).collect())
        }
    }

    #[test]
    fn the_root_is_that_of_the_reference_implementation_at_every_size() {
        let (mut tree, mut files, mut stored) = (Tree::default(), HashMap::new(), Stored(Vec::new()));
        assert_eq!(tree.root(), tlog::EMPTY_HASH);
        for n in 0..1_000u64 {
            let mut entry = [0u8; 32];
            entry[..8].copy_from_slice(&n.to_be_bytes());
            let hashes = tlog::stored_hashes(n, &entry, &stored).unwrap();
            stored.0.extend(hashes);
            grow(&mut tree, &mut files, 1);
            assert_eq!(tree.root(), tlog::tree_hash(n + 1, &stored).unwrap());
        }
    }

    #[test]
    fn a_tree_is_restored_from_its_files() {
        for size in [0u64, 1, 255, 256, 257, 65_535, 65_536, 65_537, 70_000] {
            let (mut tree, mut files) = (Tree::default(), HashMap::new());
            grow(&mut tree, &mut files, size);
            let read = |path: &str| files.get(path).cloned().ok_or_else(|| path.to_owned());
            let mut restored = Tree::restore(size, read).unwrap();
            assert_eq!(restored.root(), tree.root(), "{size}");
            grow(&mut tree, &mut HashMap::new(), 300);
            grow(&mut restored, &mut HashMap::new(), 300);
            assert_eq!(restored.root(), tree.root(), "{size}");
        }
    }

    #[test]
    fn paths_are_those_of_c2sp() {
        assert_eq!(tile_path(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile_path(2, 5, 8), "tile/2/005.p/8");
        assert_eq!(bundle_path(0, 3), "tile/entries/000.p/3");
        assert_eq!(path_at("tile/0/x001/x234/067.p/2", 1_234_067 * 256 + 3), "tile/0/x001/x234/067.p/3");
        assert_eq!(path_at("tile/1/002.p/2", 5 * 65_536 * 256), "tile/1/002");
        assert_eq!(path_at("tile/entries/002.p/2", 2 * 256 + 9), "tile/entries/002.p/9");
        assert!(is_full_at("tile/1/001", 2 * 65_536) && !is_full_at("tile/1/001", 2 * 65_536 - 1));
        assert!(is_full_at("tile/entries/000", 256) && !is_full_at("tile/entries/001", 3));
    }
}
