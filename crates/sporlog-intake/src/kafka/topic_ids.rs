//! Which topic offsets belong to: a topic that is deleted and made anew under its name begins at 0 again.
//!
//! Brokers from 2.8 on give each topic an id (KIP-516). The crate `rdkafka` has no safe function that asks for it, but
//! librdkafka logs a line when it learns of an id, before it fetches a message by that id (`rdkafka_topic.c`, with
//! `debug` set to `metadata`), and [`TopicIds`] reads that line. Log lines come through the same queue as messages,
//! before those that are fetched later. If another librdkafka words the line otherwise, the tests with Kafka fail.
//!
//! The topic that a log took in first is called by its name in origins and positions, a later one `TOPIC~ID`. So the
//! two have nothing in common:
//!
//! | position in the log | meaning |
//! |---|---|
//! | `kafka:TOPIC:PARTITION` | how far the first topic has been taken in |
//! | `kafka:TOPIC:PARTITION:ID` | always 0: this is the first topic's id |
//! | `kafka:TOPIC~ID:PARTITION` | how far the topic with this id has been taken in |
//!
//! A log that an earlier version wrote has no ids: the id that is seen next is taken for the first topic's. Such a log
//! may have positions `kafka:TOPIC~INCARNATION:PARTITION`, too, with up to 20 letters and digits that the configuration
//! named; the newest of them takes the place of the first topic.

use std::collections::HashMap;
use std::sync::Mutex;

use sporlog_ledger::Position;

use crate::blocking::lock;

/// The characters of an id: 16 bytes in Base64, without padding.
const ID: usize = 22;

/// The ids of topics.
#[derive(Debug, Default)]
pub(super) struct TopicIds(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By name.
    ids: HashMap<String, String>,
    changes: u64,
}

impl TopicIds {
    /// Takes an id from a line of librdkafka's log, if it tells of one:
    /// `[thrd:main]: Topic NAME changed id from ID to ID`.
    pub(super) fn learn(&self, line: &str) {
        let Some((topic, ids)) = line.split_once(" changed id from ") else { return };
        let (Some((_, topic)), Some((_, id))) = (topic.rsplit_once(' '), ids.split_once(" to ")) else {
            return;
        };
        // As Kafka's own tools write it.
        let id = id.replace('+', "-").replace('/', "_");
        let mut known = lock(&self.0);
        if id.len() == ID && known.ids.get(topic) != Some(&id) {
            known.ids.insert(topic.to_owned(), id);
            known.changes += 1;
        }
    }

    pub(super) fn get(&self, topic: &str) -> Option<String> {
        lock(&self.0).ids.get(topic).cloned()
    }

    /// How often an id was learnt of.
    pub(super) fn changes(&self) -> u64 {
        lock(&self.0).changes
    }
}

/// What the topic with this id is called in origins and positions, by the positions of the partition's log; and, if the
/// log takes in a topic of this name for the first time, the position that is to be stored before, as 0.
pub(super) fn identity(
    topic: &str,
    partition: i32,
    id: Option<&str>,
    positions: &[(String, Position)],
) -> (String, Option<String>) {
    let (mut identities, mut first_ids) = (Vec::new(), Vec::new());
    for (name, position) in positions {
        let mut parts = name.split(':').skip(1);
        let (Some(identity), Some(number)) = (parts.next(), parts.next()) else { continue };
        let (name, suffix) = identity.split_once('~').unwrap_or((identity, ""));
        if name == topic && number == partition.to_string() {
            match parts.next() {
                Some(id) => first_ids.push(id),
                None => identities.push((position.at, identity, suffix)),
            }
        }
    }
    let newest = |wanted: &dyn Fn(&str) -> bool| {
        let wanted = identities.iter().filter(|(.., suffix)| wanted(suffix));
        wanted.max().map_or(topic, |(_, identity, _)| identity).to_owned()
    };
    let Some(id) = id else { return (newest(&|_| true), None) };
    let known = identities.iter().any(|(.., suffix)| *suffix == id);
    if known || !(first_ids.is_empty() || first_ids.contains(&id)) {
        return (format!("{topic}~{id}"), None);
    }
    let mark = first_ids.is_empty().then(|| format!("kafka:{topic}:{partition}:{id}"));
    (newest(&|suffix| suffix.len() != ID), mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "oneoneoneoneoneoneoneo";
    const TWO: &str = "two-two_two-two_two-tw";

    /// Positions, the oldest first.
    fn positions(names: &[String]) -> Vec<(String, Position)> {
        let position = |(at, name): (i64, &String)| (name.clone(), Position { version: 7, at });
        (0..).zip(names).map(position).collect()
    }

    fn of(id: Option<&str>, names: &[String]) -> (String, Option<String>) {
        identity("t", 3, id, &positions(names))
    }

    #[test]
    fn the_id_is_read_from_the_line_that_librdkafka_logs() {
        let ids = TopicIds::default();
        for line in ["", "[thrd:main]: Topic t-1 [0] Leader 1 Epoch 0", " changed id from  to "] {
            ids.learn(line);
        }
        assert_eq!((ids.changes(), ids.get("t-1")), (0, None));
        let line = "[thrd:main]: Topic t-1 changed id from AAAAAAAAAAAAAAAAAAAAAA to a/a+aaaaaaaaaaaaaaaaaa";
        ids.learn(line);
        ids.learn(line);
        assert_eq!((ids.changes(), ids.get("t-1").as_deref()), (1, Some("a_a-aaaaaaaaaaaaaaaaaa")));
    }

    #[test]
    fn the_first_topic_is_called_by_its_name_and_a_later_one_by_its_id() {
        let first = format!("kafka:t:3:{ONE}");
        assert_eq!(of(Some(ONE), &[]), ("t".into(), Some(first.clone())));
        let stored = [first, "kafka:t:3".into()];
        assert_eq!(of(Some(ONE), &stored), ("t".into(), None));
        assert_eq!(of(Some(TWO), &stored[..1]), (format!("t~{TWO}"), None));
        assert_eq!(of(Some(TWO), &stored), (format!("t~{TWO}"), None));
        let [first, position] = stored;
        let both = [first, position, format!("kafka:t~{TWO}:3")];
        assert_eq!(of(Some(ONE), &both), ("t".into(), None), "metadata of a broker that is late");
        assert_eq!(of(Some(TWO), &both), (format!("t~{TWO}"), None));
        assert_eq!(of(None, &both), (format!("t~{TWO}"), None));
    }

    #[test]
    fn positions_of_earlier_versions_go_on() {
        let old = ["kafka:t:3".to_owned(), "kafka:t:4".into(), "kafka:t2:3".into(), "kafka:tt~9:3".into()];
        assert_eq!(of(Some(ONE), &old), ("t".into(), Some(format!("kafka:t:3:{ONE}"))));
        let incarnation = ["kafka:t:3".to_owned(), "kafka:t~1:3".into(), "kafka:t~x2:3".into()];
        assert_eq!(of(Some(ONE), &incarnation), ("t~x2".into(), Some(format!("kafka:t:3:{ONE}"))));
        let mut marked = incarnation.to_vec();
        marked.push(format!("kafka:t:3:{ONE}"));
        assert_eq!(of(Some(ONE), &marked), ("t~x2".into(), None));
        assert_eq!(of(Some(TWO), &marked), (format!("t~{TWO}"), None));
    }
}
