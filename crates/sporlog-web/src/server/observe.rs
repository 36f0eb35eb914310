//! A request's id, its log line and its metrics.
//!
//! The line says what was asked for by the route's pattern alone. Paths and queries hold names and
//! numbers of people, and appear nowhere.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ::metrics::{Gauge, counter, gauge, histogram};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use sporlog_record::identifier::mask_text;
use tracing::Span;

use super::metrics;

/// The header with a request's id.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// Longest id that is taken from a client.
const LONGEST_ID: usize = 64;
/// What stands for a route where none matched.
const NO_ROUTE: &str = "none";

/// What a request is called in the log and to the client (`x-request-id`). Put into every request's
/// extensions by [`layers`](super::layers); as an extractor it is empty where a router runs without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// The client's own, if it can be put into a log as it is; otherwise one that is made up.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_id(id));
        RequestId(given.map_or_else(|| made_up().into(), Into::into))
    }

    pub(super) fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    // Masked text is other text: then there is what may be a personal number in it.
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain) && mask_text(id) == id
}

/// Sixteen letters. Digits would now and then look like a personal number and be masked in the log.
fn made_up() -> String {
    static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let bits = SECRET.hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    (0..16).map(|at| char::from(b'a' + (bits >> (4 * at) & 15) as u8)).collect()
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(|| RequestId("".into())))
    }
}

/// Who asks, for the log line: an empty place in every request's extensions, filled in by whoever
/// finds out.
#[derive(Debug, Clone, Default)]
pub struct RequestedBy(Arc<OnceLock<Arc<str>>>);

impl RequestedBy {
    /// Says that a request, whose extensions these are, comes from a principal of this name. A name,
    /// never a personal number or a key; only the first that is said counts.
    pub fn note(extensions: &Extensions, name: impl Into<Arc<str>>) {
        if let Some(place) = extensions.get::<Self>() {
            let _ = place.0.set(name.into());
        }
    }

    /// The name, if it is known by now.
    pub fn name(&self) -> Option<&str> {
        self.0.get().map(AsRef::as_ref)
    }
}

/// A request as it is observed, from its head to the last byte of its answer. The line is
/// written when this is dropped, so it is written whatever happens.
pub(super) struct Observed {
    began: Instant,
    method: &'static str,
    route: Arc<str>,
    client: IpAddr,
    by: RequestedBy,
    /// Bytes of the body, as sent.
    received: Arc<AtomicU64>,
    span: Span,
    answered: Option<(StatusCode, Duration)>,
    sent: u64,
    complete: bool,
}

impl Observed {
    pub(super) fn begin(
        request: &Request<Body>,
        id: &RequestId,
        client: IpAddr,
        by: RequestedBy,
        received: Arc<AtomicU64>,
    ) -> Self {
        let route = request.extensions().get::<MatchedPath>();
        under_way().increment(1);
        Observed {
            began: Instant::now(),
            method: known(request.method()),
            route: route.map_or(NO_ROUTE, MatchedPath::as_str).into(),
            client,
            by,
            received,
            span: tracing::info_span!(target: "sporlog::http", "request", id = %id.0),
            answered: None,
            sent: 0,
            complete: false,
        }
    }

    /// In which whatever is logged about this request is logged.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The answer has begun; what is left is observed as it goes. `held` is dropped when the answer is through.
    pub(super) fn answered(mut self, response: Response, held: impl Send + Unpin + 'static) -> Response {
        let took = self.began.elapsed();
        self.answered = Some((response.status(), took));
        histogram!(metrics::HTTP_SECONDS, "method" => self.method, "route" => Arc::clone(&self.route))
            .record(took);
        response.map(|inner| Body::new(Watched { inner, observed: self, _held: held }))
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        under_way().decrement(1);
        let route = || Arc::clone(&self.route);
        let (status, took) = match self.answered {
            Some((status, took)) => (status.as_str().to_owned(), took),
            // The client went away before there was an answer.
            None => ("gone".to_owned(), self.began.elapsed()),
        };
        counter!(metrics::HTTP_REQUESTS, "method" => self.method, "route" => route(), "status" => status.clone())
            .increment(1);
        let received = self.received.load(Ordering::Relaxed);
        if received > 0 {
            histogram!(metrics::HTTP_REQUEST_BYTES, "route" => route()).record(received as f64);
        }
        histogram!(metrics::HTTP_RESPONSE_BYTES, "route" => route()).record(self.sent as f64);
        tracing::info!(
            target: "sporlog::http",
            parent: &self.span,
            method = self.method,
            route = &*self.route,
            status,
            ms = milliseconds(took),
            total_ms = milliseconds(self.began.elapsed()),
            received,
            sent = self.sent,
            complete = self.complete,
            client = %self.client,
            by = self.by.name(),
        );
    }
}

/// To the microsecond. With all the digits of a float, it would look like a personal number now and then,
/// and be masked.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// The gauge of requests under way, looked up once.
fn under_way() -> &'static Gauge {
    static UNDER_WAY: LazyLock<Gauge> = LazyLock::new(|| gauge!(metrics::HTTP_UNDER_WAY));
    &UNDER_WAY
}

/// Methods are a closed set, so that they can be a metric's label.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// An answer's body, observed.
struct Watched<H> {
    inner: Body,
    observed: Observed,
    _held: H,
}

impl<H: Send + 'static + Unpin> HttpBody for Watched<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.observed.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.observed.complete = this.inner.is_end_stream();
            }
            Some(Err(_)) => {}
            None => this.observed.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_without_a_personal_number_are_taken() {
        for good in ["a", "7f3e-1", "4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8", "a.b:c_d", &"x".repeat(64)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "a b", "a\"b", "æ", "0101018081", "x-010101-8081", "01010112345", &"x".repeat(65)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn made_up_ids_differ_and_pass_as_ids() {
        let ids: std::collections::HashSet<_> = (0..10_000).map(|_| made_up()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| is_id(id) && id.bytes().all(|b| b.is_ascii_lowercase())));
    }
}
