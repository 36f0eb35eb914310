//! Refused messages: each once into the quarantine, and copies to a topic of their own.
//!
//! Refused messages go into the quarantine before their batch goes into the log. After a crash in
//! between they are read again; by then the rules may have changed, and batches end elsewhere. So
//! what decides is not how far the quarantine has got, but which of the messages that the log does
//! not cover yet are in it.
//!
//! A copy has the message's key, bytes and headers; further headers say where the message stood and
//! what was wrong. It is sent before the message goes into the quarantine: after a crash it may be
//! there twice, and is never missing for one. A copy that cannot be sent is logged and counted, and
//! intake goes on, for the quarantine has the message.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use futures::future::join_all;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sporlog_ledger::{Advance, Append, Outcome, Store};
use sporlog_record::Kind;
use sporlog_record::kind::quarantine::QuarantineRecord;

use super::batch::{Bytes, Envelope, Refused};
use super::context::LogOnly;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::quarantine::{self, Quarantine};

/// How long sending one copy is tried.
const SENDING: Duration = Duration::from_secs(10);

/// The way of refused messages, for all partitions of this instance.
pub(super) struct Refusals {
    quarantine: Quarantine,
    /// Sends copies; there only if a topic has `dead_letter`.
    producer: Option<FutureProducer<LogOnly>>,
}

/// The partition whose messages were refused.
pub(super) struct From<'a> {
    pub log: &'a str,
    pub kind: Kind,
    /// `kafka:TOPIC/PARTITION`.
    pub source: &'a str,
    /// The name of the partition's position in the quarantine.
    pub position: &'a str,
}

/// A partition's messages in the quarantine.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// How far the partition's refused messages have been taken in; −1 if none has.
    pub position: i64,
    /// The offsets in the quarantine that the log did not cover when the quarantine was read.
    pub offsets: BTreeSet<i64>,
}

impl Refusals {
    pub(super) fn new(settings: &Settings, store: Store) -> Result<Self> {
        let copies = settings.topics.iter().any(|topic| topic.dead_letter.is_some());
        let producer = || {
            let mut config = settings.producer_config();
            config.set("message.timeout.ms", SENDING.as_millis().to_string());
            config.create_with_context(LogOnly).map_err(Error::Kafka)
        };
        Ok(Refusals { quarantine: Quarantine::new(store), producer: copies.then(producer).transpose()? })
    }

    /// Reads which messages the quarantine has of a partition that its log covers up to the offset `stored`.
    pub(super) async fn known(&self, from: &From<'_>, stored: i64) -> Result<Known> {
        let mut known = Known { position: -1, offsets: BTreeSet::new() };
        // Opened anew: other instances write to the quarantine, too.
        let Some(log) = self.quarantine.begun().await? else { return Ok(known) };
        known.position = log.position(from.position).map_or(-1, |position| position.version);
        if known.position <= stored {
            return Ok(known);
        }
        let mut batches = log.read_where(0, log.head(), "source", from.source);
        while let Some(batch) = batches.try_next().await? {
            let lines = batch.column_by_name("line").and_then(|c| c.as_primitive_opt::<Int64Type>());
            let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
            let (Some(lines), Some(actions), Some(logs)) = (lines, text("action"), text("log")) else {
                continue;
            };
            let rows = lines.iter().zip(actions).zip(logs);
            let offsets = rows.filter_map(|((line, action), log)| {
                (action == Some("REFUSED") && log == Some(from.log)).then_some(line).flatten()
            });
            known.offsets.extend(offsets.filter(|offset| *offset > stored));
        }
        Ok(known)
    }

    /// Puts `refused`, in the order of their offsets, into the quarantine; they are durable there when
    /// this returns true. False if the quarantine has more of the partition than `known` says: then
    /// nothing was stored, and what is known has to be read again.
    pub(super) async fn append(
        &self,
        from: &From<'_>,
        known: &mut Known,
        refused: &[&Refused],
    ) -> Result<bool> {
        let Some(last) = refused.last().map(|refused| refused.offset) else { return Ok(true) };
        let record = |refused: &&Refused| QuarantineRecord {
            kind: from.kind.name().to_owned(),
            log: from.log.to_owned(),
            source: from.source.to_owned(),
            line: Some(refused.offset),
            reasons: refused.findings.clone(),
            content: refused.content.clone(),
            envelope: Some(refused.envelope.clone()),
            ..QuarantineRecord::default()
        };
        let records: Vec<_> = refused.iter().map(record).collect();
        let rows = quarantine::rows(&records, from.source);
        drop(records);
        let to = known.position.max(last);
        let step = Advance::Step { from: known.position, to };
        let append = Append { rows, positions: vec![(from.position.to_owned(), step)] };
        match self.quarantine.writer().await?.append(append).await? {
            Outcome::Appended(_) => {
                known.position = to;
                known.offsets.extend(refused.iter().map(|refused| refused.offset));
                Ok(true)
            }
            Outcome::AlreadyThere { position, .. } => {
                if position.version < known.position {
                    // Another instance appended before `known` was read, and this writer has not seen that yet.
                    self.reset().await;
                }
                Ok(false)
            }
        }
    }

    /// Closes the quarantine's writer; the next refusal opens another.
    pub(super) async fn reset(&self) {
        if let Err(error) = self.quarantine.close().await {
            tracing::debug!(%error, "the quarantine's writer could not be closed");
        }
    }

    /// Sends copies to `topic`.
    pub(super) async fn send_copies(&self, topic: &str, source: &str, refused: &[&Refused]) {
        let Some(producer) = &self.producer else { return };
        let sent = join_all(refused.iter().map(|refused| send_copy(producer, topic, source, refused))).await;
        let failed: Vec<_> = sent.into_iter().filter_map(Result::err).collect();
        let Some(error) = failed.first() else { return };
        let count = failed.len();
        tracing::error!(topic, count, %error, "dead letters could not be sent; the quarantine has them");
        metrics::counter!("sporlog_kafka_dead_letter_failures_total", "topic" => topic.to_owned())
            .increment(count as u64);
    }
}

async fn send_copy(
    producer: &FutureProducer<LogOnly>,
    topic: &str,
    source: &str,
    refused: &Refused,
) -> Result<()> {
    let envelope: Envelope = serde_json::from_str(&refused.envelope).unwrap_or_default();
    let key = envelope.key();
    let mut headers = OwnedHeaders::new();
    for (name, value) in &envelope.headers {
        let value = value.as_ref().map(Bytes::to_vec);
        headers = headers.insert(Header { key: name, value: value.as_ref() });
    }
    let origin = format!("{source}@{}", refused.offset);
    headers = headers.insert(Header { key: "sporlog-origin", value: Some(&origin) });
    let reason = refused.findings.first().map(ToString::to_string).unwrap_or_default();
    headers = headers.insert(Header { key: "sporlog-reason", value: Some(&reason) });
    let record = FutureRecord {
        topic,
        partition: None,
        payload: Some(&refused.content),
        key: key.as_ref(),
        timestamp: None,
        headers: Some(headers),
    };
    let sent = producer.send(record, SENDING).await;
    sent.map(drop).map_err(|(error, _)| Error::Kafka(error))
}
