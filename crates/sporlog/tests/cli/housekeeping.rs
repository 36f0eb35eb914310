//! `compact` and `expire`.

use crate::place::{Place, csv};

fn logged() -> Place {
    let place = Place::new();
    for n in 0..4 {
        place.file("day.csv", csv(n * 10..n * 10 + 10));
        place.run("import revision day.csv").ok();
    }
    place
}

#[test]
fn compacting_changes_no_record() {
    let place = logged();
    let before = place.run("read revision").ok().out;
    place.run("compact revision --grace 0").ok().says("revision: 4 files merged into 1");
    assert_eq!(place.run("read revision").ok().out, before);
    let data =
        place.files("sporlog-data/logs/revision/table").into_iter().filter(|name| name.starts_with("month"));
    assert_eq!(data.count(), 1);
    place.run("verify revision").ok().says("40 records in 1 data file");
    let json = place.run("compact revision --json").ok().json();
    assert_eq!(json["merged"], 0);
    place.run("compact nothing").code(2).complains("there is no log");
}

#[test]
fn expiring_keeps_the_proof() {
    let place = logged();
    let this_month = chrono::Utc::now().format("%Y-%m").to_string();
    place.run(&format!("expire revision --before {this_month}")).ok().says("0 records in 0 files");
    place.run("expire revision --before 2099-01").code(2).complains("--force");
    place
        .run("expire revision --before 2099-01 --dry-run")
        .ok()
        .says("40 records in 4 files")
        .says("would be removed")
        .complains("--force will be needed");
    let json = place.run("expire revision --before 2099-01 --dry-run --json").ok().json();
    assert_eq!(json["needsForce"], true);
    let recorded = || {
        place
            .run("read access --records-only")
            .ok()
            .lines()
            .iter()
            .filter(|one| one["logAction"] == "EXPIRE")
            .count()
    };
    assert_eq!(recorded(), 0);
    assert_eq!(place.run("read revision").ok().lines().len(), 40);
    let json = place.run("expire revision --before 2099-01 --force --json").ok().json();
    assert_eq!((&json["records"], &json["firstLeft"]), (&40.into(), &41.into()));
    assert_eq!(recorded(), 1);
    assert_eq!(place.run("read revision").ok().out, "");
    assert_eq!(place.head("revision"), 40);
    place.run("verify revision").ok().says("head 40 (40 expired)");
    place.run("prove revision 3").code(2).complains("expired");
    place.file("new.csv", csv(100..101));
    place.run("import revision new.csv").ok().says("ids          41 to 41\n");
    place.run("verify revision").ok();
    place.run("expire revision --before May").code(2).complains("2026-11");
}
