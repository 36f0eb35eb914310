//! Whether the server lives, and whether it is ready for requests.
//!
//! `GET /health/live` says 200 as long as requests are answered at all. `GET /health/ready` says 200
//! if every check passes and the server is not stopping; otherwise 503, and which checks do not:
//!
//! ```json
//! {"status":"not ready","failing":{"store":"the disk is full"}}
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use sporlog_record::identifier::mask_text;

/// A check: cheap, never blocking, and called by every probe. Its error is shown to whoever asks, so
/// it names no person, key or file.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks, by name. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stopping: AtomicBool,
    checks: RwLock<BTreeMap<String, Check>>,
}

/// What a probe is told.
#[derive(Debug, Serialize)]
struct Report {
    status: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failing: BTreeMap<String, String>,
}

impl Health {
    /// Without any check: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, in place of one of the same name.
    pub fn check(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut checks = self.0.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.insert(name.into(), Box::new(check));
    }

    /// From now on not ready: call this when stopping begins, so that load balancers send requests
    /// elsewhere before the listener closes.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// What is not ready, by the check's name, and why; empty if all is.
    pub fn failing(&self) -> BTreeMap<String, String> {
        let checks = self.0.checks.read().unwrap_or_else(PoisonError::into_inner);
        let failed = |(name, check): (&String, &Check)| {
            check().err().map(|why| (name.clone(), mask_text(&why).into_owned()))
        };
        let mut failing: BTreeMap<_, _> = checks.iter().filter_map(failed).collect();
        if self.0.stopping.load(Ordering::Relaxed) {
            failing.insert("server".into(), "it is stopping".into());
        }
        failing
    }

    /// The routes `/health/live` and `/health/ready`.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let health = self.clone();
        Router::new()
            .route("/health/live", get(async || answer(BTreeMap::new(), "live")))
            .route("/health/ready", get(async move || answer(health.failing(), "ready")))
    }
}

fn answer(failing: BTreeMap<String, String>, good: &'static str) -> Response {
    let (code, status) = if failing.is_empty() {
        (StatusCode::OK, good)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    // Not a problem document: a probe that reads JSON finds the same members whatever the status.
    let report = Json(Report { status, failing });
    (code, [(header::CACHE_CONTROL, "no-store")], report).into_response()
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("failing", &self.failing()).finish()
    }
}
