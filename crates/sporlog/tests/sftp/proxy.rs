//! A line that takes its time: a TCP proxy that hands bytes on later, in each direction.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const AT_ONCE: usize = 64 << 10;

/// Listens on a port of its own until the test ends, and gives the port. Each byte arrives `delay` later at `port`, and
/// each answer `delay` later at the client.
pub fn slow_line(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                from.set_nodelay(true).expect("set");
                hand_on(from.try_clone().expect("cloned"), to.try_clone().expect("cloned"), delay);
            }
        }
    });
    own
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut bytes = vec![0; AT_ONCE];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if sender.send((Instant::now() + delay, bytes[..read].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
