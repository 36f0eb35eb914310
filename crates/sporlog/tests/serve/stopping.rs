//! The end of a server: what was begun is finished, what was answered is there.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::raw::{get, post, read, status};
use super::records::{PERSONS, disclosure, login, revision};
use super::server::Site;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_finished() {
    let site = Site::new();
    let (writes, reads) = (site.key("writer", "write", &[]), site.key("reader", "read", &[]));
    let server = site.serve();
    assert_eq!(
        server.client(&writes).post("/api/logs/auditlog/entries", login(1).to_string()).await.status,
        200
    );
    // A record and a delivery that are half there, an idle connection, and somebody who waits.
    let begin = |path: &str, body: &str| {
        let head = post(path, &writes, &format!("Content-Length: {}\r\n", body.len()));
        let mut stream = TcpStream::connect(server.address).expect("a connection");
        stream.write_all(format!("{head}{}", &body[..body.len() / 2]).as_bytes()).expect("sent");
        stream
    };
    let (one, day) = (disclosure(PERSONS[0], 1).to_string(), revision(&["64942212"; 100]));
    let mut posting = begin("/sporingslogg/api/post", &one);
    let mut delivering = begin("/api/deliveries", &day);
    let mut idle = TcpStream::connect(server.address).expect("a connection");
    let waiting = tokio::spawn({
        let client = server.client(&reads);
        async move { client.json("/api/auditlog/head?wait=30&after=1").await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (began, address) = (Instant::now(), server.address);
    server.terminate();
    assert_eq!(waiting.await.expect("answered"), json!({"head": 1}));
    assert_eq!(read(&mut idle), "");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(TcpStream::connect(address).is_err(), "nobody is taken in any more");
    posting.write_all(&one.as_bytes()[one.len() / 2..]).expect("still taken");
    let answer = read(&mut posting);
    assert!(status(&answer) == 200 && answer.ends_with("\r\n1"), "{answer}");
    delivering.write_all(&day.as_bytes()[day.len() / 2..]).expect("still taken");
    let answer = read(&mut delivering);
    assert!(status(&answer) == 201 && answer.contains(r#""accepted":100"#), "{answer}");
    let (status, said) = server.stopped();
    assert!(status.success(), "{status}: {said}");
    for (log, count) in [("disclosure", 1), ("revision", 100), ("auditlog", 1)] {
        assert_eq!(site.entries(log).len(), count);
        // The newest checkpoint covers all of it.
        site.print(&["prove", log, &count.to_string()]);
        site.verify(log);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_finishes_is_not_waited_for() {
    let site = Site::configured("[server.limits]\nshutdown_seconds = 1\n");
    let writes = site.key("writer", "write", &[]);
    let server = site.serve();
    assert_eq!(
        server
            .client(&writes)
            .post("/sporingslogg/api/post", disclosure(PERSONS[0], 1).to_string())
            .await
            .status,
        200
    );
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    let head = post("/sporingslogg/api/post", &writes, "Content-Length: 1000\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    server.terminate();
    let (_, said) = server.stopped();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}: {said}", began.elapsed());
    assert_eq!(site.entries("disclosure").len(), 1);
    site.verify("disclosure");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_find_it_live_and_ready_until_it_stops() {
    let site = Site::new();
    let server = site.serve();
    let anyone = server.anyone();
    assert_eq!(anyone.json("/health/live").await["status"], "live");
    assert_eq!(anyone.json("/health/ready").await["status"], "ready");
    // A probe that is on its way when stopping begins learns of it.
    let mut probe = TcpStream::connect(server.address).expect("a connection");
    probe.write_all(b"GET /health/ready HTTP/1.1\r\nHost: a\r\n").expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.terminate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    probe.write_all(b"\r\n").expect("sent");
    let answer = read(&mut probe);
    assert!(status(&answer) == 503 && answer.contains("stopping"), "{answer}");
    let (status, said) = server.stopped();
    assert!(status.success(), "{status}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let site = Site::new();
    let server = site.serve();
    let ran = site.run(&["serve", "--listen", &server.address.to_string()]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success() && said.contains(&server.address.port().to_string()), "{said}");
    assert_eq!(status(&get(server.address, "/health/live", "")), 200);
}
