//! Where a part of the program gets the writers of logs from: those that the server shares, or its own.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use sporlog_ledger::{Append, Outcome, Result, Store, Writer, WriterOptions};
use sporlog_record::Kind;
use tokio::sync::Mutex;

use crate::access_event::{self, AccessEvent};

/// The writers of a store's logs, each opened once.
pub trait Writers: Send + Sync + 'static {
    /// The writer of a log. A log that is not there is made.
    fn writer<'a>(&'a self, log: &'a str, kind: Kind) -> BoxFuture<'a, Result<Writer>>;

    /// Forgets a writer that has stopped; the next call of [`writer`](Self::writer) opens another.
    fn forget<'a>(&'a self, log: &'a str) -> BoxFuture<'a, ()>;
}

/// Appends `event` to the log of accesses. The record is durable when this returns.
pub async fn record_access(writers: &dyn Writers, event: &AccessEvent<'_>) -> crate::Result<()> {
    let rows = event.row()?;
    let append = async || -> Result<Outcome> {
        let append = Append { rows: rows.clone(), positions: Vec::new() };
        writers.writer(access_event::LOG, Kind::Auditlog).await?.append(append).await
    };
    let mut recorded = append().await;
    // A second record of the same access does no harm, and another writer may succeed.
    if matches!(recorded, Err(sporlog_ledger::Error::Stopped { .. })) {
        writers.forget(access_event::LOG).await;
        recorded = append().await;
    }
    Ok(recorded.map(drop)?)
}

/// Writers that are opened for one purpose, in a process that shares none.
#[derive(Clone)]
pub struct OwnWriters {
    store: Store,
    open: Arc<Mutex<HashMap<String, Writer>>>,
}

impl OwnWriters {
    /// Writers of the logs in `store`; none is open yet.
    pub fn new(store: Store) -> Self {
        OwnWriters { store, open: Arc::default() }
    }

    /// Closes all writers. Acknowledged records are durable, and their checkpoints are published then.
    pub async fn close(&self) -> Result<()> {
        let open = std::mem::take(&mut *self.open.lock().await);
        let mut closed = Ok(());
        for (_, writer) in open {
            match writer.close().await {
                Err(sporlog_ledger::Error::Stopped { .. }) | Ok(()) => {}
                Err(error) => closed = Err(error),
            }
        }
        closed
    }
}

impl Writers for OwnWriters {
    fn writer<'a>(&'a self, log: &'a str, kind: Kind) -> BoxFuture<'a, Result<Writer>> {
        Box::pin(async move {
            let mut open = self.open.lock().await;
            if let Some(writer) = open.get(log) {
                return Ok(writer.clone());
            }
            let writer = self.store.writer(log, kind, WriterOptions { take_turns: true }).await?;
            open.insert(log.to_owned(), writer.clone());
            Ok(writer)
        })
    }

    fn forget<'a>(&'a self, log: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move { drop(self.open.lock().await.remove(log)) })
    }
}
