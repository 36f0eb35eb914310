//! What came before, against a set that has it all; and what becomes of a folder that is damaged.

mod log;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::FileExt;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use proptest::prelude::*;

use super::key::{LOG_ID, SYSTEM, TRANSACTION};
use super::*;
use sporlog_intake::import::Rows;

const DAYS: u32 = 35;

/// A row: its system, its LogId, its TransaktionsId.
type Row = (u8, Option<u16>, u16);

/// What has been kept: its keys, the day, and the first id.
type Received = (HashSet<(u8, bool, u16)>, i64, u64);

/// What a row is known by.
fn known_by((system, log_id, transaction): Row) -> (u8, bool, u16) {
    (system, log_id.is_some(), log_id.unwrap_or(transaction))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let column = |text: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(text).collect::<StringArray>())
    };
    let columns = [
        (TRANSACTION, column(&|row| Some(row.2.to_string()))),
        (SYSTEM, column(&|row| Some(format!("system {}", row.0)))),
        (LOG_ID, column(&|row| row.1.map(|id| id.to_string()))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("rows")
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let text = |name: &str| batch.column_by_name(name).expect("a column").as_string::<i32>().clone();
    let (systems, log_ids, transactions) = (text(SYSTEM), text(LOG_ID), text(TRANSACTION));
    let row = |row: usize| {
        let log_id = log_ids.iter().nth(row).flatten().map(|id| id.parse().expect("a number"));
        (
            systems.value(row)[7..].parse().expect("a number"),
            log_id,
            transactions.value(row).parse().expect("a number"),
        )
    };
    (0..batch.num_rows()).map(row).collect()
}

fn at(day: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + day * 86_400, 0).expect("a time")
}

/// An index of a log that is not there.
fn index(folder: &Path) -> Arc<Index> {
    let index = Index::open(folder, DAYS).expect("an index");
    index.state().log = Some(1);
    Arc::new(index)
}

fn gather(rows: &dyn Rows, parts: &[Vec<Row>]) -> Vec<Vec<Row>> {
    // In no order.
    let show = |(part, content): (usize, &Vec<Row>)| {
        (part, rows_of(&rows.rows(part as u64, batch(content)).expect("gathered")))
    };
    let kept: BTreeMap<usize, Vec<Row>> = parts.iter().enumerate().rev().map(show).collect();
    kept.into_values().collect()
}

fn keys(index: &Index, parts: &[Vec<Row>]) -> Keys {
    let collector = index.collect_keys();
    gather(&*collector, parts);
    collector.finish().expect("keys")
}

fn keep(index: &Index, rows: &[Row], first: u64, day: i64) {
    let last = first + rows.len() as u64 - 1;
    index.keep(keys(index, &[rows.to_vec()]), first, last, at(day)).expect("kept");
}

fn found(index: &Index, rows: &[Row], day: i64) -> u64 {
    index.compare(&keys(index, &[rows.to_vec()]), at(day)).expect("compared").rows()
}

fn rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let row = (0..4_u8, proptest::option::weighted(0.6, 0..60_u16), 0..60_u16);
    proptest::collection::vec(proptest::collection::vec(row, 0..40), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rows_are_found_as_by_a_set(
        deliveries in proptest::collection::vec((rows(), 0..20_i64, any::<bool>(), any::<bool>()), 1..7)
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut index = index(folder.path());
        // When each key was received, and under which ids.
        let mut kept: Vec<Received> = Vec::new();
        let (mut next, mut day) = (1, 0);
        for (parts, later, skip, reopen) in deliveries {
            day += later;
            let before = |row: &Row| {
                kept.iter().filter(|(_, received, _)| day - received <= i64::from(DAYS))
                    .any(|(keys, ..)| keys.contains(&known_by(*row)))
            };
            let expected: usize = parts.iter().flatten().filter(|row| before(row)).count();
            let fresh: Vec<Vec<Row>> =
                parts.iter().map(|part| part.iter().filter(|row| !before(row)).copied().collect()).collect();

            let keys = keys(&index, &parts);
            let found = index.compare(&keys, at(day)).expect("compared");
            prop_assert_eq!(found.rows(), expected as u64);
            prop_assert_eq!(found.is_empty(), expected == 0);
            let count = |(keys, received, first): &Received| {
                let rows = parts.iter().flatten().filter(|row| keys.contains(&known_by(**row))).count() as u64;
                (rows > 0 && day - received <= i64::from(DAYS)).then_some((*first, at(*received), rows))
            };
            let runs: Vec<_> = found.runs().iter().map(|run| (run.first_id, run.received_at, run.rows)).collect();
            prop_assert_eq!(runs, kept.iter().filter_map(count).collect::<Vec<_>>());

            let collector = index.collect_keys();
            let rest = gather(&found.filter(collector.clone()), &parts);
            prop_assert_eq!(&rest, &fresh);
            let (keys, stored) = if skip { (collector.finish().expect("keys"), fresh) } else { (keys, parts) };
            let stored: Vec<Row> = stored.into_iter().flatten().collect();
            if !stored.is_empty() {
                let last = next + stored.len() as u64 - 1;
                index.keep(keys, next, last, at(day)).expect("kept");
                kept.push((stored.into_iter().map(known_by).collect(), day, next));
                next = last + 1;
            }
            if reopen {
                index = self::index(folder.path());
            }
        }
    }
}

#[test]
fn one_id_in_all_rows_takes_no_more_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = index(folder.path());
    let same = vec![(1, Some(7), 0); 60_000];
    let parts: Vec<_> = (0..10).map(|_| same.clone()).collect();
    let first = keys(&index, &parts);
    assert!(first.spilled.as_ref().expect("keys").groups(slice_of(&index, same[0])).len() > 1);
    assert!(index.compare(&first, at(0)).expect("compared").is_empty());
    index.keep(first, 1, 600_000, at(0)).expect("kept");
    assert!(index.runs()[0].is_there());
    assert!(fs::metadata(&index.runs()[0].path).expect("a file").len() < 1_000);
    let again = index.compare(&keys(&index, &parts), at(1)).expect("compared");
    assert_eq!((again.rows(), again.runs()[0].rows), (600_000, 600_000));
    assert_eq!(found(&index, &[(1, Some(8), 0), (2, Some(7), 0), (1, None, 7), (1, Some(7), 9)], 1), 1);
}

fn slice_of(index: &Index, row: Row) -> usize {
    let mut keys = Vec::new();
    index.seeds.keys(&batch(&[row]), 0..1, &mut keys).expect("keys");
    keys[0].slice()
}

#[test]
fn damaged_and_foreign_runs_are_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = index(folder.path());
    let rows: Vec<Row> = (0..500).map(|id| (1, Some(id), 0)).collect();
    let days = [0_i64, 1, 2, 3, 4, 5];
    for day in days {
        keep(&opened, &rows, 1 + 500 * day as u64, day);
    }
    let paths: Vec<_> = opened.runs().iter().map(|run| run.path.clone()).collect();
    assert_eq!(paths[0].file_name(), Some("1-500-1700000000000000.run".as_ref()));
    let file = |day: usize| fs::OpenOptions::new().write(true).open(&paths[day]).expect("a run");
    let size = file(0).metadata().expect("a run").len();
    file(0).set_len(size - 1).expect("shorter");
    file(1).set_len(size + 1).expect("longer");
    file(2).write_all_at(&[0xff], 30).expect("a damaged header");
    file(3).write_all_at(&[0xff], size - 5).expect("a damaged directory");
    fs::write(&paths[4], b"").expect("nothing in it");
    fs::write(folder.path().join(format!("{UNFINISHED}abc")), b"half").expect("a left-over");
    let hits = |index: &Index| {
        index.compare(&keys(index, std::slice::from_ref(&rows)), at(6)).map(|found| found.runs().len())
    };
    // While it is open, a failed comparison makes room for whole runs.
    assert!(hits(&opened).is_err());
    assert_eq!(hits(&opened).expect("compared"), 1);
    for day in [0, 1, 2, 3, 4] {
        assert!(!paths[day].exists(), "{day}");
    }
    drop(opened);
    let opened = index(folder.path());
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    assert_eq!(hits(&opened).expect("compared"), 1);
    // With other seeds, all keys are others.
    fs::write(folder.path().join("seeds"), b"").expect("lost");
    let opened = index(folder.path());
    assert_eq!((opened.runs().len(), hits(&opened).expect("compared")), (0, 0));
    assert!(!paths[5].exists());
}

/// Some thousands of keys of one slice, sparse and dense, against a map.
#[test]
fn few_are_looked_for_and_many_are_merged() {
    use super::key::{Key, sort};
    use super::search::Search;
    let folder = tempfile::tempdir().expect("a folder");
    let seeds = Seeds::of(folder.path()).expect("seeds");
    let key = |number: u64, system: u64| {
        let hash = seeds.checksum(&(number / 2).to_le_bytes());
        // Some have the same head, and others only differ in their system.
        Key { head: system << 32 | hash & 0xffff_ffff, tail: number, place: 0 }
    };
    for size in [0_u64, 1, 100, 16_000, 40_000] {
        let mut theirs: Vec<Key> = (0..size).flat_map(|number| [key(number, 3), key(number, 200)]).collect();
        sort(&mut theirs);
        let draft = Draft::begin(folder.path()).expect("a draft");
        draft.write(0, &theirs).expect("written");
        let covers = Covers { log: 1, first: 1, last: 2 * size, oldest: 0, newest: 0 };
        let (file, run) = draft.finish(folder.path(), covers, &seeds).expect("finished");
        file.persist(&run.path).expect("a run");
        assert_eq!(Run::open(&run.path, &seeds).expect("read").as_ref(), Some(&run));
        let open = run.reader(&seeds).expect("open");
        let there: HashMap<(u64, u64), ()> = theirs.iter().map(|key| ((key.head, key.tail), ())).collect();
        for step in [1, 3, 1_000, 7_919, 30_000] {
            let number =
                |number: u64| [key(number, 3), key(number, 3), key(number + 1, 100), key(number, 200)];
            let mut ours: Vec<Key> = (0..2 * size + 5).step_by(step).flat_map(number).collect();
            sort(&mut ours);
            let (mut search, mut hits) = (Search::default(), Vec::new());
            for block in open.blocks(0) {
                search.find(&open, block, &ours, &mut hits).expect("searched");
            }
            hits.sort_unstable();
            let is_there = |(_, key): &(u32, &Key)| there.contains_key(&(key.head, key.tail));
            let expected: Vec<u32> = (0..).zip(&ours).filter(is_there).map(|(number, _)| number).collect();
            assert!(size == 0 || !expected.is_empty());
            assert!(hits == expected, "{size} keys, every {step}: {} of {}", hits.len(), expected.len());
        }
    }
}
