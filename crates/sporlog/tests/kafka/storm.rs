//! Everything at once: instances that are killed and frozen again and again, and the broker, too; and with a store in a bucket,
//! faults of the bucket.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::instance::{Place, TOPIC};
use crate::messages::Messages;
use crate::proxy::{Faults, Proxy};

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

/// What happens while messages are taken in.
struct Storm<'a> {
    partitions: i32,
    instances: usize,
    messages: u64,
    kills: u32,
    /// Between a thousand messages.
    pace: Duration,
    log: &'a str,
    /// Where the instances reach the bucket that the store lies in.
    endpoint: Option<&'a str>,
}

impl Storm<'_> {
    /// The instances take the messages in; one after the other is killed, another one frozen now and then, the broker killed
    /// once. `logs` are all that `log` stands for.
    fn rage(self, logs: &[String]) {
        let Storm { partitions, messages: count, kills, pace, .. } = self;
        let mut cluster = Cluster::start(1);
        cluster.create_topic(TOPIC, partitions, &[]);
        let mut place = Place::new(&cluster, "storm", self.log, "");
        if let Some(endpoint) = self.endpoint {
            // Made without faults: a bucket that bad would be refused.
            let names: Vec<_> = logs.iter().map(String::as_str).collect();
            place.text(&[&["logs", "create", "--kind", "disclosure"], &names[..]].concat());
            place.text(&["logs", "create", "quarantine"]);
            place.endpoint = Some(endpoint.to_owned());
        }
        let messages = Messages::new(&cluster);
        let producer = std::thread::spawn(move || messages.storm(TOPIC, partitions, count, Some(pace)));
        let mut instances: Vec<_> = (0..self.instances).map(|_| place.consume()).collect();
        for kill in 0..kills {
            std::thread::sleep(Duration::from_millis(1_500 + u64::from(kill * 137 % 700)));
            let killed = kill as usize % instances.len();
            let instance = &mut instances[killed];
            assert!(instance.is_alive(), "{}", place.said());
            instance.kill();
            *instance = place.consume();
            if kill % 5 == 4 {
                // Long enough to lose its partitions, which it does not know when it goes on.
                instances[(killed + 1) % self.instances].freeze(Duration::from_millis(2_500));
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
}

fn log_for_each(partitions: i32) -> Vec<String> {
    (0..partitions).map(|partition| format!("disclosure-{partition}")).collect()
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn nothing_is_lost_or_doubled_while_instances_and_the_broker_are_killed() {
    let storm = Storm {
        partitions: PARTITIONS,
        instances: 2,
        messages: 200_000,
        kills: 20,
        pace: Duration::from_millis(150),
        log: "disclosure-{partition}",
        endpoint: None,
    };
    storm.rage(&log_for_each(PARTITIONS));
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn instances_that_share_one_log_take_turns() {
    let storm = Storm {
        partitions: PARTITIONS,
        instances: 2,
        messages: 20_000,
        kills: 5,
        pace: Duration::from_millis(300),
        log: "disclosure",
        endpoint: None,
    };
    storm.rage(&["disclosure".to_owned()]);
}

/// Requests to the bucket are late, get lost, are refused, or take effect without an answer.
#[test]
#[ignore = "needs Kafka and a bucket: tests/kafka/run"]
fn four_instances_store_twelve_partitions_in_a_bucket_that_fails() {
    let upstream = std::env::var("AWS_ENDPOINT_URL").expect("AWS_ENDPOINT_URL: use tests/kafka/run");
    let faults = Faults {
        delay: (2, 20),
        each: 10,
        cut: true,
        slow_down: true,
        lost: true,
        late: true,
        ..Faults::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let proxy = runtime.block_on(Proxy::start("127.0.0.1:0", upstream.trim_start_matches("http://"), faults));
    let storm = Storm {
        partitions: 12,
        instances: 4,
        messages: 20_000,
        kills: 8,
        pace: Duration::from_millis(700),
        log: "disclosure-{partition}",
        endpoint: Some(&proxy.url),
    };
    storm.rage(&log_for_each(12));
}
