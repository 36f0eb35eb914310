//! The bound on the bytes of all journals of a process. It is a program of its own, for the journals of other tests would count.

#[allow(dead_code)]
mod common;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use common::{needs_a_disk, rows, store};
use sporlog_ledger::{Append, WriterOptions};
use sporlog_record::Kind;
use tempfile::TempDir;

/// A record is 8 kB here, so that they are few.
#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_all_journals_are_bounded() {
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
        writers.push((name, writer));
    }
    // Fewer records than become a file of their own soon.
    let in_the_table = || writers.iter().any(|(_, writer)| !writer.log().data_files().is_empty());
    for _ in 0..600 {
        if in_the_table() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(in_the_table());
    if needs_a_disk("a file is put in the place of a folder") {
        return;
    }
    // What cannot be put into the table stays in the journals, but not without end.
    for (name, _) in &writers {
        let table = dir.path().join("logs").join(name).join("table");
        for month in std::fs::read_dir(&table).unwrap().map(|entry| entry.unwrap().path()) {
            if month.to_string_lossy().contains("month=") {
                std::fs::rename(&month, month.with_extension("away")).unwrap();
            }
        }
        std::fs::write(table.join(chrono::Utc::now().format("month=%Y-%m").to_string()), "").unwrap();
    }
    let mut refused = 0;
    for (_, writer) in writers.iter().cycle().take(30) {
        let appended = writer.append(Append { rows: large.clone(), positions: vec![] }).await;
        refused += usize::from(appended.is_err());
    }
    // Each append is of 8 MB, and all of them would be 240 MB.
    assert!((10..=30).contains(&refused), "{refused}");
}
