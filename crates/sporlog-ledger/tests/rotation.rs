//! A log that is given another signing key, and who may go on checking it with which.

mod common;

use std::path::Path;

use common::attacker::copy;
use common::{append, append_file, read, store, writer};
use sporlog_ledger::{Backup, Error, Log, open_checkpoint, verify_proof};

const LOG: &str = "auditlog";

async fn grow(dir: &Path, from: u64, to: u64) {
    let busy = writer(dir).await;
    append(&busy, from, to).await;
    busy.close().await.unwrap();
}

async fn log(dir: &Path) -> Log {
    store(dir).log(LOG).await.unwrap()
}

/// What is wrong with the log: by the keys at hand, or by the given key.
async fn problems(dir: &Path, vkey: Option<&str>) -> Vec<String> {
    let log = match vkey {
        Some(vkey) => store(dir).log_to_verify_with_key(LOG, vkey).await,
        None => store(dir).log_to_verify(LOG).await,
    };
    let verified = match log {
        Ok(log) => log.verify(|_| ()).await,
        Err(error) => Err(error),
    };
    match verified {
        Ok(verified) => verified.problems.iter().map(|problem| format!("{problem:?}")).collect(),
        Err(error) => vec![error.to_string()],
    }
}

fn file(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_another_key_is_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    grow(dir, 0, 300).await;
    let first = log(dir).await.vkey().to_owned();
    let (earlier, proof) =
        (file(dir, "logs/auditlog/tlog/checkpoint"), log(dir).await.prove(7).await.unwrap());
    let backup = dir.join("backup");
    let back_up = async || {
        let to = Backup::create(&backup).unwrap();
        let copied = log(dir).await.copy_to(to.store(), |_| ()).await.unwrap();
        assert_eq!(copied.problems, []);
        to.finish().unwrap();
    };
    back_up().await;

    let second = store(dir).rotate_key(LOG).await.unwrap();
    assert!(second != first && second.split('+').next() == first.split('+').next(), "{second} {first}");
    assert_eq!(log(dir).await.vkey(), second);
    grow(dir, 300, 400).await;
    assert_eq!(read(&log(dir).await, 0, None).await.len(), 400);
    // Until the old key is retired, whoever knows either key checks all of it.
    for vkey in [None, Some(&*first), Some(&*second)] {
        assert_eq!(problems(dir, vkey).await, Vec::<String>::new(), "{vkey:?}");
    }
    let newer = log(dir).await.prove(350).await.unwrap();
    for vkey in [&*first, &*second] {
        assert!(verify_proof(&newer, vkey).is_ok());
        assert!(open_checkpoint(&file(dir, "logs/auditlog/tlog/checkpoint"), vkey).is_ok());
        assert_eq!(
            store(dir).log_with_key(LOG, vkey).await.unwrap().verify_since(&earlier).await.unwrap(),
            (300, 400)
        );
    }
    back_up().await;
    assert!(
        matches!(store(dir).rotate_key(LOG).await, Err(Error::Keys { .. })),
        "the old one is not retired"
    );

    store(dir).retire_key(LOG).await.unwrap();
    grow(dir, 400, 410).await;
    for vkey in [None, Some(&*second)] {
        assert_eq!(problems(dir, vkey).await, Vec::<String>::new(), "{vkey:?}");
    }
    let refused = problems(dir, Some(&first)).await.concat();
    assert!(refused.contains("no verifiable signatures"), "{refused}");
    assert!(open_checkpoint(&file(dir, "logs/auditlog/tlog/checkpoint"), &first).is_err());
    // What the old key signed stays signed by it, and the log continues it.
    assert!(verify_proof(&proof, &first).is_ok());
    assert_eq!(log(dir).await.verify_since(&earlier).await.unwrap(), (300, 410));
    back_up().await;

    let third = store(dir).rotate_key(LOG).await.unwrap();
    let busy = writer(dir).await;
    append(&busy, 410, 420).await;
    busy.expire("9999-01", false).await.unwrap();
    busy.close().await.unwrap();
    for vkey in [None, Some(&*second), Some(&*third)] {
        assert_eq!(problems(dir, vkey).await, Vec::<String>::new(), "{vkey:?}");
    }
    // Notes on what was removed are older than the next rotation.
    store(dir).retire_key(LOG).await.unwrap();
    store(dir).rotate_key(LOG).await.unwrap();
    assert_eq!(problems(dir, None).await, Vec::<String>::new());
    // Without the keys, by the log's own copy.
    std::fs::rename(dir.join("keys"), dir.join("away")).unwrap();
    assert_eq!(problems(dir, None).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_old_key_signs_nothing_that_counts() {
    for in_files in [true, false] {
        let (dir, thief) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, thief) = (dir.path(), thief.path());
        let busy = writer(dir).await;
        append_file(&busy, 0, 10).await;
        busy.close().await.unwrap();
        for folder in ["keys", "logs"] {
            copy(&dir.join(folder), &thief.join(folder));
        }
        let second = store(dir).rotate_key(LOG).await.unwrap();
        store(dir).retire_key(LOG).await.unwrap();
        // The thief goes on with the old key where the rotation was, by commits or in the journal, and puts that in
        // the place of the log.
        for n in 1..4 {
            grow(thief, 10 * n, 10 * n + 10).await;
            if in_files {
                let busy = writer(thief).await;
                busy.flush().await.unwrap();
                busy.close().await.unwrap();
            }
        }
        std::fs::remove_dir_all(dir.join("logs")).unwrap();
        copy(&thief.join("logs"), &dir.join("logs"));
        // Not even how far the log was signed is known any more.
        std::fs::remove_file(dir.join("keys/auditlog.signed")).unwrap();
        let refused = store(dir).log(LOG).await.err().unwrap().to_string();
        let expected = if in_files {
            "its signature is not by the log's key"
        } else {
            "or is not signed by the log's key"
        };
        assert!(refused.contains(expected), "{refused}");
        for vkey in [None, Some(&*second)] {
            assert_ne!(problems(dir, vkey).await, Vec::<String>::new(), "{vkey:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_broken_off_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    grow(dir, 0, 300).await;
    let tlog = dir.join("logs/auditlog/tlog");
    copy(&tlog, &dir.join("before"));
    let second = store(dir).rotate_key(LOG).await.unwrap();
    // As a crash would leave it after the key's file was written, and after each file that comes then.
    for done in [&[][..], &["keys"], &["keys", "key"], &["keys", "key", "table"]] {
        for name in ["key", "table", "checkpoint"].into_iter().filter(|name| !done.contains(name)) {
            std::fs::copy(dir.join("before").join(name), tlog.join(name)).unwrap();
        }
        if done.is_empty() {
            std::fs::remove_file(tlog.join("keys")).unwrap();
        }
        assert_eq!(store(dir).rotate_key(LOG).await.unwrap(), second, "{done:?}");
        assert_eq!(problems(dir, None).await, Vec::<String>::new(), "{done:?}");
    }
    grow(dir, 300, 310).await;
    assert_eq!(problems(dir, Some(&second)).await, Vec::<String>::new());
}
