//! The pipeline of the partitions that share a log: batches judged in parallel, committed one after another.
//!
//! While one batch is stored, the next one is judged. Refused messages go into the quarantine first,
//! and then the records into their log. The log's commit moves each partition's position from just
//! where the position stood: whoever comes second, be it another instance or this one after a crash,
//! finds the position moved, drops what the log has already, and goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use crossbeam_channel::Sender;
use futures::future::try_join_all;
use sporlog_ledger::{Advance, Append, Error as LedgerError, Outcome, Store, Writer};
use sporlog_record::{Kind, Rules};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::batch::{Batch, JudgedPart, Key, judge};
use super::context::Event;
use super::refusals::{From, Known, Refusals};
use super::settings::Topic;
use super::status::{Reports, Totals};
use super::topic_ids;
use crate::blocking::lock;
use crate::error::{Error, Result};
use crate::writers::{OwnWriters, Writers};

/// Positions that have moved over nothing but empty messages are stored at the latest after so long.
const FLUSH: Duration = Duration::from_secs(10);
/// The pause after a failure: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Questions and batches that may wait for a log. Questions are few: one for each rebalance, and
/// they pile up only while the store fails.
const WAITING: usize = 256;

/// The state that all pipelines share.
pub(super) struct Shared {
    pub topics: Vec<Topic>,
    pub store: Store,
    pub rules: Rules,
    pub refusals: Refusals,
    pub reports: Arc<Mutex<Reports>>,
    /// Never full: at most one event for each batch that is under way and each question asked.
    pub events: Sender<Event>,
    /// One permit for each processor.
    pub judging: Semaphore,
    /// Becomes true when batches that cannot be stored are no longer to be tried.
    pub giving_up: watch::Receiver<bool>,
}

impl Shared {
    pub(super) fn reports(&self) -> MutexGuard<'_, Reports> {
        lock(&self.reports)
    }
}

/// Work for a log's committing task.
enum Work {
    /// Say how far the log covers these partitions: one [`Event::Position`] for each.
    Positions(Vec<Question>),
    /// Store a batch that is being judged.
    Batch(JoinHandle<Result<Vec<JudgedPart>>>),
}

/// How far does a log cover this partition?
pub(super) struct Question {
    pub key: Key,
    pub generation: u64,
    /// The topic's id, as far as it is known.
    pub topic_id: Option<String>,
}

/// The polling thread's end of a log's pipeline, which closes when this is dropped.
pub(super) struct PartitionPipeline {
    kind: Kind,
    shared: Arc<Shared>,
    work: mpsc::Sender<Work>,
    /// The batch that messages are added to.
    pub open: Option<Batch>,
    /// Batches that are being judged or stored.
    pub under_way: usize,
    /// Since when the open batch has been full and could not be handed over.
    pub full_since: Option<Instant>,
    /// Whether its partitions are paused because it is full.
    pub paused: bool,
}

impl PartitionPipeline {
    /// Batches that may be under way at once: one being judged, one being stored.
    pub(super) const UNDER_WAY: usize = 2;

    /// Starts the pipeline of `log`; within a runtime.
    pub(super) fn start(log: String, kind: Kind, shared: Arc<Shared>) -> Self {
        let (work, to_do) = mpsc::channel(WAITING);
        tokio::spawn(Committer::new(log, kind, shared.clone()).run(to_do));
        PartitionPipeline { kind, shared, work, open: None, under_way: 0, full_since: None, paused: false }
    }

    /// Asks how far the log covers `partitions`. False if the pipeline does not take the question.
    pub(super) fn ask(&self, partitions: Vec<Question>) -> bool {
        self.work.try_send(Work::Positions(partitions)).is_ok()
    }

    /// Hands the open batch over, to be judged and stored.
    pub(super) fn send(&mut self, runtime: &Handle) {
        let Some(batch) = self.open.take() else { return };
        let judging = runtime.spawn(judge_batch(batch, self.kind, self.shared.clone()));
        if self.work.try_send(Work::Batch(judging)).is_ok() {
            self.under_way += 1;
        }
        self.full_since = None;
    }

    /// Whether a batch is open or under way.
    pub(super) fn is_busy(&self) -> bool {
        self.open.is_some() || self.under_way > 0
    }
}

/// Judges a batch, each part in a thread of its own.
async fn judge_batch(batch: Batch, kind: Kind, shared: Arc<Shared>) -> Result<Vec<JudgedPart>> {
    let rules = Arc::new(Rules { now: chrono::Local::now().naive_local(), ..shared.rules.clone() });
    let bytes = Arc::new(batch.bytes);
    let judging = batch.parts.into_iter().map(|(key, part)| {
        let (rules, bytes, shared) = (rules.clone(), bytes.clone(), shared.clone());
        async move {
            let _permit = shared.judging.acquire().await.map_err(|e| Error::Internal(e.to_string()))?;
            Ok(tokio::task::spawn_blocking(move || judge(key, &part, &bytes, kind, &rules)).await?)
        }
    });
    try_join_all(judging).await
}

/// One thing that a committer does, as often as it takes.
enum Step {
    Tell(Vec<Question>),
    Store(Vec<JudgedPart>),
    /// Store how far empty messages have been passed over.
    Flush,
}

/// The task that commits to a log.
struct Committer {
    log: String,
    kind: Kind,
    shared: Arc<Shared>,
    writers: OwnWriters,
    /// Positions, by name, of partitions that have moved over empty messages only, further than the log says.
    ahead: BTreeMap<String, i64>,
    /// The messages in the quarantine, for each partition of which a batch has been stored.
    known: HashMap<Key, Known>,
    flushed: Instant,
}

impl Committer {
    fn new(log: String, kind: Kind, shared: Arc<Shared>) -> Self {
        let (writers, flushed) = (OwnWriters::new(shared.store.clone()), Instant::now());
        Committer { log, kind, shared, writers, ahead: BTreeMap::new(), known: HashMap::new(), flushed }
    }

    async fn run(mut self, mut to_do: mpsc::Receiver<Work>) {
        loop {
            let step = match tokio::time::timeout(FLUSH, to_do.recv()).await {
                Ok(Some(Work::Positions(partitions))) => Step::Tell(partitions),
                Ok(Some(Work::Batch(judging))) => match judging.await.unwrap_or_else(|e| Err(e.into())) {
                    Ok(parts) => Step::Store(parts),
                    Err(error) => {
                        let _ = self.shared.events.send(Event::Fatal(error));
                        break;
                    }
                },
                Ok(None) => break,
                Err(_) if self.ahead.is_empty() => continue,
                Err(_) => Step::Flush,
            };
            if !self.retry_until_done(step).await {
                break;
            }
        }
        if !self.ahead.is_empty() {
            self.retry_until_done(Step::Flush).await;
        }
        self.close().await;
        let _ = self.shared.events.send(Event::Closed);
    }

    /// Does a step, as often as it takes. False if there is no point in going on.
    async fn retry_until_done(&mut self, step: Step) -> bool {
        let mut pause = PAUSE.0;
        let mut giving_up = self.shared.giving_up.clone();
        loop {
            let tried = match &step {
                Step::Tell(partitions) => self.tell(partitions).await,
                Step::Store(parts) => self.store(parts, false).await,
                Step::Flush => self.store(&[], true).await,
            };
            let Err(error) = tried else {
                self.shared.reports().failing(&self.log, None);
                return true;
            };
            // The configuration has to change before trying again can help.
            if matches!(error, Error::Ledger(LedgerError::WrongKind { .. } | LedgerError::LogName(_))) {
                let _ = self.shared.events.send(Event::Fatal(error));
                return false;
            }
            tracing::warn!(log = self.log, %error, "a batch could not be stored; storing it is tried again");
            self.shared.reports().failing(&self.log, Some(error.to_string()));
            // A writer that has failed may not know where its log stands.
            self.close().await;
            self.shared.refusals.reset().await;
            self.known.clear();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = giving_up.wait_for(|given| *given) => return false,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn close(&self) {
        if let Err(error) = self.writers.close().await {
            tracing::debug!(log = self.log, %error, "the writer could not be closed");
        }
    }

    /// Says how far the log covers `partitions`. The writer is opened anew, for other instances may have appended.
    ///
    /// Ids of topics that the log takes in first are stored before. A crash after that leaves nothing to do.
    async fn tell(&mut self, partitions: &[Question]) -> Result<()> {
        self.close().await;
        let writer = self.writers.writer(&self.log, self.kind).await?;
        let identities = loop {
            let identity = |question: &Question| {
                let topic = &self.shared.topics[question.key.topic].name;
                let positions = writer.log().positions(&format!("kafka:{topic}"));
                topic_ids::identity(topic, question.key.partition, question.topic_id.as_deref(), &positions)
            };
            let (identities, marks): (Vec<_>, Vec<_>) = partitions.iter().map(identity).unzip();
            let marks: Vec<_> = marks.into_iter().flatten().map(|mark| (mark, Advance::To(0))).collect();
            if marks.is_empty() {
                break identities;
            }
            // If another instance was faster, its mark decides.
            writer
                .append(Append { rows: RecordBatch::new_empty(self.kind.row_schema()), positions: marks })
                .await?;
        };
        for (&Question { key, generation, .. }, identity) in partitions.iter().zip(identities) {
            let name = key.position_name(&identity);
            self.known.remove(&key);
            self.ahead.remove(&name);
            let (identity, position) = (identity.into(), committed(&writer, &name));
            let _ = self.shared.events.send(Event::Position { key, generation, identity, position });
        }
        Ok(())
    }

    /// The offset that the position `name` covers, which is at `committed`, with the empty messages after it.
    fn covered(&self, committed: i64, name: &str) -> i64 {
        committed.max(self.ahead.get(name).copied().unwrap_or(-1))
    }

    /// Stores a batch, and tells of it. With `flush`, or after a while, positions that only empty
    /// messages have moved are stored, too.
    ///
    /// A crash before the commit leaves refused messages in the quarantine, which `quarantine` finds
    /// there when they are read again; a crash after it leaves nothing to do.
    async fn store(&mut self, parts: &[JudgedPart], flush: bool) -> Result<()> {
        let begun = Instant::now();
        let writer = self.writers.writer(&self.log, self.kind).await?;
        let accepted = loop {
            let mut rows = Vec::new();
            let mut steps = BTreeMap::new();
            let mut due = flush || self.flushed.elapsed() >= FLUSH;
            for part in parts {
                let name = part.key.position_name(&part.identity);
                // Read once: if another instance moves the position while refused messages are stored, the step below
                // has to fail, for the rows were chosen by this offset.
                let from = committed(&writer, &name);
                let covered = self.covered(from, &name);
                if covered < part.from {
                    let JudgedPart { key, generation, .. } = *part;
                    let _ = self.shared.events.send(Event::Behind { key, generation, position: covered });
                    continue;
                }
                if covered >= part.to {
                    continue;
                }
                self.quarantine(part, covered).await?;
                due |= !part.refused.is_empty();
                let none = BTreeSet::new();
                let quarantined = self.known.get(&part.key).map_or(&none, |known| &known.offsets);
                let batch = part.rows_above(covered, quarantined)?;
                if batch.num_rows() > 0 {
                    rows.push(batch);
                }
                steps.insert(name, (from, part.to));
            }
            if rows.is_empty() && !due {
                self.ahead.extend(steps.into_iter().map(|(name, (_, to))| (name, to)));
                break 0;
            }
            for (name, ahead) in &self.ahead {
                let committed = committed(&writer, name);
                if committed < *ahead {
                    steps.entry(name.clone()).or_insert((committed, *ahead));
                }
            }
            if steps.is_empty() {
                self.ahead.clear();
                break 0;
            }
            let rows = match &rows[..] {
                [] => RecordBatch::new_empty(self.kind.row_schema()),
                [rows] => rows.clone(),
                several => concat_batches(&self.kind.row_schema(), several).map_err(LedgerError::from)?,
            };
            let accepted = rows.num_rows() as u64;
            let step =
                |(name, &(from, to)): (&String, &(i64, i64))| (name.clone(), Advance::Step { from, to });
            let positions = steps.iter().map(step).collect();
            match writer.append(Append { rows, positions }).await? {
                Outcome::Appended(_) => {
                    self.flushed = Instant::now();
                    self.ahead.clear();
                    for part in parts {
                        let step = steps.get(&part.key.position_name(&part.identity));
                        if let (Some(known), Some((_, to))) = (self.known.get_mut(&part.key), step) {
                            known.offsets = known.offsets.split_off(&(to + 1));
                        }
                    }
                    break accepted;
                }
                Outcome::AlreadyThere { app, position } => {
                    metrics::counter!("sporlog_kafka_conflicts_total", "log" => self.log.clone())
                        .increment(1);
                    let position = position.version;
                    tracing::info!(log = self.log, app, position, "another instance has moved the position");
                }
            }
        };
        if !flush {
            self.report(&writer, parts, accepted, begun);
        }
        Ok(())
    }

    /// Puts the refused messages of `part` above the offset `covered` into the quarantine. Afterwards
    /// `known` says which of the part's messages are there.
    async fn quarantine(&mut self, part: &JudgedPart, covered: i64) -> Result<()> {
        let topics = &self.shared.topics;
        let (source, refusals) = (part.key.source(&part.identity), &self.shared.refusals);
        let position = part.key.quarantine_position_name(&part.identity, &self.log);
        let from = From { log: &self.log, kind: self.kind, source: &source, position: &position };
        loop {
            let mut known = match self.known.get(&part.key) {
                Some(known) => known.clone(),
                None => refusals.known(&from, covered).await?,
            };
            let due = |offset: i64| offset > covered && !known.offsets.contains(&offset);
            let refused: Vec<_> = part.refused.iter().filter(|refused| due(refused.offset)).collect();
            if let (Some(topic), false) = (&topics[part.key.topic].dead_letter, refused.is_empty()) {
                refusals.send_copies(topic, &source, &refused).await;
            }
            if refusals.append(&from, &mut known, &refused).await? {
                self.known.insert(part.key, known);
                self.shared.reports().add(Totals { refused: refused.len() as u64, ..Totals::default() });
                return Ok(());
            }
            self.known.remove(&part.key);
        }
    }

    /// Tells the polling thread, the metrics and the status that a batch is stored. The polling thread is told of every
    /// batch, since it hands over no more than two before.
    fn report(&self, writer: &Writer, parts: &[JudgedPart], accepted: u64, begun: Instant) {
        let skipped = parts.iter().map(|part| part.skipped).sum();
        self.shared.reports().add(Totals { accepted, skipped, ..Totals::default() });
        for part in parts {
            let topic = &self.shared.topics[part.key.topic].name;
            for (name, count) in [
                ("sporlog_kafka_messages_total", part.messages),
                ("sporlog_kafka_refused_total", part.refused.len() as u64),
                ("sporlog_kafka_skipped_total", part.skipped),
            ] {
                metrics::counter!(name, "topic" => topic.clone()).increment(count);
            }
        }
        let messages: u64 = parts.iter().map(|part| part.messages).sum();
        let record = |name: &'static str, value| {
            metrics::histogram!(name, "log" => self.log.clone()).record(value);
        };
        record("sporlog_kafka_batch_messages", messages as f64);
        record("sporlog_kafka_commit_seconds", begun.elapsed().as_secs_f64());
        tracing::debug!(log = self.log, messages, accepted, "a batch is stored");
        let position = |part: &JudgedPart| {
            let name = part.key.position_name(&part.identity);
            (part.key, part.generation, self.covered(committed(writer, &name), &name))
        };
        let positions = parts.iter().map(position).collect();
        let _ = self.shared.events.send(Event::Stored { log: self.log.clone(), positions });
    }
}

/// The offset that the position `name` of a log covers; −1 if there is no such position.
fn committed(writer: &Writer, name: &str) -> i64 {
    writer.log().position(name).map_or(-1, |position| position.version)
}

#[cfg(test)]
mod tests;
