//! The checkpoint of an earlier size is the one that was published then.

mod common;

use common::{append, read, writer};
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

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_found_by_their_time_of_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    let log = writer.log().clone();
    assert_eq!(log.first_received_from(0).await.unwrap(), 1);
    let mut batches = Vec::new();
    for n in 0..6 {
        batches.push(append(&writer, n * 10, n * 10 + 10).await);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    // In files of one time each, and in one that has them all.
    for _ in 0..2 {
        for batch in &batches {
            assert_eq!(log.first_received_from(batch.received_at).await.unwrap(), batch.first);
            let after = log.first_received_from(batch.received_at + 1).await.unwrap();
            assert_eq!(after, batch.last + 1);
            assert_eq!(read(&log, after - 1, None).await.len() as u64, 60 - batch.last);
        }
        assert_eq!(log.first_received_from(0).await.unwrap(), 1);
        assert_eq!(log.first_received_from(i64::MAX).await.unwrap(), 61);
        writer.compact(std::time::Duration::ZERO).await.unwrap();
    }
    writer.close().await.unwrap();
}
