//! A proxy before a bucket: it counts requests by what they are for, holds them up, and does them harm.
//!
//! A request takes a connection of its own to the bucket, so that a head and a length are all that has to be understood of
//! HTTP. The signature of a request covers the name of the server that the client knows, which is passed on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What is done to requests.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Each request is held up for a time between these, in milliseconds.
    pub delay: (u64, u64),
    /// In so many of a thousand requests, each of the following happens.
    pub each: u64,
    /// A put is answered by 409 OperationAborted, and has no effect.
    pub conflict: bool,
    /// The connection is cut before the request has any effect.
    pub cut: bool,
    /// The request is answered by 503 SlowDown, and has no effect.
    pub slow_down: bool,
    /// The request takes effect, and its answer is lost.
    pub lost: bool,
    /// The request takes effect, and is answered by 503.
    pub late: bool,
    /// So many of a thousand puts of new objects take effect and are answered by 403: as if the client had sent the put again
    /// after its answer was lost, with credentials that have expired meanwhile.
    pub refused: u64,
    /// Requests of this kind, as they are counted, are forbidden.
    pub forbidden: &'static str,
    /// Writers are told that their object is there although its name was taken: as if no condition had been asked for.
    pub unconditional: bool,
}

/// How many requests of each kind there were.
pub type Counts = BTreeMap<&'static str, u64>;

/// A running proxy. A request `MARK NAME`, which is not passed on, puts the counts up to it aside under that name, and is answered
/// by their sum.
pub struct Proxy {
    pub url: String,
    counts: Arc<Mutex<Counts>>,
    marked: Arc<Mutex<BTreeMap<String, Counts>>>,
}

impl Proxy {
    /// Listens on a free port, or on the one in `listen`, and passes on to `upstream`, as HOST:PORT.
    pub async fn start(listen: &str, upstream: &str, faults: Faults) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Proxy { url, counts: Arc::default(), marked: Arc::default() };
        let (upstream, counts, marked) = (upstream.to_owned(), proxy.counts.clone(), proxy.marked.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, faults) = (upstream.clone(), faults.clone());
                let (counts, marked) = (counts.clone(), marked.clone());
                tokio::spawn(async move { serve(client, &upstream, &faults, &counts, &marked).await });
            }
        });
        proxy
    }

    /// The requests since the last call or mark.
    #[allow(dead_code)]
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }

    /// The requests up to each mark.
    #[allow(dead_code)]
    pub fn marked(&self) -> BTreeMap<String, Counts> {
        self.marked.lock().unwrap().clone()
    }
}

/// What a request is for.
fn kind(head: &str) -> &'static str {
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let conditional = head.to_ascii_lowercase().contains("\r\nif-none-match:");
    match method {
        "GET" if query.contains("list-type") => "list",
        "GET" if head.to_ascii_lowercase().contains("\r\nrange:") => "get range",
        "GET" | "HEAD" => "get",
        "PUT" if query.contains("partNumber") => "part",
        "PUT" if conditional => "put new",
        "PUT" => "put",
        "POST" if query.contains("delete") => "delete",
        "POST" if query.contains("uploads") => "begin parts",
        "POST" => "complete parts",
        "DELETE" if query.contains("uploadId") => "abort parts",
        _ => "delete",
    }
}

/// A message up to its end, and the length of its head.
async fn message(stream: &mut TcpStream) -> Option<(Vec<u8>, usize)> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let whole = head + length.unwrap_or(0);
        let there = bytes.len();
        bytes.resize(whole.max(there), 0);
        stream.read_exact(&mut bytes[there..]).await.ok()?;
        return Some((bytes, head));
    }
}

fn answer(status: &str, code: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>");
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n");
    format!("{head}Connection: close\r\n\r\n{body}").into_bytes()
}

async fn serve(
    mut client: TcpStream,
    upstream: &str,
    faults: &Faults,
    counts: &Mutex<Counts>,
    marked: &Mutex<BTreeMap<String, Counts>>,
) -> Option<()> {
    let (request, head) = message(&mut client).await?;
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    if let Some(name) = text.strip_prefix("MARK ") {
        let before = std::mem::take(&mut *counts.lock().unwrap());
        let sum: u64 = before.values().sum();
        marked.lock().unwrap().insert(name.trim_end().to_owned(), before);
        return client.write_all(sum.to_string().as_bytes()).await.ok();
    }
    let kind = kind(&text);
    *counts.lock().unwrap().entry(kind).or_default() += 1;
    let (shortest, longest) = faults.delay;
    if longest > 0 {
        tokio::time::sleep(Duration::from_millis(shortest + random(longest - shortest + 1))).await;
    }
    let happens = |fault: bool| fault && random(1_000) < faults.each;
    if faults.forbidden == kind {
        return client.write_all(&answer("403 Forbidden", "AccessDenied")).await.ok();
    }
    if happens(faults.slow_down) {
        return client.write_all(&answer("503 Slow Down", "SlowDown")).await.ok();
    }
    if kind.starts_with("put") && happens(faults.conflict) {
        return client.write_all(&answer("409 Conflict", "OperationAborted")).await.ok();
    }
    if happens(faults.cut) {
        return None;
    }
    let mut bucket = TcpStream::connect(upstream).await.ok()?;
    bucket.write_all(&request[..head - 2]).await.ok()?;
    bucket.write_all(b"Connection: close\r\n\r\n").await.ok()?;
    bucket.write_all(&request[head..]).await.ok()?;
    let mut response = Vec::new();
    bucket.read_to_end(&mut response).await.ok()?;
    if happens(faults.lost) {
        return None;
    }
    if kind == "put new" && random(1_000) < faults.refused {
        return client.write_all(&answer("403 Forbidden", "ExpiredToken")).await.ok();
    }
    if happens(faults.late) {
        return client.write_all(&answer("503 Service Unavailable", "InternalError")).await.ok();
    }
    if faults.unconditional && kind == "put new" && response.starts_with(b"HTTP/1.1 412") {
        let done = b"HTTP/1.1 200 OK\r\nETag: \"0\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(done).await.ok();
    }
    client.write_all(&response).await.ok()?;
    client.shutdown().await.ok()
}

/// Another number at every call.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % below
}
