//! `quarantine`: what was refused stays on record, and so does what became of it.

use crate::place::{HEADER, Place, csv, disclosure, row};

/// Items 1 and 2 are rows of `day.csv`; item 3 is a disclosure.
fn refused() -> Place {
    let place = Place::new();
    let bad = row(7, "2026-02-30T08:30:00", "0101018081", "bad time")
        + &row(8, "2026-02-03T08:30:00", "0101018081", "bad number").replace("64942212", "6494221");
    place.file("day.csv", csv(0..2) + &bad);
    place.run("import revision day.csv").code(1).says("quarantined  2; `sporlog quarantine list` says why");
    place.file("d.ndjson", disclosure("person", "\"1\"") + &disclosure("", ""));
    place.run("import disclosure d.ndjson").code(1);
    place
}

#[test]
fn what_waits_is_listed_with_its_reason() {
    let place = refused();
    let listed = place.run("quarantine list").ok();
    let lines: Vec<_> = listed.out.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with("1  ") && lines[0].contains("revision  day.csv:4  error TransaktionsTid: "),
        "{}",
        lines[0]
    );
    assert!(lines[2].contains("disclosure  d.ndjson:1  error person: "), "{}", lines[2]);
    assert_eq!(place.run("quarantine list --log disclosure --json").ok().lines().len(), 1);
    assert_eq!(Place::new().run("quarantine list").code(2).out, "");
}

#[test]
fn an_error_is_listed_before_a_remark_on_an_earlier_column() {
    let place = Place::new();
    let doubtful = row(7, "2026-02-03T08:30:00", "0101018081", "").replace("4fcff0c2-ab6c", "nobody");
    place.file("day.csv", format!("{HEADER}\n{}", doubtful.replace("64942212", "6494221")));
    place.run("import revision day.csv").code(1);
    let listed = place.run("quarantine list").ok().says("  error KalderOrganisation: ").says(" (and 1 more)");
    assert_eq!(listed.out.lines().count(), 1);
    let item = place.run("quarantine list --json").ok().json();
    assert_eq!(item["reasons"][0]["TransaktionsId"], "0d57d91a-03d5-4e96-9e63-000000000007");
}

#[test]
fn an_item_is_shown_byte_for_byte() {
    let place = refused();
    let shown = place
        .run("quarantine show 1")
        .ok()
        .says("day.csv:4")
        .says("2026-02-30")
        .says("error TransaktionsTid");
    shown.says(HEADER);
    let content = place.run("quarantine show 1 --content").ok().out;
    assert_eq!(content, row(7, "2026-02-30T08:30:00", "0101018081", "bad time").trim_end());
    let json = place.run("quarantine show 3 --json").ok().json();
    assert_eq!(json["content"], disclosure("person", "\"1\"").trim_end());
    assert_eq!(json["reasons"][0]["field"], "person");
    place.run("quarantine show 9").code(2);
}

#[test]
fn a_corrected_record_goes_in_once() {
    let place = refused();
    place.run("quarantine replay 1").code(1).says("still refused; nothing has changed");
    let corrected = place.run("quarantine show 1 --content").ok().out.replace("02-30", "02-03");
    place.file("row.csv", &corrected);
    place.run("quarantine replay 1 --file row.csv").ok().says("item 1 is now record 3 of revision");
    let record = place.run("read revision --after 2").ok().json();
    assert_eq!(record["record"]["Note"], "bad time");
    assert!(record["origin"].as_str().is_some_and(|origin| origin.starts_with("quarantine:1")), "{record}");
    place.run("quarantine replay 1 --file row.csv").code(2).complains("already");
    assert_eq!(place.head("revision"), 3);
    place.run("quarantine show 1").ok().says("has been replayed or discarded");
    // With a header of its own, and through a pipe.
    let other = format!("{HEADER}\n{}", row(8, "2026-02-03T08:30:00", "0101018081", "bad number"));
    let json = place.run_with("quarantine replay 2 --file - --json", other.as_bytes()).ok().json();
    assert_eq!(json["id"], 4);
    let still = place.run_with("quarantine replay 3 --file -", b"{}").code(1);
    assert!(still.out.contains("-:1:1: error person"), "{}", still.out);
    place.run_with("quarantine replay 3 --file -", disclosure("", "").as_bytes()).ok();
    assert_eq!(place.run("quarantine list").ok().out, "");
    for log in ["revision", "disclosure", "quarantine"] {
        place.run(&format!("verify {log}")).ok();
    }
}

#[test]
fn a_row_whose_correction_was_delivered_is_stored_again_only_by_force() {
    let place = refused();
    let corrected = row(7, "2026-02-03T08:30:00", "0101018081", "corrected");
    place.file("correction.csv", format!("{HEADER}\n{corrected}"));
    place.run("import revision correction.csv").ok().says("ids          3 to 3\n");
    place.file("row.csv", corrected.replace("corrected", "by hand"));
    let there = place.run("quarantine replay 1 --file row.csv").code(1);
    there.says("item 1 is the same row as record 3 of revision, received at ").says("--force");
    let json = place.run("quarantine replay 1 --file row.csv --json").code(1).json();
    assert_eq!((&json["same"], &json["log"]), (&3.into(), &"revision".into()));
    assert_eq!(place.head("revision"), 3);
    assert_eq!(place.run("quarantine list").ok().out.lines().count(), 3);
    place.run("quarantine replay 1 --file row.csv --force").ok().says("item 1 is now record 4 of revision");
    assert_eq!(place.run("quarantine list").ok().out.lines().count(), 2);
}

#[test]
fn discarding_is_itself_recorded() {
    let place = refused();
    place.run("quarantine discard 2").code(2).complains("--reason");
    let discard = ["quarantine", "discard", "2", "--reason", "test data, agreed"];
    place.run_args(&discard).ok().says("item 2 is discarded");
    place.run_args(&discard).code(2).complains("already");
    assert_eq!(place.run("quarantine list").ok().out.lines().count(), 2);
    let records = place.run("read quarantine --after 3").ok().lines();
    let record = &records[0]["record"];
    assert_eq!((&record["action"], &record["item"]), (&"DISCARDED".into(), &2.into()));
    assert_eq!(record["note"], "test data, agreed");
    // What was refused is still there to be seen.
    place.run("quarantine show 2").ok().says("bad number").says("has been replayed or discarded");
}

#[test]
fn many_items_are_discarded_at_once() {
    let place = refused();
    let bad = (10..16).map(|n| row(n, "x", "0101018081", "")).collect::<String>();
    place.file("more.csv", format!("{HEADER}\n{bad}"));
    place.run("import revision more.csv").code(1);
    let discard = |items: &str| {
        let items = items.split(' ').collect::<Vec<_>>();
        place.run_args(&[&["quarantine", "discard"], &items[..], &["--reason", "test"]].concat())
    };
    discard("2 4-6 8").ok().says("5 items are discarded");
    let waiting = |place: &Place| {
        let items = place.run("quarantine list --json").ok().lines();
        items.iter().map(|item| item["id"].as_u64().expect("an id")).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&place), [1, 3, 7, 9]);
    // If an item does not wait, nothing is discarded. Of a range, those are that wait.
    discard("1 2").code(2).complains("already");
    discard("3 99").code(2);
    assert_eq!(waiting(&place), [1, 3, 7, 9]);
    discard("1-8").ok().says("3 items are discarded");
    discard("2-6").code(2).complains("none of these items waits");
    discard("9-4").code(2).complains("a range such as 4-9");
    discard("--delivery 20261121T152024Z-83a0b455").code(2).complains("none of these items waits");
    place.run("quarantine discard --reason x").code(2).complains("--delivery");
    assert_eq!(waiting(&place), [9]);
    place.run("verify quarantine").ok();
}

#[test]
fn the_same_delivery_is_quarantined_once() {
    let place = refused();
    place.run("import revision day.csv").ok().says("already in");
    assert_eq!(place.run("quarantine list --log revision").ok().out.lines().count(), 2);
}
