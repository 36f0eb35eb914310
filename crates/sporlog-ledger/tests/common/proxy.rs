//! A proxy before a bucket: it counts requests by what they are for, holds them up, and does them harm.
//!
//! Connections are kept, as a bucket keeps them. A connection of the client has one of its own to the bucket, from which answers
//! are passed on as they come: a head and a length of requests are all that has to be understood of HTTP. An answer that is
//! to be lost or changed is read to its end, on a connection that the bucket closes after it. The signature of a request
//! covers the name of the server that the client knows, which is passed on.

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

/// The length of the request whose head is at the beginning of `bytes`, and of its head; `None` if the head is not all there.
fn request_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some((head + length.unwrap_or(0), head))
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
    client.set_nodelay(true).ok()?;
    let mut bucket = None;
    let mut request = Vec::new();
    loop {
        let head = read_request(&mut client, &mut bucket, &mut request).await?;
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
        if let Some(fault) = faults.one_for(kind) {
            let answer = fault.answer(upstream, &request, head).await?;
            return client.write_all(&answer).await.ok();
        }
        if bucket.is_none() {
            let connection = TcpStream::connect(upstream).await.ok()?;
            connection.set_nodelay(true).ok()?;
            bucket = Some(connection);
        }
        bucket.as_mut()?.write_all(&request).await.ok()?;
        request.clear();
    }
}

/// Reads the next request of `client`, and passes on what comes from the bucket meanwhile. The length of its head; `None` at the
/// end of either connection.
async fn read_request(
    client: &mut TcpStream,
    bucket: &mut Option<TcpStream>,
    request: &mut Vec<u8>,
) -> Option<usize> {
    let mut response = vec![0; 1 << 16];
    let mut lengths = None;
    loop {
        let from_bucket = async {
            match bucket {
                Some(bucket) => bucket.read(&mut response).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = client.read_buf(request) => { read.ok().filter(|read| *read > 0)?; }
            read = from_bucket => {
                let read = read.ok().filter(|read| *read > 0)?;
                client.write_all(&response[..read]).await.ok()?;
            }
        }
        lengths = lengths.or_else(|| request_length(request));
        if let Some((length, head)) = lengths.filter(|(length, _)| *length <= request.len()) {
            assert_eq!(request.len(), length, "a request follows before this one is answered");
            return Some(head);
        }
    }
}

/// What happens to one request. The connection of the client is closed after it.
#[derive(Clone, Copy)]
enum Fault {
    Forbidden,
    SlowDown,
    Conflict,
    Cut,
    Lost,
    Refused,
    Late,
    Unconditional,
}

impl Faults {
    fn one_for(&self, kind: &str) -> Option<Fault> {
        let (is_put, is_new) = (kind.starts_with("put"), kind == "put new");
        let happens = |fault: bool| fault && random(1_000) < self.each;
        let faults = [
            (Fault::Forbidden, self.forbidden == kind),
            (Fault::SlowDown, happens(self.slow_down)),
            (Fault::Conflict, is_put && happens(self.conflict)),
            (Fault::Cut, happens(self.cut)),
            (Fault::Lost, happens(self.lost)),
            (Fault::Refused, is_new && random(1_000) < self.refused),
            (Fault::Late, happens(self.late)),
            (Fault::Unconditional, is_new && self.unconditional),
        ];
        faults.into_iter().find_map(|(fault, happens)| happens.then_some(fault))
    }
}

impl Fault {
    /// What the client is answered to `request`, whose head has this length; `None` if nothing.
    async fn answer(self, upstream: &str, request: &[u8], head: usize) -> Option<Vec<u8>> {
        match self {
            Fault::Forbidden => return Some(answer("403 Forbidden", "AccessDenied")),
            Fault::SlowDown => return Some(answer("503 Slow Down", "SlowDown")),
            Fault::Conflict => return Some(answer("409 Conflict", "OperationAborted")),
            Fault::Cut => return None,
            Fault::Lost | Fault::Refused | Fault::Late | Fault::Unconditional => {}
        }
        let mut bucket = TcpStream::connect(upstream).await.ok()?;
        bucket.write_all(&request[..head - 2]).await.ok()?;
        bucket.write_all(b"Connection: close\r\n\r\n").await.ok()?;
        bucket.write_all(&request[head..]).await.ok()?;
        let mut response = Vec::new();
        bucket.read_to_end(&mut response).await.ok()?;
        match self {
            Fault::Refused => Some(answer("403 Forbidden", "ExpiredToken")),
            Fault::Late => Some(answer("503 Service Unavailable", "InternalError")),
            Fault::Unconditional if response.starts_with(b"HTTP/1.1 412") => Some(
                b"HTTP/1.1 200 OK\r\nETag: \"0\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            ),
            Fault::Unconditional => Some(response),
            _ => None,
        }
    }
}

/// Another number at every call.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % below
}
