//! The way of messages into one log: judged by several threads, committed one batch after another.
//!
//! Two tasks work on a log, so that one batch is judged while the one before it is stored. What
//! was refused goes into the quarantine first, and the records into their log then. The log's
//! commit moves each partition's position from just where it stood: whoever comes second, be it
//! another instance or this one after a crash, finds it moved, drops what is there and goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use crossbeam_channel::Sender;
use futures::future::try_join_all;
use rdkafka::{Statistics, TopicPartitionList};
use sporlog_ledger::{Advance, Append, Error as LedgerError, Outcome, Store, Writer, WriterOptions};
use sporlog_record::{Kind, Rules};
use tokio::sync::{Semaphore, mpsc, watch};

use super::batch::{Batch, JudgedPart, judge};
use super::dead_letter::DeadLetters;
use super::partition::{Key, position_name, quarantine_position_name, source};
use super::refusals::{From, Known, Refusals};
use super::settings::Topic;
use super::status::{Reports, Totals};
use crate::error::{Error, Result};

/// Positions that have moved over nothing but empty messages are stored at the latest after so long.
const FLUSH: Duration = Duration::from_secs(10);
/// How long is waited after a failure: at first, and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What all logs' tasks share.
pub(super) struct Shared {
    pub topics: Vec<Topic>,
    pub store: Store,
    pub rules: Rules,
    pub refusals: Refusals,
    pub dead_letters: Option<DeadLetters>,
    pub reports: Arc<Reports>,
    /// Never full: at most one for each batch that is under way and each question asked.
    pub events: Sender<Event>,
    /// One permit for each processor.
    pub judging: Semaphore,
    /// Becomes true when what cannot be stored is no longer to be tried.
    pub giving_up: watch::Receiver<bool>,
}

/// What the loop that polls is told.
pub(super) enum Event {
    /// The group gives these partitions to this instance.
    Assigned(TopicPartitionList),
    /// The group takes these partitions away.
    Revoked(TopicPartitionList),
    /// librdkafka's statistics.
    Statistics(Box<Statistics>),
    /// Where a log stands: the offset of the last message that is in it, −1 if none is.
    Stands { key: Key, generation: u64, position: i64 },
    /// A batch of `log` is done, and these partitions stand there now.
    Done { log: String, stored: Vec<(Key, u64, i64)> },
    /// A log stands before what was read: reading has to begin anew after `position`.
    Behind { key: Key, generation: u64, position: i64 },
    /// It cannot go on.
    Fatal(Error),
    /// The writer of a log that was given up has published what it had to, and is closed.
    Closed,
}

/// What a log's committing task is to do.
pub(super) enum Work {
    /// Say where the log stands; to be answered by [`Event::Stands`] for each.
    Ask(Vec<(Key, u64)>),
    /// Store it.
    Judged(Vec<JudgedPart>),
    /// Store how far empty messages have been passed over.
    Flush,
}

/// The loop's end of a log's tasks, which end when it is dropped.
pub(super) struct Lane {
    pub batches: mpsc::Sender<Batch>,
    pub work: mpsc::Sender<Work>,
    /// What is being gathered.
    pub open: Option<Batch>,
    /// Batches that are with the tasks.
    pub under_way: usize,
    /// Since when it has been full, and whether its partitions have been paused for that.
    pub full_since: Option<Instant>,
    pub paused: bool,
}

impl Lane {
    /// Batches that the tasks of one log may have at once: one being judged, one being stored.
    pub(super) const UNDER_WAY: usize = 2;

    /// Starts the tasks; within a runtime.
    pub(super) fn start(log: String, kind: Kind, shared: Arc<Shared>) -> Self {
        let (batches, waiting) = mpsc::channel(Self::UNDER_WAY);
        // Questions are few: one for each rebalance, which pile up only while the store fails.
        let (work, to_do) = mpsc::channel(256);
        let committer = Committer {
            log,
            kind,
            shared: shared.clone(),
            writer: None,
            ahead: BTreeMap::new(),
            known: HashMap::new(),
            flushed: Instant::now(),
        };
        tokio::spawn(judge_all(kind, shared, waiting, work.clone()));
        tokio::spawn(committer.run(to_do));
        Lane { batches, work, open: None, under_way: 0, full_since: None, paused: false }
    }
}

/// Judges batches, each of whose parts gets a thread.
async fn judge_all(
    kind: Kind,
    shared: Arc<Shared>,
    mut batches: mpsc::Receiver<Batch>,
    work: mpsc::Sender<Work>,
) {
    while let Some(Batch { bytes, parts, .. }) = batches.recv().await {
        let now = chrono::Local::now().naive_local();
        let rules = Arc::new(Rules { now, ..shared.rules.clone() });
        let bytes = Arc::new(bytes);
        let judging = parts.into_iter().map(|(key, part)| {
            let (rules, bytes, shared) = (rules.clone(), bytes.clone(), shared.clone());
            async move {
                let _permit = shared.judging.acquire().await.map_err(|e| Error::Internal(e.to_string()))?;
                let source = shared.topics.get(key.topic).map(|topic| source(topic, key)).unwrap_or_default();
                let judging =
                    tokio::task::spawn_blocking(move || judge(key, &part, &bytes, &source, kind, &rules));
                judging.await.map_err(|e| Error::Internal(e.to_string()))
            }
        });
        let judged = try_join_all(judging).await;
        drop(bytes);
        match judged {
            Ok(judged) => {
                if work.send(Work::Judged(judged)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = shared.events.send(Event::Fatal(error));
                return;
            }
        }
    }
}

/// The one that commits to a log.
struct Committer {
    log: String,
    kind: Kind,
    shared: Arc<Shared>,
    writer: Option<Writer>,
    /// Partitions that have moved over empty messages only, further than is stored.
    ahead: BTreeMap<Key, i64>,
    /// What is in the quarantine of those partitions that something has been stored of.
    known: HashMap<Key, Known>,
    flushed: Instant,
}

impl Committer {
    async fn run(mut self, mut to_do: mpsc::Receiver<Work>) {
        loop {
            let work = match tokio::time::timeout(FLUSH, to_do.recv()).await {
                Ok(Some(work)) => work,
                Ok(None) => break,
                Err(_) if self.ahead.is_empty() => continue,
                Err(_) => Work::Flush,
            };
            if !self.see_through(work).await {
                break;
            }
        }
        if !self.ahead.is_empty() {
            self.see_through(Work::Flush).await;
        }
        self.close().await;
        let _ = self.shared.events.send(Event::Closed);
    }

    /// Does it, as often as it takes. False if there is no point in going on.
    async fn see_through(&mut self, work: Work) -> bool {
        let mut patience = PATIENCE.0;
        let mut giving_up = self.shared.giving_up.clone();
        loop {
            let tried = match &work {
                Work::Ask(partitions) => self.tell(partitions).await,
                Work::Judged(parts) => self.store(parts, false).await,
                Work::Flush => self.store(&[], true).await,
            };
            let error = match tried {
                Ok(()) => {
                    self.shared.reports.failing(&self.log, None);
                    return true;
                }
                Err(error) => error,
            };
            if is_final(&error) {
                let _ = self.shared.events.send(Event::Fatal(error));
                return false;
            }
            tracing::warn!(log = self.log, %error, "a batch could not be stored; it is tried again");
            self.shared.reports.failing(&self.log, Some(error.to_string()));
            // A writer that has failed may not know where its log stands.
            self.close().await;
            self.shared.refusals.reset().await;
            self.known.clear();
            tokio::select! {
                () = tokio::time::sleep(patience) => {}
                _ = giving_up.wait_for(|given| *given) => return false,
            }
            patience = (patience * 2).min(PATIENCE.1);
        }
    }

    async fn writer(&mut self) -> Result<Writer> {
        if let Some(writer) = &self.writer {
            return Ok(writer.clone());
        }
        let options = WriterOptions { take_turns: true };
        let writer = self.shared.store.writer(&self.log, self.kind, options).await?;
        Ok(self.writer.insert(writer).clone())
    }

    async fn close(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.close().await
        {
            tracing::debug!(log = self.log, %error, "the writer had stopped before");
        }
    }

    /// Says where the log stands. The writer is opened anew, for others may have appended.
    async fn tell(&mut self, partitions: &[(Key, u64)]) -> Result<()> {
        self.close().await;
        let writer = self.writer().await?;
        for (key, generation) in partitions {
            self.known.remove(key);
            self.ahead.remove(key);
            let position = self.stored(&writer, *key);
            let event = Event::Stands { key: *key, generation: *generation, position };
            let _ = self.shared.events.send(event);
        }
        Ok(())
    }

    fn topic(&self, key: Key) -> Result<&Topic> {
        let missing = || Error::Internal("a message of a topic that is not configured".to_owned());
        self.shared.topics.get(key.topic).ok_or_else(missing)
    }

    fn position_name(&self, key: Key) -> String {
        self.shared.topics.get(key.topic).map(|topic| position_name(topic, key)).unwrap_or_default()
    }

    /// The offset that the log covers.
    fn stored(&self, writer: &Writer, key: Key) -> i64 {
        writer.log().position(&self.position_name(key)).map_or(-1, |position| position.version)
    }

    /// Stores a batch; tells of it when all of it is there.
    async fn store(&mut self, parts: &[JudgedPart], flush: bool) -> Result<()> {
        let begun = Instant::now();
        let writer = self.writer().await?;
        let mut accepted = 0;
        loop {
            let mut rows = Vec::new();
            let mut steps = BTreeMap::new();
            let mut due = flush || self.flushed.elapsed() >= FLUSH;
            for part in parts {
                let durable = self.stored(&writer, part.key);
                let stand = self.ahead.get(&part.key).map_or(durable, |ahead| durable.max(*ahead));
                if stand < part.from {
                    let JudgedPart { key, generation, .. } = *part;
                    let event = Event::Behind { key, generation, position: stand };
                    let _ = self.shared.events.send(event);
                    continue;
                }
                if stand >= part.to {
                    continue;
                }
                self.quarantine(part, stand).await?;
                due |= !part.refused.is_empty();
                let none = BTreeSet::new();
                let without = self.known.get(&part.key).map_or(&none, |known| &known.offsets);
                let batch = part.rows_above(stand, without)?;
                if batch.num_rows() > 0 {
                    rows.push(batch);
                }
                steps.insert(part.key, (durable, part.to));
            }
            if rows.is_empty() && !due {
                self.ahead.extend(steps.iter().map(|(key, (_, to))| (*key, *to)));
                break;
            }
            for (key, ahead) in &self.ahead {
                let durable = self.stored(&writer, *key);
                if durable < *ahead {
                    steps.entry(*key).or_insert((durable, *ahead));
                }
            }
            if steps.is_empty() {
                self.ahead.clear();
                break;
            }
            let schema = self.kind.row_schema();
            let rows = match rows.len() {
                0 => RecordBatch::new_empty(schema),
                1 => rows.remove(0),
                _ => concat_batches(&schema, &rows).map_err(LedgerError::from)?,
            };
            accepted = rows.num_rows() as u64;
            let step = |(key, (from, to)): (&Key, &(i64, i64))| {
                (self.position_name(*key), Advance::Step { from: *from, to: *to })
            };
            let positions = steps.iter().map(step).collect();
            match writer.append(Append { rows, positions }).await? {
                Outcome::Appended(_) => {
                    self.flushed = Instant::now();
                    self.ahead.clear();
                    for (key, (_, to)) in &steps {
                        if let Some(known) = self.known.get_mut(key) {
                            known.offsets = known.offsets.split_off(&(to + 1));
                        }
                    }
                    break;
                }
                Outcome::AlreadyThere { app, position } => {
                    accepted = 0;
                    metrics::counter!("sporlog_kafka_conflicts_total", "log" => self.log.clone())
                        .increment(1);
                    let position = position.version;
                    tracing::info!(log = self.log, app, position, "another instance has been here");
                }
            }
        }
        self.report(&writer, parts, accepted, begun);
        Ok(())
    }

    /// Puts what was refused of `part` into the quarantine. Afterwards it is known which of its
    /// messages are there.
    async fn quarantine(&mut self, part: &JudgedPart, stand: i64) -> Result<()> {
        let topic = self.topic(part.key)?;
        let (source, dead_letter) = (source(topic, part.key), topic.dead_letter.clone());
        let position = quarantine_position_name(topic, part.key, &self.log);
        let from = From { log: &self.log, kind: self.kind, source: &source, position: &position };
        loop {
            let mut known = match self.known.get(&part.key) {
                Some(known) => known.clone(),
                None => self.shared.refusals.known(&from, stand).await?,
            };
            let due = |offset: i64| offset > stand && !known.offsets.contains(&offset);
            let refused: Vec<_> = part.refused.iter().filter(|refused| due(refused.offset)).collect();
            if let (Some(letters), Some(topic), false) =
                (&self.shared.dead_letters, &dead_letter, refused.is_empty())
            {
                let failed = letters.send(topic, &source, &refused).await;
                let counter =
                    metrics::counter!("sporlog_kafka_dead_letter_failures_total", "topic" => topic.clone());
                counter.increment(failed as u64);
            }
            if self.shared.refusals.append(&from, &mut known, &refused).await? {
                self.known.insert(part.key, known);
                self.shared.reports.add(Totals { refused: refused.len() as u64, ..Totals::default() });
                return Ok(());
            }
            self.known.remove(&part.key);
        }
    }

    /// Tells the loop, the metrics and the status that a batch is done.
    fn report(&self, writer: &Writer, parts: &[JudgedPart], accepted: u64, begun: Instant) {
        let skipped = parts.iter().map(|part| part.skipped).sum();
        self.shared.reports.add(Totals { accepted, skipped, ..Totals::default() });
        if parts.is_empty() {
            return;
        }
        let mut messages = 0;
        for part in parts {
            messages += part.messages;
            let topic = self.shared.topics.get(part.key.topic).map_or("", |topic| &topic.name).to_owned();
            let count = |name: &'static str, count: u64| {
                metrics::counter!(name, "topic" => topic.clone()).increment(count);
            };
            count("sporlog_kafka_messages_total", part.messages);
            count("sporlog_kafka_refused_total", part.refused.len() as u64);
            count("sporlog_kafka_skipped_total", part.skipped);
        }
        metrics::histogram!("sporlog_kafka_batch_messages", "log" => self.log.clone())
            .record(messages as f64);
        metrics::histogram!("sporlog_kafka_commit_seconds", "log" => self.log.clone())
            .record(begun.elapsed().as_secs_f64());
        tracing::debug!(log = self.log, messages, accepted, "stored");
        let stand = |key: &Key| {
            let stored = self.stored(writer, *key);
            self.ahead.get(key).map_or(stored, |ahead| stored.max(*ahead))
        };
        let stored = parts.iter().map(|part| (part.key, part.generation, stand(&part.key)));
        let done = Event::Done { log: self.log.clone(), stored: stored.collect() };
        let _ = self.shared.events.send(done);
    }
}

#[cfg(test)]
mod tests;

/// Whether trying again cannot help, because the configuration has to change.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Ledger(LedgerError::WrongKind { .. } | LedgerError::LogName(_)))
}
