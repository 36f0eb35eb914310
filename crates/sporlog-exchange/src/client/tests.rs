//! Fetching from and delivering to a server in this process, whose connections may be cut, and whose
//! files may have any names.

mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use tokio_util::sync::CancellationToken;

use self::server::Server;
use super::*;

/// More than is under way at a time.
const LARGE: usize = 7_000_001;

#[derive(Default)]
struct Told(Mutex<Vec<Item>>);

impl Watch for Told {
    fn begun(&self, _name: &str, _bytes: u64) {}
    fn at(&self, _bytes: u64) {}
    fn done(&self, item: &Item) {
        self.0.lock().expect("told").push(item.clone());
    }
}

struct Place {
    folder: tempfile::TempDir,
    server: Server,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key");
        let path = folder.path().join("key");
        fs::write(&path, key.to_openssh(LineEnding::LF).expect("text").as_bytes()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        Place { folder, server: Server::start().await }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn access(&self, folder: &str) -> Access {
        let address = format!("sftp://u@127.0.0.1:{}{folder}", self.server.port);
        Access {
            address: address.parse().expect("an address"),
            identities: Identities { files: vec![self.path("key")], ..Identities::default() },
            host_keys: HostKeys::fingerprints(std::slice::from_ref(&self.server.fingerprint))
                .expect("a fingerprint"),
            timeout: Duration::from_secs(20),
            retries: 2,
        }
    }

    async fn pull_with(&self, change: impl FnOnce(&mut Pull)) -> (Result<()>, Vec<Item>) {
        let mut wanted = Pull {
            into: self.path("here"),
            patterns: Vec::new(),
            recursive: true,
            delete: false,
            rehearse: false,
            again: false,
        };
        change(&mut wanted);
        let told = Told::default();
        let ended = pull(&self.access("/"), &wanted, &told, &CancellationToken::new()).await;
        (ended, told.0.into_inner().expect("told"))
    }

    async fn pull(&self) -> Vec<Item> {
        let (ended, items) = self.pull_with(|_| {}).await;
        ended.expect("fetched");
        items
    }

    async fn push_with(&self, name: &str, change: impl FnOnce(&mut Push)) -> Item {
        let mut wanted = Push {
            files: vec![self.path(name)],
            patterns: Vec::new(),
            suffix: Some(".part".to_owned()),
            journal: None,
            rehearse: false,
            again: false,
            wait: None,
        };
        change(&mut wanted);
        let told = Told::default();
        push(&self.access("/ind"), &wanted, &told, &CancellationToken::new()).await.expect("sent");
        told.0.into_inner().expect("told").pop().expect("an item")
    }

    async fn push(&self, name: &str) -> Item {
        self.push_with(name, |_| {}).await
    }
}

fn outcomes(items: &[Item]) -> Vec<Outcome> {
    items.iter().map(|item| item.outcome).collect()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

#[tokio::test]
async fn each_file_is_fetched_once_and_again_when_it_changes() {
    let place = Place::new().await;
    place.server.put("/a.csv", b"one", 1);
    place.server.put("/empty.csv", b"", 1);
    place.server.put("/sub/b.csv", b"two", 1);
    place.server.put("/c.csv.part", b"three", 1);
    assert_eq!(outcomes(&place.pull().await), [Outcome::Fetched; 3]);
    assert_eq!(outcomes(&place.pull().await), [Outcome::Known; 3]);
    let here = place.path("here");
    assert_eq!(fs::read(here.join("sub/b.csv")).expect("read"), b"two");
    place.server.put("/a.csv", b"ONE", 2);
    assert_eq!(outcomes(&place.pull().await), [Outcome::Fetched, Outcome::Known, Outcome::Known]);
    assert_eq!(fs::read(here.join("a.csv")).expect("read"), b"one");
    assert_eq!(fs::read(here.join("a.2.csv")).expect("read"), b"ONE");
    assert_eq!(files(&here), [".sporlog-exchange.jsonl", "a.2.csv", "a.csv", "empty.csv", "sub"]);
}

#[tokio::test]
async fn a_cut_connection_is_made_anew_and_gone_on_with() {
    let place = Place::new().await;
    let content = bytes(LARGE);
    place.server.put("/a.csv", &content, 1);
    place.server.cut_after(3_000_000);
    let items = place.pull().await;
    assert_eq!(outcomes(&items), [Outcome::Fetched]);
    assert!(fs::read(place.path("here/a.csv")).expect("read") == content);
    assert!(place.server.connections() >= 2, "{}", place.server.connections());
    assert!(place.server.read_bytes() < 3 * LARGE as u64, "it did not begin anew each time");
}

#[tokio::test]
async fn what_an_earlier_run_got_is_built_upon() {
    let place = Place::new().await;
    let content = bytes(LARGE);
    place.server.put("/a.csv", &content, 1);
    place.server.cut_after(3_000_000);
    let mut access = place.access("/");
    access.retries = 0;
    let wanted = Pull {
        into: place.path("here"),
        patterns: Vec::new(),
        recursive: false,
        delete: false,
        rehearse: false,
        again: false,
    };
    let ended = pull(&access, &wanted, &Told::default(), &CancellationToken::new()).await;
    assert!(ended.is_err_and(|error| error.is_lost()));
    assert_eq!(files(&wanted.into), [".a.csv.part", ".a.csv.part.json", ".sporlog-exchange.jsonl"]);
    place.server.cut_after(u64::MAX);
    let items = place.pull().await;
    assert!(items.first().is_some_and(|item| item.resumed_at > 1_000_000), "{items:?}");
    assert!(fs::read(place.path("here/a.csv")).expect("read") == content);
}

#[tokio::test]
async fn names_that_lead_out_of_the_folder_are_refused() {
    let place = Place::new().await;
    for name in ["sub/../../evil", "a\u{1b}[2J", "/etc/evil"] {
        place.server.put_entry("/", name, b"evil");
    }
    place.server.put("/good.csv", b"good", 1);
    let items = place.pull().await;
    assert_eq!(items.iter().filter(|item| item.outcome == Outcome::Refused).count(), 3, "{items:?}");
    assert_eq!(files(&place.path("here")), [".sporlog-exchange.jsonl", "good.csv"]);
    assert_eq!(files(place.folder.path()), ["here", "key"]);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_left_for_later() {
    let place = Place::new().await;
    place.server.put("/a.csv", b"one", 1);
    place.server.keep_changing();
    let items = place.pull().await;
    assert_eq!(outcomes(&items), [Outcome::Failed]);
    assert_eq!(files(&place.path("here")), [".sporlog-exchange.jsonl"]);
}

#[tokio::test]
async fn what_is_here_may_be_removed_there() {
    let place = Place::new().await;
    place.server.put("/a.csv", b"one", 1);
    let (ended, items) = place.pull_with(|wanted| wanted.delete = true).await;
    ended.expect("fetched");
    assert!(items.iter().all(|item| item.removed) && place.server.get("/a.csv").is_none());
    assert_eq!(fs::read(place.path("here/a.csv")).expect("read"), b"one");
}

#[tokio::test]
async fn a_manifest_that_says_otherwise_is_told_of() {
    let place = Place::new().await;
    place.server.put("/a.csv", b"one", 1);
    place.server.put("/a.manifest.json", br#"{"files":[{"name":"a.csv","sha256":"00"}]}"#, 1);
    let items = place.pull().await;
    assert_eq!(outcomes(&items), [Outcome::Fetched, Outcome::Fetched, Outcome::Differs]);
    assert_eq!(outcomes(&place.pull().await), [Outcome::Known, Outcome::Known], "it is told once");
}

#[tokio::test]
async fn a_server_with_another_key_is_sent_nothing() {
    let place = Place::new().await;
    let mut access = place.access("/");
    access.host_keys = HostKeys::Files(Vec::new());
    let mut wanted = Pull {
        into: place.path("here"),
        patterns: Vec::new(),
        recursive: false,
        delete: false,
        rehearse: false,
        again: false,
    };
    wanted.rehearse = true;
    let ended = pull(&access, &wanted, &Told::default(), &CancellationToken::new()).await;
    let error = ended.expect_err("refused");
    assert!(matches!(error, Error::HostKey(_)), "{error}");
    assert!(error.to_string().contains(&place.server.fingerprint), "{error}");
    assert_eq!(place.server.signed_in(), 0);
}

#[tokio::test]
async fn each_file_is_sent_once_even_if_it_is_taken_away_there() {
    let place = Place::new().await;
    fs::write(place.path("a.csv"), "one").expect("written");
    assert_eq!(place.push("a.csv").await.outcome, Outcome::Sent);
    assert_eq!(place.server.get("/ind/a.csv").as_deref(), Some(&b"one"[..]));
    assert_eq!(place.server.names(), ["/ind/a.csv"]);
    place.server.remove("/ind/a.csv");
    fs::write(place.path("a.csv"), "one").expect("touched");
    assert_eq!(place.push("a.csv").await.outcome, Outcome::Known);
    assert!(place.server.names().is_empty());
    fs::write(place.path("a.csv"), "two").expect("changed");
    assert_eq!(place.push("a.csv").await.outcome, Outcome::Sent);
    assert_eq!(place.server.get("/ind/a.csv").as_deref(), Some(&b"two"[..]));
}

#[tokio::test]
async fn a_file_of_anothers_is_left_as_it_is() {
    let place = Place::new().await;
    place.server.put("/ind/a.csv", b"theirs", 1);
    fs::write(place.path("a.csv"), "ours").expect("written");
    for as_is in [false, true] {
        let item =
            place.push_with("a.csv", |wanted| wanted.suffix = (!as_is).then(|| ".part".to_owned())).await;
        assert_eq!(item.outcome, Outcome::Refused);
        assert_eq!(place.server.get("/ind/a.csv").as_deref(), Some(&b"theirs"[..]));
    }
}

#[tokio::test]
async fn a_cut_delivery_is_gone_on_with_and_whole() {
    for as_is in [false, true] {
        let place = Place::new().await;
        // Pieces under way are sent again, so it takes more than these to get ahead.
        let content = bytes(2 * LARGE);
        fs::write(place.path("a.csv"), &content).expect("written");
        place.server.cut_after(9_000_000);
        let item =
            place.push_with("a.csv", |wanted| wanted.suffix = (!as_is).then(|| ".part".to_owned())).await;
        assert_eq!(item.outcome, Outcome::Sent);
        assert!(place.server.get("/ind/a.csv").as_deref() == Some(content.as_slice()));
        assert_eq!(place.server.names(), ["/ind/a.csv"]);
        assert!(place.server.connections() >= 2);
    }
}

#[tokio::test]
async fn a_receipt_is_waited_for() {
    let place = Place::new().await;
    fs::write(place.path("a.csv"), "one").expect("written");
    let receipt = |outcome: &str, sha256: &str| {
        serde_json::json!({
            "delivery": "20261121T120000Z-ab", "account": "u", "file": "a.csv", "log": "revision",
            "outcome": outcome, "takenAt": "2026-11-21T12:00:00Z", "bytes": 3, "sha256": sha256,
            "accepted": 0, "quarantined": 0, "remarks": 0, "overlapping": 0, "skipped": 0, "seconds": 0.1,
        })
        .to_string()
    };
    // One of an earlier delivery under the same name.
    place.server.put("/kvittering/a.csv.kvittering.json", receipt("accepted", "00").as_bytes(), 1);
    let wait =
        |seconds| Some(Wait { folder: "../kvittering".to_owned(), at_most: Duration::from_secs(seconds) });
    let item = place.push_with("a.csv", |wanted| wanted.wait = wait(0)).await;
    assert_eq!(item.outcome, Outcome::Failed, "{}", item.note);
    let text = receipt("refused", &item.sha256);
    place.server.put("/kvittering/a.csv.kvittering.json", text.as_bytes(), 2);
    let item = place.push_with("a.csv", |wanted| wanted.wait = wait(9)).await;
    assert_eq!(item.outcome, Outcome::Refused);
    assert!(item.receipt.is_some());
    // It has been reported, and is not again, by whatever run.
    for seconds in [0, 9] {
        let item = place.push_with("a.csv", |wanted| wanted.wait = wait(seconds)).await;
        assert_eq!((item.outcome, item.receipt.is_some()), (Outcome::Known, false), "{}", item.note);
    }
}

#[tokio::test]
async fn a_stop_ends_it_at_once() {
    let place = Place::new().await;
    place.server.put("/a.csv", b"one", 1);
    let wanted = Pull {
        into: place.path("here"),
        patterns: Vec::new(),
        recursive: false,
        delete: false,
        rehearse: false,
        again: false,
    };
    let stop = CancellationToken::new();
    stop.cancel();
    let ended = pull(&place.access("/"), &wanted, &Told::default(), &stop).await;
    assert!(matches!(ended, Err(Error::Stopped)));
}
