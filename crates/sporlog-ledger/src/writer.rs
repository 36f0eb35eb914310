//! The handle to a log's sequencer: what may be asked of it, and what it answers.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tokio::sync::{mpsc, oneshot};

use crate::commit::{Change, Position};
use crate::delta::{DataFile, Sha};
use crate::error::{Error, Result};
use crate::log::{Log, Shared};
use crate::row_commitments::RowCommitter;
use crate::spool::TileSpool;
use crate::tree::Tree;

/// Rows to be appended, with the positions of the source that they come from.
#[derive(Debug)]
pub struct Append {
    /// Rows of the log's kind ([`Kind::row_schema`](sporlog_record::Kind::row_schema)).
    pub rows: RecordBatch,
    /// How far each source has been taken in after this; stored in the same atomic step.
    pub positions: Vec<(String, Advance)>,
}

/// How an append moves a source's position. Where it cannot, nothing of the append is stored, and
/// the answer is [`Outcome::AlreadyThere`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// To this number, unless it is there or further already.
    To(i64),
    /// From just here to there: for a source that several may read at once, each of whom must not
    /// take in again what another has.
    Step {
        /// Where it has to stand, −1 if nothing has been taken in yet.
        from: i64,
        /// Where it stands afterwards.
        to: i64,
    },
    /// To the id of the append's first record, once: whoever tries again is told where the records
    /// are. Sources whose names begin with [`ONCE`](crate::ONCE) are forgotten after a week.
    Once,
}

impl Advance {
    /// Whether it can be made where the position is `there`.
    pub(crate) fn possible(self, there: Option<i64>) -> bool {
        match self {
            Advance::To(to) => there.is_none_or(|there| there < to),
            Advance::Step { from, .. } => there.unwrap_or(-1) == from,
            Advance::Once => there.is_none(),
        }
    }

    /// Where the position is afterwards, when the append's first record has the id `first`.
    pub(crate) fn arrives(self, first: u64) -> i64 {
        match self {
            Advance::To(to) | Advance::Step { to, .. } => to,
            Advance::Once => first as i64,
        }
    }
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The records are durable.
    Appended(Appended),
    /// A position of it had been taken in before; nothing was stored.
    AlreadyThere {
        /// The source.
        app: String,
        /// How far it had been taken in, and when.
        position: Position,
    },
}

/// Records that are durable and numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first one's id.
    pub first: u64,
    /// The last one's id; one less than `first` if there was none.
    pub last: u64,
    /// When they were received, by the clock, in microseconds UTC.
    pub received_at: i64,
}

/// How a writer behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriterOptions {
    /// Whether several processes take turns at this log. Then, when another has appended, the
    /// batch is numbered anew and tried again; otherwise this writer stops.
    pub take_turns: bool,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T>>;

pub(crate) enum Command {
    Append(Append, Answer<Outcome>),
    /// Lends the log to a bulk append.
    Bulk(Answer<BulkGrant>),
    /// One file in the place of several that hold the same records; false if one of those is gone.
    Replace(Box<Change>, Answer<bool>),
    /// The records received before this month (`2026-11`); answered with the files that went.
    Expire(String, Answer<Vec<Arc<DataFile>>>),
    DeltaCheckpoint((String, Sha)),
    /// Puts the journal into the table.
    Flush(Answer<()>),
    /// Deletes those of these files that no version of the log refers to; answered with their number.
    CleanUp(Vec<String>, Answer<usize>),
    Close(Answer<()>),
}

/// What the sequencer lends.
pub(crate) struct BulkGrant {
    pub committer: RowCommitter,
    pub tree: Tree,
    pub received_at: i64,
    pub shared: Arc<Shared>,
    pub returned: oneshot::Sender<(BulkResult, oneshot::Sender<Result<Outcome>>)>,
}

/// What the sequencer gets back: files that are written and not committed.
pub(crate) struct BulkResult {
    pub files: Vec<DataFile>,
    pub tree: Tree,
    /// The tiles that have become full.
    pub tiles: TileSpool,
    pub positions: Vec<(String, Advance)>,
    pub received_at: i64,
}

/// The handle to a log's sequencer. Cheap to clone; the sequencer ends with the last handle.
#[derive(Clone, Debug)]
pub struct Writer {
    log: Log,
    sender: mpsc::Sender<Command>,
}

impl Writer {
    pub(crate) fn new(log: Log, sender: mpsc::Sender<Command>) -> Self {
        Writer { log, sender }
    }

    /// The log, for reading.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Appends; answered when the records are durable.
    pub async fn append(&self, append: Append) -> Result<Outcome> {
        self.ask(|answer| Command::Append(append, answer)).await
    }

    /// Puts the records of the journal into the table now, for programs that read the table's files themselves.
    pub async fn flush(&self) -> Result<()> {
        self.ask(Command::Flush).await
    }

    /// Sends what needs no answer.
    pub(crate) async fn tell(&self, command: Command) {
        let _ = self.sender.send(command).await;
    }

    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let sent = self.sender.send(command(answer)).await;
        let gone = || Error::Stopped { log: self.log.name().to_owned(), reason: "it has been closed".into() };
        sent.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Publishes what is still to be published, and stops.
    pub async fn close(self) -> Result<()> {
        self.ask(Command::Close).await
    }
}
