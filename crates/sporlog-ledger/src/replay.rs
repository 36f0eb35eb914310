//! The Delta log of a log replayed for a verification, from its first commit on: the chain, every
//! signature, the signed note on the table, and every Delta checkpoint against what the commits say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::StreamExt;
use sha2::{Digest, Sha256};
use tlog_tiles::tlog::Hash;

use crate::commit::{Commit, RolledBack, commit_name};
use crate::delta::{DELTA_LOG, DataFile, Sha, checkpoint_name, checkpoint_version};
use crate::delta_checkpoint::{DeltaCheckpoint, last_checkpoint_name};
use crate::error::{Error, Result};
use crate::high_water_mark::HighWaterMark;
use crate::journal::{Extent, Frame, scan_all, segment_name};
use crate::keys::open_note;
use crate::log::Shared;
use crate::table::Expected;
use crate::table_state::{Positions, TableState};
use crate::tlog::{TableNote, read_note, tlog_name};
use crate::verified::Verified;

/// What the Delta log and the journal say there is.
pub(crate) struct Replayed {
    /// The data files, in the order of their ids.
    pub files: Arc<Vec<Arc<DataFile>>>,
    /// The frames after the newest commit.
    pub frames: Vec<Frame>,
    pub newest: Newest,
}

/// What the newest commit or frame states.
pub(crate) struct Newest {
    /// The commit's file, or the segment that the frame is in.
    pub name: String,
    /// The segment that follows the newest commit, whether there is one or not.
    pub segment: String,
    pub size: u64,
    pub root: Hash,
}

/// Replays the Delta log of a log.
pub(crate) async fn replay(shared: &Shared, verified: &mut Verified) -> Result<Replayed> {
    // What other files say about commits is read first: others may append meanwhile.
    let mark = match &shared.keys {
        Some((_, dir)) => HighWaterMark::load(dir, &shared.name)?,
        None => None,
    };
    let note = read_note_strictly(shared, verified).await?;
    let expected = Expected { key: &shared.key, mark: mark.as_ref(), note: note.as_ref() };
    let mut checkpoints = Checkpoints::find(shared, note.as_ref()).await?;

    let mut state: Option<TableState> = None;
    let mut positions = Positions::new();
    let mut commits = shared.table.commits(0);
    while let Some((version, bytes)) = commits.next().await.transpose()? {
        let name = commit_name(version);
        verified.commits += 1;
        let commit = Commit::parse(&name, &bytes)?;
        match &mut state {
            Some(state) => {
                state.refuses(&commit).into_iter().for_each(|problem| verified.found(problem));
                state.apply(&commit)?;
            }
            None => state = Some(TableState::first_of(&commit)?),
        }
        positions.extend(commit.positions());
        if let Some(given_up) = &commit.given_up {
            verified.rolled_back.push(RolledBack { from: given_up.size, to: commit.size });
        }
        let Some(state) = &state else { continue };
        if commit.signature.is_some() || verified.signed {
            // Commits of earlier versions of this program come before the first that is signed.
            let signed = Expected { note: None, ..expected }.check_signature(version, &state.chain, &commit);
            verified.signed |= commit.signature.is_some();
            verified.check(signed);
        }
        if let Some(note) = note.as_ref().filter(|note| note.version == version)
            && note.chain != state.chain
        {
            let problem = format!("the commits up to version {version} are not those that were signed for");
            verified.found(Error::damaged(name, problem));
        }
        checkpoints.compare(shared, verified, state, &positions).await?;
    }
    let Some(state) = state else { return Err(Error::damaged(commit_name(0), "it is missing")) };
    if !verified.signed && !expected.unsigned_commits() {
        let problem = "neither this commit nor one before it is signed by the log's key";
        verified.found(Error::damaged(commit_name(state.version), problem));
    }
    if let Some(note) = note.as_ref().filter(|note| note.version > state.version) {
        let problem = format!("it is missing; commits up to {} were signed for", note.version);
        verified.found(Error::damaged(commit_name(state.version + 1), problem));
    }
    if let Some(mark) = mark.as_ref().filter(|mark| mark.version > state.version) {
        let (log, size, signed) = (shared.name.to_string(), state.size, mark.size);
        verified.found(Error::RolledBack { log, size, signed });
    }
    checkpoints.finish(verified);
    let frames = read_frames(shared, verified, &state, &expected).await?;
    let segment = segment_name(state.version);
    let newest = match frames.last() {
        Some(Frame { size, root, .. }) => Newest { name: segment.clone(), segment, size: *size, root: *root },
        None => Newest { name: commit_name(state.version), segment, size: state.size, root: state.root },
    };
    verified.head = newest.size;
    Ok(Replayed { files: state.files, frames, newest })
}

/// The frames after the newest commit, which led to `state`: up to the first that is not as it should be.
async fn read_frames(
    shared: &Shared,
    verified: &mut Verified,
    state: &TableState,
    expected: &Expected<'_>,
) -> Result<Vec<Frame>> {
    let none = Extent::none(state.version, state.chain);
    let segments = &shared.table.segments;
    let bytes = segments.read(&none).await?.unwrap_or_default();
    let (scanned, damage) = scan_all(&none, &bytes, segments.tail());
    damage.into_iter().for_each(|damage| verified.found(damage));
    let (mut frames, mut size) = (Vec::new(), state.size);
    for frame in scanned {
        if frames.last().is_some_and(|last: &Frame| last.seal) {
            let problem = format!("its frame {} follows a seal", frame.after.frames);
            verified.found(Error::damaged(none.name(), problem));
            break;
        }
        let read = frame.check_signature(expected.key, &bytes);
        let read = read.and_then(|()| expected.check_frame(&frame.after)).and_then(|()| frame.decode(&bytes));
        match read {
            Ok(decoded) if decoded.size == size + decoded.rows.num_rows() as u64 => {
                size = decoded.size;
                frames.push(decoded);
            }
            Ok(_) => {
                let problem =
                    format!("its frame {} does not have the records that it should", frame.after.frames);
                verified.found(Error::damaged(none.name(), problem));
                break;
            }
            Err(error) => {
                verified.found(error);
                break;
            }
        }
    }
    let signed_for =
        |mark: &&HighWaterMark| mark.version == state.version && mark.frames > frames.len() as u64;
    if let Some(mark) = expected.mark.filter(signed_for) {
        let problem = format!(
            "it ends with frame {}, and frames up to {} were signed: it was cut, or an older copy of the log was put in \
             the place of a newer one",
            frames.len(),
            mark.frames
        );
        verified.found(Error::damaged(none.name(), problem));
    }
    Ok(frames)
}

/// The signed note on the table; a missing or damaged one is a problem.
async fn read_note_strictly(shared: &Shared, verified: &mut Verified) -> Result<Option<TableNote>> {
    let name = tlog_name("table");
    let note = shared.storage.try_get(&name).await?.ok_or_else(|| "it is missing".to_owned());
    let note = note.and_then(|note| open_note(&note, &shared.vkey));
    let note = note.and_then(|text| TableNote::parse(&text).ok_or_else(|| "it is no note on a table".into()));
    Ok(note.map_err(|problem| verified.found(Error::damaged(name, problem))).ok())
}

/// The Delta checkpoints that there are, and what they are held against.
struct Checkpoints {
    /// The checkpoints still to be compared, by version: the digest that was signed for, if it was.
    waiting: BTreeMap<u64, Option<Sha>>,
    /// What the hint on the newest checkpoint says.
    hint: Option<Bytes>,
    /// What the hint on each checkpoint that was compared has to be.
    hints: HashMap<u64, Bytes>,
    /// The hint of earlier versions of this program, which the note has a digest of.
    hint_digest: Option<Sha>,
    /// Whether a checkpoint was signed for.
    signed: bool,
}

impl Checkpoints {
    async fn find(shared: &Shared, note: Option<&TableNote>) -> Result<Self> {
        let hint = shared.storage.try_get(&last_checkpoint_name()).await?;
        let there = shared.storage.list(DELTA_LOG).await?;
        let mut waiting: BTreeMap<u64, Option<Sha>> =
            there.iter().filter_map(|name| checkpoint_version(name)).map(|version| (version, None)).collect();
        let mut hint_digest = None;
        for (name, digest) in note.into_iter().flat_map(|note| &note.files) {
            match checkpoint_version(name) {
                Some(version) => drop(waiting.insert(version, Some(*digest))),
                None => hint_digest = Some(*digest),
            }
        }
        let signed = waiting.values().any(Option::is_some);
        Ok(Checkpoints { waiting, hint, hints: HashMap::new(), hint_digest, signed })
    }

    /// Compares the checkpoint of `state`'s version, if there is one, with the state.
    async fn compare(
        &mut self,
        shared: &Shared,
        verified: &mut Verified,
        state: &TableState,
        positions: &Positions,
    ) -> Result<()> {
        let Some(signed) = self.waiting.remove(&state.version) else { return Ok(()) };
        let name = checkpoint_name(state.version);
        let Some(bytes) = shared.storage.try_get(&name).await? else {
            // Only one that a newer one has replaced may go, and then a newer note vouches for that.
            let newer = read_note(&shared.storage, &shared.vkey).await?;
            if newer.is_some_and(|note| note.files.iter().any(|(vouched, _)| *vouched == name)) {
                verified.found(Error::damaged(name, "it is missing"));
            } else if shared.storage.try_get(&last_checkpoint_name()).await? != self.hint {
                // The hint that was read before may have been on this one.
                self.hints.extend(self.hint.clone().map(|hint| (state.version, hint)));
            }
            return Ok(());
        };
        if signed.is_some_and(|signed| Sha::from(Sha256::digest(&bytes)) != signed) {
            verified.found(Error::damaged(&name, "it has been changed: its digest is not the recorded one"));
        }
        match DeltaCheckpoint::decode(&name, bytes) {
            Ok(checkpoint) => match checkpoint.difference(state, positions) {
                Some(difference) => verified.found(Error::damaged(name, difference)),
                None => drop(self.hints.insert(state.version, checkpoint.hint(state.version)?)),
            },
            Err(error) => verified.found(error),
        }
        Ok(())
    }

    /// Reports checkpoints of versions that there are no commits of, and a hint on none that was compared.
    fn finish(self, verified: &mut Verified) {
        for version in self.waiting.into_keys() {
            let problem = "there is no commit of its version";
            verified.found(Error::damaged(checkpoint_name(version), problem));
        }
        let Some(hint) = self.hint else {
            if self.signed {
                verified.found(Error::damaged(last_checkpoint_name(), "it is missing"));
            }
            return;
        };
        let right = match self.hint_digest {
            Some(digest) => Sha::from(Sha256::digest(&hint)) == digest,
            None => self.hints.values().any(|right| *right == hint),
        };
        if !right {
            let problem = "it does not point to a checkpoint that holds what the commits say";
            verified.found(Error::damaged(last_checkpoint_name(), problem));
        }
    }
}
