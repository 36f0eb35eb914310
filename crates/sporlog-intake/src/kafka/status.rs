//! How the consumer is doing, as the outside is told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Where the polling thread and the pipelines report.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    joined: bool,
    connected: bool,
    ended: Option<String>,
    /// Errors, by log.
    failing: BTreeMap<String, String>,
    /// Why a partition is not read, by partition.
    broken: BTreeMap<String, String>,
    error: Option<(String, Instant)>,
    partitions: Vec<PartitionStatus>,
    totals: Totals,
}

impl Reports {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group has given this instance its share of the partitions, be it none.
    pub(super) fn joined(&self) {
        self.inner().joined = true;
    }

    /// Whether a broker can be reached.
    pub(super) fn connected(&self, connected: bool) {
        self.inner().connected = connected;
    }

    /// A log cannot be written to (`error` says why), or can be again.
    pub(super) fn failing(&self, log: &str, error: Option<String>) {
        let mut inner = self.inner();
        match error {
            Some(error) => inner.failing.insert(log.to_owned(), error),
            None => inner.failing.remove(log),
        };
    }

    /// Kafka has reported an error.
    pub(super) fn error(&self, error: String) {
        self.inner().error = Some((error, Instant::now()));
    }

    /// The partitions, and why some of them are not read.
    pub(super) fn partitions(&self, partitions: Vec<PartitionStatus>, broken: BTreeMap<String, String>) {
        let mut inner = self.inner();
        (inner.partitions, inner.broken) = (partitions, broken);
    }

    /// A batch has been stored, or some of its messages have been refused.
    pub(super) fn add(&self, totals: Totals) {
        let sum = &mut self.inner().totals;
        sum.accepted += totals.accepted;
        sum.refused += totals.refused;
        sum.skipped += totals.skipped;
    }

    /// The consumer has ended.
    pub(super) fn ended(&self, why: String) {
        self.inner().ended = Some(why);
    }

    pub(super) fn status(&self) -> Status {
        let inner = self.inner();
        let mut problems = Vec::new();
        problems.extend(inner.ended.clone());
        if inner.ended.is_none() && !inner.connected {
            problems.push("no broker can be reached".to_owned());
        } else if inner.ended.is_none() && !inner.joined {
            problems.push("the group has not given out partitions yet".to_owned());
        }
        problems.extend(inner.failing.iter().map(|(log, error)| format!("log {log}: {error}")));
        problems.extend(inner.broken.iter().map(|(partition, why)| format!("{partition}: {why}")));
        let recent = inner.error.as_ref().filter(|(_, at)| at.elapsed() < REMEMBERED);
        problems.extend(recent.map(|(error, _)| error.clone()));
        Status {
            healthy: problems.is_empty(),
            problems,
            partitions: inner.partitions.clone(),
            totals: inner.totals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_is_who_has_joined_and_has_no_trouble() {
        let reports = Reports::default();
        assert!(reports.status().problems[0].contains("no broker"));
        reports.connected(true);
        assert!(reports.status().problems[0].contains("group"));
        reports.joined();
        assert!(reports.status().healthy);
        reports.failing("disclosure", Some("no space".into()));
        assert_eq!(reports.status().problems, ["log disclosure: no space"]);
        reports.failing("disclosure", None);
        reports.partitions(Vec::new(), BTreeMap::from([("t/1".to_owned(), "recreated".to_owned())]));
        assert_eq!(reports.status().problems, ["t/1: recreated"]);
        reports.partitions(Vec::new(), BTreeMap::new());
        reports.error("authorization".into());
        assert!(!reports.status().healthy);
        reports.ended("it has been stopped".into());
        assert!(!reports.status().healthy);
    }
}
