//! HTTP/2, in frames made by hand.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::harness::{PATIENCE, read_all, start, status};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// `GET /hello` at `a`, in HPACK: three fields of the static table, and two literals.
const GET_HELLO: &[u8] = b"\x82\x86\x04\x06/hello\x01\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length.get(1..).expect("four").to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The next frame: its kind, stream and payload.
async fn next(stream: &mut TcpStream) -> std::io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("in time")?;
    let [a, b, c, kind, _, rest @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok((kind, u32::from_be_bytes(rest), payload))
}

#[tokio::test]
async fn requests_are_answered_and_silence_ends_it() {
    let server = start().await;
    let mut stream = server.connect().await;
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    // The beginning is recognised however it is cut.
    let (first, second) = begin.split_at(10);
    stream.write_all(first).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(second).await.expect("sent");
    for id in [1, 3] {
        stream.write_all(&frame(HEADERS, 0x05, id, GET_HELLO)).await.expect("sent");
        loop {
            let (kind, of, payload) = next(&mut stream).await.expect("a frame");
            if kind == DATA && !payload.is_empty() {
                assert_eq!((of, payload.as_slice()), (id, &b"hello"[..]));
                break;
            }
        }
    }
    let began = std::time::Instant::now();
    while let Ok((kind, ..)) = next(&mut stream).await {
        assert_ne!(kind, RESET);
        if kind == GOAWAY {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn whoever_opens_streams_only_to_reset_them_is_sent_away() {
    let server = start().await;
    let mut stream = server.connect().await;
    let mut flood = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    for n in 0..2_000 {
        flood.extend(frame(HEADERS, 0x05, 2 * n + 1, GET_HELLO));
        flood.extend(frame(RESET, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood).await;
    let mut sent_away = false;
    while let Ok((kind, ..)) = next(&mut stream).await {
        sent_away |= kind == GOAWAY;
    }
    assert!(sent_away);
    assert_eq!(status(&server.ask("GET /hello", "", "").await), 200);
}

#[tokio::test]
async fn a_connection_that_only_begins_like_http2_is_looked_at_all_the_same() {
    let server = start().await;
    for request in [
        "PRI * HTTP/2.0\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI /hello HTTP/1.1\nHost: a\n\n",
        "PRI * HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_all(&mut stream).await;
        assert!(!answer.contains("200 OK"), "{request:?}: {answer}");
    }
}
