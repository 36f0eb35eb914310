//! A client towards other SFTP servers: files are fetched from them, or delivered to them, each once.
//!
//! Made to be run again and again by a timer. What was transferred stands in a [`journal`]; a transfer
//! that was cut off, be it by the network, by Ctrl-C or by a kill, goes on where it was. A file
//! appears under its name only when all of it is there and has been checked. A server is trusted
//! only if its key is known beforehand, and names that it makes up never lead out of the folder.
//!
//! | module | idea |
//! |---|---|
//! | [`address`] | `sftp://user@host/folder` |
//! | [`known_hosts`] | whether the server is who it should be |
//! | [`identity`] | who we are: key files, an agent |
//! | `handshake` | the first words, and whether we go on |
//! | [`connection`] | SFTP requests, many under way at a time |
//! | `link` | a lost connection is made anew |
//! | [`journal`] | what was transferred |
//! | `local`, `part` | files here: their names, and while they are incomplete |
//! | [`pull`] | fetching |
//! | [`push`], `upload` | delivering |
//! | `manifest` | checksums that come with the files |
//! | `receipts` | what a Sporlog server made of a delivery |

pub mod address;
pub mod connection;
pub mod error;
mod handshake;
pub mod identity;
pub mod journal;
pub mod known_hosts;
mod link;
mod local;
mod manifest;
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
pub use identity::Identities;
pub use known_hosts::HostKeys;
pub use pull::{Pull, pull};
pub use push::{Push, Wait, push};
pub use tokio_util::sync::CancellationToken;

use super::Receipt;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was fetched.
    Fetched,
    /// It was sent.
    Sent,
    /// It was transferred before.
    Known,
    /// It would be transferred now, but this is a rehearsal.
    Due,
    /// It is there, but something about it is not as it should be.
    Differs,
    /// We did not want to transfer it, or a receipt refuses it.
    Refused,
    /// It could not be transferred.
    Failed,
}

/// A file, and what became of it.
#[derive(Debug, Clone, Serialize)]
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
    /// Its SHA-256, in hexadecimal, if it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// How much of it was there from an earlier run.
    #[serde(skip_serializing_if = "is_zero")]
    pub resumed_at: u64,
    /// Whether it was transferred by this run.
    #[serde(skip_serializing_if = "is_false")]
    pub transferred: bool,
    /// Whether it was removed from the server.
    #[serde(skip_serializing_if = "is_false")]
    pub removed: bool,
    /// Why, or what else there is to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What the receiver made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
}

impl Item {
    fn new(outcome: Outcome, remote: String) -> Self {
        Item {
            outcome,
            remote,
            file: String::new(),
            bytes: 0,
            sha256: String::new(),
            resumed_at: 0,
            transferred: false,
            removed: false,
            note: String::new(),
            receipt: None,
        }
    }

    /// Says what else there is to say.
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Who is told how it goes.
pub trait Watch: Sync {
    /// A file of so many bytes is begun, or gone on with.
    fn begun(&self, name: &str, bytes: u64);
    /// So much of it is transferred.
    fn at(&self, bytes: u64);
    /// That is what became of a file.
    fn done(&self, item: &Item);
}
