//! Clients that do not keep to the rules, by mistake or on purpose.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::raw::{get, post, read, send, status};
use super::records::{PERSONS, disclosure, lines, login, revision};
use super::server::{Server, Site};

const POST: &str = "/sporingslogg/api/post";

fn packed(bytes: u64) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut std::io::repeat(b' ').take(bytes), &mut packed).expect("packed");
    packed.finish().expect("packed")
}

/// Of the server's process, in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_never_taken() {
    let site = Site::new();
    let key = site.key("writer", "write", &[]);
    let server = site.serve();
    let one = disclosure(PERSONS[0], 1).to_string();
    let day = revision(&["64942212"; 200]);
    let many = lines((0..50).map(login));
    for (path, kind, body) in [
        (POST, "application/json", &one),
        ("/api/logs/auditlog/entries", "application/x-ndjson", &many),
        ("/api/deliveries?file=day.csv", "text/csv", &day),
    ] {
        let kind = format!("Content-Type: {kind}\r\n");
        // What has come until then would be in order by itself.
        let whole = body.rfind('\n').map_or(body.len(), |end| end + 1);
        let chunk = format!("{whole:x}\r\n{}\r\n", &body[..whole]);
        for (head, sent) in [
            (format!("{kind}Content-Length: {}\r\n", body.len() + 1), body.clone()),
            (format!("{kind}Content-Length: {}\r\n", body.len()), body[..body.len() / 2].to_owned()),
            (format!("{kind}Transfer-Encoding: chunked\r\n"), chunk.clone()),
            (format!("{kind}Transfer-Encoding: chunked\r\n"), format!("{chunk}zz\r\n")),
            (format!("{kind}Transfer-Encoding: chunked\r\n"), format!("{chunk}5\r\nab")),
        ] {
            let mut stream = TcpStream::connect(server.address).expect("a connection");
            stream.write_all(format!("{}{sent}", post(path, &key, &head)).as_bytes()).expect("sent");
            stream.shutdown(std::net::Shutdown::Write).expect("half closed");
            let answer = read(&mut stream);
            assert!([0, 400].contains(&status(&answer)), "{path}: {answer}");
        }
    }
    server.stop();
    for log in ["disclosure", "auditlog", "revision"] {
        assert_eq!(site.print(&["head", log]), "0", "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_do_not_go_off() {
    let site =
        Site::configured("[api]\nmax_delivery_bytes = 30_000_000\n[server.limits]\nbody_bytes = 8_000_000\n");
    let key = site.key("writer", "write", &[]);
    let server = site.serve();
    let client = server.client(&key);
    assert_eq!(client.post(POST, disclosure(PERSONS[0], 1).to_string()).await.status, 200);
    let before = resident(&server);
    let bomb = packed(128 << 20);
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    for path in [POST, "/api/logs/auditlog/entries"] {
        let answer = client.clone().with("Content-Encoding", "gzip").post(path, bomb.clone()).await;
        answer.is_problem(413);
    }
    // A delivery is unpacked as it is read; one that says nothing is refused, and one that never ends.
    let answer = client.post("/api/deliveries?file=bomb.csv.gz", bomb.clone()).await;
    assert!([413, 422].contains(&answer.status), "{} {}", answer.status, answer.text());
    let twice = client.clone().with("Content-Encoding", "gzip, gzip").post(POST, bomb).await;
    assert_eq!(twice.status / 100, 4, "{}", twice.text());
    // Too much as it is, announced or not.
    let large = vec![b' '; 9_000_000];
    client.post(POST, large.clone()).await.is_problem(413);
    let announced = post(POST, &key, "Content-Length: 900000000000\r\n");
    assert_eq!(status(&send(server.address, announced)), 413);
    let announced = post("/api/deliveries", &key, "Content-Length: 900000000000\r\n");
    assert_eq!(status(&send(server.address, announced)), 413);
    // Deep, long and wide.
    let path = "/api/logs/auditlog/entries";
    for body in [
        "[".repeat(1_000_000),
        r#"{"a":"#.repeat(500_000),
        format!("{{\"logAction\":{}", "[".repeat(100_000)),
        format!("[{}", "1,".repeat(200_000)),
        "\u{feff}".repeat(1_000),
    ] {
        let answer = client.post(path, body).await;
        assert!([400, 413, 422].contains(&answer.status), "{} {:.300}", answer.status, answer.text());
    }
    let keys: String = (0..100_000).map(|n| format!(",\"k{n}\":{n}")).collect();
    let answer = client.post(path, format!("{{\"logAction\":\"X\"{keys}}}")).await;
    assert!(answer.status < 500, "{} {:.300}", answer.status, answer.text());
    let doubled = client.post(path, r#"{"logAction":"A","logAction":"B"}"#).await;
    assert_eq!(doubled.status, 422, "{}", doubled.text());
    for bytes in [&b"\xff\xfe{"[..], b"{\"logAction\":\"\xc3\x28\"}", b"{\"logAction\":\"\xed\xa0\x80\"}"] {
        let answer = client.post(path, bytes.to_vec()).await;
        assert!([400, 422].contains(&answer.status), "{} {}", answer.status, answer.text());
    }
    let grown = resident(&server).saturating_sub(before);
    println!("{} MB more after all of it", grown >> 20);
    assert!(grown < 400 << 20, "{} MB more", grown >> 20);
    assert_eq!(client.post(POST, disclosure(PERSONS[0], 2).to_string()).await.text(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_is_let_go_of() {
    let site = Site::configured("[server.limits]\nstall_seconds = 1\nidle_seconds = 2\nanswer_seconds = 5\n");
    let key = site.key("writer", "write", &[]);
    let server = site.serve();
    let one = disclosure(PERSONS[0], 1).to_string();
    let slow = |bytes: Vec<u8>, pause: Duration| {
        let address = server.address;
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.set_nodelay(true).expect("set");
            for byte in bytes {
                if stream.write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(pause);
                // An answer is no reason to go on sending.
                stream.set_nonblocking(true).expect("set");
                let answered = stream.peek(&mut [0]);
                stream.set_nonblocking(false).expect("set");
                if answered.is_ok() {
                    break;
                }
            }
            (read(&mut stream), began.elapsed())
        })
    };
    let head = post(POST, &key, &format!("Content-Length: {}\r\n", one.len()));
    // A head that never ends; silence; a body that stops.
    let endless = slow(format!("{head}x").repeat(50).into_bytes(), Duration::from_millis(100));
    let silent = slow(Vec::new(), Duration::ZERO);
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    stream.write_all(format!("{head}{}", &one[..20]).as_bytes()).expect("sent");
    let stopped = tokio::task::spawn_blocking(move || read(&mut stream));
    // Meanwhile, others are served.
    assert_eq!(server.client(&key).post(POST, one.clone()).await.text(), "1");
    for (what, slow) in [("head", endless), ("silent", silent)] {
        let (answer, took) = slow.await.expect("no panic");
        assert!([0, 408].contains(&status(&answer)), "{what}: {answer}");
        assert!(took < Duration::from_secs(8), "{what}: {took:?}");
    }
    assert_eq!(status(&stopped.await.expect("no panic")), 408);
    // Slow, but never too slow, is slow and no more.
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    stream.write_all(head.as_bytes()).expect("sent");
    for part in one.as_bytes().chunks(one.len() / 4) {
        std::thread::sleep(Duration::from_millis(500));
        stream.write_all(part).expect("sent");
    }
    let answer = read(&mut stream);
    assert!(answer.ends_with("\r\n2"), "{answer}");
}

/// Connections that each send these bytes and read nothing, more than the server has places for.
fn hold(server: &Server, bytes: &[u8]) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = TcpStream::connect(server.address).expect("a connection");
        stream.set_write_timeout(Some(Duration::from_secs(1))).expect("set");
        // What the server does not take after that is left.
        let _ = stream.write_all(bytes);
        stream
    };
    (0..40).map(connect).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_key_takes_the_server_from_others() {
    let site = Site::configured(
        "[server.limits]\nconnections = 30\nrequests = 10\nidle_seconds = 3\nstall_seconds = 2\n",
    );
    site.import("auditlog", lines([login(1)]).as_bytes());
    let key = site.key("reader", "read", &[]);
    let server = site.serve();
    let large = "GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(get(server.address, "/api/docs/swagger-ui-bundle.js", "").len() > 1 << 20);
    // HTTP/2 with a window of 0: 128 times HEADERS for GET /, each on a stream of its own.
    let mut streams = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0".to_vec();
    for n in 0..128_u8 {
        streams.extend([0, 0, 6, 1, 5, 0, 0, n >> 7, (n << 1) | 1]);
        streams.extend(b"\x82\x86\x84\x01\x01a");
    }
    for (what, bytes) in [
        ("HTTP/2", streams),
        ("answers that nobody reads", large.repeat(30).into_bytes()),
        ("a head that does not end", b"GET /api/auditlog/head HTTP/1.1\r\nHost: a\r\nX: ".to_vec()),
        (
            "a body that does not come",
            post("/api/deliveries", "none", "Content-Length: 1000\r\n").into_bytes(),
        ),
        ("nothing", Vec::new()),
    ] {
        let held = hold(&server, &bytes);
        let began = Instant::now();
        for _ in 0..20 {
            let mut answer = server.client(&key).get("/api/auditlog/head").await;
            // While all of them arrive, somebody may have to try again; for much less than a stall lasts.
            for _ in 0..10 {
                if answer.status != 503 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer = server.client(&key).get("/api/auditlog/head").await;
            }
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        }
        println!("{what}: 20 others in {:?}", began.elapsed());
        // And all of them are let go of.
        for mut stream in held {
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
            let end = std::io::copy(&mut stream, &mut std::io::sink()).map_err(|error| error.kind());
            assert!(!matches!(end, Err(ErrorKind::WouldBlock)), "{what}: never closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_room_for_others() {
    let site = Site::configured("[server.limits]\nidle_seconds = 120\n");
    site.import("auditlog", lines([login(1)]).as_bytes());
    let key = site.key("reader", "read", &[]);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the maximum");
    let room = limit.maximum.unwrap_or(u64::MAX).saturating_sub(1_500);
    let count = usize::try_from(room).map_or(10_000, |room| room.min(10_000));
    let server = site.serve();
    let client = server.client(&key);
    assert_eq!(client.get("/api/auditlog/read").await.status, 200);
    let before = resident(&server);
    let (mut idle, mut begun) = (Vec::with_capacity(count), Vec::new());
    for n in 0..count {
        let mut stream = TcpStream::connect(server.address).unwrap_or_else(|e| panic!("{n}: {e}"));
        if n % 10 == 0 {
            stream.write_all(b"GET /api/auditlog/head HTTP/1.1\r\n").expect("sent");
            begun.push(stream);
        } else {
            idle.push(stream);
        }
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.client(&key).get("/api/auditlog/read").await.status, 200);
    }
    let (took, each) = (began.elapsed(), resident(&server).saturating_sub(before) / count as u64);
    println!("{count} idle connections, {each} bytes each; 20 requests in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(each < 16 << 10, "{each} bytes each");
    // Two of them wake up, and are served.
    let rest = format!("Host: a\r\nConnection: close\r\nApiKey: {key}\r\n\r\n");
    for (mut stream, head) in
        [(begun.swap_remove(0), ""), (idle.swap_remove(0), "GET /api/auditlog/head HTTP/1.1\r\n")]
    {
        stream.write_all(format!("{head}{rest}").as_bytes()).expect("sent");
        assert!(read(&mut stream).ends_with(r#"{"head":1}"#));
    }
    // Stopping waits for none that is silent.
    drop(begun);
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_smuggled_in() {
    let site = Site::new();
    let key = site.key("writer", "write", &[]);
    let server = site.serve();
    let one = disclosure(PERSONS[0], 1).to_string();
    let hidden = format!(
        "POST {POST} HTTP/1.1\r\nHost: a\r\nApiKey: {key}\r\nContent-Length: {}\r\n\r\n{one}",
        one.len()
    );
    let chunks = format!("0\r\n\r\n{hidden}");
    let begun = format!("POST {POST} HTTP/1.1\r\nHost: a\r\n");
    for request in [
        format!("{begun}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}", chunks.len()),
        format!("{begun}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunks}"),
        format!("{begun}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{chunks}"),
        format!("{begun}Transfer-Encoding: xchunked\r\n\r\n{chunks}"),
        format!("{begun}Transfer-Encoding : chunked\r\n\r\n{chunks}"),
        format!("{begun}Transfer-Encoding:\x0bchunked\r\n\r\n{chunks}"),
        format!("{begun}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("{begun}Content-Length: 0, 0\r\n\r\n{hidden}"),
        format!("{begun}Content-Length: +0\r\n\r\n{hidden}"),
        format!("{begun}X: y\r\n Content-Length: 0\r\n\r\n{hidden}"),
        format!("{begun}X\0: y\r\nContent-Length: 0\r\n\r\n{hidden}"),
        format!("{begun}Transfer-Encoding: chunked\r\n\r\n0;x\n\r\n\r\n{hidden}"),
        format!("{begun}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{hidden}"),
        format!("{begun}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{hidden}"),
    ] {
        let answer = send(server.address, &request);
        assert!([0, 400, 401].contains(&status(&answer)), "{request:?}: {answer}");
        assert!(!answer.contains("HTTP/1.1 200"), "{request:?}: {answer}");
    }
    server.stop();
    assert_eq!(site.print(&["head", "disclosure"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_lead_nowhere_but_to_tiles() {
    let site = Site::new();
    site.import("auditlog", lines((0..300).map(login)).as_bytes());
    let key = site.key("reader", "read", &[]);
    let server = site.serve();
    let found = get(server.address, "/tlog/auditlog/tile/0/000", "");
    assert!(status(&found) == 200 && found.contains("immutable"), "{found}");
    for good in [
        "/tlog/auditlog/checkpoint",
        "/tlog/auditlog/tile/0/001.p/44",
        "/tlog/auditlog/tile/entries/000",
        "/tlog/auditlog/tile/1/000.p/1",
    ] {
        assert_eq!(status(&get(server.address, good, "")), 200, "{good}");
    }
    for wrong in [
        "/tlog/auditlog/tile/../checkpoint",
        "/tlog/auditlog/tile/../../table/_delta_log/00000000000000000000.json",
        "/tlog/auditlog/tile/%2e%2e/%2e%2e/%2e%2e/keys/auditlog.key",
        "/tlog/auditlog/tile/..%2f..%2f..%2f..%2fkeys%2fauditlog.key",
        "/tlog/auditlog/tile/0/..%2f000",
        "/tlog/auditlog/tile/0/%2e%2e/0/000",
        "/tlog/auditlog/tile//0/000",
        "/tlog/auditlog/tile/0//000",
        "/tlog//auditlog/tile/0/000",
        "//tlog/auditlog/tile/0/000",
        "/tlog/auditlog/tile/0/000%00",
        "/tlog/auditlog/tile/0/000%00.p/1",
        "/tlog/auditlog/tile/0/000/",
        "/tlog/auditlog/tile/0/000%0a",
        "/tlog/auditlog/tile/0\\000",
        "/tlog/auditlog/tile/0%5c000",
        "/tlog/auditlog/tile/%30/000x",
        "/tlog/auditlog/tile/0/%ff",
        "/tlog/auditlog/tile/0/\u{ff10}00",
        "/tlog/auditlog/tile/0/002",
        "/tlog/auditlog/tile/0/999",
        "/tlog/auditlog/tile/0/001",
        "/tlog/auditlog/tile/0/001.p/45",
        "/tlog/auditlog/tile/0/001.p/255",
        "/tlog/auditlog/tile/0/000.p/0",
        "/tlog/auditlog/tile/0/x018/x446/x744/x073/x709/551",
        "/tlog/auditlog/tile/63/000",
        "/tlog/auditlog/tile/-1/000",
        "/tlog/..%2fauditlog/checkpoint",
        "/tlog/%2e%2e/auditlog/checkpoint",
        "/tlog/auditlog%2f..%2fauditlog/checkpoint",
        "/tlog/auditlog%00/checkpoint",
        "/tlog/auditlog/../../keys/auditlog.key",
        "/tlog/AUDITLOG/checkpoint",
        "/tlog/./checkpoint",
        "/tlog/nowhere/checkpoint",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/api/docs/../../../../../etc/passwd",
        "/api/docs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/health/../api/logs",
        "/api/logs/auditlog/entries/..%2fread",
    ] {
        let answer = get(server.address, wrong, &format!("ApiKey: {key}\r\n"));
        assert!([400, 404].contains(&status(&answer)), "{wrong}: {answer}");
        assert!(!answer.contains("root:") && !answer.contains("PRIVATE+KEY"), "{wrong}: {answer}");
    }
    for (method, path) in
        [("POST", "/tlog/auditlog/checkpoint"), ("DELETE", "/api/logs/auditlog/entries/1"), ("PUT", POST)]
    {
        let answer =
            send(server.address, format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        assert!(
            status(&answer) == 405 && answer.to_lowercase().contains("\r\nallow: "),
            "{method} {path}: {answer}"
        );
    }
    // Proofs are made of tiles: they still are.
    let page = server.client(&key).json("/api/auditlog/head").await;
    assert_eq!(page, json!({"head": 300}));
}
