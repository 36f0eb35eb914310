//! Killed with SIGKILL at random moments, over and over: nothing acknowledged is lost, nothing is
//! there twice, and the log verifies.
//!
//! The test program runs itself as a child ([`child`]) that appends in every way there is, and says
//! what was acknowledged only after it was. What a source sends is a function of its name and its
//! position, so that whatever is in the log in the end can be recomputed.

#[allow(dead_code)]
mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{read, rows, store};
use sporlog_ledger::{Advance, Append, Outcome, Store, Writer, WriterOptions};
use sporlog_record::Kind;

const STORE: &str = "SPORLOG_TEST_CRASH_STORE";
const KILLS: usize = 100;
/// Sources that append a few records at a time, and the one that appends many.
const SOURCES: u64 = 4;
const BULK: u64 = SOURCES;

fn app(source: u64) -> String {
    format!("source:{source}")
}

/// The messages that `source` sends at `position`.
fn sent(source: u64, position: i64) -> std::ops::Range<u64> {
    let start = (source + 1) * 1_000_000_000 + position as u64 * 10_000;
    let count = match source {
        BULK if position % 8 == 0 => 4_200,
        BULK => 100 + position as u64 * 37 % 500,
        _ => 1 + (position as u64 * 7 + source) % 9,
    };
    start..start + count
}

async fn open(store: Store) -> Writer {
    store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await.unwrap()
}

fn acknowledged(source: u64, position: i64, outcome: &Outcome, resent: bool) {
    match outcome {
        Outcome::Appended(_) if resent => println!("\nTWICE {source} {position}"),
        Outcome::Appended(a) => println!("\nACK {source} {position} {} {}", a.first, a.last),
        Outcome::AlreadyThere { .. } if resent => {}
        Outcome::AlreadyThere { .. } => println!("\nREFUSED {source} {position}"),
    }
}

/// Goes on from the source's position in the log, having sent once more what is there already.
async fn few_at_a_time(writer: Writer, source: u64) {
    let there = writer.log().position(&app(source)).map_or(-1, |p| p.version);
    for position in there.max(0).. {
        let range = sent(source, position);
        let append = Append {
            rows: rows(range.start, range.end),
            positions: vec![(app(source), Advance::To(position))],
        };
        let outcome = writer.append(append).await.unwrap();
        acknowledged(source, position, &outcome, position <= there);
    }
}

async fn many_at_a_time(writer: Writer) {
    let there = writer.log().position(&app(BULK)).map_or(-1, |p| p.version);
    for position in there.max(0).. {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let bulk = writer.bulk().await.unwrap();
        let pushers = [bulk.pusher(), bulk.pusher()];
        let push = move |part: u64, pusher: sporlog_ledger::BulkPusher| {
            let range = sent(BULK, position);
            let middle = range.start + (range.end - range.start) / 3;
            let part_rows = if part == 0 { rows(range.start, middle) } else { rows(middle, range.end) };
            pusher.push(part, &part_rows).unwrap();
        };
        let parts =
            (0u64..).zip(pushers).map(|(n, pusher)| tokio::task::spawn_blocking(move || push(n, pusher)));
        for part in parts.collect::<Vec<_>>() {
            part.await.unwrap();
        }
        let outcome = bulk.finish(vec![(app(BULK), Advance::To(position))]).await.unwrap();
        acknowledged(BULK, position, &outcome, position <= there);
    }
}

async fn housekeeping(writer: Writer) {
    loop {
        tokio::time::sleep(Duration::from_millis(70)).await;
        writer.compact(Duration::ZERO).await.unwrap();
    }
}

/// Does nothing unless the tests below start it.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(STORE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let writer = open(store(Path::new(&dir))).await;
        println!("\nREADY");
        let mut tasks =
            vec![tokio::spawn(housekeeping(writer.clone())), tokio::spawn(many_at_a_time(writer.clone()))];
        tasks.extend((0..SOURCES).map(|source| tokio::spawn(few_at_a_time(writer.clone(), source))));
        let (ended, ..) = futures::future::select_all(tasks).await;
        println!("\nFAILED {ended:?}");
        std::process::exit(1);
    });
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(STORE, dir)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts a child and kills it after `delay`, counted from when it is ready if `ready`; gives the
/// lines that it wrote in full.
fn run_and_kill(dir: &Path, delay: Duration, ready: bool) -> Vec<String> {
    let mut child = start(dir);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (sender, is_ready) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let (mut lines, mut line) = (Vec::new(), String::new());
        while output.read_line(&mut line).unwrap_or(0) > 0 {
            // The last line may have been cut off.
            if let Some(whole) = line.strip_suffix('\n') {
                if whole == "READY" || whole.starts_with("FAILED") {
                    let _ = sender.send(());
                }
                lines.push(whole.to_owned());
            }
            line.clear();
        }
        lines
    });
    if ready {
        let _ = is_ready.recv_timeout(Duration::from_secs(30));
    }
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Another number at every call: where a kill hits cannot be repeated anyway.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % below
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_a_hundred_kills() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut acks: BTreeMap<u64, (u64, i64, u64)> = BTreeMap::new();
    let begun = Instant::now();
    let mut ready_runs = 0;
    for kill in 1..=KILLS {
        // One in four is killed while it is starting, which is when it recovers.
        let ready = kill % 4 != 0;
        let delay = Duration::from_micros(random(if ready { 400_000 } else { 120_000 }));
        for line in run_and_kill(dir.path(), delay, ready) {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["ACK", source, position, first, last] => {
                    let number = |text: &str| text.parse::<u64>().unwrap();
                    let ack = (number(source), position.parse().unwrap(), number(last));
                    let other = acks.insert(number(first), ack);
                    assert_eq!(other, None, "kill {kill}: the id {first} was given twice");
                }
                ["READY"] => ready_runs += 1,
                ["TWICE" | "REFUSED" | "FAILED", ..] => panic!("kill {kill}: {line}"),
                _ => {}
            }
        }
        if kill % 10 == 0 {
            // Whoever reads only sees what a writer would, and nothing is wrong once one has been there.
            runtime.block_on(async {
                let before = store(dir.path()).log("auditlog").await.unwrap().head();
                let writer = open(store(dir.path())).await;
                assert_eq!(writer.log().head(), before);
                writer.close().await.unwrap();
                let verified = store(dir.path()).log("auditlog").await.unwrap().verify(|_| ()).await.unwrap();
                assert_eq!(verified.problems, [], "after {kill} kills");
            });
        }
    }
    runtime.block_on(check(dir.path(), &acks));
    eprintln!(
        "{KILLS} kills, {ready_runs} of them of a running writer, {} acknowledgements, {:?}",
        acks.len(),
        begun.elapsed()
    );
    assert!(acks.len() > KILLS, "only {} acknowledgements", acks.len());
}

/// Everything that is in the log, against what was sent and what was acknowledged.
async fn check(dir: &Path, acks: &BTreeMap<u64, (u64, i64, u64)>) {
    let log = store(dir).log("auditlog").await.unwrap();
    let records = read(&log, 0, None).await;
    assert_eq!(records.len() as u64, log.head());
    assert!(records.iter().zip(1..).all(|((id, _), n)| *id == n), "the ids are not contiguous");
    let messages: Vec<u64> = records.into_iter().map(|(_, message)| message.parse().unwrap()).collect();
    for (first, (source, position, last)) in acks {
        let there = messages.get(*first as usize - 1..*last as usize);
        let expected: Vec<_> = sent(*source, *position).collect();
        assert_eq!(there, Some(&expected[..]), "acknowledged as {first} to {last}");
    }
    // Each source's records up to its position: all of them, in order, once.
    let mut by_source: HashMap<u64, Vec<u64>> = HashMap::new();
    for message in messages {
        by_source.entry(message / 1_000_000_000 - 1).or_default().push(message);
    }
    for source in 0..=SOURCES {
        let position = log.position(&app(source)).map_or(-1, |p| p.version);
        let expected: Vec<_> = (0..=position).flat_map(|p| sent(source, p)).collect();
        let there = by_source.remove(&source).unwrap_or_default();
        assert!(there == expected, "source {source}: {} records, not {}", there.len(), expected.len());
        let newest = acks.values().filter(|(s, ..)| *s == source).map(|(_, p, _)| *p).max();
        assert!(
            newest.is_none_or(|newest| newest <= position),
            "source {source} was acknowledged {newest:?}"
        );
    }
    assert!(by_source.is_empty());
}

#[test]
fn a_log_whose_making_was_interrupted_can_be_made() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for _ in 0..25 {
        let dir = tempfile::tempdir().unwrap();
        run_and_kill(dir.path(), Duration::from_micros(random(40_000)), false);
        runtime.block_on(async {
            open(store(dir.path())).await.close().await.unwrap();
            let log = store(dir.path()).log("auditlog").await.unwrap();
            assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
        });
    }
}

/// Writing a tile is not atomic. That does no harm as long as none is written that a published
/// checkpoint needs.
#[test]
fn a_published_tile_is_never_written_again() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let tiles = dir.path().join("logs/auditlog/tlog/tile");
    let states = || {
        let mut states = BTreeMap::new();
        let mut folders = vec![tiles.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let about = path.metadata().unwrap();
                if about.is_dir() {
                    folders.push(path);
                } else {
                    states.insert(path, (about.ino(), about.mtime(), about.mtime_nsec(), about.size()));
                }
            }
        }
        states
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut published = BTreeMap::new();
        let mut next = 0;
        for (round, count) in [700, 1, 300, 0, 5, 256, 90].into_iter().enumerate() {
            let writer = open(store(dir.path())).await;
            common::append(&writer, next, next + count).await;
            next += count;
            writer.close().await.unwrap();
            let now = states();
            for (path, before) in &published {
                // Gone, if it was unfinished and is finished now.
                let after = now.get(path);
                assert!(after.is_none_or(|after| after == before), "{path:?} was written in round {round}");
            }
            published = now;
        }
    });
}
