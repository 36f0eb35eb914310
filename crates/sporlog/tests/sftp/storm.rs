//! Everything at once: a supplier who delivers new, repeated and overlapping files without a pause,
//! while the server is killed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::client::{Client, quoted};
use crate::rows::{csv, each, number, numbers};
use crate::site::{SUPPLIER, Site, sha256, wait_for};

const KILLS: usize = 24;
/// No more is begun after so long.
const LONGEST: Duration = Duration::from_secs(100);

type Dice = rand_chacha::ChaCha8Rng;

/// A file that somebody has tried to deliver.
struct Sent {
    rows: Range<usize>,
    /// Whether the client has heard that it arrived; if not, it may have, or not.
    arrived: bool,
}

/// Delivers until told to stop; each attempt has a name of its own.
fn supply(site: &Site, client: &Client, stop: &AtomicBool, seed: u64) -> BTreeMap<String, Sent> {
    let mut dice = Dice::seed_from_u64(seed);
    let mut sent: BTreeMap<String, Sent> = BTreeMap::new();
    let (mut next, mut before): (usize, Vec<Range<usize>>) = (1, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let size = dice.random_range(50..1_500);
        let rows = match (dice.random_range(0..10), before.len()) {
            // The same as one before; one that begins within another; and something new.
            (0..3, 1..) => before[dice.random_range(0..before.len())].clone(),
            (3..6, 1..) => {
                let other = &before[before.len() - 1];
                other.start + other.len() / 2..next + size / 2
            }
            _ => next..next + size,
        };
        next = next.max(rows.end);
        before.push(rows.clone());
        let name = format!("{:04}.csv", sent.len());
        let file = site.file(&format!("send-{name}"), csv(rows.clone()));
        let batch = if dice.random_bool(0.5) {
            format!("put {} ind/{name}.part\nrename ind/{name}.part ind/{name}", quoted(&file))
        } else {
            format!("put {} ind/{name}", quoted(&file))
        };
        let arrived = client.sftp(&batch).ok;
        std::fs::remove_file(&file).expect("removed");
        if !arrived {
            // It comes again under another name.
            std::thread::sleep(Duration::from_millis(100));
        }
        sent.insert(name, Sent { rows, arrived });
    }
    sent
}

/// Every receipt tells what is true, and there is one for each file.
fn check_receipts(receipts: &[Value], sent: &BTreeMap<String, Sent>, entries: &[Value]) {
    let mut names = BTreeSet::new();
    let mut stored: BTreeMap<String, &str> = BTreeMap::new();
    let mut covered = 0;
    for receipt in receipts {
        let name = receipt["file"].as_str().expect("a name");
        assert!(names.insert(name), "two receipts of {name}: {receipts:#?}");
        let sent = sent.get(name).unwrap_or_else(|| panic!("{name} was never sent"));
        let digest = sha256(csv(sent.rows.clone()));
        assert_eq!(receipt["sha256"], digest, "{receipt}");
        let count =
            |field: &str| receipt[field].as_u64().unwrap_or_else(|| panic!("{field}: {receipt}")) as usize;
        match receipt["outcome"].as_str() {
            Some("accepted") => {
                assert_eq!(count("accepted") + count("skipped"), sent.rows.len(), "{receipt}");
                assert_eq!(count("overlapping"), count("skipped"), "{receipt}");
                assert!(receipt["receivedAt"].is_string(), "{receipt}");
                assert!(!stored.contains_key(&digest), "accepted twice: {receipt}");
                stored.insert(digest, name);
                if count("accepted") > 0 {
                    let (first, last) = (count("firstId"), count("lastId"));
                    assert_eq!(first, covered + 1, "{receipt}");
                    assert_eq!(last - first + 1, count("accepted"), "{receipt}");
                    let mine = &entries[first - 1..last];
                    assert!(mine.iter().all(|entry| sent.rows.contains(&number(entry))), "{receipt}");
                    covered = last;
                }
            }
            Some("repeated") => {
                assert_eq!(count("accepted"), 0, "{receipt}");
                let first = receipt["repeats"]["file"].as_str().unwrap_or_else(|| panic!("{receipt}"));
                assert_eq!(stored.get(&digest), Some(&first), "{receipt}");
            }
            _ => panic!("{receipt}"),
        }
    }
    assert_eq!(covered, entries.len(), "rows that no receipt tells of");
    for (name, sent) in sent {
        assert!(!sent.arrived || names.contains(name.as_str()), "no receipt of {name}");
    }
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn every_file_is_taken_once_however_often_the_server_is_killed() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut dice = Dice::seed_from_u64(seed);
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nsessions = 50\nconnections = 500\n");
    let (client, stop) = (site.client(SUPPLIER).option("ConnectTimeout=5"), AtomicBool::new(false));
    let home = site.home(SUPPLIER);
    let taken = || !Site::names(&home.join(".sporlog/taken")).is_empty();
    let begun = Instant::now();
    let mut server = site.serve();
    let sent = std::thread::scope(|scope| {
        let supplier = scope.spawn(|| supply(&site, &client, &stop, seed));
        let mut caught = 0;
        for kill in 0..KILLS {
            if kill % 4 == 0 {
                // At any moment, the start included.
                std::thread::sleep(Duration::from_millis(dice.random_range(0..1_500)));
            } else {
                // When a delivery is being taken, some time later.
                std::thread::sleep(Duration::from_millis(dice.random_range(300..2_500)));
                let until = Instant::now() + Duration::from_secs(4);
                while !taken() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_micros(dice.random_range(0..150_000)));
            }
            server.kill();
            caught += usize::from(taken());
            assert!(begun.elapsed() < LONGEST, "only {kill} kills in {LONGEST:?}");
            server = site.serve();
        }
        println!(
            "{KILLS} kills within {:?}; {caught} of them while a delivery was being taken",
            begun.elapsed()
        );
        assert!(caught >= KILLS / 4, "{caught}");
        // A last one in quiet.
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        supplier.join().expect("supplied")
    });
    let arrived = sent.values().filter(|sent| sent.arrived).count();
    println!("{} deliveries, {arrived} of which arrived for certain", sent.len());
    assert!(arrived >= 20, "{arrived}");
    let mut last = 0;
    // Deliveries are taken one after another, and a quick machine has sent hundreds by now.
    wait_for(Duration::from_secs(180), "all of them are taken", || {
        let now = site.deliveries(SUPPLIER);
        let names: BTreeSet<_> = now.iter().filter_map(|receipt| receipt["file"].as_str()).collect();
        let whole = sent.iter().all(|(name, sent)| !sent.arrived || names.contains(name.as_str()));
        let settled = whole && now.len() == last;
        last = now.len();
        // Such as arrived, and nobody was told, come after the settling time.
        std::thread::sleep(Duration::from_secs(2));
        settled.then_some(())
    });
    server.stop();

    let (receipts, entries) = (site.deliveries(SUPPLIER), site.entries("revision"));
    let mut outcomes = BTreeMap::new();
    receipts.iter().for_each(|receipt| *outcomes.entry(receipt["outcome"].to_string()).or_insert(0) += 1);
    println!("{} rows; {outcomes:?}; all within {:?}", entries.len(), begun.elapsed());
    check_receipts(&receipts, &sent, &entries);
    let of_receipts =
        receipts.iter().flat_map(|receipt| sent[receipt["file"].as_str().expect("a name")].rows.clone());
    assert_eq!(numbers(&entries), each(of_receipts, 1));
    for log in ["revision", "access"] {
        site.print(&["verify", log]);
    }
    // Each has its two files, and nothing is left of the taking.
    let listed = Site::names(&home.join("kvittering"));
    assert_eq!(listed.len(), 2 * receipts.len(), "{listed:?}");
    for receipt in &receipts {
        let path = home
            .join("kvittering")
            .join(format!("{}.kvittering.json", receipt["file"].as_str().expect("a name")));
        let with_supplier: Value =
            serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON");
        assert_eq!(with_supplier["delivery"], receipt["delivery"]);
        assert_eq!(with_supplier["outcome"], receipt["outcome"]);
    }
    for folder in ["taken", "scratch", "refused"] {
        let left = Site::names(&home.join(".sporlog").join(folder));
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}
