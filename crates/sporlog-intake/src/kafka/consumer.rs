//! The consumer: a thread that polls Kafka, and the handle to it.
//!
//! The thread is the only one that speaks to librdkafka's consumer. It adds messages to the batches of
//! their logs, hands the batches to the logs' pipelines, follows the group (`assignment`), and keeps to
//! its memory: each log may have one batch open and two under way, and the size of a batch is such that
//! all of them together keep to `kafka.memory_bytes`. Whatever the group has noted, reading begins where
//! the logs say; the offsets in Kafka are written for tools that show lags, and never read.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use sporlog_ledger::Store;
use sporlog_record::Rules;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};

use self::assignment::{Partition, State};
use super::batch::{Batch, Envelope, Key, Reading};
use super::context::{Context, Event, answer};
use super::pipeline::{PartitionPipeline, Shared};
use super::refusals::Refusals;
use super::settings::Settings;
use super::status::{Reports, Status, Totals};
use super::topic_ids::TopicIds;
use crate::blocking::lock;
use crate::error::{Error, Result};

mod assignment;

/// How long a poll waits for a message.
const POLL: Duration = Duration::from_millis(50);
/// Messages that are taken before anything else is done.
const BURST: usize = 1_000;
/// The interval of [`Poll::tick`].
const TICK: Duration = Duration::from_millis(500);
/// How long pipelines are waited for when the consumer is stopped.
const STOPPING: Duration = Duration::from_secs(10);
/// How long is waited in [`Mode::UntilEnd`] until the consumer may join a group. What the group takes then, because it
/// rebalances, is waited for.
const JOINING: Duration = Duration::from_secs(60);
/// A full log is waited for this long before its partitions are paused.
const FULL: Duration = Duration::from_millis(500);

/// A batch is handed over when it has so many messages, so many bytes, or is so old. Larger ones would
/// not be stored faster; younger ones would make a commit each.
const BATCH_MESSAGES: usize = 16_384;
const BATCH_BYTES: usize = 8 << 20;
const BATCH_AGE: Duration = Duration::from_millis(500);

/// How long a consumer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is stopped.
    Forever,
    /// Until all that was in its partitions when it got them is stored.
    UntilEnd,
}

/// A running consumer. Dropping it asks the consumer to stop, and does not wait for that.
#[derive(Debug)]
pub struct Consumer {
    reports: Arc<Mutex<Reports>>,
    stop: Arc<AtomicBool>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Consumer {
    /// Starts taking the topics of `settings` into their logs in `store`, which are made if need
    /// be. To be called within a runtime; the work is done in a thread and in tasks of its own.
    ///
    /// `rules` judge the messages; their `now` is set anew for each batch. Fails if the settings
    /// make no sense. That no broker can be reached is no failure: the consumer waits for one.
    pub fn start(settings: Settings, store: Store, rules: Rules, mode: Mode) -> Result<Self> {
        settings.check()?;
        let reports = Arc::<Mutex<Reports>>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, events) = crossbeam_channel::unbounded();
        let (give_up, giving_up) = watch::channel(false);
        let context = Context {
            events: sender.clone(),
            closing: AtomicBool::new(false),
            topic_ids: TopicIds::default(),
        };
        let config = settings.consumer_config(mode == Mode::UntilEnd);
        let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(Error::Kafka)?;
        let names: Vec<_> = settings.topics.iter().map(|topic| topic.name.as_str()).collect();
        for name in &names {
            // Nothing is assigned, so this has no effect but that librdkafka follows the topic's id from now on.
            let _ = consumer.store_offset(name, 0, 0);
        }
        consumer.subscribe(&names).map_err(Error::Kafka)?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let poll = Poll {
            consumer,
            topics: names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), at)).collect(),
            events,
            give_up,
            stop: stop.clone(),
            mode,
            runtime: Handle::current(),
            memory: settings.memory_bytes,
            partitions: HashMap::new(),
            pipelines: HashMap::new(),
            closing: 0,
            generation: 0,
            topic_id_changes: 0,
            lags: HashMap::new(),
            joining: Instant::now(),
            last_message: Instant::now(),
            joined: None,
            unanswered: None,
            at_end: false,
            doubtful: false,
            shared: Arc::new(Shared {
                refusals: Refusals::new(&settings, store.clone())?,
                topics: settings.topics,
                store,
                rules,
                reports: reports.clone(),
                events: sender,
                judging: Semaphore::new(cores),
                giving_up,
            }),
        };
        let (end, ended) = oneshot::channel();
        let outside = reports.clone();
        let run = move || {
            // After a panic the status must not go on saying that all is well.
            let failed = |_| Err(Error::Internal("the consumer's thread has failed".into()));
            let result = catch_unwind(AssertUnwindSafe(|| poll.run())).unwrap_or_else(failed);
            lock(&outside).ended = Some(match &result {
                Ok(()) => "the consumer has stopped".to_owned(),
                Err(error) => format!("the consumer has stopped: {error}"),
            });
            if let Err(error) = &result {
                tracing::error!(%error, "the consumer has stopped");
            }
            let _ = end.send(result);
        };
        let spawned = std::thread::Builder::new().name("kafka".into()).spawn(run);
        spawned.map_err(|e| Error::Internal(format!("starting the consumer: {e}")))?;
        Ok(Consumer { reports, stop, ended })
    }

    /// A function that tells how the consumer is doing, for as long as anyone asks.
    pub fn watch(&self) -> impl Fn() -> Status + Send + Sync + use<> {
        let reports = self.reports.clone();
        move || lock(&reports).status()
    }

    /// Waits until the consumer has ended by itself: at the end in [`Mode::UntilEnd`], or because it
    /// cannot go on, which is an error. To be called again only after a call that was dropped.
    pub async fn ended(&mut self) -> Result<Totals> {
        (&mut self.ended).await.unwrap_or(Ok(()))?;
        Ok(lock(&self.reports).status().totals)
    }

    /// Has the consumer store what it has read, leave the group, and end. What cannot be stored
    /// within ten seconds is left to be read again.
    pub async fn stop(mut self) -> Result<Totals> {
        self.stop.store(true, Ordering::Release);
        self.ended().await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// The state of the polling thread; no other thread uses it.
struct Poll {
    consumer: BaseConsumer<Context>,
    shared: Arc<Shared>,
    events: Receiver<Event>,
    give_up: watch::Sender<bool>,
    stop: Arc<AtomicBool>,
    mode: Mode,
    runtime: Handle,
    memory: usize,
    /// The topics' indices in the settings.
    topics: HashMap<String, usize>,
    partitions: HashMap<Key, Partition>,
    /// By log.
    pipelines: HashMap<String, PartitionPipeline>,
    /// Pipelines that were given up and are still to be closed.
    closing: usize,
    generation: u64,
    /// The changes of topics' ids that the partitions follow by now.
    topic_id_changes: u64,
    lags: HashMap<Key, i64>,
    /// When the consumer was last seen to wait for the group, or began.
    joining: Instant,
    last_message: Instant,
    /// Since when the group has given out partitions.
    joined: Option<Instant>,
    /// Until when Kafka is not asked about a partition's bounds again, since it did not answer.
    unanswered: Option<Instant>,
    /// All that is waited for has been read.
    at_end: bool,
    /// An error about an offset was reported: a partition may no longer be what it was.
    doubtful: bool,
}

impl Poll {
    /// Polls until the consumer is stopped, or at the end, or cannot go on.
    fn run(mut self) -> Result<()> {
        let polled = self.poll();
        self.shut_down(polled.is_ok());
        polled
    }

    fn poll(&mut self) -> Result<()> {
        let mut ticked = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            self.follow_topic_ids()?;
            while let Ok(event) = self.events.try_recv() {
                self.handle(event)?;
            }
            self.send_due(false);
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick()?;
            }
            if self.apply_backpressure()? {
                continue;
            }
            let idle = self.take_burst()?;
            if idle && self.at_end && !self.pipelines.values().any(PartitionPipeline::is_busy) {
                return match self.partitions.values().find_map(Partition::broken) {
                    Some(why) => Err(Error::Unfinished(why.to_owned())),
                    None => Ok(()),
                };
            }
        }
        Ok(())
    }

    /// Takes messages while there are any. True if there was none.
    fn take_burst(&mut self) -> Result<bool> {
        let begun = self.pipelines.values().filter_map(|pipeline| Some(pipeline.open.as_ref()?.begun)).min();
        let mut wait = begun.map_or(POLL, |begun| BATCH_AGE.saturating_sub(begun.elapsed()).min(POLL));
        let limit = self.batch_bytes();
        for taken in 0..BURST {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    self.last_message = Instant::now();
                    let topic = self.topics.get(message.topic());
                    let key = topic.map(|topic| Key { topic: *topic, partition: message.partition() });
                    if self.consumer.context().topic_ids.changes() != self.topic_id_changes {
                        // The message may be of a topic made anew. If not, it is read again.
                        drop(message);
                        self.follow_topic_ids()?;
                        self.begin_anew();
                        return Ok(false);
                    }
                    let partition = key.and_then(|key| Some((key, self.partitions.get_mut(&key)?)));
                    if let Some((key, partition)) = partition
                        && let Some(pipeline) = self.pipelines.get_mut(&partition.log)
                        && take(key, &message, partition, pipeline, limit)
                    {
                        return Ok(false);
                    }
                }
                Some(Err(error)) => {
                    self.report_error(error)?;
                    return Ok(false);
                }
                None => return Ok(taken == 0),
            }
            wait = Duration::ZERO;
        }
        Ok(false)
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            // A rebalance is answered in any case, or the consumer could not be closed.
            Event::Assigned(ref list) => self.assign(list).inspect_err(|_| {
                let _ = answer(&self.consumer, &event);
            })?,
            Event::Revoked(ref list) => self.revoke(list).inspect_err(|_| {
                let _ = answer(&self.consumer, &event);
            })?,
            Event::Statistics(statistics) => self.take_statistics(&statistics),
            Event::Position { key, generation, identity, position } => {
                if let Some(partition) = self.current(key, generation)
                    && partition.state == State::Asking
                {
                    partition.reading = Reading { generation, identity, read: position };
                    partition.stored = position;
                    partition.state = State::Placing;
                    self.place();
                }
            }
            Event::Stored { log, positions } => {
                if let Some(pipeline) = self.pipelines.get_mut(&log) {
                    pipeline.under_way = pipeline.under_way.saturating_sub(1);
                }
                for (key, generation, position) in positions {
                    if let Some(partition) = self.current(key, generation) {
                        partition.stored = partition.stored.max(position);
                    }
                }
            }
            Event::Behind { key, generation, position } => self.go_back(key, generation, position),
            Event::Fatal(error) => return Err(error),
            Event::Closed => self.closing = self.closing.saturating_sub(1),
        }
        Ok(())
    }

    /// The work that has to be done twice a second.
    fn tick(&mut self) -> Result<()> {
        if std::mem::take(&mut self.doubtful) {
            self.begin_anew();
        }
        self.place();
        self.drop_partitions(&[]);
        self.note_offsets(CommitMode::Async);
        self.publish_status();
        if self.mode == Mode::UntilEnd && self.joined.is_none() && self.joining.elapsed() >= JOINING {
            let problems = self.shared.reports().status().problems.join("; ");
            let seconds = JOINING.as_secs();
            return Err(Error::Unfinished(format!(
                "the group gave no partitions within {seconds} s; are the topics there? {problems}"
            )));
        }
        Ok(())
    }

    /// Takes an error that Kafka reports in the place of a message.
    fn report_error(&mut self, error: KafkaError) -> Result<()> {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Err(Error::Kafka(error));
        }
        match error.rdkafka_error_code() {
            // The statistics tell of this, too, and librdkafka connects again by itself.
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
                self.shared.reports().connected = false;
                return Ok(());
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.doubtful = true
            }
            _ => {}
        }
        self.shared.reports().error = Some((error.to_string(), Instant::now()));
        Ok(())
    }

    /// Stores what has been read if `orderly`, leaves the group, and waits for the logs to be closed.
    fn shut_down(mut self, orderly: bool) {
        let deadline = Instant::now() + STOPPING;
        while orderly && self.pipelines.values().any(PartitionPipeline::is_busy) && Instant::now() < deadline
        {
            self.send_due(true);
            self.handle_late(POLL);
        }
        self.note_offsets(CommitMode::Sync);
        let _ = self.give_up.send(true);
        self.closing += self.pipelines.len();
        self.pipelines.clear();
        while self.closing > 0 && Instant::now() < deadline {
            self.handle_late(POLL);
        }
        self.runtime.block_on(self.shared.refusals.reset());
        // Closing the consumer has the group know at once that the partitions are free.
        self.consumer.context().closing.store(true, Ordering::Release);
        while self.handle_late(Duration::ZERO) {}
        drop(self.consumer);
    }

    /// Handles an event while the consumer is stopped: a rebalance is only answered. False if there was none.
    fn handle_late(&mut self, wait: Duration) -> bool {
        let Ok(event) = self.events.recv_timeout(wait) else { return false };
        let handled = match event {
            Event::Assigned(_) | Event::Revoked(_) => answer(&self.consumer, &event).map_err(Error::Kafka),
            Event::Statistics(_) | Event::Behind { .. } => Ok(()),
            event => self.handle(event),
        };
        if let Err(error) = handled {
            tracing::warn!(%error, "while the consumer was stopped");
        }
        true
    }

    /// How large a batch may become, in bytes.
    fn batch_bytes(&self) -> usize {
        let batches = self.pipelines.len().max(1) * (1 + PartitionPipeline::UNDER_WAY);
        BATCH_BYTES.min(self.memory / batches).max(1)
    }

    /// Hands over batches that are full or old enough, or all of them.
    fn send_due(&mut self, all: bool) {
        let limit = self.batch_bytes();
        let mut rested = Vec::new();
        for (log, pipeline) in &mut self.pipelines {
            if let Some(batch) = &pipeline.open
                && (all || is_full(batch, limit) || batch.begun.elapsed() >= BATCH_AGE)
                && pipeline.under_way < PartitionPipeline::UNDER_WAY
            {
                let bytes = batch.bytes.len() as f64;
                metrics::histogram!("sporlog_kafka_batch_bytes", "log" => log.clone()).record(bytes);
                pipeline.send(&self.runtime);
            }
            if pipeline.paused && pipeline.open.is_none() {
                rested.push(log.clone());
            }
        }
        for log in rested {
            self.pause(&log, false);
        }
    }

    /// Waits a moment if a log is full, in which nothing is read; pauses its partitions if the log is
    /// still full then, and the others go on. Pausing at once would throw away what has been fetched
    /// ahead. True if nothing is to be read now.
    fn apply_backpressure(&mut self) -> Result<bool> {
        let limit = self.batch_bytes();
        let mut over = Vec::new();
        let mut wait = false;
        for (log, pipeline) in &mut self.pipelines {
            if pipeline.paused || !pipeline.open.as_ref().is_some_and(|batch| is_full(batch, limit)) {
                continue;
            }
            let since = *pipeline.full_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= FULL {
                over.push(log.clone());
            } else {
                wait = true;
            }
        }
        for log in over {
            self.pause(&log, true);
        }
        if wait && let Ok(event) = self.events.recv_timeout(POLL) {
            self.handle(event)?;
        }
        Ok(wait)
    }

    /// Pauses the partitions of a log, or has them go on.
    fn pause(&mut self, log: &str, pause: bool) {
        let running = |partition: &&Partition| partition.log == log && partition.state == State::Running;
        let keys: Vec<_> = self.partitions.iter().filter(|(_, p)| running(p)).map(|(key, _)| *key).collect();
        let list = self.list(keys.iter().map(|key| (*key, Offset::Invalid)));
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(log, %error, "partitions could not be paused or resumed");
        }
        tracing::debug!(log, partitions = keys.len(), pause, "back-pressure");
        if let Some(pipeline) = self.pipelines.get_mut(log) {
            pipeline.paused = pause;
            pipeline.full_since = None;
        }
    }

    /// A partition, if it is still read in this generation.
    fn current(&mut self, key: Key, generation: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(&key).filter(|partition| partition.reading.generation == generation)
    }

    fn topic_name(&self, key: Key) -> &str {
        &self.shared.topics[key.topic].name
    }

    /// For messages: `topic/3`.
    fn name(&self, key: Key) -> String {
        format!("{}/{}", self.topic_name(key), key.partition)
    }

    fn list(&self, keys: impl IntoIterator<Item = (Key, Offset)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (key, offset) in keys {
            if let Err(error) = list.add_partition_offset(self.topic_name(key), key.partition, offset) {
                tracing::error!(partition = self.name(key), %error, "an offset that librdkafka does not take");
            }
        }
        list
    }
}

/// Adds a message to its log's batch. True if the batch is full now.
fn take(
    key: Key,
    message: &BorrowedMessage<'_>,
    partition: &mut Partition,
    pipeline: &mut PartitionPipeline,
    limit: usize,
) -> bool {
    let offset = message.offset();
    if partition.state != State::Running || offset <= partition.reading.read {
        return false;
    }
    let batch = pipeline.open.get_or_insert_with(|| Batch::new(limit));
    batch.push(key, &partition.reading, offset, message.payload().unwrap_or_default(), || {
        let headers = message.headers().map(headers_of).unwrap_or_default();
        Envelope::new(message.key(), headers.into_iter(), message.timestamp())
    });
    partition.reading.read = offset;
    is_full(batch, limit)
}

fn is_full(batch: &Batch, limit: usize) -> bool {
    batch.size() >= limit || batch.messages >= BATCH_MESSAGES
}

/// Names and values. The library panics over a name that is not UTF-8, which a producer could use to
/// stop the partition: of such a header there is only the name `\u{fffd}`.
fn headers_of(headers: &BorrowedHeaders) -> Vec<(&str, Option<&[u8]>)> {
    let pair = |at: usize| headers.try_get(at).map(|header| (header.key, header.value));
    let guarded = |at| catch_unwind(AssertUnwindSafe(|| pair(at))).unwrap_or(Some(("\u{fffd}", None)));
    (0..headers.count()).filter_map(guarded).collect()
}
