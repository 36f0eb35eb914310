//! Several processes write to one log at once, in every way there is, and are killed at any step: the
//! log is the list of what they say they appended.
//!
//! The test program runs itself as a child ([`child`]), which goes through random steps and says what it
//! begins and what was acknowledged. What was acknowledged is there under its ids, what was only begun is
//! there whole or not at all, nothing is there twice, and only what expired is gone.

#[allow(dead_code)]
mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{read, rows, store};
use sporlog_ledger::{Advance, Append, Error, Outcome, Writer, WriterOptions};
use sporlog_record::Kind;
use sporlog_record::kind::quarantine::{self, Action, QuarantineRecord};

const STORE: &str = "SPORLOG_TEST_PROCESSES_STORE";
const NUMBER: &str = "SPORLOG_TEST_PROCESSES_NUMBER";
const PROCESSES: u64 = 3;
/// Each process is begun so often, and goes through so many steps if it is not killed.
const LIVES: u64 = 4;
const STEPS: u64 = 14;
const ROUNDS: u64 = 6;
const TURNS: WriterOptions = WriterOptions { take_turns: true };

/// Another number at every call: what several processes do at once cannot be repeated anyway.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % below
}

/// The messages of one append, which no other append has.
fn messages(append: u64, count: u64) -> std::ops::Range<u64> {
    append * 10_000..append * 10_000 + count
}

/// One append, told of before and after.
async fn append(writer: &Writer, append: u64, count: u64) {
    println!("\nBEGUN {append} {count}");
    let range = messages(append, count);
    let positions = vec![(format!("source:{append}"), Advance::Once)];
    let outcome = writer.append(Append { rows: rows(range.start, range.end), positions }).await.unwrap();
    let Outcome::Appended(appended) = outcome else { panic!("{append} is there already: {outcome:?}") };
    println!("\nACK {append} {} {}", appended.first, appended.last);
}

/// The same as one bulk append. It is turned away, and leaves nothing, if others append meanwhile.
async fn bulk(writer: &Writer, append: u64, count: u64) {
    println!("\nBEGUN {append} {count}");
    let bulk = writer.bulk().await.unwrap();
    let pusher = bulk.pusher();
    let range = messages(append, count);
    let push = move || pusher.push(0, &rows(range.start, range.end)).unwrap();
    tokio::task::spawn_blocking(push).await.unwrap();
    match bulk.finish(vec![(format!("source:{append}"), Advance::Once)]).await {
        Ok(Outcome::Appended(appended)) => println!("\nACK {append} {} {}", appended.first, appended.last),
        Err(Error::Fenced { .. }) => println!("\nREFUSED {append}"),
        other => panic!("{other:?}"),
    }
}

async fn refuse(writer: &Writer, number: u64) {
    let record = QuarantineRecord {
        action: Action::Refused,
        item: None,
        kind: Kind::Auditlog.name().to_owned(),
        log: "auditlog".into(),
        source: format!("test:{number}"),
        line: None,
        reasons: Vec::new(),
        content: number.to_string().into_bytes(),
        envelope: None,
        note: None,
    };
    let rows = quarantine::rows(&[record], "test", 0);
    writer.append(Append { rows, positions: vec![] }).await.unwrap();
    println!("\nQUARANTINED {number}");
}

/// Does nothing unless the test below starts it.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(STORE) else { return };
    let number: u64 = std::env::var(NUMBER).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = store(Path::new(&dir));
        let writer = store.writer("auditlog", Kind::Auditlog, TURNS).await.unwrap();
        let refused = store.writer("quarantine", Kind::Quarantine, TURNS).await.unwrap();
        for step in 0..STEPS {
            let this = number * STEPS + step;
            match random(16) {
                0..6 => append(&writer, this, random(4)).await,
                6 => append(&writer, this, 200 + random(300)).await,
                7..10 => bulk(&writer, this, 1 + random(5_000)).await,
                10 | 11 => drop(writer.compact(Duration::from_secs(random(2) * 600)).await.unwrap()),
                12 => {
                    let expired = writer.expire("9999-01", false).await.unwrap();
                    println!("\nEXPIRED {}", expired.first_left - 1);
                }
                // A Delta checkpoint, and nothing else.
                13 => drop(writer.compact(Duration::from_secs(86_400)).await.unwrap()),
                _ => refuse(&refused, this).await,
            }
        }
        writer.close().await.unwrap();
        refused.close().await.unwrap();
        println!("\nDONE");
    });
}

fn start(dir: &Path, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(STORE, dir)
        .env(NUMBER, number.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The whole life of a child, which is killed after a while if `kill`; gives the lines that it wrote in
/// full.
fn live(dir: &Path, number: u64, kill: bool) -> Vec<String> {
    let mut child = start(dir, number);
    let killed = kill.then(|| {
        std::thread::sleep(Duration::from_millis(random(700)));
        child.kill().unwrap();
    });
    let mut said = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    // A line that a kill has cut off does not count.
    said.truncate(said.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let lines: Vec<_> = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let failed = !errors.is_empty() || (killed.is_none() && !lines.iter().any(|line| line == "DONE"));
    assert!(!failed, "process {number}: {errors}\n{}", lines.join("\n"));
    lines
}

/// What all processes said.
#[derive(Default)]
struct Said {
    /// How many records an append has.
    begun: BTreeMap<u64, u64>,
    /// The first and last id that an append was given.
    acknowledged: BTreeMap<u64, (u64, u64)>,
    refused: Vec<u64>,
    /// Records up to this id have expired.
    expired: u64,
    quarantined: Vec<String>,
}

impl Said {
    fn take(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        match words[..] {
            ["BEGUN", append, count] => drop(self.begun.insert(number(append), number(count))),
            ["ACK", append, first, last] => {
                let twice = self.acknowledged.insert(number(append), (number(first), number(last)));
                assert_eq!(twice, None, "{line}");
            }
            ["REFUSED", append] => self.refused.push(number(append)),
            ["EXPIRED", up_to] => self.expired = self.expired.max(number(up_to)),
            ["QUARANTINED", number] => self.quarantined.push(number.to_owned()),
            _ => {}
        }
    }
}

#[test]
fn a_log_that_several_processes_write_is_a_list() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let lives = std::thread::scope(|scope| {
            let process = |process: u64| {
                let dir = dir.path();
                // The last life of each comes to its end.
                let life = move |n: u64| live(dir, process * LIVES + n, n + 1 < LIVES && random(3) > 0);
                scope.spawn(move || (0..LIVES).flat_map(life).collect::<Vec<_>>())
            };
            let processes: Vec<_> = (0..PROCESSES).map(process).collect();
            processes.into_iter().map(|process| process.join().unwrap()).collect::<Vec<_>>()
        });
        let mut said = Said::default();
        lives.into_iter().flatten().for_each(|line| said.take(&line));
        eprintln!(
            "round {round}: {} begun, {} acknowledged, {} turned away, {} quarantined, expired up to {}",
            said.begun.len(),
            said.acknowledged.len(),
            said.refused.len(),
            said.quarantined.len(),
            said.expired
        );
        runtime.block_on(compare(dir.path(), &said));
    }
}

async fn compare(dir: &Path, said: &Said) {
    // Whatever the last one to be killed left is put in order by the next writer.
    for (name, kind) in [("auditlog", Kind::Auditlog), ("quarantine", Kind::Quarantine)] {
        store(dir).writer(name, kind, TURNS).await.unwrap().close().await.unwrap();
        let log = store(dir).log(name).await.unwrap();
        assert_eq!(log.verify(|_| ()).await.unwrap().problems, [], "{name}");
    }
    let log = store(dir).log("auditlog").await.unwrap();
    assert!(log.first() > said.expired, "the first is {}, and {} expired", log.first(), said.expired);
    let records = read(&log, 0, None).await;
    let ids = records.iter().map(|(id, _)| *id as u64);
    assert!(ids.eq(log.first()..=log.head()), "the ids are not contiguous");
    let mut there: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for (id, message) in records {
        let message: u64 = message.parse().unwrap();
        there.entry(message / 10_000).or_default().push((id as u64, message));
    }
    for (append, records) in &there {
        let count = said.begun.get(append).unwrap_or_else(|| panic!("{append} was never begun"));
        assert!(!said.refused.contains(append), "{append} was turned away and is there");
        // Whole, in order and once, but for what expired.
        let expected: Vec<_> = messages(*append, *count).collect();
        let found: Vec<_> = records.iter().map(|(_, message)| *message).collect();
        assert!(expected.ends_with(&found), "{append}: {} of {count}", found.len());
        let (first, last) = (records[0].0, records[records.len() - 1].0);
        assert_eq!(last - first + 1, found.len() as u64);
        assert!(found.len() == expected.len() || first == log.first(), "{append} has lost records");
        assert!(log.position(&format!("source:{append}")).is_some());
        if let Some(acknowledged) = said.acknowledged.get(append) {
            assert_eq!((first.max(acknowledged.0), last), (first, acknowledged.1), "{append}");
        }
    }
    for (append, (first, last)) in &said.acknowledged {
        let left = *last >= log.first() && first <= last;
        assert_eq!(there.contains_key(append), left, "{append}, acknowledged as {first} to {last}");
    }
    let refused = store(dir).log("quarantine").await.unwrap();
    use futures::TryStreamExt;
    let batches: Vec<_> = refused.read(0, None).try_collect().await.unwrap();
    let contents = batches.iter().flat_map(|batch| {
        use arrow::array::AsArray;
        let contents = batch.column_by_name("content").unwrap().as_binary::<i32>().clone();
        contents.iter().map(|c| String::from_utf8_lossy(c.unwrap()).into_owned()).collect::<Vec<_>>()
    });
    let contents: Vec<_> = contents.collect();
    for number in &said.quarantined {
        assert_eq!(contents.iter().filter(|content| *content == number).count(), 1, "{number}");
    }
}
