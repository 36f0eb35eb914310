//! Many at once: readers that keep only their last id miss nothing, `head` never goes back,
//! housekeeping and verification disturb nobody, and a writer that is fenced does no harm.

#[allow(dead_code)]
mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{append, append_file, in_a_bucket, read, rows, store, writer};
use sporlog_ledger::{Append, Log, Outcome, Writer, WriterOptions};
use sporlog_record::Kind;
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

/// Waits until the log has been published: the note on the table is the last file of that.
async fn published(dir: &Path) {
    while !dir.join("logs/auditlog/tlog/table").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    published(dir.path()).await;
    let mut tasks = JoinSet::new();
    for task in 1..=3u64 {
        let writer = writer.clone();
        tasks.spawn(async move {
            for n in 0..400 {
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
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    writer.close().await.unwrap();
}

/// Ten of these are more than a compaction of what was there when it began can take.
const BUSY: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_compaction_ends_while_records_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    for n in 0..40 {
        append_file(&writer, n, n + 1).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn({
        let (writer, done) = (writer.clone(), done.clone());
        async move {
            let mut appended = 0;
            while appended < BUSY && !done.load(Ordering::Acquire) {
                append(&writer, 1_000 + appended, 1_001 + appended).await;
                appended += 1;
            }
            appended
        }
    });
    writer.compact(Duration::from_secs(600)).await.unwrap();
    done.store(true, Ordering::Release);
    let meanwhile = busy.await.unwrap();
    assert!(meanwhile < BUSY, "the compaction did not end before {BUSY} more records had come in");
    writer.close().await.unwrap();
    assert_whole(dir.path(), 40 + meanwhile as usize).await;
}

/// A writer with a sequencer of its own, as another process has.
async fn other_process(dir: &Path) -> Writer {
    let turns = WriterOptions { take_turns: true };
    store(dir).writer("auditlog", Kind::Auditlog, turns).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_compactions_at_once_double_nothing() {
    for round in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (other_process(dir.path()).await, other_process(dir.path()).await);
        for n in 0..30 {
            append_file(&one, n * 10, n * 10 + 10).await;
        }
        two.log().refresh().await.unwrap();
        let grace = Duration::from_secs(600);
        let (first, second) = tokio::join!(one.compact(grace), two.compact(grace));
        first.unwrap();
        second.unwrap();
        one.close().await.unwrap();
        two.close().await.unwrap();
        let log = store(dir.path()).log("auditlog").await.unwrap();
        assert_eq!(read(&log, 0, None).await.len(), 300, "round {round}");
        assert_whole(dir.path(), 300).await;
    }
}

/// Each has its changes overtaken by the others', again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_file_is_taken_out_twice_by_processes_that_append_and_merge() {
    let dir = tempfile::tempdir().unwrap();
    let mut tasks = JoinSet::new();
    for process in 0..4u64 {
        let writer = other_process(dir.path()).await;
        tasks.spawn(async move {
            for n in 0..15 {
                let from = process * 1_000 + n * 10;
                append(&writer, from, from + 10).await;
                writer.compact(Duration::from_secs(600)).await.unwrap();
            }
            writer.close().await.unwrap();
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_whole(dir.path(), 600).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_expires_during_a_compaction_stays_away() {
    for round in 0..8u64 {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (other_process(dir.path()).await, other_process(dir.path()).await);
        for n in 0..30 {
            append_file(&one, n * 10, n * 10 + 10).await;
        }
        let expire = async {
            tokio::time::sleep(Duration::from_millis(round * 3)).await;
            two.expire("9999-01", false).await.unwrap()
        };
        let (compacted, expired) = tokio::join!(one.compact(Duration::from_secs(600)), expire);
        compacted.unwrap();
        assert_eq!((expired.records, expired.first_left), (300, 301));
        one.close().await.unwrap();
        two.close().await.unwrap();
        let log = store(dir.path()).log("auditlog").await.unwrap();
        assert_eq!((log.first(), read(&log, 0, None).await.len()), (301, 0), "round {round}");
        assert_eq!(log.verify(|_| ()).await.unwrap().problems, [], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_expire_while_another_process_appends() {
    for round in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (other_process(dir.path()).await, other_process(dir.path()).await);
        append(&one, 0, 50).await;
        // There is nothing to verify until it has been published for the first time.
        published(dir.path()).await;
        let appending = tokio::spawn(async move {
            for n in 0..150 {
                append(&one, 1_000 + n * 10, 1_000 + n * 10 + 5).await;
            }
            one.close().await.unwrap();
        });
        // Files that vanish because records expire are no sign of tampering.
        let verifying = tokio::spawn({
            let store = store(dir.path());
            async move {
                for _ in 0..4 {
                    let verified = store.log("auditlog").await.unwrap().verify(|_| ()).await.unwrap();
                    assert_eq!(verified.problems, []);
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
            }
        });
        let (mut removed, mut first_left) = (0, 1);
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let expired = two.expire("9999-01", false).await.unwrap();
            removed += expired.records;
            first_left = expired.first_left;
        }
        appending.await.unwrap();
        verifying.await.unwrap();
        two.close().await.unwrap();
        let log = store(dir.path()).log("auditlog").await.unwrap();
        assert!(removed > 0 && log.first() >= first_left, "round {round}");
        // What is said to be removed is gone, what is left can be read, and nothing is missing.
        assert_eq!(read(&log, 0, None).await.len() as u64, 50 + 150 * 5 - removed, "round {round}");
        let verified = log.verify(|_| ()).await.unwrap();
        assert_eq!((verified.problems, verified.expired), (vec![], removed), "round {round}");
    }
}

/// Sets back when the files below `folder` were written.
fn written_two_hours_ago(folder: &Path) {
    let then = std::time::SystemTime::now() - Duration::from_secs(7_200);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            written_two_hours_ago(&path);
        } else {
            std::fs::File::options().append(true).open(path).unwrap().set_modified(then).unwrap();
        }
    }
}

/// However old the files are that were merged.
#[tokio::test(flavor = "multi_thread")]
async fn merged_files_stay_for_those_who_read_them() {
    let (dir, hour) = (tempfile::tempdir().unwrap(), Duration::from_secs(3_600));
    let writer = writer(dir.path()).await;
    for n in 0..3 {
        append_file(&writer, n, n + 1).await;
    }
    let log = store(dir.path()).log("auditlog").await.unwrap();
    let table = dir.path().join("logs/auditlog/table");
    written_two_hours_ago(&table);
    let done = writer.compact(hour).await.unwrap();
    assert_eq!((done.merged, done.cleaned), (3, 0));
    assert_eq!(read(&log, 0, None).await.len(), 3);
    written_two_hours_ago(&table);
    assert_eq!(writer.compact(hour).await.unwrap().cleaned, 3);
    writer.close().await.unwrap();
    assert_whole(dir.path(), 3).await;
}

/// Left-over files of every sort, as a killed process leaves them: they go, and nothing else does.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_leaves_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append(&writer, 0, 5).await;
    bulk_of(&writer, 5_000).await;
    let log = dir.path().join("logs/auditlog");
    let month = std::fs::read_dir(log.join("table")).unwrap().map(|e| e.unwrap().file_name());
    let month =
        month.map(|name| name.into_string().unwrap()).find(|name| name.starts_with("month=")).unwrap();
    let left = [
        format!("table/{month}/000000000006-0123456789ab.parquet#1"),
        format!("table/{month}/000000000006-0123456789ab.parquet"),
        format!("table/{month}/.tmp-5b0e5d0c-5f9d-4f3c-9f39-1d4f6b3b6a52"),
        format!("index/{month}/000000000006-0123456789ab.parquet"),
        format!("index/{month}/.tmp-5b0e5d0c-5f9d-4f3c-9f39-1d4f6b3b6a52"),
        "table/_delta_log/.tmp-5b0e5d0c-5f9d-4f3c-9f39-1d4f6b3b6a52".to_owned(),
        "tlog/.tmp-5b0e5d0c-5f9d-4f3c-9f39-1d4f6b3b6a52".to_owned(),
        "tlog/expired/.tmp-5b0e5d0c-5f9d-4f3c-9f39-1d4f6b3b6a52".to_owned(),
        "tlog/tile/0/.tmp-5b0e5d0c-5f9d-4f3c-9f39-1d4f6b3b6a52".to_owned(),
        ".tmp-5b0e5d0c-5f9d-4f3c-9f39-1d4f6b3b6a52".to_owned(),
    ];
    // In a bucket, an object is there as a whole or not at all.
    let unfinished = |name: &String| name.contains(".tmp-") || name.ends_with("#1");
    let left: Vec<_> = left.into_iter().filter(|name| !(in_a_bucket() && unfinished(name))).collect();
    std::fs::create_dir(log.join("tlog/expired")).unwrap();
    for name in &left {
        std::fs::write(log.join(name), b"left over").unwrap();
    }
    // They are no part of the log.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(writer.log().verify(|_| ()).await.unwrap().problems, []);
    // While they may still be in use, they stay: a file that is being written even if no grace is given.
    assert_eq!(writer.compact(Duration::from_secs(600)).await.unwrap().cleaned, 0);
    writer.compact(Duration::ZERO).await.unwrap();
    for name in &left {
        assert_eq!(log.join(name).exists(), unfinished(name), "{name}");
    }
    for name in &left {
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3_600);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log.join(name)).unwrap();
        file.set_modified(hour_ago).unwrap();
    }
    let cleaned = writer.compact(Duration::ZERO).await.unwrap().cleaned;
    assert!(cleaned >= left.len(), "{cleaned} removed");
    for name in &left {
        assert!(!log.join(name).exists(), "{name}");
    }
    writer.close().await.unwrap();
    assert_whole(dir.path(), 5_005).await;
}

async fn bulk_of(writer: &Writer, count: u64) {
    let bulk = writer.bulk().await.unwrap();
    let pusher = bulk.pusher();
    tokio::task::spawn_blocking(move || pusher.push(0, &rows(100_000, 100_000 + count)).unwrap())
        .await
        .unwrap();
    bulk.finish(vec![]).await.unwrap();
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
            append_file(&writer, n, n + 1).await;
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
