//! The index beside a log: what comes by the exchange, what comes by other ways, and what is lost.

use sporlog_ledger::{Log, Store, StoreOptions, Writer, WriterOptions};
use sporlog_record::{Kind, Rules};

use super::*;
use sporlog_intake::delivery::Options;
use sporlog_intake::import::{Preparation, import, prepare};
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::source::Source;

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    writer: Writer,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = dir.path().join("store").display().to_string();
        let store = Store::open(StoreOptions { address, create: true, ..StoreOptions::default() });
        let store = store.expect("a store");
        let writer = store.writer("revision", Kind::Revision, WriterOptions::default()).await;
        Place { dir, store, writer: writer.expect("a writer") }
    }

    fn log(&self) -> &Log {
        self.writer.log()
    }

    fn index(&self, name: &str, days: u32) -> Arc<Index> {
        Arc::new(Index::open(&self.dir.path().join(name), days).expect("an index"))
    }

    fn quarantine(&self) -> Quarantine {
        Quarantine::new(self.store.clone())
    }

    async fn import(&self, rows: &[Row]) {
        let imported = import(&self.writer, &self.quarantine(), csv(rows), options(), |_| ()).await;
        assert_eq!(imported.expect("imported").accepted, rows.len() as u64);
    }

    /// As a delivery is taken.
    async fn deliver(&self, index: &Arc<Index>, rows: &[Row]) -> Found {
        index.catch_up(self.log()).await.expect("caught up");
        let collector = index.collect_keys();
        let quarantine = self.quarantine();
        let prepared = prepare(&self.writer, &quarantine, csv(rows), options(), collector.clone(), |_| ());
        let Preparation::Ready(prepared) = prepared.await.expect("prepared") else { panic!("refused") };
        index.catch_up(self.log()).await.expect("caught up");
        let keys = collector.finish().expect("keys");
        let found = index.compare(&keys, Utc::now()).expect("compared");
        let receipt = prepared.commit(Vec::new()).await.expect("committed");
        let ids = receipt.first_id.zip(receipt.last_id).expect("ids");
        index.keep(keys, ids.0, ids.1, Utc::now()).expect("kept");
        found
    }
}

fn options() -> Options {
    Options::new(Kind::Revision, Rules::default())
}

fn csv(rows: &[Row]) -> Source {
    let mut text = "\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\",\"KalderOrganisation\",\"KalderItSystemInstans\",\"LogId\"\r\n".to_owned();
    for (system, log_id, transaction) in rows {
        let log_id = log_id.map(|id| id.to_string()).unwrap_or_default();
        text.push_str(&format!(
            "\"{transaction}\",\"2021-11-10\",\"YK16\",\"64942212\",\"system {system}\",\"{log_id}\"\r\n"
        ));
    }
    Source::bytes("day.csv", text.into_bytes())
}

fn ranges(index: &Index) -> Vec<(u64, u64)> {
    index.runs().iter().map(|run| (run.covers.first, run.covers.last)).collect()
}

#[tokio::test]
async fn catching_up_comes_to_the_same_as_keeping() {
    let place = Place::new().await;
    let index = place.index("overlap", DAYS);
    let first: Vec<Row> = (0..12_000).map(|id| (1, (id % 3 > 0).then_some(id), id / 2)).collect();
    let second: Vec<Row> = (6_000..18_000).map(|id| (1, (id % 3 > 0).then_some(id), id / 2)).collect();
    let third: Vec<Row> = (0..100).map(|id| (1, Some(id), 0)).collect();
    assert!(place.deliver(&index, &first).await.is_empty());
    let found = place.deliver(&index, &second).await;
    // Rows 6,000 to 11,999: those with a LogId, and those without of a transaction that came without.
    assert_eq!((found.rows(), found.runs().len()), (6_000, 1));
    assert_eq!((found.runs()[0].first_id, found.runs()[0].last_id), (1, 12_000));
    assert_eq!(ranges(&index), [(1, 12_000), (12_001, 24_000)]);
    // By other ways, too few for a run of their own.
    for ten in third.chunks(10) {
        place.import(ten).await;
    }
    let other = place.index("other", DAYS);
    for index in [&index, &other] {
        index.catch_up(place.log()).await.expect("caught up");
        let few = ranges(index);
        assert_eq!(few[..2], [(1, 12_000), (12_001, 24_000)]);
        // One run, or two if the hour has just turned.
        assert!(few.len() <= 4 && few.last().is_some_and(|(_, last)| *last == 24_100), "{few:?}");
    }
    for rows in [&first, &second, &third, &vec![(2, Some(1), 1), (1, Some(17_999), 0)]] {
        let compare = |index: &Arc<Index>| {
            let found = index.compare(&keys(index, &[rows.to_vec()]), Utc::now()).expect("compared");
            let runs =
                found.runs().iter().map(|run| (run.first_id, run.last_id, run.rows)).collect::<Vec<_>>();
            (found.rows(), runs)
        };
        assert_eq!(compare(&index), compare(&other));
        assert!(compare(&index).0 > 0);
    }
    // What is deleted comes back.
    fs::remove_dir_all(place.dir.path().join("overlap")).expect("deleted");
    fs::create_dir(place.dir.path().join("overlap")).expect("a folder");
    index.catch_up(place.log()).await.expect("caught up");
    assert_eq!(ranges(&index).last().map(|run| run.1), Some(24_100));
    assert!(index.runs().iter().all(|run| run.is_there()));
}

#[tokio::test]
async fn a_run_that_is_lost_in_the_middle_is_made_anew() {
    let place = Place::new().await;
    let index = place.index("overlap", DAYS);
    for delivery in 0..4_u16 {
        place.deliver(&index, &(0..50).map(|id| (1, Some(50 * delivery + id), 0)).collect::<Vec<_>>()).await;
    }
    assert_eq!(ranges(&index), [(1, 50), (51, 100), (101, 150), (151, 200)]);
    let lost = index.runs()[1].clone();
    fs::remove_file(&lost.path).expect("removed");
    index.catch_up(place.log()).await.expect("caught up");
    assert_eq!(ranges(&index), [(1, 50), (51, 100), (101, 150), (151, 200)]);
    let found = place.deliver(&index, &(40..120).map(|id| (1, Some(id), 1)).collect::<Vec<_>>()).await;
    let runs: Vec<_> = found.runs().iter().map(|run| (run.first_id, run.rows)).collect();
    assert_eq!((found.rows(), runs), (80, vec![(1, 10), (51, 50), (101, 20)]));
    // Opened again, nothing has to be read.
    drop(index);
    let index = place.index("overlap", DAYS);
    let times = |index: &Index| -> Vec<_> {
        index
            .runs()
            .iter()
            .map(|run| fs::metadata(&run.path).and_then(|m| m.modified()).expect("a file"))
            .collect()
    };
    let before = times(&index);
    index.catch_up(place.log()).await.expect("caught up");
    assert_eq!((times(&index), ranges(&index).len()), (before, 5));
    // Another log's ids are others'.
    let elsewhere = Place::new().await;
    elsewhere.import(&[(1, Some(1), 1)]).await;
    index.catch_up(elsewhere.log()).await.expect("caught up");
    assert_eq!(ranges(&index), [(1, 1)]);
}

#[tokio::test]
async fn what_is_older_than_the_window_is_forgotten() {
    let place = Place::new().await;
    let row = |id| [(1, Some(id), 0)];
    // A window of no days is over at once.
    let index = place.index("overlap", 0);
    place.deliver(&index, &row(1)).await;
    place.import(&row(2)).await;
    assert_eq!(ranges(&index), [(1, 1)]);
    index.catch_up(place.log()).await.expect("caught up");
    assert_eq!(ranges(&index), []);
    assert_eq!(fs::read_dir(place.dir.path().join("overlap")).expect("a folder").count(), 1);
    assert!(place.deliver(&index, &[(1, Some(1), 0), (1, Some(2), 0)]).await.is_empty());
    // In the log, they are; a longer window finds them.
    let longer = place.index("overlap", 1);
    longer.catch_up(place.log()).await.expect("caught up");
    assert_eq!(longer.compare(&keys(&longer, &[row(2).to_vec()]), Utc::now()).expect("compared").rows(), 1);
    let days = |days| Utc::now() + TimeDelta::days(days);
    assert_eq!(longer.compare(&keys(&longer, &[row(2).to_vec()]), days(2)).expect("compared").rows(), 0);
}

#[tokio::test]
async fn where_the_window_begins_is_found_in_the_log() {
    let place = Place::new().await;
    let mut middle = Utc::now();
    for id in 0..9 {
        if id == 5 {
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            middle = Utc::now();
        }
        place.import(&[(1, Some(id), 0)]).await;
    }
    for (name, from, expected) in [("a", middle.timestamp_micros(), (6, 9)), ("b", 0, (1, 9))] {
        let index = place.index(name, DAYS);
        index.catch_up_from(place.log(), from).await.expect("caught up");
        let ranges = ranges(&index);
        assert_eq!(ranges.first().zip(ranges.last()).map(|(a, b)| (a.0, b.1)), Some(expected));
        place.index(name, DAYS).catch_up_from(place.log(), i64::MAX).await.expect("caught up");
        index.catch_up_from(place.log(), i64::MAX).await.expect("caught up");
        assert_eq!(self::ranges(&index), []);
    }
}

#[tokio::test]
async fn catching_up_may_be_broken_off() {
    let place = Place::new().await;
    let rows: Vec<Row> = (0..30_000).map(|id| (1, Some(id), 0)).collect();
    for rows in rows.chunks(15_000) {
        place.import(rows).await;
    }
    let index = place.index("overlap", DAYS);
    for millis in [0, 1, 5, 20] {
        let _ =
            tokio::time::timeout(std::time::Duration::from_millis(millis), index.catch_up(place.log())).await;
    }
    index.catch_up(place.log()).await.expect("caught up");
    assert_eq!(ranges(&index), [(1, 15_000), (15_001, 30_000)]);
    assert_eq!(compare_now(&index, &rows), 30_000);
}

fn compare_now(index: &Index, rows: &[Row]) -> u64 {
    index.compare(&keys(index, &[rows.to_vec()]), Utc::now()).expect("compared").rows()
}
