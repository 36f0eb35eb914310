//! One thing at a time.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use serde_json::Value;

use crate::cluster::{Cluster, block_on};
use crate::instance::{Place, TOPIC};
use crate::messages::{Messages, disclosure, faulty};
use crate::storm;

/// So little that a thousand messages fill a batch, and the largest message is more than one.
const LITTLE_MEMORY: &str = "memory_bytes = 1048576";

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_message_is_kept_with_all_that_came_with_it() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 2, &[]);
    cluster.create_topic("dead", 1, &[]);
    let place = Place::new(&cluster, "a", "disclosure", "dead_letter = \"dead\"");
    let messages = Messages::new(&cluster);
    messages.send(TOPIC, 1, Some("4711"), Some(&disclosure(1, 40)));
    messages.send(TOPIC, 1, Some("4712"), Some(&faulty(1)));
    messages.send(TOPIC, 1, Some("tombstone"), None);
    messages.send(TOPIC, 1, None, Some(""));
    messages.send(TOPIC, 1, None, Some(&disclosure(2, 40)));
    messages.flush();
    let totals = place.drain();
    assert_eq!(totals, serde_json::json!({"accepted": 2, "refused": 1, "skipped": 2}));

    let rows =
        place.json(&["sql", "SELECT id, origin, envelope FROM disclosure ORDER BY id", "--format", "json"]);
    assert_eq!(rows[0]["origin"], format!("kafka:{TOPIC}/1@0"));
    assert_eq!(rows[1]["origin"], format!("kafka:{TOPIC}/1@4"));
    let envelope: Value =
        serde_json::from_str(rows[0]["envelope"].as_str().expect("an envelope")).expect("JSON");
    assert_eq!(envelope["key"], "4711");
    assert_eq!(envelope["headers"], serde_json::json!([["correlation-id", "6d1f-4711"]]));
    assert!(envelope["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{envelope}");

    // The refused one waits with its envelope, and goes in with it when it is corrected.
    let items = place.text(&["quarantine", "list", "--json"]);
    let item: Value = serde_json::from_str(&items).expect("one item");
    assert_eq!((&item["source"], &item["line"]), (&format!("kafka:{TOPIC}/1").into(), &1.into()));
    let corrected = cluster.path("corrected.json");
    std::fs::write(&corrected, disclosure(3, 40)).expect("written");
    place.text(&["quarantine", "replay", "1", "--file", corrected.to_str().expect("UTF-8")]);
    let rows =
        place.json(&["sql", "SELECT origin, envelope FROM disclosure WHERE id = 3", "--format", "json"]);
    assert_eq!(rows[0]["origin"], "quarantine:1");
    assert!(
        rows[0]["envelope"].as_str().is_some_and(|envelope| envelope.contains("\"key\":\"4712\"")),
        "{rows}"
    );

    // Again, and with the group forgotten: nothing is doubled.
    assert_eq!(place.drain()["accepted"], 0);
    cluster.delete_group("sporlog");
    assert_eq!(place.drain(), serde_json::json!({"accepted": 0, "refused": 0, "skipped": 0}));
    assert_eq!(place.head("disclosure"), 3);
    place.verify(&names(&["disclosure"]));

    // A copy of it is among the dead letters.
    let dead = Place::new(&cluster, "dead", "dead", "");
    let config = std::fs::read_to_string(cluster.path("dead.toml")).expect("read").replace(TOPIC, "dead");
    std::fs::write(cluster.path("dead.toml"), config).expect("written");
    assert_eq!(dead.drain()["refused"], 1);
    let shown = dead.text(&["quarantine", "show", "1", "--content"]);
    assert_eq!(shown, faulty(1));
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_broker_and_a_topic_that_come_later_are_waited_for() {
    let mut cluster = Cluster::formatted(1, "");
    let place = Place::new(&cluster, "late", "disclosure-{partition}", "");
    let mut running = place.consume();
    std::thread::sleep(Duration::from_secs(2));
    assert!(running.is_alive(), "{}", place.said());
    cluster.start_broker(0);
    cluster.wait();
    std::thread::sleep(Duration::from_secs(2));
    assert!(running.is_alive(), "{}", place.said());
    cluster.create_topic(TOPIC, 1, &[]);
    let messages = Messages::new(&cluster);
    messages.send(TOPIC, 0, None, Some(&disclosure(1, 40)));
    messages.flush();
    place.wait_for("the message", || place.head("disclosure-0") == 1);
    // So is a partition that is added.
    cluster.add_partitions(TOPIC, 2);
    place.wait_for("the partition", || place.said().contains(&format!("{TOPIC}/1")));
    // One that knows of it from the beginning.
    let messages = Messages::new(&cluster);
    messages.send(TOPIC, 1, None, Some(&disclosure(2, 40)));
    messages.flush();
    place.wait_for("the other message", || place.head("disclosure-1") == 1);
    running.stop();
    assert!(place.said().contains("partitions were assigned"), "{}", place.said());
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_message_as_large_as_the_broker_takes_goes_in() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[]);
    let place = Place::with_settings(&cluster, "large", "disclosure", LITTLE_MEMORY, "");
    let producer: FutureProducer =
        cluster.client().set("message.max.bytes", "2000000").create().expect("a producer");
    let of_size = |size: usize| {
        let small = disclosure(1, 1_000_000);
        let rest = "x".repeat(size - small.len() - ",\"dataForespoersel\":\"\"".len());
        small.replace("\"tema\"", &format!("\"dataForespoersel\":\"{rest}\",\"tema\""))
    };
    // The broker's limit is one for batches: what a batch of one message adds is found by trying.
    let limit = 1_048_588;
    let largest = (50..200).map(|less| of_size(limit - less)).find(|content| {
        let record = FutureRecord::<str, str>::to(TOPIC).payload(content);
        block_on(producer.send(record, Duration::from_secs(10))).is_ok()
    });
    let largest = largest.expect("one of them is not too large");
    let messages = Messages::new(&cluster);
    messages.send(TOPIC, 0, None, Some(&disclosure(2, 40)));
    messages.flush();
    assert_eq!(place.drain()["accepted"], 2);
    let rows = place.json(&[
        "sql",
        "SELECT length(\"dataForespoersel\") AS n FROM disclosure WHERE id = 1",
        "--format",
        "json",
    ]);
    assert_eq!(rows[0]["n"].as_u64(), Some((largest.len() - disclosure(1, 1_000_000).len() - 22) as u64));
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_message_with_as_much_data_as_the_rules_allow_goes_in() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[("max.message.bytes", "40000000")]);
    cluster.create_topic("refused", 1, &[("max.message.bytes", "40000000")]);
    let place = Place::new(&cluster, "most", "disclosure", "dead_letter = \"refused\"");
    let producer: FutureProducer =
        cluster.client().set("message.max.bytes", "40000000").create().expect("a producer");
    for size in [16 << 20, (16 << 20) + 4] {
        let content = disclosure(1, size);
        let record = FutureRecord::<str, str>::to(TOPIC).payload(&content);
        block_on(producer.send(record, Duration::from_secs(30))).expect("sent");
    }
    let drained = place.drain();
    assert_eq!((&drained["accepted"], &drained["refused"]), (&1.into(), &1.into()), "{drained}");
    let entry: serde_json::Value =
        serde_json::from_str(&place.text(&["read", "disclosure"])).expect("one entry");
    assert_eq!(entry["record"]["leverteData"].as_str().map(str::len), Some(16 << 20));
    assert!(entry["remarks"].to_string().contains("16777216 characters"), "{}", entry["remarks"]);
    assert!(!place.said().contains("dead letter"), "{}", place.said());
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_topic_that_was_made_anew_is_taken_in_from_its_first_message() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[]);
    let place = Place::new(&cluster, "anew", "disclosure", "");
    let messages = Messages::new(&cluster);
    (0..10).for_each(|number| messages.send(TOPIC, 0, None, Some(&disclosure(number, 40))));
    messages.flush();
    assert_eq!(place.drain()["accepted"], 10);

    cluster.delete_topic(TOPIC);
    cluster.create_topic(TOPIC, 1, &[]);
    let messages = Messages::new(&cluster);
    (0..4).for_each(|number| messages.send(TOPIC, 0, None, Some(&disclosure(100 + number, 40))));
    messages.send(TOPIC, 0, None, Some(&faulty(1)));
    messages.flush();
    assert_eq!(place.drain(), serde_json::json!({"accepted": 4, "refused": 1, "skipped": 0}));
    assert_eq!(place.drain()["accepted"], 0);
    assert_eq!(place.head("disclosure"), 14);

    place.configure(&cluster, "disclosure", "incarnation = \"2\"");
    let output = place.run(&["consume", "--until-end"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("told by its id"), "{said}");
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_topic_that_is_made_anew_under_a_running_consumer_is_taken_in_from_its_first_message() {
    let cluster = Cluster::start(1);
    let place = Place::new(&cluster, "anew", "disclosure", "start = \"latest\"");
    let mut running = place.consume();
    let mut total = 0;
    // Fewer messages than before, as many, more; all at once, and more when those have been taken in.
    for (round, count) in [10, 4, 4, 30, 30, 2].into_iter().enumerate() {
        if round > 0 {
            cluster.delete_topic(TOPIC);
        }
        cluster.create_topic(TOPIC, 1, &[]);
        if round == 0 {
            place.wait_for("reading begins", || place.said().contains("reading begins"));
        }
        let messages = Messages::new(&cluster);
        for batch in [0..count, count..count + 3] {
            for number in batch.clone() {
                messages.send(TOPIC, 0, None, Some(&disclosure(1_000 * round as u64 + number, 40)));
            }
            messages.flush();
            total += batch.end - batch.start;
            place.wait_for("all are stored", || place.head("disclosure") >= total);
        }
    }
    assert!(running.is_alive(), "{}", place.said());
    running.stop();
    let query = "SELECT count(*) AS n, count(DISTINCT \"behandlingsGrunnlag\") AS numbers, \
                 count(DISTINCT origin) AS origins FROM disclosure";
    let rows = place.json(&["sql", query, "--format", "json"]);
    assert_eq!(
        rows[0],
        serde_json::json!({"n": total, "numbers": total, "origins": total}),
        "{}",
        place.said()
    );
    place.verify(&names(&["disclosure"]));
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn messages_that_kafka_has_lost_are_not_passed_over_in_silence() {
    let mut cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[]);
    let place = Place::new(&cluster, "lost", "disclosure", "");
    let messages = Messages::new(&cluster);
    (0..10).for_each(|number| messages.send(TOPIC, 0, None, Some(&disclosure(number, 40))));
    messages.flush();
    assert_eq!(place.drain()["accepted"], 10);
    cluster.kill_broker(0);
    cluster.lose_messages(0, TOPIC, 0);
    cluster.start_broker(0);
    cluster.wait();
    let messages = Messages::new(&cluster);
    (0..4).for_each(|number| messages.send(TOPIC, 0, None, Some(&disclosure(100 + number, 40))));
    messages.flush();
    let output = place.run(&["consume", "--until-end"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("up to 9, but Kafka only up to 3: the topic has lost messages"), "{said}");
    assert_eq!(place.head("disclosure"), 10);
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn after_kills_intake_goes_on_soon() {
    // What a broker has by default.
    let mut cluster =
        Cluster::formatted(1, "group.min.session.timeout.ms=6000\ngroup.initial.rebalance.delay.ms=3000");
    cluster.start_broker(0);
    cluster.wait();
    cluster.create_topic(TOPIC, 3, &[]);
    let place = Place::new(&cluster, "kills", "disclosure", "");
    place.use_default_session();
    let messages = Messages::new(&cluster);
    let mut sent = 0;
    let mut send = || {
        (0..3).for_each(|partition| messages.send(TOPIC, partition, None, Some(&disclosure(sent, 40))));
        messages.flush();
        sent += 3;
        sent
    };
    let mut running = place.consume();
    let stored = send();
    place.wait_for("the first", || place.head("disclosure") == stored);
    // How long each instance lives before it is killed, in milliseconds; none for one at work. A broker waits for the
    // session of one that was killed while it waited for another's session, too.
    for (lives, limit) in
        [(vec![], 10), (vec![], 10), (vec![], 10), (vec![1_000, 1_000], 15), (vec![500; 6], 15)]
    {
        for life in [0].iter().chain(&lives) {
            std::thread::sleep(Duration::from_millis(*life));
            running.kill();
            running = place.consume();
        }
        let begun = Instant::now();
        let stored = send();
        place.wait_for("goes on", || place.head("disclosure") == stored);
        let took = begun.elapsed();
        eprintln!("after {lives:?}: {took:?}");
        assert!(took < Duration::from_secs(limit), "after {lives:?}: {took:?}\n{}", place.said());
    }
    running.kill();
    let stored = send();
    assert_eq!(place.drain()["accepted"], 3);
    assert_eq!(place.head("disclosure"), stored);
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn no_partition_is_begun_at_an_offset_that_librdkafka_has_to_ask_for() {
    // A late answer would undo where reading has begun since.
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[]);
    let place = Place::with_settings(&cluster, "asks", "disclosure", "properties.debug = \"topic\"", "");
    let messages = Messages::new(&cluster);
    for round in 1..=2 {
        messages.send(TOPIC, 0, None, Some(&disclosure(round, 40)));
        messages.flush();
        let output = place.run(&["consume", "--until-end", "-vvv"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(place.head("disclosure"), round, "{said}");
        assert!(said.contains("Start fetch for") && !said.contains("logical offset"), "{said}");
    }
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn what_retention_has_removed_is_said_and_the_rest_taken_in() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[]);
    let place = Place::new(&cluster, "gap", "disclosure", "");
    let messages = Messages::new(&cluster);
    let send = |count: u64| {
        (0..count).for_each(|number| messages.send(TOPIC, 0, None, Some(&disclosure(number, 40))));
        messages.flush();
    };
    send(10);
    assert_eq!(place.drain()["accepted"], 10);
    send(20);
    cluster.delete_before(TOPIC, 0, 25);
    let output = place.run(&["consume", "--until-end", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("removed messages") && said.contains("gap=15"), "{said}");
    assert_eq!(place.head("disclosure"), 15);
    let found = place.offsets(&names(&["disclosure"]));
    assert!((0..10).chain(25..30).all(|offset| found.get(&(0, offset)) == Some(&1)), "{found:?}");
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn of_transactions_only_what_was_committed_goes_in() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[]);
    let place = Place::new(&cluster, "transactions", "disclosure", "");
    let producer: BaseProducer = cluster.client().set("transactional.id", "t").create().expect("a producer");
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).expect("begun");
    for round in 0..6 {
        producer.begin_transaction().expect("begun");
        for number in 0..5 {
            let content = disclosure(100 * round + number, 40);
            producer.send(BaseRecord::<str, str>::to(TOPIC).payload(&content)).expect("sent");
        }
        producer.flush(patience).expect("sent");
        // The last one leaves nothing but what marks its end.
        if round % 2 == 0 {
            producer.commit_transaction(patience)
        } else {
            producer.abort_transaction(patience)
        }
        .expect("ended");
    }
    assert_eq!(place.drain()["accepted"], 15);
    assert_eq!(place.drain()["accepted"], 0);
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn of_three_brokers_one_may_die() {
    let mut cluster = Cluster::start(3);
    cluster.create_topic(TOPIC, 3, &[("min.insync.replicas", "2")]);
    let place = Place::new(&cluster, "three", "disclosure", "");
    let running = place.consume();
    let messages = Messages::new(&cluster);
    let mut sent = vec![0; 3];
    for number in 0..6_000 {
        messages.send(TOPIC, (number % 3) as i32, None, Some(&disclosure(number, 400)));
        sent[(number % 3) as usize] += 1;
        if number == 3_000 {
            messages.flush();
            cluster.kill_broker(1);
        }
    }
    messages.flush();
    place.wait_for("all are stored", || place.head("disclosure") >= 6_000);
    running.stop();
    storm::check(&place, &names(&["disclosure"]), &sent);
    place.verify(&names(&["disclosure"]));
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_log_that_cannot_be_written_to_holds_nobody_else_up() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 2, &[]);
    let place = Place::with_settings(&cluster, "stuck", "disclosure-{partition}", LITTLE_MEMORY, "");
    let messages = Messages::new(&cluster);
    let mut sent = vec![0, 0];
    let mut send = |count: u64| {
        for number in 0..2 * count {
            messages.send(TOPIC, (number % 2) as i32, None, Some(&disclosure(number, 1_000)));
            sent[(number % 2) as usize] += 1;
        }
        messages.flush();
    };
    let running = place.consume();
    send(10);
    place.wait_for("both begin", || place.head("disclosure-0") == 10 && place.head("disclosure-1") == 10);
    // A file where the log's folder has been: nothing can be written there.
    let (log, aside) = (place.store.join("logs/disclosure-0"), place.store.join("aside"));
    std::fs::rename(&log, &aside).expect("moved");
    std::fs::write(&log, "").expect("written");
    send(1_000);
    place.wait_for("the other goes on", || place.head("disclosure-1") == 1_010);
    std::thread::sleep(Duration::from_secs(1));
    send(1_000);
    place.wait_for("and on", || place.head("disclosure-1") == 2_010);
    std::fs::remove_file(&log).expect("removed");
    std::fs::rename(&aside, &log).expect("moved back");
    place.wait_for("the first catches up", || place.head("disclosure-0") == 2_010);
    running.stop();
    let logs = names(&["disclosure-0", "disclosure-1"]);
    storm::check(&place, &logs, &sent);
    place.verify(&logs);
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn a_log_of_another_kind_ends_it() {
    let cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, 1, &[]);
    let place = Place::new(&cluster, "kind", "other", "");
    let messages = Messages::new(&cluster);
    messages.send(TOPIC, 0, None, Some(&disclosure(1, 40)));
    messages.flush();
    assert_eq!(place.drain()["accepted"], 1);
    place.configure(&cluster, "other", "kind = \"auditlog\"");
    let output = place.run(&["consume"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("holds disclosure records"), "{said}");
}
