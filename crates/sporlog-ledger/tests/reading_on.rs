//! A client that reads on from its last id is given kept blocks, and the same records as everybody else.

mod common;

use std::collections::HashSet;

use arrow::array::{AsArray, RecordBatch};
use common::{append, append_file, messages, options, read, writer};
use futures::TryStreamExt;
use sporlog_ledger::{Log, Store, StoreOptions};

const PAGE: u64 = 100;

/// All records from `after` on, page by page.
async fn read_on(log: &Log, mut after: u64) -> Vec<RecordBatch> {
    let mut all: Vec<RecordBatch> = Vec::new();
    loop {
        let page: Vec<_> = log.read(after, Some(PAGE)).try_collect().await.unwrap();
        let Some((last, _)) = messages(&page).pop() else { return all };
        after = last as u64;
        all.extend(page);
    }
}

/// Where in memory the messages of these batches lie. They are all held, so that no place is used twice.
fn decoded(batches: &[RecordBatch]) -> usize {
    let messages = |batch: &RecordBatch| batch.column_by_name("message").unwrap().as_string::<i32>().clone();
    batches.iter().map(|batch| messages(batch).values().data_ptr()).collect::<HashSet<_>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_block_is_decoded_once_for_whoever_reads_on() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append_file(&writer, 0, 5_000).await;
    append_file(&writer, 5_000, 5_300).await;
    append(&writer, 5_300, 5_500).await;
    let log = writer.log();
    let expected = read(log, 0, None).await;

    let first = read_on(log, 0).await;
    assert_eq!(messages(&first), expected);
    // Five blocks in the first file and one in the second; the first page before it was known that the client
    // reads on; and what is in the journal.
    assert!(decoded(&first) <= 5 + 1 + 1 + 2, "{}", decoded(&first));
    // Another client, with other pages, decodes nothing but its first page.
    let second = read_on(log, 30).await;
    assert_eq!(messages(&second), expected[30..]);
    let both = [first.clone(), second].concat();
    assert!(decoded(&both) <= decoded(&first) + 1, "{}", decoded(&both));

    // Merged files have other blocks.
    writer.compact(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(messages(&read_on(log, 0).await), expected);
    writer.expire("9999-01", false).await.unwrap();
    assert_eq!(messages(&read_on(log, 0).await), []);
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_and_with_a_tiny_one_the_same_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append_file(&writer, 0, 3_000).await;
    let expected = read(writer.log(), 0, None).await;
    for cache_bytes in [0, 1] {
        let options = StoreOptions { cache_bytes: Some(cache_bytes), ..options(dir.path()) };
        let all = read_on(&Store::open(options).unwrap().log("auditlog").await.unwrap(), 0).await;
        assert_eq!(messages(&all), expected);
        assert!(decoded(&all) >= 30, "{}", decoded(&all));
    }
    writer.close().await.unwrap();
}
