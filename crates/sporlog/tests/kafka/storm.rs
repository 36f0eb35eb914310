//! Everything at once: two instances that are killed and frozen again and again, and the broker, too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::instance::{Place, TOPIC};
use crate::messages::Messages;

const PARTITIONS: i32 = 6;

/// What is in the logs and the quarantine is what was sent, each offset once.
#[track_caller]
pub fn check(place: &Place, logs: &[String], sent: &[i64]) {
    let found = place.offsets(logs);
    let mut wrong = Vec::new();
    for (partition, count) in (0..).zip(sent) {
        let times = (0..*count).map(|offset| (offset, found.get(&(partition, offset)).copied().unwrap_or(0)));
        wrong
            .extend(times.filter(|(_, times)| *times != 1).map(|(offset, times)| (partition, offset, times)));
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "(partition, offset, times): {wrong:?}\n{}", place.said());
    let total: i64 = sent.iter().sum();
    assert_eq!(found.len() as i64, total, "and nothing else");
    let by_partition: BTreeMap<_, _> = found.keys().fold(BTreeMap::new(), |mut counts, (partition, _)| {
        *counts.entry(*partition).or_insert(0) += 1;
        counts
    });
    eprintln!("every offset is there once: {by_partition:?}");
}

/// Two instances take in `count` messages; one of them is killed `kills` times, the
/// other frozen now and then, the broker killed once.
fn storm(log: &str, logs: &[String], count: u64, kills: u32, pace: Duration) {
    let mut cluster = Cluster::start(1);
    cluster.create_topic(TOPIC, PARTITIONS, &[]);
    let place = Place::new(&cluster, "storm", log, "");
    let messages = Messages::new(&cluster);
    let producer = std::thread::spawn(move || messages.storm(TOPIC, PARTITIONS, count, Some(pace)));
    let mut instances = [place.consume(), place.consume()];
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(1_500 + u64::from(kill * 137 % 700)));
        let instance = &mut instances[kill as usize % 2];
        assert!(instance.is_alive(), "{}", place.said());
        instance.kill();
        *instance = place.consume();
        if kill % 5 == 4 {
            // Long enough to lose its partitions, which it does not know when it goes on.
            instances[(kill as usize + 1) % 2].freeze(Duration::from_millis(2_500));
        }
        if kill == kills / 2 {
            cluster.kill_broker(0);
            cluster.start_broker(0);
            cluster.wait();
        }
    }
    let sent = producer.join().expect("sent");
    let total: i64 = sent.iter().sum();
    let begun = Instant::now();
    let stored = || logs.iter().map(|log| place.head(log)).sum::<u64>() + place.head("quarantine");
    place.wait_for("all are stored", || stored() as i64 >= total);
    eprintln!("{total} messages; after the last one was sent it took {:?}", begun.elapsed());
    instances.into_iter().for_each(|instance| instance.stop());
    assert_eq!(place.drain()["accepted"], 0);
    check(&place, logs, &sent);
    place.verify(logs);
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn nothing_is_lost_or_doubled_while_instances_and_the_broker_are_killed() {
    let logs: Vec<_> = (0..PARTITIONS).map(|partition| format!("disclosure-{partition}")).collect();
    storm("disclosure-{partition}", &logs, 200_000, 20, Duration::from_millis(150));
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn instances_that_share_one_log_take_turns() {
    storm("disclosure", &["disclosure".to_owned()], 20_000, 5, Duration::from_millis(300));
}
