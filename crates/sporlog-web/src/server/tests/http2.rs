//! HTTP/2, which the server does not speak: frames made by hand.

use tokio::io::AsyncWriteExt;

use super::harness::{read_all, start, status};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// A setting: the initial window of each stream is 0, so that nothing may be sent on it.
const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];
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

#[tokio::test]
async fn streams_without_a_window_take_no_places() {
    let server = start().await;
    let mut attack = [PREFACE, &frame(SETTINGS, 0, 0, NO_WINDOW)].concat();
    for n in 0..128 {
        attack.extend(frame(HEADERS, 0x05, 2 * n + 1, GET_HELLO));
    }
    let mut attackers = Vec::new();
    // Eight times 128 is as many as may be under way.
    for _ in 0..8 {
        let mut stream = server.connect().await;
        let _ = stream.write_all(&attack).await;
        attackers.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(status(&server.ask("GET /hello", "", "").await), 200);
    }
    for mut stream in attackers {
        assert!(!read_all(&mut stream).await.contains("hello"));
    }
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
