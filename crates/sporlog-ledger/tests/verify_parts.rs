//! A log verified in parts finds what a verification of the whole finds, and results that do not belong together are told.

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::attacker::{LOG, complaints, files};
use common::{append, rows, store, writer};
use sporlog_ledger::{Advance, Outcome, Verified};

/// The ids that parts begin with: none is the first of a tile or of a file.
const STARTS: [u64; 8] = [1, 100, 258, 290, 700, 2_001, 4_300, 4_520];

/// Records that have expired, a large file with an index, merged files, a Delta checkpoint, and frames of the journal.
async fn varied_log(dir: &Path) {
    let writer = writer(dir).await;
    append(&writer, 0, 300).await;
    writer.expire("9999-01", false).await.unwrap();
    append(&writer, 300, 305).await;
    let bulk = writer.bulk().await.unwrap();
    let pusher = bulk.pusher();
    let push = move || pusher.push(0, &rows(305, 4_505)).unwrap();
    tokio::task::spawn_blocking(push).await.unwrap();
    let outcome = bulk.finish(vec![("file:bulk".into(), Advance::To(1))]).await.unwrap();
    assert!(matches!(outcome, Outcome::Appended(_)));
    writer.compact(Duration::ZERO).await.unwrap();
    append(&writer, 4_505, 4_510).await;
    writer.flush().await.unwrap();
    for n in 4_510..4_530 {
        append(&writer, n, n + 1).await;
    }
    // With the last checkpoint.
    writer.close().await.unwrap();
}

/// What the parts say is wrong, and their results.
async fn parts(
    dir: &Path,
    starts: &[u64],
    checkpoint: Option<&[u8]>,
) -> (Vec<String>, Vec<(String, Vec<u8>)>) {
    let (mut problems, mut results) = (Vec::new(), Vec::new());
    for (n, first) in starts.iter().enumerate() {
        let last = starts.get(n + 1).map(|next| next - 1);
        let found =
            async { store(dir).log("auditlog").await?.verify_range(*first, last, checkpoint, |_| ()).await };
        match found.await {
            Ok((verified, result)) => {
                assert_eq!(result.is_some(), verified.problems.is_empty());
                problems.extend(verified.problems.iter().map(ToString::to_string));
                results.extend(result.map(|result| (format!("part {n}"), result)));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    (problems, results)
}

async fn join(dir: &Path, results: &[(String, Vec<u8>)], checkpoint: Option<&[u8]>) -> Verified {
    let log = store(dir).log_to_verify("auditlog").await.unwrap();
    log.verify_join(results, checkpoint).await.unwrap()
}

async fn told(dir: &Path, results: &[(String, Vec<u8>)]) -> Vec<String> {
    join(dir, results, None).await.problems.iter().map(|found| found.problem.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_lead_to_the_signed_root() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    assert_eq!(complaints(dir.path()).await, [""; 0]);
    for starts in [&STARTS[..], &[1], &[1, 256], &[1, 257], &[1, 301, 4_506, 4_511, 4_530]] {
        let (problems, results) = parts(dir.path(), starts, None).await;
        assert_eq!(problems, [""; 0], "{starts:?}");
        let joined = join(dir.path(), &results, None).await;
        assert_eq!(joined.problems, []);
        let Verified { head, covered, records, expired, .. } = joined;
        assert_eq!((head, covered, records, expired), (4_530, 4_530, 4_230, 300), "{starts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_byte_is_found_by_a_part_or_by_the_join() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    let log = dir.path().join(LOG);
    let mut found = 0;
    for name in files(&log) {
        let path = log.join(&name);
        let whole = fs::read(&path).unwrap();
        for at in [whole.len() / 3, whole.len().saturating_sub(70)] {
            let mut changed = whole.clone();
            let Some(byte) = changed.get_mut(at) else { continue };
            *byte ^= 1;
            fs::write(&path, changed).unwrap();
            let at_once = complaints(dir.path()).await;
            let (mut in_parts, results) = parts(dir.path(), &[1, 290, 4_300], None).await;
            match store(dir.path()).log_to_verify("auditlog").await {
                Ok(log) => match log.verify_join(&results, None).await {
                    Ok(joined) => in_parts.extend(joined.problems.iter().map(ToString::to_string)),
                    Err(error) => in_parts.push(error.to_string()),
                },
                Err(error) => in_parts.push(error.to_string()),
            }
            assert_eq!(at_once.is_empty(), in_parts.is_empty(), "{name} at {at}: {at_once:?} {in_parts:?}");
            // The file is named, unless nothing can be read because of it.
            let named = |told: &[String]| told.iter().any(|problem| problem.contains(&name));
            assert!(named(&in_parts) || !named(&at_once), "{name} at {at}: {at_once:?} {in_parts:?}");
            found += usize::from(!in_parts.is_empty());
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(found > 80, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_do_not_belong_together_are_told() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    let checkpoint = fs::read(dir.path().join(LOG).join("tlog/checkpoint")).unwrap();
    let (_, results) = parts(dir.path(), &STARTS, None).await;
    let without = |n: usize| {
        results.iter().enumerate().filter(|(at, _)| *at != n).map(|(_, r)| r.clone()).collect::<Vec<_>>()
    };
    let with = |other: (String, Vec<u8>)| results.iter().cloned().chain([other]).collect::<Vec<_>>();

    assert_eq!(told(dir.path(), &without(0)).await, ["no result has the records 1 to 99"]);
    assert_eq!(told(dir.path(), &without(2)).await, ["no result has the records 258 to 289"]);
    assert_eq!(told(dir.path(), &without(7)).await, ["no result has the records 4520 to 4530"]);
    assert_eq!(
        told(dir.path(), &with(("again".into(), results[1].1.clone()))).await,
        ["the result again: another result has the records 100 to 257 too"]
    );
    let (_, wider) = parts(dir.path(), &[50, 270], None).await;
    let problems = told(dir.path(), &with(("wide".into(), wider[0].1.clone()))).await;
    assert_eq!(
        problems,
        [
            "the result wide: another result has the records 50 to 99 too",
            "the result part 1: another result has the records 100 to 257 too",
            "the result part 2: another result has the records 258 to 269 too",
        ]
    );

    let text = String::from_utf8(results[1].1.clone()).unwrap();
    for (changed, problem) in [
        (text.replace("100 257", "100 256"), "the signature does not hold"),
        (text.replace('—', "-"), "it is no signed note"),
        (String::from_utf8(checkpoint.clone()).unwrap(), "it is no result of `sporlog verify --range`"),
        (String::new(), "it is no signed note"),
    ] {
        let mut changed_results = without(1);
        changed_results.push(("changed".into(), changed.into_bytes()));
        let problems = told(dir.path(), &changed_results).await;
        assert!(problems[0].starts_with(&format!("the result changed: {problem}")), "{problems:?}");
        assert_eq!(problems[1..], ["no result has the records 100 to 257"]);
    }
    // A result of another log, which another key has signed.
    let other = tempfile::tempdir().unwrap();
    varied_log(other.path()).await;
    let (_, others) = parts(other.path(), &STARTS, None).await;
    let problems = told(dir.path(), &[&without(3)[..], &others[3..4]].concat()).await;
    assert!(problems[0].contains("part 3") && problems[0].contains("signature"), "{problems:?}");

    // The log goes on: the results are still those of the earlier checkpoint, until files with their records are merged.
    let writer = self::writer(dir.path()).await;
    for n in 4_530..4_540 {
        append(&writer, n, n + 1).await;
    }
    writer.close().await.unwrap();
    let problems = told(dir.path(), &results).await;
    assert_eq!(
        problems[0],
        "the result part 0: it is of the checkpoint of 4530 records, and not of that of 4540"
    );
    let joined = join(dir.path(), &results, Some(&checkpoint)).await;
    assert_eq!((joined.problems, joined.covered, joined.head), (vec![], 4_530, 4_540));
    let (_, again) = parts(dir.path(), &[4_520], Some(&checkpoint)).await;
    assert_eq!(again[0].1, results[7].1);
    let newer = fs::read(dir.path().join(LOG).join("tlog/checkpoint")).unwrap();
    let joined = join(dir.path(), &without(7), Some(&newer)).await;
    assert_eq!(joined.problems.len(), 8, "{:?}", joined.problems);
    let writer = self::writer(dir.path()).await;
    writer.flush().await.unwrap();
    writer.close().await.unwrap();
    let problems = join(dir.path(), &results, Some(&checkpoint)).await.problems;
    let again = |problem: &String| {
        problem.ends_with("the data files with its records are others now: verify its range again")
    };
    assert!(!problems.is_empty() && problems.iter().all(|found| again(&found.problem)), "{problems:?}");
    let (problems, results) = parts(dir.path(), &STARTS, Some(&checkpoint)).await;
    assert_eq!(problems, [""; 0]);
    assert_eq!(join(dir.path(), &results, Some(&checkpoint)).await.problems, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    varied_log(dir.path()).await;
    let log = store(dir.path()).log("auditlog").await.unwrap();
    for (first, last) in [(1, Some(4_531)), (4_531, None), (0, Some(5)), (7, Some(6))] {
        let refused = log.verify_range(first, last, None, |_| ()).await.unwrap_err().to_string();
        assert!(refused.contains("covers the records 1 to 4530"), "{refused}");
    }
}
