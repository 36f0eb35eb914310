//! `collect`: the municipalities' files, and what the receiving side makes of them.

use std::path::PathBuf;

use crate::place::{HEADER, Place};

const CONFIG: &str = "
[sftp]
[[sftp.account]]
name = 'ky'
role = 'supplier'
[[sftp.account]]
name = 'koebenhavn'
role = 'municipality'
cvr = ['64942212']
[[sftp.account]]
name = 'two'
role = 'municipality'
cvr = ['11111111', '22222222']
";

/// Rows of four organisations, the first one's notes with all that has to be quoted.
fn day() -> String {
    let organisations = ["64942212", "11111111", "22222222", "99999999"];
    let row = |n: usize| {
        let note = if n.is_multiple_of(4) { "say \"\"hej\"\",\r\nand, æøå" } else { "set" };
        let system = "cc038af5-0e68-43e5-bb17-957ad6f45f8e";
        let (user, organisation) = ("4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8", organisations[n % 4]);
        format!(
            "\"t-{n}\",\"2026-01-05T08:30:00\",\"{user}\",\"{organisation}\",\"{system}\",\"\",\"{note}\"\r\n"
        )
    };
    format!("{HEADER}\r\n{}", (0..400).map(row).collect::<String>())
}

fn collected() -> Place {
    let place = Place::new();
    place.file("sporlog.toml", CONFIG);
    place.file("day.csv", day());
    place.run("import revision day.csv").ok();
    place
}

/// The files that `account` finds, by their paths.
fn outbox(place: &Place, account: &str, ending: &str) -> Vec<String> {
    let below = format!("sporlog-data/exchange/accounts/{account}/ud");
    let files = place.files(&below).into_iter().filter(|name| name.ends_with(ending));
    files.map(|name| format!("{below}/{name}")).collect()
}

#[test]
fn each_municipality_finds_its_rows() {
    let place = collected();
    let dry = place.run("collect --dry-run").ok();
    assert_eq!(dry.out.lines().count(), 4, "{dry:#?}");
    dry.says("300 rows; nothing was written");
    assert!(!place.path("sporlog-data/exchange").exists());
    let sets = place.run("collect --json").ok().lines();
    let facts: Vec<_> =
        sets.iter().map(|set| (&set["organisation"], &set["rows"], &set["complete"])).collect();
    let expected = [("64942212", 100), ("11111111", 100), ("22222222", 100)];
    for ((organisation, rows, complete), (cvr, count)) in facts.into_iter().zip(expected) {
        assert_eq!((organisation, rows, complete), (&cvr.into(), &count.into(), &false.into()));
    }
    assert_eq!(outbox(&place, "two", ".csv").len(), 2);
    // As `export` writes it, to the byte.
    place.run("export revision --organisation 64942212 --out out").ok();
    let [csv] = &outbox(&place, "koebenhavn", ".csv")[..] else { panic!("one file") };
    let name = PathBuf::from(csv).file_name().expect("a name").to_owned();
    let bytes = std::fs::read(place.path(csv)).expect("read");
    assert_eq!(bytes, std::fs::read(place.path("out").join(name)).expect("read"));
    assert!(String::from_utf8_lossy(&bytes).contains("say \"\"hej\"\",\r\nand, æøå"));
    for other in ["11111111", "22222222", "99999999"] {
        assert!(!String::from_utf8_lossy(&bytes).contains(other));
    }
    place.run("collect").ok().says("there already").says("the day is not over");
    let accesses = place.run("read access --records-only").ok();
    accesses.says("collect revision of 64942212").says("COLLECT");
    place.run("verify revision").ok();
}

#[test]
fn the_receiving_side_can_check_what_it_has() {
    let place = collected();
    place.run("collect").ok();
    let key = place.run("key show revision --vkey").ok().out;
    place.file("revision.vkey", &key);
    let manifests = outbox(&place, "two", ".manifest.json").join(" ");
    let check = format!("collect --check {manifests} --key revision.vkey");
    place.run(&check).ok().says("in order, 100 rows in 1 file; the day was not over");
    place.run(&format!("collect --check {manifests}")).ok();
    assert!(place.run(&format!("{check} --json")).ok().lines().iter().all(|line| line["ok"] == true));
    // Elsewhere, without the store.
    let elsewhere = Place::new();
    for file in outbox(&place, "koebenhavn", "") {
        let name = PathBuf::from(&file).file_name().expect("a name").to_owned();
        std::fs::copy(place.path(&file), elsewhere.path("").join(name)).expect("copied");
    }
    let manifest = elsewhere.files(".").into_iter().find(|name| name.ends_with(".json")).expect("a manifest");
    let there = elsewhere.run_args(&["collect", "--check", &manifest, "--key", key.trim()]);
    there.ok().says("in order, 100 rows");
    elsewhere.run(&format!("collect --check {manifest}")).code(2).complains("--key");

    let csv = place.path(&outbox(&place, "two", ".csv")[0]);
    let whole = std::fs::read_to_string(&csv).expect("read");
    std::fs::write(&csv, whole.replacen("set", "sat", 1)).expect("written");
    place.run(&check).code(1).says("its SHA-256 is").says("in order");
    std::fs::remove_file(&csv).expect("removed");
    place.run(&check).code(1).says("it is missing");
    // Only that one comes back.
    place.run("collect").ok();
    place.run(&check).ok();
    place.file("none.manifest.json", "{}");
    place.run("collect --check none.manifest.json --key revision.vkey").code(1).says("it is no manifest");
    place.run("collect --check nowhere.json --key revision.vkey").code(2).complains("nowhere.json");
    let other = place.run("key show access --vkey").ok().out;
    place
        .run_args(&["collect", "--check", &outbox(&place, "two", ".manifest.json")[0], "--key", other.trim()])
        .code(1);
}

#[test]
fn a_day_can_be_asked_for() {
    let place = collected();
    // Nothing was received on it: that is stated.
    let sets = place.run("collect --date 2020-01-01 --account two --json").ok().lines();
    assert_eq!(sets.len(), 2);
    assert!(sets.iter().all(|set| set["rows"] == 0 && set["complete"] == true), "{sets:?}");
    let manifests = outbox(&place, "two", ".manifest.json");
    assert!(manifests.iter().all(|name| name.contains("/2020-01/")), "{manifests:?}");
    place.run(&format!("collect --check {}", manifests.join(" "))).ok().says("in order, 0 rows in 0 files");
    assert_eq!(outbox(&place, "koebenhavn", ""), [""; 0]);
    place.run("collect --date 2099-01-01").code(2).complains("has not begun");
    place.run("collect --account ky").code(2).complains("no municipality's account 'ky'");
}

#[test]
fn it_says_what_is_missing() {
    let place = Place::new();
    place.run("collect").code(2).complains("[sftp]");
    place.file("sporlog.toml", CONFIG);
    place.file("d.json", crate::place::disclosure("", ""));
    place.run("import disclosure d.json").ok();
    place.run("collect").ok().says("nothing to collect").complains("the log 'revision' is not there yet");
}
