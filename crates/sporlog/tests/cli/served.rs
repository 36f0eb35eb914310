//! `verify --url`: a log checked by what is served of it, here by a file server that has its moods.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::place::{Place, csv};

/// What the server answers instead of a file, if anything.
type Mood = Box<dyn FnMut(&str) -> Option<&'static str> + Send>;

/// Serves the files of `folder`, from a free port, until the test program ends.
fn serve(folder: PathBuf, mood: Mood) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mood = Arc::new(Mutex::new(mood));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (folder, mood) = (folder.clone(), mood.clone());
            std::thread::spawn(move || answer(stream, folder, &mood));
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: PathBuf, mood: &Mutex<Mood>) {
    let lines = BufReader::new(stream.try_clone().expect("a connection")).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(name) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let name = name.trim_start_matches('/');
    let instead = (mood.lock().expect("no panic"))(name);
    let file = std::fs::read(folder.join(name));
    let (status, body) = match (instead, file) {
        (Some(status), _) => (status, Vec::new()),
        (None, Ok(body)) => ("200 OK", body),
        (None, Err(_)) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
}

/// A log of 70,000 records, so that there are tiles of three levels, its key in a file, and an earlier checkpoint.
fn logged() -> Place {
    let place = Place::new();
    place.file("a.csv", csv(0..300));
    place.file("b.csv", csv(300..70_000));
    place.run("import revision a.csv").ok();
    std::fs::copy(tlog(&place).join("checkpoint"), place.path("earlier")).expect("a checkpoint");
    place.run("import revision b.csv").ok();
    place.file("revision.vkey", place.run("key show revision --vkey").ok().out);
    place
}

fn tlog(place: &Place) -> PathBuf {
    place.path("sporlog-data/logs/revision/tlog")
}

#[test]
fn a_served_log_is_checked_from_outside() {
    let place = logged();
    let url = format!("http://{}", serve(tlog(&place), Box::new(|_| None)));
    let elsewhere = Place::new();
    for name in ["revision.vkey", "earlier"] {
        std::fs::copy(place.path(name), elsewhere.path(name)).expect("copied");
    }
    let verify = |more: &str| elsewhere.run(&format!("verify --url {url} {more}"));
    verify("--key revision.vkey").ok().says("verified; 70000 records; checked with the given key");
    verify("--key revision.vkey --since earlier").ok().says("which continue the checkpoint of 300");
    let json = verify("--key revision.vkey --since earlier --json").ok().json();
    assert_eq!((&json["ok"], &json["size"], &json["then"]), (&true.into(), &70_000.into(), &300.into()));
    assert_eq!(elsewhere.files("").len(), 2, "nothing is made by verifying");

    // Another log's key, and its checkpoint.
    elsewhere.file("a.csv", csv(0..3));
    elsewhere.run("import revision a.csv").ok();
    let others = elsewhere.run("key show revision --vkey").ok().out;
    verify(&format!("--key {}", others.trim())).code(1).says("checkpoint: the signature does not hold");
    let checkpoint = "sporlog-data/logs/revision/tlog/checkpoint";
    verify(&format!("--key revision.vkey --since {checkpoint}")).code(1).says("the earlier checkpoint: ");
    verify("--key nonsense").code(2).complains("neither a file nor a public key");

    // Every file that is served counts.
    for name in [
        "tile/entries/000",
        "tile/entries/273.p/112",
        "tile/0/100",
        "tile/0/273.p/112",
        "tile/1/000",
        "tile/2/000.p/1",
    ] {
        let whole = std::fs::read(tlog(&place).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut changed = whole.clone();
        changed[20] ^= 1;
        std::fs::write(tlog(&place).join(name), changed).expect("changed");
        verify("--key revision.vkey").code(1).says("NOT verified");
        std::fs::remove_file(tlog(&place).join(name)).expect("removed");
        verify("--key revision.vkey").code(1).says(name);
        std::fs::write(tlog(&place).join(name), whole).expect("put back");
    }
    // An older copy, signed all the same.
    std::fs::copy(tlog(&place).join("checkpoint"), elsewhere.path("newest")).expect("copied");
    std::fs::copy(place.path("earlier"), tlog(&place).join("checkpoint")).expect("put back");
    verify("--key revision.vkey").ok();
    verify("--key revision.vkey --since newest")
        .code(1)
        .says("the log has shrunk: it had 70000 records and has 300");
}

#[test]
fn a_server_in_a_bad_mood_is_asked_again_and_is_no_forger() {
    let place = logged();
    let mut asked = 0;
    let now_and_then = move |_: &str| {
        asked += 1;
        (asked % 50 == 1).then_some("503 Service Unavailable")
    };
    let url = format!("http://{}/", serve(tlog(&place), Box::new(now_and_then)));
    place.run(&format!("verify --url {url} --key revision.vkey")).ok().says("verified; 70000 records");
    let never = |name: &str| (name == "tile/1/000").then_some("500 Internal Server Error");
    let url = format!("http://{}", serve(tlog(&place), Box::new(never)));
    let ran = place.run(&format!("verify --url {url} --key revision.vkey")).code(2);
    ran.complains("tile/1/000").complains("500 Internal Server Error (5 tries)");
    let url = format!("http://{}", serve(tlog(&place), Box::new(|_| Some("401 Unauthorized"))));
    place.run(&format!("verify --url {url} --key revision.vkey")).code(2).complains("without a key");
    let url = format!("http://{}", serve(place.path("nowhere"), Box::new(|_| None)));
    place.run(&format!("verify --url {url} --key revision.vkey")).code(1).says("checkpoint: there is none");
    for wrong in ["ftp://example.org/tlog/x", "revision"] {
        place.run(&format!("verify --url {wrong} --key revision.vkey")).code(2).complains("--url");
    }
}
