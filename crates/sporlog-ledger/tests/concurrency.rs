//! Many at once: readers that keep only their last id miss nothing, `head` never goes back,
//! housekeeping and verification disturb nobody, and a writer that is fenced does no harm.

#[allow(dead_code)]
mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{append, read, rows, store, writer};
use sporlog_ledger::{Append, Log, Outcome, Writer};
use tokio::task::JoinSet;

const TASKS: u64 = 8;
const APPENDS: u64 = 60;

/// Starts `TASKS` tasks that append one to five records at a time.
fn appenders(writer: &Writer) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let writer = writer.clone();
        tasks.spawn(async move {
            for n in 0..APPENDS {
                let from = (task * APPENDS + n) * 10;
                let batch = Append { rows: rows(from, from + 1 + n % 5), positions: vec![] };
                assert!(matches!(writer.append(batch).await, Ok(Outcome::Appended(_))));
            }
        });
    }
    tasks
}

/// How many records, and which, all appenders append.
fn appended() -> HashSet<String> {
    let of = |n: u64| (n * 10..=n * 10 + n % APPENDS % 5).map(|m| m.to_string());
    (0..TASKS * APPENDS).flat_map(of).collect()
}

/// Reads on from the last id until all is there; `refresh` for a log that does not move by itself.
async fn follow(log: Log, limit: u64, refresh: bool) -> Vec<String> {
    let total = appended().len();
    let (mut last, mut head, mut seen) = (0, 0, Vec::new());
    while seen.len() < total {
        if refresh {
            log.refresh().await.unwrap();
        }
        assert!(log.head() >= head, "the head went back from {head} to {}", log.head());
        head = log.head();
        let page = read(&log, last, Some(limit)).await;
        if page.is_empty() {
            assert!(last >= head, "nothing after {last}, and the head was {head}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (id, message) in page {
            assert_eq!(id as u64, last + 1);
            last = id as u64;
            seen.push(message);
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_that_keep_their_last_id_miss_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    let mut readers = Vec::new();
    for (limit, refresh) in [(1_000, false), (7, false), (50, true), (u64::MAX, true)] {
        let log =
            if refresh { store(dir.path()).log("auditlog").await.unwrap() } else { writer.log().clone() };
        readers.push(tokio::spawn(follow(log, limit, refresh)));
    }
    let done = Arc::new(AtomicBool::new(false));
    let housekeeping = tokio::spawn({
        let (writer, done) = (writer.clone(), done.clone());
        async move {
            let mut merged = 0;
            while !done.load(Ordering::Acquire) {
                // Files that readers may still have open keep their grace.
                merged += writer.compact(Duration::from_secs(600)).await.unwrap().merged;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            merged
        }
    });
    let mut tasks = appenders(&writer);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    done.store(true, Ordering::Release);
    assert!(housekeeping.await.unwrap() > 0);
    let mut all = Vec::new();
    for reader in readers {
        all.push(reader.await.unwrap());
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "readers saw different logs");
    assert_eq!(all[0].len(), appended().len());
    assert_eq!(all[0].iter().cloned().collect::<HashSet<_>>(), appended());
    writer.close().await.unwrap();
    assert_whole(dir.path(), appended().len()).await;
}

async fn assert_whole(dir: &Path, count: usize) {
    let log = store(dir).log("auditlog").await.unwrap();
    assert_eq!(read(&log, 0, None).await.len(), count);
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn left_overs_are_removed_and_never_a_file_that_is_being_appended() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut housekeeping = Vec::new();
    for expiring in [false, true, false] {
        let (writer, done) = (writer.clone(), done.clone());
        housekeeping.push(tokio::spawn(async move {
            while !done.load(Ordering::Acquire) {
                if expiring {
                    writer.expire("2000-01", false).await.unwrap();
                } else {
                    writer.compact(Duration::ZERO).await.unwrap();
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    let mut tasks = appenders(&writer);
    let bulks = writer.clone();
    tasks.spawn(async move {
        for n in 0..10 {
            let bulk = bulks.bulk().await.unwrap();
            let pusher = bulk.pusher();
            let push = move || pusher.push(0, &rows(n * 200, n * 200 + 200)).unwrap();
            tokio::task::spawn_blocking(push).await.unwrap();
            tokio::time::sleep(Duration::from_millis(15)).await;
            bulk.finish(vec![]).await.unwrap();
        }
    });
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    done.store(true, Ordering::Release);
    for task in housekeeping {
        task.await.unwrap();
    }
    writer.close().await.unwrap();
    assert_whole(dir.path(), appended().len() + 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_that_is_being_written_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append(&writer, 0, 250).await;
    // There is nothing to verify until it has been published for the first time.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for task in 1..=3u64 {
        let (writer, done) = (writer.clone(), done.clone());
        tasks.spawn(async move {
            for n in 0.. {
                if done.load(Ordering::Acquire) {
                    return;
                }
                append(&writer, task * 100_000 + n * 10, task * 100_000 + n * 10 + 3).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    for count in 0..15 {
        let verified = store(dir.path()).log("auditlog").await.unwrap().verify(|_| ()).await.unwrap();
        assert_eq!(verified.problems, [], "verification {count}");
        if count % 3 == 0 {
            // A Delta checkpoint in between, too.
            let writer = writer.clone();
            tasks.spawn(async move { assert!(writer.compact(Duration::from_secs(600)).await.is_ok()) });
        }
    }
    done.store(true, Ordering::Release);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_the_delta_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    // A checkpoint is begun with every 256th commit, in the background.
    for round in 0..3u64 {
        let writer = writer(dir.path()).await;
        // One that is signed for, and will be replaced.
        writer.compact(Duration::from_secs(600)).await.unwrap();
        for n in 0..256 {
            append(&writer, n, n + 1).await;
        }
        writer.close().await.unwrap();
        // Whatever was still under way.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_whole(dir.path(), (round as usize + 1) * 256).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_bulk_append_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let one = writer(dir.path()).await;
    append(&one, 0, 10).await;
    let two = writer(dir.path()).await;
    let bulk = two.bulk().await.unwrap();
    // Meanwhile, the log is moved on and published by another.
    append(&one, 10, 700).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pusher = bulk.pusher();
    tokio::task::spawn_blocking(move || pusher.push(0, &rows(5_000, 5_600)).unwrap()).await.unwrap();
    let refused = bulk.finish(vec![]).await;
    assert!(matches!(refused, Err(sporlog_ledger::Error::Fenced { .. })), "{refused:?}");
    append(&one, 700, 701).await;
    one.close().await.unwrap();
    drop(two);
    assert_whole(dir.path(), 701).await;
}
