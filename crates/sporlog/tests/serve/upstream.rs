//! An OS2faktor Login as its clients meet it, with all that may be wrong with one.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

pub const KEY: &str = "the-upstreams-key";

/// What one answer is, instead of the right one.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, these further header lines, this body.
    Status(u16, &'static str, &'static str),
    /// The body ends in the middle: by its length, or by its chunks.
    Cut,
    CutChunked,
    /// The body comes in pieces, with pauses of this length between them.
    Slow(Duration),
    /// An array without records.
    Empty,
    /// Each record twice.
    Twice,
}

/// Told of a request's path, and given the records.
pub type OnRequest = Box<dyn FnMut(&str, &mut BTreeMap<i64, String>) + Send>;

/// An upstream that serves until the test ends.
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    /// The records that are visible, by id.
    pub records: BTreeMap<i64, String>,
    /// What the head is said to be.
    pub head: Option<i64>,
    /// The next answers to paths that have this in them.
    pub faults: VecDeque<(&'static str, Fault)>,
    /// What happens at each request, before it is answered: ids that are committed out of order, say.
    pub on_request: Option<OnRequest>,
    /// `offset` is an `int`.
    pub int: bool,
    /// The requests so far.
    pub requests: Vec<String>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Upstream { address, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// These ids become visible.
    pub fn add(&self, ids: impl IntoIterator<Item = i64>) {
        self.state().records.extend(ids.into_iter().map(|id| (id, record(id))));
    }

    /// The next answer to a path that has this in it.
    pub fn fault(&self, path: &'static str, fault: Fault) {
        self.state().faults.push_back((path, fault));
    }

    /// The configuration of a pull from here into the log `mirror`.
    pub fn pull(&self) -> String {
        format!(
            "[[pull]]\nname = \"up\"\nurl = \"http://{}\"\nkey_file = \"up.key\"\nlog = \"mirror\"\ninterval_seconds = 1\n",
            self.address
        )
    }
}

/// A record as the description has it.
pub fn record(id: i64) -> String {
    json!({
        "id": id, "tts": "2022-07-26T06:50:55", "ipAddress": "10.0.0.1", "correlationId": format!("c{id}"),
        "personId": 301, "personName": "Bo Svendsen", "cpr": "0101018081", "performerId": null,
        "performerName": null, "logAction": "LOGIN", "message": "Login", "personDomain": "kommune.dk",
        "samaccountName": "bsg", "detailType": "TEXT", "detailContent": "x", "detailSupplement": null,
    })
    .to_string()
}

/// A record with other members than [`record`] has.
pub fn changed(id: i64, members: Value) -> String {
    let mut record: Value = serde_json::from_str(&record(id)).expect("JSON");
    let members = members.as_object().expect("an object").clone();
    record.as_object_mut().expect("an object").extend(members);
    record.to_string()
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let mut stream = stream;
    while let Some((path, key)) = request(&mut reader) {
        let (status, headers, body, fault) = answer(&path, key.as_deref(), state);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}");
        let written = match fault {
            Some(Fault::Cut) => {
                let cut = &body.as_bytes()[..body.len() / 2];
                let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(cut);
                return;
            }
            Some(Fault::CutChunked) => {
                let cut = &body[..body.len() / 2];
                let _ =
                    write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{cut}\r\n", cut.len());
                return;
            }
            Some(Fault::Slow(pause)) => {
                let mut written = write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len());
                for piece in body.as_bytes().chunks(body.len() / 5 + 1) {
                    std::thread::sleep(pause);
                    written = written.and_then(|()| stream.write_all(piece));
                }
                written
            }
            _ => write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()),
        };
        if written.is_err() {
            return;
        }
    }
}

/// The path of the next request, and its key.
fn request(reader: &mut impl BufRead) -> Option<(String, Option<String>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut key = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        let header = header.trim_end();
        if header.is_empty() {
            return Some((path, key));
        }
        if let Some((_, value)) =
            header.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("apikey"))
        {
            key = Some(value.to_owned());
        }
    }
}

fn answer(path: &str, key: Option<&str>, state: &Mutex<State>) -> (u16, &'static str, String, Option<Fault>) {
    let mut state = state.lock().expect("not poisoned");
    let state = &mut *state;
    state.requests.push(path.to_owned());
    if key != Some(KEY) {
        return (401, "", "<html>Unauthorized</html>".to_owned(), None);
    }
    if let Some(on_request) = &mut state.on_request {
        on_request(path, &mut state.records);
    }
    let fault = match state.faults.front() {
        Some((part, _)) if path.contains(part) => state.faults.pop_front().map(|(_, fault)| fault),
        _ => None,
    };
    if let Some(Fault::Status(status, headers, body)) = fault {
        return (status, headers, body.to_owned(), None);
    }
    if path.ends_with("/head") {
        let newest = state.records.last_key_value().map(|(id, _)| *id);
        return match state.head.or(newest) {
            Some(head) => (200, "", format!("{{\"head\":{head}}}"), fault),
            // As the real one does where its table is empty.
            None => (500, "", r#"{"error":"Internal Server Error"}"#.to_owned(), fault),
        };
    }
    let offset: i64 = path.split_once("offset=").and_then(|(_, offset)| offset.parse().ok()).unwrap_or(0);
    if state.int && offset > i64::from(i32::MAX) {
        return (400, "", r#"{"error":"Bad Request"}"#.to_owned(), fault);
    }
    let page = state.records.range(offset + 1..).take(100).map(|(_, record)| record.as_str());
    let page: Vec<&str> = match fault {
        Some(Fault::Empty) => Vec::new(),
        Some(Fault::Twice) => page.flat_map(|record| [record, record]).collect(),
        _ => page.collect(),
    };
    (200, "", format!("[{}]", page.join(",")), fault)
}
