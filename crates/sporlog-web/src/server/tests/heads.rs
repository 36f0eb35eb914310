//! Requests that two readers could read two ways.

use tokio::io::AsyncWriteExt;

use super::harness::{read_until, start, status};

const GOOD: &str = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn heads_that_could_be_read_two_ways_are_refused() {
    let server = start().await;
    // Each hides a second request that a more lenient reader would see, or asks for trouble otherwise.
    let hidden = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for head in [
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 50\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 50\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\n\tContent-Length: 5\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET /hello HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /hel\0lo HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  /hello  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /hello HTTP/3.7\r\nHost: a\r\n\r\n",
        "GET /hello\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        for before in ["", GOOD] {
            let answer = server.send(format!("{before}{head}{hidden}")).await;
            let refused = answer.rfind("HTTP/1.1 ").and_then(|at| answer.get(at..)).unwrap_or_default();
            // A missing host leaves no doubt about the rest: only there the connection goes on.
            let lone = head.contains("Host: b") || head == "GET /hello HTTP/1.1\r\n\r\n";
            if lone {
                assert!(answer.contains("HTTP/1.1 400"), "{head:?}: {answer}");
            } else {
                assert_eq!(status(refused), 400, "{head:?}: {answer}");
                assert_eq!(
                    answer.matches("hello").count(),
                    before.matches("hello").count(),
                    "{head:?}: {answer}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_the_parser_lets_pass_hides_no_request() {
    let server = start().await;
    let next = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // With both, the encoding counts; and since others may have gone by the length, nothing after that is read.
    for head in [
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ] {
        let answer = server.send(format!("{head}{next}")).await;
        assert!(answer.ends_with("\r\n0") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), (200, 1), "{head:?}: {answer}");
    }
    // Line feeds alone, and a length that is there twice and the same, are taken as they can only be meant.
    for head in [
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "GET /hello HTTP/1.1\nHost: a\n\n",
        "GET /hello HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\n\n",
    ] {
        let answer = server.send(format!("{head}{next}")).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{head:?}: {answer}");
        assert!(answer.ends_with("hello"), "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn byte_by_byte_a_head_is_the_same() {
    let server = start().await;
    for (head, expected) in [
        (GOOD, 200),
        ("POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
        ("GET /hello HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n", 400),
        ("GET /hello HTTP/1.1\nHost: a\n\n", 200),
    ] {
        let mut stream = server.connect().await;
        stream.set_nodelay(true).expect("set");
        for byte in head.as_bytes() {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(status(&read_until(&mut stream, "\r\n\r\n").await), expected, "{head:?}");
    }
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_a_row() {
    let server = start().await;
    let chunked =
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n";
    let length = "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n";
    let last = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = server.send(format!("{GOOD}{chunked}{length}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 4, "{answer}");
    let bodies: Vec<_> = answer.split("\r\n\r\n").skip(1).filter_map(|part| part.chars().next()).collect();
    assert_eq!(bodies, ['h', '3', '4', 'h']);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start().await;
    let long = format!("GET /hello HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    assert_eq!(status(&server.send(long).await), 431);
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_eq!(status(&server.send(format!("GET /hello HTTP/1.1\r\nHost: a\r\n{many}\r\n")).await), 431);
    let uri = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000));
    assert!([414, 431].contains(&status(&server.send(uri).await)));
}
