//! Clients that take their time.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::harness::{problem, read_all, read_until, settings, start, start_with, status};
use crate::server::{Limits, ServerSettings};

#[tokio::test]
async fn a_head_has_to_come_in_time_however_it_trickles() {
    let limits = Limits { idle_seconds: 1, ..settings().limits };
    let server = start_with(ServerSettings { limits, ..settings() }).await;
    let began = Instant::now();
    let mut stream = server.connect().await;
    let head = b"GET /hello HTTP/1.1\r\nHost: a\r\nX-And-So-On: and on and on and on and on\r\n";
    for byte in head {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let _ = read_all(&mut stream).await;
    // The limit is one second; the trickle would have gone on for four.
    assert!(began.elapsed() < Duration::from_millis(4_500), "{:?}", began.elapsed());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /hello HT").await.expect("sent");
    let began = Instant::now();
    assert_eq!(read_all(&mut stream).await, "");
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_silent_connection_is_closed_before_and_after_a_request() {
    let server = start().await;
    let (mut fresh, mut used) = (server.connect().await, server.connect().await);
    used.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    read_until(&mut used, "hello").await;
    let began = Instant::now();
    assert_eq!(read_all(&mut used).await, "");
    assert_eq!(read_all(&mut fresh).await, "");
    // The limit is two seconds.
    let took = began.elapsed();
    assert!((Duration::from_millis(1_500)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let server = start().await;
    for request in [
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    ] {
        let began = Instant::now();
        let answer = server.send(request).await;
        assert_eq!(status(&answer), 408, "{answer}");
        assert!(problem(&answer).to_string().contains("1 seconds"), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_slow_body_may_come_as_long_as_it_comes() {
    let server = start().await;
    let mut stream = server.connect().await;
    let head = "POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    // Three seconds in all, where an answer may take one and a pause one.
    for _ in 0..6 {
        sleep(Duration::from_millis(500)).await;
        stream.write_all(b"x").await.expect("sent");
    }
    assert!(read_all(&mut stream).await.ends_with("\r\n6"));
}

#[tokio::test]
async fn a_large_body_does_not_come_a_byte_at_a_time() {
    let server = start().await;
    let mut stream = server.connect().await;
    let began = Instant::now();
    let head = "POST /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 90000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (mut reading, mut writing) = stream.split();
    let drip = async {
        while writing.write_all(b"x").await.is_ok() && began.elapsed() < Duration::from_secs(10) {
            sleep(Duration::from_millis(300)).await;
        }
    };
    let mut answer = vec![0; 12];
    tokio::select! {
        read = reading.read_exact(&mut answer) => drop(read.expect("an answer")),
        () = drip => panic!("never given up"),
    }
    assert_eq!(answer, b"HTTP/1.1 408");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_has_to_begin_in_time() {
    let server = start().await;
    let began = Instant::now();
    let answer = server.ask("GET /slowly/10000", "", "").await;
    assert_eq!(status(&answer), 503);
    problem(&answer);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Some routes are not hurried, and answers that have begun are not either.
    assert!(server.ask("GET /unhurried", "", "").await.ends_with("at last"));
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let (began, mut buffer) = (Instant::now(), vec![0; 16 << 10]);
    while began.elapsed() < Duration::from_millis(2_500) {
        assert_ne!(stream.read(&mut buffer).await.expect("still open"), 0);
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let server = start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    sleep(Duration::from_millis(3_500)).await;
    // What the sockets held is still there to be read, and then it is over.
    let read = read_all(&mut stream).await;
    assert!(read.starts_with("HTTP/1.1 200"));
}
