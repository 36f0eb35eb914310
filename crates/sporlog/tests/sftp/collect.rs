//! The municipalities' files while somebody looks on, and while those who write them are killed.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rand::Rng;

use crate::rows::{CVR, HEADER, OTHER_CVR, csv_of, row_of};
use crate::site::{DELIVERS, FETCHES, MUNICIPALITY, SUPPLIER, Site};

const ROWS: usize = 6_000;

/// What a municipality sees of a month, by name.
fn seen(site: &Site, month: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = site.home(MUNICIPALITY).join("ud").join(month);
    let names = Site::names(&folder).into_iter();
    names.filter_map(|name| fs::read(folder.join(&name)).ok().map(|content| (name, content))).collect()
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn nothing_half_written_is_ever_seen_however_often_collecting_is_killed() {
    let other = "role = \"municipality\"\ncvr = [\"55133018\"]";
    let accounts = [(SUPPLIER, DELIVERS), (MUNICIPALITY, FETCHES), ("kommune-55133018", other)];
    let site = Site::with("settle_seconds = 1\n", &accounts);
    let _server = site.serve();
    let rows: String = (0..ROWS).map(|n| row_of(OTHER_CVR, ROWS + n) + "\n").collect();
    site.client(SUPPLIER).put(&site.file("f.csv", csv_of(CVR, 0..ROWS) + &rows));
    let receipt = site.receipt("f.csv");
    let day = receipt["receivedAt"].as_str().expect("a time")[..10].to_owned();
    let month = &day[..7];
    // Files of at most 200 kB, so that there are several of them.
    let command = ["collect", "--date", &day, "--max-bytes", "200000"];
    let mut dice = rand::rng();
    let mut at_last: Vec<BTreeMap<_, _>> = Vec::new();
    for _ in 0..16 {
        // Each begins anew.
        let _ = fs::remove_dir_all(site.home(MUNICIPALITY).join("ud").join(month));
        let mut collecting = site.start(&command);
        std::thread::sleep(Duration::from_millis(dice.random_range(50..450)));
        collecting.kill();
        at_last.push(seen(&site, month));
    }
    site.print(&command);
    let files = seen(&site, month);
    for (name, content) in at_last.iter().flatten() {
        let (name, part) = (name.as_str(), content.len());
        assert!(
            files.get(name) == Some(content),
            "{name} was seen with {part} bytes of {:?}",
            files.get(name).map(Vec::len)
        );
    }
    println!("files seen after each kill: {:?}", at_last.iter().map(BTreeMap::len).collect::<Vec<_>>());
    // All rows of this municipality, each once, in order, in files that are not too large.
    let parts: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".csv")).collect();
    assert!(parts.len() > 3, "{:?}", files.keys());
    let mut numbers = Vec::new();
    for (at, (name, content)) in parts.iter().enumerate() {
        assert_eq!(**name, format!("revisionslog_{CVR}_{day}_{:02}.csv", at + 1));
        assert!(content.len() < 200_000, "{name}: {}", content.len());
        let text = std::str::from_utf8(content).expect("UTF-8").trim_start_matches('\u{feff}');
        assert!(text.starts_with(&HEADER[..60]), "{name}: {text:.100}");
        numbers.extend(text.lines().skip(1).map(|row| {
            let from = row.find("\"n=").unwrap_or_else(|| panic!("{row}")) + 3;
            let digits: String = row[from..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().expect("a number")
        }));
    }
    assert_eq!(numbers, (0..ROWS).collect::<Vec<_>>());
    // Fetched, they are what lies there, and the manifest holds.
    let municipality = site.client(MUNICIPALITY);
    let folder = site.path("fetched");
    fs::create_dir(&folder).expect("made");
    municipality.sftp(&format!("get ud/{month}/* {}/", folder.display())).ok();
    assert_eq!(Site::names(&folder).len(), files.len());
    let manifest = Site::names(&folder).into_iter().find(|name| name.ends_with(".json")).expect("a manifest");
    site.print(&["collect", "--check", folder.join(&manifest).to_str().expect("UTF-8")]);
    // Without one of its files, it does not.
    fs::remove_file(folder.join(parts[1].0)).expect("removed");
    let checked = site.run(&["collect", "--check", folder.join(&manifest).to_str().expect("UTF-8")]);
    assert_eq!(checked.status.code(), Some(1));
    let left = Site::names(&site.home(MUNICIPALITY).join(".sporlog/scratch/collection"));
    assert!(left.is_empty(), "{left:?}");
}
