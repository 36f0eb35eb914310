//! A store in a bucket, whose sequencers go on after a time in which nothing came.

use arrow::array::RecordBatch;
use chrono::TimeDelta;
use sporlog_record::Kind;

use super::*;
use crate::store::{Store, StoreOptions};
use crate::writer::Append;

const TURNS: WriterOptions = WriterOptions { take_turns: true };

/// Moves the position of a source, in a frame of its own.
async fn append(store: &Store, source: &str) -> Result<Outcome> {
    let writer = store.writer("auditlog", Kind::Auditlog, TURNS).await?;
    let rows = RecordBatch::new_empty(Kind::Auditlog.row_schema());
    let appended = writer.append(Append { rows, positions: vec![(source.to_owned(), Advance::Once)] }).await;
    writer.close().await.and(appended)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_put_into_the_table_long_after_its_last_frame() -> Result<()> {
    let keys = tempfile::tempdir().expect("a folder");
    let keys = Some(keys.path().to_owned());
    let address = "memory:///".to_owned();
    let store = Store::open(StoreOptions { address, keys, create: true, ..StoreOptions::default() })?;
    append(&store, "one").await?;
    for other in [None, Some("two")] {
        let (sender, _receiver) = mpsc::channel(1);
        let log = store.log("auditlog").await?;
        let mut sequencer = Sequencer::open(log.shared.clone(), TURNS, sender.downgrade()).await?;
        sequencer.known_at -= TimeDelta::minutes(6);
        if let Some(other) = other {
            append(&store, other).await?;
        }
        let flushed = move || sequencer.flush().map(|()| sequencer.check_running());
        tokio::task::spawn_blocking(flushed).await.expect("no panic")??;
        assert!(log.state().recent.is_empty());
    }
    assert_eq!(store.log("auditlog").await?.positions("").len(), 3, "with the log's own");
    Ok(())
}
