//! The end: what is under way is finished, and nothing else.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::harness::{read_all, read_until, settings, start_with, status};
use crate::server::{Limits, ServerError, ServerSettings};

async fn patient() -> super::harness::Running {
    let limits = Limits { idle_seconds: 60, answer_seconds: 60, stall_seconds: 60, ..settings().limits };
    start_with(ServerSettings { limits, ..settings() }).await
}

#[tokio::test]
async fn requests_under_way_are_finished_and_idle_connections_closed() {
    let mut server = patient().await;
    let mut fresh = server.connect().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    read_until(&mut idle, "hello").await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slowly/1500 HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut sending = server.connect().await;
    let head = b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc";
    sending.write_all(head).await.expect("sent");
    sleep(Duration::from_millis(200)).await;

    let (began, address) = (Instant::now(), server.address);
    server.begin_to_stop();
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(read_all(&mut fresh).await, "");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).await.is_err(), "nobody is taken in any more");
    sleep(Duration::from_millis(300)).await;
    sending.write_all(b"def").await.expect("still taken");
    assert!(read_all(&mut sending).await.ends_with("\r\n6"));
    let answer = read_all(&mut busy).await;
    assert!(status(&answer) == 200 && answer.ends_with("at last"), "{answer}");
    server.stopped().await.expect("all was finished");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn whoever_does_not_finish_in_time_is_cut_off() {
    let limits = Limits { shutdown_seconds: 1, answer_seconds: 60, ..settings().limits };
    let mut server = start_with(ServerSettings { limits, ..settings() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /slowly/60000 HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    sleep(Duration::from_millis(200)).await;
    server.begin_to_stop();
    let error = server.stopped().await.expect_err("one was left");
    assert!(matches!(error, ServerError::CutOff(1)), "{error}");
    assert_eq!(read_all(&mut stream).await, "");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let server = patient().await;
    let settings = ServerSettings { listen: server.address, ..settings() };
    let error = crate::server::Server::bind(&settings, 0).await.expect_err("taken");
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
}
