//! Copies of a log that is written to, compacted and expired meanwhile, by runs that are killed.
//!
//! The test program runs itself as a child ([`child`]) that makes a copy, and kills it. The record with the
//! id n has the message n - 1, so that what is in a copy can be told from its ids.

#[allow(dead_code)]
mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{append, read, store, writer};
use sporlog_ledger::{Backup, Copied, Error, Log, Store, Writer, WriterOptions};
use sporlog_record::Kind;

const FROM: &str = "SPORLOG_TEST_BACKUP_FROM";
const TO: &str = "SPORLOG_TEST_BACKUP_TO";
/// Runs that are killed, before each run that is not, and how often that is done.
const KILLS: usize = 4;
const RUNS: usize = 3;

/// A child has the locks of this process for the moment between its fork and its start, so that the tests that
/// take them run one after the other.
static IN_TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Does nothing unless the test below starts it.
#[test]
fn child() {
    let (Some(from), Some(to)) = (std::env::var_os(FROM), std::env::var_os(TO)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(copy(Path::new(&from), Path::new(&to)));
}

async fn copy(from: &Path, to: &Path) -> Copied {
    let backup = Backup::create(to).unwrap();
    let log = store(from).log("auditlog").await.unwrap();
    let copied = log.copy_to(backup.store(), |_| ()).await.unwrap();
    backup.finish().unwrap();
    copied
}

fn start(from: &Path, to: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1"])
        .env(FROM, from)
        .env(TO, to)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Where a kill hits cannot be repeated anyway.
fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % below
}

/// Appends one to three records at a time, and counts those that are acknowledged.
async fn keep_appending(writer: Writer, stop: Arc<AtomicBool>, head: Arc<AtomicU64>) {
    let mut next = writer.log().head();
    while !stop.load(Ordering::Acquire) {
        let count = 1 + next % 3;
        next = append(&writer, next, next + count).await.last;
        head.store(next, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Merges files, and now and then removes all that is there.
async fn keep_house(writer: Writer, stop: Arc<AtomicBool>) {
    for round in 1.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        writer.compact(Duration::ZERO).await.unwrap();
        if round % 12 == 0 {
            writer.expire("2099-01", false).await.unwrap();
        }
    }
}

async fn check(log: &Log, copied: &Copied) {
    assert_eq!(copied.problems, []);
    assert_eq!((log.first(), log.head()), (copied.first, copied.head));
    let records = read(log, 0, None).await;
    assert_eq!(records.len() as u64, copied.head + 1 - copied.first);
    for ((id, message), expected) in records.into_iter().zip(copied.first..) {
        assert_eq!((id as u64, message), (expected, (expected - 1).to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_use_is_copied_by_runs_that_are_killed_and_goes_on_from_its_copy() {
    let _turn = IN_TURN.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let (from, to, new) = (dir.path().join("store"), dir.path().join("backup"), dir.path().join("new"));
    let busy = writer(&from).await;
    append(&busy, 0, 700).await;
    // In a bucket, the first checkpoint may take some seconds; without it, a log does not verify.
    while busy.log().covered().await.unwrap() < 700 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (stop, head) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(700)));
    let appending = tokio::spawn(keep_appending(busy.clone(), stop.clone(), head.clone()));
    let housekeeping = tokio::spawn(keep_house(busy.clone(), stop.clone()));
    let mut previous = 0;
    for run in 0..RUNS {
        for _ in 0..KILLS {
            let mut child = start(&from, &to);
            tokio::time::sleep(Duration::from_micros(random(400_000))).await;
            child.kill().unwrap();
            child.wait().unwrap();
            // What the last run made is whole, or there is more already.
            if run > 0 {
                let copy = Backup::open(&to).unwrap().store().log("auditlog").await.unwrap();
                assert!(copy.head() >= previous, "{} after {previous}", copy.head());
            }
        }
        // Something is appended during each run, on a busy machine as well.
        while head.load(Ordering::Acquire) < (700 + 120 * (run + 1) / RUNS) as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let acknowledged = head.load(Ordering::Acquire);
        let copied = copy(&from, &to).await;
        assert!(copied.head >= acknowledged, "{copied:?} after {acknowledged}");
        check(&Backup::open(&to).unwrap().store().log("auditlog").await.unwrap(), &copied).await;
        previous = copied.head;
    }
    stop.store(true, Ordering::Release);
    appending.await.unwrap();
    housekeeping.await.unwrap();
    busy.close().await.unwrap();
    assert!(previous > 800, "hardly anything was appended meanwhile: {previous}");

    // Nothing is in the copy that it does not need, and nothing is copied twice.
    copy(&from, &to).await;
    let again = copy(&from, &to).await;
    assert!(again.files <= 4, "{again:?}");
    let data =
        |dir: &Path| files(&dir.join("logs/auditlog")).into_iter().filter(|name| name.contains("month="));
    assert!(data(&to).count() <= 2 * data(&from).count());

    let copied = restore(&to, &new).await;
    check(&store(&new).log("auditlog").await.unwrap(), &copied).await;
    std::fs::create_dir_all(new.join("keys")).unwrap();
    std::fs::copy(from.join("keys/auditlog.key"), new.join("keys/auditlog.key")).unwrap();
    let restored = writer(&new).await;
    let appended = append(&restored, copied.head, copied.head + 10).await;
    assert_eq!(appended.first, copied.head + 1);
    restored.compact(Duration::ZERO).await.unwrap();
    restored.close().await.unwrap();
    let log = store(&new).log("auditlog").await.unwrap();
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
    assert_eq!(log.head(), copied.head + 10);

    // The copy is now an earlier state of two logs that have gone different ways; each may be backed up to
    // where its own beginning is, and the other's copy is not overwritten.
    copy(&new, &to).await;
    let busy = writer(&from).await;
    append(&busy, copied.head, copied.head + 1).await;
    busy.close().await.unwrap();
    let backup = Backup::create(&to).unwrap();
    let refused = store(&from).log("auditlog").await.unwrap().copy_to(backup.store(), |_| ()).await;
    assert!(matches!(refused, Err(Error::Copy { .. })), "{refused:?}");
}

async fn restore(from: &Path, to: &Path) -> Copied {
    let backup = Backup::open(from).unwrap();
    let log = backup.store().log("auditlog").await.unwrap();
    log.copy_to(&store(to).without_keys(), |_| ()).await.unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_a_copy_is_copied_again_and_what_is_damaged_in_the_log_is_told() {
    let _turn = IN_TURN.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("store"), dir.path().join("backup"));
    let writer = writer(&from).await;
    for n in 0..4 {
        append(&writer, n * 100, n * 100 + 100).await;
    }
    writer.compact(Duration::ZERO).await.unwrap();
    append(&writer, 400, 410).await;
    writer.close().await.unwrap();
    let newest = copy(&from, &to).await;
    assert_eq!(newest.problems, []);
    let newest = newest.version;
    let folder = to.join("logs/auditlog");
    for name in files(&folder) {
        let whole = std::fs::read(&name).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&name, changed).unwrap();
        // The newest commit of a copy says whether it is one of this log.
        let newest = name.ends_with(&format!("{newest:020}.json"));
        if !newest {
            assert_eq!(copy(&from, &to).await.problems, [], "{name}");
            assert_eq!(std::fs::read(&name).unwrap(), whole, "{name}");
        } else {
            std::fs::write(&name, &whole).unwrap();
        }
        // Cut off, as by a crash.
        std::fs::write(&name, &whole[..whole.len() / 2]).unwrap();
        if !newest {
            assert_eq!(copy(&from, &to).await.problems, [], "{name}");
        } else {
            std::fs::write(&name, &whole).unwrap();
        }
    }
    let tile = from.join("logs/auditlog/tlog/tile/0/000");
    let mut changed = std::fs::read(&tile).unwrap();
    changed[100] ^= 1;
    std::fs::write(&tile, changed).unwrap();
    // The copy had this file, and still has it as it should be.
    assert_eq!(copy(&from, &to).await.problems, []);
    let other = dir.path().join("other");
    assert!(copy(&from, &other).await.problems.iter().any(|p| p.file.contains("tile/0/000")));
    let data = files(&from.join("logs/auditlog/table")).into_iter().find(|name| name.contains("month="));
    std::fs::remove_file(data.unwrap()).unwrap();
    let backup = Backup::create(&dir.path().join("third")).unwrap();
    let lost = store(&from).log("auditlog").await.unwrap().copy_to(backup.store(), |_| ()).await;
    assert!(matches!(lost, Err(Error::Damaged { .. })), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_for_one_process_at_a_time_and_no_other_folder_is_one() {
    let _turn = IN_TURN.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let backup = Backup::create(&dir.path().join("backup")).unwrap();
    assert!(matches!(Backup::create(&dir.path().join("backup")), Err(Error::Location { .. })));
    assert!(matches!(Backup::open(&dir.path().join("backup")), Err(Error::Location { .. })));
    backup.finish().unwrap();
    drop(backup);
    Backup::open(&dir.path().join("backup")).unwrap();
    std::fs::create_dir(dir.path().join("other")).unwrap();
    std::fs::write(dir.path().join("other/file"), "").unwrap();
    assert!(matches!(Backup::create(&dir.path().join("other")), Err(Error::Location { .. })));
    // Nobody makes a log there that would have keys of its own.
    let made = |store: Store| async move {
        store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await.map(drop)
    };
    assert!(made(store(&dir.path().join("new")).without_keys()).await.is_err());
}
