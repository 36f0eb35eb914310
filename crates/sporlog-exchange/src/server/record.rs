//! Rows of the `access` log about SFTP: sign-ins and transfers.
//!
//! [`Recorder::record`] returns when a row is durable; other rows are written in the background, in order. Of
//! refused sign-ins, only some each minute get a row of their own, and the others one row with their count, so
//! that an attacker cannot fill the log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::counter;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use sporlog_intake::Result;
use sporlog_intake::access_event::AccessEvent;
use sporlog_intake::writers::{Writers, record_access};

use super::metrics;

/// Rows that may be queued.
const WAITING: usize = 1024;
/// Refused sign-ins that get a row of their own in each [`MINUTE`].
const REFUSED: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// A row that is to be written.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub performer: String,
    pub action: &'static str,
    pub address: IpAddr,
    pub session: String,
    pub message: String,
    pub parameters: Value,
}

/// Writes rows. Cheap to clone.
#[derive(Clone)]
pub(super) struct Recorder {
    writers: Arc<dyn Writers>,
    waiting: Sender<Event>,
}

enum Event {
    Row(Row),
    Refused(Row),
}

impl Recorder {
    /// Starts the task that writes rows. It ends when the last recorder is dropped and all rows are written.
    pub(super) fn start(writers: Arc<dyn Writers>) -> (Self, JoinHandle<()>) {
        let (waiting, events) = mpsc::channel(WAITING);
        let task = tokio::spawn(write(Arc::clone(&writers), events));
        (Recorder { writers, waiting }, task)
    }

    /// Writes a row; durable when this returns.
    pub(super) async fn record(&self, row: Row) -> Result<()> {
        record(self.writers.as_ref(), &row).await
    }

    /// Queues a row.
    pub(super) fn note(&self, row: Row) {
        self.send(Event::Row(row));
    }

    /// Queues a row about a refused sign-in.
    pub(super) fn refused(&self, row: Row) {
        // With a full queue the row is dropped: an attacker must not make the server wait.
        drop(self.waiting.try_send(Event::Refused(row)));
    }

    fn send(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.waiting.try_send(event) {
            let waiting = self.waiting.clone();
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(async move { waiting.send(event).await.is_ok() })),
                Err(_) => counter!(metrics::UNRECORDED).increment(1),
            }
        }
    }
}

async fn record(writers: &dyn Writers, row: &Row) -> Result<()> {
    let event = AccessEvent {
        performer: &row.performer,
        action: row.action,
        subject: None,
        address: Some(row.address.to_string()),
        correlation: Some(&row.session),
        message: row.message.clone(),
        parameters: row.parameters.clone(),
    };
    let recorded = record_access(writers, &event).await;
    if let Err(error) = &recorded {
        counter!(metrics::UNRECORDED).increment(1);
        tracing::error!(%error, action = row.action, session = row.session, "SFTP: a row could not be written to the log access");
    }
    recorded
}

/// Refused sign-ins since the last summary.
struct Refused {
    since: Instant,
    count: u32,
    last: Option<Row>,
}

async fn write(writers: Arc<dyn Writers>, mut events: Receiver<Event>) {
    let mut refused = Refused { since: Instant::now(), count: 0, last: None };
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = tokio::time::sleep_until(refused.since + MINUTE), if refused.count > 0 => {
                refused.sum_up(writers.as_ref()).await;
                continue;
            }
        };
        match event {
            Some(Event::Row(row)) => drop(record(writers.as_ref(), &row).await),
            Some(Event::Refused(row)) if refused.counts() <= REFUSED => {
                drop(record(writers.as_ref(), &row).await);
            }
            Some(Event::Refused(row)) => refused.last = Some(row),
            None => return refused.sum_up(writers.as_ref()).await,
        }
    }
}

impl Refused {
    fn counts(&mut self) -> u32 {
        if self.count == 0 {
            self.since = Instant::now();
        }
        self.count = self.count.saturating_add(1);
        self.count
    }

    async fn sum_up(&mut self, writers: &dyn Writers) {
        let more = self.count.saturating_sub(REFUSED);
        self.count = 0;
        if let Some(mut row) = self.last.take() {
            row.message = format!("{more} more sign-ins were refused within a minute");
            row.parameters = json!({ "refused": more });
            drop(record(writers, &row).await);
        }
    }
}
