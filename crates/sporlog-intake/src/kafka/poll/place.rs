//! Where the reading of a partition begins, and begins again.
//!
//! It is the log that says where. Kafka is asked what it has of the partition, for there are two
//! things that nobody must pass over in silence: that it has removed what had not been read yet,
//! and that it has less than had been read, because it is another topic by now.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Poll;
use crate::kafka::consumer::Mode;
use crate::kafka::partition::{Key, Partition, State};
use crate::kafka::settings::Start;

/// How long Kafka is waited for when it is asked something.
const REQUEST: Duration = Duration::from_secs(5);

impl Poll {
    /// The offset at which a partition that stands somewhere is to begin. `None` if it cannot, or
    /// not yet, as its state then says.
    pub(super) fn beginning(&mut self, key: Key) -> Option<Offset> {
        let topic = self.topic(key)?.clone();
        let (stored, end) = self.partitions.get(&key).map(|p| (p.stored, p.end))?;
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
        let (low, high) = match bounds {
            Ok(bounds) => bounds,
            Err(error) if self.mode == Mode::UntilEnd && end.is_none() => {
                tracing::warn!(partition = self.name(key), %error, "its end is not known yet");
                return None;
            }
            // It is read without: what is out of bounds is reported then.
            Err(error) => {
                tracing::debug!(partition = self.name(key), %error, "its bounds are not known");
                (0, i64::MAX)
            }
        };
        let next = stored + 1;
        let incarnation = &topic.incarnation;
        if next > high {
            let reason = format!(
                "the log has its messages up to {stored}, but Kafka only up to {}: the topic has been deleted and \
                 made anew, or has lost messages. Nothing is read from it. If it is a new one, set `incarnation` \
                 of the topic (now {incarnation:?}) to a value that it has not had",
                high - 1
            );
            tracing::error!(partition = self.name(key), "{reason}");
            self.set_state(key, State::Broken(reason));
            return None;
        }
        if stored >= 0 && next < low {
            let (partition, gap) = (self.name(key), low - next);
            tracing::warn!(
                partition,
                from = next,
                to = low - 1,
                gap,
                "Kafka has removed messages that had not been read"
            );
            metrics::counter!("sporlog_kafka_lost_offsets_total", "topic" => topic.name.clone())
                .increment(gap.unsigned_abs());
        }
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.end = Some(if high == i64::MAX { 0 } else { high });
        }
        Some(match (stored, topic.start) {
            (-1, Start::Earliest) => Offset::Beginning,
            (-1, Start::Latest) => Offset::End,
            _ => Offset::Offset(next.max(low)),
        })
    }

    /// Has Kafka begin with those partitions of which it is known by now where they are to.
    pub(super) fn place(&mut self) {
        let placing =
            |(key, partition): (&Key, &Partition)| (partition.state == State::Placing).then_some(*key);
        let keys: Vec<_> = self.partitions.iter().filter_map(placing).collect();
        for key in keys {
            let Some(offset) = self.beginning(key) else { continue };
            let Some(topic) = self.topic(key).map(|topic| topic.name.clone()) else { continue };
            let list = self.list([(key, Offset::Invalid)]);
            let sought = self.consumer.seek(&topic, key.partition, offset, REQUEST);
            // It cannot be sought in a partition that has stopped, after an error about its offset.
            let placed = sought.or_else(|_| self.begin_anew(key, offset));
            match placed.and_then(|()| self.consumer.resume(&list)) {
                Ok(()) => {
                    tracing::info!(partition = self.name(key), ?offset, "reading begins");
                    self.set_state(key, State::Running);
                }
                Err(error) => {
                    tracing::warn!(partition = self.name(key), %error, "it is tried again where to begin");
                }
            }
        }
    }

    /// Gives a partition up and takes it again, at `offset`, without the group noticing.
    pub(super) fn begin_anew(&self, key: Key, offset: Offset) -> Result<(), KafkaError> {
        if let RebalanceProtocol::Cooperative = self.consumer.rebalance_protocol() {
            self.consumer.incremental_unassign(&self.list([(key, Offset::Invalid)]))?;
            return self.consumer.incremental_assign(&self.list([(key, offset)]));
        }
        let next = |(other, partition): (&Key, &Partition)| match partition.read {
            _ if *other == key => (key, offset),
            -1 => (*other, Offset::Beginning),
            read => (*other, Offset::Offset(read + 1)),
        };
        self.consumer.assign(&self.list(self.partitions.iter().map(next)))
    }

    /// Reads a partition again from after `position`.
    pub(super) fn go_back(&mut self, key: Key, generation: u64, position: i64) {
        let next = self.generation + 1;
        self.at_end = false;
        let Some(partition) = self.current(key, generation) else { return };
        tracing::warn!(
            partition = key.partition,
            position,
            read = partition.read,
            "reading again from where the log stands"
        );
        partition.generation = next;
        (partition.read, partition.stored) = (position, position);
        partition.state = State::Placing;
        let log = partition.log.clone();
        self.generation = next;
        if let Some(batch) = self.lanes.get_mut(&log).and_then(|lane| lane.open.as_mut()) {
            batch.parts.remove(&key);
        }
        let list = self.list([(key, Offset::Invalid)]);
        // What still comes is passed over.
        let _ = self.consumer.pause(&list);
        self.place();
    }

    /// After an error about an offset: which partition is it that is not what it was?
    pub(super) fn look_over(&mut self) {
        let running =
            |(key, partition): (&Key, &Partition)| (partition.state == State::Running).then_some(*key);
        let keys: Vec<_> = self.partitions.iter().filter_map(running).collect();
        for key in keys {
            let Some(topic) = self.topic(key).map(|topic| topic.name.clone()) else { continue };
            let Ok((low, high)) = self.consumer.fetch_watermarks(&topic, key.partition, REQUEST) else {
                continue;
            };
            let Some(partition) = self.partitions.get(&key) else { continue };
            let next = partition.read + 1;
            if (low..=high).contains(&next) {
                continue;
            }
            let (generation, stored) = (partition.generation, partition.stored);
            let list = self.list([(key, Offset::Invalid)]);
            let _ = self.consumer.pause(&list);
            if next > high {
                self.beginning(key);
            }
            if self.partitions.get(&key).is_some_and(|partition| partition.state == State::Running) {
                self.go_back(key, generation, stored);
            }
        }
    }

    pub(super) fn set_state(&mut self, key: Key, state: State) {
        if let Some(partition) = self.partitions.get_mut(&key) {
            partition.state = state;
        }
    }
}
