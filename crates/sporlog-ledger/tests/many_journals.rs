//! The bound on the bytes of all journals of a process. It is a program of its own, for the journals of other tests would count.

#[allow(dead_code)]
mod common;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use common::{rows, store};
use sporlog_ledger::{Append, WriterOptions};
use sporlog_record::Kind;
use tempfile::TempDir;

/// A record is 8 kB here, so that they are few.
#[tokio::test(flavor = "multi_thread")]
async fn many_journals_together_hold_no_more_than_64_mb() {
    let dir = TempDir::new().unwrap();
    let store = store(dir.path());
    let (few, text) = (rows(0, 1_000), "x".repeat(8 << 10));
    let at = few.schema().index_of("message").unwrap();
    let mut columns = few.columns().to_vec();
    columns[at] = Arc::new(StringArray::from_iter_values((0..1_000).map(|_| &text)));
    let large = RecordBatch::try_new(few.schema(), columns).unwrap();
    let mut writers = Vec::new();
    for n in 0..10 {
        let name = format!("auditlog-{n}");
        let writer = store.writer(&name, Kind::Auditlog, WriterOptions::default()).await.unwrap();
        writer.append(Append { rows: large.clone(), positions: vec![] }).await.unwrap();
        writers.push(writer);
    }
    // Fewer records than become a file of their own soon.
    let in_the_table = || writers.iter().any(|writer| !writer.log().data_files().is_empty());
    for _ in 0..600 {
        if in_the_table() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(in_the_table());
}
