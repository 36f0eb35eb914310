//! The Delta table of a log: how it is read, and how its next version is committed.
//!
//! A version is committed by putting its file in the Delta log if there is none yet. A record counts as
//! stored once that file is durable, and not before. The file list is kept in memory and moved on by what is committed, never
//! read again; only opening reads it, from the newest Delta checkpoint and the commits since.
//!
//! Nothing is taken over from a table unless the chain over its commits holds and the newest of them
//! is signed by the log's key ([`crate::commit`]).

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use sporlog_record::Kind;
use tlog_tiles::tlog::EMPTY_HASH;

use crate::commit::{Change, Commit, commit_name, compose};
use crate::delta::{Metadata, Protocol, Sha};
use crate::delta_checkpoint::DeltaCheckpoint;
use crate::error::{Error, Result};
use crate::high_water_mark::HighWaterMark;
use crate::keys::{LogKeys, PublicKey};
use crate::storage::Storage;
use crate::table_state::{Positions, TableState, forget_old};
use crate::tlog::TableNote;

/// Commits read at once when a log is opened or verified.
const COMMITS_AT_ONCE: usize = 16;

/// What became of a commit.
pub(crate) enum Committed {
    /// The commit is durable.
    Done(TableState),
    /// Somebody else's commit has this version.
    Taken,
    /// Nobody knows: the store failed, and could not be asked either.
    Unknown(Error),
}

/// What others have committed.
#[derive(Debug, Default)]
pub(crate) struct CaughtUp {
    /// The positions that moved.
    pub positions: Positions,
    /// The files that were deleted and that no commit may add any more.
    pub discarded: Vec<String>,
}

/// What the commits of a log are held against when it is opened.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub key: &'a PublicKey,
    /// How far the log has been signed, where the keys are at hand.
    pub mark: Option<&'a HighWaterMark>,
    /// The signed note on the table, if there is one.
    pub note: Option<&'a TableNote>,
}

impl Expected<'_> {
    /// Checks the signature of the commit of `version`, after which the chain is `chain`.
    pub(crate) fn check_signature(&self, version: u64, chain: &Sha, commit: &Commit) -> Result<()> {
        match &commit.signature {
            Some(signature) if self.key.signed_commit(version, chain, signature) => Ok(()),
            Some(_) => Err(Error::damaged(commit_name(version), "its signature is not by the log's key")),
            None if self.unsigned_commits() => Ok(()),
            None => Err(Error::damaged(
                commit_name(version),
                "it is not signed by the log's key: somebody who has no key has added or changed it",
            )),
        }
    }

    /// Whether the log's key has never signed a commit: then an earlier version of this program made
    /// the log, and no writer of this version has opened it yet.
    pub(crate) fn unsigned_commits(&self) -> bool {
        self.mark.is_none() && self.note.is_some_and(|note| !note.signed_commits)
    }
}

/// The Delta log of one log.
pub(crate) struct Table {
    log: Arc<str>,
    storage: Storage,
}

impl Table {
    /// The table of `log`, in the log's folder `storage`.
    pub(crate) fn new(log: &str, storage: Storage) -> Self {
        Table { log: log.into(), storage }
    }

    /// Makes the table, empty, as version 0; nothing happens if it is there.
    pub(crate) async fn create(&self, keys: &LogKeys, kind: Kind, now_ms: i64) -> Result<()> {
        let change = Change {
            protocol: Some(Protocol::current()),
            metadata: Some(Metadata::new(&self.log, kind, keys.origin(), now_ms)),
            ..Change::default()
        };
        let (bytes, _) = compose(keys, 0, &Sha::default(), (0, EMPTY_HASH), &change, now_ms)?;
        self.storage.put_new(&commit_name(0), bytes).await.map(drop)
    }

    /// The state after the first commit, and what kind of log this is, which that commit states; `None`
    /// if there is no table.
    pub(crate) async fn first(&self) -> Result<Option<(Kind, TableState)>> {
        let name = commit_name(0);
        let Some(first) = self.read_commit(0).await? else {
            // A log that is being made has none yet; one that has others has lost it.
            let others = self.read_commit(1).await?;
            return others.map_or(Ok(None), |_| Err(Error::damaged(name, "it is missing")));
        };
        let state = TableState::first_of(&Commit::parse(&name, &first)?)?;
        let kind = state.metadata.configuration.get("sporlog.kind").map(String::as_str).unwrap_or_default();
        let kind = kind.parse().map_err(|e| Error::damaged(name, e))?;
        Ok(Some((kind, state)))
    }

    /// Reads the state at the newest version.
    pub(crate) async fn load(&self, expected: &Expected<'_>) -> Result<(TableState, Positions)> {
        let mut positions = Positions::new();
        let (mut state, mut newest) = self.load_checkpoint(expected, &mut positions).await?.unzip();
        let next = state.as_ref().map_or(0, |state| state.version + 1);
        if let Some((mark, state)) = expected.mark.zip(state.as_ref()) {
            self.check_mark_before(mark, state).await?;
        }
        let mut commits = self.commits(next);
        while let Some((version, bytes)) = commits.next().await.transpose()? {
            let name = commit_name(version);
            let commit = Commit::parse(&name, &bytes)?;
            match &mut state {
                Some(state) => {
                    if let Some(problem) = state.refuses(&commit).into_iter().next() {
                        return Err(problem);
                    }
                    state.apply(&commit)?;
                }
                None => state = Some(TableState::first_of(&commit)?),
            }
            positions.extend(commit.positions());
            if let Some((mark, state)) =
                expected.mark.zip(state.as_ref()).filter(|(m, _)| m.version == version)
            {
                check_mark(mark, &state.chain)?;
            }
            newest = Some(commit);
        }
        let (Some(state), Some(newest)) = (state, newest) else {
            return Err(Error::damaged(commit_name(0), "it is not there"));
        };
        if let Some(mark) = expected.mark.filter(|mark| mark.version > state.version) {
            return Err(Error::RolledBack { log: self.log.to_string(), size: state.size, signed: mark.size });
        }
        expected.check_signature(state.version, &state.chain, &newest)?;
        forget_old(&mut positions, chrono::Utc::now().timestamp_millis());
        Ok((state, positions))
    }

    /// Holds the mark against a table that was opened at `state`, from a Delta checkpoint. The commits before
    /// are not read, but the one after the mark's names the chain at the mark.
    async fn check_mark_before(&self, mark: &HighWaterMark, state: &TableState) -> Result<()> {
        if mark.version == state.version {
            check_mark(mark, &state.chain)?;
        } else if mark.version < state.version {
            let name = commit_name(mark.version + 1);
            let after = Commit::parse(&name, &self.storage.get(&name).await?)?;
            check_mark(mark, &after.previous)?;
        }
        Ok(())
    }

    /// The state that the newest Delta checkpoint holds, with the commit of its version, if the log's
    /// key has signed for that checkpoint. A damaged or unsigned one is not used: every commit is there
    /// to be read instead.
    async fn load_checkpoint(
        &self,
        expected: &Expected<'_>,
        positions: &mut Positions,
    ) -> Result<Option<(TableState, Commit)>> {
        let Some((version, checkpoint)) = DeltaCheckpoint::load_signed(&self.storage, expected.note).await?
        else {
            return Ok(None);
        };
        let name = commit_name(version);
        let commit = Commit::parse(&name, &self.storage.get(&name).await?)?;
        positions.extend(checkpoint.positions.iter().map(|(app, position)| (app.clone(), *position)));
        Ok(Some((checkpoint.into_state(version, &commit), commit)))
    }

    /// Moves `state` on by what others have committed since.
    pub(crate) async fn catch_up(&self, key: &PublicKey, state: &mut TableState) -> Result<CaughtUp> {
        let mut found = CaughtUp::default();
        let mut newest = None;
        while let Some(bytes) = self.read_commit(state.version + 1).await? {
            let commit = Commit::parse(&commit_name(state.version + 1), &bytes)?;
            if let Some(problem) = state.refuses(&commit).into_iter().next() {
                return Err(problem);
            }
            state.apply(&commit)?;
            found.positions.extend(commit.positions());
            found.discarded.extend(commit.discarded.iter().cloned());
            newest = Some(commit);
        }
        if let Some(commit) = newest {
            let expected = Expected { key, mark: None, note: None };
            expected.check_signature(state.version, &state.chain, &commit)?;
        }
        Ok(found)
    }

    /// The bytes of the commits from `version` on, with their versions, as far as there are any.
    pub(crate) fn commits(&self, version: u64) -> BoxStream<'_, Result<(u64, Bytes)>> {
        futures::stream::iter(version..)
            .map(async move |version| self.read_commit(version).await.map(|read| Some((version, read?))))
            .buffered(COMMITS_AT_ONCE)
            .map(Result::transpose)
            .take_while(|read| std::future::ready(read.is_some()))
            .filter_map(std::future::ready)
            .boxed()
    }

    async fn read_commit(&self, version: u64) -> Result<Option<Bytes>> {
        self.storage.try_get(&commit_name(version)).await
    }

    /// Checks that the commit of `state`'s version is still there. An older copy may have been put in the
    /// place of the log while this process writes to it: what was appended after a gap could not be read.
    async fn check_newest(&self, state: &TableState) -> Result<()> {
        let name = commit_name(state.version);
        let there = match self.read_commit(state.version).await? {
            Some(bytes) => {
                let commit = Commit::parse(&name, &bytes)?;
                commit.chain_after(&commit.previous) == state.chain
            }
            None => false,
        };
        if there {
            return Ok(());
        }
        let problem = "it is missing, or another, although this process has read or written it: the log was changed \
                       or put back to an older copy meanwhile; nothing more is appended until it is there again or \
                       this process is started anew";
        Err(Error::damaged(name, problem))
    }

    /// Commits `change` as the version after `state`'s, once `before` has succeeded: the writing of
    /// what the change adds. If it fails, nothing is committed.
    pub(crate) async fn commit(
        &self,
        keys: &LogKeys,
        state: &TableState,
        change: &Change,
        now_ms: i64,
        before: impl Future<Output = Result<()>>,
    ) -> Result<Committed> {
        let version = state.version + 1;
        let (size, root) = change.appended.unwrap_or((state.size, state.root));
        let (bytes, chain) = compose(keys, version, &state.chain, (size, root), change, now_ms)?;
        let before = async {
            let (before, there) = futures::join!(before, self.check_newest(state));
            before.and(there)
        };
        match self.storage.put_new_after(&commit_name(version), bytes.clone(), before).await? {
            Ok(true) => {}
            Ok(false) => return Ok(Committed::Taken),
            // The answer may have been lost on the way: what counts is what is there.
            Err(e) => match self.read_commit(version).await {
                Ok(Some(there)) if there == bytes => {}
                Ok(Some(_)) => return Ok(Committed::Taken),
                Ok(None) => return Err(e),
                Err(_) => return Ok(Committed::Unknown(e)),
            },
        }
        let mut next = state.clone();
        (next.version, next.size, next.root, next.chain, next.signed) = (version, size, root, chain, true);
        if let Some(protocol) = &change.protocol {
            next.protocol = Arc::new(protocol.clone());
        }
        next.replace(change.added.clone(), &change.removed.iter().map(|file| file.path.as_str()).collect());
        Ok(Committed::Done(next))
    }
}

/// Holds the chain at the mark's version against the mark.
fn check_mark(mark: &HighWaterMark, chain: &Sha) -> Result<()> {
    if mark.chain == *chain {
        return Ok(());
    }
    let problem = "another commit of this version was signed: the log was put back to an older copy, and \
                   went on from there";
    Err(Error::damaged(commit_name(mark.version), problem))
}
