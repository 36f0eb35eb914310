//! Somebody who can write to a log's folder and has no key can neither add to the log, nor hide or take
//! anything away from it, unseen: each attack is played, and readers, writers and verification are asked.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use common::attacker::{
    LOG, add_file, append_commit, commit_file, commits, complaints, copy, hex, mend_chain, newest_add,
    read_parquet, rewrite_commits, strip_signatures, write_parquet,
};
use common::{append, append_file, needs_a_disk, read, rows, store, writer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sporlog_ledger::{Advance, Append, Error, LogKeys, Outcome, Writer, WriterOptions};
use sporlog_record::Kind;
use sporlog_record::kind::quarantine::{self, Action, QuarantineRecord};
use tempfile::TempDir;

/// A log of 360 records in five commits, published.
async fn log_in(dir: &Path) {
    let writer = writer(dir).await;
    for n in 0..5u64 {
        append_file(&writer, n * 100, n * 100 + 72).await;
    }
    writer.close().await.unwrap();
}

async fn open_writer(dir: &Path) -> Result<Writer, Error> {
    store(dir).writer("auditlog", Kind::Auditlog, WriterOptions { take_turns: true }).await
}

/// Readers with the key, writers, readers with nothing but the public key, and verification: all refuse
/// the log in `dir`, and name `part`.
async fn assert_refused(dir: &Path, part: &str) {
    let names = |error: Error| {
        let text = error.to_string();
        assert!(text.contains(part), "{part} is not named by: {text}");
    };
    names(store(dir).log("auditlog").await.unwrap_err());
    names(open_writer(dir).await.unwrap_err());
    let found = complaints(dir).await;
    assert!(found.iter().any(|problem| problem.contains(part)), "{part} is not named by {found:?}");
    // A copy of the log's folder, without its keys.
    let handed_out = TempDir::new().unwrap();
    copy(&dir.join("logs"), &handed_out.path().join("logs"));
    let without_keys = store(handed_out.path()).without_keys();
    names(without_keys.log("auditlog").await.unwrap_err());
    let verified = without_keys.log_to_verify("auditlog").await.unwrap().verify(|_| ()).await.unwrap();
    assert!(verified.problems.iter().any(|p| p.to_string().contains(part)), "{:?}", verified.problems);
}

fn version_name(version: usize) -> String {
    format!("{version:020}.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_position_is_refused() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    // A delivery that never came would be "already in".
    let txn = json!({"txn": {"appId": format!("file:{}", hex(&[7; 32])), "version": 1, "lastUpdated": 0}});
    let forged = append_commit(&log, 360, &[txn]);
    assert_refused(dir.path(), forged.file_name().unwrap().to_str().unwrap()).await;
    // Without that commit, the log is what it was.
    fs::remove_file(forged).unwrap();
    assert_eq!(complaints(dir.path()).await, [""; 0]);
    open_writer(dir.path()).await.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_record_is_refused() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    let add = newest_add(&log);
    let batch = read_parquet(&log.join("table").join(add["path"].as_str().unwrap()));
    let at = batch.schema().index_of("cpr").unwrap();
    let mut columns = batch.columns().to_vec();
    columns[at] = std::sync::Arc::new(StringArray::from(vec!["0000000000"; batch.num_rows()])) as ArrayRef;
    let forged = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let replaced = add_file(&log, &add, &forged, (289, 360));
    let remove = json!({"remove": {"path": add["path"], "dataChange": false, "deletionTimestamp": 0}});
    append_commit(&log, 360, &[remove, json!({"add": replaced})]);
    assert_refused(dir.path(), &version_name(6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_statistics_are_refused() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    // `find --from` would skip this file.
    let edit = |version: usize, text: String| match version {
        3 => text.replace("2026-11-21T", "1999-11-21T"),
        _ => text,
    };
    rewrite_commits(&log, edit);
    assert_refused(dir.path(), &version_name(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_signed_by_another_key_is_refused() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    log_in(dir.path()).await;
    log_in(other.path()).await;
    let (log, other) = (dir.path().join(LOG), other.path().join(LOG));
    // The other log's newest commit, after this one's chain: its statement and signature hold there.
    fs::copy(commit_file(&other, 5), commit_file(&log, 5)).unwrap();
    mend_chain(&log);
    assert_refused(dir.path(), &version_name(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_commits_that_were_deleted_are_missed() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let old = TempDir::new().unwrap();
    copy(&dir.path().join("logs"), old.path());
    let writer = writer(dir.path()).await;
    append(&writer, 900, 905).await;
    writer.close().await.unwrap();
    // The log's folder, with note and checkpoint, as it was before.
    fs::remove_dir_all(dir.path().join("logs")).unwrap();
    copy(old.path(), &dir.path().join("logs"));
    let rolled_back =
        |error: Error| assert!(matches!(error, Error::RolledBack { size: 360, signed: 365, .. }));
    rolled_back(store(dir.path()).log("auditlog").await.unwrap_err());
    rolled_back(open_writer(dir.path()).await.unwrap_err());
    let found = complaints(dir.path()).await;
    assert!(found.iter().any(|problem| problem.contains("an older copy")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_deleted_is_missed() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    fs::remove_dir_all(dir.path().join(LOG)).unwrap();
    // A writer must not begin anew at id 1 under the same key.
    for error in
        [store(dir.path()).log("auditlog").await.unwrap_err(), open_writer(dir.path()).await.unwrap_err()]
    {
        assert!(matches!(error, Error::RolledBack { size: 0, signed: 360, .. }), "{error}");
    }
    // It is among the logs, so that whoever asks for all of them hears of it.
    assert_eq!(store(dir.path()).names().await.unwrap(), ["auditlog"]);
    assert!(matches!(store(dir.path()).logs().await, Err(Error::RolledBack { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_put_back_and_went_on_elsewhere_is_refused() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    log_in(dir.path()).await;
    copy(dir.path(), elsewhere.path());
    for (dir, from) in [(dir.path(), 1_000), (elsewhere.path(), 2_000)] {
        let writer = writer(dir).await;
        append(&writer, from, from + 3).await;
        append(&writer, from + 3, from + 6).await;
        // Past a Delta checkpoint, from which the log is opened.
        writer.compact(Duration::ZERO).await.unwrap();
        append(&writer, from + 6, from + 7).await;
        writer.close().await.unwrap();
    }
    fs::remove_dir_all(dir.path().join("logs")).unwrap();
    copy(&elsewhere.path().join("logs"), &dir.path().join("logs"));
    let error = store(dir.path()).log("auditlog").await.unwrap_err().to_string();
    assert!(error.contains("put back to an older copy"), "{error}");
}

/// A Delta checkpoint, and the hint on it, from which all files but the newest are gone.
fn tamper_with_checkpoint(log: &Path) -> (String, Vec<u8>) {
    let hint = log.join("table/_delta_log/_last_checkpoint");
    let mut last: Value = serde_json::from_slice(&fs::read(&hint).unwrap()).unwrap();
    let name = format!("table/_delta_log/{:020}.checkpoint.parquet", last["version"].as_u64().unwrap());
    let batch = read_parquet(&log.join(&name));
    let adds = batch.column_by_name("add").unwrap();
    let keep: arrow::array::BooleanArray =
        (0..batch.num_rows()).map(|row| Some(adds.is_null(row) || row + 1 == batch.num_rows())).collect();
    let left = arrow::compute::filter_record_batch(&batch, &keep).unwrap();
    assert!(left.num_rows() < batch.num_rows());
    last["size"] = left.num_rows().into();
    fs::write(hint, last.to_string()).unwrap();
    let bytes = write_parquet(&left);
    fs::write(log.join(&name), &bytes).unwrap();
    (name, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_checkpoint_that_was_tampered_with_is_not_built_upon() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    let handle = writer(dir.path()).await;
    append(&handle, 500, 510).await;
    handle.compact(Duration::from_secs(600)).await.unwrap();
    append(&handle, 510, 520).await;
    handle.compact(Duration::from_secs(600)).await.unwrap();
    handle.close().await.unwrap();
    let (name, _) = tamper_with_checkpoint(&log);
    let found = complaints(dir.path()).await;
    assert!(found.iter().any(|problem| problem.contains(&name)), "{found:?}");
    assert!(found.iter().any(|problem| problem.contains("_last_checkpoint")), "{found:?}");

    let handle = open_writer(dir.path()).await.unwrap();
    append(&handle, 520, 530).await;
    handle.compact(Duration::from_secs(600)).await.unwrap();
    handle.close().await.unwrap();
    let reader = store(dir.path()).log("auditlog").await.unwrap();
    assert_eq!(read(&reader, 0, None).await.len(), 390);
    // The tampered one is still reported, by its name, until it goes with the left-overs.
    let found = complaints(dir.path()).await;
    assert!(found.iter().all(|problem| problem.contains(&name)) && found.len() == 1, "{found:?}");
}

/// Makes the log one that an earlier version of this program could have written: without signatures on
/// its commits, with a note signed by `keys` that vouches for `checkpoint`.
fn made_before_signatures(dir: &Path, checkpoint: &[(String, Vec<u8>)]) {
    let log = dir.join(LOG);
    let chain = strip_signatures(&log);
    let keys = LogKeys::load(&dir.join("keys"), "auditlog").unwrap();
    let version = commits(&log).len() - 1;
    let mut note = format!("sporlog-table/1\n{}\n{version}\n{}\n", keys.origin(), hex(&chain));
    for (name, bytes) in checkpoint {
        note.push_str(&format!("{name} {}\n", hex(&Sha256::digest(bytes))));
    }
    fs::write(log.join("tlog/table"), keys.sign(&note).unwrap()).unwrap();
    fs::remove_file(dir.join("keys/auditlog.signed")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_log_is_verified_and_signed_by_its_first_writer() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    made_before_signatures(dir.path(), &[]);
    // Readers accept an old log, and verification says that it is one.
    let old = store(dir.path()).log("auditlog").await.unwrap();
    assert_eq!(read(&old, 0, None).await.len(), 360);
    let verified = old.verify(|_| ()).await.unwrap();
    assert_eq!((verified.problems, verified.signed), (vec![], false));

    let writer = open_writer(dir.path()).await.unwrap();
    append_file(&writer, 700, 701).await;
    writer.close().await.unwrap();
    let verified = store(dir.path()).log("auditlog").await.unwrap().verify(|_| ()).await.unwrap();
    assert_eq!((verified.problems, verified.signed, verified.records), (vec![], true, 361));
    let upgrade = &commits(&dir.path().join(LOG))[6];
    assert!(upgrade[1]["protocol"]["writerFeatures"].as_array().unwrap().contains(&"invariants".into()));
    // From then on, a log without signatures is refused.
    strip_signatures(&dir.path().join(LOG));
    assert_refused(dir.path(), &version_name(7)).await;
}

/// A store that version 0.1.0 made before commits were signed, of synthetic records.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_an_earlier_version_goes_on() {
    if needs_a_disk("no earlier version made a store in a bucket") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let archive =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/store-without-signed-commits.tar.gz");
    let unpacked = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(dir.path()).status().unwrap();
    assert!(unpacked.success());
    let dir = dir.path().join("store");
    for (name, head) in
        [("access", 1), ("auditlog", 60), ("disclosure", 20), ("quarantine", 41), ("revision", 40)]
    {
        let old = store(&dir).log(name).await.unwrap();
        let verified = old.verify(|_| ()).await.unwrap();
        assert_eq!((verified.problems, verified.signed, old.head()), (vec![], false, head), "{name}");
        let turns = WriterOptions { take_turns: true };
        let writer = store(&dir).writer(name, old.kind(), turns).await.unwrap();
        if name == "auditlog" {
            append(&writer, 0, 5).await;
        }
        writer.close().await.unwrap();
        let verified = store(&dir).log(name).await.unwrap().verify(|_| ()).await.unwrap();
        assert_eq!((verified.problems, verified.signed), (vec![], true), "{name}");
        let writer = store(&dir).writer(name, old.kind(), turns).await.unwrap();
        writer.compact(Duration::ZERO).await.unwrap();
        writer.close().await.unwrap();
        let verified = store(&dir).log(name).await.unwrap().verify(|_| ()).await.unwrap();
        assert_eq!((verified.problems, verified.signed), (vec![], true), "{name}");
    }
    let log = store(&dir).log("auditlog").await.unwrap();
    assert_eq!((log.head(), read(&log, 60, None).await.len()), (65, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_log_with_a_tampered_checkpoint_that_was_signed_is_not_signed_again() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    let handle = writer(dir.path()).await;
    handle.compact(Duration::from_secs(600)).await.unwrap();
    for n in 0..3 {
        append_file(&handle, 800 + n, 801 + n).await;
    }
    handle.close().await.unwrap();
    let (name, bytes) = tamper_with_checkpoint(&log);
    made_before_signatures(dir.path(), &[(name.clone(), bytes)]);
    let error = open_writer(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains(&name), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_log_with_a_forged_record_is_not_signed() {
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    made_before_signatures(dir.path(), &[]);
    let add = newest_add(&log);
    let batch = read_parquet(&log.join("table").join(add["path"].as_str().unwrap())).slice(0, 1);
    let mut columns = batch.columns().to_vec();
    columns[0] = std::sync::Arc::new(arrow::array::Int64Array::from(vec![361]));
    let forged = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let add = add_file(&log, &add, &forged, (361, 361));
    append_commit(&log, 361, &[json!({"add": add})]);
    strip_signatures(&log);
    let error = open_writer(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains(&version_name(6)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_commit_stops_a_writer_that_is_open() {
    if needs_a_disk("a writer looks there only now and then at what others have put") {
        return;
    }
    let dir = TempDir::new().unwrap();
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    let writer = open_writer(dir.path()).await.unwrap();
    let version = commits(&log).len();
    let forged = append_commit(&log, 360, &[json!({"txn": {"appId": "file:x", "version": 1}})]);
    let one = Append { rows: rows(0, 1), positions: vec![("file:x".into(), Advance::To(1))] };
    let refused = writer.append(one).await.unwrap_err().to_string();
    assert!(refused.contains(&version_name(version)), "{refused}");
    let refresh = writer.log().refresh().await.unwrap_err().to_string();
    assert!(refresh.contains(&version_name(version)), "{refresh}");
    drop(writer);
    fs::remove_file(forged).unwrap();
    let writer = open_writer(dir.path()).await.unwrap();
    let one = Append { rows: rows(0, 1), positions: vec![("file:x".into(), Advance::To(1))] };
    assert!(matches!(writer.append(one).await.unwrap(), Outcome::Appended(_)));
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_does_not_tell_which_record_it_is_of() {
    let dir = TempDir::new().unwrap();
    let writer = writer(dir.path()).await;
    // The same record twice, as far as the sender is concerned.
    append(&writer, 7, 8).await;
    append(&writer, 7, 8).await;
    writer.close().await.unwrap();
    let published = fs::read(dir.path().join(LOG).join("tlog/tile/entries/000.p/2")).unwrap();
    let commitments: Vec<_> = published.chunks(34).map(|entry| entry[2..].to_vec()).collect();
    assert_ne!(commitments[0], commitments[1]);
    // Whoever guesses the whole entry, byte for byte, cannot tell: a salt is in the commitment, too.
    let log = store(dir.path()).log("auditlog").await.unwrap();
    let keys = LogKeys::load(&dir.path().join("keys"), "auditlog").unwrap();
    for (id, commitment) in (1..).zip(&commitments) {
        let entry = log.entry(id).await.unwrap();
        assert_ne!(Sha256::digest(&entry).to_vec(), *commitment);
        assert_ne!(Sha256::digest([&[0; 16], &entry[..]].concat()).to_vec(), *commitment);
        assert_eq!(keys.commit(id, &entry).to_vec(), *commitment);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_that_disappears_is_missed() {
    let dir = TempDir::new().unwrap();
    let store = store(dir.path());
    let writer =
        store.writer("quarantine", Kind::Quarantine, WriterOptions { take_turns: true }).await.unwrap();
    for content in ["{", "}"] {
        let record = QuarantineRecord {
            action: Action::Refused,
            item: None,
            kind: Kind::Auditlog.name().to_owned(),
            log: "auditlog".into(),
            source: "test".into(),
            line: None,
            reasons: Vec::new(),
            content: content.into(),
            envelope: None,
            note: None,
        };
        writer
            .append(Append { rows: quarantine::rows(&[record], "test", 0), positions: vec![] })
            .await
            .unwrap();
    }
    writer.flush().await.unwrap();
    writer.close().await.unwrap();
    let log = dir.path().join("logs/quarantine");
    let path = newest_add(&log)["path"].as_str().unwrap().to_owned();
    fs::remove_file(log.join("table").join(&path)).unwrap();
    let found = store.log_to_verify("quarantine").await.unwrap().verify(|_| ()).await.unwrap().problems;
    assert!(found.iter().any(|problem| problem.file.ends_with(&path)), "{found:?}");
}

/// Merging signs for what is merged: a file that was changed must not get into a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_file_that_was_changed_is_not_merged() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    log_in(dir.path()).await;
    let handle = writer(other.path()).await;
    append_file(&handle, 7_000, 7_072).await;
    handle.close().await.unwrap();
    let first = |dir: &Path| {
        let added = commits(&dir.join(LOG)).into_iter().flatten().find_map(|a| a.get("add").cloned());
        added.unwrap()["path"].as_str().unwrap().to_owned()
    };
    let path = first(dir.path());
    let forged = other.path().join(LOG).join("table").join(first(other.path()));
    fs::copy(forged, dir.path().join(LOG).join("table").join(&path)).unwrap();
    let handle = open_writer(dir.path()).await.unwrap();
    let refused = handle.compact(Duration::ZERO).await.unwrap_err().to_string();
    assert!(refused.contains(&path) && refused.contains("it has been changed"), "{refused}");
    handle.close().await.unwrap();
    assert!(complaints(dir.path()).await.iter().any(|problem| problem.contains(&path)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_notices_that_its_log_was_put_back() {
    if needs_a_disk("a writer looks there only now and then at what others have put") {
        return;
    }
    let (dir, old) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    log_in(dir.path()).await;
    let log = dir.path().join(LOG);
    copy(&log, old.path());
    let handle = open_writer(dir.path()).await.unwrap();
    append_file(&handle, 800, 801).await;
    append_file(&handle, 801, 802).await;
    while handle.log().covered().await.unwrap() < handle.log().head() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let aside = dir.path().join("aside");
    fs::rename(&log, &aside).unwrap();
    copy(old.path(), &log);
    // Nothing is acknowledged that could not be read afterwards.
    for _ in 0..2 {
        let refused = handle.append(Append { rows: rows(802, 803), positions: vec![] }).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(&version_name(7)), "{refused}");
    }
    assert_eq!(commits(&log).len(), 6);
    // The writer may be publishing into the folder at this moment.
    while fs::remove_dir_all(&log).and_then(|()| fs::rename(&aside, &log)).is_err() {}
    append(&handle, 802, 803).await;
    handle.close().await.unwrap();
    assert_eq!(complaints(dir.path()).await, [""; 0]);
}
