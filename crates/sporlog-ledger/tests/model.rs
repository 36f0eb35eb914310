//! Random sequences of everything that can be done to a log, against a plain list.

#[allow(dead_code)]
mod common;

use std::path::Path;
use std::time::Duration;

use common::{messages, read, rows, writer};
use futures::TryStreamExt;
use proptest::prelude::*;
use sporlog_ledger::{Advance, Append, Find, Key, Outcome, Writer};

/// One thing done to the log.
#[derive(Debug, Clone)]
enum Step {
    /// So many records.
    Append(u64),
    /// As the next position of a source, or as one that was sent before.
    FromSource {
        again: bool,
        count: u64,
    },
    /// In parts, pushed by several threads.
    Bulk(Vec<u64>),
    /// Begun and given up.
    GivenUp(u64),
    Compact {
        grace: bool,
    },
    /// The journal into the table.
    Flush,
    /// Everything that is there.
    Expire,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![0..4u64, 200..300u64].prop_map(Step::Append),
        3 => (any::<bool>(), 0..20u64).prop_map(|(again, count)| Step::FromSource { again, count }),
        2 => prop::collection::vec(prop_oneof![6 => 0..300u64, 1 => Just(4_096)], 0..4).prop_map(Step::Bulk),
        1 => (1..400u64).prop_map(Step::GivenUp),
        2 => any::<bool>().prop_map(|grace| Step::Compact { grace }),
        2 => Just(Step::Flush),
        1 => Just(Step::Expire),
        2 => Just(Step::Reopen),
    ]
}

/// What the log should be: the number in each record, by id from 1 on, and how many of the oldest
/// have expired.
#[derive(Default)]
struct Model {
    numbers: Vec<u64>,
    expired: usize,
    position: i64,
    next: u64,
}

impl Model {
    /// New records, none of which has been there before.
    fn fresh(&mut self, count: u64) -> std::ops::Range<u64> {
        let range = self.next..self.next + count;
        self.next += count;
        range
    }

    fn entry(&self, index: usize) -> (i64, String) {
        (index as i64 + 1, self.numbers[index].to_string())
    }

    fn page(&self, after: usize, limit: usize) -> Vec<(i64, String)> {
        (after.max(self.expired)..self.numbers.len()).take(limit).map(|n| self.entry(n)).collect()
    }

    /// The records, newest first, whose number has this remainder.
    fn found(&self, modulus: u64, remainder: u64) -> Vec<(i64, String)> {
        let matching =
            (self.expired..self.numbers.len()).rev().filter(|n| self.numbers[*n] % modulus == remainder);
        matching.map(|n| self.entry(n)).collect()
    }
}

async fn push_all(writer: &Writer, parts: Vec<std::ops::Range<u64>>) -> sporlog_ledger::Bulk {
    let bulk = writer.bulk().await.unwrap();
    let mut pushing = Vec::new();
    for (sequence, part) in (0..).zip(parts) {
        let pusher = bulk.pusher();
        let push = move || pusher.push(sequence, &rows(part.start, part.end)).unwrap();
        pushing.push(tokio::task::spawn_blocking(push));
    }
    for part in pushing {
        part.await.unwrap();
    }
    bulk
}

async fn take(step: Step, dir: &Path, log: Writer, model: &mut Model) -> Writer {
    match step {
        Step::Append(count) => {
            let range = model.fresh(count);
            let appended = common::append(&log, range.start, range.end).await;
            let head = model.numbers.len() as u64;
            assert_eq!((appended.first, appended.last), (head + 1, head + count));
            model.numbers.extend(range);
        }
        Step::FromSource { again, count } => {
            let again = again && model.position > 0;
            model.position += i64::from(!again);
            let range = model.fresh(count);
            let positions = vec![("source".to_owned(), Advance::To(model.position))];
            let append = Append { rows: rows(range.start, range.end), positions };
            match log.append(append).await.unwrap() {
                Outcome::Appended(_) if !again => model.numbers.extend(range),
                Outcome::AlreadyThere { position, .. } if again => {
                    assert_eq!(position.version, model.position)
                }
                other => panic!("{again}: {other:?}"),
            }
            assert_eq!(log.log().position("source").map(|p| p.version), Some(model.position));
        }
        Step::Bulk(counts) => {
            let parts: Vec<_> = counts.into_iter().map(|count| model.fresh(count)).collect();
            let outcome = push_all(&log, parts.clone()).await.finish(vec![]).await.unwrap();
            assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
            model.numbers.extend(parts.into_iter().flatten());
        }
        Step::GivenUp(count) => {
            let part = model.fresh(count);
            push_all(&log, vec![part]).await.abort().await;
        }
        Step::Compact { grace } => {
            let grace = Duration::from_secs(if grace { 3_600 } else { 0 });
            log.compact(grace).await.unwrap();
        }
        Step::Flush => log.flush().await.unwrap(),
        Step::Expire => {
            let expired = log.expire("9999-01", false).await.unwrap();
            assert_eq!(expired.records as usize, model.numbers.len() - model.expired);
            model.expired = model.numbers.len();
        }
        Step::Reopen => {
            log.close().await.unwrap();
            return writer(dir).await;
        }
    }
    log
}

async fn compare(writer: &Writer, model: &Model) {
    let log = writer.log();
    let (head, first) = (model.numbers.len(), model.expired + 1);
    assert_eq!((log.head(), log.first()), (head as u64, first as u64));
    assert_eq!(read(log, 0, None).await, model.page(0, usize::MAX));
    for (after, limit) in [(head / 2, 10), (head.saturating_sub(3), 100), (head, 5), (first, 1), (0, 0)] {
        assert_eq!(
            read(log, after as u64, Some(limit as u64)).await,
            model.page(after, limit),
            "{after} {limit}"
        );
    }
    for id in [1, first, head / 2 + 1, head, head + 1] {
        let found = log.record(id as u64).await.map(|batch| messages(&[batch]));
        match (first..=head).contains(&id) {
            true => assert_eq!(found.unwrap(), [model.entry(id - 1)]),
            false => assert!(found.is_err(), "{id} of {first} to {head}"),
        }
    }
    for remainder in [0, 42] {
        let find = |key, limit| log.find(Find { key, from: None, to: None, limit }).try_collect::<Vec<_>>();
        let subject = Key::Subject(format!("{remainder:010}"));
        let expected = model.found(100, remainder);
        assert_eq!(messages(&find(subject.clone(), None).await.unwrap()), expected);
        assert_eq!(messages(&find(subject, Some(2)).await.unwrap()), expected[..expected.len().min(2)]);
        let actor = Key::Actor(format!("user{}", remainder % 7));
        assert_eq!(messages(&find(actor, None).await.unwrap()), model.found(7, remainder % 7));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list(steps in prop::collection::vec(step(), 10..18)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut log, mut model) = (writer(dir.path()).await, Model::default());
            for step in steps {
                log = take(step, dir.path(), log, &mut model).await;
                compare(&log, &model).await;
            }
            log.close().await.unwrap();
            let log = common::store(dir.path()).log("auditlog").await.unwrap();
            let verified = log.verify(|_| ()).await.unwrap();
            assert_eq!(verified.problems, []);
            let (records, expired) = (model.numbers.len() - model.expired, model.expired);
            assert_eq!((verified.records as usize, verified.expired as usize), (records, expired));
        });
    }
}
