//! Between staging and commit: who sees the rows, who may leave some out, and what is counted.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use arrow::array::AsArray;
use sporlog_ledger::{Store, StoreOptions, WriterOptions};
use sporlog_record::Rules;

use super::*;

const HEADER: &str = "\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\",\"KalderOrganisation\",\"KalderItSystemInstans\",\"Note\"\r\n";

struct Place {
    _dir: tempfile::TempDir,
    writer: Writer,
    quarantine: Quarantine,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = dir.path().join("store").display().to_string();
        let store = Store::open(StoreOptions { address, create: true, ..StoreOptions::default() });
        let store = store.expect("a store");
        let writer = store.writer("revision", Kind::Revision, WriterOptions::default()).await;
        let quarantine = Quarantine::new(store);
        Place { _dir: dir, writer: writer.expect("a writer"), quarantine }
    }

    async fn prepare(&self, bytes: &[u8], rows: Arc<dyn Rows>) -> Preparation {
        let source = Source::bytes("day.csv", bytes.to_vec());
        let options = Options::new(Kind::Revision, Rules::default());
        prepare(&self.writer, &self.quarantine, source, options, rows, |_| ()).await.expect("prepared")
    }

    async fn ready(&self, bytes: &[u8], rows: Arc<dyn Rows>) -> Prepared {
        match self.prepare(bytes, rows).await {
            Preparation::Ready(prepared) => prepared,
            Preparation::Refused(receipt) => panic!("{:?}", receipt.refused),
        }
    }

    fn head(&self) -> u64 {
        self.writer.log().head()
    }
}

fn csv(rows: std::ops::Range<usize>, organisation: impl Fn(usize) -> &'static str, note: &str) -> String {
    let mut text = HEADER.to_owned();
    for row in rows {
        let organisation = organisation(row);
        text.push_str(&format!(
            "\"{row}\",\"2021-11-10\",\"YK16\",\"{organisation}\",\"SAPA\",\"{note}\"\r\n"
        ));
    }
    text
}

/// Notes what it sees, and leaves out what it is told to.
#[derive(Default)]
struct Witness {
    seen: Mutex<BTreeMap<u64, Vec<String>>>,
    refused: Mutex<Vec<u64>>,
    left_out: Option<&'static str>,
}

impl Rows for Witness {
    fn rows(&self, part: u64, rows: RecordBatch) -> Result<RecordBatch> {
        let ids = rows.column_by_name("TransaktionsId").expect("a column").as_string::<i32>();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(part, ids.iter().flatten().map(str::to_owned).collect());
        let kept = ids.iter().map(|id| Some(id != self.left_out)).collect();
        Ok(arrow::compute::filter_record_batch(&rows, &kept).expect("fewer rows"))
    }

    fn refused(&self, record: &RefusedRecord) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(record.line);
    }
}

#[tokio::test]
async fn rows_that_are_left_out_are_not_counted_and_refused_ones_are_shown() {
    let place = Place::new().await;
    let witness = Arc::new(Witness { left_out: Some("3"), ..Witness::default() });
    let bytes = csv(0..10, |row| if row % 4 == 1 { "6494221" } else { "64942212" }, "");
    let prepared = place.ready(bytes.as_bytes(), witness.clone()).await;
    let receipt = prepared.receipt();
    assert_eq!((receipt.accepted, receipt.quarantined, receipt.first_id), (6, 3, None));
    assert_eq!((receipt.bytes, receipt.sha256.len()), (bytes.len() as u64, 64));
    assert_eq!(*witness.refused.lock().expect("notes"), [3, 7, 11]);
    assert_eq!(place.head(), 0);
    let receipt = prepared.commit(vec![("delivery:1".into(), Advance::Once)]).await.expect("committed");
    assert_eq!((receipt.accepted, receipt.first_id, receipt.last_id), (6, Some(1), Some(6)));
    assert_eq!(place.head(), 6);
    assert_eq!(place.writer.log().position("delivery:1").expect("a position").version, 1);
    assert_eq!(place.quarantine.list().await.expect("a list").len(), 3);
    // The same bytes again.
    let prepared = place.ready(bytes.as_bytes(), witness).await;
    let receipt = prepared.commit(Vec::new()).await.expect("committed");
    assert!(receipt.already_since.is_some());
    assert_eq!((receipt.accepted, receipt.quarantined, receipt.received_at), (0, 0, None));
    assert_eq!(place.head(), 6);
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing_and_holds_nothing() {
    let place = Place::new().await;
    let bytes = csv(0..10, |row| if row == 1 { "" } else { "64942212" }, "");
    place.ready(bytes.as_bytes(), Arc::new(PassThrough)).await.abort().await;
    drop(place.ready(bytes.as_bytes(), Arc::new(PassThrough)).await);
    match place.prepare(b"nothing,of,that\n", Arc::new(PassThrough)).await {
        Preparation::Refused(receipt) => assert!(!receipt.refused.is_empty()),
        Preparation::Ready(_) => panic!("it was to be refused"),
    }
    assert_eq!((place.head(), place.quarantine.list().await.expect("a list").len()), (0, 0));
    let prepared = place.ready(bytes.as_bytes(), Arc::new(PassThrough)).await;
    assert_eq!(prepared.commit(Vec::new()).await.expect("committed").accepted, 9);
    assert_eq!((place.head(), place.quarantine.list().await.expect("a list").len()), (9, 1));
}

#[tokio::test]
async fn a_hook_that_fails_fails_the_delivery() {
    struct Failing;
    impl Rows for Failing {
        fn rows(&self, _part: u64, _rows: RecordBatch) -> Result<RecordBatch> {
            Err(Error::Internal("no space left".into()))
        }
    }
    let place = Place::new().await;
    let source = || Source::bytes("day.csv", csv(0..10, |_| "64942212", "").into_bytes());
    let options = Options::new(Kind::Revision, Rules::default());
    let prepared =
        prepare(&place.writer, &place.quarantine, source(), options.clone(), Arc::new(Failing), |_| ());
    assert!(matches!(prepared.await, Err(Error::Internal(reason)) if reason == "no space left"));
    let imported =
        import(&place.writer, &place.quarantine, source(), options, |_| ()).await.expect("imported");
    assert_eq!((imported.accepted, place.head()), (10, 10));
}

/// Parts are cut by bytes, not by reads: a decoder gives some kilobytes at a time, a file all that is asked for.
#[test]
fn parts_are_the_same_however_the_bytes_are_read() {
    struct Parts<'a>(&'a Witness);
    impl Receiver for Parts<'_> {
        fn rows(&self, part: u64, rows: RecordBatch) -> Result<()> {
            self.0.rows(part, rows).map(drop)
        }

        fn judged(&self, _header: &[u8], _judged: Judged) -> Result<()> {
            Ok(())
        }
    }
    let bytes = csv(0..45_000, |_| "64942212", &"x".repeat(1_000)).into_bytes();
    let packed = zstd::encode_all(bytes.as_slice(), 1).expect("packed");
    let parts = |bytes: Vec<u8>, workers: usize| {
        let witness = Witness::default();
        let options = Options { workers, ..Options::new(Kind::Revision, Rules::default()) };
        deliver(Source::bytes("day.csv", bytes), &options, &Parts(&witness), &|_| ()).expect("delivered");
        witness.seen.into_inner().unwrap_or_else(PoisonError::into_inner)
    };
    let whole = parts(bytes, 1);
    assert!(whole.len() > 2, "{} parts", whole.len());
    assert_eq!(whole.values().flatten().count(), 45_000);
    assert!(whole == parts(packed, 3));
}
