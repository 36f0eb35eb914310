//! Many connections at once.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::harness::{read_until, settings, start_with, status};
use crate::server::process::raise_open_files;
use crate::server::{Limits, ServerSettings};

/// Of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kilobytes << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_little_and_leave_room_for_others() {
    // Both ends are in this process.
    let room = raise_open_files().unwrap_or(u64::MAX).saturating_sub(1_000) / 2;
    let count = usize::try_from(room).map_or(9_000, |room| room.min(9_000));
    let limits = Limits { idle_seconds: 60, ..settings().limits };
    let server = start_with(ServerSettings { limits, ..settings() }).await;
    let (before, began) = (resident(), Instant::now());
    let mut idle = Vec::with_capacity(count);
    for n in 0..count {
        let mut stream = timeout(Duration::from_secs(20), TcpStream::connect(server.address))
            .await
            .expect("in time")
            .expect("a connection");
        // Every tenth has begun a head.
        if n % 10 == 0 {
            stream.write_all(b"GET /hello HTTP/1.1\r\n").await.expect("sent");
        }
        idle.push(stream);
    }
    let began_asking = Instant::now();
    assert_eq!(status(&server.ask("GET /hello", "", "").await), 200);
    let took = began_asking.elapsed();
    let each = resident().saturating_sub(before) / count as u64;
    println!("{count} in {:?}; {each} bytes each, both ends; a request in {took:?}", began.elapsed());
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(each < 8 << 10, "{each} bytes each");
}

#[tokio::test]
async fn beyond_the_limit_connections_wait_for_a_place() {
    let limits = Limits { connections: 3, idle_seconds: 60, ..settings().limits };
    let server = start_with(ServerSettings { limits, ..settings() }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        read_until(&mut stream, "hello").await;
        held.push(stream);
    }
    let mut waiting = server.connect().await;
    waiting.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut byte = [0];
    let early = timeout(Duration::from_millis(500), waiting.peek(&mut byte)).await;
    assert!(early.is_err(), "it was let in beyond the limit");
    held.pop();
    assert!(read_until(&mut waiting, "hello").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn when_places_run_out_the_idle_go_first() {
    let limits = Limits { connections: 20, idle_seconds: 60, ..settings().limits };
    let server = start_with(ServerSettings { limits, ..settings() }).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        read_until(&mut stream, "hello").await;
        held.push(stream);
    }
    let began = Instant::now();
    let asked = timeout(Duration::from_secs(15), server.ask("GET /hello", "", ""));
    assert_eq!(status(&asked.await.expect("an idle one was closed")), 200);
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    sleep(Duration::ZERO).await;
}
