//! Bodies that are too large, cut off, or not what they seem.

use std::io::{Seek, Write};
use std::process::Command;

use tokio::io::AsyncWriteExt;

use super::harness::{problem, read_all, read_until, start, status};

/// What the program of that name makes of it.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file.rewind().expect("rewound");
    let packed = Command::new("gzip").arg("-9").stdin(file).output().expect("gzip is there");
    assert!(packed.status.success());
    packed.stdout
}

const GZIP: &str = "Content-Encoding: gzip\r\n";

#[tokio::test]
async fn bodies_up_to_the_limit_are_read_and_no_more() {
    let server = start().await;
    let most = vec![b'x'; 64 << 10];
    let over = vec![b'x'; (64 << 10) + 1];
    assert!(server.ask("POST /length", "", &most).await.ends_with("\r\n65536"));
    let answer = server.ask("POST /length", "", &over).await;
    assert_eq!(status(&answer), 413);
    assert!(problem(&answer).to_string().contains("65536 bytes at most"), "{answer}");
    // Nothing is said of its length beforehand.
    let mut chunked = b"POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..70 {
        chunked.extend(b"400\r\n");
        chunked.extend([b'x'; 1024]);
        chunked.extend(b"\r\n");
    }
    assert_eq!(status(&server.send(&chunked).await), 413);
    // A route may allow more.
    assert!(server.ask("POST /large", "", &over).await.ends_with("\r\n65537"));
    assert_eq!(status(&server.ask("POST /large", "", vec![0; (1 << 20) + 1]).await), 413);
}

#[tokio::test]
async fn a_client_that_keeps_sending_still_gets_its_answer() {
    let server = start().await;
    let mut stream = server.connect().await;
    let head = "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    // More than the socket's buffers hold; writing may fail once the server has had enough.
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    let answer = read_all(&mut stream).await;
    // It is told not to use the connection again.
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_first_is_not_told_to_go_on_with_too_much() {
    let server = start().await;
    let ask = |length: u32| {
        format!(
            "POST /length HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut stream = server.connect().await;
    stream.write_all(ask(100_000).as_bytes()).await.expect("sent");
    assert!(read_until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 413"));
    let mut stream = server.connect().await;
    stream.write_all(ask(3).as_bytes()).await.expect("sent");
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.expect("sent");
    assert!(read_until(&mut stream, "\r\n\r\n3").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn gzip_is_unpacked_under_the_same_limit() {
    let server = start().await;
    assert!(server.ask("POST /length", GZIP, gzip(&[b'x'; 60_000])).await.ends_with("\r\n60000"));
    // Two members are one body.
    let two = [gzip(b"abc"), gzip(b"de")].concat();
    let answer = server.ask("POST /length", GZIP, two).await;
    assert!(answer.ends_with("\r\n5"), "{answer}");
    // And a route may take it as it is.
    let packed = gzip(&[b'x'; 60_000]);
    let answer = server.ask("POST /raw", GZIP, &packed).await;
    assert!(answer.ends_with(&format!("\r\n{}", packed.len())), "{answer}");
    // 100 MB in 100 kB, sent to where 1 MB is allowed.
    let bomb = gzip(&vec![0; 100 << 20]);
    assert!(bomb.len() < 200_000);
    let answer = server.ask("POST /large", GZIP, &bomb).await;
    assert_eq!(status(&answer), 413, "{answer}");
    problem(&answer);
    // Packed twice is not understood.
    assert_eq!(
        status(&server.ask("POST /length", "Content-Encoding: gzip, gzip\r\n", gzip(&bomb)).await),
        415
    );
}

#[tokio::test]
async fn gzip_that_is_none_is_the_clients_fault() {
    let server = start().await;
    let good = gzip(&[b'x'; 1000]);
    let cut = good.get(..good.len() - 9).expect("longer");
    let mut flipped = good.clone();
    flipped.iter_mut().rev().take(4).for_each(|byte| *byte ^= 0xff);
    let trailed = [&good[..], b"and more"].concat();
    let zstd = b"\x28\xb5\x2f\xfd\x04\x00\x19\x00\x00abc";
    for bad in [cut, &flipped, &trailed, b"not gzip", b"\x1f\x8b", zstd] {
        let answer = server.ask("POST /length", GZIP, bad).await;
        assert_eq!(status(&answer), 400, "{answer}");
        assert!(problem(&answer).to_string().contains("unpacked"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let server = start().await;
    for request in [
        "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        "POST /length HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("half closed");
        let answer = read_all(&mut stream).await;
        assert_eq!(status(&answer), 400, "{request:?}: {answer}");
        problem(&answer);
    }
}
