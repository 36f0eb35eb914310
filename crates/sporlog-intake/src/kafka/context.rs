//! What librdkafka tells besides messages: rebalances, statistics, errors, its own log.
//!
//! A rebalance is only noted here; [`poll`](super::poll) assigns and gives up partitions once the
//! log has said where they stand.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use sporlog_record::identifier::mask_text;

use super::lane::Event;

/// The consumer's context.
pub(super) struct Context {
    pub events: Sender<Event>,
    /// Nobody handles what is noted any more.
    pub closing: AtomicBool,
}

/// A context that only logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
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
        let answered = match (self.closing.load(Ordering::Acquire), assigned) {
            (false, true) => return drop(self.events.send(Event::Assigned(partitions.clone()))),
            (false, false) => return drop(self.events.send(Event::Revoked(partitions.clone()))),
            (true, true) => accept(consumer, partitions),
            (true, false) => give_up(consumer, partitions),
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "a rebalance came too late");
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn(&error, reason);
    }
}

/// Answers that `partitions` are taken, without anything being read from them.
pub(super) fn accept(
    consumer: &BaseConsumer<Context>,
    partitions: &TopicPartitionList,
) -> Result<(), KafkaError> {
    let mut partitions = partitions.clone();
    partitions.set_all_offsets(Offset::End)?;
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&partitions),
        _ => consumer.assign(&partitions),
    }
}

/// Tells Kafka that `partitions` are given up.
pub(super) fn give_up(
    consumer: &BaseConsumer<Context>,
    partitions: &TopicPartitionList,
) -> Result<(), KafkaError> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        _ => consumer.unassign(),
    }
}

/// The code of an error, if it is one of librdkafka's or of the broker's.
pub(super) fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    error.rdkafka_error_code()
}

fn warn(error: &KafkaError, reason: &str) {
    // These are in librdkafka's log, too.
    if let Some(
        RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::Resolve,
    ) = code(error)
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
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "Kafka: {message}"),
    }
}
