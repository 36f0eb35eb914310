//! Clients that keep connections and requests from ending: more of them than the server has places, and others who
//! are served all the same.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;

use super::harness::{PATIENCE, Running, settings, start_with, status};
use super::tls::{TlsServer, connect, start_with_tls};
use crate::server::{Limits, ServerSettings};

/// More than the connections and the requests that [`few`] allows.
const ATTACKERS: usize = 60;
const ENDLESS: &[u8] = b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n";

fn few() -> ServerSettings {
    let limits = Limits { connections: 40, requests: 20, ..settings().limits };
    ServerSettings { limits, ..settings() }
}

/// Sends bytes one by one until the other end closes; never reads.
async fn drip(mut stream: impl AsyncWrite + Unpin, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Asks for an endless answer, and reads only when it has had time to be cut off: then it comes to an end.
async fn never_read(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = stream.write_all(ENDLESS).await;
    sleep(Duration::from_secs(5)).await;
    let mut buffer = vec![0; 64 << 10];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Others get their answers, by and by; and all attackers are disconnected.
async fn others_are_served(ask: impl AsyncFn() -> Option<u16>, mut attackers: JoinSet<()>) {
    let mut served = 0;
    for _ in 0..200 {
        match ask().await {
            Some(200) => served += 1,
            _ => sleep(Duration::from_millis(100)).await,
        }
        if served == 20 {
            break;
        }
    }
    assert_eq!(served, 20, "others are not served");
    while let Some(gone) =
        timeout(2 * PATIENCE, attackers.join_next()).await.expect("an attacker was never disconnected")
    {
        gone.expect("no panic");
    }
}

async fn hello(server: &Running) -> Option<u16> {
    Some(status(&server.ask("GET /hello", "", "").await))
}

#[tokio::test]
async fn whoever_never_reads_is_disconnected() {
    let server = start_with(few()).await;
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        attackers.spawn(never_read(server.connect().await));
    }
    others_are_served(async || hello(&server).await, attackers).await;
}

#[tokio::test]
async fn whoever_sends_heads_byte_by_byte_is_disconnected() {
    let server = start_with(few()).await;
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        attackers
            .spawn(drip(server.connect().await, b"GET /hello HTTP/1.1\r\nX: y and so on, and on, and on"));
    }
    others_are_served(async || hello(&server).await, attackers).await;
}

#[tokio::test]
async fn whoever_sends_nothing_of_a_body_is_disconnected() {
    let server = start_with(few()).await;
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let mut stream = server.connect().await;
        attackers.spawn(async move {
            let head = b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\na";
            stream.write_all(head).await.expect("sent");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!([408, 503].contains(&status(&answer)), "{answer}");
        });
    }
    others_are_served(async || hello(&server).await, attackers).await;
}

#[tokio::test]
async fn whoever_never_ends_a_tls_handshake_is_disconnected() {
    let place = start_with_tls(few()).await;
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        // The head of a record that is to have 512 bytes, and then ever more of them.
        attackers.spawn(drip(place.server.connect().await, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"));
    }
    others_are_served(async || hello_by_tls(open(&place).await.ok()?).await, attackers).await;
}

#[tokio::test]
async fn whoever_never_reads_by_tls_is_disconnected() {
    let place = start_with_tls(few()).await;
    let mut attackers = JoinSet::new();
    // A handshake needs a place, so those beyond the limit would wait for those before them.
    for _ in 0..30 {
        attackers.spawn(never_read(open(&place).await.expect("shaken")));
    }
    others_are_served(async || hello_by_tls(open(&place).await.ok()?).await, attackers).await;
}

async fn open(place: &TlsServer) -> std::io::Result<TlsStream<TcpStream>> {
    connect(place.server.address, &place.first, &[], rustls::ALL_VERSIONS).await
}

async fn hello_by_tls(mut stream: TlsStream<TcpStream>) -> Option<u16> {
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(status(&answer))
}
