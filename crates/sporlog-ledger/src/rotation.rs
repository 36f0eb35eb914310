//! Another signing key for a log.
//!
//! The new key has the log's name, as C2SP signed-note allows, and signs the commits from then on; which commit the old one
//! has signed last is written down beside the new key. For those who know the old key alone, it signs checkpoints and other
//! notes, too, until it is retired. So they see the same log, and in `tlog/keys`, which both keys sign, who takes over:
//!
//! ```text
//! sporlog-log-keys/1
//! <origin>
//! <the newest vkey>
//! <an earlier vkey> until <the last version that it has signed>
//! ```
//!
//! Whoever knows any of the keys that have signed this note knows all of them. Someone who has stolen the old key can sign
//! another such note, and deceive those who know the old key alone; that is why the new one is to be had from elsewhere.
//!
//! A key is replaced in three steps: its file, `tlog/keys` and `tlog/key`, and the notes that are signed anew. After a crash in
//! between, the rotation is asked for again and finishes. No other process may write to the log meanwhile, nor later with
//! the keys of before.

use crate::error::{Error, Result};
use crate::keys::{LogKeys, open_note};
use crate::storage::Storage;
use crate::store::Store;
use crate::tlog::{KEYS, keys_note, tlog_name};
use crate::writer::WriterOptions;

impl Store {
    /// Gives a log another signing key, and says what its public key is from now on. Finishes a rotation that was broken
    /// off. No other process may write to the log.
    pub async fn rotate_key(&self, name: &str) -> Result<String> {
        let (keys, dir) = self.load_keys(name)?;
        let storage = self.folder_of(name);
        let keys = if keys.is_cosigned() {
            if is_published(&storage, &keys).await? {
                let reason = format!("the key before still signs; end that first: sporlog key retire {name}");
                return Err(Error::Keys { log: name.to_owned(), place: dir.display().to_string(), reason });
            }
            keys
        } else {
            // Whatever is missing is made up for first: the checkpoint covers all, and all commits are signed.
            let log = self.log(name).await?;
            let writer = self.writer(name, log.kind(), WriterOptions { take_turns: true }).await?;
            // The frames of the journal, too: what follows the commit is the new key's.
            writer.flush().await?;
            writer.close().await?;
            LogKeys::rotate(&dir, name, self.log(name).await?.state().version)?
        };
        publish(&storage, &keys).await?;
        Ok(keys.vkey().to_owned())
    }

    /// Has the key before the newest one sign nothing any more. No other process may write to the log.
    pub async fn retire_key(&self, name: &str) -> Result<()> {
        let (_, dir) = self.load_keys(name)?;
        let keys = LogKeys::retire(&dir, name)?;
        publish(&self.folder_of(name), &keys).await
    }
}

/// Whether the newest checkpoint, which is signed last, has the newest key's signature.
async fn is_published(storage: &Storage, keys: &LogKeys) -> Result<bool> {
    let checkpoint = storage.try_get(&tlog_name("checkpoint")).await?;
    Ok(checkpoint.is_none_or(|note| open_note(&note, keys.vkey()).is_ok()))
}

/// Writes down the log's keys, and has all of them that sign sign the newest notes.
async fn publish(storage: &Storage, keys: &LogKeys) -> Result<()> {
    storage.put(&tlog_name(KEYS), keys.sign(&keys_note(keys))?.into()).await?;
    storage.put(&tlog_name("key"), format!("{}\n", keys.vkey()).into()).await?;
    for name in ["table", "checkpoint"].map(tlog_name) {
        if let Some(note) = storage.try_get(&name).await? {
            let text = open_note(&note, &keys.vkeys()).map_err(|e| Error::damaged(&name, e))?;
            storage.put(&name, keys.sign(&text)?.into()).await?;
        }
    }
    Ok(())
}
