//! Between staging and commit: what is left out, what is counted, and what a file that is given up leaves.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use sporlog_ledger::{Store, StoreOptions, WriterOptions};
use sporlog_record::Rules;

use super::*;
use crate::delivery::OverlapPolicy;

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

    async fn prepare(&self, bytes: &[u8]) -> Preparation {
        let source = source("day.csv", bytes);
        prepare(&self.writer, &self.quarantine, source, options(), |_| ()).await.expect("prepared")
    }

    async fn import(&self, source: Source, options: Options) -> Receipt {
        import(&self.writer, &self.quarantine, source, options, |_| ()).await.expect("imported")
    }

    async fn ready(&self, bytes: &[u8]) -> Prepared {
        match self.prepare(bytes).await {
            Preparation::Ready(prepared) => prepared,
            Preparation::Refused(receipt) => panic!("{:?}", receipt.refused),
        }
    }

    fn head(&self) -> u64 {
        self.writer.log().head()
    }
}

fn source(name: &str, bytes: impl Into<Vec<u8>>) -> Source {
    Source::stream(name, std::io::Cursor::new(bytes.into()))
}

fn options() -> Options {
    Options::new(Kind::Revision, Rules::default())
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

#[tokio::test]
async fn refused_rows_are_told_with_their_lines_and_the_same_bytes_are_recognised() {
    let place = Place::new().await;
    let bytes = csv(0..10, |row| if row % 4 == 1 { "6494221" } else { "64942212" }, "");
    let prepared = place.ready(bytes.as_bytes()).await;
    let receipt = prepared.receipt();
    assert_eq!((receipt.accepted, receipt.quarantined, receipt.first_id), (7, 3, None));
    assert_eq!((receipt.bytes, receipt.sha256.len()), (bytes.len() as u64, 64));
    let rows: Vec<_> = receipt.quarantined_rows.iter().map(|note| (note.line, note.rule.as_str())).collect();
    assert_eq!(rows, [(3, "digits"), (7, "digits"), (11, "digits")]);
    assert_eq!(receipt.quarantined_rows[1].transaction_id.as_deref(), Some("5"));
    // Each of the seven rows that were accepted has two values that are no UUIDs.
    assert_eq!((receipt.remarks, receipt.remarked_rows.len()), (14, 14));
    let first = &receipt.remarked_rows[0];
    assert_eq!(
        (first.line, first.field.as_str(), first.transaction_id.as_deref()),
        (2, "BrugerId", Some("0"))
    );
    assert_eq!(place.head(), 0);
    let receipt = prepared.commit(vec![("delivery:1".into(), Advance::Once)]).await.expect("committed");
    assert_eq!((receipt.accepted, receipt.first_id, receipt.last_id), (7, Some(1), Some(7)));
    assert_eq!(place.head(), 7);
    assert_eq!(place.writer.log().position("delivery:1").expect("a position").version, 1);
    assert_eq!(place.quarantine.list().await.expect("a list").len(), 3);
    // The same bytes again.
    let receipt = place.import(source("other.csv", bytes), options()).await;
    assert!(receipt.already_since.is_some());
    assert_eq!((receipt.accepted, receipt.quarantined, receipt.received_at), (0, 0, None));
    assert_eq!((receipt.overlapping, receipt.skipped), (0, 0));
    assert!(receipt.quarantined_rows.is_empty() && receipt.remarked_rows.is_empty());
    assert_eq!(place.head(), 7);
}

#[tokio::test]
async fn a_receipt_lists_the_first_notes_and_counts_all() {
    let place = Place::new().await;
    let bytes = csv(0..6_000, |row| if row == 5_999 { "1" } else { "64942212" }, "").into_bytes();
    let receipt = place.import(source("day.csv", bytes), options()).await;
    assert_eq!((receipt.remarks, receipt.remarked_rows.len()), (2 * 5_999, LISTED_ROWS));
    assert_eq!(receipt.remarked_rows.last().expect("a remark").line, 5_001);
    // Remarks do not take the places of rows that were refused.
    assert_eq!(receipt.quarantined_rows.len(), 1);
}

#[tokio::test]
async fn rows_that_the_log_has_from_another_file_are_left_out_or_counted() {
    let place = Place::new().await;
    let ids = |rows| csv(rows, |row| if row == 12 { "" } else { "64942212" }, "").into_bytes();
    let first = place.import(source("a.csv", ids(0..10)), options()).await;
    assert_eq!((first.accepted, first.overlapping, first.overlaps.len()), (10, 0, 0));

    // A stream is read twice, too, and of a row that was changed the earlier one stays.
    let changed = csv(5..15, |row| if row == 12 { "" } else { "12345678" }, "changed").into_bytes();
    let second = place.import(Source::stream("-", std::io::Cursor::new(changed)), options()).await;
    assert_eq!((second.accepted, second.overlapping, second.skipped), (4, 5, 5));
    assert_eq!((second.quarantined, second.first_id, second.last_id), (1, Some(11), Some(14)));
    assert_eq!(second.overlaps.iter().map(|earlier| earlier.rows).collect::<Vec<_>>(), [Some(5)]);
    assert_eq!(place.quarantine.list().await.expect("a list").len(), 1);

    // Nothing of a file that has nothing new is stored, and it is known from then on.
    for known in [false, true] {
        let old = place.import(source("b.csv", ids(3..9)), options()).await;
        assert_eq!((old.accepted, old.first_id, old.already_since.is_some()), (0, None, known));
    }

    let take = |days| Options { overlap: OverlapPolicy { rows: delivery::Overlap::Take, days }, ..options() };
    let again = place.import(source("c.csv", ids(9..11)), take(35)).await;
    assert_eq!((again.accepted, again.overlapping, again.skipped), (2, 2, 0));
    let later = place.import(source("d.csv", ids(8..10)), take(0)).await;
    assert_eq!((later.accepted, later.overlapping), (2, 0));
    assert_eq!(place.head(), 18);
}

#[tokio::test]
async fn a_file_that_grows_while_it_is_read_is_not_taken() {
    let place = Place::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.csv");
    std::fs::write(&path, csv(0..10, |_| "64942212", "")).expect("written");
    let source = Source::open(&path).expect("a source");
    std::fs::write(&path, csv(0..11, |_| "64942212", "")).expect("longer");
    let prepared = prepare(&place.writer, &place.quarantine, source, options(), |_| {}).await;
    assert!(matches!(prepared, Err(Error::Unsettled(name)) if name == "a.csv"));
    assert_eq!(place.head(), 0);
}

#[tokio::test]
async fn a_file_that_is_changed_between_its_two_readings_is_not_taken() {
    let place = Place::new().await;
    place.import(source("a.csv", csv(0..10, |_| "64942212", "")), options()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("b.csv");
    let content = csv(5..2_000, |_| "64942212", &"x".repeat(500));
    std::fs::write(&path, &content).expect("written");
    let (source, last) = (Source::open(&path).expect("a source"), AtomicU64::new(0));
    let more = csv(5_000..5_001, |_| "64942212", "").replace(HEADER, "");
    let progress = move |done: u64| {
        // The second reading has begun.
        if done < last.swap(done, Ordering::Relaxed) {
            std::fs::write(&path, content.clone() + &more).expect("longer");
        }
    };
    let prepared = prepare(&place.writer, &place.quarantine, source, options(), progress).await;
    assert!(matches!(prepared, Err(Error::Unsettled(name)) if name == "b.csv"));
    assert_eq!(place.head(), 10);
}

#[test]
fn unnamed_rows_of_an_hour_are_one_entry_and_deliveries_have_their_own() {
    let hour = 3_600_000_000;
    let rows = [(10, 1, 5), (20, 6, 1), (30, 7, 1), (hour + 5, 8, 1), (hour + 7, 9, 2), (hour + 9, 11, 4)];
    let received =
        rows.map(|(at, first_id, rows)| ReceivedBefore { at, first_id, last_id: first_id + rows - 1, rows });
    let named = |rows: &ReceivedBefore| (rows.first_id == 9).then(|| ("d".to_owned(), "f.csv".to_owned()));
    let earlier = Earlier::deliveries(&received, named);
    let told: Vec<_> = earlier
        .iter()
        .map(|earlier| (earlier.file.as_deref(), earlier.received_at.timestamp_micros(), earlier.rows))
        .collect();
    assert_eq!(
        told,
        [
            (None, 30, Some(7)),
            (None, hour + 5, Some(1)),
            (Some("f.csv"), hour + 7, Some(2)),
            (None, hour + 9, Some(4))
        ]
    );
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing_and_holds_nothing() {
    let place = Place::new().await;
    let bytes = csv(0..10, |row| if row == 1 { "" } else { "64942212" }, "");
    place.ready(bytes.as_bytes()).await.abort().await;
    drop(place.ready(bytes.as_bytes()).await);
    match place.prepare(b"nothing,of,that\n").await {
        Preparation::Refused(receipt) => assert!(!receipt.refused.is_empty()),
        Preparation::Ready(_) => panic!("it was to be refused"),
    }
    assert_eq!((place.head(), place.quarantine.list().await.expect("a list").len()), (0, 0));
    let prepared = place.ready(bytes.as_bytes()).await;
    assert_eq!(prepared.commit(Vec::new()).await.expect("committed").accepted, 9);
    assert_eq!((place.head(), place.quarantine.list().await.expect("a list").len()), (9, 1));
}

/// Parts are cut by bytes, not by reads: a decoder gives some kilobytes at a time, a file all that is asked for.
#[test]
fn parts_are_the_same_however_the_bytes_are_read() {
    #[derive(Default)]
    struct Parts(Mutex<BTreeMap<u64, Vec<String>>>);
    impl Receiver for Parts {
        fn rows(&self, part: u64, rows: RecordBatch) -> Result<()> {
            let ids = rows.column_by_name("TransaktionsId").expect("a column").as_string::<i32>();
            let ids = ids.iter().flatten().map(str::to_owned).collect();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, ids);
            Ok(())
        }

        fn judged(&self, _header: &[u8], _judged: Judged) -> Result<()> {
            Ok(())
        }
    }
    let bytes = csv(0..45_000, |_| "64942212", &"x".repeat(1_000)).into_bytes();
    let packed = zstd::encode_all(bytes.as_slice(), 1).expect("packed");
    let parts = |bytes: Vec<u8>, workers: usize| {
        let (seen, options) = (Parts::default(), Options { workers, ..options() });
        deliver(source("day.csv", bytes), &options, &seen, &|_| ()).expect("delivered");
        seen.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    };
    let whole = parts(bytes, 1);
    assert!(whole.len() > 2, "{} parts", whole.len());
    assert_eq!(whole.values().flatten().count(), 45_000);
    assert!(whole == parts(packed, 3));
}
