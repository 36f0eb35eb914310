//! One commit of the Delta log as bytes: what it changes, what it states about the log, the chain over
//! all commits before it, and its signature.
//!
//! The first line is Delta's `commitInfo`. Under `sporlog` it states the log's size and the Merkle
//! tree's root after this commit, and the chain before it:
//!
//! ```text
//! chain(v) = SHA-256(chain(v - 1) ‖ SHA-256(commit v with an empty signature)),   chain(-1) = 32 zeros
//! ```
//!
//! The signature (Ed25519, by the log's key) is over a text with `chain(v)` ([`LogKeys::sign_commit`]). So a signed
//! commit vouches for all commits before it, and nobody without the key can add one.
//!
//! A commit that takes over the frames of the journal ([`crate::journal`]) states how many they are and the chain after
//! the last of them, as `journal`.
//!
//! The signature's 88 characters stand at the very end of the first line. In any other place a
//! signature does not count, so that there is one way only to take a commit apart. Commits of earlier
//! versions of this program have none.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sporlog_record::hex;
use std::sync::Arc;
use tlog_tiles::tlog::Hash;

use crate::delta::{Action, DELTA_LOG, DataFile, Metadata, Protocol, Sha, Txn, unhex};
use crate::error::{Error, Result};
use crate::keys::LogKeys;
use crate::schema;

/// How far a source has been taken in: Delta's `txn` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The source's own position, such as a Kafka offset.
    pub version: i64,
    /// When that was committed, in milliseconds UTC.
    pub at: i64,
}

/// What a commit changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub added: Vec<DataFile>,
    pub removed: Vec<Arc<DataFile>>,
    /// How far sources have been taken in after this commit.
    pub positions: Vec<(String, Position)>,
    /// The frames of the journal that it takes over, with all their records and positions.
    pub journal: Option<TakenOver>,
    /// The log's size and root after this commit, if it appends.
    pub appended: Option<(u64, Hash)>,
    /// Files of the log's folder that are deleted after this commit, and that no later commit may add.
    pub discarded: Vec<String>,
    /// What had been signed and is missing, where the log goes on without it.
    pub given_up: Option<GivenUp>,
    /// The table's protocol and metadata, where they are stated anew.
    pub protocol: Option<Protocol>,
    pub metadata: Option<Metadata>,
}

impl Change {
    /// The name of what is done, as Delta's history shows it.
    fn operation(&self) -> &'static str {
        match self {
            Change { metadata: Some(_), .. } => "CREATE TABLE",
            Change { given_up: Some(_), .. } => "RESTORE",
            Change { protocol: Some(_), .. } => "UPGRADE PROTOCOL",
            Change { discarded, .. } if !discarded.is_empty() => "VACUUM START",
            Change { added, removed, .. } if removed.is_empty() || added.is_empty() => {
                if removed.is_empty() {
                    "WRITE"
                } else {
                    "DELETE"
                }
            }
            _ => "OPTIMIZE",
        }
    }

    /// False if files are merely replaced by others with the same records.
    fn data_change(&self) -> bool {
        self.added.is_empty() || self.removed.is_empty()
    }
}

/// How far a log had been signed that goes on from an older copy ([`crate::rollback`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenUp {
    /// The newest record that had been signed for.
    pub size: u64,
    /// The newest version that had been signed, if it is known.
    pub version: Option<u64>,
}

/// The frames of a segment that a commit takes over ([`crate::journal`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakenOver {
    pub frames: u64,
    /// The chain after the last of them, in hexadecimal digits.
    chain: String,
}

impl TakenOver {
    pub(crate) fn new(frames: u64, chain: &Sha) -> Self {
        TakenOver { frames, chain: hex(chain) }
    }
}

/// What was given up where a log went on from an older copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The newest record that had been signed for.
    pub from: u64,
    /// The newest record that there is.
    pub to: u64,
}

/// Delta's `commitInfo`; `sporlog` has to be the last field.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitInfo {
    timestamp: i64,
    operation: String,
    #[serde(default)]
    operation_parameters: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    engine_info: String,
    sporlog: Statement,
}

/// What a commit states about the log; the signature has to be the last field.
#[derive(Serialize, Deserialize)]
struct Statement {
    size: u64,
    root: String,
    previous: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    journal: Option<TakenOver>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    discarded: Vec<String>,
    #[serde(default, rename = "givenUp", skip_serializing_if = "Option::is_none")]
    given_up: Option<GivenUp>,
    #[serde(default)]
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FirstLine {
    commit_info: CommitInfo,
}

/// A commit, taken apart.
#[derive(Debug)]
pub(crate) struct Commit {
    pub actions: Vec<Action>,
    pub size: u64,
    pub root: Hash,
    /// The chain before this commit.
    pub previous: Sha,
    pub journal: Option<TakenOver>,
    pub discarded: Vec<String>,
    pub given_up: Option<GivenUp>,
    /// `None` in commits of earlier versions of this program.
    pub signature: Option<Vec<u8>>,
    /// SHA-256 of the commit's bytes, with the signature left empty.
    digest: Sha,
}

/// The name of a version's file, relative to the log's folder.
pub(crate) fn commit_name(version: u64) -> String {
    format!("{DELTA_LOG}/{version:020}.json")
}

/// What follows the signature on the first line.
const LINE_END: &str = "\"}}}";
/// What precedes the signature.
const BEFORE_SIGNATURE: &str = "\"signature\":\"";
/// The length of an Ed25519 signature in Base64.
const SIGNATURE: usize = 88;

/// Where the signature of a commit's bytes stands, if it has one.
fn signature_place(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let line = bytes.split(|b| *b == b'\n').next()?;
    let end = line.strip_suffix(LINE_END.as_bytes())?.len();
    let start = end.checked_sub(SIGNATURE)?;
    line[..start].ends_with(BEFORE_SIGNATURE.as_bytes()).then_some(start..end)
}

/// The signed commit that makes `change`, as version `version` after a chain of `previous`; `size` and
/// `root` are the log's after it. Gives its bytes and the chain after it.
pub(crate) fn compose(
    keys: &LogKeys,
    version: u64,
    previous: &Sha,
    (size, root): (u64, Hash),
    change: &Change,
    now_ms: i64,
) -> Result<(Bytes, Sha)> {
    let unwritable = |e: serde_json::Error| Error::damaged(commit_name(version), e);
    let statement = Statement {
        size,
        root: BASE64_STANDARD.encode(root.0),
        previous: hex(previous),
        journal: change.journal.clone(),
        discarded: change.discarded.clone(),
        given_up: change.given_up.clone(),
        signature: String::new(),
    };
    let commit_info = CommitInfo {
        timestamp: now_ms,
        operation: change.operation().to_owned(),
        operation_parameters: serde_json::Map::new(),
        engine_info: schema::ENGINE.to_owned(),
        sporlog: statement,
    };
    let mut text = serde_json::to_string(&FirstLine { commit_info }).map_err(unwritable)?;
    let place = text.len() - LINE_END.len();
    let (protocol, meta_data) = (change.protocol.clone(), change.metadata.clone());
    let removes = change.removed.iter().map(|file| file.remove(change.data_change(), now_ms));
    let removes = removes.map(|remove| Action { remove: Some(remove), ..Action::default() });
    let txn = |(app_id, position): &(String, Position)| Txn {
        app_id: app_id.clone(),
        version: position.version,
        last_updated: Some(position.at),
    };
    let actions = (protocol.map(|protocol| Action { protocol: Some(protocol), ..Action::default() }))
        .into_iter()
        .chain(meta_data.map(|metadata| Action { meta_data: Some(metadata), ..Action::default() }))
        .chain(removes)
        .chain(change.added.iter().map(|file| file.add(change.data_change()).into()))
        .chain(change.positions.iter().map(|position| txn(position).into()));
    for action in actions {
        text.push('\n');
        text.push_str(&serde_json::to_string(&action).map_err(unwritable)?);
    }
    let chain = extend_chain(previous, &Sha256::digest(&text).into());
    let signature = keys.sign_commit(version, &chain)?;
    text.insert_str(place, &BASE64_STANDARD.encode(signature));
    Ok((text.into(), chain))
}

fn extend_chain(previous: &Sha, digest: &Sha) -> Sha {
    Sha256::new().chain_update(previous).chain_update(digest).finalize().into()
}

impl Commit {
    /// Takes the bytes of the commit file `name` apart. The signature is not checked here.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let foreign = || Error::damaged(name, "this commit was not made by Sporlog");
        let mut actions = Vec::new();
        let mut statement = None;
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            if let Ok(first) = serde_json::from_slice::<FirstLine>(line) {
                statement = Some(first.commit_info.sporlog);
                continue;
            }
            actions.push(serde_json::from_slice(line).map_err(|e| Error::damaged(name, e))?);
        }
        let statement: Statement = statement.ok_or_else(foreign)?;
        let root = BASE64_STANDARD.decode(&statement.root).ok().and_then(|root| root.try_into().ok());
        let place = signature_place(bytes);
        let digest = match &place {
            Some(place) => {
                Sha256::new().chain_update(&bytes[..place.start]).chain_update(&bytes[place.end..]).finalize()
            }
            None => Sha256::digest(bytes),
        };
        let signature = match place {
            Some(place) => Some(
                BASE64_STANDARD
                    .decode(&bytes[place])
                    .map_err(|_| Error::damaged(name, "its signature is not Base64"))?,
            ),
            None => None,
        };
        Ok(Commit {
            actions,
            size: statement.size,
            root: Hash(root.ok_or_else(foreign)?),
            previous: unhex(&statement.previous).ok_or_else(foreign)?,
            journal: statement.journal,
            discarded: statement.discarded,
            given_up: statement.given_up,
            signature,
            digest: digest.into(),
        })
    }

    /// Whether this commit may have all of the `frames` before it, after which the chain is `chain`.
    pub(crate) fn takes_over(&self, frames: u64, chain: &Sha) -> bool {
        let stated = self.journal.as_ref();
        frames == 0
            || stated.is_some_and(|stated| stated.frames > frames || *stated == TakenOver::new(frames, chain))
    }

    /// The chain after this commit, from the chain before it.
    pub(crate) fn chain_after(&self, previous: &Sha) -> Sha {
        extend_chain(previous, &self.digest)
    }

    /// The files that this commit adds; `name` is its file, for errors.
    pub(crate) fn added(&self, name: &str) -> Result<Vec<DataFile>> {
        self.actions.iter().filter_map(|a| a.add.clone()).map(|add| DataFile::from_add(name, add)).collect()
    }

    /// The paths of the files that this commit removes.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().filter_map(|a| a.remove.as_ref()).map(|remove| remove.path.as_str())
    }

    /// How far this commit has taken sources in.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (String, Position)> {
        self.actions.iter().filter_map(|a| a.txn.as_ref()).map(position)
    }
}

/// The position that a `txn` action states.
pub(crate) fn position(txn: &Txn) -> (String, Position) {
    (txn.app_id.clone(), Position { version: txn.version, at: txn.last_updated.unwrap_or_default() })
}
