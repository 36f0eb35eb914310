//! The nightly collection: all days that are over and not collected yet.
//!
//! The task reads the clock at short intervals instead of sleeping until the hour, because the clock may be
//! set, and summer time may skip the hour. After a start, missed days are collected at once. After a failure,
//! the collection is tried again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use sporlog_intake::Result;
use sporlog_intake::writers::Writers;
use sporlog_ledger::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::due_days::GRACE;
use super::{Collected, Collection, CollectionRequest, Days};
use crate::LiveSettings;

/// How often the clock is read.
const TICK: Duration = Duration::from_secs(20);
/// How long after a failure the collection is tried again.
const RETRY: TimeDelta = TimeDelta::minutes(10);
/// Who collects, for the access log.
const PERFORMER: &str = "sporlog";

/// The task of the nightly collection. Dropping this asks the task to stop, without waiting.
pub struct Nightly {
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Nightly {
    /// Starts the task; there is none if `collect_at` is `"never"`. `root` is the exchange's folder.
    pub fn start(
        settings: LiveSettings,
        root: PathBuf,
        store: Store,
        writers: Arc<dyn Writers>,
    ) -> Option<Self> {
        Nightly::start_at(settings, root, store, writers, Utc::now)
    }

    pub(super) fn start_at(
        settings: LiveSettings,
        root: PathBuf,
        store: Store,
        writers: Arc<dyn Writers>,
        now: fn() -> DateTime<Utc>,
    ) -> Option<Self> {
        let (at, stop) = (settings.now().collect_at.0?, CancellationToken::new());
        let job = Job { settings, root, store, writers, stop: stop.clone(), now };
        Some(Nightly { stop: stop.drop_guard(), task: tokio::spawn(job.run(at)) })
    }

    /// Ends the task. A collection under way is aborted; files that it has not published are not published.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the nightly collection has failed");
        }
    }
}

struct Job {
    settings: LiveSettings,
    root: PathBuf,
    store: Store,
    writers: Arc<dyn Writers>,
    stop: CancellationToken,
    now: fn() -> DateTime<Utc>,
}

impl Job {
    async fn run(self, at: NaiveTime) {
        let mut clock = Clock::new(at);
        while !self.stop.is_cancelled() {
            let utc = (self.now)();
            let local = utc.with_timezone(&Local).naive_local();
            if clock.is_time(local, utc) {
                let began = Instant::now();
                let collected = self.collect().await;
                match &collected {
                    Ok(collected) => report(collected, began.elapsed()),
                    Err(_) if self.stop.is_cancelled() => return,
                    Err(error) => {
                        metrics::counter!("sporlog_collect_failures_total").increment(1);
                        tracing::error!(%error, "the municipalities' files could not be collected; tried again in ten minutes");
                    }
                }
                clock.ran(local, utc, collected.is_ok());
            }
            let _ = tokio::time::timeout(TICK, self.stop.cancelled()).await;
        }
    }

    async fn collect(&self) -> Result<Vec<Collected>> {
        let settings = self.settings.now();
        let log = match self.store.log(&settings.log).await {
            Err(sporlog_ledger::Error::NoSuchLog(log)) => {
                tracing::debug!(log, "the log does not exist yet: there is nothing to collect");
                return Ok(Vec::new());
            }
            log => log?,
        };
        let request =
            CollectionRequest { stop: self.stop.clone(), ..CollectionRequest::new(Days::Due, PERFORMER) };
        let collection = Collection {
            settings: &settings,
            root: &self.root,
            log: &log,
            writers: &*self.writers,
            request: &request,
            progress: Arc::new(|_, _| {}),
        };
        collection.run_as_of(self.now).await
    }
}

fn report(collected: &[Collected], took: Duration) {
    metrics::gauge!("sporlog_collect_last_success_seconds").set(Utc::now().timestamp() as f64);
    metrics::histogram!("sporlog_collect_seconds").record(took.as_secs_f64());
    if !collected.is_empty() {
        let rows: u64 = collected.iter().map(|set| set.rows).sum();
        let bytes: u64 = collected.iter().map(|set| set.bytes).sum();
        let files: usize = collected.iter().map(|set| set.files.len()).sum();
        let days = collected.chunk_by(|a, b| a.day == b.day).count();
        let (sets, seconds) = (collected.len(), took.as_secs());
        tracing::info!(days, sets, rows, files, bytes, seconds, "collected the municipalities' files");
    }
}

/// Decides when the collection runs.
struct Clock {
    at: NaiveTime,
    /// The last local day on which the collection ran at its hour; none before the first run.
    ran: Option<NaiveDate>,
    /// When the collection runs besides.
    again: Option<DateTime<Utc>>,
}

impl Clock {
    fn new(at: NaiveTime) -> Self {
        Clock { at, ran: None, again: None }
    }

    fn is_time(&mut self, local: NaiveDateTime, utc: DateTime<Utc>) -> bool {
        let today = local.date();
        // If the clock was ahead and has been set back, the collection must not wait for that future day.
        self.ran = self.ran.map(|ran| if ran > today { self.last_hour(local) } else { ran });
        let longest = RETRY + TimeDelta::from_std(GRACE).unwrap_or_default();
        if self.again.is_some_and(|again| again > utc + longest) {
            self.again = Some(utc);
        }
        let missed = self.ran.is_none_or(|ran| ran < self.last_hour(local));
        missed || self.again.is_some_and(|again| again <= utc)
    }

    fn ran(&mut self, local: NaiveDateTime, utc: DateTime<Utc>, succeeded: bool) {
        self.ran = Some(self.last_hour(local));
        let since_midnight = utc.time().signed_duration_since(NaiveTime::MIN);
        // The rows of the day before may not all have been visible yet.
        let waiting = TimeDelta::from_std(GRACE).unwrap_or_default() - since_midnight;
        self.again = match succeeded {
            false => Some(utc + RETRY),
            true if waiting > TimeDelta::zero() => Some(utc + waiting),
            true => None,
        };
    }

    /// The last local day on which the hour of the collection has come.
    fn last_hour(&self, local: NaiveDateTime) -> NaiveDate {
        let before = local.date().pred_opt().unwrap_or_default();
        if local.time() >= self.at { local.date() } else { before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M").expect("a time")
    }

    /// Danish winter time.
    fn utc(local: NaiveDateTime) -> DateTime<Utc> {
        (local - TimeDelta::hours(1)).and_utc()
    }

    fn clock() -> Clock {
        Clock::new(NaiveTime::from_hms_opt(2, 30, 0).expect("a time"))
    }

    #[track_caller]
    fn expect(clock: &mut Clock, time: &str, wanted: bool) {
        let local = local(time);
        assert_eq!(clock.is_time(local, utc(local)), wanted, "{time}");
        if wanted {
            clock.ran(local, utc(local), true);
        }
    }

    #[test]
    fn it_is_time_once_a_day_and_after_a_start() {
        let mut clock = clock();
        for (time, wanted) in [
            ("2026-11-20T14:00", true), // the start
            ("2026-11-20T23:59", false),
            ("2026-11-21T02:29", false),
            ("2026-11-21T02:30", true),
            ("2026-11-21T02:31", false),
            ("2026-11-22T09:00", true), // it slept
            ("2026-11-22T09:01", false),
            ("2026-11-23T02:31", true),
        ] {
            expect(&mut clock, time, wanted);
        }
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_keep_it_waiting() {
        let mut clock = clock();
        expect(&mut clock, "2036-01-01T02:30", true);
        expect(&mut clock, "2026-11-20T14:00", false);
        expect(&mut clock, "2026-11-21T02:30", true);
    }

    #[test]
    fn a_failure_is_tried_again_and_so_is_a_day_that_may_not_be_over() {
        let mut clock = clock();
        let noon = local("2026-11-20T12:00");
        assert!(clock.is_time(noon, utc(noon)));
        clock.ran(noon, utc(noon), false);
        expect(&mut clock, "2026-11-20T12:09", false);
        expect(&mut clock, "2026-11-20T12:10", true);
        expect(&mut clock, "2026-11-20T12:30", false);
        // An hour that falls onto midnight UTC.
        let mut clock = Clock::new(NaiveTime::from_hms_opt(1, 0, 0).expect("a time"));
        expect(&mut clock, "2026-11-21T01:00", true);
        expect(&mut clock, "2026-11-21T01:29", false);
        expect(&mut clock, "2026-11-21T01:30", true);
        expect(&mut clock, "2026-11-21T01:31", false);
    }
}
