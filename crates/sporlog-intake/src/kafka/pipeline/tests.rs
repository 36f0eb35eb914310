//! Committers against each other and against crashes, without Kafka: what comes out is counted.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use crossbeam_channel::{Receiver, unbounded};
use futures::TryStreamExt;
use rdkafka::Timestamp;
use sporlog_ledger::StoreOptions;

use super::super::batch::{Envelope, Reading};
use super::super::settings::Settings;
use super::*;

const KEY: Key = Key { topic: 0, partition: 3 };

fn settings() -> Settings {
    let json = r#"{"brokers":"","topic":[{"name":"t","log":"disclosure"}]}"#;
    serde_json::from_str(json).expect("settings")
}

/// An instance's one log.
struct Instance {
    committer: Committer,
    events: Receiver<Event>,
    _give_up: watch::Sender<bool>,
}

impl Instance {
    fn new(store: &Store) -> Self {
        let (sender, events) = unbounded();
        let (_give_up, giving_up) = watch::channel(false);
        let settings = settings();
        let shared = Shared {
            refusals: Refusals::new(&settings, store.clone()).expect("no copies"),
            topics: settings.topics,
            store: store.clone(),
            rules: Rules::default(),
            reports: Arc::default(),
            events: sender,
            judging: Semaphore::new(1),
            giving_up,
        };
        let committer = Committer::new("disclosure".into(), Kind::Disclosure, Arc::new(shared));
        Instance { committer, events, _give_up }
    }

    /// Stores what is left to be stored, and closes what is open.
    async fn end(mut self) {
        assert!(self.committer.retry_until_done(Step::Flush).await);
        self.crash().await;
    }

    /// Ends as it is; only what has been committed is published.
    async fn crash(self) {
        self.committer.close().await;
        self.committer.shared.refusals.reset().await;
    }

    /// Where the log says that it stands.
    async fn position(&mut self) -> i64 {
        assert!(
            self.committer
                .retry_until_done(Step::Tell(vec![Question { key: KEY, generation: 1, topic_id: None }]))
                .await
        );
        self.events
            .try_iter()
            .find_map(
                |event| if let Event::Position { position, .. } = event { Some(position) } else { None },
            )
            .expect("an answer")
    }
}

/// Every fifth is empty, every seventh faulty, and every third is faulty to strict rules.
fn content(offset: i64) -> String {
    match offset {
        _ if offset % 5 == 4 => String::new(),
        _ if offset % 7 == 6 => format!("faulty {offset}"),
        _ => format!(
            "{{\"person\":\"11300000001\",\"mottaker\":\"900000000\",\"tema\":\"ABC\",\"behandlingsGrunnlag\":\"{}\",\
             \"uthentingsTidspunkt\":\"2026-01-05T12:24:21.675\",\"leverteData\":\"e30=\"}}",
            if offset % 3 == 0 { "a long one" } else { "short" }
        ),
    }
}

/// The messages `from + 1` to `to`, judged.
fn judged(from: i64, to: i64, strict: bool) -> Vec<JudgedPart> {
    let mut batch = Batch::new(0);
    for offset in from + 1..=to {
        let envelope = || Envelope::new(Some(b"k"), std::iter::empty(), Timestamp::NotAvailable);
        let reading = Reading { generation: 1, identity: "t".into(), read: offset - 1 };
        batch.push(KEY, &reading, offset, content(offset).as_bytes(), envelope);
    }
    let mut rules = Rules::default();
    if strict {
        rules.disclosure.behandlingsGrunnlag = 5;
    }
    let Batch { bytes, parts, .. } = batch;
    parts.iter().map(|(key, part)| judge(*key, part, &bytes, Kind::Disclosure, &rules)).collect()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a folder");
    let address = dir.path().display().to_string();
    let store =
        Store::open(StoreOptions { address, create: true, ..StoreOptions::default() }).expect("a store");
    (dir, store)
}

/// How often each offset is in the log or the quarantine.
async fn counted(store: &Store) -> BTreeMap<i64, u32> {
    let mut found = BTreeMap::new();
    let log = store.log("disclosure").await.expect("a log");
    let mut batches = log.read(0, None);
    while let Some(batch) = batches.try_next().await.expect("rows") {
        for origin in batch["origin"].as_string::<i32>().iter().flatten() {
            let (_, offset) = origin.split_once("kafka:t/3@").expect(origin);
            *found.entry(offset.parse().expect(origin)).or_default() += 1;
        }
    }
    if let Ok(log) = store.log("quarantine").await {
        let mut batches = log.read(0, None);
        while let Some(batch) = batches.try_next().await.expect("rows") {
            for line in batch["line"].as_primitive::<Int64Type>().iter().flatten() {
                *found.entry(line).or_default() += 1;
            }
        }
    }
    found
}

async fn check(store: &Store, up_to: i64) {
    let found = counted(store).await;
    let wrong: Vec<_> = (0..=up_to)
        .map(|offset| {
            (offset, found.get(&offset).copied().unwrap_or(0), u32::from(!content(offset).is_empty()))
        })
        .filter(|(_, found, wanted)| found != wanted)
        .collect();
    assert!(wrong.is_empty(), "(offset, found, wanted): {wrong:?}");
    for log in ["disclosure", "quarantine"] {
        if let Ok(log) = store.log(log).await {
            let verified = log.verify(|_| ()).await.expect("verified");
            assert!(verified.problems.is_empty(), "{verified:?}");
        }
    }
}

/// Numbers that look random, and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_two_commits_doubles_nothing_even_if_the_rules_change() {
    let (_dir, store) = store();
    let mut chance = Chance(1);
    let last = 600;
    let mut position = -1;
    while position < last {
        let mut instance = Instance::new(&store);
        position = instance.position().await;
        for _ in 0..chance.below(3) {
            let to = last.min(position + 1 + chance.below(40) as i64);
            assert!(
                instance.committer.store(&judged(position, to, chance.below(2) == 0), false).await.is_ok()
            );
            position = to;
        }
        // What is on its way into the log when it crashes is in the quarantine already.
        let to = position + 1 + chance.below(40) as i64;
        for part in judged(position, to.min(last), chance.below(2) == 0) {
            let stand = instance.position().await;
            instance.committer.quarantine(&part, stand).await.expect("quarantined");
        }
        position = instance.position().await;
        instance.crash().await;
    }
    check(&store, last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_should_have_stopped_does_no_harm() {
    let (_dir, store) = store();
    let mut chance = Chance(2);
    let last = 1_500;
    // Each believes that the partition is its own, and both go on from where they believe it stands.
    let (mut one, mut two) = (Instance::new(&store), Instance::new(&store));
    let mut read = [one.position().await, two.position().await];
    while read.iter().any(|read| *read < last) {
        let which = chance.below(2) as usize;
        let instance = if which == 0 { &mut one } else { &mut two };
        let to = last.min(read[which] + 1 + chance.below(30) as i64);
        if to > read[which] {
            assert!(instance.committer.retry_until_done(Step::Store(judged(read[which], to, false))).await);
            read[which] = to;
        }
        for event in instance.events.try_iter() {
            if let Event::Behind { position, .. } = event {
                read[which] = position;
            }
        }
        if chance.below(10) == 0 {
            read[which] = instance.position().await;
        }
    }
    for instance in [one, two] {
        instance.end().await;
    }
    check(&store, last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_the_very_same_moment() {
    let (_dir, store) = store();
    let last = 2_000;
    let run = |seed: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut instance, mut chance) = (Instance::new(&store), Chance(seed));
            let mut read = instance.position().await;
            while read < last {
                let to = last.min(read + 1 + chance.below(20) as i64);
                assert!(instance.committer.retry_until_done(Step::Store(judged(read, to, false))).await);
                read = to;
                for event in instance.events.try_iter() {
                    if let Event::Behind { position, .. } = event {
                        read = position;
                    }
                }
            }
            instance.end().await;
        })
    };
    for task in [run(3), run(4), run(5)] {
        task.await.expect("no panic");
    }
    check(&store, last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_nothing_is_left_is_answered_as_any_other() {
    let (_dir, store) = store();
    let Instance { committer, events, _give_up } = Instance::new(&store);
    let mut pipeline =
        PartitionPipeline::start("disclosure".into(), Kind::Disclosure, committer.shared.clone());
    pipeline.open = Some(Batch::new(0));
    pipeline.send(&Handle::current());
    let event = tokio::task::spawn_blocking(move || events.recv_timeout(Duration::from_secs(30)));
    let event = event.await.expect("no panic");
    assert!(matches!(event, Ok(Event::Stored { positions, .. }) if positions.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_of_which_a_log_has_nothing_yet_is_the_first_and_another_begins_anew() {
    let (_dir, store) = store();
    let topic_id = |digit: &str| Some(digit.repeat(22));
    let mut instance = Instance::new(&store);
    instance.position().await;
    instance.committer.store(&judged(-1, 3, false), false).await.expect("stored");
    for (id, identity, position) in [("1", "t".to_owned(), 3), ("2", format!("t~{}", "2".repeat(22)), -1)] {
        let question = Question { key: KEY, generation: 1, topic_id: topic_id(id) };
        assert!(instance.committer.retry_until_done(Step::Tell(vec![question])).await);
        let told = instance.events.try_iter().find_map(|event| match event {
            Event::Position { identity, position, .. } => Some((identity.to_string(), position)),
            _ => None,
        });
        assert_eq!(told, Some((identity, position)));
    }
    instance.end().await;
    check(&store, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_messages_alone_move_the_position_in_the_end() {
    let (_dir, store) = store();
    let mut instance = Instance::new(&store);
    assert_eq!(instance.position().await, -1);
    instance.committer.store(&judged(3, 4, false), false).await.expect("stored");
    assert!(
        matches!(instance.events.try_recv(), Ok(Event::Behind { position: -1, .. })),
        "0 to 3 are missing"
    );
    instance.committer.store(&judged(-1, 3, false), false).await.expect("stored");
    instance.committer.store(&judged(3, 4, false), false).await.expect("stored");
    assert_eq!(instance.committer.ahead, BTreeMap::from([("kafka:t:3".to_owned(), 4)]));
    assert!(instance.committer.retry_until_done(Step::Flush).await);
    assert!(instance.committer.ahead.is_empty());
    instance.end().await;
    assert_eq!(Instance::new(&store).position().await, 4);
    check(&store, 4).await;
}
