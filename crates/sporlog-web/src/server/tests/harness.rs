//! A server to try things on, and a client that sends whatever it is given.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::Method;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::server::{
    ClientAddress, Health, Limits, Rates, RequestedBy, RouteLimits, Server, ServerError, ServerSettings,
    layers, metrics,
};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    pub health: Health,
    pub stop: Option<oneshot::Sender<()>>,
    pub done: JoinHandle<Result<(), ServerError>>,
}

/// Any free port, and no waiting for long.
pub fn settings() -> ServerSettings {
    ServerSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        limits: Limits {
            body_bytes: 64 << 10,
            stall_seconds: 1,
            answer_seconds: 1,
            idle_seconds: 2,
            shutdown_seconds: 5,
            ..Limits::default()
        },
        ..ServerSettings::default()
    }
}

pub async fn start() -> Running {
    start_with(settings()).await
}

pub async fn start_with(settings: ServerSettings) -> Running {
    let health = Health::new();
    let router = routes().merge(health.router()).merge(metrics::router(metrics::install()));
    let router = layers(router, &settings, Rates::new(&settings.rate), exceptions());
    let server = Server::bind(&settings, 0).await.expect("an address");
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(server.run(router, async {
        let _ = stopped.await;
    }));
    Running { address, health, stop: Some(stop), done }
}

fn routes() -> Router {
    let slowly = async |millis: u64| {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        "at last"
    };
    Router::new()
        .route("/hello", get("hello"))
        .route("/length", post(async |body: Bytes| body.len().to_string()))
        .route("/json", post(async |Json(value): Json<serde_json::Value>| value.to_string()))
        .route("/panic", get(panics))
        .route("/slowly/{millis}", get(async move |Path(millis): Path<u64>| slowly(millis).await))
        .route("/page", get(Html("<p>hello")))
        .route("/client", get(async |ClientAddress(address): ClientAddress| address.to_string()))
        .route("/person/{number}", get(person))
        .route("/endless", get(async || Body::from_stream(futures::stream::repeat_with(piece))))
        .route("/raw", post(async |body: Bytes| body.len().to_string()))
        .route("/large", post(async |body: Bytes| body.len().to_string()))
        .route("/unhurried", get(async move || slowly(2_500).await))
}

fn exceptions() -> [(Method, &'static str, RouteLimits); 3] {
    let large = RouteLimits { body_bytes: Some(1 << 20), unhurried: true, as_sent: false };
    let raw = RouteLimits { as_sent: true, ..RouteLimits::default() };
    [(Method::POST, "/raw", raw), (Method::POST, "/large", large), (Method::GET, "/unhurried", large)]
}

async fn panics() -> &'static str {
    panic!("over 0101018081")
}

async fn person(request: axum::extract::Request) -> String {
    RequestedBy::note(request.extensions(), "odense");
    tracing::info!("looked up");
    request.uri().to_string()
}

fn piece() -> Result<Bytes, std::io::Error> {
    Ok(Bytes::from_static(&[b'x'; 16 << 10]))
}

impl Running {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends bytes and reads all that comes until the other end closes.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.expect("sent");
        read_all(&mut stream).await
    }

    /// A request that is in order, and its answer.
    pub async fn ask(&self, line: &str, headers: &str, body: impl AsRef<[u8]>) -> String {
        let body = body.as_ref();
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}{length}\r\n");
        self.send([head.as_bytes(), body].concat()).await
    }

    pub fn begin_to_stop(&mut self) {
        self.stop.take().expect("not stopped yet").send(()).expect("running");
    }

    pub async fn stopped(self) -> Result<(), ServerError> {
        timeout(PATIENCE, self.done).await.expect("in time").expect("no panic")
    }
}

/// All that comes until the other end closes, or resets.
pub async fn read_all(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("the connection is closed");
    let text = String::from_utf8_lossy(&read).into_owned();
    match end {
        Ok(_) => text,
        Err(error) => format!("{text}[{:?}]", error.kind()),
    }
}

/// What comes up to and with `end`.
pub async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("in time");
        read.push(byte.unwrap_or_else(|e| panic!("{e} after {}", String::from_utf8_lossy(&read))));
    }
    String::from_utf8_lossy(&read).into_owned()
}

pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// The problem in an answer's body.
pub fn problem(answer: &str) -> serde_json::Value {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
    assert_eq!(problem.get("status"), Some(&status(answer).into()), "{answer}");
    problem
}
