//! What our server tells the inbox: which files it has closed, and which uploads are under way.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::growth::Growth;
use super::server::Announcer;

/// A file that our server has closed.
pub(super) struct Closed {
    pub account: String,
    pub name: OsString,
    /// Nothing more will come.
    pub settled: bool,
    pub at: Instant,
}

/// What has been told and not been seen to.
pub(super) struct Announced {
    closed: Mutex<Vec<Closed>>,
    growing: Mutex<Vec<Arc<Growth>>>,
    /// How long files settle that our server has closed.
    settle: Duration,
    wake: Notify,
}

impl Announced {
    pub fn new(settle: Duration) -> Self {
        Announced { closed: Mutex::default(), growing: Mutex::default(), settle, wake: Notify::new() }
    }

    /// The files that were closed since this was last asked.
    pub fn closed(&self) -> Vec<Closed> {
        std::mem::take(&mut *self.closed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether files have been closed since.
    pub fn has_closed(&self) -> bool {
        !self.closed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// An upload that is worth to be read while it lasts.
    pub fn worth_reading(&self) -> Option<Arc<Growth>> {
        let mut growing = self.growing();
        growing.retain(|growth| growth.is_alive());
        growing.iter().find(|growth| growth.is_worth_it()).cloned()
    }

    /// Whether uploads are under way that may become worth it.
    pub fn has_uploads(&self) -> bool {
        !self.growing().is_empty()
    }

    /// Waits for so long, or until something is told.
    pub async fn wait(&self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.wake.notified()).await;
    }

    /// Ends the waiting.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    fn growing(&self) -> MutexGuard<'_, Vec<Arc<Growth>>> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announcer for Announced {
    fn closed(&self, account: &str, name: &str, settled: bool) {
        let at = Instant::now();
        let complete = if settled { at } else { at + self.settle };
        for growth in Announced::growing(self).iter() {
            if growth.account == account && growth.name() == name {
                growth.delivered(complete);
            } else {
                growth.make_way();
            }
        }
        let closed = Closed { account: account.to_owned(), name: name.into(), settled, at };
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).push(closed);
        self.wake();
    }

    fn growing(&self, growth: Arc<Growth>) {
        let mut growing = Announced::growing(self);
        growing.retain(|growth| growth.is_alive());
        growing.push(growth);
        drop(growing);
        self.wake();
    }
}
