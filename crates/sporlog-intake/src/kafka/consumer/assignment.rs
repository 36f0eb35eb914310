//! The partitions of this instance: how they come and go, where their reading begins, how far they are.
//!
//! A partition that comes is read from where its log says that it stands. Of a partition that goes,
//! the batches under way are waited for, so that the next reader begins after them; what comes too
//! late all the same is turned away by the log.
//!
//! A partition is given to librdkafka only when it is known at which offset its reading begins, and taken from it and
//! given again to begin elsewhere. A seek is no way: librdkafka 2.12 forgets a seek when the answer to an earlier
//! question comes late, such as where the partition ends (`rd_kafka_toppar_handle_Offset`, "outdated offset response"),
//! and goes on from there.
//!
//! Kafka is asked what it has of a partition before reading begins, for two things must not pass in
//! silence: that Kafka has removed messages that had not been read, and that it has lost messages that had been. When a
//! topic has another id, because it was made anew, its partitions begin as if they had just been assigned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, Statistics, TopicPartitionList};

use super::{Mode, Poll};
use crate::error::{Error, Result};
use crate::kafka::batch::{Key, Reading};
use crate::kafka::context::{Event, answer, unassign};
use crate::kafka::pipeline::{PartitionPipeline, Question};
use crate::kafka::settings::Start;
use crate::kafka::status::PartitionStatus;

/// How long batches under way are waited for when partitions are taken away.
const HANDOVER: Duration = Duration::from_secs(5);
/// How long Kafka is waited for when it is asked something.
const REQUEST: Duration = Duration::from_secs(5);
/// After how long without a message the statistics are believed about the end of a partition.
const QUIET: Duration = Duration::from_secs(3);
/// After how long without partitions it is believed that there are none for this instance.
const SETTLED: Duration = Duration::from_secs(10);

/// A partition that is assigned to this instance.
#[derive(Debug)]
pub(super) struct Partition {
    /// Where its reading stands.
    pub reading: Reading,
    /// The log that its messages go into.
    pub log: String,
    /// The topic's id that the log was asked with.
    topic_id: Option<String>,
    /// The offset of the last message that is in the log.
    pub stored: i64,
    /// The offset of the last message that the group has been told of.
    noted: i64,
    /// The offset one above the last message that Kafka had when reading began, where the end is
    /// waited for.
    end: Option<i64>,
    /// Whether its messages are taken.
    pub state: State,
}

/// Whether messages are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// No: the log has been asked for its position, and has not answered yet.
    Asking,
    /// No: the position is known, and reading has not begun there yet.
    Placing,
    /// Yes. In this state alone, librdkafka has the partition.
    Running,
    /// No, for this reason; an operator has to act.
    Broken(String),
}

impl Partition {
    /// Why nothing is read from it for good.
    pub(super) fn broken(&self) -> Option<&str> {
        if let State::Broken(why) = &self.state { Some(why) } else { None }
    }
}

impl Poll {
    /// Takes partitions over, and asks their logs where they stand.
    pub(super) fn assign(&mut self, list: &TopicPartitionList) -> Result<()> {
        let keys = self.keys(list);
        metrics::counter!("sporlog_kafka_rebalances_total").increment(1);
        self.ask(&keys)?;
        answer(&self.consumer, &Event::Assigned(list.clone())).map_err(Error::Kafka)?;
        tracing::info!(
            partitions = self.names(&keys),
            all = self.partitions.len(),
            "partitions were assigned"
        );
        self.joined.get_or_insert_with(Instant::now);
        self.shared.reports().joined = true;
        self.publish_status();
        Ok(())
    }

    /// Begins anew with the partitions of topics that have another id by now, and of those whose id is known only now.
    pub(super) fn follow_topic_ids(&mut self) -> Result<()> {
        let ids = &self.consumer.context().topic_ids;
        let changes = ids.changes();
        if changes == self.topic_id_changes {
            return Ok(());
        }
        self.topic_id_changes = changes;
        let other = |(key, partition): (&Key, &Partition)| {
            (partition.topic_id != ids.get(self.topic_name(*key))).then_some(*key)
        };
        let keys: Vec<_> = self.partitions.iter().filter_map(other).collect();
        self.discard(&keys);
        self.unassign(&keys);
        self.ask(&keys)
    }

    /// Takes partitions from librdkafka.
    fn unassign(&self, keys: &[Key]) {
        let list = self.list(keys.iter().map(|key| (*key, Offset::Invalid)));
        if let Err(error) = unassign(&self.consumer, &list) {
            tracing::warn!(partitions = self.names(keys), %error, "partitions are still read from");
        }
    }

    /// Asks the logs of partitions how far they cover them. Nothing is read until they have answered.
    fn ask(&mut self, keys: &[Key]) -> Result<()> {
        self.generation += 1;
        self.at_end = false;
        let mut questions: HashMap<String, Vec<Question>> = HashMap::new();
        for key in keys {
            let topic = &self.shared.topics[key.topic];
            let (log, kind, generation) = (topic.log_of(key.partition), topic.kind, self.generation);
            let topic_id = self.consumer.context().topic_ids.get(&topic.name);
            let question = Question { key: *key, generation, topic_id: topic_id.clone() };
            questions.entry(log.clone()).or_default().push(question);
            if !self.pipelines.contains_key(&log) {
                let _in_runtime = self.runtime.enter();
                let pipeline = PartitionPipeline::start(log.clone(), kind, self.shared.clone());
                self.pipelines.insert(log.clone(), pipeline);
            }
            let reading = Reading { generation, identity: topic.name.as_str().into(), read: -1 };
            let (stored, noted, end, state) = (-1, -1, None, State::Asking);
            let partition = Partition { reading, log, topic_id, stored, noted, end, state };
            self.partitions.insert(*key, partition);
        }
        for (log, question) in questions {
            if !self.pipelines.get(&log).is_some_and(|pipeline| pipeline.ask(question)) {
                return Err(Error::Internal(format!("the pipeline of the log '{log}' takes no more work")));
            }
        }
        Ok(())
    }

    /// Gives partitions up, after their batches under way.
    pub(super) fn revoke(&mut self, list: &TopicPartitionList) -> Result<()> {
        let keys = self.keys(list);
        // Another instance may have the partitions already, and waiting would help nobody.
        let lost = self.consumer.assignment_lost();
        metrics::counter!("sporlog_kafka_rebalances_total").increment(1);
        let logs: BTreeSet<String> =
            keys.iter().filter_map(|key| self.partitions.get(key).map(|p| p.log.clone())).collect();
        self.discard(&keys);
        let deadline = Instant::now() + if lost { Duration::ZERO } else { HANDOVER };
        let busy =
            |poll: &Poll| logs.iter().any(|log| poll.pipelines.get(log).is_some_and(|p| p.under_way > 0));
        while busy(self) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            if let Ok(event) = self.events.recv_timeout(left) {
                self.handle(event)?;
            }
        }
        if !lost {
            self.note_offsets(CommitMode::Async);
        }
        self.drop_partitions(&keys);
        for key in &keys {
            self.lags.remove(key);
            self.lag_gauge(*key).set(0);
        }
        if let Err(error) = unassign(&self.consumer, list) {
            tracing::warn!(%error, "partitions were gone already");
        }
        let (partitions, left) = (self.names(&keys), self.partitions.len());
        tracing::info!(partitions, left, lost, "partitions were revoked");
        self.publish_status();
        Ok(())
    }

    /// Throws away what is in open batches of partitions.
    fn discard(&mut self, keys: &[Key]) {
        for pipeline in self.pipelines.values_mut() {
            if let Some(batch) = &mut pipeline.open {
                keys.iter().for_each(|key| drop(batch.parts.remove(key)));
            }
            pipeline.open.take_if(|batch| batch.parts.is_empty());
        }
    }

    /// Forgets partitions, and gives up the pipelines that have none left.
    pub(super) fn drop_partitions(&mut self, keys: &[Key]) {
        self.discard(keys);
        for key in keys {
            self.partitions.remove(key);
        }
        let used: BTreeSet<_> = self.partitions.values().map(|partition| &partition.log).collect();
        let before = self.pipelines.len();
        self.pipelines.retain(|log, pipeline| used.contains(log) || pipeline.under_way > 0);
        self.closing += before - self.pipelines.len();
    }

    /// The offset at which a partition whose position is known is to begin. `None` if it cannot begin,
    /// or not yet, as its state then says.
    fn beginning(&mut self, key: Key) -> Option<Offset> {
        let topic = self.shared.topics[key.topic].clone();
        let partition = self.partitions.get(&key)?;
        let (stored, end, anew) =
            (partition.stored, partition.end, *partition.reading.identity != topic.name);
        // Of many partitions, each would otherwise be waited for.
        let waiting = self.unanswered.filter(|until| Instant::now() < *until);
        let bounds = match waiting {
            Some(_) => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::RequestTimedOut)),
            None => self.consumer.fetch_watermarks(&topic.name, key.partition, REQUEST),
        };
        self.unanswered = match &bounds {
            Ok(_) => None,
            Err(_) => waiting.or_else(|| Some(Instant::now() + 2 * REQUEST)),
        };
        let latest = stored < 0 && topic.start == Start::Latest && !anew;
        let (low, high) = match bounds {
            Ok(bounds) => bounds,
            Err(error) if latest || (self.mode == Mode::UntilEnd && end.is_none()) => {
                tracing::warn!(partition = self.name(key), %error, "Kafka does not say where the partition ends");
                return None;
            }
            // Reading begins without: an offset out of bounds is reported then.
            Err(error) => {
                tracing::debug!(partition = self.name(key), %error, "Kafka does not say what it has of the partition");
                (0, i64::MAX)
            }
        };
        let next = stored + 1;
        if next > high {
            let last = high - 1;
            let reason = format!(
                "the log has the partition's messages up to {stored}, but Kafka only up to {last}: the topic has lost \
                 messages, or was made anew without an id that told so. Nothing is read from it, since new messages \
                 would have the offsets of old ones. Delete the topic and make it anew; if the brokers have no topic \
                 ids (before 2.8), give it another name"
            );
            tracing::error!(partition = self.name(key), "{reason}");
            self.set_state(key, State::Broken(reason));
            return None;
        }
        if stored >= 0 && next < low {
            let (partition, to, gap) = (self.name(key), low - 1, low - next);
            tracing::warn!(
                partition,
                from = next,
                to,
                gap,
                "Kafka has removed messages that had not been read"
            );
            metrics::counter!("sporlog_kafka_lost_offsets_total", "topic" => topic.name)
                .increment(gap.unsigned_abs());
        }
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.end = Some(if high == i64::MAX { 0 } else { high });
        }
        Some(Offset::Offset(if latest { high } else { next.max(low) }))
    }

    /// Has Kafka begin with the partitions whose position is known by now.
    pub(super) fn place(&mut self) {
        for key in self.keys_in(&State::Placing) {
            let Some(offset) = self.beginning(key) else { continue };
            let list = self.list([(key, offset)]);
            // A log that is full has its partitions go on together, when it has room again.
            let log = self.partitions.get(&key).map(|partition| &partition.log);
            let full = log.and_then(|log| self.pipelines.get(log)).is_some_and(|pipeline| pipeline.paused);
            let placed = self.consumer.incremental_assign(&list);
            let pause = |()| if full { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
            match placed.and_then(pause) {
                Ok(()) => {
                    let topic = self.partitions.get(&key).map(|partition| &*partition.reading.identity);
                    tracing::info!(partition = self.name(key), topic, ?offset, "reading begins");
                    self.set_state(key, State::Running);
                }
                Err(error) => {
                    tracing::warn!(partition = self.name(key), %error, "reading could not begin; it is tried again");
                    self.unassign(&[key]);
                }
            }
        }
    }

    /// Reads a partition again from after `position`.
    pub(super) fn go_back(&mut self, key: Key, generation: u64, position: i64) {
        let next = self.generation + 1;
        let Some(partition) = self.current(key, generation) else { return };
        let read = std::mem::replace(&mut partition.reading.read, position);
        partition.reading.generation = next;
        partition.stored = position;
        partition.state = State::Placing;
        tracing::warn!(partition = self.name(key), position, read, "reading again from where the log stands");
        self.generation = next;
        self.at_end = false;
        self.discard(&[key]);
        self.unassign(&[key]);
        self.place();
    }

    /// After an error about an offset, begins anew with all partitions: one of them is not what it was.
    pub(super) fn begin_anew(&mut self) {
        for key in self.keys_in(&State::Running) {
            if let Some(Partition { reading, stored, .. }) = self.partitions.get(&key) {
                self.go_back(key, reading.generation, *stored);
            }
        }
    }

    /// Notes in Kafka how far the logs have got, for tools that show lags.
    pub(super) fn note_offsets(&mut self, mode: CommitMode) {
        let ahead = self.partitions.iter().filter(|(_, partition)| partition.stored > partition.noted);
        let list = self.list(ahead.map(|(key, partition)| (*key, Offset::Offset(partition.stored + 1))));
        if list.count() == 0 {
            return;
        }
        match self.consumer.commit(&list, mode) {
            Ok(()) => self
                .partitions
                .values_mut()
                .for_each(|partition| partition.noted = partition.noted.max(partition.stored)),
            Err(error) => tracing::debug!(%error, "the group could not be told of offsets"),
        }
    }

    /// Takes from librdkafka's statistics: lags, whether a broker is there, whether the group is waited for, and
    /// whether the end has been read.
    pub(super) fn take_statistics(&mut self, statistics: &Statistics) {
        self.shared.reports().connected = statistics.brokers.values().any(|broker| broker.state == "UP");
        let state = statistics.cgrp.as_ref().map(|group| &*group.join_state);
        if let Some("wait-join" | "wait-sync") = state {
            self.joining = Instant::now();
        }
        // A member that has just joined may be given its share a moment later.
        let settled = |since: Instant| !self.partitions.is_empty() || since.elapsed() >= SETTLED;
        let mut at_end = self.joined.is_some_and(settled);
        let quiet = self.last_message.elapsed() >= QUIET && !self.pipelines.values().any(|p| p.paused);
        for (key, partition) in &self.partitions {
            let topic = statistics.topics.get(self.topic_name(*key));
            let Some(told) = topic.and_then(|topic| topic.partitions.get(&key.partition)) else {
                at_end = false;
                continue;
            };
            let end = if told.ls_offset >= 0 { told.ls_offset } else { told.hi_offset };
            if end >= 0 {
                let begin = (partition.stored + 1).max(told.lo_offset);
                // Behind the last message there may be markers of transactions.
                let read_all = partition.stored >= partition.reading.read && told.next_offset >= end;
                let lag = if read_all { 0 } else { (end - begin).max(0) };
                self.lags.insert(*key, lag);
                self.lag_gauge(*key).set(lag as f64);
            }
            // The last offsets may be those of markers, or of what compaction has removed: then nothing
            // more comes, and only the statistics say that they have been passed.
            let passed = |end| partition.reading.read + 1 >= end || (quiet && told.next_offset >= end);
            at_end &= match partition.state {
                State::Running => partition.end.is_some_and(passed),
                State::Broken(_) => true,
                State::Asking | State::Placing => false,
            };
        }
        self.at_end = at_end && self.mode == Mode::UntilEnd;
    }

    pub(super) fn publish_status(&self) {
        let mut partitions = Vec::with_capacity(self.partitions.len());
        let mut broken = BTreeMap::new();
        let sorted: BTreeMap<_, _> = self.partitions.iter().collect();
        for (key, partition) in sorted {
            let problem = match &partition.state {
                State::Broken(why) => Some(why.as_str()),
                State::Asking => Some("its log does not say where it stands"),
                State::Placing => Some("Kafka has not begun with it yet"),
                State::Running => None,
            };
            broken.extend(problem.map(|problem| (self.name(*key), problem.to_owned())));
            partitions.push(PartitionStatus {
                topic: self.topic_name(*key).to_owned(),
                partition: key.partition,
                log: partition.log.clone(),
                position: partition.stored,
                lag: self.lags.get(key).copied(),
            });
        }
        let mut reports = self.shared.reports();
        (reports.partitions, reports.broken) = (partitions, broken);
        let healthy = reports.status().healthy;
        metrics::gauge!("sporlog_kafka_healthy").set(f64::from(u8::from(healthy)));
    }

    fn lag_gauge(&self, key: Key) -> metrics::Gauge {
        let (topic, partition) = (self.topic_name(key).to_owned(), key.partition.to_string());
        metrics::gauge!("sporlog_kafka_lag", "topic" => topic, "partition" => partition)
    }

    fn set_state(&mut self, key: Key, state: State) {
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.state = state;
        }
    }

    fn keys_in(&self, state: &State) -> Vec<Key> {
        self.partitions
            .iter()
            .filter(|(_, partition)| partition.state == *state)
            .map(|(key, _)| *key)
            .collect()
    }

    /// For the log: `topic/3 topic/4`.
    fn names(&self, keys: &[Key]) -> String {
        let mut names: Vec<_> = keys.iter().map(|key| self.name(*key)).collect();
        names.sort();
        names.join(" ")
    }

    fn keys(&self, list: &TopicPartitionList) -> Vec<Key> {
        let elements = list.elements();
        let keys = elements.iter().filter_map(|element| {
            Some(Key { topic: *self.topics.get(element.topic())?, partition: element.partition() })
        });
        keys.collect()
    }
}
