//! How much a request may bring, and how slowly.
//!
//! A body is counted as it is sent, and again when it is [unpacked](super::unpack): a small one that
//! unpacks to a large one gets no further than an honest one. What went wrong with a body is noted
//! beside it, and the client is told that, whatever the handler made of it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::metrics::counter;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::metrics;
use super::unpack::unpack;
use crate::Problem;

/// What a route allows beyond the settings' limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteLimits {
    /// A body's size in bytes, both as sent and unpacked, instead of `limits.body_bytes`.
    pub body_bytes: Option<u64>,
    /// The handler gets a packed body (`Content-Encoding: gzip`) as it is sent, and tells by its first
    /// bytes that it is packed. Routes that take large bodies set this: otherwise a packed one is
    /// unpacked in memory.
    pub as_sent: bool,
    /// The answer may take as long as it takes: `limits.answer_seconds` does not apply. Streamed
    /// answers need no exception, that limit is for their beginning.
    pub unhurried: bool,
}

impl RouteLimits {
    /// Applies it to all routes that a router has by now.
    pub fn apply<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        if router.has_routes() { router.route_layer(from_fn_with_state(self, relax)) } else { router }
    }
}

async fn relax(
    axum::extract::State(limits): axum::extract::State<RouteLimits>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(intake) = request.extensions().get::<Arc<Intake>>() {
        if let Some(bytes) = limits.body_bytes {
            intake.limit.store(bytes, Ordering::Relaxed);
        }
        intake.unhurried.fetch_or(limits.unhurried, Ordering::Relaxed);
        intake.as_sent.fetch_or(limits.as_sent, Ordering::Relaxed);
    }
    next.run(request).await
}

/// What went wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    None = 0,
    TooLarge = 1,
    Stalled = 2,
    Broken = 3,
}

/// What is known about a request's body while it comes in.
#[derive(Debug)]
pub(super) struct Intake {
    limit: AtomicU64,
    unhurried: AtomicBool,
    as_sent: AtomicBool,
    /// Bytes as sent.
    received: AtomicU64,
    fault: AtomicU8,
    /// When the last piece came, and whether another is being waited for.
    last: Mutex<(Instant, bool)>,
}

impl Intake {
    fn new(limit: u64) -> Self {
        Intake {
            limit: limit.into(),
            unhurried: false.into(),
            as_sent: false.into(),
            received: 0.into(),
            fault: (Fault::None as u8).into(),
            last: Mutex::new((Instant::now(), false)),
        }
    }

    /// How much has come in, as sent.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How much may come in.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether the route takes a packed body as it is.
    pub(super) fn is_taken_as_sent(&self) -> bool {
        self.as_sent.load(Ordering::Relaxed)
    }

    fn mark(&self, waiting: bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !(waiting && last.1) {
            *last = (Instant::now(), waiting);
        }
    }

    /// Notes what went wrong; only the first counts, the rest follows from it.
    pub(super) fn failed(&self, fault: Fault) -> axum::Error {
        let none = Fault::None as u8;
        let _ = self.fault.compare_exchange(none, fault as u8, Ordering::Relaxed, Ordering::Relaxed);
        axum::Error::new(match fault {
            Fault::TooLarge => "the body is too large",
            Fault::Stalled => "the body did not come in time",
            Fault::None | Fault::Broken => "the body is broken",
        })
    }

    /// What to tell the client about its body, if something was wrong with it.
    fn problem(&self, stall: Duration) -> Option<(Problem, &'static str)> {
        let fault = self.fault.load(Ordering::Relaxed);
        if fault == Fault::TooLarge as u8 {
            let limit = self.limit();
            let detail = format!("the body may have {limit} bytes at most, as sent and unpacked");
            Some((Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail), "size"))
        } else if fault == Fault::Stalled as u8 {
            let detail = format!("nothing of the body came for {} seconds", stall.as_secs());
            Some((Problem::new(StatusCode::REQUEST_TIMEOUT, detail), "slow"))
        } else if fault == Fault::Broken as u8 {
            Some((Problem::bad_request("the body ends too early, or cannot be unpacked"), "broken"))
        } else {
            None
        }
    }
}

/// What holds for bodies and answers, by default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes of a body.
    pub bytes: u64,
    /// How long to wait for a piece of it.
    pub stall: Duration,
    /// How long an answer may take to begin.
    pub answer: Duration,
}

impl Pace {
    /// Middleware, before unpacking: the body as it is sent, and the time until the answer begins.
    pub(super) async fn sent(self, intake: Arc<Intake>, mut request: Request, next: Next) -> Response {
        let of_intake = Arc::clone(&intake);
        request.extensions_mut().insert(Arc::clone(&intake));
        let counted =
            |inner| Body::new(Counted { inner, intake: of_intake, count: 0, stall: self.stall, sleep: None });
        let request = request.map(counted);
        let response = tokio::select! {
            response = unpack(request, next) => response,
            () = self.too_late(&intake) => {
                counter!(metrics::HTTP_REFUSED, "reason" => "timeout").increment(1);
                let detail = "the answer took too long; what was asked for may have been done all the same";
                return Problem::unavailable(detail).into_response();
            }
        };
        match intake.problem(self.stall) {
            Some((problem, reason)) if response.status().as_u16() >= 400 => {
                counter!(metrics::HTTP_REFUSED, "reason" => reason).increment(1);
                problem.into_response()
            }
            _ => response,
        }
    }

    pub(super) fn intake(self) -> Arc<Intake> {
        Arc::new(Intake::new(self.bytes))
    }

    /// Returns when an answer is overdue: its time runs as long as nothing is being waited for from
    /// the client, and begins anew with each piece of the body.
    async fn too_late(self, intake: &Intake) {
        loop {
            let (last, waiting) = *intake.last.lock().unwrap_or_else(PoisonError::into_inner);
            let end = last + self.answer;
            if Instant::now() < end {
                sleep_until(end).await;
            } else if waiting || intake.unhurried.load(Ordering::Relaxed) {
                sleep(self.answer).await;
            } else {
                return;
            }
        }
    }
}

/// A body that is counted.
struct Counted {
    inner: Body,
    intake: Arc<Intake>,
    count: u64,
    /// How long to wait for the next piece.
    stall: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    fn ready(
        &mut self,
        frame: Option<Result<Frame<Bytes>, axum::Error>>,
    ) -> Option<Result<Frame<Bytes>, axum::Error>> {
        let frame = match frame? {
            Ok(frame) => frame,
            Err(_) => return Some(Err(self.intake.failed(Fault::Broken))),
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.count += bytes;
        self.intake.received.store(self.count, Ordering::Relaxed);
        if self.count > self.intake.limit() {
            return Some(Err(self.intake.failed(Fault::TooLarge)));
        }
        Some(Ok(frame))
    }
}

impl Drop for Counted {
    /// Whoever has let go of the body waits for it no more.
    fn drop(&mut self) {
        self.intake.mark(false);
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        // What is announced to be too large is not read at all, nor is the client told to go on.
        if this.count == 0 && this.inner.size_hint().lower() > this.intake.limit() {
            return Poll::Ready(Some(Err(this.intake.failed(Fault::TooLarge))));
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.sleep = None;
                this.intake.mark(false);
                Poll::Ready(this.ready(frame))
            }
            Poll::Pending => {
                this.intake.mark(true);
                let stall = this.stall;
                let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep(stall)));
                ready!(sleep.as_mut().poll(cx));
                this.intake.mark(false);
                Poll::Ready(Some(Err(this.intake.failed(Fault::Stalled))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
