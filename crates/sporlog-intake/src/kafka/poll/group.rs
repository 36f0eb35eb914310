//! Following the group: partitions come, and partitions go.
//!
//! A partition that comes is read from where its log says that it stands. Of one that goes, what is
//! under way is waited for, so that the next reader begins after it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _, RebalanceProtocol};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::{POLL, Poll};
use crate::error::{Error, Result};
use crate::kafka::context;
use crate::kafka::lane::{Lane, Work};
use crate::kafka::partition::{Key, Partition, State};

/// How long logs are waited for that have been asked where they stand; those that take longer
/// begin later.
const ANSWER: Duration = Duration::from_secs(10);
/// How long is waited for what is under way when partitions are taken away.
const HANDOVER: Duration = Duration::from_secs(5);

impl Poll {
    /// Takes partitions over: asks their logs where they stand, and begins there.
    pub(super) fn assign(&mut self, list: &TopicPartitionList) -> Result<()> {
        let keys = self.keys(list);
        metrics::counter!("sporlog_kafka_rebalances_total").increment(1);
        let eager = !matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        if eager {
            self.drop_partitions(&self.partitions.keys().copied().collect::<Vec<_>>());
        }
        self.generation += 1;
        let mut questions: HashMap<String, Vec<(Key, u64)>> = HashMap::new();
        for key in &keys {
            let Some(topic) = self.topic(*key) else { continue };
            let (log, kind) = (topic.log_of(key.partition), topic.kind);
            questions.entry(log.clone()).or_default().push((*key, self.generation));
            if !self.lanes.contains_key(&log) {
                let _in_runtime = self.runtime.enter();
                self.lanes.insert(log.clone(), Lane::start(log.clone(), kind, self.shared.clone()));
            }
            let partition = Partition {
                generation: self.generation,
                log,
                read: -1,
                stored: -1,
                end: None,
                state: State::Asking,
            };
            self.partitions.insert(*key, partition);
        }
        for (log, question) in questions {
            if let Some(lane) = self.lanes.get(&log)
                && lane.work.try_send(Work::Ask(question)).is_err()
            {
                return Err(Error::Internal(format!("the tasks of the log '{log}' do not answer any more")));
            }
        }
        let deadline = Instant::now() + ANSWER;
        let asking = |poll: &Poll| {
            keys.iter().any(|key| poll.partitions.get(key).is_some_and(|p| p.state == State::Asking))
        };
        while asking(self) && !self.stop.load(Ordering::Acquire) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            if let Ok(event) = self.events.recv_timeout(left.min(POLL)) {
                self.handle(event)?;
            }
        }
        let mut offsets = Vec::new();
        for key in &keys {
            if self.partitions.get(key).is_some_and(|partition| partition.state == State::Placing) {
                match self.beginning(*key) {
                    Some(offset) => {
                        offsets.push((*key, offset));
                        self.set_state(*key, State::Running);
                        continue;
                    }
                    None => offsets.push((*key, Offset::End)),
                }
            } else {
                offsets.push((*key, Offset::End));
            }
        }
        let all = self.list(offsets.iter().copied());
        let assigned =
            if eager { self.consumer.assign(&all) } else { self.consumer.incremental_assign(&all) };
        assigned.map_err(Error::Kafka)?;
        let held = offsets.iter().filter(|(key, _)| {
            let partition = self.partitions.get(key);
            let full = |p: &Partition| self.lanes.get(&p.log).is_some_and(|lane| lane.paused);
            partition.is_some_and(|partition| partition.state != State::Running || full(partition))
        });
        let held = self.list(held.copied().collect::<Vec<_>>());
        if held.count() > 0 {
            self.consumer.pause(&held).map_err(Error::Kafka)?;
        }
        let named = self.named(&keys);
        tracing::info!(partitions = named, all = self.partitions.len(), "partitions were assigned");
        self.joined.get_or_insert_with(Instant::now);
        self.at_end = false;
        self.shared.reports.joined();
        self.publish_status();
        Ok(())
    }

    /// Gives partitions up, after what is under way of them.
    pub(super) fn revoke(&mut self, list: &TopicPartitionList) -> Result<()> {
        let keys = self.keys(list);
        let lost = self.consumer.assignment_lost();
        metrics::counter!("sporlog_kafka_rebalances_total").increment(1);
        let logs: BTreeSet<String> =
            keys.iter().filter_map(|key| self.partitions.get(key).map(|p| p.log.clone())).collect();
        self.discard(&keys);
        let deadline = Instant::now() + if lost { Duration::ZERO } else { HANDOVER };
        let busy =
            |poll: &Poll| logs.iter().any(|log| poll.lanes.get(log).is_some_and(|lane| lane.under_way > 0));
        while busy(self) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            if let Ok(event) = self.events.recv_timeout(left) {
                self.handle(event)?;
            }
        }
        if !lost {
            self.commit_offsets(CommitMode::Async);
        }
        self.drop_partitions(&keys);
        for key in &keys {
            self.committed.remove(key);
            self.lags.remove(key);
            self.gauge(*key).set(0);
        }
        if let Err(error) = context::give_up(&self.consumer, list) {
            tracing::warn!(%error, "partitions were gone already");
        }
        tracing::info!(
            partitions = self.named(&keys),
            left = self.partitions.len(),
            lost,
            "partitions were revoked"
        );
        self.publish_status();
        Ok(())
    }

    /// Gives up what was gathered of partitions.
    fn discard(&mut self, keys: &[Key]) {
        for batch in self.lanes.values_mut().filter_map(|lane| lane.open.as_mut()) {
            keys.iter().for_each(|key| drop(batch.parts.remove(key)));
        }
        for lane in self.lanes.values_mut() {
            lane.open.take_if(|batch| batch.parts.is_empty());
        }
    }

    /// Forgets partitions, with what was gathered of them, and the logs that have none left.
    pub(super) fn drop_partitions(&mut self, keys: &[Key]) {
        self.discard(keys);
        for key in keys {
            self.partitions.remove(key);
        }
        let used: BTreeSet<_> = self.partitions.values().map(|partition| partition.log.clone()).collect();
        let before = self.lanes.len();
        self.lanes.retain(|log, lane| used.contains(log) || lane.under_way > 0);
        self.closing += before - self.lanes.len();
    }

    /// For the log: `topic/3`.
    pub(super) fn named(&self, keys: &[Key]) -> String {
        let mut names: Vec<_> = keys.iter().map(|key| self.name(*key)).collect();
        names.sort();
        names.join(" ")
    }

    pub(super) fn keys(&self, list: &TopicPartitionList) -> Vec<Key> {
        let elements = list.elements();
        let key = |element: &TopicPartitionListElem<'_>| {
            Some(Key { topic: *self.topics.get(element.topic())?, partition: element.partition() })
        };
        elements.iter().filter_map(key).collect()
    }
}
