//! Whatever is changed, cut, removed or exchanged under a log's folder is found, and named.
//!
//! Every file is tried, not a choice of them: what need not be found (files that no version of the
//! table refers to, unfinished tiles of an earlier size) is worked out here from the Delta log and
//! the checkpoint, and a file that is neither the one nor the other fails the test.

#[allow(dead_code)]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use common::attacker::{
    LOG, add_file, append_commit, commits, complaints, copy, files, look, mend_chain, newest_add,
    read_parquet, replace_data_file, verify, write_parquet,
};
use common::{append, rows, store, writer};
use serde_json::Value;
use sporlog_ledger::{Advance, Error, Outcome, Writer};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

async fn bulk(writer: &Writer, from: u64, to: u64) {
    let bulk = writer.bulk().await.unwrap();
    let pusher = bulk.pusher();
    let push = move || pusher.push(0, &rows(from, to)).unwrap();
    tokio::task::spawn_blocking(push).await.unwrap();
    let outcome = bulk.finish(vec![("file:bulk".into(), Advance::To(to as i64))]).await.unwrap();
    assert!(matches!(outcome, Outcome::Appended(_)));
}

/// A log with a bit of everything in it: files small and large, a key index, a compaction with what
/// it left over, a Delta checkpoint, a commit and frames of the journal after it.
async fn varied_log(dir: &Path) {
    let writer = writer(dir).await;
    append(&writer, 0, 5).await;
    append(&writer, 5, 305).await;
    bulk(&writer, 305, 4_505).await;
    writer.compact(Duration::from_secs(3_600)).await.unwrap();
    append(&writer, 45_050, 45_059).await;
    writer.flush().await.unwrap();
    for n in 4_506..4_509u64 {
        append(&writer, n * 10, n * 10 + 9).await;
    }
    writer.close().await.unwrap();
}

/// A log whose oldest records have expired, twice.
async fn expired_log(dir: &Path) {
    let writer = writer(dir).await;
    append(&writer, 0, 300).await;
    writer.expire("9999-01", false).await.unwrap();
    append(&writer, 300, 302).await;
    append(&writer, 302, 310).await;
    writer.expire("9999-01", false).await.unwrap();
    append(&writer, 310, 400).await;
    writer.compact(Duration::ZERO).await.unwrap();
    writer.close().await.unwrap();
}

/// The files that the log consists of, and those that only lie about.
fn classify(log: &Path) -> (Vec<String>, Vec<String>) {
    let (mut live, mut gone) = (BTreeMap::new(), BTreeSet::new());
    let mut needed = BTreeSet::from(["tlog/checkpoint", "tlog/table", "tlog/key"].map(str::to_owned));
    for (version, actions) in commits(log).iter().enumerate() {
        needed.insert(format!("table/_delta_log/{version:020}.json"));
        for action in actions {
            if let Some(add) = action.get("add") {
                let indexed = add["tags"].get("sporlog.index").is_some();
                live.insert(add["path"].as_str().unwrap().to_owned(), indexed);
            }
            if let Some(remove) = action.get("remove") {
                let path = remove["path"].as_str().unwrap();
                live.remove(path);
                gone.insert(path.to_owned());
            }
        }
    }
    for (path, indexed) in live {
        needed.insert(format!("table/{path}"));
        if indexed {
            needed.insert(format!("index/{path}"));
        }
    }
    if let Ok(hint) = fs::read(log.join("table/_delta_log/_last_checkpoint")) {
        let version = serde_json::from_slice::<Value>(&hint).unwrap()["version"].as_u64().unwrap();
        needed.insert("table/_delta_log/_last_checkpoint".into());
        needed.insert(format!("table/_delta_log/{version:020}.checkpoint.parquet"));
    }
    let checkpoint = fs::read_to_string(log.join("tlog/checkpoint")).unwrap();
    let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    let mut level_size = size;
    for level in 0.. {
        for n in 0..level_size.div_ceil(256) {
            let width = (level_size - n * 256).min(256);
            let part = if width < 256 { format!(".p/{width}") } else { String::new() };
            needed.insert(format!("tlog/tile/{level}/{n:03}{part}"));
            if level == 0 {
                needed.insert(format!("tlog/tile/entries/{n:03}{part}"));
            }
        }
        level_size /= 256;
        if level_size == 0 {
            break;
        }
    }
    let there = files(log);
    let newest = format!("journal/{:020}", commits(log).len() - 1);
    needed.extend(there.iter().filter(|name| name.starts_with(&newest)).cloned());
    needed.extend(there.iter().filter(|name| name.starts_with("tlog/expired/")).cloned());
    let missing: Vec<_> = needed.difference(&there).collect();
    assert!(missing.is_empty(), "the log should have {missing:?}");
    let left: Vec<_> = there.difference(&needed).cloned().collect();
    for name in &left {
        let removed =
            ["table/", "index/"].iter().any(|f| name.strip_prefix(f).is_some_and(|p| gone.contains(p)));
        let lock = ["journal/lock", "journal/next"].contains(&name.as_str());
        // In a bucket, segments that the table has taken over stay for some time.
        let taken_over = name.starts_with("journal/0") && *name < newest;
        assert!(removed || lock || taken_over || is_stale_tile(name, size), "{name} belongs to nothing");
    }
    (needed.into_iter().collect(), left)
}

/// An unfinished tile of a size that the log had before.
fn is_stale_tile(name: &str, size: u64) -> bool {
    let Some((tile, width)) = name.strip_prefix("tlog/tile/").and_then(|t| t.split_once(".p/")) else {
        return false;
    };
    let (level, n) = tile.split_once('/').unwrap();
    let shift = 8 * level.parse::<u32>().unwrap_or(0);
    let hashes = n.parse::<u64>().unwrap() * 256 + width.parse::<u64>().unwrap();
    hashes <= size >> shift
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Remove,
    Swap(String),
}

/// What is done to a file: bytes changed here and there, with more of them where a Parquet file is
/// delicate, a cut, its loss, and its exchange for another.
fn damages(name: &str, length: usize, others: &[String], flips: usize, numbers: &mut Numbers) -> Vec<Damage> {
    let mut all = Vec::new();
    let flip = |at: usize, numbers: &mut Numbers| Damage::Flip(at, 1 + numbers.below(255) as u8);
    for _ in 0..flips {
        let at = numbers.below(length);
        all.push(flip(at, numbers));
    }
    if name.ends_with(".parquet") {
        for _ in 0..flips {
            let at = length - 1 - numbers.below(length.min(3_000));
            all.push(flip(at, numbers));
        }
    }
    all.push(Damage::Cut(numbers.below(length)));
    all.push(Damage::Remove);
    let other = &others[numbers.below(others.len())];
    if other != name {
        all.push(Damage::Swap(other.clone()));
    }
    all
}

/// What a problem with a file is named by: a frame's number follows the name of its segment, also where it is an object of
/// its own.
fn told(name: &str) -> &str {
    match name.strip_prefix("journal/").and_then(|frame| frame.split_once('/')) {
        Some((segment, _)) => &name[.."journal/".len() + segment.len()],
        None => name,
    }
}

/// Damages the files `names` of the log in `dir` one after the other; gives what went unnoticed.
async fn try_all(dir: PathBuf, names: Vec<String>, all: Arc<Vec<String>>, flips: usize) -> Vec<String> {
    let log = dir.join(LOG);
    let mut unnoticed = Vec::new();
    for name in names {
        let path = log.join(&name);
        let whole = fs::read(&path).unwrap();
        let mut numbers = Numbers(name.bytes().fold(7, |seed, b| seed.wrapping_mul(31) + u64::from(b)));
        for damage in damages(&name, whole.len(), &all, flips, &mut numbers) {
            let mut other = None;
            match &damage {
                Damage::Flip(at, with) => {
                    let mut bytes = whole.clone();
                    bytes[*at] ^= with;
                    fs::write(&path, bytes).unwrap();
                }
                Damage::Cut(to) => fs::write(&path, &whole[..*to]).unwrap(),
                Damage::Remove => fs::remove_file(&path).unwrap(),
                Damage::Swap(with) => {
                    let bytes = fs::read(log.join(with)).unwrap();
                    if bytes == whole {
                        continue;
                    }
                    fs::write(&path, &bytes).unwrap();
                    fs::write(log.join(with), &whole).unwrap();
                    other = Some((with.clone(), bytes));
                }
            }
            let found = look(&dir).await;
            let both: Vec<_> = [&name].into_iter().chain(other.as_ref().map(|(name, _)| name)).collect();
            // What the one vouches for cannot be judged without it.
            let alone = both.iter().any(|name| ["tlog/checkpoint", "tlog/table"].contains(&name.as_str()));
            let named = match &found {
                Ok(found) if !alone => both.iter().all(|name| found.iter().any(|c| c.contains(told(name)))),
                Ok(found) => both.iter().any(|name| found.iter().any(|c| c.contains(told(name)))),
                // Of two that are damaged, it takes but one.
                Err(error) => both.iter().any(|name| error.contains(told(name))),
            };
            if !named {
                unnoticed.push(format!("{name} {damage:?}: {found:?}"));
            }
            fs::write(&path, &whole).unwrap();
            if let Some((name, bytes)) = other {
                fs::write(log.join(name), bytes).unwrap();
            }
        }
    }
    unnoticed
}

/// Tries all files of the log in `dir`, in two copies of it side by side.
async fn every_file(dir: &Path, flips: usize) {
    assert_eq!(complaints(dir).await, [""; 0]);
    let (needed, _) = classify(&dir.join(LOG));
    let all = Arc::new(needed);
    let copies = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut tasks = Vec::new();
    for (n, copied) in copies.iter().enumerate() {
        copy(dir, copied.path());
        let mine = all.iter().skip(n).step_by(copies.len()).cloned().collect();
        tasks.push(tokio::spawn(try_all(copied.path().to_owned(), mine, all.clone(), flips)));
    }
    let mut unnoticed = Vec::new();
    for task in tasks {
        unnoticed.extend(task.await.unwrap());
    }
    assert!(unnoticed.is_empty(), "{} went unnoticed or unnamed:\n{}", unnoticed.len(), unnoticed.join("\n"));
    for copied in &copies {
        assert_eq!(complaints(copied.path()).await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_any_file_is_found_and_the_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    let (needed, left) = classify(&dir.path().join(LOG));
    let has = |part: &str| needed.iter().any(|name| name.contains(part));
    for part in
        ["journal/", "index/", "checkpoint.parquet", "_last_checkpoint", ".p/", "tile/1/", "tile/entries/"]
    {
        assert!(has(part), "{part} is not among {needed:?}");
    }
    assert!(left.iter().any(|name| name.ends_with(".parquet")), "{left:?}");
    every_file(dir.path(), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_log_with_expired_records_is_found_too() {
    let dir = tempfile::tempdir().unwrap();
    expired_log(dir.path()).await;
    let (needed, _) = classify(&dir.path().join(LOG));
    assert_eq!(needed.iter().filter(|name| name.starts_with("tlog/expired/")).count(), 2);
    every_file(dir.path(), 12).await;
}

/// The data files that there are, oldest first, as the Delta log has them.
fn live_files(log: &Path) -> Vec<String> {
    let (needed, _) = classify(log);
    needed.iter().filter_map(|n| n.strip_prefix("table/month=").map(|n| format!("month={n}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_exchanged_by_someone_who_forges_all_but_the_signature_are_found() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    let log = dir.path().join(LOG);
    let file = live_files(&log).pop().unwrap();
    let batch = read_parquet(&log.join("table").join(&file));
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    order.swap(2, 5);
    let order = UInt32Array::from(order);
    // The ids stay where they are; the rest of the two rows changes places.
    let exchange = |(n, column): (usize, &ArrayRef)| match n {
        0 => column.clone(),
        _ => take(column, &order, None).unwrap(),
    };
    let columns: Vec<_> = batch.columns().iter().enumerate().map(exchange).collect();
    let forged = RecordBatch::try_new(batch.schema(), columns).unwrap();
    assert_ne!(forged, batch);
    replace_data_file(&log, &file, &write_parquet(&forged));
    mend_chain(&log);

    let found = complaints(dir.path()).await;
    assert!(found.iter().any(|c| c.starts_with("tlog/tile/entries/") && c.contains(&file)), "{found:?}");
    assert!(!found.iter().any(|c| c.contains("digest is not the recorded one")), "{found:?}");
    // By those without the log's secret, too: the commits are not those that were signed for.
    fs::remove_dir_all(dir.path().join("keys")).unwrap();
    let found = complaints(dir.path()).await;
    assert!(found.iter().any(|c| c.contains("are not those that were signed for")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_added_at_the_end_by_someone_without_the_keys_is_found() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    let log = dir.path().join(LOG);
    let like = newest_add(&log);
    let version = commits(&log).len();
    // A file with one record more, which says what the intruder would like to have been there.
    let batch = read_parquet(&log.join("table").join(like["path"].as_str().unwrap())).slice(0, 1);
    let size = store(dir.path()).log("auditlog").await.unwrap().head() + 1;
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(arrow::array::Int64Array::from(vec![size as i64]));
    let forged = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let add = add_file(&log, &like, &forged, (size, size));
    append_commit(&log, size, &[serde_json::json!({"add": add})]);
    let found = complaints(dir.path()).await;
    assert!(found.iter().any(|c| c.contains(&format!("{version:020}.json"))), "{found:?}");
    // And nobody builds on it.
    let refused = store(dir.path())
        .writer("auditlog", sporlog_record::Kind::Auditlog, sporlog_ledger::WriterOptions::default())
        .await;
    assert!(matches!(&refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_put_back_is_found_with_a_newer_checkpoint() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    varied_log(dir.path()).await;
    copy(dir.path(), old.path());
    let writer = writer(dir.path()).await;
    append(&writer, 90_000, 90_001).await;
    writer.close().await.unwrap();
    let log = store(dir.path()).log("auditlog").await.unwrap();
    let newer = log.checkpoint().await.unwrap();
    assert_eq!(log.verify_since(&newer).await.unwrap(), (log.head(), log.head()));

    let log = store(old.path()).log("auditlog").await.unwrap();
    let earlier = log.checkpoint().await.unwrap();
    // By itself, the old copy is in order.
    assert_eq!(complaints(old.path()).await, [""; 0]);
    let error = log.verify_since(&newer).await.unwrap_err().to_string();
    assert!(error.contains("the log has shrunk"), "{error}");

    // Grown again, with other records: longer, and still not the same log.
    let writer = common::writer(old.path()).await;
    append(&writer, 80_000, 80_010).await;
    writer.close().await.unwrap();
    let log = store(old.path()).log("auditlog").await.unwrap();
    let error = log.verify_since(&newer).await.unwrap_err().to_string();
    assert!(error.contains("it was rewritten"), "{error}");
    log.verify_since(&earlier).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn someone_without_the_keys_verifies_all_but_the_commitments() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    fs::remove_dir_all(dir.path().join("keys")).unwrap();
    let verified = verify(store(dir.path())).await.unwrap();
    assert_eq!((verified.problems, verified.records, verified.with_secret), (vec![], 0, false));
    let log = dir.path().join(LOG);
    let (mut needed, _) = classify(&log);
    // Without the keys, the copy of the public key is all there is to go by.
    needed.retain(|name| name != "tlog/key");
    let needed = Arc::new(needed);
    let unnoticed = try_all(dir.path().to_owned(), needed.to_vec(), needed.clone(), 1).await;
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
}
