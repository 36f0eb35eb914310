//! A store in a bucket whose answers come late, are refused or get lost; a bucket that is not fit for a store; and how many
//! requests things take.
//!
//! The bucket is that of `tests/bucket/with`, behind a [`proxy`]. Where a bucket is reached says the environment of a process,
//! so that what goes through the proxy is done by the test program as a child of itself ([`child`]).

#[allow(dead_code)]
mod common;
#[path = "common/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use arrow::array::RecordBatch;
use common::{append, options, read, rows, store, writer};
use proxy::{Faults, Proxy};
use sporlog_ledger::{Advance, Append, Error, Key, Outcome, Store, StoreOptions, Writer, WriterOptions};
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::{Kind, Position, Rules};

const DIR: &str = "SPORLOG_TEST_CHILD_DIR";

/// A folder in the bucket, if there is a bucket.
fn folder() -> Option<tempfile::TempDir> {
    if std::env::var_os("SPORLOG_TEST_BUCKET").is_none() {
        eprintln!("LEFT OUT: there is no bucket here (tests/bucket/run has one)");
        return None;
    }
    Some(tempfile::tempdir().unwrap())
}

async fn proxy(faults: Faults) -> Proxy {
    let upstream = std::env::var("AWS_ENDPOINT_URL").unwrap();
    Proxy::start("127.0.0.1:0", upstream.trim_start_matches("http://"), faults).await
}

/// Runs the test `name` of this program once more, as the child that is to use the proxy; gives what it printed.
async fn run_child(proxy: &Proxy, dir: &Path, name: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(DIR, dir).env("AWS_ENDPOINT_URL", &proxy.url);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

/// What a child does in its folder; nothing if this is no child.
fn child<T: Future<Output = ()>>(what: impl FnOnce(PathBuf) -> T) {
    let Some(dir) = std::env::var_os(DIR) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(what(dir.into()));
}

#[test]
fn child_checks() {
    child(async |dir| {
        for ability in store(&dir).check_fitness().await {
            println!("\n{}={}", ability.what, ability.problem.is_none());
        }
        match store(&dir).writer("auditlog", Kind::Auditlog, WriterOptions::default()).await {
            Ok(writer) => writer.close().await.unwrap(),
            Err(error) => println!("\nrefused: {error}"),
        }
    });
}

/// What a check through a proxy that does this says cannot be done, and why the first log is refused.
async fn unfit(faults: Faults) -> Option<(Vec<String>, String)> {
    let dir = folder()?;
    let said = run_child(&proxy(faults).await, dir.path(), "child_checks").await;
    let failed = said.lines().filter_map(|line| line.strip_suffix("=false").map(str::to_owned)).collect();
    let refused = said.lines().find_map(|line| line.strip_prefix("refused: ")).unwrap_or_default();
    Some((failed, refused.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_fit_passes_the_check() {
    let Some(found) = unfit(Faults::default()).await else { return };
    assert_eq!(found, (vec![], String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_ignores_the_condition_is_found_out_and_refused() {
    let Some((failed, refused)) = unfit(Faults { unconditional: true, ..Faults::default() }).await else {
        return;
    };
    assert!(failed.contains(&"put an object only if its name is free".to_owned()), "{failed:?}");
    assert!(refused.contains("32 were told so"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_permission_that_is_missing_is_named() {
    for (forbidden, what) in [
        ("put", "put an object"),
        ("put new", "put an object only if its name is free"),
        ("get", "get an object"),
        ("get range", "get a part of an object"),
        ("list", "list objects"),
        ("delete", "delete objects"),
        ("begin parts", "put an object in parts"),
        ("abort parts", "give up an object in parts"),
    ] {
        let Some((failed, refused)) = unfit(Faults { forbidden, ..Faults::default() }).await else { return };
        assert!(failed.contains(&what.to_owned()), "{forbidden}: {failed:?}");
        assert!(!refused.is_empty(), "{forbidden}");
    }
}

const SOURCE: &str = "source";

/// The messages that the source sends at `position`: many as a bulk append now and then.
fn sent(position: i64) -> std::ops::Range<u64> {
    let start = position as u64 * 10_000;
    start..start + if position % 10 == 9 { 5_000 } else { 1 + position as u64 % 5 }
}

async fn send(writer: &Writer, position: i64) -> Result<Outcome, Error> {
    let range = sent(position);
    let rows = rows(range.start, range.end);
    let positions = vec![(SOURCE.to_owned(), Advance::To(position))];
    if rows.num_rows() < 1_000 {
        return writer.append(Append { rows, positions }).await;
    }
    let bulk = writer.bulk().await?;
    let pusher = bulk.pusher();
    let pushed = tokio::task::spawn_blocking(move || pusher.push(0, &rows)).await.unwrap();
    match pushed {
        Ok(()) => bulk.finish(positions).await,
        Err(error) => Err(bulk.abort().await.unwrap_or(error)),
    }
}

const POSITIONS: i64 = 60;

/// Goes on from where the log says the source is, whatever goes wrong.
#[test]
fn child_appends() {
    child(async |dir| {
        'anew: loop {
            let opened =
                store(&dir).writer("auditlog", Kind::Auditlog, WriterOptions { take_turns: true }).await;
            let Ok(writer) = opened.inspect_err(|error| println!("\nnot opened: {error}")) else { continue };
            loop {
                let position = writer.log().position(SOURCE).map_or(0, |there| there.version + 1);
                if position == POSITIONS {
                    let _ = writer.close().await;
                    return;
                }
                match send(&writer, position).await {
                    Ok(_) => println!("\nACK {position}"),
                    Err(error) => {
                        println!("\nfailed at {position}: {error}");
                        let _ = writer.close().await;
                        continue 'anew;
                    }
                }
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_whatever_becomes_of_requests() {
    let Some(dir) = folder() else { return };
    // Made without faults: a bucket as bad as the following would be refused.
    writer(dir.path()).await.close().await.unwrap();
    let faults = Faults {
        delay: (2, 20),
        each: 40,
        conflict: true,
        cut: true,
        slow_down: true,
        lost: true,
        late: true,
        refused: 100,
        ..Faults::default()
    };
    let said = run_child(&proxy(faults).await, dir.path(), "child_appends").await;
    let log = store(dir.path()).log("auditlog").await.unwrap();
    let messages: Vec<_> = read(&log, 0, None).await.into_iter().map(|(_, message)| message).collect();
    let expected: Vec<_> = (0..POSITIONS).flat_map(sent).map(|n| n.to_string()).collect();
    assert!(messages == expected, "{} and not {}\n{said}", messages.len(), expected.len());
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
}

/// Rows that take a kilobyte each however they are compressed.
fn large_rows(count: u64) -> RecordBatch {
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Auditlog, &rules);
    for n in 0..count {
        let message: String = (0..64).map(|_| random_digits()).collect();
        let record = format!(
            r#"{{"id":{n},"tts":"2026-11-21T08:00:00","cpr":"{n:010}","logAction":"LOGIN","message":"{message}"}}"#
        );
        let judged = builder.push(record.as_bytes(), "test", Position { line: 1, column: 1 });
        assert!(matches!(judged, Judged::Accepted(_)), "{judged:?}");
    }
    builder.finish()
}

/// 32 digits that are others at every call.
fn random_digits() -> String {
    use std::hash::{BuildHasher, Hasher};
    let number = || std::hash::RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

#[test]
fn child_gives_up() {
    child(async |dir| {
        let writer = writer(&dir).await;
        let bulk = writer.bulk().await.unwrap();
        let pusher = bulk.pusher();
        let push = move || (0..12).for_each(|n| pusher.push(n, &large_rows(5_000)).unwrap());
        tokio::task::spawn_blocking(push).await.unwrap();
        assert!(bulk.abort().await.is_none());
        append(&writer, 0, 1).await;
        writer.close().await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_given_up_leaves_no_parts() {
    let Some(dir) = folder() else { return };
    let proxy = proxy(Faults::default()).await;
    // The check of the bucket, before the first log, has uploads in parts of its own.
    writer(dir.path()).await.close().await.unwrap();
    run_child(&proxy, dir.path(), "child_gives_up").await;
    let counts = proxy.take_counts();
    assert!(counts["part"] > 0, "{counts:?}");
    assert_eq!(counts["begin parts"], counts["abort parts"], "{counts:?}");
}

/// Puts the requests since the last mark aside under this name.
fn mark(name: &str) {
    let url = std::env::var("AWS_ENDPOINT_URL").unwrap();
    let mut proxy = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    write!(proxy, "MARK {name}\r\n\r\n").unwrap();
    proxy.read_to_end(&mut Vec::new()).unwrap();
}

async fn pause() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[test]
fn child_goes_through_a_day() {
    child(async |dir| {
        let writer = writer(&dir).await;
        let bulk = writer.bulk().await.unwrap();
        let pusher = bulk.pusher();
        let push = move || {
            for n in 0..20 {
                pusher.push(n, &rows(n * 5_000, n * 5_000 + 5_000)).unwrap();
            }
        };
        tokio::task::spawn_blocking(push).await.unwrap();
        mark("before");
        bulk.finish(vec![]).await.unwrap();
        pause().await;
        mark("import of 100,000");
        append(&writer, 0, 1).await;
        mark("first append");
        pause().await;
        mark("publication");
        append(&writer, 1, 2).await;
        mark("append");
        pause().await;
        mark("publication");
        pause().await;
        mark("idle writer");
        let log = store(&dir).log("auditlog").await.unwrap();
        mark("open");
        log.refresh().await.unwrap();
        mark("refresh");
        assert_eq!(read(&log, 50_000, Some(100)).await.len(), 100);
        mark("page");
        assert_eq!(read(&log, 50_100, Some(100)).await.len(), 100);
        mark("next page");
        let located = log.locate(Key::Subject("0000000007".into())).await.unwrap();
        located.read(u64::MAX, 20, &["message"]).await.unwrap();
        mark("look-up");
        log.locate(Key::Subject("0000000008".into()))
            .await
            .unwrap()
            .read(u64::MAX, 20, &["message"])
            .await
            .unwrap();
        mark("next look-up");
        let cache = tempfile::tempdir_in("/tmp").unwrap();
        let cache_folder = Some((cache.path().to_owned(), 1 << 30));
        for step in ["with an empty cache", "with a full cache"] {
            let options = StoreOptions { cache_folder: cache_folder.clone(), ..options(&dir) };
            let log = Store::open(options).unwrap().log("auditlog").await.unwrap();
            mark("open");
            assert_eq!(read(&log, 50_000, Some(100)).await.len(), 100);
            let located = log.locate(Key::Subject("0000000007".into())).await.unwrap();
            located.read(u64::MAX, 20, &["message"]).await.unwrap();
            mark(step);
        }
        writer.close().await.unwrap();
        mark("close");
    });
}

/// Requests cost money and time: more of them are a decision, and not an accident.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_takes_more_requests_than_it_needs() {
    let Some(dir) = folder() else { return };
    let proxy = proxy(Faults::default()).await;
    run_child(&proxy, dir.path(), "child_goes_through_a_day").await;
    let counts = proxy.marked();
    let sums: BTreeMap<_, u64> =
        counts.iter().map(|(step, counts)| (step.as_str(), counts.values().sum())).collect();
    println!("{sums:?}");
    for (step, most) in [
        ("append", 1),
        ("publication", 20),
        ("idle writer", 0),
        ("refresh", 1),
        ("page", 6),
        ("next page", 6),
        ("look-up", 6),
        ("next look-up", 6),
        ("with an empty cache", 12),
        ("with a full cache", 0),
        // 391 bundles of entries, as many tiles, and some more.
        ("import of 100,000", 830),
    ] {
        assert!(sums[step] <= most, "{step} takes {}, and not {most}: {counts:#?}", sums[step]);
    }
}

const TAKING_TURNS: WriterOptions = WriterOptions { take_turns: true };

#[test]
fn child_waits_for_its_turn() {
    child(async |dir| {
        let open = async || store(&dir).writer("auditlog", Kind::Auditlog, TAKING_TURNS).await.unwrap();
        let (busy, other) = (open().await, open().await);
        let appends: Vec<_> = (0..16)
            .map(|_| {
                let busy = busy.clone();
                tokio::spawn(async move {
                    loop {
                        append(&busy, 0, 1).await;
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            append(&other, 0, 1).await;
        }
        appends.iter().for_each(tokio::task::JoinHandle::abort);
        println!("\ntook turns");
    });
}

/// Whoever has put the last frame knows first which number is free, and would be first for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_appends_without_a_break_leaves_others_their_turn() {
    let Some(dir) = folder() else { return };
    let delay = (20, 20);
    let proxy = proxy(Faults { delay, ..Faults::default() }).await;
    let turns = run_child(&proxy, dir.path(), "child_waits_for_its_turn");
    let said =
        tokio::time::timeout(Duration::from_secs(40), turns).await.expect("the other writer gets its turn");
    assert!(said.contains("took turns"), "{said}");
}
