//! The logs of the store, opened once and kept up with.
//!
//! A log that this process writes to moves on by itself. One that another process writes to (an
//! import by command, say) is looked at every second, so that no reader waits longer than that.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use metrics::gauge;
use sporlog_intake::access_event;
use sporlog_intake::quarantine::{self, Quarantine};
use sporlog_intake::writers::Writers;
use sporlog_ledger::{Append, Error, KeySource, Log, Outcome, Result, Store, Writer, WriterOptions, matches};
use sporlog_record::Kind;
use tokio::sync::Mutex;

use crate::server::metrics::{LOG_HEAD, QUARANTINE_WAITING};

/// How often other processes' commits are looked for.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// What probes are told of a store that cannot be listed or read.
const UNREADABLE: &str = "the store cannot be read";
/// What they are told if no access can be recorded.
const UNRECORDED: &str = "accesses cannot be recorded; the server's log says why";
/// How often it is counted what waits in the quarantine.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How often logs are compacted.
const HOUSEKEEPING_EVERY: Duration = Duration::from_hours(1);
/// Files that a merge replaced stay for so long, for those who are reading them.
const GRACE: Duration = Duration::from_hours(1);

impl Writers for Catalog {
    fn writer<'a>(&'a self, log: &'a str, _kind: Kind) -> BoxFuture<'a, Result<Writer>> {
        Box::pin(self.writer(log))
    }

    fn forget<'a>(&'a self, log: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.forget(log))
    }
}

/// A store's logs. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    /// The kinds of the logs that may come to be, by name.
    expected: BTreeMap<String, Kind>,
    /// Those opened so far.
    open: RwLock<HashMap<String, Log>>,
    /// Those written to so far. Held while one is opened, so that none is opened twice.
    writers: Mutex<HashMap<String, Writer>>,
    quarantine: Quarantine,
    /// Whether it was found that accesses can be recorded.
    records_accesses: AtomicBool,
    /// What was wrong with the store when it was last tried.
    trouble: RwLock<Option<&'static str>>,
}

impl Catalog {
    /// The logs of `store`. `declared` are those that the configuration knows besides the ones that
    /// are named after their kinds.
    pub fn new(store: Store, declared: impl IntoIterator<Item = (String, Kind)>) -> Self {
        let own =
            [(access_event::LOG.to_owned(), Kind::Auditlog), (quarantine::LOG.to_owned(), Kind::Quarantine)];
        let delivered = Kind::DELIVERED.map(|kind| (kind.name().to_owned(), kind));
        let expected = declared.into_iter().chain(delivered).chain(own).collect();
        let quarantine = Quarantine::new(store.clone());
        let inner = Inner {
            store,
            expected,
            open: RwLock::default(),
            writers: Mutex::default(),
            quarantine,
            records_accesses: AtomicBool::new(false),
            trouble: RwLock::default(),
        };
        Catalog { inner: Arc::new(inner) }
    }

    /// A log, for reading; `None` if it is one that may come to be and nothing is in it yet.
    pub async fn log(&self, name: &str) -> Result<Option<Log>> {
        if let Some(log) = self.opened(name) {
            return Ok(Some(log));
        }
        match self.inner.store.log(name).await {
            Ok(log) => Ok(Some(self.keep(log, false))),
            Err(Error::NoSuchLog(_)) if self.inner.expected.contains_key(name) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The writer of a log, which is made if it is one that may come to be. Of all writers of the
    /// log, in this process and in others, one appends at a time.
    pub async fn writer(&self, name: &str) -> Result<Writer> {
        let mut writers = self.inner.writers.lock().await;
        if let Some(writer) = writers.get(name) {
            return Ok(writer.clone());
        }
        let kind = match self.inner.expected.get(name) {
            Some(kind) => *kind,
            None => self.inner.store.log(name).await?.kind(),
        };
        let writer = self.inner.store.writer(name, kind, WriterOptions { take_turns: true }).await?;
        self.keep(writer.log().clone(), true);
        writers.insert(name.to_owned(), writer.clone());
        Ok(writer)
    }

    /// Appends to a log; answered when it is durable. A writer that has stopped is forgotten, so that
    /// whoever tries again gets a new one.
    pub async fn append(&self, name: &str, append: Append) -> Result<Outcome> {
        let outcome = self.writer(name).await?.append(append).await;
        if matches!(outcome, Err(Error::Stopped { .. })) {
            self.forget(name).await;
        }
        outcome
    }

    /// Gives up a writer that has stopped; the next one to write opens another.
    pub async fn forget(&self, name: &str) {
        if name == quarantine::LOG {
            self.inner.quarantine.forget().await;
        }
        self.inner.writers.lock().await.remove(name);
    }

    /// Of what kind a log is, or has to be.
    pub async fn kind(&self, name: &str) -> Result<Kind> {
        match self.inner.expected.get(name) {
            Some(kind) => Ok(*kind),
            None => {
                let log = self.log(name).await?;
                log.map(|log| log.kind()).ok_or_else(|| Error::NoSuchLog(name.to_owned()))
            }
        }
    }

    /// The names of the logs that there are or may come to be, in order.
    pub async fn names(&self) -> Result<Vec<String>> {
        let mut names = self.inner.store.names().await?;
        names.extend(self.inner.expected.keys().cloned());
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The logs of one kind whose names match one of `patterns`, in which `*` stands for anything.
    pub async fn matching(&self, kind: Kind, patterns: &[String]) -> Result<Vec<Log>> {
        let mut logs = Vec::new();
        for name in self.names().await? {
            if patterns.iter().any(|pattern| matches(pattern, &name))
                && let Some(log) = self.log(&name).await?
                && log.kind() == kind
            {
                logs.push(log);
            }
        }
        Ok(logs)
    }

    /// What is refused goes here.
    pub fn quarantine(&self) -> &Quarantine {
        &self.inner.quarantine
    }

    /// Takes in what other processes have committed, again and again. Never returns.
    pub async fn follow(&self) {
        let mut every = tokio::time::interval(FOLLOW_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.look().await;
        }
    }

    /// Takes in what other processes have committed, and finds out what is wrong with the store, if anything is.
    pub async fn look(&self) {
        let mut trouble = None;
        if let Err(error) = self.inner.store.check_writable().await {
            tracing::debug!(%error, "the store cannot be written to");
            trouble = Some("the store cannot be written to: its disk is full or read-only");
        }
        let open: Vec<Log> = self.open().values().cloned().collect();
        // In a bucket a listing is paid for, and the logs themselves say whether it can be read.
        if (open.is_empty() || self.inner.store.directory().is_some())
            && self.inner.store.names().await.is_err()
        {
            trouble = Some(UNREADABLE);
        }
        if !self.inner.records_accesses.load(Ordering::Relaxed) && trouble.is_none() {
            match self.can_record_accesses().await {
                Ok(()) => self.inner.records_accesses.store(true, Ordering::Relaxed),
                Err(error) => {
                    if self.trouble() != Some(UNRECORDED) {
                        tracing::error!(%error, "the log of accesses cannot be opened, so nothing can be shown");
                    }
                    trouble = Some(UNRECORDED);
                }
            }
        }
        let refreshed = open.iter().map(async |log| (log, log.refresh().await));
        for (log, refreshed) in join_all(refreshed).await {
            if let Err(error) = refreshed {
                tracing::warn!(log = log.name(), %error, "other writers' records cannot be seen");
                trouble = Some(UNREADABLE);
            }
            gauge!(LOG_HEAD, "log" => log.name().to_owned()).set(log.head() as f64);
        }
        self.set_trouble(trouble);
    }

    /// Whether the log of accesses can be appended to, as far as its keys go; it is made if it is not there.
    async fn can_record_accesses(&self) -> Result<()> {
        match self.inner.store.log(access_event::LOG).await {
            Ok(log) if log.key_source() == KeySource::KeyFolder => Ok(()),
            // Its writer says what is wrong with the keys.
            Ok(_) | Err(Error::NoSuchLog(_)) => self.writer(access_event::LOG).await.map(drop),
            Err(error) => Err(error),
        }
    }

    /// Opens the writer of each log whose newest records no checkpoint covers: a process that was killed left
    /// them so, and an opened writer publishes one. What another process is appending is covered by that one
    /// within a moment, so only records are counted that were there a moment ago.
    pub async fn cover(&self) {
        let names = self.inner.store.names().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "it cannot be seen which logs a checkpoint is missing for");
            Vec::new()
        });
        let mut behind = Vec::new();
        for name in names {
            match self.log(&name).await {
                Ok(Some(log)) => behind.push((log.head(), log)),
                Ok(None) => {}
                Err(error) => tracing::warn!(log = name, %error, "the log cannot be opened"),
            }
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
        for (head, log) in behind {
            let covered = match log.covered().await {
                Ok(covered) if covered < head => self.writer(log.name()).await.map(drop),
                covered => covered.map(drop),
            };
            if let Err(error) = covered {
                tracing::warn!(log = log.name(), %error, "the newest records cannot be covered by a checkpoint");
            }
        }
    }

    /// What was wrong with the store when it was last tried, a second ago at most: then no request can be
    /// answered, since each access has to be recorded.
    pub fn trouble(&self) -> Option<&'static str> {
        *self.inner.trouble.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_trouble(&self, trouble: Option<&'static str>) {
        let before = {
            let mut now = self.inner.trouble.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *now, trouble)
        };
        match trouble {
            Some(trouble) if before.is_none() => tracing::error!("not ready: {trouble}"),
            None if before.is_some() => tracing::warn!("the store can be read and written again"),
            _ => {}
        }
    }

    /// Counts the refused records that wait in the quarantine, for [`QUARANTINE_WAITING`]. Never returns.
    pub async fn watch_quarantine(&self) {
        let (mut first, mut seen, mut waiting) = (0, 0, BTreeMap::new());
        loop {
            if let Ok(Some(log)) = self.log(quarantine::LOG).await {
                // What retention has removed does not wait any more: all is counted anew.
                if log.first() != first {
                    (first, seen) = (log.first(), 0);
                    waiting.values_mut().for_each(|count| *count = 0);
                }
                if let Err(error) = quarantine::count_waiting(&log, &mut seen, &mut waiting).await {
                    tracing::warn!(%error, "what waits in the quarantine cannot be counted");
                }
                for (log, count) in &waiting {
                    gauge!(QUARANTINE_WAITING, "log" => log.clone()).set((*count).max(0) as f64);
                }
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    /// Removes what merging has left behind in the logs that are written to here, again and again.
    /// Never returns.
    pub async fn keep_house(&self) {
        loop {
            tokio::time::sleep(HOUSEKEEPING_EVERY).await;
            let writers: Vec<Writer> = self.inner.writers.lock().await.values().cloned().collect();
            for writer in writers {
                if let Err(error) = writer.compact(GRACE).await {
                    tracing::warn!(log = writer.log().name(), %error, "the log could not be compacted");
                }
            }
        }
    }

    /// Ends all writers; what has been answered is durable, and its checkpoint published.
    pub async fn close(&self) -> Result<()> {
        let writers = std::mem::take(&mut *self.inner.writers.lock().await);
        let mut closed = Ok(());
        for (_, writer) in writers {
            match writer.close().await {
                Err(Error::Stopped { .. }) | Ok(()) => {}
                Err(error) => closed = Err(error),
            }
        }
        closed
    }

    fn open(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Log>> {
        self.inner.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, name: &str) -> Option<Log> {
        self.open().get(name).cloned()
    }

    /// The writer's own view of a log moves on by itself and takes the place of any other.
    fn keep(&self, log: Log, writers: bool) -> Log {
        let mut open = self.inner.open.write().unwrap_or_else(PoisonError::into_inner);
        if writers {
            open.insert(log.name().to_owned(), log.clone());
            return log;
        }
        open.entry(log.name().to_owned()).or_insert(log).clone()
    }
}
