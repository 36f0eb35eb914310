//! The checkpoint of an earlier size is the one that was published then.

#[allow(dead_code)]
mod common;

use common::{append, store, writer};
use sporlog_ledger::{Error, open_checkpoint, open_note};

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_checkpoint_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    let log = writer.log().clone();
    let sizes = [1, 2, 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, 70_001];
    let mut published = Vec::new();
    let mut from = 0;
    for size in sizes {
        append(&writer, from, size).await;
        from = size;
        // The checkpoint follows the commit.
        loop {
            let checkpoint = log.checkpoint().await;
            let is_new = |note: &Vec<u8>| open_checkpoint(note, log.vkey()).unwrap().size() == size;
            if let Some(checkpoint) = checkpoint.ok().filter(is_new) {
                published.push(checkpoint);
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        for (size, checkpoint) in sizes.iter().zip(&published) {
            assert_eq!(log.checkpoint_at(*size).await.unwrap(), *checkpoint, "{size} of {from}");
        }
    }
    let empty = log.checkpoint_at(0).await.unwrap();
    assert_eq!(open_checkpoint(&empty, log.vkey()).unwrap().size(), 0);
    assert!(matches!(log.checkpoint_at(from + 1).await, Err(Error::NotCovered { .. })));

    let note = log.sign_statement("a-sort/1", "one line\n").unwrap();
    let origin = log.vkey().split('+').next().unwrap();
    assert_eq!(open_note(&note, log.vkey()).unwrap(), format!("a-sort/1\n{origin}\none line\n"));
    assert!(open_checkpoint(&note, log.vkey()).is_err());
    writer.close().await.unwrap();
}

#[tokio::test]
async fn a_proof_waits_for_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append(&writer, 0, 3).await;
    writer.log().prove(3).await.unwrap();
    writer.close().await.unwrap();
    let checkpoint = dir.path().join("logs/auditlog/tlog/checkpoint");
    let published = std::fs::read(&checkpoint).unwrap();
    std::fs::remove_file(&checkpoint).unwrap();

    let log = store(dir.path()).log("auditlog").await.unwrap();
    let is_proven = tokio::spawn(async move { log.prove(3).await.map(|_| log.vkey().to_owned()) });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!is_proven.is_finished());
    std::fs::write(&checkpoint, published).unwrap();
    is_proven.await.unwrap().unwrap();
}
