//! Proofs that someone without the log can check.
//!
//! A proof of a record is a file in the format of C2SP tlog-proof: its `extra` line holds the salt
//! (16 bytes) and then the entry, so that the SHA-256 of what it encodes *is* the log's entry, and
//! the rest is the inclusion proof and the signed checkpoint.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tile::TileHashReader;
use tlog_tiles::tlog::{self, Hash};

use crate::error::{Error, Result};
use crate::keys::{Salt, commitment};
use crate::log::Log;
use crate::row_commitments::{entry_writer, numbers};
use crate::tlog::{
    CHECKPOINT, FetchedTiles, KEYS, open_checkpoint, parse_checkpoint, read_checkpoint, sign_checkpoint,
    tlog_name, try_get_tile,
};
use crate::tree::{bundle_path, tile_path};

const PROOF: &str = "c2sp.org/tlog-proof@v1";
/// A checkpoint that is to cover a record is waited for so long: more than what lies between two of a bucket.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(10);
/// Between looks for a checkpoint.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(50);

/// What a proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The log's origin.
    pub origin: String,
    /// The record's id.
    pub id: u64,
    /// How long the log was when the proof was made.
    pub size: u64,
    /// The entry's canonical JSON.
    pub entry: String,
}

impl Log {
    /// The entry's canonical JSON: the bytes that are committed to.
    pub async fn entry(&self, id: u64) -> Result<Vec<u8>> {
        let batch = self.record(id).await?;
        let mut entry = Vec::new();
        let (_, received) = numbers(&batch)?;
        entry_writer(self.name(), self.kind(), &batch)?.write_entry(0, id, received.value(0), &mut entry);
        Ok(entry)
    }

    /// The newest signed checkpoint. The first one of a log is waited for.
    pub async fn checkpoint(&self) -> Result<Vec<u8>> {
        Ok(self.checkpoint_covering(0).await?.0.to_vec())
    }

    /// The signed note on the keys that the log has had, if its key was replaced.
    pub async fn keys_note(&self) -> Result<Option<Bytes>> {
        self.shared.storage.try_get(&tlog_name(KEYS)).await
    }

    /// How many records the newest checkpoint covers.
    pub async fn covered(&self) -> Result<u64> {
        let newest = read_checkpoint(&self.shared.storage, self.vkey()).await?;
        Ok(newest.map_or(0, |newest| newest.size()))
    }

    /// The newest checkpoint, and its signed note. A record is visible before the checkpoint that covers it is
    /// published: one that covers `size` records is waited for.
    async fn checkpoint_covering(&self, size: u64) -> Result<(Bytes, Checkpoint)> {
        let began = Instant::now();
        loop {
            let mut covered = 0;
            if let Some(note) = self.shared.storage.try_get(&tlog_name(CHECKPOINT)).await? {
                let newest = parse_checkpoint(&note, self.vkey())?;
                covered = newest.size();
                if covered >= size {
                    return Ok((note, newest));
                }
            }
            if began.elapsed() > CHECKPOINT_WAIT {
                return Err(Error::NotCovered { id: size, size: covered });
            }
            tokio::time::sleep(CHECKPOINT_PAUSE).await;
        }
    }

    /// The checkpoint of the tree as it was at `size`, signed now: the same bytes each time. Its root
    /// comes from the tiles, which are checked against the newest checkpoint; so it is one of the
    /// same log, whether or not one of that size has ever been published.
    ///
    /// Tiles outlast the records, so this works for any size up to that of the newest checkpoint.
    pub async fn checkpoint_at(&self, size: u64) -> Result<Vec<u8>> {
        let keys = self.keys()?;
        if size > self.head() {
            return Err(Error::NotCovered { id: size, size: self.covered().await? });
        }
        let newest = match size {
            0 => None,
            _ => Some(self.checkpoint_covering(size).await?.1),
        };
        let root = match newest {
            None => tlog::EMPTY_HASH,
            Some(newest) if newest.size() == size => *newest.hash(),
            Some(newest) => {
                let tiles = FetchedTiles::fetch(&self.shared.storage, newest.size(), &[size - 1]).await?;
                let reader = TileHashReader::new(newest.size(), *newest.hash(), &tiles);
                tlog::tree_hash(size, &reader).map_err(|e| {
                    Error::damaged(tlog_name("tile"), format!("they do not belong to the checkpoint: {e:?}"))
                })?
            }
        };
        sign_checkpoint(keys, size, root)
    }

    /// Signs a statement with the log's key, as C2SP signed-note has it: what sort of statement it is,
    /// the log's origin, and `lines`, which end in a line's end. The first line keeps it from being
    /// taken for a checkpoint, which begins with the origin.
    pub fn sign_statement(&self, what: &str, lines: &str) -> Result<Vec<u8>> {
        let keys = self.keys()?;
        keys.sign(&format!("{what}\n{}\n{lines}", keys.origin()))
    }

    /// One of the tree's tiles, by its level, or of the bundles of entries, if `level` is none: the
    /// `index`th, `width` entries wide (1 to 256). `None` if it has not been published, or no longer is.
    pub async fn tile(&self, level: Option<u8>, index: u64, width: u64) -> Result<Option<Bytes>> {
        let path = match level {
            Some(level) => tile_path(level, index, width),
            None => bundle_path(index, width),
        };
        try_get_tile(&self.shared.storage, &path).await
    }

    /// A proof that the record is in the log, as C2SP tlog-proof has it.
    pub async fn prove(&self, id: u64) -> Result<String> {
        let entry = self.entry(id).await?;
        let salt = self.keys()?.salt(id);
        let (note, checkpoint) = self.checkpoint_covering(id).await?;
        let (size, root) = (checkpoint.size(), *checkpoint.hash());
        let tiles = FetchedTiles::fetch(&self.shared.storage, size, &[id - 1]).await?;
        let reader = TileHashReader::new(size, root, &tiles);
        let damaged =
            |e: tlog::Error| Error::damaged(tlog_name("tile"), format!("no proof can be made of it: {e:?}"));
        let proof = tlog::prove_record(size, id - 1, &reader).map_err(damaged)?;
        // A record that was changed after the fact must not be handed out with a proof that fails.
        let leaf = tlog::record_hash(&commitment(&salt, &entry));
        if tlog::check_record(&proof, size, root, id - 1, leaf).is_err() {
            return Err(Error::Proof(format!(
                "record {id} is not what the log has committed to: run `sporlog verify {}`",
                self.name()
            )));
        }
        let extra = BASE64_STANDARD.encode([&salt[..], &entry].concat());
        let hashes: String = proof.iter().map(|hash| format!("{hash}\n")).collect();
        Ok(format!("{PROOF}\nextra {extra}\nindex {}\n{hashes}\n{}", id - 1, String::from_utf8_lossy(&note)))
    }

    /// An earlier checkpoint of the log, which a key that was replaced since may have signed.
    pub fn open_earlier_checkpoint(&self, note: &[u8]) -> Result<Checkpoint, String> {
        open_checkpoint(note, &self.shared.vkeys)
    }

    /// Checks that the log of today continues the log of an earlier signed checkpoint.
    pub async fn verify_since(&self, earlier: &[u8]) -> Result<(u64, u64)> {
        let earlier = self
            .open_earlier_checkpoint(earlier)
            .map_err(|e| Error::Proof(format!("the earlier checkpoint: {e}")))?;
        let now = read_checkpoint(&self.shared.storage, self.vkey()).await?;
        let now = now.ok_or_else(|| Error::damaged(tlog_name(CHECKPOINT), "it is missing"))?;
        self.check_consistency(&earlier, &now).await?;
        Ok((earlier.size(), now.size()))
    }

    pub(crate) async fn check_consistency(&self, earlier: &Checkpoint, now: &Checkpoint) -> Result<()> {
        if earlier.size() > now.size() {
            return Err(Error::Proof(format!(
                "the log has shrunk: it had {} records and has {}",
                earlier.size(),
                now.size()
            )));
        }
        if earlier.size() == 0 {
            return Ok(());
        }
        let leaves = [earlier.size() - 1, earlier.size().min(now.size() - 1)];
        let tiles = FetchedTiles::fetch(&self.shared.storage, now.size(), &leaves).await?;
        let reader = TileHashReader::new(now.size(), *now.hash(), &tiles);
        let rewritten = || {
            Error::Proof(format!(
                "the log's first {} records are not those of the earlier checkpoint: it was rewritten",
                earlier.size()
            ))
        };
        let proof = tlog::prove_tree(now.size(), earlier.size(), &reader).map_err(|e| {
            Error::damaged(tlog_name("tile"), format!("they do not belong to the checkpoint: {e:?}"))
        })?;
        tlog::check_tree(&proof, now.size(), *now.hash(), earlier.size(), *earlier.hash())
            .map_err(|_| rewritten())
    }
}

/// Checks a proof with nothing but the log's public key.
pub fn verify_proof(proof: &str, vkey: &str) -> Result<Proven> {
    let malformed = |what: &str| Error::Proof(format!("it is no proof in the format {PROOF}: {what}"));
    let (head, note) =
        proof.split_once("\n\n").ok_or_else(|| malformed("there is no empty line before the checkpoint"))?;
    let mut lines = head.lines();
    if lines.next() != Some(PROOF) {
        return Err(malformed("the first line is another"));
    }
    let extra = lines
        .next()
        .and_then(|l| l.strip_prefix("extra "))
        .ok_or_else(|| malformed("the second line has no `extra`"))?;
    let extra = BASE64_STANDARD.decode(extra).map_err(|_| malformed("`extra` is not Base64"))?;
    let index = lines.next().and_then(|l| l.strip_prefix("index ")).and_then(|n| n.parse::<u64>().ok());
    let index = index.filter(|n| *n < u64::MAX).ok_or_else(|| malformed("the third line has no `index`"))?;
    let hashes: Vec<Hash> = lines
        .map(|line| Hash::parse_hash(line).map_err(|_| malformed("a hash is malformed")))
        .collect::<Result<_>>()?;
    let checkpoint =
        open_checkpoint(note.as_bytes(), vkey).map_err(|e| Error::Proof(format!("the checkpoint: {e}")))?;
    let (salt, entry) =
        extra.split_at_checked(size_of::<Salt>()).ok_or_else(|| malformed("`extra` is too short"))?;
    let salt = Salt::try_from(salt).map_err(|_| malformed("`extra` is too short"))?;
    if index >= checkpoint.size() {
        return Err(Error::Proof("the index lies beyond the checkpoint".into()));
    }
    let leaf = tlog::record_hash(&commitment(&salt, entry));
    tlog::check_record(&hashes, checkpoint.size(), *checkpoint.hash(), index, leaf)
        .map_err(|_| Error::Proof("the record is not in the log, or the proof was changed: the hashes do not lead to the checkpoint's root".into()))?;
    let entry = String::from_utf8(entry.to_vec()).map_err(|_| malformed("the entry is not text"))?;
    Ok(Proven { origin: checkpoint.origin().to_owned(), id: index + 1, size: checkpoint.size(), entry })
}
