//! Several processes do all that there is to do in a log at once, in a store without locks: their commits and frames come
//! between any two steps of one another. In memory, where a step takes no time, they do so far more often than in a bucket.

#[allow(dead_code)]
mod common;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use common::{append, read, rows};
use sporlog_ledger::{Error, Outcome, Store, StoreOptions, Writer, WriterOptions};
use sporlog_record::Kind;
use tokio::task::JoinSet;

const ROUNDS: u64 = 4;
const PROCESSES: u64 = 4;
const STEPS: u64 = 25;

/// Another number at every call: what several processes do at once cannot be repeated anyway.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % below
}

/// What a process says that it did: the messages that it appended and the id of the first of them, and up to which id
/// records expired.
type Said = (Vec<(std::ops::Range<u64>, u64)>, u64);

fn store_in_memory(keys: &Path) -> Store {
    let (address, keys) = ("memory:///".to_owned(), Some(keys.to_owned()));
    Store::open(StoreOptions { address, keys, create: true, ..StoreOptions::default() }).unwrap()
}

async fn open(store: &Store) -> Writer {
    store.writer("auditlog", Kind::Auditlog, WriterOptions { take_turns: true }).await.unwrap()
}

/// The first id, or `None` if others have appended meanwhile.
async fn bulk(writer: &Writer, messages: std::ops::Range<u64>) -> Option<u64> {
    let bulk = writer.bulk().await.unwrap();
    let pusher = bulk.pusher();
    let push = move || pusher.push(0, &rows(messages.start, messages.end)).unwrap();
    tokio::task::spawn_blocking(push).await.unwrap();
    match bulk.finish(vec![]).await {
        Ok(Outcome::Appended(appended)) => Some(appended.first),
        Err(Error::Fenced { .. }) => None,
        other => panic!("{other:?}"),
    }
}

async fn live(store: Store, process: u64) -> Said {
    let (mut appended, mut expired) = (Vec::new(), 0);
    let mut writer = open(&store).await;
    for step in 0..STEPS {
        let from = (process * STEPS + step) * 1_000;
        match random(16) {
            0..6 => {
                let messages = from..from + 1 + random(40);
                appended.push((messages.clone(), append(&writer, messages.start, messages.end).await.first));
            }
            6..9 => {
                let messages = from..from + 1 + random(300);
                appended.extend(bulk(&writer, messages.clone()).await.map(|first| (messages, first)));
            }
            9..11 => drop(writer.compact(Duration::from_secs(random(2) * 600)).await.unwrap()),
            11 => expired = expired.max(writer.expire("9999-01", false).await.unwrap().first_left - 1),
            12 => writer.flush().await.unwrap(),
            13 => {
                writer.close().await.unwrap();
                writer = open(&store).await;
            }
            14 => {
                let log = store.log("auditlog").await.unwrap();
                assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
            }
            _ => tokio::time::sleep(Duration::from_millis(random(30))).await,
        }
    }
    writer.close().await.unwrap();
    (appended, expired)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_several_processes_append_is_there_once_whatever_others_do() {
    for round in 0..ROUNDS {
        let keys = tempfile::tempdir().unwrap();
        let store = store_in_memory(keys.path());
        open(&store).await.close().await.unwrap();
        let processes: JoinSet<Said> = (0..PROCESSES).map(|process| live(store.clone(), process)).collect();
        let said = processes.join_all().await;
        let log = store.log("auditlog").await.unwrap();
        assert_eq!(log.verify(|_| ()).await.unwrap().problems, [], "round {round}");
        assert!(said.iter().all(|(_, expired)| log.first() > *expired), "round {round}");
        let there = read(&log, 0, None).await;
        assert!(there.iter().map(|(id, _)| *id as u64).eq(log.first()..=log.head()), "round {round}");
        let there: HashMap<_, _> = there.into_iter().map(|(id, message)| (id as u64, message)).collect();
        let all = said.into_iter().flat_map(|(appended, _)| appended);
        let all = all.flat_map(|(messages, first)| (first..).zip(messages));
        let all: HashMap<u64, _> = all.map(|(id, message)| (id, message.to_string())).collect();
        assert_eq!(all.len() as u64, log.head(), "round {round}");
        assert!(there.iter().all(|(id, message)| all[id] == *message), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_append_begins_where_others_have_left_the_log() {
    let keys = tempfile::tempdir().unwrap();
    let store = store_in_memory(keys.path());
    let (one, other) = (open(&store).await, open(&store).await);
    append(&one, 0, 5).await;
    assert_eq!(bulk(&other, 5..10).await, Some(6));
}
