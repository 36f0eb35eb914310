//! Where a writer begins: the log is held against what was signed, and what a crash left undone after
//! the last commit is done.
//!
//! A record counts as stored once its commit, or its frame in the journal, is durable, and not before. Tiles, the
//! checkpoint and the note on the table follow and may be missing after a crash; they are derived from the table and the
//! journal here.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::StreamExt;

use crate::commit::{Change, commit_name};
use crate::delta::{Protocol, TABLE};
use crate::delta_checkpoint;
use crate::error::{Error, Result};
use crate::high_water_mark::{HighWaterMark, MarkFile};
use crate::log::{Log, Shared};
use crate::received_times;
use crate::row_commitments::RowCommitter;
use crate::scan;
use crate::table::{Committed, Expected};
use crate::table_state::TableState;
use crate::tlog::{Publisher, read_note};
use crate::tree::Tree;

/// Batches of records whose commitments are computed at once.
const AT_ONCE: usize = 3;
/// How often recovery is tried while other processes change the log.
const TRIES: usize = 5;

/// What a writer begins with.
pub(crate) struct Recovered {
    pub state: TableState,
    pub tree: Tree,
    pub publisher: Publisher,
    pub mark: MarkFile,
    /// See [`received_times::newest_receipt`].
    pub newest_receipt: Option<i64>,
}

/// Reads where the log stands. Fails if its commits are not those that its key has signed, or if it ends
/// before what was signed.
pub(crate) async fn recover(shared: &Arc<Shared>, committer: &RowCommitter) -> Result<Recovered> {
    let log = Log { shared: shared.clone() };
    for _ in 1..TRIES {
        let covered = log.covered().await?;
        match try_recover(shared, committer).await {
            // Another process has published records and let them expire, or has merged files, while they were
            // read here.
            Err(error) if error.is_not_found() || log.covered().await? != covered => {}
            recovered => return recovered,
        }
    }
    try_recover(shared, committer).await
}

async fn try_recover(shared: &Arc<Shared>, committer: &RowCommitter) -> Result<Recovered> {
    let log = Log { shared: shared.clone() };
    let dir = log.key_folder()?;
    // The checkpoint and the mark before the table: while others append, the table can only be ahead.
    let (mut publisher, mut tree) = Publisher::open(shared.storage.clone(), &shared.vkey).await?;
    let (state, sources, note) = loop {
        let mark = HighWaterMark::load(dir, &shared.name)?;
        let note = read_note(&shared.storage, &shared.vkey).await?;
        let expected = Expected { key: &shared.key, mark: mark.as_ref(), note: note.as_ref() };
        let (state, sources) = shared.table.load(&expected).await?;
        if let Some(mark) = &mark {
            mark.check_root(&shared.storage, &shared.vkey, &state).await?;
        }
        if state.signed {
            break (state, sources, note);
        }
        // Another process may do the same at this moment.
        if let Some(state) = sign_for_the_first_time(&log, &state).await? {
            break (state, sources, note);
        }
    };
    if note.is_some_and(|note| !note.signed_commits) {
        // The hint on the newest Delta checkpoint is one of an earlier version of this program, too.
        let written = delta_checkpoint::write(&shared.storage, &state, &sources.table).await?;
        publisher.set_delta_checkpoint(written);
    }
    if tree.size() > state.size {
        let (log, size, signed) = (shared.name.to_string(), state.size, tree.size());
        return Err(Error::RolledBack { log, size, signed });
    }
    follow_table(shared, committer, &state, &mut tree, &mut publisher).await?;
    let newest_receipt = received_times::newest_receipt(shared, &state).await?;
    let mark = MarkFile::open(dir, &shared.name, &HighWaterMark::from(&state))?;
    mark.write(&HighWaterMark::from(&state))?;
    shared.advance(state.clone(), sources);
    Ok(Recovered { state, tree, publisher, mark, newest_receipt })
}

/// Commits of earlier versions of this program are not signed one by one. The whole log is verified
/// against what they did sign (checkpoint, note on the table), and then one signed commit vouches for
/// all before it. That commit also states the protocol that readers such as Spark ask for.
///
/// `None` if another process has committed meanwhile.
async fn sign_for_the_first_time(log: &Log, state: &TableState) -> Result<Option<TableState>> {
    let shared = &log.shared;
    tracing::info!(log = %shared.name, "verifying the log, whose commits are not signed yet");
    let verified = log.verify(|_| ()).await?;
    if let Some(problem) = verified.problems.into_iter().next() {
        return Err(Error::damaged(problem.file, problem.problem));
    }
    let change = Change { protocol: Some(Protocol::current()), ..Change::default() };
    let now = chrono::Utc::now().timestamp_millis();
    match shared.table.commit(log.keys()?, state, &change, now).await? {
        Committed::Done(state) => {
            tracing::info!(log = %shared.name, version = state.version, "all commits are signed for");
            Ok(Some(state))
        }
        Committed::Taken => Ok(None),
        Committed::Unknown(error) => Err(error),
    }
}

/// Derives the tree, and tiles that are not written yet, up to the records of `state`. Fails, and writes
/// nothing, if one of those records is not in the table any more: other processes have published it and let
/// it expire since `tree` was read.
pub(crate) async fn follow_table(
    shared: &Arc<Shared>,
    committer: &RowCommitter,
    state: &TableState,
    tree: &mut Tree,
    publisher: &mut Publisher,
) -> Result<()> {
    if tree.size() == state.size {
        return Ok(());
    }
    let mut next = tree.size() + 1;
    for part in state.parts_after(tree.size()) {
        if part.first() > next {
            break;
        }
        next = part.last() + 1;
    }
    if next <= state.size {
        let problem = format!("record {next} is missing, and the checkpoint does not cover it");
        return Err(Error::damaged(TABLE, problem));
    }
    tracing::info!(log = %shared.name, from = tree.size() + 1, to = state.size, "deriving tiles from the records");
    let batches = scan::in_order(shared.clone(), Arc::new(state.clone()), tree.size(), None);
    let commit = |batch: Result<RecordBatch>| {
        let committer = committer.clone();
        let computed = tokio::task::spawn_blocking(move || committer.commitments(&batch?, &mut Vec::new()));
        async { computed.await.map_err(|e| Error::failed(&shared.name, e))? }
    };
    let mut computed = batches.map(commit).buffered(AT_ONCE);
    while let Some(entries) = computed.next().await {
        publisher.write(tree.push_all(&entries?)).await?;
    }
    if tree.size() != state.size || tree.root() != state.root {
        let name =
            if state.recent.is_empty() { commit_name(state.version) } else { state.recent.extent.name() };
        return Err(Error::damaged(name, "the newest records are not those that were committed"));
    }
    Ok(())
}
