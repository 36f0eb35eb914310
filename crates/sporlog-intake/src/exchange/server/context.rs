//! What all connections share, and what the parts of one connection share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::exchange::inbox::InboxEvents;
use crate::exchange::settings::Limits;

use super::Members;
use super::guard::Guard;
use super::metrics::Meters;
use super::record::{Recorder, Row};

/// What all connections share.
pub(super) struct Context {
    pub members: Members,
    pub limits: Limits,
    pub guard: Guard,
    pub recorder: Recorder,
    pub events: Arc<InboxEvents>,
    pub meters: Meters,
    /// Cancelled when the server is to stop: no new work.
    pub stopping: CancellationToken,
}

/// A connection, as its parts see it.
pub(super) struct Visit {
    pub context: Arc<Context>,
    /// By what its rows in the access log are told from others'.
    pub id: String,
    pub address: IpAddr,
    /// Cancelled to end it, whatever it is doing.
    pub ended: CancellationToken,
    pub is_signed_in: AtomicBool,
    /// Files and folders that it has open.
    handles: AtomicUsize,
    began: Instant,
    /// When it last asked for something or took an answer, in milliseconds since it began.
    seen: AtomicU64,
}

impl Visit {
    pub(super) fn new(context: Arc<Context>, address: IpAddr) -> Self {
        Visit {
            context,
            id: uuid::Uuid::new_v4().to_string(),
            address,
            ended: CancellationToken::new(),
            is_signed_in: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
            began: Instant::now(),
            seen: AtomicU64::new(0),
        }
    }

    /// It has asked for something, or taken an answer.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.seen.store(now, Ordering::Relaxed);
    }

    /// For how long it has been silent.
    pub(super) fn silent(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.seen.load(Ordering::Relaxed)))
    }

    /// Whether anything is open.
    pub(super) fn is_busy(&self) -> bool {
        self.handles.load(Ordering::Relaxed) > 0
    }

    /// A place for something that is opened, if there is one.
    pub(super) fn hold(self: &Arc<Self>) -> Option<Held> {
        let one_more = |now| (now < self.context.limits.handles).then_some(now + 1);
        let held = self.handles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        held.ok().map(|_| Held(Arc::clone(self)))
    }

    /// A row about it, to be filled in.
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

/// A place for something that is open, given back when it is dropped.
pub(super) struct Held(Arc<Visit>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.handles.fetch_sub(1, Ordering::Relaxed);
    }
}
