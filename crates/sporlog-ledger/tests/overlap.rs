//! Which rows a log has already, against a list of all that it was given.

#[allow(dead_code)]
mod common;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use common::store;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use proptest::prelude::*;
use sporlog_ledger::{
    Append, Appended, Bulk, Error, Find, Key, Outcome, Overlap, ReceivedBefore, Writer, WriterOptions,
};
use sporlog_record::revision::{Header, parse_slab};
use sporlog_record::{Kind, Rules};

/// A row: its system, its `LogId`, its `TransaktionsId`.
type Row = (u8, Option<u32>, u32);
/// The row's system, whether it has a `LogId`, and the id.
type Identity = (u8, bool, u32);

fn identity((system, log_id, transaction): Row) -> Identity {
    (system, log_id.is_some(), log_id.unwrap_or(transaction))
}

fn rows(rows: &[Row]) -> RecordBatch {
    let mut text = "\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\",\"KalderOrganisation\",\"KalderItSystemInstans\",\"LogId\"\r\n".to_owned();
    for (system, log_id, transaction) in rows {
        let log_id = log_id.map(|id| id.to_string()).unwrap_or_default();
        text.push_str(&format!(
            "\"{transaction}\",\"2021-11-10\",\"YK{}\",\"64942212\",\"system {system}\",\"{log_id}\"\r\n",
            transaction % 5
        ));
    }
    let rules = Rules::default();
    let header = Header::parse(text.as_bytes(), &rules).unwrap();
    let body = &text.as_bytes()[header.body()..];
    let slab = parse_slab(&header, &rules, body, header.first_line(), "test", 0).unwrap();
    assert!(slab.refused.is_empty());
    slab.rows
}

fn ids(batch: &RecordBatch) -> Vec<u32> {
    let column = batch.column_by_name("TransaktionsId").unwrap().as_string::<i32>();
    column.iter().map(|id| id.unwrap().parse().unwrap()).collect()
}

async fn writer(dir: &Path) -> Writer {
    let options = WriterOptions { take_turns: true };
    store(dir).writer("revision", Kind::Revision, options).await.unwrap()
}

async fn staged(writer: &Writer, parts: &[Vec<Row>]) -> Bulk {
    let bulk = writer.bulk().await.unwrap();
    let pusher = bulk.pusher();
    let parts: Vec<_> = parts.iter().map(|part| rows(part)).collect();
    let push = move || {
        (0..).zip(&parts).for_each(|(number, part)| pusher.push(number, part).unwrap());
    };
    tokio::task::spawn_blocking(push).await.unwrap();
    bulk
}

async fn finish(bulk: Bulk) -> Appended {
    match bulk.finish(Vec::new()).await.unwrap() {
        Outcome::Appended(appended) => appended,
        other => panic!("{other:?}"),
    }
}

async fn appended(writer: &Writer, new: &[Row]) -> Appended {
    match writer.append(Append { rows: rows(new), positions: vec![] }).await.unwrap() {
        Outcome::Appended(appended) => appended,
        other => panic!("{other:?}"),
    }
}

/// All that was given to a log, with ids and times of receipt.
#[derive(Default)]
struct Model(Vec<(Identity, u64, i64)>);

impl Model {
    fn add(&mut self, rows: &[Row], appended: Appended) {
        let ids = appended.first..;
        self.0.extend(rows.iter().zip(ids).map(|(row, id)| (identity(*row), id, appended.received_at)));
    }

    fn check(&self, parts: &[Vec<Row>], from: i64, overlap: &Overlap) {
        let known: HashMap<Identity, ()> =
            self.0.iter().filter(|(.., at)| *at >= from).map(|(identity, ..)| (*identity, ())).collect();
        let mut count = 0;
        for (number, part) in (0..).zip(parts) {
            let kept = overlap.only_new(number, &rows(part)).expect("the same part").unwrap();
            let expected: Vec<Row> =
                part.iter().copied().filter(|row| !known.contains_key(&identity(*row))).collect();
            count += part.len() - expected.len();
            assert_eq!(ids(&kept), expected.iter().map(|row| row.2).collect::<Vec<_>>());
        }
        assert_eq!(overlap.rows(), count as u64);
        let wanted: HashMap<Identity, ()> = parts.iter().flatten().map(|row| (identity(*row), ())).collect();
        let mut received = BTreeMap::new();
        for (_, id, at) in self.0.iter().filter(|(row, _, at)| *at >= from && wanted.contains_key(row)) {
            let all = received.entry(*at).or_insert(ReceivedBefore {
                at: *at,
                first_id: *id,
                last_id: *id,
                rows: 0,
            });
            (all.last_id, all.rows) = (*id, all.rows + 1);
        }
        assert_eq!(overlap.received(), received.into_values().collect::<Vec<_>>());
    }
}

fn part(most: usize) -> impl Strategy<Value = Vec<Row>> {
    let row = (0..3_u8, proptest::option::weighted(0.6, 0..9_000_u32), 0..9_000_u32);
    proptest::collection::vec(row, 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    /// Large and small files, some merged, appended in bulk and singly.
    #[test]
    fn the_same_rows_are_found_as_by_a_list(
        deliveries in proptest::collection::vec((proptest::collection::vec(part(2_500), 0..4), any::<bool>()), 2..5),
        merge in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let writer = writer(dir.path()).await;
            let mut model = Model::default();
            let mut middle = i64::MIN;
            for (number, (parts, bulk)) in deliveries.iter().enumerate() {
                let all: Vec<Row> = parts.concat();
                if number == deliveries.len() / 2 {
                    middle = chrono::Utc::now().timestamp_micros();
                }
                let compared = staged(&writer, parts).await;
                model.check(parts, middle, &compared.overlap(middle).await.unwrap());
                compared.abort().await;
                let overlap = writer.log().overlap(&rows(&all), i64::MIN).await.unwrap();
                model.check(std::slice::from_ref(&all), i64::MIN, &overlap);
                if *bulk {
                    model.add(&all, finish(staged(&writer, parts).await).await);
                } else {
                    for some in all.chunks(1_500).take(2) {
                        model.add(some, appended(&writer, some).await);
                    }
                }
                if merge && number == 1 {
                    writer.compact(Duration::from_hours(1)).await.unwrap();
                }
            }
            writer.close().await.unwrap();
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_in_all_rows_is_found_in_all() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(dir.path()).await;
    let same = vec![vec![(1, Some(7), 3); 3_000]; 2];
    let mut model = Model::default();
    model.add(&same.concat(), finish(staged(&writer, &same).await).await);
    let staged = staged(&writer, &same).await;
    let overlap = staged.overlap(i64::MIN).await.unwrap();
    assert_eq!(overlap.rows(), 6_000);
    model.check(&same, i64::MIN, &overlap);
    assert!(overlap.only_new(0, &rows(&same[0][1..])).is_none());
    assert!(overlap.only_new(2, &rows(&same[0])).is_none());
}

/// The index files of a store's log.
fn indexes(dir: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(dir.join("logs/revision/index")).into_iter().map(Result::unwrap);
    files.filter(|entry| entry.file_type().is_file()).map(|entry| entry.path().to_owned()).collect()
}

/// Leaves of an index persons and users, and says whether it has all identities; earlier versions did not say.
fn without_identities(path: &Path, metadata: Option<Vec<KeyValue>>) {
    let open = || ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    assert_eq!((open().metadata().num_row_groups(), open().schema().fields().len()), (2, 3));
    let columns: &[usize] = if metadata.is_some() { &[0, 1, 2] } else { &[0, 1] };
    let batches = open().with_row_groups(vec![0]).build().unwrap();
    let batches: Vec<_> = batches.map(|batch| batch.unwrap().project(columns).unwrap()).collect();
    let properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_key_value_metadata(metadata)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_relied_on_unless_it_is_of_an_earlier_version() {
    let first: Vec<Vec<Row>> = vec![(0..6_000).map(|id| (1, Some(id), id)).collect()];
    let dir = tempfile::tempdir().unwrap();
    let there = writer(dir.path()).await;
    finish(staged(&there, &first).await).await;
    let all = vec![KeyValue::new("sporlog.identities".to_owned(), "1".to_owned())];
    without_identities(&indexes(dir.path())[0], Some(all));
    assert_eq!(staged(&there, &first).await.overlap(i64::MIN).await.unwrap().rows(), 0);

    let dir = tempfile::tempdir().unwrap();
    let second: Vec<Vec<Row>> = vec![(5_000..20_000).map(|id| (1, Some(id), id)).collect()];
    let mut model = Model::default();
    let before = writer(dir.path()).await;
    model.add(&first[0], finish(staged(&before, &first).await).await);
    before.close().await.unwrap();
    let found = indexes(dir.path());
    assert_eq!(found.len(), 1);
    without_identities(&found[0], None);

    let writer = writer(dir.path()).await;
    for parts in [&second, &vec![vec![(1, Some(17), 1), (2, Some(18), 1)]]] {
        let staged = staged(&writer, parts).await;
        model.check(parts, i64::MIN, &staged.overlap(i64::MIN).await.unwrap());
        staged.abort().await;
    }
    // Users are found by it as before.
    let find = Find { key: Key::Actor("YK3".into()), from: None, to: None, limit: None };
    let batches: Vec<_> = futures::TryStreamExt::try_collect(writer.log().find(find)).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1_200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_process_appends_after_the_comparison_keep_the_bulk_append_out() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (writer(dir.path()).await, writer(dir.path()).await);
    let parts = vec![vec![(1, Some(1), 1), (1, Some(2), 2)]];
    let bulk = staged(&ours, &parts).await;
    assert_eq!(bulk.overlap(i64::MIN).await.unwrap().rows(), 0);
    appended(&theirs, &[(1, Some(2), 9)]).await;
    assert!(matches!(bulk.finish(Vec::new()).await, Err(Error::Fenced { .. })));
    let bulk = staged(&ours, &parts).await;
    assert_eq!(bulk.overlap(i64::MIN).await.unwrap().rows(), 1);
}
