//! The Delta table of a log: how it is read, and how its next version is committed.
//!
//! A version is committed by putting its file in the Delta log if there is none yet. A record counts as
//! stored once that file is durable, and not before. The file list is kept in memory and moved on by what is committed, never
//! read again; only opening reads it, from the newest Delta checkpoint and the commits since.
//!
//! Nothing is taken over from a table unless the chain over its commits holds and the newest of them
//! is signed by the log's key ([`crate::commit`]); and so it is with the frames of the journal, which follow the
//! newest commit ([`crate::journal`]).

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt};
use sporlog_record::Kind;
use tlog_tiles::tlog::EMPTY_HASH;

use crate::commit::{Change, Commit, commit_name, compose};
use crate::delta::{Metadata, Protocol, Sha};
use crate::delta_checkpoint::DeltaCheckpoint;
use crate::error::{Error, Result};
use crate::high_water_mark::HighWaterMark;
use crate::journal::{Extent, JOURNAL, scan};
use crate::keys::{LogKeys, PublicKey};
use crate::recent::Recent;
use crate::segment::{Segments, is_trusted};
use crate::segment_files::MISSING;
use crate::storage::Storage;
use crate::table_state::{Positions, Sources, TableState, forget_old};
use crate::tlog::TableNote;

/// Commits that are read at once.
pub(crate) const COMMITS_AT_ONCE: usize = 16;

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
    pub sources: Sources,
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
    /// Nothing but that the log's key has signed.
    pub(crate) fn signed_by(key: &PublicKey) -> Expected<'_> {
        Expected { key, mark: None, note: None }
    }

    /// Moves `state` on by `commit`, the next one.
    fn take_over(&self, state: &mut TableState, commit: &Commit) -> Result<()> {
        if let Some(problem) = state.refuses(commit).into_iter().next() {
            return Err(problem);
        }
        if let Some(mark) = self.mark.filter(|mark| mark.version == state.version) {
            check_taken_over(mark, commit)?;
        }
        state.apply(commit)
    }

    /// Holds a frame, with which a segment goes as far as `after`, against the mark.
    pub(crate) fn check_frame(&self, after: &Extent) -> Result<()> {
        let marked = self.mark.filter(|mark| (mark.version, mark.frames) == (after.version, after.frames));
        if marked.is_none_or(|mark| mark.end == after.chain) {
            return Ok(());
        }
        let problem = format!("another frame {} was signed: {PUT_BACK}", after.frames);
        Err(Error::damaged(after.name(), problem))
    }

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

/// The Delta log of one log, and the journal after it.
pub(crate) struct Table {
    log: Arc<str>,
    storage: Storage,
    pub segments: Segments,
    /// In a bucket: an extent after which there was nothing, and when that was. By the clock of the machine, which goes on while
    /// the machine sleeps.
    end: Mutex<Option<(Extent, DateTime<Utc>)>>,
}

impl Table {
    /// The table of `log`, in the log's folder `storage`.
    pub(crate) fn new(log: &str, storage: Storage) -> Self {
        Table { log: log.into(), segments: Segments::of(&storage), storage, end: Mutex::default() }
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

    /// Reads the newest state.
    pub(crate) async fn load(&self, expected: &Expected<'_>) -> Result<(TableState, Sources)> {
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
                Some(state) => expected.take_over(state, &commit)?,
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
        let (Some(mut state), Some(newest)) = (state, newest) else {
            return Err(Error::damaged(commit_name(0), "it is not there"));
        };
        expected.check_signature(state.version, &state.chain, &newest)?;
        let mut sources = Sources { table: positions, journal: Positions::new() };
        let found = self.catch_up(expected, &mut state).await?;
        sources.table.extend(found.sources.table);
        sources.journal = found.sources.journal;
        let signed_for =
            |mark: &&HighWaterMark| (mark.version, mark.frames) > (state.version, state.recent.extent.frames);
        if let Some(mark) = expected.mark.filter(signed_for) {
            return Err(Error::RolledBack { log: self.log.to_string(), size: state.size, signed: mark.size });
        }
        forget_old(&mut sources.table, chrono::Utc::now().timestamp_millis());
        Ok((state, sources))
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
            check_taken_over(mark, &after)?;
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

    /// Moves `state` on by what others have committed and appended since.
    pub(crate) async fn catch_up(&self, expected: &Expected<'_>, state: &mut TableState) -> Result<CaughtUp> {
        let mut found = CaughtUp::default();
        // In a bucket a commit follows a seal, and so whoever was at the end a short time ago looks for a frame first.
        let mut commit_possible = !self.was_end(&state.recent.extent);
        loop {
            let (mut newest, began) = (None, Utc::now());
            while commit_possible && let Some(bytes) = self.read_commit(state.version + 1).await? {
                let commit = Commit::parse(&commit_name(state.version + 1), &bytes)?;
                expected.take_over(state, &commit)?;
                found.sources.committed(commit.positions());
                found.discarded.extend(commit.discarded.iter().cloned());
                newest = Some(commit);
            }
            if let Some(commit) = newest {
                expected.check_signature(state.version, &state.chain, &commit)?;
            }
            if self.read_journal(expected, state, &mut found.sources.journal).await? {
                if state.recent.sealed && !commit_possible {
                    commit_possible = true;
                    continue;
                }
                self.note_end(state, began);
                return Ok(found);
            }
            // A segment goes after the commit that takes its frames over. Where there is no such commit, there
            // was no segment when it was looked for.
            if self.read_commit(state.version + 1).await?.is_none() {
                let extent = &state.recent.extent;
                return match extent.frames {
                    0 => Ok(found),
                    _ => {
                        Err(Error::damaged(extent.name(), "it is missing, although this process has read it"))
                    }
                };
            }
            commit_possible = true;
        }
    }

    /// Whether there was nothing after `extent` a short time ago ([`is_trusted`]). A commit that came since follows a seal,
    /// which is still there.
    fn was_end(&self, extent: &Extent) -> bool {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        end.as_ref().is_some_and(|(end, at)| end == extent && is_trusted(*at))
    }

    /// There was nothing after `state` at the time `at`.
    fn note_end(&self, state: &TableState, at: DateTime<Utc>) {
        if self.segments.are_sealed() && !state.recent.sealed {
            *self.end.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((state.recent.extent.clone(), at));
        }
    }

    /// Moves `state` on by the frames that were appended after it. False if its segment is not there.
    async fn read_journal(
        &self,
        expected: &Expected<'_>,
        state: &mut TableState,
        positions: &mut Positions,
    ) -> Result<bool> {
        let (before, key) = (state.recent.extent.clone(), expected.key.clone());
        let Some(bytes) = self.segments.read(&before).await? else { return Ok(false) };
        if bytes.is_empty() {
            return Ok(true);
        }
        let tail = self.segments.tail();
        let decode = move || {
            let scanned = scan(&before, &bytes, tail)?;
            if let Some(newest) = scanned.last() {
                newest.check_signature(&key, &bytes)?;
            }
            let frames = scanned.into_iter().map(|frame| Ok((frame.decode(&bytes)?, frame.after)));
            frames.collect::<Result<Vec<_>>>()
        };
        let frames = tokio::task::spawn_blocking(decode).await;
        let frames = frames.map_err(|e| Error::Io { what: JOURNAL.into(), source: e.into() })??;
        for (frame, after) in frames {
            expected.check_frame(&after)?;
            state.push(&frame, after)?;
            positions.extend(frame.positions);
        }
        Ok(true)
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

    /// Checks that the commit of `state`'s version and the frames after it are still there. An older copy may have
    /// been put in the place of the log while this process writes to it: what was appended after a gap could not be
    /// read.
    pub(crate) async fn check_newest(&self, state: &TableState) -> Result<()> {
        let name = commit_name(state.version);
        let there = match self.read_commit(state.version).await? {
            Some(bytes) => {
                let commit = Commit::parse(&name, &bytes)?;
                commit.chain_after(&commit.previous) == state.chain
            }
            None => false,
        };
        if there {
            return match self.segments.check(&state.recent.extent) {
                // The next commit has taken them over.
                Err(_) if self.read_commit(state.version + 1).await?.is_some() => Ok(()),
                checked => checked,
            };
        }
        Err(Error::damaged(name, MISSING))
    }

    /// Commits `change`, whose files are written, as the version after `state`'s.
    pub(crate) async fn commit(
        &self,
        keys: &LogKeys,
        state: &TableState,
        change: &Change,
        now_ms: i64,
    ) -> Result<Committed> {
        let version = state.version + 1;
        let (size, root) = change.appended.unwrap_or((state.size, state.root));
        let (bytes, chain) = compose(keys, version, &state.chain, (size, root), change, now_ms)?;
        self.check_newest(state).await?;
        match self.storage.put_new(&commit_name(version), bytes).await {
            Ok(true) => {}
            Ok(false) => return Ok(Committed::Taken),
            Err(error @ Error::Unsure { .. }) => return Ok(Committed::Unknown(error)),
            Err(error) => return Err(error),
        }
        let mut next = state.clone();
        (next.version, next.size, next.root, next.chain, next.signed) = (version, size, root, chain, true);
        next.recent = Recent::none(version, chain);
        if let Some(protocol) = &change.protocol {
            next.protocol = Arc::new(protocol.clone());
        }
        next.replace(change.added.clone(), &change.removed.iter().map(|file| file.path.as_str()).collect());
        Ok(Committed::Done(next))
    }
}

const PUT_BACK: &str = "the log was put back to an older copy, and went on from there";

/// Holds the commit after the mark's, which takes over the frames between them, against the mark.
fn check_taken_over(mark: &HighWaterMark, commit: &Commit) -> Result<()> {
    if commit.takes_over(mark.frames, &mark.end) {
        return Ok(());
    }
    let problem = format!("it does not take over the {} frames that were signed: {PUT_BACK}", mark.frames);
    Err(Error::damaged(commit_name(mark.version + 1), problem))
}

/// Holds the chain at the mark's version against the mark.
fn check_mark(mark: &HighWaterMark, chain: &Sha) -> Result<()> {
    if mark.chain == *chain {
        return Ok(());
    }
    let problem = format!("another commit of this version was signed: {PUT_BACK}");
    Err(Error::damaged(commit_name(mark.version), problem))
}
