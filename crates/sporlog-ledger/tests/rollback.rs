//! Logs whose files were put back to older ones: refused until somebody decides that they go on from there.

#[allow(dead_code)]
mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{append, append_file, needs_a_disk, read, store, writer};
use sporlog_ledger::{Error, RolledBack, WriterOptions};
use sporlog_record::Kind;

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A log of `then` records, a copy of its folder in `old`, and then one of `now` records.
async fn log_and_older_copy(dir: &Path, then: u64, now: u64) {
    let busy = writer(dir).await;
    append_file(&busy, 0, then).await;
    busy.close().await.unwrap();
    copy(&dir.join("logs/auditlog"), &dir.join("old"));
    let busy = writer(dir).await;
    append_file(&busy, then, now - 5).await;
    append_file(&busy, now - 5, now).await;
    busy.close().await.unwrap();
    std::fs::copy(dir.join("logs/auditlog/tlog/checkpoint"), dir.join("newest")).unwrap();
    remove_segments(dir);
}

/// Removes what segments there are: in a bucket, those that the table has taken over stay for some time, and an older table
/// would go on with them.
fn remove_segments(dir: &Path) {
    for log in ["logs/auditlog", "old"] {
        for entry in std::fs::read_dir(dir.join(log).join("journal")).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                std::fs::remove_dir_all(entry.path()).unwrap();
            }
        }
    }
}

/// The log is refused, then let go on from `to`, and appended to.
async fn goes_on(dir: &Path, from: u64, to: u64) {
    let refused = store(dir).writer("auditlog", Kind::Auditlog, WriterOptions::default()).await;
    assert!(refused.is_err(), "{from} {to}");
    assert_ne!(
        store(dir).log_to_verify("auditlog").await.unwrap().verify(|_| ()).await.unwrap().problems,
        []
    );
    let expected = Some(RolledBack { from, to });
    assert_eq!(store(dir).roll_back("auditlog", true).await.unwrap(), expected);
    let refused = store(dir).writer("auditlog", Kind::Auditlog, WriterOptions::default()).await;
    assert!(refused.is_err(), "{from} {to}");
    assert_eq!(store(dir).roll_back("auditlog", false).await.unwrap(), expected);
    assert_eq!(store(dir).roll_back("auditlog", false).await.unwrap(), None);
    // Two tiles' worth of other records in the place of those that were given up.
    let busy = writer(dir).await;
    assert_eq!(append(&busy, 100_000, 100_600).await.first, to + 1);
    busy.close().await.unwrap();
    let log = store(dir).log("auditlog").await.unwrap();
    let verified = log.verify(|_| ()).await.unwrap();
    assert_eq!(verified.problems, [], "{from} {to}");
    assert_eq!(verified.rolled_back, [RolledBack { from, to }]);
    let records = read(&log, log.first() - 1, None).await;
    assert_eq!(records.len() as u64, log.head() + 1 - log.first());
    let expected = |id: u64| if id <= to { id - 1 } else { 100_000 + id - to - 1 };
    assert!(records.iter().all(|(id, message)| *message == expected(*id as u64).to_string()));
    // Whoever kept a newer checkpoint is not deceived.
    let newest = std::fs::read(dir.join("newest")).unwrap();
    assert!(matches!(log.verify_since(&newest).await, Err(Error::Proof(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_older_than_the_checkpoint_goes_on() {
    for (then, now) in [(300, 1_300), (256, 700), (1, 266), (10, 20), (65_536, 65_800)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        log_and_older_copy(dir, then, now).await;
        std::fs::remove_dir_all(dir.join("logs/auditlog/table")).unwrap();
        copy(&dir.join("old/table"), &dir.join("logs/auditlog/table"));
        goes_on(dir, now, then).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_older_than_its_key_has_signed_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log_and_older_copy(dir, 300, 1_300).await;
    std::fs::remove_dir_all(dir.join("logs/auditlog")).unwrap();
    copy(&dir.join("old"), &dir.join("logs/auditlog"));
    goes_on(dir, 1_300, 300).await;
}

/// The same where the records are in the journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_older_than_its_key_has_signed_goes_on() {
    for (in_table, flushed) in [(0, false), (0, true), (200, false), (200, true)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let busy = writer(dir).await;
        append_file(&busy, 0, in_table).await;
        append(&busy, in_table, 300).await;
        busy.close().await.unwrap();
        copy(&dir.join("logs/auditlog"), &dir.join("old"));
        let busy = writer(dir).await;
        append(&busy, 300, 1_295).await;
        if flushed {
            busy.flush().await.unwrap();
        }
        append(&busy, 1_295, 1_300).await;
        busy.close().await.unwrap();
        std::fs::copy(dir.join("logs/auditlog/tlog/checkpoint"), dir.join("newest")).unwrap();
        // The table and its journal, under the newer checkpoint; newer segments lie about.
        for part in ["table", "journal"] {
            copy(&dir.join(format!("logs/auditlog/{part}")), &dir.join(format!("newer-{part}")));
            std::fs::remove_dir_all(dir.join(format!("logs/auditlog/{part}"))).unwrap();
            copy(&dir.join(format!("old/{part}")), &dir.join(format!("logs/auditlog/{part}")));
        }
        for newer in std::fs::read_dir(dir.join("newer-journal")).unwrap().flatten() {
            let there = dir.join("logs/auditlog/journal").join(newer.file_name());
            if !there.exists() {
                copy(&newer.path(), &there);
            }
        }
        goes_on(dir, 1_300, 300).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_that_are_missing_are_computed_again_unless_records_have_expired() {
    for expire in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        if expire {
            let busy = writer(dir).await;
            append(&busy, 0, 100).await;
            busy.expire("2099-01", false).await.unwrap();
            append(&busy, 100, 200).await;
            busy.close().await.unwrap();
        }
        let first = if expire { 200 } else { 0 };
        let busy = writer(dir).await;
        append_file(&busy, first, 300).await;
        busy.close().await.unwrap();
        copy(&dir.join("logs/auditlog"), &dir.join("old"));
        let busy = writer(dir).await;
        append_file(&busy, 300, 1_000).await;
        busy.close().await.unwrap();
        std::fs::copy(dir.join("logs/auditlog/tlog/checkpoint"), dir.join("newest")).unwrap();
        std::fs::remove_dir_all(dir.join("logs/auditlog/table")).unwrap();
        copy(&dir.join("old/table"), &dir.join("logs/auditlog/table"));
        std::fs::remove_dir_all(dir.join("logs/auditlog/tlog/tile")).unwrap();
        remove_segments(dir);
        if expire {
            let refused = store(dir).roll_back("auditlog", false).await;
            assert!(matches!(refused, Err(Error::Copy { .. })), "{refused:?}");
        } else {
            goes_on(dir, 1_000, 300).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_after_a_missing_one_are_given_up_and_a_delta_checkpoint_beyond_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    log_and_older_copy(dir, 300, 1_300).await;
    let busy = writer(dir).await;
    busy.compact(Duration::ZERO).await.unwrap();
    busy.close().await.unwrap();
    // Version 1 has the first 300 records; version 3 is there, and so is the Delta checkpoint.
    let commits = |version: u64| dir.join(format!("logs/auditlog/table/_delta_log/{version:020}.json"));
    let newest = (0..).find(|version| !commits(*version).exists()).unwrap() - 1;
    assert!(newest > 3);
    for version in [2].into_iter().chain(4..=newest) {
        std::fs::remove_file(commits(version)).unwrap();
    }
    copy(&dir.join("old/table/."), &dir.join("logs/auditlog/table"));
    goes_on(dir, 1_300, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_where_it_was_signed_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let busy = writer(dir.path()).await;
    append_file(&busy, 0, 300).await;
    busy.close().await.unwrap();
    assert_eq!(store(dir.path()).roll_back("auditlog", false).await.unwrap(), None);
    assert!(matches!(store(dir.path()).roll_back("access", false).await, Err(Error::Keys { .. })));
    assert!(matches!(
        store(dir.path()).without_keys().roll_back("auditlog", false).await,
        Err(Error::Keys { .. })
    ));
    assert_eq!(store(dir.path()).log("auditlog").await.unwrap().verify(|_| ()).await.unwrap().commits, 2);
}

/// A store that version 0.1.0 made before commits were signed, of synthetic records.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_earlier_version_goes_on_if_its_tiles_prove_its_records() {
    if needs_a_disk("no earlier version made a store in a bucket") {
        return;
    }
    // Version 1 has 30 records, version 2 all 60; merging files made the others.
    for (newest, size, tampered) in [(1, 30, false), (2, 60, false), (1, 30, true)] {
        let dir = tempfile::tempdir().unwrap();
        let archive = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/data/store-without-signed-commits.tar.gz");
        let unpacked =
            Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
        assert!(unpacked.success());
        let dir = dir.path().join("store");
        let log = dir.join("logs/auditlog");
        std::fs::copy(log.join("tlog/checkpoint"), dir.join("newest")).unwrap();
        // The table of an older copy, under the newer checkpoint.
        for entry in std::fs::read_dir(log.join("table/_delta_log")).unwrap() {
            let path = entry.unwrap().path();
            let version = path.file_name().unwrap().to_str().unwrap().get(..20).map(str::parse::<u64>);
            if version.is_some_and(|version| version.is_ok_and(|version| version > newest)) {
                std::fs::remove_file(path).unwrap();
            }
        }
        if tampered {
            let tile = log.join("tlog/tile/0/000.p/60");
            let mut bytes = std::fs::read(&tile).unwrap();
            bytes[3] ^= 1;
            std::fs::write(tile, bytes).unwrap();
            let refused = store(&dir).roll_back("auditlog", false).await;
            assert!(matches!(refused, Err(Error::Copy { .. })), "{refused:?}");
            continue;
        }
        let rolled_back = store(&dir).roll_back("auditlog", false).await.unwrap().unwrap();
        assert_eq!(rolled_back, RolledBack { from: 60, to: size });
        let busy = writer(&dir).await;
        assert_eq!(append(&busy, 0, 5).await.first, rolled_back.to + 1);
        busy.close().await.unwrap();
        let verified = store(&dir).log("auditlog").await.unwrap().verify(|_| ()).await.unwrap();
        assert_eq!((verified.problems, verified.signed), (vec![], true));
        assert_eq!(verified.rolled_back, [rolled_back]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_which_nothing_is_left_is_restored_from_a_backup_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    log_and_older_copy(dir.path(), 10, 20).await;
    std::fs::remove_dir_all(dir.path().join("logs/auditlog")).unwrap();
    let refused = store(dir.path()).roll_back("auditlog", false).await;
    assert!(matches!(refused, Err(Error::Copy { .. } | Error::NoSuchLog(_))), "{refused:?}");
}
