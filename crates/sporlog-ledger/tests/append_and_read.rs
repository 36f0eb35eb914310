//! What is appended can be read, found, queried, proved and verified.

mod common;

use std::time::Duration;

use common::{append, append_file, messages, read, rows, store, writer};
use futures::TryStreamExt;
use sporlog_ledger::{Advance, Append, Find, Key, Outcome, WriterOptions, query, verify_proof};
use sporlog_record::Kind;

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_records_are_located_and_read_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append(&writer, 0, 5_010).await;
    append(&writer, 5_010, 5_110).await;
    let log = writer.log().clone();
    let located = log.locate(Key::Subject("0000000007".into())).await.unwrap();
    // What comes in later moves nothing.
    append(&writer, 5_110, 5_300).await;
    let expected: Vec<_> =
        (0..5_110i64).filter(|n| n % 100 == 7).rev().map(|n| (n + 1, n.to_string())).collect();
    assert_eq!(located.count(), expected.len());
    assert!(located.may_have(8) && located.may_have(5_008));
    for other in [0, 7, 9, 5_208, u64::MAX] {
        assert!(!located.may_have(other), "{other}");
    }
    let (mut found, mut before) = (Vec::new(), Some(u64::MAX));
    while let Some(id) = before {
        let (batches, next) = located.read(id, 20, &["message"]).await.unwrap();
        assert!(batches.iter().all(|batch| batch.column_by_name("logAction").is_none()));
        found.extend(messages(&batches));
        before = next;
    }
    assert_eq!(found, expected);
    let (batches, next) = located.read(8, 20, &["message"]).await.unwrap();
    assert!(messages(&batches).is_empty() && next.is_none());
    let mut narrow = located.clone();
    narrow.narrow(Some(i64::MAX), None);
    assert_eq!(narrow.count(), 0);
    let nobody = log.locate(Key::Subject("x".into())).await.unwrap();
    assert_eq!(nobody.count(), 0);
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_many_are_found_without_reading_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append_file(&writer, 0, 40_000).await;
    let log = writer.log();
    let of_one = |limit| Find { key: Key::Subject("0000000007".into()), from: None, to: None, limit };
    let all: Vec<_> = log.find(of_one(None)).try_collect().await.unwrap();
    assert_eq!(messages(&all).len(), 400);
    // The first page of the first column is damaged. Whoever reads the first records fails.
    let file =
        walk(dir.path()).into_iter().find(|p| p.contains("/table/") && p.ends_with(".parquet")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4..64].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    let newest: Vec<_> = log.find(of_one(Some(10))).try_collect().await.unwrap();
    assert_eq!(messages(&newest), messages(&all)[..10]);
    assert!(log.find(of_one(None)).try_collect::<Vec<_>>().await.is_err());
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_from_end_to_end() {
    from_end_to_end(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_from_end_to_end_in_the_journal() {
    from_end_to_end(false).await;
}

/// Records in three files, or in three frames of the journal.
async fn from_end_to_end(in_files: bool) {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    assert_eq!(writer.log().head(), 0);
    assert_eq!(writer.log().first(), 1);
    let first = append(&writer, 0, 10).await;
    assert_eq!((first.first, first.last), (1, 10));
    for (from, to) in [(10, 4_000), (4_000, 5_010), (5_010, 5_011)] {
        if in_files && from != 4_000 {
            writer.flush().await.unwrap();
        }
        append(&writer, from, to).await;
    }
    if in_files {
        writer.flush().await.unwrap();
    }
    let log = writer.log().clone();
    assert_eq!(log.head(), 5_011);

    // By id, across files.
    let page = read(&log, 8, Some(4)).await;
    assert_eq!(page, [(9, "8".into()), (10, "9".into()), (11, "10".into()), (12, "11".into())]);
    assert_eq!(read(&log, 0, None).await.len(), 5_011);
    assert_eq!(read(&log, 5_011, Some(100)).await, []);
    assert_eq!(read(&log, u64::MAX, Some(100)).await, []);
    assert_eq!(read(&log, 5_010, Some(u64::MAX)).await, [(5_011, "5010".into())]);

    // By person: through the index of the large file, and the key column of the small ones.
    let find = |key, limit| Find { key, from: None, to: None, limit };
    let subject = Key::Subject("0000000007".into());
    let found: Vec<_> = log.find(find(subject.clone(), None)).try_collect().await.unwrap();
    let found = messages(&found);
    let expected: Vec<_> =
        (0..5_011i64).filter(|n| n % 100 == 7).rev().map(|n| (n + 1, n.to_string())).collect();
    assert_eq!(found, expected);
    let newest: Vec<_> = log.find(find(subject, Some(3))).try_collect().await.unwrap();
    assert_eq!(messages(&newest), expected[..3]);
    let actor: Vec<_> = log.find(find(Key::Actor("user3".into()), None)).try_collect().await.unwrap();
    assert_eq!(messages(&actor).len(), (0..5_011).filter(|n| n % 7 == 3).count());
    let nobody: Vec<_> = log.find(find(Key::Subject("x".into()), None)).try_collect().await.unwrap();
    assert!(nobody.is_empty());

    // By a column's value, within a range of ids.
    let mine: Vec<_> = log.read_where(8, 4_000, "samaccountName", "user3").try_collect().await.unwrap();
    let expected_mine: Vec<_> =
        (8..4_008i64).filter(|n| n % 7 == 3).map(|n| (n + 1, n.to_string())).collect();
    assert_eq!(messages(&mine), expected_mine);
    let nobody: Vec<_> = log.read_where(0, u64::MAX, "message", "x").try_collect().await.unwrap();
    assert!(messages(&nobody).is_empty());

    // By query.
    let sql = "SELECT count(*) AS n, max(id) AS id FROM events WHERE subject = '0000000007'";
    let logs = std::slice::from_ref(&log);
    let (_, result) = query(logs, sql, 1 << 28).await.unwrap();
    let result: Vec<_> = result.try_collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&result).unwrap().to_string();
    assert!(shown.contains(&format!("| {} | {} |", expected.len(), expected[0].0)), "{shown}");
    for refused in
        ["DROP VIEW events", "SET x = 1", "COPY events TO '/tmp/x.csv'", "CREATE TABLE x AS SELECT 1"]
    {
        assert!(query(logs, refused, 1 << 28).await.is_err(), "{refused}");
    }

    // Proof and verification, by a reader that has just opened the store.
    writer.close().await.unwrap();
    let log = store(dir.path()).log("auditlog").await.unwrap();
    let proof = log.prove(4_321).await.unwrap();
    let proven = verify_proof(&proof, log.vkey()).unwrap();
    assert_eq!((proven.id, proven.size), (4_321, 5_011));
    assert_eq!(proven.entry.as_bytes(), log.entry(4_321).await.unwrap());
    assert!(proven.entry.contains(r#""message":"4320""#), "{}", proven.entry);
    let verified = log.verify(|_| ()).await.unwrap();
    assert_eq!(verified.problems, []);
    assert_eq!((verified.records, verified.head), (5_011, 5_011));
    // The journal is put into the table at the end, if not before.
    assert!(
        if in_files { verified.files == 3 } else { (1..=3).contains(&verified.files) },
        "{}",
        verified.files
    );
    assert!(verify_proof(&proof.replace("index 4320", "index 4319"), log.vkey()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_position_is_never_taken_in_twice() {
    let dir = tempfile::tempdir().unwrap();
    let from = |offset: i64| advancing(Advance::To(offset));
    let first = writer(dir.path()).await;
    assert!(matches!(first.append(from(7)).await.unwrap(), Outcome::Appended(_)));
    assert!(matches!(first.append(from(7)).await.unwrap(), Outcome::AlreadyThere { .. }));
    assert!(matches!(first.append(from(3)).await.unwrap(), Outcome::AlreadyThere { .. }));
    // Two at once, which may well come into one commit.
    let (a, b) = tokio::join!(first.append(from(8)), first.append(from(8)));
    let stored = [a, b].into_iter().filter(|o| matches!(o, Ok(Outcome::Appended(_)))).count();
    assert_eq!(stored, 1);
    first.close().await.unwrap();
    let second = writer(dir.path()).await;
    assert!(matches!(second.append(from(8)).await.unwrap(), Outcome::AlreadyThere { .. }));
    assert!(matches!(second.append(from(9)).await.unwrap(), Outcome::Appended(_)));
    assert_eq!(second.log().head(), 6);
}

fn advancing(advance: Advance) -> Append {
    Append { rows: rows(0, 2), positions: vec![("kafka:t:0".to_owned(), advance)] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_made_only_from_where_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    let step = |from, to| advancing(Advance::Step { from, to });
    let there = |outcome| match outcome {
        Outcome::AlreadyThere { position, .. } => position.version,
        Outcome::Appended(_) => panic!("it was appended"),
    };
    assert_eq!(there(writer.append(step(4, 9)).await.unwrap()), -1);
    assert!(matches!(writer.append(step(-1, 9)).await.unwrap(), Outcome::Appended(_)));
    assert_eq!(there(writer.append(step(-1, 12)).await.unwrap()), 9);
    assert_eq!(there(writer.append(step(5, 12)).await.unwrap()), 9);
    // Two that overlap, at once: one of them, whichever comes first.
    let (a, b) = tokio::join!(writer.append(step(9, 12)), writer.append(step(9, 20)));
    let stored = [a, b].into_iter().filter(|o| matches!(o, Ok(Outcome::Appended(_)))).count();
    assert_eq!((stored, writer.log().head()), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_once_more_is_told_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = writer(dir.path()).await;
    append(&first, 0, 5).await;
    let (a, b) = tokio::join!(first.append(advancing(Advance::Once)), first.append(advancing(Advance::Once)));
    let there = |outcome| match outcome {
        Outcome::AlreadyThere { position, .. } => position.version,
        Outcome::Appended(appended) => appended.first as i64,
    };
    assert_eq!((there(a.unwrap()), there(b.unwrap()), first.log().head()), (6, 6, 7));
    first.close().await.unwrap();
    let second = writer(dir.path()).await;
    append(&second, 5, 6).await;
    assert_eq!(there(second.append(advancing(Advance::Once)).await.unwrap()), 6);
    assert_eq!(second.log().head(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_fails_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let one = writer(dir.path()).await;
    let two = writer(dir.path()).await;
    append(&one, 0, 5).await;
    let failed = two.append(Append { rows: rows(5, 8), positions: vec![] }).await;
    assert!(matches!(failed, Err(sporlog_ledger::Error::Fenced { .. })), "{failed:?}");
    let again = two.append(Append { rows: rows(5, 8), positions: vec![] }).await;
    assert!(matches!(again, Err(sporlog_ledger::Error::Stopped { .. })), "{again:?}");
    append(&one, 5, 9).await;
    one.close().await.unwrap();
    let log = store(dir.path()).log("auditlog").await.unwrap();
    assert_eq!(read(&log, 0, None).await.len(), 9);
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_take_turns_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions { take_turns: true };
    let mut tasks = Vec::new();
    for writer in 0..3u64 {
        let store = store(dir.path());
        // The first makes the log.
        let writer_handle = store.writer("access", Kind::Auditlog, options).await.unwrap();
        tasks.push(tokio::spawn(async move {
            for n in 0..20 {
                append(&writer_handle, writer * 1_000 + n, writer * 1_000 + n + 1).await;
            }
            writer_handle.close().await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let log = store(dir.path()).log("access").await.unwrap();
    let mut seen: Vec<_> = read(&log, 0, None).await.into_iter().map(|(_, message)| message).collect();
    seen.sort();
    seen.dedup();
    assert_eq!((log.head(), seen.len()), (60, 60));
    // Whoever comes next publishes what the last one could not.
    store(dir.path()).writer("access", Kind::Auditlog, options).await.unwrap().close().await.unwrap();
    assert_eq!(store(dir.path()).log("access").await.unwrap().verify(|_| ()).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_append_is_one_commit_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append(&writer, 0, 3).await;
    let bulk = writer.bulk().await.unwrap();
    let pushers: Vec<_> = (0..2u64).map(|thread| (thread, bulk.pusher())).collect();
    let threads: Vec<_> = pushers
        .into_iter()
        .map(|(thread, pusher)| {
            std::thread::spawn(move || {
                // Each has every other part; some are empty.
                for part in (thread..20).step_by(2) {
                    let count = if part % 5 == 0 { 0 } else { 700 };
                    pusher.push(part, &rows(part * 1_000, part * 1_000 + count)).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let outcome = bulk.finish(vec![("file:x".into(), Advance::To(1))]).await.unwrap();
    let Outcome::Appended(appended) = outcome else { panic!("{outcome:?}") };
    assert_eq!((appended.first, appended.last), (4, 3 + 16 * 700));
    let all = read(writer.log(), 3, None).await;
    let expected = (0..20u64).filter(|p| p % 5 != 0).flat_map(|p| p * 1_000..p * 1_000 + 700);
    assert!(all.iter().map(|(_, m)| m.parse::<u64>().unwrap()).eq(expected));

    // Given up, and dropped: nothing is left.
    let files = |_: ()| walk(dir.path()).into_iter().filter(|p| p.ends_with(".parquet")).count();
    let before = files(());
    let bulk = writer.bulk().await.unwrap();
    bulk.pusher().push(0, &rows(0, 5_000)).unwrap();
    bulk.abort().await;
    drop(writer.bulk().await.unwrap());
    assert_eq!(append_file(&writer, 0, 1).await.first, appended.last + 1);
    assert_eq!(files(()), before + 1);
    // The same file again.
    let bulk = writer.bulk().await.unwrap();
    bulk.pusher().push(0, &rows(0, 5_000)).unwrap();
    let outcome = bulk.finish(vec![("file:x".into(), Advance::To(1))]).await.unwrap();
    assert!(matches!(outcome, Outcome::AlreadyThere { .. }), "{outcome:?}");
    assert_eq!(files(()), before + 1);
    writer.close().await.unwrap();
    let log = store(dir.path()).log("auditlog").await.unwrap();
    assert_eq!(log.verify(|_| ()).await.unwrap().problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_changes_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    for n in 0..50u64 {
        append_file(&writer, n * 100, (n + 1) * 100).await;
    }
    let entry = writer.log().entry(1_234).await.unwrap();
    let before = read(writer.log(), 0, None).await;
    let compacted = writer.compact(Duration::ZERO).await.unwrap();
    assert!(compacted.into >= 1, "{compacted:?}");
    assert_eq!(read(writer.log(), 0, None).await, before);
    assert_eq!(writer.log().entry(1_234).await.unwrap(), entry);
    append_file(&writer, 5_000, 5_001).await;
    writer.close().await.unwrap();
    let log = store(dir.path()).log("auditlog").await.unwrap();
    let verified = log.verify(|_| ()).await.unwrap();
    assert_eq!((verified.problems, verified.files), (vec![], 2));
    let subject = Find { key: Key::Subject("0000000042".into()), from: None, to: None, limit: None };
    assert_eq!(messages(&log.find(subject).try_collect::<Vec<_>>().await.unwrap()).len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_gone_and_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    append(&writer, 0, 300).await;
    let nothing = writer.expire("2000-01", false).await.unwrap();
    assert_eq!((nothing.files, nothing.first_left), (0, 1));
    let tried = writer.expire("9999-01", true).await.unwrap();
    assert_eq!((tried.records, writer.log().first()), (300, 1));
    writer.expire("9999-01", false).await.unwrap();
    assert_eq!((writer.log().head(), writer.log().first()), (300, 301));
    assert_eq!(append(&writer, 300, 310).await.first, 301);
    assert_eq!(read(writer.log(), 0, Some(5)).await.first().unwrap().0, 301);
    assert!(writer.log().record(7).await.is_err());
    writer.close().await.unwrap();
    let log = store(dir.path()).log("auditlog").await.unwrap();
    let verified = log.verify(|_| ()).await.unwrap();
    assert_eq!((verified.problems, verified.expired, verified.records), (vec![], 300, 10));
    // Without the note, the gap is a gap.
    let note = walk(dir.path()).into_iter().find(|p| p.contains("/tlog/expired/")).unwrap();
    std::fs::remove_file(note).unwrap();
    let verified = log.verify(|_| ()).await.unwrap();
    assert!(verified.problems[0].problem.contains("records 1 to 300 are missing"), "{verified:?}");
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}
