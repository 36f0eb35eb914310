//! Bytes on a connection, whatever they are.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends bytes, and reads what comes until the other end closes or resets the connection.
pub fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    // It may be closed before all is sent; what was answered until then counts.
    let _ = stream.write_all(bytes.as_ref());
    read(&mut stream)
}

/// What comes until the other end closes or resets the connection.
pub fn read(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let (mut all, mut part) = (Vec::new(), [0; 16 << 10]);
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "never closed: {}", String::from_utf8_lossy(&all));
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// A GET of just this path, byte for byte.
pub fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    send(address, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"))
}

/// The status in an answer; 0 where there is none.
pub fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// The head of a POST, up to the empty line.
pub fn post(path: &str, key: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nApiKey: {key}\r\n{headers}\r\n")
}
