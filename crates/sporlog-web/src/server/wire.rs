//! The bytes of a connection, on their way to and from the parser.
//!
//! What is noted here is what the parser does not tell: since when a request's head has been under
//! way, and since when the other end has not taken what is sent. Requests that could be read two ways
//! are stopped (see [`framing`](super::framing)).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use std::sync::Arc;

use ::metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::framing::{Fault, Framing};
use super::metrics;

/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the parser gets to see after what is unreadable: the end of a head, which makes it look at last.
const ENOUGH: &[u8] = b"\0\r\n\r\n";
/// How long what still comes in is thrown away before a connection is closed on it.
const LINGER: Duration = Duration::from_secs(1);

/// Since when what has been going on in a connection; shared by its wire, its requests and its watch.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Instant,
    requests: AtomicUsize,
    idle: AtomicU64,
    head: AtomicU64,
    write: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let none = || AtomicU64::new(0);
        let requests = AtomicUsize::new(0);
        Pulse { began: Instant::now(), requests, idle: AtomicU64::new(1), head: none(), write: none() }
    }

    /// Milliseconds since the connection began, and one, so that 0 is free to mean none.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1))
    }

    fn since(&self, mark: &AtomicU64) -> Option<Duration> {
        match mark.load(Ordering::Relaxed) {
            0 => None,
            then => Some(Duration::from_millis(self.now().saturating_sub(then))),
        }
    }

    fn begin(&self, mark: &AtomicU64) {
        // Only this connection's task writes here.
        if mark.load(Ordering::Relaxed) == 0 {
            mark.store(self.now(), Ordering::Relaxed);
        }
    }

    /// For how long a request's head has been under way.
    pub(super) fn head(&self) -> Option<Duration> {
        self.since(&self.head)
    }

    /// For how long the other end has not taken what is sent.
    pub(super) fn write(&self) -> Option<Duration> {
        self.since(&self.write)
    }

    /// For how long nothing has been asked.
    pub(super) fn idle(&self) -> Option<Duration> {
        if self.requests.load(Ordering::Relaxed) > 0 { None } else { self.since(&self.idle) }
    }

    /// A request, until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Pulse>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.idle.store(self.0.now(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's bytes.
#[derive(Debug)]
pub(super) struct Wire<T> {
    io: T,
    pulse: Arc<Pulse>,
    /// Of HTTP/1.
    framing: Option<Framing>,
    /// How much of HTTP/2's beginning was there.
    preface: usize,
    /// It is over, but for these bytes.
    broken: Option<&'static [u8]>,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, pulse: Arc<Pulse>, http2: bool) -> Self {
        let framing = (!http2).then(Framing::new);
        Wire { io, pulse, framing, preface: 0, broken: None, linger: None }
    }

    /// Looks at what has come in, and makes it unreadable from where it is open to two readings: the parser
    /// then answers 400 and closes.
    fn look(&mut self, bytes: &mut [u8]) {
        let Some(framing) = &mut self.framing else { return };
        if let Err(Fault(at)) = framing.follow(bytes) {
            self.broken = Some(ENOUGH);
            bytes.iter_mut().skip(at).for_each(|byte| *byte = 0);
            counter!(metrics::HTTP_REFUSED, "reason" => "head").increment(1);
        }
        if framing.in_head() {
            self.pulse.begin(&self.pulse.head);
        } else {
            self.pulse.head.store(0, Ordering::Relaxed);
        }
    }

    /// Whether this is the beginning of HTTP/2, which is not looked at.
    fn is_http2(&mut self, bytes: &[u8]) -> bool {
        let Some(rest) = PREFACE.get(self.preface..).filter(|rest| !rest.is_empty()) else { return false };
        let both = rest.len().min(bytes.len());
        if bytes.get(..both) == rest.get(..both) {
            self.preface += both;
            self.preface == PREFACE.len()
        } else {
            self.preface = usize::MAX;
            false
        }
    }

    fn wrote<R>(&self, outcome: &Poll<R>) {
        match outcome {
            Poll::Pending => self.pulse.begin(&self.pulse.write),
            Poll::Ready(_) => self.pulse.write.store(0, Ordering::Relaxed),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(rest) = &mut this.broken {
            let (now, later) = rest.split_at(rest.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *rest = later;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let Some(new) = buffer.filled_mut().get_mut(before..) else { return Poll::Ready(Ok(())) };
        if this.framing.is_some() && this.is_http2(new) {
            this.framing = None;
            this.pulse.head.store(0, Ordering::Relaxed);
        }
        this.look(new);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write_vectored(cx, pieces);
        this.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(&outcome);
        outcome
    }

    /// Closes. If the other end is still sending, because it was answered before its request was
    /// through, that is thrown away for a moment: closing at once would have the kernel reset the
    /// connection, and the answer may be lost with it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            let complete = this.framing.as_ref().is_none_or(Framing::between_requests);
            if complete && this.broken.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut waste = [0; 4096];
        loop {
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
