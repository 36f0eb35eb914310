//! What others are told: Kafka how far the logs have got, the metrics and the status how things are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, Statistics};

use super::Poll;
use crate::kafka::consumer::Mode;
use crate::kafka::partition::{Key, Partition, State};
use crate::kafka::status::PartitionStatus;

/// After how long without a message the statistics are believed about the end.
const QUIET: Duration = Duration::from_secs(3);
/// After how long without partitions it is believed that there are none for this instance.
const SETTLED: Duration = Duration::from_secs(10);

impl Poll {
    /// Tells Kafka how far the logs have got: for those who look at lags there.
    pub(super) fn commit_offsets(&mut self, mode: CommitMode) {
        let ahead = |(key, partition): (&Key, &Partition)| {
            let told = self.committed.get(key).copied().unwrap_or(-1);
            (partition.stored > told).then_some((*key, partition.stored))
        };
        let ahead: Vec<_> = self.partitions.iter().filter_map(ahead).collect();
        if ahead.is_empty() {
            return;
        }
        let list = self.list(ahead.iter().map(|(key, stored)| (*key, Offset::Offset(stored + 1))));
        match self.consumer.commit(&list, mode) {
            Ok(()) => self.committed.extend(ahead),
            Err(error) => tracing::debug!(%error, "the group could not be told of offsets"),
        }
    }

    pub(super) fn gauge(&self, key: Key) -> metrics::Gauge {
        let topic = self.topic(key).map_or("", |topic| &topic.name).to_owned();
        metrics::gauge!("sporlog_kafka_lag", "topic" => topic, "partition" => key.partition.to_string())
    }

    /// Takes lags, and whether a broker is there, from librdkafka's statistics.
    pub(super) fn look_at(&mut self, statistics: &Statistics) {
        let up = statistics.brokers.values().any(|broker| broker.state == "UP");
        self.shared.reports.connected(up);
        // A member that has just joined may be given its share a moment later.
        let settled = |since: Instant| !self.partitions.is_empty() || since.elapsed() >= SETTLED;
        let mut at_end = self.joined.is_some_and(settled);
        let quiet = self.last_message.elapsed() >= QUIET && self.lanes.values().all(|lane| !lane.paused);
        for (key, partition) in &self.partitions {
            let topic =
                self.shared.topics.get(key.topic).and_then(|topic| statistics.topics.get(&topic.name));
            let Some(told) = topic.and_then(|topic| topic.partitions.get(&key.partition)) else {
                at_end = false;
                continue;
            };
            let end = if told.ls_offset >= 0 { told.ls_offset } else { told.hi_offset };
            if end >= 0 {
                let begin = (partition.stored + 1).max(told.lo_offset);
                // Behind the last message there may be what only marks a transaction.
                let read_all = partition.stored >= partition.read && told.next_offset >= end;
                let lag = if read_all { 0 } else { (end - begin).max(0) };
                self.lags.insert(*key, lag);
            }
            // The last offsets may be those of what only marks a transaction, or of what compaction has
            // removed: then nothing more comes, and only the statistics say that they have been passed.
            let passed = |end| partition.read + 1 >= end || (quiet && told.next_offset >= end);
            at_end &= match partition.state {
                State::Running => partition.end.is_some_and(passed),
                State::Broken(_) => true,
                State::Asking | State::Placing => false,
            };
        }
        for (key, lag) in &self.lags {
            self.gauge(*key).set(*lag as f64);
        }
        self.at_end = at_end && self.mode == Mode::UntilEnd;
    }

    pub(super) fn publish_status(&self) {
        let mut partitions = Vec::with_capacity(self.partitions.len());
        let mut broken = BTreeMap::new();
        let sorted: BTreeMap<_, _> = self.partitions.iter().collect();
        for (key, partition) in sorted {
            let topic = self.topic(*key).map_or("", |topic| &topic.name).to_owned();
            match &partition.state {
                State::Broken(why) => broken.insert(self.name(*key), why.clone()),
                State::Asking => {
                    broken.insert(self.name(*key), "its log does not say where it stands".into())
                }
                State::Placing => broken.insert(self.name(*key), "Kafka has not begun with it yet".into()),
                State::Running => None,
            };
            partitions.push(PartitionStatus {
                topic,
                partition: key.partition,
                log: partition.log.clone(),
                position: partition.stored,
                lag: self.lags.get(key).copied(),
            });
        }
        self.shared.reports.partitions(partitions, broken);
        let healthy = self.shared.reports.status().healthy;
        metrics::gauge!("sporlog_kafka_healthy").set(f64::from(u8::from(healthy)));
    }
}
