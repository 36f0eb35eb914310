//! Many connections and requests that do not end: of nobody's, and of one client's. Others are served meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::client::Client;
use super::issuer::now;
use super::raw::{self, post, status};
use super::records::{PERSONS, disclosure, lines, login, revision};
use super::server::{PATIENCE, Server, Site};

const POST: &str = "/sporingslogg/api/post";

/// How many connections of attackers this machine lets the test open, of those that are wanted.
fn attackers(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the maximum");
    let room = limit.maximum.map_or(usize::MAX, |files| usize::try_from(files / 4).unwrap_or(usize::MAX));
    if room < wanted {
        eprintln!("only {room} connections instead of {wanted}: this process may have few files open");
    }
    room.min(wanted)
}

fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("set");
    // What the server does not take is left.
    let _ = stream.write_all(bytes);
    stream
}

/// That a connection ends within the time; what came is thrown away.
fn ends(mut stream: TcpStream, until: Instant, what: &str) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    let mut part = vec![0; 64 << 10];
    loop {
        match stream.read(&mut part) {
            Ok(1..) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
        assert!(Instant::now() < until, "{what}: never disconnected");
    }
}

/// Somebody with a key, at another address than the attackers.
fn another(server: &Server, key: &str) -> Client {
    Client::from_address(server.url(), "127.0.0.2".parse().ok()).with("ApiKey", key)
}

/// That a request is answered, each time, on a busy machine, too.
async fn is_served(client: &Client, times: usize) {
    for _ in 0..times {
        let began = Instant::now();
        assert_eq!(client.get("/api/auditlog/head").await.status, 200);
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_without_a_key_are_disconnected_and_others_are_served() {
    let site = Site::configured("[server.limits]\nidle_seconds = 5\nstall_seconds = 2\n");
    site.import("auditlog", lines([login(1)]).as_bytes());
    let key = site.key("reader", "read", &[]);
    let server = site.serve();
    let large = "GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4);
    let body = post("/api/deliveries", "none", "Content-Length: 1000\r\n");
    let phases: [(&str, &[u8]); 5] = [
        ("silence", b""),
        ("a head that does not end", b"GET /api/auditlog/head HTTP/1.1\r\nHost: a\r\nX: "),
        ("a body that does not come", body.as_bytes()),
        ("answers that nobody reads", large.as_bytes()),
        // The beginning of a TLS handshake, here to a server that speaks plain HTTP.
        ("a handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ];
    let address = server.address;
    let count = attackers(2_000) / phases.len();
    let held: Vec<(&str, TcpStream)> =
        (0..count).flat_map(|_| phases).map(|(what, bytes)| (what, connect(address, bytes))).collect();
    is_served(&another(&server, &key), 40).await;
    let until = Instant::now() + 2 * PATIENCE;
    tokio::task::spawn_blocking(move || {
        held.into_iter().for_each(|(what, stream)| ends(stream, until, what))
    })
    .await
    .expect("all are disconnected");
    is_served(&server.client(&key), 5).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_in_a_tls_handshake_are_disconnected_and_others_are_served() {
    let site = Site::configured(
        "[server.limits]\nidle_seconds = 5\nstall_seconds = 2\n[server.tls]\ncertificate = 'tls.pem'\nkey = 'tls.key'\n",
    );
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).and_then(|one| one.self_signed(&key));
    std::fs::write(site.path("tls.pem"), certificate.expect("signed").pem()).expect("written");
    std::fs::write(site.path("tls.key"), key.serialize_pem()).expect("written");
    site.import("auditlog", lines([login(1)]).as_bytes());
    let key = site.key("reader", "read", &[]);
    let server = site.serve();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let held: Vec<_> = (0..attackers(2_000))
        .map(|n| connect(server.address, if n % 4 == 0 { b"" } else { hello }))
        .collect();
    is_served(&another(&server, &key), 10).await;
    let until = Instant::now() + 2 * PATIENCE;
    tokio::task::spawn_blocking(move || held.into_iter().for_each(|stream| ends(stream, until, "TLS")))
        .await
        .expect("all are disconnected");
    server.stop();
}

/// The limits are small, so that some tens of requests do what a thousand do by default.
const FEW: &str = "[server.limits]\nrequests = 16\nstall_seconds = 2\n";

fn answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set");
    let answered = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).expect("set");
    answered
}

/// Requests that are sent one after the other and not waited for: those that are held, all others being told to come
/// again. `most` can be held; on a busy machine some of them find the place of the one before still taken.
fn hold(server: &Server, requests: &[String], most: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for request in requests {
        held.push(connect(server.address, request.as_bytes()));
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    let (refused, held): (Vec<_>, Vec<_>) = held.into_iter().partition(answered);
    for mut stream in &refused {
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 503");
    }
    assert!((most / 2..=most).contains(&held.len()), "{} are held, {} refused", held.len(), refused.len());
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_leave_the_places_of_others_and_of_other_requests_alone() {
    let site = Site::configured(FEW);
    site.import("auditlog", lines([login(1)]).as_bytes());
    let (key, other) = (site.key("reader", "read", &[]), site.key("other", "read", &[]));
    let server = site.serve();
    let poll = format!("GET /api/auditlog/head?wait=20 HTTP/1.1\r\nHost: a\r\nApiKey: {key}\r\n\r\n");
    // A quarter of 64 is for one client.
    let _held = hold(&server, &vec![poll; 40], 16);
    is_served(&server.client(&key), 20).await;
    is_served(&server.client(&other), 20).await;
    let another = server.client(&other).get("/api/auditlog/head?wait=1").await;
    assert_eq!((another.status, another.json()), (200, json!({"head": 1})));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_deliveries_leave_places_for_others_and_are_given_up() {
    let site = Site::configured(FEW);
    site.import("auditlog", lines([login(1)]).as_bytes());
    let (key, other) = (site.key("slow", "write", &[]), site.key("other", "write", &[]));
    let server = site.serve();
    let begun = post("/api/deliveries?file=a.csv", &key, "Content-Length: 100000\r\n");
    let mut held = hold(&server, &vec![begun; 10], 4);
    let began = Instant::now();
    let dripping = tokio::task::spawn_blocking(move || {
        // A byte each half second is no pause of two seconds, and yet no delivery.
        while began.elapsed() < Duration::from_secs(20) {
            held.retain_mut(|stream| stream.write_all(b"\"").is_ok());
            std::thread::sleep(Duration::from_millis(500));
            if held.iter().all(answered) {
                break;
            }
        }
        held.into_iter().map(|mut stream| raw::read(&mut stream)).collect::<Vec<_>>()
    });
    let client = server.client(&other);
    assert_eq!(client.post("/api/deliveries?file=b.csv", revision(&["64942212"])).await.status, 201);
    assert_eq!(server.client(&key).post(POST, disclosure(PERSONS[0], 1).to_string()).await.status, 200);
    for answer in dripping.await.expect("no panic") {
        assert_eq!(status(&answer), 408, "{answer}");
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(
        server.client(&key).post("/api/deliveries?file=a.csv", revision(&["29189846"])).await.status,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_that_does_not_answer_leave_the_places_of_others() {
    // It takes connections and says nothing.
    let issuer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let name = format!("http://{}", issuer.local_addr().expect("an address"));
    let site = Site::configured(&format!(
        "{FEW}[[access.issuer]]\nissuer = '{name}'\naudience = ['sporlog']\nperson = {{ claim = ['pid'] }}\n"
    ));
    site.import("auditlog", lines([login(1)]).as_bytes());
    let key = site.key("reader", "read", &[]);
    let server = site.serve();
    // Made up: signed by nobody, each different from the others.
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let token = |n: i64| {
        let claims = json!({"iss": name, "aud": "sporlog", "exp": now(600 + n), "pid": PERSONS[0]});
        format!("{}.{}.c2ln", part(json!({"alg": "ES256", "kid": "x"})), part(claims))
    };
    let requests: Vec<_> = (0..40)
        .map(|n| format!("GET /api/les HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", token(n)))
        .collect();
    let _held = hold(&server, &requests, 16);
    is_served(&another(&server, &key), 20).await;
}

/// What clients may have open over SFTP is left to them, and what they may is a quarter of all.
#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_files_for_sftp() {
    // 200 connections have two descriptors each.
    let sftp = "[sftp]\nlisten = '127.0.0.1:0'\n";
    for (sftp, left) in [("", 2_000 - 256), (sftp, 2_000 - 256 - 2 * 200 - 500)] {
        let said = Site::configured(sftp).serve_with_files(2_000).stop();
        assert!(said.contains(&format!("{left} connections at once instead of 20000")), "{said}");
    }
}
