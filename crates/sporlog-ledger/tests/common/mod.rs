//! Logs to try things on.

#[allow(dead_code)]
pub mod attacker;

use std::io::Write;
use std::path::Path;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use sporlog_ledger::{Append, Appended, Log, Outcome, Store, StoreOptions, Writer, WriterOptions};
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::{Kind, Position, Rules};

/// Names the folder that the objects of the bucket `sporlog` lie in as files, where the tests are to have their stores in
/// the bucket (`tests/bucket/with`).
const BUCKET: &str = "SPORLOG_TEST_BUCKET";

/// The address of the store in `dir`: that folder, or the bucket's prefix whose objects are the files in it.
pub fn address(dir: &Path) -> String {
    let bucket = std::env::var(BUCKET).ok();
    match bucket.and_then(|bucket| dir.strip_prefix(bucket).ok().map(|prefix| prefix.display().to_string())) {
        Some(prefix) => format!("s3://sporlog/{prefix}"),
        None => dir.display().to_string(),
    }
}

/// How the store in `dir` is opened.
pub fn options(dir: &Path) -> StoreOptions {
    let keys = Some(dir.join("keys"));
    StoreOptions { address: address(dir), keys, create: true, ..StoreOptions::default() }
}

/// The store in `dir`.
pub fn store(dir: &Path) -> Store {
    Store::open(options(dir)).unwrap()
}

/// Whether the tests have their stores in a bucket.
#[allow(dead_code)]
pub fn in_a_bucket() -> bool {
    std::env::var_os(BUCKET).is_some()
}

/// Whether a test is left out because the stores are in a bucket; says so, and why.
#[allow(dead_code)]
pub fn needs_a_disk(why: &str) -> bool {
    if in_a_bucket() {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        // Not by a macro, whose output is shown only of tests that fail.
        let text = format!("LEFT OUT in a bucket: {name}: {why}\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    in_a_bucket()
}

/// A writer of the log `auditlog`.
pub async fn writer(dir: &Path) -> Writer {
    store(dir).writer("auditlog", Kind::Auditlog, WriterOptions::default()).await.unwrap()
}

/// Audit records with the messages `from..to`, which their CPR numbers repeat modulo 100.
pub fn rows(from: u64, to: u64) -> RecordBatch {
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Auditlog, &rules);
    for n in from..to {
        let record = format!(
            r#"{{"id":{n},"tts":"2026-11-21T08:{:02}:{:02}","cpr":"{:010}","logAction":"LOGIN","message":"{n}","samaccountName":"user{}"}}"#,
            n / 60 % 60,
            n % 60,
            n % 100,
            n % 7
        );
        let judged = builder.push(record.as_bytes(), &format!("test:{n}"), Position { line: 1, column: 1 });
        assert!(matches!(judged, Judged::Accepted(_)), "{judged:?}");
    }
    builder.finish()
}

/// Appends, which has to succeed.
pub async fn append(writer: &Writer, from: u64, to: u64) -> Appended {
    match writer.append(Append { rows: rows(from, to), positions: vec![] }).await.unwrap() {
        Outcome::Appended(appended) => appended,
        other => panic!("{other:?}"),
    }
}

/// Appends, as a file of the table.
#[allow(dead_code)]
pub async fn append_file(writer: &Writer, from: u64, to: u64) -> Appended {
    let appended = append(writer, from, to).await;
    writer.flush().await.unwrap();
    appended
}

/// Ids and messages above `after`.
pub async fn read(log: &Log, after: u64, limit: Option<u64>) -> Vec<(i64, String)> {
    messages(&log.read(after, limit).try_collect::<Vec<_>>().await.unwrap())
}

/// Ids and messages.
pub fn messages(batches: &[RecordBatch]) -> Vec<(i64, String)> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let of = |batch: &RecordBatch| {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
        let texts = batch.column_by_name("message").unwrap().as_string::<i32>().clone();
        ids.into_iter()
            .zip(texts.iter().map(|t| t.unwrap().to_owned()).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}
