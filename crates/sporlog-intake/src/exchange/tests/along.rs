//! Deliveries that are read while they are still being uploaded.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use chrono::Utc;

use super::*;
use crate::exchange::growth::Growth;

/// An upload in pieces.
struct Uploading {
    exchange: Exchange,
    inbox: Inbox,
    told: Told,
    file: File,
    growth: Arc<Growth>,
    written: u64,
}

impl Uploading {
    async fn begin() -> Self {
        let exchange = Exchange::new();
        let store = exchange.store();
        let writers = Arc::new(OwnWriters::new(store.clone()));
        let (inbox, told) = exchange.start(writers, Quarantine::new(store), Mode::Forever).await;
        let file = File::create(exchange.home().uploads().join("a.csv.part")).unwrap();
        let growth = Arc::new(Growth::begin("ky", "a.csv.part"));
        inbox.announcer().growing(growth.clone());
        Uploading { exchange, inbox, told, file, growth, written: 0 }
    }

    async fn write(&mut self, content: &str) {
        self.file.write_all(content.as_bytes()).unwrap();
        self.growth.grew(self.written, content.len() as u64);
        self.written += content.len() as u64;
        // Long enough that it is read.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    fn deliver(&self) {
        let inbox = self.exchange.home().inbox().join("a.csv");
        std::fs::rename(self.exchange.home().uploads().join("a.csv.part"), inbox).unwrap();
        self.inbox.announcer().closed("ky", "a.csv", true);
    }

    async fn receipt(self) -> Receipt {
        for _ in 0..600 {
            if !self.told.lock().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.inbox.stop().await.unwrap();
        let receipt = self.told.lock().unwrap().remove(0);
        assert!(names(&self.exchange.home().taken()).is_empty());
        receipt
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_while_it_comes_and_taken_when_it_has_come() {
    let mut uploading = Uploading::begin().await;
    uploading.write(&file(0..100)).await;
    uploading.write(&row("100")).await;
    assert!(uploading.told.lock().unwrap().is_empty());
    uploading.growth.whole(&uploading.file.metadata().unwrap());
    // The rows' time of receipt is that of the moment in which their staging began.
    let closed = Utc::now();
    tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
    uploading.deliver();
    let receipt = uploading.receipt().await;
    assert_eq!((receipt.outcome, receipt.accepted, receipt.file.as_str()), (Outcome::Accepted, 101, "a.csv"));
    assert!(receipt.received_at < Some(closed) && receipt.taken_at > closed, "it was not read along");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_written_again_is_read_anew() {
    let mut uploading = Uploading::begin().await;
    uploading.write(&file(0..100)).await;
    uploading.growth.grew(0, 1);
    uploading.write(&row("100")).await;
    uploading.deliver();
    assert_eq!(uploading.receipt().await.accepted, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_it_was_closed_is_not_lost() {
    let mut uploading = Uploading::begin().await;
    uploading.write(&file(0..100)).await;
    uploading.growth.whole(&uploading.file.metadata().unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    // It is opened again, and a row more is written.
    let path = uploading.exchange.home().uploads().join("a.csv.part");
    OpenOptions::new().append(true).open(path).unwrap().write_all(row("100").as_bytes()).unwrap();
    uploading.deliver();
    assert_eq!(uploading.receipt().await.accepted, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_delivery_does_not_wait_for_one_that_is_still_coming() {
    let mut uploading = Uploading::begin().await;
    uploading.write(&file(0..100)).await;
    uploading.exchange.put("b.csv", &file(200..205));
    uploading.inbox.announcer().closed("ky", "b.csv", true);
    assert_eq!(uploading.receipt().await.accepted, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_after_it_was_closed_is_read_anew() {
    let mut uploading = Uploading::begin().await;
    let content = file(0..100);
    uploading.write(&content).await;
    uploading.growth.whole(&uploading.file.metadata().unwrap());
    // Opened again, and a row that has been read is written over: the size is the same.
    let changed = content.replace("\"t-50\"", "\"x-50\"");
    let path = uploading.exchange.home().uploads().join("a.csv.part");
    OpenOptions::new().write(true).open(path).unwrap().write_all(changed.as_bytes()).unwrap();
    uploading.deliver();
    let receipt = uploading.receipt().await;
    assert_eq!(receipt.sha256, sporlog_record::hex(<sha2::Sha256 as sha2::Digest>::digest(changed)));
}
