//! A full disk: what fails says so and names what failed, what was acknowledged stays, and once
//! there is room again it goes on.

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{needs_a_disk, read, rows, store};
use sporlog_ledger::{Advance, Append, Error, Outcome, Writer, WriterOptions};
use sporlog_record::Kind;

/// A file system of 8 MB, gone again when this is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        if needs_a_disk("its small disk is one") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(dir.path()).output();
        match mount {
            Ok(done) if done.status.success() => Some(SmallDisk(dir)),
            refused => {
                eprintln!("SKIPPED: a tmpfs cannot be mounted here (that takes root): {refused:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room there is, in files that can be removed one by one; gives their number.
    fn fill(&self, each: usize) -> usize {
        let mut count = 0;
        while fs::write(self.ballast(count), vec![1; each]).is_ok() {
            count += 1;
        }
        let _ = fs::remove_file(self.ballast(count));
        count
    }

    fn ballast(&self, n: usize) -> std::path::PathBuf {
        self.path().join(format!("ballast-{n}"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

async fn open(dir: &Path) -> Result<Writer, Error> {
    store(dir).writer("auditlog", Kind::Auditlog, WriterOptions::default()).await
}

/// Appends the records of a position, 20 of them.
async fn try_append(writer: &Writer, position: u64) -> Result<Outcome, Error> {
    let positions = vec![("source".to_owned(), Advance::To(position as i64))];
    writer.append(Append { rows: rows(position * 20, position * 20 + 20), positions }).await
}

/// The failure says that there is no room, and where.
fn assert_clean(error: &Error) {
    let text = error.to_string();
    if matches!(error, Error::Stopped { .. }) {
        return;
    }
    assert!(text.contains("No space left on device"), "{text}");
    assert!(["journal/", "table/", "index/", "tlog/"].iter().any(|folder| text.contains(folder)), "{text}");
}

/// All that was acknowledged, once, and nothing is wrong.
async fn assert_whole(dir: &Path, acknowledged: u64) {
    let log = store(dir).log("auditlog").await.unwrap();
    let messages: Vec<_> =
        read(&log, 0, None).await.into_iter().map(|(_, m)| m.parse::<u64>().unwrap()).collect();
    assert_eq!(messages, (0..acknowledged * 20).collect::<Vec<_>>());
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_log_and_harms_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.path().join("store");
    let mut writer = open(&dir).await.unwrap();
    let mut position = 0;
    while position < 30 {
        try_append(&writer, position).await.unwrap();
        position += 1;
    }
    let ballast = disk.fill(4 << 10);
    assert!(ballast > 500, "{ballast}");
    // Room comes back page by page, so that it runs out at each of the steps of an append in turn.
    let (mut failures, mut stops) = (0, 0);
    for n in (0..160).rev() {
        match try_append(&writer, position).await {
            Ok(Outcome::Appended(_)) => position += 1,
            // Stored, and not acknowledged: then it is there, and once.
            Ok(Outcome::AlreadyThere { .. }) => position += 1,
            Err(error) => {
                failures += 1;
                assert_clean(&error);
                assert_eq!(read(writer.log(), 0, None).await.len() as u64, writer.log().head());
                if matches!(error, Error::Stopped { .. }) {
                    stops += 1;
                    if let Ok(reopened) = open(&dir).await {
                        writer = reopened;
                    }
                }
            }
        }
        if n % 16 == 0 {
            // Time to publish, which has to fare as well.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if n % 2 == 0 {
            fs::remove_file(disk.ballast(n)).unwrap();
            fs::remove_file(disk.ballast(n + 1)).ok();
        }
    }
    eprintln!("{position} appended, {failures} failures, {stops} of them because the writer had stopped");
    assert!(failures > 5, "the disk was not full: {failures}");
    for n in 0..ballast {
        let _ = fs::remove_file(disk.ballast(n));
    }
    // The same writer goes on, or says that it has stopped, and a new one does.
    match try_append(&writer, position).await {
        Ok(Outcome::Appended(_)) => {}
        Err(Error::Stopped { .. }) => {
            writer = open(&dir).await.unwrap();
            try_append(&writer, position).await.unwrap();
        }
        other => panic!("{other:?}"),
    }
    position += 1;
    writer.close().await.unwrap();
    assert_whole(&dir, position).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_stored_is_not_said_to_be_there() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.path().join("store");
    let writer = open(&dir).await.unwrap();
    try_append(&writer, 0).await.unwrap();
    // Long enough for it to be published.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ballast = disk.fill(64 << 10) + {
        // And the last page.
        let mut count = 0;
        while fs::write(disk.path().join(format!("small-{count}")), [1; 4_096]).is_ok() {
            count += 1;
        }
        0
    };
    // The same position many times at once: some of them come into one batch.
    let all = futures::future::join_all((0..64).map(|_| try_append(&writer, 1))).await;
    for outcome in &all {
        match outcome {
            Err(error) => assert!(error.to_string().contains("No space left on device"), "{error}"),
            said => panic!("nothing was stored, and the answer is {said:?}"),
        }
    }
    assert_eq!(writer.log().head(), 20);
    // A bulk append and a compaction fail as cleanly, and leave nothing behind.
    let bulk = writer.bulk().await.unwrap();
    let pusher = bulk.pusher();
    let push = move || pusher.push(0, &rows(20, 5_000));
    let pushed = tokio::task::spawn_blocking(push).await.unwrap();
    let failed = bulk.finish(vec![]).await;
    assert!(pushed.is_err() || failed.is_err());
    assert_clean(&failed.unwrap_err());
    if let Err(error) = writer.compact(Duration::ZERO).await {
        assert_clean(&error);
    }
    for n in 0..ballast {
        let _ = fs::remove_file(disk.ballast(n));
    }
    let outcome = try_append(&writer, 1).await;
    assert!(matches!(outcome, Ok(Outcome::Appended(_))), "{outcome:?}");
    writer.close().await.unwrap();
    assert_whole(&dir, 2).await;
    let left: Vec<_> = walk(&dir).into_iter().filter(|p| p.contains(".tmp-") || p.contains('#')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_goes_on_after_it_has_failed() {
    if needs_a_disk("a file takes the place of a folder, and a bucket has no folders") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let writer = open(dir.path()).await.unwrap();
    for position in 0..20 {
        try_append(&writer, position).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A file stands where the folder of the entries should be: tiles can be written, entries not.
    let entries = dir.path().join("logs/auditlog/tlog/tile/entries");
    let aside = entries.with_file_name("aside");
    fs::rename(&entries, &aside).unwrap();
    fs::write(&entries, "").unwrap();
    try_append(&writer, 20).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The tree has grown when it is tried again, and the unfinished tiles have other names.
    try_append(&writer, 21).await.unwrap();
    fs::remove_file(&entries).unwrap();
    fs::rename(&aside, &entries).unwrap();
    writer.close().await.unwrap();
    assert_whole(dir.path(), 22).await;
}

fn walk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}
