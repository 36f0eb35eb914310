//! Readers that keep nothing but their last id, while writers write and the server is stopped, killed
//! and started again.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::Client;
use super::records::{PERSONS, disclosure, lines, number};
use super::server::{Server, Site};

const WRITERS: usize = 8;
const READERS: usize = 4;
/// Pause after each request of a writer: the point is not to measure.
const PAUSE: Duration = Duration::from_millis(20);
/// And after one that went wrong.
const AGAIN: Duration = Duration::from_millis(100);

/// Where the server is now.
type Place = watch::Receiver<String>;

/// What a writer was told: of each of its numbers, the id.
type Acknowledged = BTreeMap<usize, u64>;

/// What a reader has seen, in the order in which it did: ids and numbers.
type Seen = Vec<(u64, usize)>;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_server_is_restarted() {
    let mut burning = Burning::start();
    tokio::time::sleep(Duration::from_secs(16)).await;
    burning.restart(|server| assert!(!server.stop().is_empty())).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    burning.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_server_is_killed() {
    let mut burning = Burning::start();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        burning.restart(Server::kill).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    burning.end().await;
}

/// One server, whose place changes whenever it is started.
struct Burning {
    site: Site,
    server: Option<Server>,
    fire: Fire,
}

impl Burning {
    fn start() -> Self {
        let site = Site::new();
        let (reads, writes) = (site.key("reader", "read", &[]), site.key("writer", "write", &[]));
        let server = site.serve();
        let fire = Fire::start(&server.url(), &reads, &writes, &|_| server.url());
        Burning { site, server: Some(server), fire }
    }

    /// Ends the server in some manner, and starts another after a while.
    async fn restart(&mut self, end: impl FnOnce(Server)) {
        let server = self.server.take().expect("it runs");
        tokio::task::block_in_place(|| end(server));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let server = tokio::task::block_in_place(|| self.site.serve());
        self.fire.moved(&server.url());
        self.server = Some(server);
    }

    /// Sees what came of it.
    async fn end(self) {
        let (count, readers) = self.fire.end().await;
        tokio::task::block_in_place(|| {
            self.server.expect("it runs").stop();
            assert_eq!(self.site.entries("disclosure").len() as u64, count);
            self.site.verify("disclosure");
            self.site.verify("access");
        });
        println!("{count} records, {readers} readers");
    }
}

/// Those who write and read.
pub struct Fire {
    /// Where each of the readers reads, and last where all write.
    places: Vec<watch::Sender<String>>,
    /// Turns true when writers are to end, and then to the number of records, for readers.
    end: watch::Sender<Option<u64>>,
    writers: Vec<JoinHandle<Acknowledged>>,
    readers: Vec<JoinHandle<Seen>>,
}

impl Fire {
    /// Writers write to `url`, and each reader reads at a place of its own. `reads` and `writes` are their keys.
    pub fn start(url: &str, reads: &str, writes: &str, place_of: &dyn Fn(usize) -> String) -> Self {
        let (end, _) = watch::channel(None);
        let (written, _) = watch::channel(url.to_owned());
        let client = |key: &str| Client::new(url.to_owned()).with("ApiKey", key);
        let writer = |n| tokio::spawn(write(n, client(writes), written.subscribe(), end.subscribe()));
        let writers = (0..WRITERS).map(writer).collect();
        let mut places: Vec<_> = (0..READERS).map(|n| watch::channel(place_of(n)).0).collect();
        let reader = |(n, place): (usize, &watch::Sender<String>)| {
            tokio::spawn(read(n, client(reads), place.subscribe(), end.subscribe()))
        };
        let readers = places.iter().enumerate().map(reader).collect();
        places.push(written);
        Fire { places, end, writers, readers }
    }

    /// Everything is at another place from now on.
    fn moved(&self, url: &str) {
        self.places.iter().for_each(|place| _ = place.send_replace(url.to_owned()));
    }

    /// Lets writers finish and readers catch up, and sees what came of it; gives the number of records and of readers.
    pub async fn end(self) -> (u64, usize) {
        self.end.send_replace(Some(0));
        let mut acknowledged = Acknowledged::new();
        for (n, writer) in self.writers.into_iter().enumerate() {
            let told = writer.await.expect("no panic");
            assert!(told.len() > 20, "writer {n} got hardly anything through: {}", told.len());
            acknowledged.extend(told);
        }
        let count = acknowledged.len() as u64;
        self.end.send_replace(Some(count));
        for (n, reader) in self.readers.into_iter().enumerate() {
            let seen = reader.await.expect("no panic");
            assert!(seen.iter().map(|(id, _)| *id).eq(1..=count), "reader {n}: not each id once, in order");
            for (id, number) in &seen {
                assert_eq!(acknowledged.get(number), Some(id), "reader {n}, number {number}");
            }
            let numbers: HashSet<_> = seen.iter().map(|(_, number)| number).collect();
            assert_eq!(numbers.len(), seen.len(), "reader {n}: a record twice");
        }
        (count, READERS)
    }
}

/// Writes numbers that nobody else does, one or several at a time, and tries each until it is
/// acknowledged.
async fn write(n: usize, client: Client, place: Place, end: watch::Receiver<Option<u64>>) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut next = n * 1_000_000;
    for request in 0.. {
        if end.borrow().is_some() {
            break;
        }
        let key = format!("request-{n}-{request}");
        let numbers = next..next + if n.is_multiple_of(2) { 1 } else { 5 };
        next = numbers.end;
        let records = numbers.clone().map(|number| disclosure(PERSONS[number % PERSONS.len()], number));
        let ids = if n.is_multiple_of(2) {
            let body = lines(records);
            let id =
                persist(&client, &place, "/sporingslogg/api/post", &key, "application/json", &body).await;
            vec![id.as_u64().expect("an id")]
        } else {
            let (path, body) = ("/api/logs/disclosure/entries", lines(records));
            let answer = persist(&client, &place, path, &key, "application/x-ndjson", &body).await;
            let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
            results.iter().map(|result| result["id"].as_u64().expect("an id")).collect()
        };
        assert_eq!(ids.len(), numbers.len());
        acknowledged.extend(numbers.zip(ids));
        tokio::time::sleep(PAUSE).await;
    }
    acknowledged
}

/// Sends a request until it is acknowledged.
async fn persist(client: &Client, place: &Place, path: &str, key: &str, kind: &str, body: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "never acknowledged: {key}");
        let client =
            client.at(place.borrow().clone()).with("Idempotency-Key", key).with("Content-Type", kind);
        match client.send(reqwest::Method::POST, path, body.to_owned()).await {
            Ok(answer) if answer.status == 200 => return answer.json(),
            // Nothing but this may come of a server that stops, or of a proxy before it.
            Ok(answer) => assert!([502, 503, 504].contains(&answer.status), "{}", answer.text()),
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reads on from the last id that it has, until it has as many records as there are in the end. Some
/// wait for the log to move, some poll; all take pages of another size.
async fn read(n: usize, client: Client, place: Place, end: watch::Receiver<Option<u64>>) -> Seen {
    let mut seen = Seen::new();
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let last = seen.last().map_or(0, |(id, _)| *id);
        if end.borrow().is_some_and(|count| count > 0 && last >= count) {
            return seen;
        }
        assert!(Instant::now() < until, "reader {n} came to {last} and no further");
        let client = client.at(place.borrow().clone());
        if n.is_multiple_of(2) {
            let waited = client.send(reqwest::Method::GET, &wait(last), "").await;
            if !waited.is_ok_and(|answer| answer.status == 200) {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        let path = format!("/api/logs/disclosure/read?after={last}&limit={}", [1_000, 60, 100, 90][n % 4]);
        match client.send(reqwest::Method::GET, &path, "").await {
            Ok(answer) if answer.status == 200 => {
                let page = answer.json();
                let page = page.as_array().expect("a page");
                seen.extend(
                    page.iter().map(|entry| (entry["id"].as_u64().expect("an id"), number(&entry["record"]))),
                );
                if page.is_empty() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
            Ok(answer) => assert!([502, 503, 504].contains(&answer.status), "{}", answer.text()),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

fn wait(last: u64) -> String {
    format!("/api/logs/disclosure/head?wait=1&after={last}")
}
