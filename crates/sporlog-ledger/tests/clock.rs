//! Times of receipt are what the clock said. Where it was wrong, order is the ids', and everything is found.

// A day may have one range of ids.
#![allow(clippy::single_range_in_vec_init)]

#[allow(dead_code)]
mod common;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::{append, options, read, rows};
use futures::TryStreamExt;
use sporlog_ledger::{Advance, Clock, Find, Key, Log, Outcome, Store, StoreOptions, Writer, WriterOptions};
use sporlog_record::Kind;

const DAY: i64 = 86_400_000_000;

fn micros(time: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp_micros()
}

/// A writer by this clock.
async fn writer(dir: &Path, clock: Clock) -> Writer {
    let store = Store::open(StoreOptions { clock, ..options(dir) }).unwrap();
    store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await.unwrap()
}

/// The ranges of ids of each day that has some.
async fn days(log: &Log) -> Vec<(i64, Vec<std::ops::Range<u64>>)> {
    log.received_by(|at| at.div_euclid(DAY)).await.unwrap().into_iter().collect()
}

/// Files hold one time each, then those that are neighbours in a month are merged.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_wrong_hides_nothing() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let clock = Clock(|| NOW.load(Ordering::Relaxed));
    let dir = tempfile::tempdir().unwrap();
    let times = [
        "2026-10-30T10:00:00Z",
        "2026-10-31T10:00:00Z",
        // Ahead for a while …
        "2037-01-15T10:00:00Z",
        "2026-11-20T10:00:00Z",
        // … and back for a while, within a month.
        "2026-11-10T23:59:59Z",
        "2026-11-11T00:00:00Z",
        "2026-11-20T10:00:01Z",
    ];
    for (n, time) in (0..).zip(times) {
        NOW.store(micros(time), Ordering::Relaxed);
        let writer = writer(dir.path(), clock).await;
        let appended = match n % 2 {
            0 => append(&writer, n * 10, n * 10 + 10).await,
            _ => {
                let bulk = writer.bulk().await.unwrap();
                bulk.pusher().push(0, &rows(n * 10, n * 10 + 10)).unwrap();
                let outcome = bulk.finish(vec![(format!("source:{n}"), Advance::To(1))]).await.unwrap();
                let Outcome::Appended(appended) = outcome else { panic!("{outcome:?}") };
                appended
            }
        };
        assert_eq!((appended.first, appended.received_at), (n * 10 + 1, micros(time)));
        writer.close().await.unwrap();
    }
    let day = |time: &str| micros(time).div_euclid(DAY);
    let expected = vec![
        (day(times[0]), vec![1..11]),
        (day(times[1]), vec![11..21]),
        (day(times[4]), vec![41..51]),
        (day(times[5]), vec![51..61]),
        (day(times[3]), vec![31..41, 61..71]),
        (day(times[2]), vec![21..31]),
    ];
    let writer = writer(dir.path(), clock).await;
    let log = writer.log().clone();
    for round in 0..2 {
        assert_eq!(days(&log).await, expected, "round {round}");
        let from = micros(times[3]);
        let late = log.received_by(|at| at >= from).await.unwrap();
        assert_eq!(late[&true], [21..41, 61..71]);
        assert_eq!(log.newest_receipt().await.unwrap(), Some(micros(times[6])));
        assert_eq!(log.expired_until(), None);
        let all: Vec<_> = (0..70).map(|n| (n + 1, n.to_string())).collect();
        assert_eq!(read(&log, 0, None).await, all);
        let find = Find { key: Key::Subject(format!("{:010}", 25)), from: None, to: None, limit: None };
        let found: Vec<_> = log.find(find).try_collect().await.unwrap();
        assert_eq!(common::messages(&found), [(26, "25".to_owned())]);
        assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
        writer.compact(Duration::ZERO).await.unwrap();
    }
    let expired = writer.expire("2026-11", false).await.unwrap();
    assert_eq!(expired.records, 20);
    assert_eq!(days(&log).await, expected[2..]);
    assert_eq!(log.expired_until(), Some(micros(times[4])));
    writer.close().await.unwrap();
    let writer = common::writer(dir.path()).await;
    assert_eq!(writer.log().newest_receipt().await.unwrap(), Some(micros(times[6])));
    writer.close().await.unwrap();
}

/// What was received under a wrong month does not keep older records from expiring, and goes on its own.
#[tokio::test(flavor = "multi_thread")]
async fn months_expire_wherever_they_lie() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let clock = Clock(|| NOW.load(Ordering::Relaxed));
    let dir = tempfile::tempdir().unwrap();
    let times =
        ["2037-01-15T10:00:00Z", "2026-10-30T10:00:00Z", "2026-11-20T10:00:00Z", "2026-10-31T10:00:00Z"];
    let writer = writer(dir.path(), clock).await;
    for (n, time) in (0..).zip(times) {
        NOW.store(micros(time), Ordering::Relaxed);
        append(&writer, n * 10, n * 10 + 10).await;
    }
    let log = writer.log().clone();
    let expired = writer.expire("2026-11", true).await.unwrap();
    assert_eq!((expired.records, expired.first_left, log.first()), (20, 1, 1));
    let expired = writer.expire("2026-11", false).await.unwrap();
    assert_eq!((expired.records, expired.first_left), (20, 1));
    let ids = |records: Vec<(i64, String)>| records.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let left: Vec<_> = (1..11).chain(21..31).collect();
    assert_eq!(ids(read(&log, 0, None).await), left);
    // A page reaches over the gap.
    assert_eq!(ids(read(&log, 8, Some(4)).await), [9, 10, 21, 22]);
    let gone = log.record(15).await.unwrap_err().to_string();
    assert!(gone.contains("expired"), "{gone}");
    let verified = log.verify(|_| ()).await.unwrap();
    assert_eq!((verified.problems, verified.expired, verified.records), (vec![], 20, 20));
    writer.compact(Duration::ZERO).await.unwrap();
    assert_eq!(ids(read(&log, 0, None).await), left);
    // The log may have nothing left at its end.
    assert_eq!(writer.expire("2026-12", false).await.unwrap().records, 10);
    assert_eq!((log.head(), ids(read(&log, 0, None).await)), (40, (1..11).collect()));
    writer.close().await.unwrap();
    let log = common::store(dir.path()).log("auditlog").await.unwrap();
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
    assert_eq!(log.head(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_found_by_their_time_of_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let writer = common::writer(dir.path()).await;
    let log = writer.log().clone();
    assert!(log.received_by(|at| at).await.unwrap().is_empty());
    assert_eq!(log.newest_receipt().await.unwrap(), None);
    let mut batches = Vec::new();
    for n in 0..6 {
        batches.push(append(&writer, n * 10, n * 10 + 10).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // In files of one time each, and in one that has them all.
    for _ in 0..2 {
        for batch in &batches {
            let found = log.received_by(|at| at.cmp(&batch.received_at)).await.unwrap();
            assert_eq!(found[&std::cmp::Ordering::Equal], [batch.first..batch.last + 1]);
        }
        let all = log.received_by(|at| at > 0).await.unwrap();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [(true, vec![1..61])]);
        assert_eq!(log.newest_receipt().await.unwrap(), Some(batches[5].received_at));
        writer.compact(Duration::ZERO).await.unwrap();
    }
    writer.close().await.unwrap();
}
