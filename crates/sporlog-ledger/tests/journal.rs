//! The journal: what a crash leaves of it, what somebody without the key can do to it, and when it becomes a file of
//! the table.

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::attacker::{LOG, commits, complaints, copy, files};
use common::{append, append_file, read, rows, store, writer};
use sha2::{Digest, Sha256};
use sporlog_ledger::{Advance, Append, Error, Outcome, Store, StoreOptions, Writer, WriterOptions};
use sporlog_record::Kind;
use tempfile::TempDir;

/// The segment after the newest commit.
fn segment(dir: &Path) -> PathBuf {
    let log = dir.join(LOG);
    log.join(format!("journal/{:020}", commits(&log).len() - 1))
}

/// The frames in the bytes of a segment.
fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some(length) = rest.first_chunk::<4>() {
        let (frame, more) = rest.split_at(4 + u32::from_le_bytes(*length) as usize);
        frames.push(frame);
        rest = more;
    }
    frames
}

/// The bytes of a segment: one file, or in a bucket one object a frame.
fn read_segment(path: &Path) -> Vec<u8> {
    if !path.is_dir() {
        return fs::read(path).unwrap();
    }
    files(path).iter().flat_map(|name| fs::read(path.join(name)).unwrap()).collect()
}

/// Has a segment consist of these bytes.
fn write_segment(path: &Path, bytes: &[u8]) {
    if std::env::var_os("SPORLOG_TEST_BUCKET").is_none() {
        return fs::write(path, bytes).unwrap();
    }
    let _ = fs::remove_dir_all(path);
    fs::create_dir_all(path).unwrap();
    let (mut rest, mut number) = (bytes, 0);
    while !rest.is_empty() {
        let length =
            rest.first_chunk::<4>().map_or(rest.len(), |length| 4 + u32::from_le_bytes(*length) as usize);
        let (frame, more) = rest.split_at(length.min(rest.len()));
        (rest, number) = (more, number + 1);
        fs::write(path.join(format!("{number:010}")), frame).unwrap();
    }
}

fn remove_segment(path: &Path) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// A log of 20 records in the table and then four frames of five records each, published; gives the segment.
async fn log_in(dir: &Path) -> PathBuf {
    let writer = writer(dir).await;
    append_file(&writer, 0, 20).await;
    for n in 4..8 {
        append(&writer, n * 5, n * 5 + 5).await;
    }
    writer.close().await.unwrap();
    segment(dir)
}

async fn open_writer(dir: &Path) -> Result<Writer, Error> {
    store(dir).writer("auditlog", Kind::Auditlog, WriterOptions { take_turns: true }).await
}

/// All that is there, and that it is in order.
async fn assert_whole(dir: &Path, count: u64) {
    let log = store(dir).log("auditlog").await.unwrap();
    let expected: Vec<_> = (0..count).map(|n| (n as i64 + 1, n.to_string())).collect();
    assert_eq!(read(&log, 0, None).await, expected);
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_off_and_the_log_goes_on() {
    if common::needs_a_disk("an object is there as a whole or not at all") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = log_in(dir.path()).await;
    let whole = fs::read(&path).unwrap();
    let newest = frames(&whole)[3].to_vec();
    // What a crash may leave of one more frame: any part of it, all of it but for a page, or no byte of it.
    let mut torn: Vec<Vec<u8>> =
        [1, 4, 7, newest.len() / 2, newest.len() - 1].map(|n| newest[..n].to_vec()).into();
    let mut without_a_page = newest.clone();
    without_a_page[newest.len() / 2..].fill(0);
    torn.extend([without_a_page, vec![0; 5_000]]);
    let mut count = 40;
    for tail in torn {
        let there = fs::read(&path).unwrap();
        fs::write(&path, [&there[..], &tail].concat()).unwrap();
        // Readers stop before it, and verification does not mind it: it was never acknowledged.
        assert_whole(dir.path(), count).await;
        assert_eq!(fs::read(&path).unwrap().len(), there.len() + tail.len());
        let writer = open_writer(dir.path()).await.unwrap();
        assert_eq!(append(&writer, count, count + 1).await.first, count + 1);
        writer.close().await.unwrap();
        count += 1;
        assert!(fs::read(&path).unwrap().starts_with(&there));
        assert_whole(dir.path(), count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_were_signed_for_are_missed() {
    let dir = TempDir::new().unwrap();
    let path = log_in(dir.path()).await;
    let whole = read_segment(&path);
    let ends: Vec<usize> = frames(&whole)
        .iter()
        .scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        })
        .collect();
    let name = format!("journal/{}", path.file_name().unwrap().to_str().unwrap());
    for cut in [0, 1, ends[0], ends[1] + 3, ends[2], ends[3] - 1] {
        write_segment(&path, &whole[..cut]);
        let size = 20 + 5 * ends.iter().filter(|end| **end <= cut).count() as u64;
        for error in
            [store(dir.path()).log("auditlog").await.unwrap_err(), open_writer(dir.path()).await.unwrap_err()]
        {
            // In a bucket, no frame is torn by a crash: that is damage.
            let torn = common::in_a_bucket() && cut > 0 && !ends.contains(&cut);
            let expected = match &error {
                Error::RolledBack { size: there, signed: 40, .. } => *there == size && !torn,
                Error::Damaged { .. } => torn,
                _ => false,
            };
            assert!(expected, "{cut}: {error}");
        }
        // Nothing is cut off of what was signed.
        assert_eq!(read_segment(&path), whole[..cut]);
        let found = complaints(dir.path()).await;
        assert!(found.iter().any(|problem| problem.starts_with(&name)), "{cut}: {found:?}");
    }
    remove_segment(&path);
    assert!(matches!(
        store(dir.path()).log("auditlog").await,
        Err(Error::RolledBack { size: 20, signed: 40, .. })
    ));
    assert!(complaints(dir.path()).await.iter().any(|problem| problem.starts_with(&name)));
    write_segment(&path, &whole);
    assert_whole(dir.path(), 40).await;
}

/// Gives a frame the digest that belongs to it, as somebody would who covers up a change.
fn mended(mut frame: Vec<u8>) -> Vec<u8> {
    let end = frame.len() - 32;
    let digest = Sha256::digest(&frame[..end]);
    frame[end..].copy_from_slice(&digest);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_somebody_without_the_key_makes_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = log_in(dir.path()).await;
    let whole = read_segment(&path);
    let part: Vec<Vec<u8>> = frames(&whole).into_iter().map(<[u8]>::to_vec).collect();
    // Another person in a record, with the right digest.
    let person = b"0000000021";
    let at = |frame: &[u8]| frame.windows(10).position(|window| window == person);
    let mut changed = part[0].clone();
    let place = at(&changed).unwrap();
    changed[place..place + 10].copy_from_slice(b"0000000099");
    let order = |order: &[usize]| order.iter().flat_map(|n| part[*n].clone()).collect::<Vec<_>>();
    let attacks = [
        [mended(changed), order(&[1, 2, 3])].concat(),
        order(&[0, 1, 2, 3, 3]),
        order(&[0, 1, 2, 3, 0]),
        order(&[0, 2, 1, 3]),
        order(&[1, 2, 3]),
        order(&[0, 2, 3]),
        order(&[0, 0, 1, 2, 3]),
    ];
    let name = format!("journal/{}", path.file_name().unwrap().to_str().unwrap());
    let names = |error: Error| {
        let text = error.to_string();
        assert!(text.contains(&name), "{name} is not named by: {text}");
    };
    for attack in attacks {
        write_segment(&path, &attack);
        names(store(dir.path()).log("auditlog").await.unwrap_err());
        names(open_writer(dir.path()).await.unwrap_err());
        let found = complaints(dir.path()).await;
        assert!(found.iter().any(|problem| problem.contains(&name)), "{found:?}");
        // By those without the keys, too.
        let handed_out = TempDir::new().unwrap();
        copy(&dir.path().join("logs"), &handed_out.path().join("logs"));
        let without_keys = store(handed_out.path()).without_keys();
        names(without_keys.log("auditlog").await.unwrap_err());
        let verified = without_keys.log_to_verify("auditlog").await.unwrap().verify(|_| ()).await.unwrap();
        assert!(verified.problems.iter().any(|problem| problem.file == name), "{:?}", verified.problems);
    }
    write_segment(&path, &whole);
    assert_whole(dir.path(), 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_put_back_and_went_on_elsewhere_is_refused() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    log_in(dir.path()).await;
    copy(dir.path(), elsewhere.path());
    for (dir, from) in [(dir.path(), 1_000), (elsewhere.path(), 2_000)] {
        let writer = writer(dir).await;
        append(&writer, from, from + 3).await;
        writer.close().await.unwrap();
    }
    // As many frames, then more frames, taken over by a commit.
    for step in 0..3 {
        let writer = writer(elsewhere.path()).await;
        match step {
            0 => {}
            1 => drop(append(&writer, 3_000, 3_010).await),
            _ => writer.flush().await.unwrap(),
        }
        writer.close().await.unwrap();
        fs::remove_dir_all(dir.path().join("logs")).unwrap();
        copy(&elsewhere.path().join("logs"), &dir.path().join("logs"));
        let error = store(dir.path()).log("auditlog").await.unwrap_err().to_string();
        assert!(error.contains("put back to an older copy"), "{step}: {error}");
        let refused = open_writer(dir.path()).await.unwrap_err().to_string();
        assert!(refused.contains("put back to an older copy"), "{step}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_notices_that_its_log_was_put_back() {
    if common::needs_a_disk("this is not looked for in a bucket") {
        return;
    }
    let (dir, old) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    copy(&log, old.path());
    let handle = open_writer(dir.path()).await.unwrap();
    append(&handle, 40, 41).await;
    while handle.log().covered().await.unwrap() < 41 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let aside = dir.path().join("aside");
    fs::rename(&log, &aside).unwrap();
    copy(old.path(), &log);
    // Nothing is acknowledged that could not be read afterwards.
    let before = read_segment(&path);
    for _ in 0..2 {
        let refused = handle.append(Append { rows: rows(41, 42), positions: vec![] }).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("journal/"), "{refused}");
    }
    assert_eq!(read_segment(&path), before);
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    append(&handle, 41, 42).await;
    handle.close().await.unwrap();
    assert_whole(dir.path(), 42).await;
}

/// The newest commit is missing: what is committed after the gap could not be read.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_after_a_commit_that_is_gone() {
    let (dir, old) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    copy(&log, old.path());
    let handle = open_writer(dir.path()).await.unwrap();
    let note = || fs::read(log.join("tlog/table")).unwrap();
    let before = note();
    handle.flush().await.unwrap();
    // Until nothing more is written in the background.
    while note() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::remove_dir_all(&log).unwrap();
    copy(old.path(), &log);
    let refused = match handle.bulk().await {
        Err(error) => error,
        Ok(bulk) => {
            let pusher = bulk.pusher();
            tokio::task::spawn_blocking(move || pusher.push(0, &rows(40, 45))).await.unwrap().unwrap();
            bulk.finish(vec![]).await.unwrap_err()
        }
    };
    assert!(refused.to_string().contains("_delta_log/"), "{refused}");
    assert_eq!(commits(&log), commits(old.path()));
}

/// A crash between the commit that takes the frames over and the removal of their segment.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_the_table_has_is_dead() {
    if common::needs_a_disk("in a bucket, segments stay for some time") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = log_in(dir.path()).await;
    let whole = read_segment(&path);
    let writer = open_writer(dir.path()).await.unwrap();
    writer.flush().await.unwrap();
    writer.close().await.unwrap();
    assert!(!path.exists());
    write_segment(&path, &whole);
    assert_whole(dir.path(), 40).await;
    let writer = open_writer(dir.path()).await.unwrap();
    append(&writer, 40, 41).await;
    assert!(path.exists());
    append_file(&writer, 41, 42).await;
    writer.close().await.unwrap();
    assert!(!path.exists());
    assert_whole(dir.path(), 42).await;
    // The commit states what it took over, and nobody goes back to the journal's commit from there.
    let commit = &commits(&dir.path().join(LOG))[2];
    assert_eq!(commit[0]["commitInfo"]["sporlog"]["journal"]["frames"], 4);
}

/// A crash before that commit: the file is left over.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_commit_did_not_come_about_is_removed() {
    let (dir, before) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    log_in(dir.path()).await;
    copy(dir.path(), before.path());
    let writer = open_writer(dir.path()).await.unwrap();
    writer.flush().await.unwrap();
    writer.close().await.unwrap();
    let written: Vec<_> =
        files(&dir.path().join(LOG)).into_iter().filter(|name| name.contains("month=")).collect();
    for name in &written {
        fs::copy(dir.path().join(LOG).join(name), before.path().join(LOG).join(name)).unwrap();
    }
    assert_whole(before.path(), 40).await;
    let writer = open_writer(before.path()).await.unwrap();
    let compacted = writer.compact(Duration::ZERO).await.unwrap();
    assert!(compacted.cleaned >= 1, "{compacted:?}");
    writer.close().await.unwrap();
    assert_whole(before.path(), 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_records_stay_in_the_journal_and_many_follow_into_the_table() {
    if common::needs_a_disk("a file of the table is written of each 256 frames there") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let writer = writer(dir.path()).await;
    for n in 0..1_500 {
        append(&writer, n, n + 1).await;
    }
    let log = writer.log().clone();
    assert_eq!(log.data_files(), []);
    // Read by another, while they are in the journal, and found.
    assert_whole_by_another(dir.path(), 1_500).await;
    for n in 0..3 {
        append(&writer, 1_500 + n * 1_000, 2_500 + n * 1_000).await;
    }
    while log.data_files().iter().map(|file| file.rows).sum::<u64>() < 4_500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    append(&writer, 4_500, 4_501).await;
    assert_whole_by_another(dir.path(), 4_501).await;
    writer.close().await.unwrap();
    assert_whole(dir.path(), 4_501).await;
    let there =
        files(&dir.path().join(LOG)).into_iter().filter(|name| name.starts_with("table/month=")).count();
    assert!(there <= 2, "{there} files");
}

async fn assert_whole_by_another(dir: &Path, count: u64) {
    let log = store(dir).log("auditlog").await.unwrap();
    let found = read(&log, 0, None).await;
    assert!(found.iter().map(|(id, _)| *id as u64).eq(1..=count), "{} of {count}", found.len());
}

/// Records that come while those before are written to a file, in the background.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_come_in_while_the_journal_is_written_to_the_table() {
    let dir = TempDir::new().unwrap();
    let writer = writer(dir.path()).await;
    let mut next = 0;
    while writer.log().data_files().len() < 3 {
        append(&writer, next, next + 1_500).await;
        next += 1_500;
    }
    writer.close().await.unwrap();
    assert_whole(dir.path(), next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_not_taken_in_twice_wherever_their_positions_are() {
    let dir = TempDir::new().unwrap();
    let once = |app: &str| Append { rows: rows(0, 1), positions: vec![(app.to_owned(), Advance::Once)] };
    let taken = |outcome: Outcome| match outcome {
        Outcome::Appended(appended) => (false, appended.first),
        Outcome::AlreadyThere { position, .. } => (true, position.version as u64),
    };
    let writer = writer(dir.path()).await;
    assert_eq!(taken(writer.append(once("in the table")).await.unwrap()), (false, 1));
    writer.flush().await.unwrap();
    assert_eq!(taken(writer.append(once("in the journal")).await.unwrap()), (false, 2));
    for round in 0..3 {
        let writer = match round {
            0 => writer.clone(),
            _ => open_writer(dir.path()).await.unwrap(),
        };
        assert_eq!(taken(writer.append(once("in the table")).await.unwrap()), (true, 1), "{round}");
        assert_eq!(taken(writer.append(once("in the journal")).await.unwrap()), (true, 2), "{round}");
        let reader = store(dir.path()).log("auditlog").await.unwrap();
        assert_eq!(reader.position("in the journal").map(|position| position.version), Some(2));
        let mut names: Vec<_> = reader.positions("in ").into_iter().map(|(app, _)| app).collect();
        names.sort();
        assert_eq!(names, ["in the journal", "in the table"]);
        if round == 1 {
            writer.compact(Duration::ZERO).await.unwrap();
        }
    }
}

/// A store that is not on a disk, with its keys in `keys`.
fn store_in_memory(keys: &TempDir) -> Store {
    let keys = Some(keys.path().to_owned());
    let options =
        StoreOptions { address: "memory:///".into(), keys, create: true, ..StoreOptions::default() };
    Store::open(options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_disk_each_frame_is_an_object() {
    let keys = TempDir::new().unwrap();
    let store = store_in_memory(&keys);
    let open = async || store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await.unwrap();
    let writer = open().await;
    for n in 0..5 {
        append(&writer, n, n + 1).await;
    }
    assert_eq!(writer.log().data_files(), []);
    writer.close().await.unwrap();
    let writer = open().await;
    append(&writer, 5, 6).await;
    // So many that each would be an object for too long.
    for n in 6..300 {
        append(&writer, n, n + 1).await;
    }
    assert_eq!(writer.log().data_files().len(), 1);
    writer.compact(Duration::ZERO).await.unwrap();
    writer.close().await.unwrap();
    let log = store.log("auditlog").await.unwrap();
    assert!(read(&log, 0, None).await.iter().map(|(id, _)| *id).eq(1..=300));
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
    // On a disk, frames are in a file.
    let dir = TempDir::new().unwrap();
    let copied = log.copy_to(&common::store(dir.path()), |_| ()).await.unwrap();
    assert_eq!(copied.problems, []);
    let back = store_in_memory(&keys);
    let there = common::store(dir.path()).log_with_key("auditlog", log.vkey()).await.unwrap();
    assert_eq!(there.copy_to(&back, |_| ()).await.unwrap().problems, []);
}

/// Without a lock, frames come at any moment of another's commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_lock_no_frame_is_lost_beside_a_commit() {
    const EACH: u64 = 150;
    let keys = TempDir::new().unwrap();
    let store = store_in_memory(&keys);
    let open = async || {
        let options = WriterOptions { take_turns: true };
        store.writer("auditlog", Kind::Auditlog, options).await.unwrap()
    };
    let writers = [open().await, open().await, open().await];
    let mut all = tokio::task::JoinSet::new();
    for (n, writer) in (0..).zip(writers.clone()) {
        all.spawn(async move {
            let mut ids = Vec::new();
            for m in 0..EACH {
                let number = n * EACH + m;
                ids.push(append(&writer, number, number + 1).await.first);
                if m % (7 + n) == 0 {
                    writer.flush().await.unwrap();
                }
            }
            ids
        });
    }
    let mut ids: Vec<_> = all.join_all().await.concat();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(1..=3 * EACH), "{ids:?}");
    for writer in writers {
        writer.close().await.unwrap();
    }
    let log = store.log("auditlog").await.unwrap();
    let mut records = read(&log, 0, None).await;
    assert!(records.iter().map(|(id, _)| *id as u64).eq(1..=3 * EACH));
    records.sort_by_key(|(_, message)| message.parse::<u64>().unwrap());
    assert!(records.iter().map(|(_, message)| message.clone()).eq((0..3 * EACH).map(|n| n.to_string())));
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
}
