//! Deliveries from the inbox into the log, without a server before it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::AsArray;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use sporlog_ledger::{Store, StoreOptions, Writer};
use sporlog_record::{Kind, Rules};

use super::claim::Claim;
use super::{Inbox, InboxConfig, InboxLoop, Mode};
use crate::Register;
use crate::receipt::{Outcome, Receipt};
use crate::settings::{Overlap, Role, Settings};
use crate::tree::Home;
use sporlog_intake::delivery::Options;
use sporlog_intake::import::import;
use sporlog_intake::quarantine::{Meant, Quarantine};
use sporlog_intake::source::Source;
use sporlog_intake::writers::{OwnWriters, Writers};

const HEADER: &str = "\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\",\"KalderOrganisation\",\"KalderItSystemInstans\",\"LogId\"\n";

fn row(log_id: &str) -> String {
    format!("\"t-{log_id}\",\"2026-03-01T10:00:00\",\"u\",\"64942212\",\"KY\",\"{log_id}\"\n")
}

fn file(log_ids: std::ops::Range<u32>) -> String {
    HEADER.to_owned() + &log_ids.map(|id| row(&id.to_string())).collect::<String>()
}

/// The receipts, in the order in which they came.
type Receipts = Arc<Mutex<Vec<Receipt>>>;

struct Exchange {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Exchange {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = r#"{"settle_seconds": 0, "account": [{"name": "ky", "role": "supplier"}]}"#;
        let exchange = Exchange { folder, settings: serde_json::from_str(settings).unwrap() };
        exchange.home().create(Role::Supplier).unwrap();
        exchange
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("exchange")
    }

    fn home(&self) -> Home {
        Home::of(&self.root(), &self.settings.accounts[0])
    }

    fn put(&self, name: &str, content: &str) {
        std::fs::write(self.home().inbox().join(name), content).unwrap();
    }

    fn store(&self) -> Store {
        let options = StoreOptions {
            address: self.folder.path().join("store").to_string_lossy().into_owned(),
            create: true,
            ..StoreOptions::default()
        };
        Store::open(options).unwrap()
    }

    /// Takes everything that waits; the receipts, in order.
    async fn take(&self) -> Vec<Receipt> {
        let store = self.store();
        let writers = OwnWriters::new(store.clone());
        let quarantine = Quarantine::new(store);
        let (mut inbox, receipts) =
            self.start(Arc::new(writers.clone()), quarantine.clone(), Mode::Once).await;
        inbox.ended().await.unwrap();
        drop(inbox);
        writers.close().await.unwrap();
        quarantine.close().await.unwrap();
        std::mem::take(&mut *receipts.lock().unwrap())
    }

    async fn start(
        &self,
        writers: Arc<dyn Writers>,
        quarantine: Quarantine,
        mode: Mode,
    ) -> (Inbox, Receipts) {
        let (config, receipts) = self.config(writers, quarantine);
        (Inbox::start(config, mode).await.unwrap(), receipts)
    }

    fn config(&self, writers: Arc<dyn Writers>, quarantine: Quarantine) -> (InboxConfig, Receipts) {
        let receipts = Receipts::default();
        let config = InboxConfig {
            settings: self.settings.clone().into(),
            root: self.root(),
            writers,
            quarantine,
            rules: Rules::default(),
            on_receipt: Arc::new({
                let receipts = receipts.clone();
                move |receipt: &Receipt| receipts.lock().unwrap().push(receipt.clone())
            }),
        };
        (config, receipts)
    }

    fn receipt(&self, name: &str) -> Receipt {
        let path = self.home().receipts().join(format!("{name}.kvittering.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.home().receipts().join(format!("{name}.kvittering.txt"))).unwrap()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn good_rows_go_in_and_bad_ones_are_told_with_their_lines() {
    let exchange = Exchange::new();
    exchange.put("a.csv", &(file(0..3) + "\"\",\"2026-03-01T10:00:00\",\"u\",\"1\",\"KY\",\"9\"\n"));
    let receipts = exchange.take().await;
    assert_eq!(receipts.len(), 1);
    let receipt = exchange.receipt("a.csv");
    assert_eq!(receipt.outcome, Outcome::Accepted);
    assert_eq!((receipt.accepted, receipt.quarantined), (3, 1));
    assert_eq!((receipt.first_id, receipt.last_id), (Some(1), Some(3)));
    assert!(receipt.quarantined_rows.iter().all(|note| note.line == 5), "{receipt:?}");
    assert_eq!(receipt.quarantined_rows.len(), 2, "{receipt:?}");
    let text = exchange.text("a.csv");
    assert!(text.contains("line 5") && text.contains("Remarks on rows that were accepted:"), "{text}");
    assert!(
        text.contains(&format!(
            "TransaktionsId {}",
            receipt.remarked_rows[0].transaction_id.as_ref().unwrap()
        ))
    );
    assert_eq!(receipt.remarks as usize, receipt.remarked_rows.len());
    // By the delivery's id, what waits of it can be given up.
    let meant = [Meant::Delivery(receipt.delivery.clone())];
    assert_eq!(Quarantine::new(exchange.store()).discard(&meant, "test").await.unwrap().len(), 1);
    assert!(names(&exchange.home().inbox()).is_empty());
    assert!(names(&exchange.home().taken()).is_empty());
    assert_eq!(Register::new(&exchange.root()).of("ky").unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_renamed_and_overlapping_files_are_told_apart() {
    let exchange = Exchange::new();
    exchange.put("a.csv", &file(0..10));
    exchange.take().await;
    exchange.put("a.csv", &file(0..10));
    let repeated = exchange.take().await.remove(0);
    assert_eq!((repeated.outcome, repeated.accepted), (Outcome::Repeated, 0));
    assert_eq!(repeated.repeats.and_then(|earlier| earlier.file), Some("a.csv".to_owned()));
    exchange.put("b.csv", &file(0..10));
    let renamed = exchange.take().await.remove(0);
    assert_eq!(renamed.outcome, Outcome::Repeated);
    assert_eq!(renamed.repeats.and_then(|earlier| earlier.file), Some("a.csv".to_owned()));
    exchange.put("c.csv", &file(5..15));
    let overlapping = exchange.take().await.remove(0);
    assert_eq!(overlapping.outcome, Outcome::Accepted);
    assert_eq!((overlapping.accepted, overlapping.overlapping, overlapping.skipped), (5, 5, 5));
    assert_eq!(overlapping.overlaps.len(), 1);
    assert_eq!(overlapping.overlaps[0].file.as_deref(), Some("a.csv"));
    assert_eq!(overlapping.overlaps[0].rows, Some(5));
    // Of the older receipts under the same name, none is lost.
    assert_eq!(names(&exchange.home().receipts()).len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_rows_are_taken_where_that_is_wanted() {
    let mut exchange = Exchange::new();
    exchange.settings.overlap = Overlap::Take;
    exchange.put("a.csv", &file(0..10));
    exchange.put("b.csv", &file(8..12));
    let receipts = exchange.take().await;
    let second = receipts.iter().find(|receipt| receipt.overlapping > 0).unwrap();
    assert_eq!((second.overlapping, second.skipped), (2, 0));
    assert_eq!(receipts.iter().map(|receipt| receipt.accepted).sum::<u64>(), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_kept_aside_whole() {
    let exchange = Exchange::new();
    let content = "\"BrugerId\"\n\"u\"\n";
    exchange.put("bad\n.csv", content);
    let receipt = exchange.take().await.remove(0);
    assert_eq!(receipt.outcome, Outcome::Refused);
    assert_eq!(receipt.sha256.len(), 64);
    assert!(!receipt.refused.is_empty());
    let aside = exchange.home().refused().join(&receipt.delivery);
    assert_eq!(std::fs::read_to_string(aside.join("file").join("bad\n.csv")).unwrap(), content);
    assert!(aside.join("receipt.json").exists());
    // Delivered again, it is refused again.
    exchange.put("bad\n.csv", content);
    assert_eq!(exchange.take().await.remove(0).outcome, Outcome::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_left_is_taken_up_again() {
    let exchange = Exchange::new();
    exchange.put("a.csv", &file(0..4));
    // Killed after the file was claimed.
    let claim = Claim::plan(&exchange.home(), "ky", "a.csv".as_ref());
    assert!(claim.take().unwrap());
    let receipt = exchange.take().await.remove(0);
    assert_eq!((receipt.delivery.as_str(), receipt.accepted), (claim.id.as_str(), 4));
    // Killed after the commit: the file and what was decided before it are still there.
    let again = Claimed::put_back(&exchange, &receipt, "a.csv", &file(0..4));
    let known = exchange.take().await.remove(0);
    assert_eq!((known.delivery.as_str(), known.outcome), (again.as_str(), Outcome::Accepted));
    assert_eq!((known.accepted, known.first_id, known.last_id), (4, Some(1), Some(4)));
    assert_eq!(Register::new(&exchange.root()).of("ky").unwrap().len(), 1);
    assert!(names(&exchange.home().taken()).is_empty());
}

/// What lies in `taken` when a process is killed between the commit and the receipt.
struct Claimed;

impl Claimed {
    fn put_back(exchange: &Exchange, receipt: &Receipt, name: &str, content: &str) -> String {
        let folder = exchange.home().taken().join(&receipt.delivery);
        std::fs::create_dir_all(folder.join("file")).unwrap();
        std::fs::write(folder.join("file").join(name), content).unwrap();
        let before = Receipt { first_id: None, last_id: None, received_at: None, ..receipt.clone() };
        std::fs::write(folder.join("decided.json"), serde_json::to_vec(&before).unwrap()).unwrap();
        receipt.delivery.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_by_the_time_that_it_is_taken_is_refused() {
    let exchange = Exchange::new();
    let folder = exchange.home().taken().join("20260101T000000Z-00000000").join("file");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link.csv")).unwrap();
    let receipt = exchange.take().await.remove(0);
    assert_eq!((receipt.outcome, receipt.refused[0].rule.as_str()), (Outcome::Refused, "no-file"));
    assert!(names(&exchange.home().taken()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_file_somebody_removed_is_dropped() {
    let exchange = Exchange::new();
    exchange.put("a.csv", &file(0..4));
    let claim = Claim::plan(&exchange.home(), "ky", "a.csv".as_ref());
    assert!(claim.take().unwrap());
    let store = exchange.store();
    let (config, receipts) =
        exchange.config(Arc::new(OwnWriters::new(store.clone())), Quarantine::new(store));
    let inbox = InboxLoop::begin(config, Arc::default()).unwrap();
    std::fs::remove_file(claim.file()).unwrap();
    inbox.run(Mode::Once).await.unwrap();
    assert!(receipts.lock().unwrap().is_empty());
    assert!(exchange.take().await.is_empty());
    assert!(names(&exchange.home().taken()).is_empty(), "the next start removes the claim's folder");
}

/// Writers of which the first to ask for the log's lets another import come in between.
struct Crowded {
    inner: OwnWriters,
    quarantine: Quarantine,
    came: AtomicBool,
}

impl Writers for Crowded {
    fn writer<'a>(&'a self, log: &'a str, kind: Kind) -> BoxFuture<'a, sporlog_ledger::Result<Writer>> {
        Box::pin(async move {
            let writer = self.inner.writer(log, kind).await?;
            if log == "revision" && !self.came.swap(true, Ordering::SeqCst) {
                let (writer, quarantine) = (writer.clone(), self.quarantine.clone());
                tokio::spawn(async move {
                    // It queues up behind the delivery's first reading.
                    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
                    let source =
                        Source::stream("http.csv", std::io::Cursor::new(file(20_000..40_000).into_bytes()));
                    let options = Options::new(Kind::Revision, Rules::default());
                    import(&writer, &quarantine, source, options, |_| ()).await.unwrap();
                });
            }
            Ok(writer)
        })
    }

    fn forget<'a>(&'a self, log: &'a str) -> BoxFuture<'a, ()> {
        self.inner.forget(log)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_in_while_a_delivery_is_read_again_are_not_doubled() {
    let exchange = Exchange::new();
    exchange.put("a.csv", &file(0..100));
    exchange.take().await;
    exchange.put("b.csv", &file(0..40_000));
    let store = exchange.store();
    let quarantine = Quarantine::new(store.clone());
    let inner = OwnWriters::new(store.clone());
    let came = AtomicBool::new(false);
    let crowded = Arc::new(Crowded { inner, quarantine: quarantine.clone(), came });
    let (mut inbox, receipts) = exchange.start(crowded, quarantine, Mode::Once).await;
    inbox.ended().await.unwrap();
    assert_eq!(receipts.lock().unwrap().len(), 1);
    let log = store.log("revision").await.unwrap();
    let mut batches = log.read_columns(0, None, &["LogId"]);
    let mut ids = Vec::new();
    while let Some(batch) = batches.try_next().await.unwrap() {
        ids.extend(batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((count, ids.len()), (40_000, 40_000));
}
