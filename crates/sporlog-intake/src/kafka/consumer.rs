//! The handle to a running consumer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sporlog_ledger::Store;
use sporlog_record::Rules;
use tokio::sync::{Semaphore, watch};

use super::dead_letter::DeadLetters;
use super::lane::Shared;
use super::poll::Poll;
use super::refusals::Refusals;
use super::settings::Settings;
use super::status::{Reports, Status, Totals};
use crate::error::{Error, Result};

/// How long a consumer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is stopped.
    Forever,
    /// Until all that was in its partitions when it got them is stored.
    UntilEnd,
}

/// A consumer at work. Dropping it asks it to stop, and does not wait for that.
#[derive(Debug)]
pub struct Consumer {
    reports: Arc<Reports>,
    stop: Arc<AtomicBool>,
    /// How it ended, once it has; an error is told to whoever asks first.
    ended: watch::Receiver<Option<Arc<std::sync::Mutex<Option<Error>>>>>,
}

impl Consumer {
    /// Starts taking the topics of `settings` into their logs in `store`, which are made if need
    /// be. To be called within a runtime; the work is done in a thread and in tasks of its own.
    ///
    /// `rules` judge the messages; their `now` is set anew for each batch. Fails if the settings
    /// make no sense; that no broker can be reached is no failure, but waited for.
    pub fn start(settings: Settings, store: Store, rules: Rules, mode: Mode) -> Result<Self> {
        settings.check()?;
        let reports = Arc::new(Reports::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (events, told) = crossbeam_channel::unbounded();
        let (give_up, giving_up) = watch::channel(false);
        let dead = settings.topics.iter().any(|topic| topic.dead_letter.is_some());
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let shared = Shared {
            topics: settings.topics.clone(),
            store: store.clone(),
            rules,
            refusals: Refusals::new(store),
            dead_letters: dead.then(|| DeadLetters::new(&settings)).transpose()?,
            reports: reports.clone(),
            events,
            judging: Semaphore::new(cores),
            giving_up,
        };
        let poll = Poll::new(&settings, Arc::new(shared), told, give_up, stop.clone(), mode)?;
        let (end, ended) = watch::channel(None);
        let told = reports.clone();
        let run = move || {
            // Whatever happens in there, it must not look as if all were well.
            let failed = |_| Err(Error::Internal("the consumer's thread has failed".into()));
            let result = catch_unwind(AssertUnwindSafe(|| poll.run())).unwrap_or_else(failed);
            told.ended(match &result {
                Ok(()) => "the consumer has stopped".to_owned(),
                Err(error) => format!("the consumer has stopped: {error}"),
            });
            if let Err(error) = &result {
                tracing::error!(%error, "the consumer has stopped");
            }
            end.send_replace(Some(Arc::new(std::sync::Mutex::new(result.err()))));
        };
        let spawned = std::thread::Builder::new().name("kafka".into()).spawn(run);
        spawned.map_err(|e| Error::Internal(format!("starting the consumer: {e}")))?;
        Ok(Consumer { reports, stop, ended })
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.reports.status()
    }

    /// Tells how it is doing, for as long as anyone asks.
    pub fn watch(&self) -> impl Fn() -> Status + Send + Sync + use<> {
        let reports = self.reports.clone();
        move || reports.status()
    }

    /// Whether it takes in what it should; [`status`](Self::status) says why it does not.
    pub fn is_healthy(&self) -> bool {
        self.status().healthy
    }

    /// Waits until it has ended by itself: at the end in [`Mode::UntilEnd`], or because it cannot
    /// go on, which is an error.
    pub async fn ended(&mut self) -> Result<Totals> {
        let ended = self.ended.wait_for(Option::is_some).await;
        let outcome = ended.map(|ended| ended.clone()).unwrap_or_default();
        let error = outcome
            .and_then(|outcome| outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        match error {
            Some(error) => Err(error),
            None => Ok(self.reports.totals()),
        }
    }

    /// Has it store what it has read, leave the group, and end. What cannot be stored within ten
    /// seconds is left to be read again.
    pub async fn stop(mut self) -> Result<Totals> {
        self.stop.store(true, Ordering::Release);
        self.ended().await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
