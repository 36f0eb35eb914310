//! Disclosures to be sent: good ones, faulty ones, large ones.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::time::Duration;

use crate::cluster::Cluster;

/// A disclosure that is in order, with so many characters of data.
pub fn disclosure(number: u64, size: usize) -> String {
    // Not the number of anybody: the month is 13.
    format!(
        "{{\"person\":\"{:011}\",\"mottaker\":\"{:09}\",\"tema\":\"ABC\",\"behandlingsGrunnlag\":\"hjemmel {number}\",\
         \"uthentingsTidspunkt\":\"2026-01-05T12:24:21.675\",\"leverteData\":\"{}\"}}",
        11_300_000_000 + number % 1_000_000,
        900_000_000 + number % 1_000,
        "e30x".repeat(size.div_ceil(4).max(1))
    )
}

/// One that is refused.
pub fn faulty(number: u64) -> String {
    match number % 3 {
        0 => format!("{{\"person\":\"{number}\"}}"),
        1 => format!("no JSON at all: {number}"),
        _ => disclosure(number, 100).replace("\"tema\":\"ABC\"", "\"tema\":\"ABCD\""),
    }
}

/// A producer of messages.
pub struct Messages(pub BaseProducer<DefaultProducerContext>);

impl Messages {
    pub fn new(cluster: &Cluster) -> Self {
        let mut config = cluster.client();
        config.set("linger.ms", "20").set("enable.idempotence", "true").set("message.max.bytes", "1100000");
        Messages(config.create().expect("a producer"))
    }

    /// Sends one, as soon as there is room for it.
    pub fn send(&self, topic: &str, partition: i32, key: Option<&str>, content: Option<&str>) {
        let headers = OwnedHeaders::new().insert(Header { key: "correlation-id", value: Some("6d1f-4711") });
        let mut record = BaseRecord {
            topic,
            partition: Some(partition),
            payload: content,
            key,
            timestamp: None,
            headers: Some(headers),
            delivery_opaque: (),
        };
        while let Err((error, back)) = self.0.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            self.0.poll(Duration::from_millis(20));
            record = back;
        }
    }

    /// Waits until all are there.
    pub fn flush(&self) {
        self.0.flush(Duration::from_secs(60)).expect("sent");
    }

    /// Sends `count` messages over `partitions` partitions: most of them small, some large, one in
    /// a hundred faulty, one in fifty twice. Gives how many were sent to each partition.
    pub fn storm(&self, topic: &str, partitions: i32, count: u64, pace: Option<Duration>) -> Vec<i64> {
        let mut chance = StdRng::seed_from_u64(7);
        let mut sent = vec![0; partitions as usize];
        for number in 0..count {
            let content = if number % 100 == 99 {
                faulty(number)
            } else {
                let size = match chance.random_range(0..20_000) {
                    0 => 900_000,
                    1..20 => 50_000,
                    20..2_000 => 3_000,
                    _ => chance.random_range(4..1_500),
                };
                disclosure(number, size)
            };
            let partition = chance.random_range(0..partitions);
            let key = format!("key-{number}");
            for _ in 0..if number % 50 == 7 { 2 } else { 1 } {
                self.send(topic, partition, Some(&key), Some(&content));
                sent[partition as usize] += 1;
            }
            if let Some(pace) = pace.filter(|_| number % 1_000 == 999) {
                self.0.poll(Duration::ZERO);
                std::thread::sleep(pace);
            }
        }
        self.flush();
        sent
    }
}
