//! The events that librdkafka's callbacks and the pipelines send to the polling thread.
//!
//! A rebalance is only noted here; the polling thread assigns and gives up partitions once their logs
//! have said where they stand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use sporlog_record::identifier::mask_text;

use super::batch::Key;
use super::topic_ids::TopicIds;
use crate::error::Error;

/// An event for the polling thread.
pub(super) enum Event {
    /// The group gives these partitions to this instance.
    Assigned(TopicPartitionList),
    /// The group takes these partitions away.
    Revoked(TopicPartitionList),
    /// librdkafka's statistics.
    Statistics(Box<Statistics>),
    /// A log covers the partition up to the offset `position`; −1 if it has none of its messages. `identity` is the
    /// topic in origins and positions.
    Position { key: Key, generation: u64, identity: Arc<str>, position: i64 },
    /// A batch of `log` is stored, and covers these partitions up to these offsets.
    Stored { log: String, positions: Vec<(Key, u64, i64)> },
    /// A log covers less than was read before a batch: reading has to begin anew after `position`.
    Behind { key: Key, generation: u64, position: i64 },
    /// The consumer cannot go on.
    Fatal(Error),
    /// A pipeline has published what it had committed, and is closed.
    Closed,
}

/// The consumer's context.
pub(super) struct Context {
    pub events: Sender<Event>,
    /// The polling thread handles no events any more.
    pub closing: AtomicBool,
    pub topic_ids: TopicIds,
}

/// The producer's context.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogOnly;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.topic_ids.learn(message);
        log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let _ = self.events.send(Event::Statistics(Box::new(statistics)));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let event = if assigned { Event::Assigned } else { Event::Revoked };
        let event = event(partitions.clone());
        if self.closing.load(Ordering::Acquire) {
            if let Err(error) = answer(consumer, &event) {
                tracing::debug!(%error, "a rebalance came while the consumer was closed");
            }
            return;
        }
        let _ = self.events.send(event);
    }
}

impl ClientContext for LogOnly {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The properties that are set are meant for the consumer, too: of each that a producer has no
        // use for, librdkafka warns.
        if facility != "CONFWARN" {
            log(level, facility, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn(&error, reason);
    }
}

/// Answers a rebalance, if `event` is one. A consumer cannot be closed before each rebalance has been answered.
///
/// Partitions that the group gives are not read from yet: librdkafka is told of them when it is known where
/// their reading begins.
pub(super) fn answer(consumer: &BaseConsumer<Context>, event: &Event) -> Result<(), KafkaError> {
    match event {
        Event::Assigned(_) => consumer.incremental_assign(&TopicPartitionList::new()),
        Event::Revoked(partitions) => unassign(consumer, partitions),
        _ => Ok(()),
    }
}

/// Has librdkafka read no longer from those of `partitions` that it reads from.
pub(super) fn unassign(
    consumer: &BaseConsumer<Context>,
    partitions: &TopicPartitionList,
) -> Result<(), KafkaError> {
    let assigned = consumer.assignment()?;
    let mut list = TopicPartitionList::new();
    for partition in partitions.elements() {
        if assigned.find_partition(partition.topic(), partition.partition()).is_some() {
            list.add_partition(partition.topic(), partition.partition());
        }
    }
    consumer.incremental_unassign(&list)
}

fn warn(error: &KafkaError, reason: &str) {
    // librdkafka's log has these, too.
    if let Some(
        RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::Resolve,
    ) = error.rdkafka_error_code()
    {
        tracing::debug!("Kafka: {}", mask_text(reason));
        return;
    }
    tracing::warn!(error = %mask_text(&error.to_string()), "Kafka: {}", mask_text(reason));
}

fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    let message = mask_text(message);
    // Nothing depends on the group's offsets, and a rebalance always leaves some behind.
    let level = if facility == "COMMITFAIL" { RDKafkaLogLevel::Debug } else { level };
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(facility, "Kafka: {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "Kafka: {message}"),
        RDKafkaLogLevel::Debug => tracing::trace!(facility, "Kafka: {message}"),
    }
}
