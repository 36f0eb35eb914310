//! The loop that polls Kafka: it gathers messages, follows the group, and keeps to its memory.
//!
//! It has a thread of its own and is the only one that speaks to the consumer. When the group gives
//! it a partition, the partition's log is asked where it stands, and reading begins just after
//! that, whatever the group has noted: the offsets in Kafka are for others to look at. When the
//! group takes a partition away, what is under way is waited for a while, so that the next reader
//! begins after it; what comes too late all the same is turned away by the log.
//!
//! Memory: each log may have one batch open and two under way, and the size of a batch is such that
//! all of them together keep to the limit that is set. A log that is full is waited for a moment,
//! in which nothing is read; after that, its partitions are paused, and the others go on.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::batch::Batch;
use super::client;
use super::consumer::Mode;
use super::context::{self, Context};
use super::envelope;
use super::lane::{Event, Lane, Shared};
use super::partition::{Key, Partition, State};
use super::settings::{BatchLimits, Settings, Topic};
use crate::error::{Error, Result};

/// How long a poll waits for a message.
const POLL: Duration = Duration::from_millis(50);
/// Messages that are taken before anything else is looked at.
const BURST: usize = 1_000;
/// How often what is slow is looked after.
const TICK: Duration = Duration::from_millis(500);
/// How long the end is waited for.
const END: Duration = Duration::from_secs(10);
/// How long a group is waited for in [`Mode::UntilEnd`].
const JOINING: Duration = Duration::from_secs(60);

mod group;
mod place;
mod pressure;
mod report;

pub(super) struct Poll {
    consumer: BaseConsumer<Context>,
    shared: Arc<Shared>,
    events: Receiver<Event>,
    give_up: watch::Sender<bool>,
    stop: Arc<AtomicBool>,
    mode: Mode,
    runtime: Handle,
    limits: BatchLimits,
    memory: usize,
    /// The topics' places in the settings.
    topics: HashMap<String, usize>,
    partitions: HashMap<Key, Partition>,
    lanes: HashMap<String, Lane>,
    /// Logs that were given up and are still to be closed.
    closing: usize,
    generation: u64,
    lags: HashMap<Key, i64>,
    /// What Kafka has been told of.
    committed: HashMap<Key, i64>,
    begun: Instant,
    last_message: Instant,
    /// Since when the group has given out partitions.
    joined: Option<Instant>,
    /// Until when Kafka is not asked about bounds again, since it did not answer.
    unanswered: Option<Instant>,
    /// All that is waited for has been read.
    at_end: bool,
    /// The partitions have to be looked over: one may no longer be what it was.
    doubtful: bool,
}

impl Poll {
    pub(super) fn new(
        settings: &Settings,
        shared: Arc<Shared>,
        events: Receiver<Event>,
        give_up: watch::Sender<bool>,
        stop: Arc<AtomicBool>,
        mode: Mode,
    ) -> Result<Self> {
        let config = client::consumer(settings, mode == Mode::UntilEnd)?;
        let context = Context { events: shared.events.clone(), closing: AtomicBool::new(false) };
        let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(Error::Kafka)?;
        let names: Vec<_> = settings.topics.iter().map(|topic| topic.name.as_str()).collect();
        consumer.subscribe(&names).map_err(Error::Kafka)?;
        Ok(Poll {
            consumer,
            topics: names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), at)).collect(),
            shared,
            events,
            give_up,
            stop,
            mode,
            runtime: Handle::current(),
            limits: settings.batch.clone(),
            memory: settings.memory_bytes,
            partitions: HashMap::new(),
            lanes: HashMap::new(),
            closing: 0,
            generation: 0,
            lags: HashMap::new(),
            committed: HashMap::new(),
            begun: Instant::now(),
            last_message: Instant::now(),
            joined: None,
            unanswered: None,
            at_end: false,
            doubtful: false,
        })
    }

    /// Polls until it is stopped, or at the end, or cannot go on.
    pub(super) fn run(mut self) -> Result<()> {
        let polled = self.poll();
        self.wind_up(polled.is_ok());
        polled
    }

    fn poll(&mut self) -> Result<()> {
        let mut ticked = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            while let Ok(event) = self.events.try_recv() {
                self.handle(event)?;
            }
            self.send_due(false);
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick()?;
            }
            if self.hold_breath()? {
                continue;
            }
            let idle = self.take_burst()?;
            if idle
                && self.at_end
                && self.lanes.values().all(|lane| lane.open.is_none() && lane.under_way == 0)
            {
                return self.at_the_end();
            }
        }
        Ok(())
    }

    /// All that can be read has been stored.
    fn at_the_end(&self) -> Result<()> {
        let broken = self.partitions.values().find_map(|partition| match &partition.state {
            State::Broken(why) => Some(why.clone()),
            _ => None,
        });
        match broken {
            Some(why) => Err(Error::Unfinished(why)),
            None => Ok(()),
        }
    }

    /// Takes messages while there are any. True if there was none.
    fn take_burst(&mut self) -> Result<bool> {
        let due = self.lanes.values().filter_map(|lane| lane.open.as_ref()).map(|batch| batch.begun).min();
        let delay = Duration::from_millis(self.limits.delay_ms);
        let mut wait = due.map_or(POLL, |begun| delay.saturating_sub(begun.elapsed()).min(POLL));
        // Kept aside, because what it lends must not keep the rest of the loop from being changed.
        let share = self.share();
        for taken in 0..BURST {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    self.last_message = Instant::now();
                    let place = self.topics.get(message.topic()).copied();
                    let full =
                        take(place, &message, &mut self.partitions, &mut self.lanes, share, &self.limits);
                    if full {
                        return Ok(false);
                    }
                }
                Some(Err(error)) => {
                    self.complain(error)?;
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
            // Answered in any case, or the consumer could not be closed.
            Event::Assigned(list) => self.assign(&list).inspect_err(|_| {
                let _ = context::accept(&self.consumer, &list);
            })?,
            Event::Revoked(list) => self.revoke(&list).inspect_err(|_| {
                let _ = context::give_up(&self.consumer, &list);
            })?,
            Event::Statistics(statistics) => self.look_at(&statistics),
            Event::Stands { key, generation, position } => {
                if let Some(partition) = self.current(key, generation)
                    && partition.state == State::Asking
                {
                    (partition.read, partition.stored) = (position, position);
                    partition.state = State::Placing;
                }
            }
            Event::Done { log, stored } => {
                if let Some(lane) = self.lanes.get_mut(&log) {
                    lane.under_way = lane.under_way.saturating_sub(1);
                }
                for (key, generation, position) in stored {
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

    /// A partition, if it is still read as it was then.
    fn current(&mut self, key: Key, generation: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(&key).filter(|partition| partition.generation == generation)
    }

    fn topic(&self, key: Key) -> Option<&Topic> {
        self.shared.topics.get(key.topic)
    }

    fn list(&self, keys: impl IntoIterator<Item = (Key, Offset)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (key, offset) in keys {
            if let Some(topic) = self.topic(key)
                && let Err(error) = list.add_partition_offset(&topic.name, key.partition, offset)
            {
                tracing::error!(topic = topic.name, %error, "an offset that librdkafka does not take");
            }
        }
        list
    }

    fn name(&self, key: Key) -> String {
        format!("{}/{}", self.topic(key).map_or("", |topic| &topic.name), key.partition)
    }

    /// What has to be done now and then.
    fn tick(&mut self) -> Result<()> {
        if self.doubtful {
            self.doubtful = false;
            self.look_over();
        }
        self.place();
        self.drop_partitions(&[]);
        self.commit_offsets(CommitMode::Async);
        self.publish_status();
        if self.mode == Mode::UntilEnd && self.joined.is_none() && self.begun.elapsed() >= JOINING {
            let problems = self.shared.reports.status().problems.join("; ");
            return Err(Error::Unfinished(format!(
                "no partitions within {} s: {problems}",
                JOINING.as_secs()
            )));
        }
        Ok(())
    }

    /// What Kafka reports instead of a message.
    fn complain(&mut self, error: KafkaError) -> Result<()> {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Err(Error::Kafka(error));
        }
        match context::code(&error) {
            // Said by the statistics, too; and it comes back by itself.
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure) => {
                self.shared.reports.connected(false);
                return Ok(());
            }
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.doubtful = true
            }
            _ => {}
        }
        self.shared.reports.error(error.to_string());
        Ok(())
    }

    /// Stores what has been read, leaves the group, and waits for the logs to be closed.
    fn wind_up(mut self, orderly: bool) {
        let deadline = Instant::now() + END;
        let busy = |poll: &Poll| poll.lanes.values().any(|lane| lane.open.is_some() || lane.under_way > 0);
        while orderly && busy(&self) && Instant::now() < deadline {
            self.send_due(true);
            if let Ok(event) = self.events.recv_timeout(POLL)
                && let Err(error) = self.handle_late(event)
            {
                tracing::warn!(%error, "while the consumer was stopped");
            }
        }
        self.commit_offsets(CommitMode::Sync);
        let _ = self.give_up.send(true);
        self.closing += self.lanes.len();
        self.lanes.clear();
        while self.closing > 0 && Instant::now() < deadline {
            if let Ok(event) = self.events.recv_timeout(POLL) {
                let _ = self.handle_late(event);
            }
        }
        self.runtime.block_on(self.shared.refusals.reset());
        // Closing the consumer has the group know at once that the partitions are free.
        self.consumer.context().closing.store(true, Ordering::Release);
        while let Ok(event) = self.events.try_recv() {
            let _ = self.handle_late(event);
        }
        drop(self.consumer);
    }

    /// What still comes at the end. A rebalance no longer matters, but the consumer cannot be closed
    /// before it has been answered.
    fn handle_late(&mut self, event: Event) -> Result<()> {
        let answered = match event {
            Event::Assigned(list) => context::accept(&self.consumer, &list),
            Event::Revoked(list) => context::give_up(&self.consumer, &list),
            Event::Statistics(_) | Event::Behind { .. } => Ok(()),
            other => return self.handle(other),
        };
        answered.map_err(Error::Kafka)
    }
}

/// Takes a message into its log's batch. True if that is full now.
fn take(
    topic: Option<usize>,
    message: &BorrowedMessage<'_>,
    partitions: &mut HashMap<Key, Partition>,
    lanes: &mut HashMap<String, Lane>,
    share: usize,
    limits: &BatchLimits,
) -> bool {
    let Some(key) = topic.map(|topic| Key { topic, partition: message.partition() }) else { return false };
    let Some(partition) = partitions.get_mut(&key) else { return false };
    if partition.state != State::Running || message.offset() <= partition.read {
        return false;
    }
    let Some(lane) = lanes.get_mut(&partition.log) else { return false };
    let batch = lane.open.get_or_insert_with(|| Batch::new(share));
    batch.push(key, partition, message.offset(), message.payload().unwrap_or_default(), |out| {
        let headers = message.headers().map(headers_of).unwrap_or_default();
        envelope::write(message.key(), headers.into_iter(), message.timestamp(), out);
    });
    pressure::is_full(batch, share, limits)
}

/// Names and values. The library panics over a name that is not UTF-8, which a producer could use to
/// stop the partition: such a header is only said to have been there, by the name `\u{fffd}`.
fn headers_of(headers: &BorrowedHeaders) -> Vec<(&str, Option<&[u8]>)> {
    let pair = |at: usize| headers.try_get(at).map(|header| (header.key, header.value));
    let guarded = |at| catch_unwind(AssertUnwindSafe(|| pair(at))).unwrap_or(Some(("\u{fffd}", None)));
    (0..headers.count()).filter_map(guarded).collect()
}
