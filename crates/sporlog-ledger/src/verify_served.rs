//! Checks a log from outside, by nothing but its transparency log: what a server shows to everybody.
//!
//! The tree is recomputed from the entries, and compared with every tile and with the signed checkpoint.
//! What the entries commit to is not checked: the records are not shown to everybody.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tlog;

use crate::error::{Error, Result};
use crate::keys::Commitment;
use crate::tlog::{BUNDLE_ENTRY, ENTRIES, HASH, KEYS, finished_file, open_checkpoint, open_keys};
use crate::tree::{TILE_WIDTH, Tree, bundle_path, tile_path};
use crate::verified::Verified;

/// Pairs of a bundle and its tile that are fetched at once.
const AT_ONCE: usize = 16;

/// Where the files of a transparency log are read from.
pub trait TlogSource: Sync {
    /// The file of this name (`checkpoint`, `tile/0/000`), `None` if there is none.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;
}

/// What a check from outside found.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// How many records the checkpoint covers.
    pub size: u64,
    /// How many records the earlier checkpoint covered, if one was given.
    pub since: Option<u64>,
    /// All that is wrong; empty when nothing is. Files are named relative to the transparency log.
    pub problems: Vec<crate::Problem>,
}

/// Checks the log in `source`: that `vkey` signed its checkpoint, that its entries lead to the
/// checkpoint's root and its tiles, and that it continues the log of the checkpoint `earlier`.
/// `progress` is told how many entries are checked, of how many.
pub async fn verify_served(
    source: &dyn TlogSource,
    vkey: &str,
    earlier: Option<&[u8]>,
    progress: impl Fn(u64, u64) + Send + Sync,
) -> Result<Served> {
    let vkeys = match source.get(KEYS).await? {
        Some(note) => open_keys(&note, vkey).map_err(|e| Error::damaged(KEYS, e))?,
        None => vkey.to_owned(),
    };
    let open = |what: &str, note: &[u8]| open_checkpoint(note, &vkeys).map_err(|e| Error::damaged(what, e));
    let earlier = earlier.map(|note| open("the earlier checkpoint", note)).transpose();
    let note = source.get("checkpoint").await?;
    let note = note.ok_or_else(|| Error::damaged("checkpoint", "there is none"))?;
    let mut found = Verified::default();
    let (checkpoint, earlier) = match (open("checkpoint", &note), earlier) {
        (Ok(checkpoint), Ok(earlier)) => (checkpoint, earlier),
        (opened, earlier) => {
            found.check(opened.map(drop));
            found.check(earlier.map(drop));
            return Ok(Served { problems: found.problems, ..Served::default() });
        }
    };
    let (size, since) = (checkpoint.size(), earlier.as_ref().map(Checkpoint::size));
    let mut tree = Tree::default();
    let mut root_then = (since == Some(0)).then_some(tlog::EMPTY_HASH);
    let fetch_pair = |n: u64| async move {
        let width = (size - n * TILE_WIDTH).min(TILE_WIDTH);
        let (bundle, tile) = (bundle_path(n, width), tile_path(0, n, width));
        let fetched = futures::try_join!(fetch(source, &bundle), fetch(source, &tile))?;
        Ok::<_, Error>((width as usize, (bundle, fetched.0), (tile, fetched.1)))
    };
    let mut pairs = futures::stream::iter(0..size.div_ceil(TILE_WIDTH)).map(fetch_pair).buffered(AT_ONCE);
    while let Some((width, (bundle_name, bundle), (tile_name, tile))) = pairs.try_next().await? {
        let first = tree.size() + 1;
        let Some(entries) = entries_of(&bundle, width) else {
            let problem =
                format!("{width} entries of 32 bytes are expected, and {} bytes are there", bundle.len());
            found.found(Error::damaged(bundle_name, problem));
            // The tree cannot be recomputed beyond this point.
            return Ok(Served { size, since, problems: found.problems });
        };
        let mut full = Vec::new();
        let mut hashes = Vec::with_capacity(width * HASH);
        for entry in entries {
            let leaf = tlog::record_hash(&entry);
            hashes.extend_from_slice(&leaf.0);
            tree.push(&entry, &leaf, &mut |file| full.push(file));
            if since == Some(tree.size()) {
                root_then = Some(tree.root());
            }
        }
        if tile != hashes {
            let same = tile.chunks(HASH).zip(hashes.chunks(HASH)).take_while(|(a, b)| a == b).count() as u64;
            let problem = format!("it does not match {bundle_name} from record {} on", first + same);
            found.found(Error::damaged(tile_name, problem));
        }
        full.retain(|(path, _)| !path.starts_with(ENTRIES) && !path.starts_with("tile/0/"));
        compare(source, &mut found, full).await?;
        progress(tree.size(), size);
    }
    let mut partial = tree.partial_files();
    partial.retain(|(path, _)| !path.starts_with(ENTRIES) && !path.starts_with("tile/0/"));
    compare(source, &mut found, partial).await?;
    if tree.root() != *checkpoint.hash() {
        found.found(Error::damaged("checkpoint", "the entries do not lead to the root that was signed"));
    }
    if let Some(earlier) = earlier {
        let (then, now) = (earlier.size(), size);
        let problem = match root_then {
            None => format!("the log has shrunk: it had {then} records and has {now}"),
            Some(root) if root != *earlier.hash() => {
                format!(
                    "the log's first {then} records are not those of the earlier checkpoint: it was rewritten"
                )
            }
            Some(_) => return Ok(Served { size, since, problems: found.problems }),
        };
        found.found(Error::damaged("checkpoint", problem));
    }
    Ok(Served { size, since, problems: found.problems })
}

/// The entries of a bundle, if it has just `width` of them.
fn entries_of(bundle: &[u8], width: usize) -> Option<Vec<Commitment>> {
    let length = (size_of::<Commitment>() as u16).to_be_bytes();
    let entry = |entry: &[u8]| Commitment::try_from(entry.strip_prefix(&length)?).ok();
    (bundle.len() == width * BUNDLE_ENTRY).then(|| bundle.chunks(BUNDLE_ENTRY).map(entry).collect())?
}

/// A tile or bundle; empty, if there is none. An unfinished one is the beginning of the finished one, if
/// that has come since the checkpoint was read.
async fn fetch(source: &dyn TlogSource, path: &str) -> Result<Bytes> {
    if let Some(bytes) = source.get(path).await? {
        return Ok(bytes);
    }
    let Some((finished, length)) = finished_file(path) else { return Ok(Bytes::new()) };
    let finished = source.get(finished).await?.filter(|bytes| bytes.len() >= length);
    Ok(finished.map_or_else(Bytes::new, |bytes| bytes.slice(..length)))
}

async fn compare(source: &dyn TlogSource, found: &mut Verified, files: Vec<(String, Bytes)>) -> Result<()> {
    for (path, computed) in files {
        if fetch(source, &path).await? != computed {
            found.found(Error::damaged(path, "it does not match what is computed from the entries"));
        }
    }
    Ok(())
}
