//! How the consumer is doing, as the outside is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

/// How long an error that Kafka reported counts against health.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How the consumer is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether the consumer takes in, or would if there was something, all that is its to take in.
    pub healthy: bool,
    /// Why the consumer is not healthy.
    pub problems: Vec<String>,
    /// The partitions that this instance has now.
    pub partitions: Vec<PartitionStatus>,
    /// The messages dealt with since the consumer began.
    pub totals: Totals,
}

/// One partition of this instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The log that its messages go into.
    pub log: String,
    /// The offset of the last message that is in the log; −1 if none is.
    pub position: i64,
    /// How many offsets Kafka is ahead of `position`; `None` while that is not known.
    pub lag: Option<i64>,
}

/// The messages that a consumer has dealt with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Records stored.
    pub accepted: u64,
    /// Messages refused; each is in the quarantine.
    pub refused: u64,
    /// Empty messages, which are passed over.
    pub skipped: u64,
}

/// What the polling thread and the pipelines report.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The group has given this instance its share of the partitions, be it none.
    pub joined: bool,
    /// Whether a broker can be reached.
    pub connected: bool,
    /// Why the consumer has ended, once it has.
    pub ended: Option<String>,
    /// Why logs cannot be written to, by log.
    failing: BTreeMap<String, String>,
    /// Why partitions are not read, by partition.
    pub broken: BTreeMap<String, String>,
    /// The last error that Kafka reported.
    pub error: Option<(String, Instant)>,
    pub partitions: Vec<PartitionStatus>,
    totals: Totals,
}

impl Reports {
    /// A log cannot be written to (`error` says why), or can be again.
    pub(super) fn failing(&mut self, log: &str, error: Option<String>) {
        match error {
            Some(error) => self.failing.insert(log.to_owned(), error),
            None => self.failing.remove(log),
        };
    }

    /// A batch has been stored, or some of its messages have been refused.
    pub(super) fn add(&mut self, totals: Totals) {
        self.totals.accepted += totals.accepted;
        self.totals.refused += totals.refused;
        self.totals.skipped += totals.skipped;
    }

    pub(super) fn status(&self) -> Status {
        let mut problems = Vec::new();
        problems.extend(self.ended.clone());
        if self.ended.is_none() && !self.connected {
            problems.push("no broker can be reached".to_owned());
        } else if self.ended.is_none() && !self.joined {
            problems.push("the group has not given out partitions yet".to_owned());
        }
        problems.extend(self.failing.iter().map(|(log, error)| format!("log {log}: {error}")));
        problems.extend(self.broken.iter().map(|(partition, why)| format!("{partition}: {why}")));
        let recent = self.error.as_ref().filter(|(_, at)| at.elapsed() < REMEMBERED);
        problems.extend(recent.map(|(error, _)| error.clone()));
        Status {
            healthy: problems.is_empty(),
            problems,
            partitions: self.partitions.clone(),
            totals: self.totals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_is_who_has_joined_and_has_no_trouble() {
        let mut reports = Reports::default();
        assert!(reports.status().problems[0].contains("no broker"));
        reports.connected = true;
        assert!(reports.status().problems[0].contains("group"));
        reports.joined = true;
        assert!(reports.status().healthy);
        reports.failing("disclosure", Some("no space".into()));
        assert_eq!(reports.status().problems, ["log disclosure: no space"]);
        reports.failing("disclosure", None);
        reports.broken = BTreeMap::from([("t/1".to_owned(), "recreated".to_owned())]);
        assert_eq!(reports.status().problems, ["t/1: recreated"]);
        reports.broken.clear();
        reports.error = Some(("authorization".into(), Instant::now()));
        assert!(!reports.status().healthy);
        reports.error = None;
        reports.ended = Some("it has been stopped".into());
        assert!(!reports.status().healthy);
    }
}
