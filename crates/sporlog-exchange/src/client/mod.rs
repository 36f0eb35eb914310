//! A client of other SFTP servers: files are fetched from them, or delivered to them, each once.
//!
//! Made to be run again and again by a timer. The [`journal`] says what was transferred; a transfer that was cut off by
//! the network, by Ctrl-C or by a kill is resumed. A file gets its name only when all of it is there and has been
//! checked. A server is trusted only if its key is known beforehand, and names that a server makes up never lead out of
//! the folder.
//!
//! | module | idea |
//! |---|---|
//! | [`address`] | `sftp://user@host/folder` |
//! | [`host_key`] | connecting to a server that shows the key it should have |
//! | [`identity`] | signing in with key files or an agent |
//! | [`connection`] | SFTP requests, many under way at a time |
//! | `link` | a lost connection is made anew |
//! | [`journal`] | what was transferred |
//! | `names` | names that files here may have, and patterns of names |
//! | [`pull`], `part`, `manifest` | fetching: a file while it is incomplete, and checksums that come along |
//! | [`push`], `upload`, `receipts` | delivering: one file, and what a Sporlog server made of it |

pub mod address;
pub mod connection;
pub mod error;
pub mod host_key;
pub mod identity;
pub mod journal;
mod link;
mod manifest;
mod names;
mod part;
pub mod pull;
pub mod push;
mod receipts;
#[cfg(test)]
mod tests;
mod upload;

use serde::Serialize;

pub use address::Address;
pub use connection::Access;
pub use error::{Error, Result};
pub use host_key::HostKeys;
pub use identity::Identities;
pub use pull::{Pull, pull};
pub use push::{Push, Wait, push};
pub use tokio_util::sync::CancellationToken;

use super::Receipt;

/// What became of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The file was fetched.
    Fetched,
    /// The file was sent.
    Sent,
    /// The file was transferred before.
    Known,
    /// The file would be transferred if this were no rehearsal.
    Due,
    /// The file was transferred, but something about it is not as it should be.
    Differs,
    /// The file must not be transferred, or a receipt refuses it.
    Refused,
    /// The file could not be transferred.
    #[default]
    Failed,
}

/// A file, and what became of it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What became of it.
    pub outcome: Outcome,
    /// The file's address.
    pub remote: String,
    /// The local file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The file's size.
    pub bytes: u64,
    /// The file's SHA-256, in hexadecimal, if it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// How many bytes an earlier run had transferred.
    #[serde(skip_serializing_if = "is_zero")]
    pub resumed_at: u64,
    /// Whether this run transferred the file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub transferred: bool,
    /// Whether the file was removed from the server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// Reasons and remarks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The receiver's receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
}

impl Item {
    fn new(outcome: Outcome, remote: String) -> Self {
        Item { outcome, remote, ..Item::default() }
    }

    /// Adds a remark to the note.
    fn remark(&mut self, note: &str) {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note);
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Receives the progress and the outcome of transfers.
pub trait Watch: Sync {
    /// A file of so many bytes is begun or resumed.
    fn begun(&self, name: &str, bytes: u64);
    /// So many bytes of the file have been transferred.
    fn at(&self, bytes: u64);
    /// A file has been dealt with.
    fn done(&self, item: &Item);
}
