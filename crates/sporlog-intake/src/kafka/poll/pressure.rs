//! Keeping to the memory that is set, whatever the backlog.
//!
//! Each log may have one batch open and some with its tasks; batches are of such a size that all of
//! them together keep to the limit. A log that is full is waited for a moment, in which nothing is
//! read at all, for pausing costs what has been fetched ahead; only then are its partitions paused.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;

use super::{POLL, Poll};
use crate::error::Result;
use crate::kafka::batch::Batch;
use crate::kafka::lane::Lane;
use crate::kafka::partition::{Partition, State};
use crate::kafka::settings::BatchLimits;

/// How long a full log is waited for before its partitions are paused.
const BREATH: Duration = Duration::from_millis(500);

impl Poll {
    /// How large a batch may become, in bytes.
    pub(super) fn share(&self) -> usize {
        let batches = self.lanes.len().max(1) * (1 + Lane::UNDER_WAY);
        self.limits.bytes.min(self.memory / batches).max(1)
    }

    /// Hands over batches that are full or old enough, or all of them.
    pub(super) fn send_due(&mut self, all: bool) {
        let share = self.share();
        let delay = Duration::from_millis(self.limits.delay_ms);
        for (log, lane) in &mut self.lanes {
            let Some(batch) = &lane.open else { continue };
            let due = all || is_full(batch, share, &self.limits) || batch.begun.elapsed() >= delay;
            if !due || lane.under_way >= Lane::UNDER_WAY {
                continue;
            }
            let bytes = batch.bytes.len() as f64;
            metrics::histogram!("sporlog_kafka_batch_bytes", "log" => log.clone()).record(bytes);
            if let Some(batch) = lane.open.take()
                && lane.batches.try_send(batch).is_ok()
            {
                lane.under_way += 1;
            }
            lane.full_since = None;
        }
        let rested: Vec<_> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.paused && lane.open.is_none())
            .map(|(log, _)| log.clone())
            .collect();
        for log in rested {
            self.pause(&log, false);
        }
    }

    /// Waits a moment if a log is full, and pauses its partitions if that does not help. True if
    /// nothing is to be read now.
    pub(super) fn hold_breath(&mut self) -> Result<bool> {
        let share = self.share();
        let mut over = Vec::new();
        let mut wait = false;
        for (log, lane) in &mut self.lanes {
            let full = lane.open.as_ref().is_some_and(|batch| is_full(batch, share, &self.limits));
            if !full || lane.paused {
                continue;
            }
            let since = *lane.full_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= BREATH {
                over.push(log.clone());
            } else {
                wait = true;
            }
        }
        for log in over {
            self.pause(&log, true);
        }
        if wait && let Ok(event) = self.events.recv_timeout(POLL) {
            self.handle(event)?;
        }
        Ok(wait)
    }

    /// Pauses the partitions of a log, or has them go on.
    pub(super) fn pause(&mut self, log: &str, pause: bool) {
        let running = |partition: &&Partition| partition.log == log && partition.state == State::Running;
        let keys: Vec<_> = self.partitions.iter().filter(|(_, p)| running(p)).map(|(key, _)| *key).collect();
        let list = self.list(keys.iter().map(|key| (*key, Offset::Invalid)));
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(log, %error, "partitions could not be paused or resumed");
        }
        tracing::debug!(log, partitions = keys.len(), pause, "back-pressure");
        if let Some(lane) = self.lanes.get_mut(log) {
            lane.paused = pause;
            lane.full_since = None;
        }
    }
}

pub(super) fn is_full(batch: &Batch, share: usize, limits: &BatchLimits) -> bool {
    batch.size() >= share || batch.messages >= limits.messages
}
