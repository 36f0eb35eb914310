//! Collections on small logs. What is received now is received today, so days are over because `now` is
//! said to be tomorrow.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::TimeDelta;
use serde_json::json;
use sporlog_ledger::{Append, Clock, Store, StoreOptions, open_checkpoint};
use sporlog_record::Rules;
use sporlog_record::revision::{Header, parse_slab, write_csv_header};

use super::check::check;
use super::manifest::{Manifest, Scanned};
use super::*;
use sporlog_intake::writers::OwnWriters;

const A: &str = "11111111";
const B: &str = "22222222";
const C: &str = "33333333";

/// A row as the format has it, with its line's end.
fn row(n: u32, organisation: &str, note: &str) -> String {
    let mut fields = vec![String::new(); 23];
    let given = [(0, format!("t-{n}")), (1, "2026-03-01T10:00:00".into()), (2, "u".into())];
    let more = [(3, organisation.to_owned()), (4, "KY".to_owned()), (14, note.to_owned())];
    for (at, text) in given.into_iter().chain(more) {
        fields[at] = text.replace('"', "\"\"");
    }
    format!("\"{}\"\r\n", fields.join("\",\""))
}

fn header() -> String {
    let mut header = Vec::new();
    write_csv_header(&mut header);
    String::from_utf8(header).unwrap()
}

/// A store, and an exchange.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
    settings: Settings,
}

impl Place {
    fn new(accounts: &[(&str, &[&str])]) -> Self {
        Place::by_clock(accounts, Clock::default())
    }

    /// What tells the time of receipt is `clock`.
    fn by_clock(accounts: &[(&str, &[&str])], clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            address: folder.path().join("store").display().to_string(),
            create: true,
            clock,
            ..StoreOptions::default()
        };
        let account =
            |(name, cvr): &(&str, &[&str])| json!({"name": name, "role": "municipality", "cvr": cvr});
        let accounts: Vec<_> = accounts.iter().map(account).collect();
        let settings: Settings = serde_json::from_value(json!({"account": accounts})).unwrap();
        settings.check().unwrap();
        Place { folder, store: Store::open(options).unwrap(), settings }
    }

    /// Two municipalities.
    fn of_two() -> Self {
        Place::new(&[("a", &[A]), ("b", &[B])])
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("exchange")
    }

    async fn append(&self, rows: &[String]) {
        let file = header() + &rows.concat();
        let rules = Rules::default();
        let parsed = Header::parse(file.as_bytes(), &rules).unwrap();
        let body = &file.as_bytes()[parsed.body()..];
        let slab = parse_slab(&parsed, &rules, body, 2, "test", usize::MAX).unwrap();
        assert_eq!(slab.rows.num_rows(), rows_of(body), "a row was refused");
        let writers = OwnWriters::new(self.store.clone());
        let writer = writers.writer("revision", Kind::Revision).await.unwrap();
        writer.append(Append { rows: slab.rows, positions: vec![] }).await.unwrap();
        writers.close().await.unwrap();
    }

    async fn log(&self) -> Log {
        self.store.log("revision").await.unwrap()
    }

    /// The day on which the first row was received.
    async fn day(&self) -> NaiveDate {
        let row = self.log().await.record(1).await.unwrap();
        let received = sporlog_ledger::numbers(&row).unwrap().1.value(0);
        DateTime::from_timestamp_micros(received).unwrap().date_naive()
    }

    async fn try_collect(&self, request: &CollectionRequest, now: DateTime<Utc>) -> Result<Vec<Collected>> {
        let (log, root) = (self.log().await, self.root());
        let writers = OwnWriters::new(self.store.clone());
        let (settings, progress) = (&self.settings, Arc::new(|_, _| {}));
        let collection =
            Collection { settings, root: &root, log: &log, writers: &writers, request, progress };
        let collected = collection.run_as_of(|| now).await;
        writers.close().await.unwrap();
        collected
    }

    /// With the day of the rows not over, or over.
    async fn collect_at(&self, days: Days, over: bool) -> Vec<Collected> {
        self.collect(&CollectionRequest::new(days, "test"), over).await
    }

    async fn collect(&self, request: &CollectionRequest, over: bool) -> Vec<Collected> {
        let midnight = DateTime::from_timestamp_micros(due_days::midnight(self.day().await)).unwrap();
        let hours = if over { 25 } else { 23 };
        self.try_collect(request, midnight + TimeDelta::hours(hours)).await.unwrap()
    }

    /// Everything that is visible in an account's outbox.
    fn outbox(&self, account: &str) -> BTreeMap<String, Vec<u8>> {
        let account = self.settings.account(account).unwrap();
        let home = self.settings.home(&self.root(), account);
        let mut files = BTreeMap::new();
        for month in fs::read_dir(home.outbox()).into_iter().flatten().flatten() {
            for file in fs::read_dir(month.path()).unwrap().flatten() {
                files.insert(file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap());
            }
        }
        files
    }

    fn csv(&self, account: &str) -> String {
        let files = self.outbox(account).into_iter().filter(|(name, _)| name.ends_with(".csv"));
        let mut csv = String::new();
        for (_, bytes) in files {
            csv.push_str(String::from_utf8(bytes).unwrap().strip_prefix(&header()).unwrap());
        }
        csv
    }

    /// The one manifest that an account has, and what is wrong with it.
    async fn check(&self, set: &Collected) -> (Manifest, Vec<String>) {
        let path = set.folder.join(Manifest::file_name(&set.organisation, set.day));
        let checked = check(&path).unwrap();
        let mut problems = checked.problems;
        problems.extend(checked.manifest.check_signatures(self.log().await.vkey()));
        (checked.manifest, problems)
    }

    fn scratch_is_empty(&self) -> bool {
        let empty = |account: &crate::Account| {
            let scratch = self.settings.home(&self.root(), account).scratch().join("collection");
            fs::read_dir(scratch).unwrap().count() == 0
        };
        self.settings.accounts.iter().all(empty)
    }
}

/// Rows of CSV without line ends in its texts.
fn rows_of(body: &[u8]) -> usize {
    let mut quoted = false;
    let mut rows = 0;
    for byte in body {
        quoted ^= *byte == b'"';
        rows += usize::from(*byte == b'\n' && !quoted);
    }
    rows
}

fn mixed(count: u32) -> Vec<String> {
    (0..count).map(|n| row(n, [A, B, C][n as usize % 3], "set")).collect()
}

fn of(rows: &[String], organisation: &str) -> String {
    let mine = format!("\"{organisation}\"");
    rows.iter().filter(|row| row.contains(&mine)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_its_own_rows_in_order_and_no_others() {
    let place = Place::of_two();
    // Quotes, commas and line ends; and an organisation's number where it does not belong.
    let mut rows = mixed(600);
    rows.push(row(600, A, "say \"hello\",\r\nand\n\"\"bye\"\"; 22222222"));
    rows.push(row(601, "11111112", "x"));
    rows.push(row(602, "01111111", "x"));
    rows.push(row(603, B, "æøå"));
    place.append(&rows).await;
    let collected = place.collect_at(Days::Due, true).await;
    let sets: Vec<_> = collected.iter().map(|set| (set.account.as_str(), set.rows, set.complete)).collect();
    assert_eq!(sets, [("a", 201, true), ("b", 201, true)]);
    assert_eq!(place.csv("a"), of(&rows, A));
    let b = of(&rows[..600], B) + &rows[603];
    assert_eq!(place.csv("b"), b);
    let (manifest, problems) = place.check(&collected[0]).await;
    assert_eq!(problems, [""; 0]);
    assert_eq!((manifest.rows, manifest.first_id, manifest.last_id), (201, Some(1), Some(601)));
    assert_eq!(manifest.scanned, Some(Scanned { first: 1, last: 604 }));
    let log = place.log().await;
    let checkpoint = open_checkpoint(manifest.checkpoint.as_bytes(), log.vkey()).unwrap();
    assert_eq!(checkpoint.size(), 604);
    assert!(place.scratch_is_empty());
    // Both accesses are on record.
    let accesses = place.store.log("access").await.unwrap();
    assert_eq!(accesses.head(), 2);
    let access = String::from_utf8(accesses.entry(2).await.unwrap()).unwrap();
    assert!(access.contains("COLLECT") && access.contains("\\\"rows\\\":201"), "{access}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_day_gives_the_same_bytes_and_nothing_comes_back_by_night() {
    let place = Place::of_two();
    place.append(&mixed(300)).await;
    let day = place.day().await;
    place.collect_at(Days::Due, true).await;
    let before = place.outbox("a");
    assert_eq!(before.len(), 2);
    assert_eq!(place.collect_at(Days::Due, true).await.len(), 0);
    // What is there is left alone, and what is not comes again; from a log that has grown since.
    let again = place.collect_at(Days::Of(day), true).await;
    assert!(again.iter().all(|set| !set.changed));
    let folder = again[0].folder.clone();
    let csv = before.keys().find(|name| name.ends_with(".csv")).unwrap();
    fs::remove_file(folder.join(csv)).unwrap();
    assert_eq!(place.collect_at(Days::Due, true).await.len(), 0);
    let again = place.collect_at(Days::Of(day), true).await;
    assert_eq!(again.iter().map(|set| set.changed).collect::<Vec<_>>(), [true, false]);
    assert_eq!(place.outbox("a"), before);
    for name in before.keys() {
        fs::remove_file(folder.join(name)).unwrap();
    }
    place.collect_at(Days::Of(day), true).await;
    assert_eq!(place.outbox("a"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_split_and_stale_ones_go() {
    let place = Place::of_two();
    let mut rows = mixed(300);
    rows.push(row(300, A, "a \"long\" one\r\n".repeat(200).as_str()));
    rows.push(row(301, A, "the last"));
    place.append(&rows).await;
    let day = place.day().await;
    let request = CollectionRequest { max_bytes: 2_500, ..CollectionRequest::new(Days::Due, "test") };
    let collected = place.collect(&request, true).await;
    let files = &collected[0].files;
    assert!(files.len() > 4, "{files:?}");
    // But for the row that fits into none.
    assert_eq!(
        files.iter().filter(|info| info.bytes >= 2_500).map(|info| info.rows).collect::<Vec<_>>(),
        [1]
    );
    assert_eq!(place.csv("a"), of(&rows, A));
    let (manifest, problems) = place.check(&collected[0]).await;
    assert_eq!(problems, [""; 0]);
    assert_eq!(manifest.rows, 102);
    let whole = place.collect_at(Days::Of(day), true).await;
    assert_eq!(whole[0].files.len(), 1);
    assert_eq!(place.outbox("a").len(), 2);
    assert_eq!(place.csv("a"), of(&rows, A));
    assert_eq!(place.check(&whole[0]).await.1, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_is_cleaned_and_made_up_for() {
    let place = Place::of_two();
    place.append(&mixed(300)).await;
    let collected = place.collect_at(Days::Due, true).await;
    let before = place.outbox("a");
    let home = place.settings.home(&place.root(), &place.settings.accounts[0]);
    // Killed while the files of another collection were becoming visible.
    let (csv, manifest) = (&collected[0].files[0].name, Manifest::file_name(A, collected[0].day));
    fs::write(home.scratch().join("collection").join("half.csv"), "half").unwrap();
    fs::write(collected[0].folder.join(csv), "of another time").unwrap();
    fs::remove_file(collected[0].folder.join(&manifest)).unwrap();
    let record = place.root().join("collected/a").join(format!("{A}_{}.json", collected[0].day));
    fs::remove_file(&record).unwrap();
    let again = place.collect_at(Days::Due, true).await;
    assert_eq!(again.iter().map(|set| set.account.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(place.outbox("a"), before);
    assert_eq!(fs::read(record).unwrap(), before[&manifest]);
    assert!(place.scratch_is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_is_stated_for_days_that_are_over() {
    let place = Place::new(&[("a", &[A]), ("d", &["44444444"])]);
    place.append(&mixed(30)).await;
    let day = place.day().await;
    place.collect_at(Days::DueAndSoFar, false).await;
    assert_eq!(place.outbox("d").len(), 0);
    let collected = place.collect_at(Days::Due, true).await;
    assert_eq!(place.outbox("d").len(), 1);
    let (manifest, problems) = place.check(&collected[1]).await;
    assert_eq!(problems, [""; 0]);
    assert_eq!((manifest.rows, manifest.files.len(), manifest.complete), (0, 0, true));
    assert_eq!(manifest.scanned, Some(Scanned { first: 1, last: 30 }));
    // Also before the log's first row.
    let before = day.pred_opt().unwrap();
    let collected = place.collect_at(Days::Of(before), true).await;
    let (manifest, problems) = place.check(&collected[0]).await;
    assert_eq!(problems, [""; 0]);
    assert_eq!((manifest.rows, manifest.scanned, manifest.tree_size), (0, None, 0));
    let future = CollectionRequest::new(Days::Of(day + chrono::Days::new(400)), "test");
    assert!(place.try_collect(&future, Utc::now()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_is_not_over_is_replaced_when_it_is() {
    let place = Place::of_two();
    let mut rows = mixed(30);
    place.append(&rows).await;
    assert_eq!(place.collect_at(Days::Due, false).await.len(), 0);
    let so_far = place.collect_at(Days::DueAndSoFar, false).await;
    assert!(so_far.iter().all(|set| !set.complete && set.rows == 10));
    assert!(!place.check(&so_far[0]).await.0.complete);
    let late = mixed(60).split_off(30);
    place.append(&late).await;
    rows.extend(late);
    let whole = place.collect_at(Days::Due, true).await;
    assert!(whole.iter().all(|set| set.complete && set.rows == 20));
    assert_eq!(place.csv("b"), of(&rows, B));
    assert_eq!(place.check(&whole[1]).await.1, [""; 0]);
    // Rows of a long append are seen after the day has been collected: it is collected again.
    let later = mixed(90).split_off(60);
    place.append(&later).await;
    rows.extend(later);
    let grown = place.collect_at(Days::Due, true).await;
    assert!(grown.iter().all(|set| set.rows == 30));
    assert_eq!(place.csv("b"), of(&rows, B));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_may_share_a_number_and_have_several() {
    let place = Place::new(&[("a", &[A, B]), ("b", &[B]), ("c", &[C])]);
    let rows = mixed(90);
    place.append(&rows).await;
    let only_b =
        CollectionRequest { accounts: vec!["b".into()], ..CollectionRequest::new(Days::Due, "test") };
    assert_eq!(place.collect(&only_b, true).await.len(), 1);
    assert_eq!(place.outbox("a").len(), 0);
    let dry = CollectionRequest { dry_run: true, ..CollectionRequest::new(Days::Due, "test") };
    let counted = place.collect(&dry, true).await;
    assert_eq!(counted.iter().map(|set| set.rows).collect::<Vec<_>>(), [30, 30, 30]);
    assert_eq!(place.outbox("a").len(), 0);
    assert_eq!(place.collect_at(Days::Due, true).await.len(), 3);
    assert_eq!(place.outbox("a").len(), 4);
    assert_eq!(place.csv("a"), of(&rows, A) + &of(&rows, B));
    assert_eq!(place.csv("b"), of(&rows, B));
    let unknown =
        CollectionRequest { accounts: vec!["x".into()], ..CollectionRequest::new(Days::Due, "test") };
    assert!(place.try_collect(&unknown, Utc::now()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_what_is_not_as_it_was() {
    let place = Place::of_two();
    place.append(&mixed(90)).await;
    let request = CollectionRequest { max_bytes: 1_500, ..CollectionRequest::new(Days::Due, "test") };
    let collected = place.collect(&request, true).await;
    let set = &collected[0];
    let path = |name: &str| set.folder.join(name);
    let csv = path(&set.files[1].name);
    let whole = fs::read(&csv).unwrap();
    let problems = async || place.check(set).await.1.join("; ");
    assert_eq!(problems().await, "");

    let mut changed = whole.clone();
    let at = changed.len() - 10;
    changed[at] ^= 1;
    fs::write(&csv, &changed).unwrap();
    assert!(problems().await.contains("SHA-256"));
    fs::write(&csv, String::from_utf8(whole.clone()).unwrap().replacen(A, B, 1)).unwrap();
    assert!(problems().await.contains("1 of its rows are not of 11111111"));
    fs::write(&csv, &whole[..whole.len() - 1]).unwrap();
    assert!(problems().await.contains("end with a row's end"));
    fs::remove_file(&csv).unwrap();
    assert!(problems().await.contains("it is missing"));
    fs::write(&csv, &whole).unwrap();
    let stranger = path(&day_files::file_name(A, set.day, 77));
    fs::write(&stranger, &whole).unwrap();
    assert!(problems().await.contains("_77.csv: the file is not in the manifest"));
    fs::remove_file(stranger).unwrap();

    // What is signed cannot be edited to fit.
    let manifest = path(&Manifest::file_name(A, set.day));
    let text = fs::read_to_string(&manifest).unwrap();
    let mut edited: Manifest = serde_json::from_str(&text).unwrap();
    let last = edited.files.pop().unwrap();
    edited.rows -= last.rows;
    edited.last_id = edited.files.last().map(|info| info.last_id);
    fs::remove_file(path(&last.name)).unwrap();
    fs::write(&manifest, edited.to_bytes().unwrap()).unwrap();
    assert_eq!(problems().await, "the statement says something else than the manifest");
    fs::write(&manifest, text.replace(&format!("\"{}\"", set.files[0].name), "\"../../x.csv\"")).unwrap();
    assert!(problems().await.contains("'../../x.csv' is no name for the file 1"));
    assert!(
        Manifest::read(&manifest).unwrap().check_signatures("x+0+AA==").iter().any(|p| p.contains("vkey"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_nothing_visible() {
    let place = Place::of_two();
    place.append(&mixed(300)).await;
    let request = CollectionRequest::new(Days::DueAndSoFar, "test");
    request.stop.cancel();
    assert!(matches!(place.try_collect(&request, Utc::now()).await, Err(Error::Unfinished(_))));
    assert_eq!(place.outbox("a").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_parts_are_put_together_in_order() {
    let place = Place::of_two();
    // More ids than one worker takes at once; few of them are wanted at first, and then many.
    let organisation = |n: u32| match n {
        0..50_000 => [A, C, C, C, C, C, C, C, C, C, C, C, C, C, C, C, C, C, C, C][n as usize % 20],
        _ => [A, B][n as usize % 2],
    };
    let rows: Vec<_> = (0..150_000).map(|n| row(n, organisation(n), "")).collect();
    for rows in rows.chunks(70_000) {
        place.append(rows).await;
    }
    let collected = place.collect_at(Days::Due, true).await;
    assert_eq!(collected.iter().map(|set| set.rows).collect::<Vec<_>>(), [52_500, 50_000]);
    assert_eq!(place.csv("a"), of(&rows, A));
    assert_eq!(place.csv("b"), of(&rows, B));
    assert_eq!(place.check(&collected[0]).await.1, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_night_makes_up_for_what_was_missed() {
    let place = Place::of_two();
    let writers: Arc<dyn Writers> = Arc::new(OwnWriters::new(place.store.clone()));
    let (store, settings, root) = (place.store.clone(), place.settings.clone(), place.root());
    // There is no log yet.
    let tomorrow = || Utc::now() + TimeDelta::hours(26);
    let start = |settings: Settings| {
        Nightly::start_at(settings, root.clone(), store.clone(), writers.clone(), tomorrow)
    };
    let nightly = start(settings.clone()).expect("a task");
    tokio::time::sleep(Duration::from_millis(50)).await;
    nightly.stop().await;
    place.append(&mixed(300)).await;
    let never = Settings { collect_at: "never".to_owned().try_into().unwrap(), ..settings.clone() };
    assert!(start(never).is_none());
    assert_eq!(place.outbox("b").len(), 0);
    let nightly = start(settings).expect("a task");
    let begun = std::time::Instant::now();
    while place.outbox("b").len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is collected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nightly.stop().await;
    assert_eq!(place.csv("a"), of(&mixed(300), A));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_take_turns() {
    let place = Place::of_two();
    place.append(&mixed(300)).await;
    let (one, other) = tokio::join!(place.collect_at(Days::Due, true), place.collect_at(Days::Due, true));
    let mut counts = [one.len(), other.len()];
    counts.sort_unstable();
    assert_eq!(counts, [0, 2]);
    assert!(place.scratch_is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stated_of_what_may_have_expired() {
    let place = Place::of_two();
    place.append(&mixed(300)).await;
    let day = place.day().await;
    let writers = OwnWriters::new(place.store.clone());
    writers.writer("revision", Kind::Revision).await.unwrap().expire("2999-01", false).await.unwrap();
    writers.close().await.unwrap();
    let tomorrow = Utc::now() + TimeDelta::hours(26);
    assert!(place.try_collect(&CollectionRequest::new(Days::Of(day), "test"), tomorrow).await.is_err());
    assert_eq!(
        place.try_collect(&CollectionRequest::new(Days::Due, "test"), tomorrow).await.unwrap().len(),
        0
    );
    place.append(&mixed(3)).await;
    assert!(place.try_collect(&CollectionRequest::new(Days::Of(day), "test"), tomorrow).await.is_err());
    assert_eq!(place.outbox("a").len(), 0);
}

/// The clock was ahead for one append and back for another; the days alternate.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_wrong_keeps_no_row_back() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let place = Place::by_clock(&[("a", &[A]), ("b", &[B])], Clock(|| NOW.load(Ordering::Relaxed)));
    let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
    let rows = mixed(150);
    let receive = async |at: &str, rows: &[String]| {
        NOW.store(time(at).timestamp_micros(), Ordering::Relaxed);
        place.append(rows).await;
    };
    receive("2026-11-09T12:00:00Z", &rows[..30]).await;
    receive("2037-01-15T12:00:00Z", &rows[30..60]).await;
    receive("2026-11-10T12:00:00Z", &rows[60..90]).await;
    receive("2026-11-09T13:00:00Z", &rows[90..120]).await;
    receive("2026-11-10T14:00:00Z", &rows[120..]).await;
    let collect = async |days, now: &str| {
        let collected = place.try_collect(&CollectionRequest::new(days, "test"), time(now)).await.unwrap();
        let of_a = collected.into_iter().filter(|set| set.account == "a");
        of_a.map(|set| (set.day.to_string(), set.rows, set.complete)).collect::<Vec<_>>()
    };
    // That something was received in 2037 does not mean that the tenth is over.
    let ninth = ("2026-11-09".to_owned(), 20, true);
    let ahead = ("2037-01-15".to_owned(), 10, false);
    assert_eq!(collect(Days::Due, "2026-11-10T15:00:00Z").await, [ninth, ahead.clone()]);
    let tenth = |rows| ("2026-11-10".to_owned(), rows, true);
    assert_eq!(collect(Days::Due, "2026-11-11T02:00:00Z").await, [tenth(20)]);
    assert_eq!(collect(Days::Due, "2026-11-11T03:00:00Z").await, [] as [(String, u64, bool); 0]);
    let day = |text: &str| Days::Of(text.parse().unwrap());
    assert_eq!(collect(day("2037-01-15"), "2026-11-11T03:00:00Z").await, [ahead]);
    let files = place.outbox("b");
    for (day, expected) in [
        ("2026-11-09", of(&rows[..30], B) + &of(&rows[90..120], B)),
        ("2026-11-10", of(&rows[60..90], B) + &of(&rows[120..], B)),
        ("2037-01-15", of(&rows[30..60], B)),
    ] {
        let file = &files[&day_files::file_name(B, day.parse().unwrap(), 1)];
        assert_eq!(String::from_utf8_lossy(file), header() + &expected, "{day}");
    }
    // What was received on a day that has been collected is collected with it.
    receive("2026-11-10T15:00:00Z", &mixed(180)[150..]).await;
    assert_eq!(collect(Days::Due, "2026-11-11T04:00:00Z").await, [tenth(30)]);
    for (account, organisation) in [("a", A), ("b", B)] {
        for day in ["2026-11-09", "2026-11-10", "2037-01-15"] {
            let day: NaiveDate = day.parse().unwrap();
            let home = place.settings.home(&place.root(), place.settings.account(account).unwrap());
            let folder = home.outbox().join(day.format("%Y-%m").to_string());
            let checked = check(&folder.join(Manifest::file_name(organisation, day))).unwrap();
            assert_eq!(checked.problems, [""; 0], "{account} {day}");
            assert_eq!(checked.manifest.check_signatures(place.log().await.vkey()), [""; 0]);
        }
    }
}
