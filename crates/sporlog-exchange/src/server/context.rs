//! State that all connections share ([`Context`]), and that the parts of one connection share ([`Session`]).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::inbox::InboxEvents;
use crate::settings::Limits;

use super::Accounts;
use super::account::AccountState;
use super::login_throttle::LoginThrottle;
use super::metrics::Meters;
use super::record::{Recorder, Row};

/// Files and folders that a connection may have open at once. Clients open a few; each costs a file descriptor, and all
/// connections together must leave enough of them.
pub(super) const HANDLES: usize = 100;
/// Files and folders that all connections together may have open at once, if the process may have four times as many.
const ALL_HANDLES: u64 = 4096;

/// How many files and folders all connections together may have open: a quarter of what the process may, at most.
pub(super) fn all_handles() -> u64 {
    getrlimit(Resource::Nofile).current.map_or(ALL_HANDLES, |files| ALL_HANDLES.min(files / 4))
}

/// State that all connections share.
pub(super) struct Context {
    pub accounts: RwLock<Arc<Accounts>>,
    pub limits: Limits,
    pub throttle: LoginThrottle,
    pub recorder: Recorder,
    pub events: Arc<InboxEvents>,
    pub meters: Meters,
    /// Permits for files and folders, of all connections together.
    pub handles: Arc<Semaphore>,
    /// Cancelled when the server is to stop: nothing new is begun then.
    pub stopping: CancellationToken,
}

impl Context {
    /// The accounts at this moment.
    pub(super) fn accounts(&self) -> Arc<Accounts> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The state of one connection.
pub(super) struct Session {
    pub context: Arc<Context>,
    /// Identifies the connection in its rows in the access log.
    pub id: String,
    pub address: IpAddr,
    /// Cancelled to end the connection, whatever it is doing.
    pub ended: CancellationToken,
    /// The account, once it has signed in.
    pub account: OnceLock<Arc<AccountState>>,
    /// Permits for files and folders that the client may still open.
    handles: Arc<Semaphore>,
    pub began: Instant,
    /// When the client last sent a request or took an answer, in milliseconds since `began`.
    seen: AtomicU64,
}

/// A permit for an open file or folder: the connection's own, and that of all connections.
pub(super) type HandlePermit = [OwnedSemaphorePermit; 2];

impl Session {
    pub(super) fn new(context: Arc<Context>, address: IpAddr) -> Self {
        Session {
            context,
            id: uuid::Uuid::new_v4().to_string(),
            address,
            ended: CancellationToken::new(),
            account: OnceLock::new(),
            handles: Arc::new(Semaphore::new(HANDLES)),
            began: Instant::now(),
            seen: AtomicU64::new(0),
        }
    }

    /// Notes that the client has sent a request or taken an answer.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.seen.store(now, Ordering::Relaxed);
    }

    /// How long ago the client last sent a request or took an answer.
    pub(super) fn silent(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.seen.load(Ordering::Relaxed)))
    }

    /// Whether the client has a file or folder open.
    pub(super) fn is_busy(&self) -> bool {
        self.handles.available_permits() < HANDLES
    }

    /// A permit for another open file or folder; the error says of whom there are as many as there may be.
    pub(super) fn acquire_handle(&self) -> Result<HandlePermit, &'static str> {
        let acquire = |handles: &Arc<Semaphore>| Arc::clone(handles).try_acquire_owned();
        let own = acquire(&self.handles).map_err(|_| "too many files are open on this connection")?;
        let shared = acquire(&self.context.handles)
            .map_err(|_| "too many files are open on all connections together; try again soon")?;
        Ok([own, shared])
    }

    /// A row for the access log about this connection, to be filled in.
    pub(super) fn row(&self, performer: &str) -> Row {
        Row {
            performer: performer.to_owned(),
            action: "",
            address: self.address,
            session: self.id.clone(),
            message: String::new(),
            parameters: Value::Null,
        }
    }
}
