//! `deliveries`: who has delivered, and who is late.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::place::Place;

/// A daily supplier `a`, a weekly one `b`, an irregular one `c`, and a municipality.
const CONFIG: &str = "\
[sftp]
root = 'exchange'
[[sftp.account]]
name = 'a'
role = 'supplier'
[[sftp.account]]
name = 'b'
role = 'supplier'
rhythm = 'weekly'
[[sftp.account]]
name = 'c'
role = 'supplier'
rhythm = 'irregular'
[[sftp.account]]
name = 'kommune'
role = 'municipality'
cvr = ['64942212']
";

/// Beyond any grace: what was taken then is late, if daily.
const DAYS: i64 = 3;

fn place() -> Place {
    let place = Place::new();
    place.file("sporlog.toml", CONFIG);
    place
}

fn days_ago(days: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::days(days)
}

/// A line for the register.
fn delivery(account: &str, taken: DateTime<Utc>, outcome: &str, rows: u64) -> Value {
    json!({
        "delivery": format!("{}-{account}-{outcome}", taken.format("%Y%m%dT%H%M%SZ")), "account": account,
        "file": "dag.csv", "log": "revision", "outcome": outcome, "takenAt": taken, "bytes": 100 * rows,
        "accepted": rows, "quarantined": 0, "remarks": 0, "overlapping": 0, "skipped": 0, "seconds": 0.25,
    })
}

/// Writes the register, as the exchange would have.
fn register(place: &Place, deliveries: &[Value]) {
    std::fs::create_dir_all(place.path("exchange/deliveries")).expect("made");
    for account in ["a", "b", "c", "gone"] {
        let of = deliveries.iter().filter(|one| one["account"] == account);
        let lines: String = of.map(|one| format!("{one}\n")).collect();
        if !lines.is_empty() {
            place.file(&format!("exchange/deliveries/{account}.jsonl"), lines);
        }
    }
}

#[test]
fn without_an_exchange() {
    let place = Place::new();
    for line in ["deliveries", "deliveries --late", "deliveries --list"] {
        place.run(line).code(2).complains("[sftp]");
    }
    // Nor is there a folder for it, if there is no store.
    place.file("sporlog.toml", CONFIG.replace("root = 'exchange'\n", ""));
    place.run("deliveries --late").code(2).complains("sporlog-data");
}

#[test]
fn nobody_has_delivered_yet() {
    let place = place();
    let shown = place.run("deliveries").ok();
    let lines: Vec<_> =
        shown.out.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>()).collect();
    let expected = [
        ["SUPPLIER", "RHYTHM", "STATE"],
        ["a", "daily", "never"],
        ["b", "weekly", "never"],
        ["c", "irregular", "never"],
    ];
    assert_eq!(lines, expected);
    // Of the irregular one nothing is expected.
    let late = place.run("deliveries --late --json").code(1).lines();
    assert_eq!(late.iter().map(|one| &one["account"]).collect::<Vec<_>>(), ["a", "b"]);
    place.run("deliveries --late --account c").ok();
    assert_eq!(place.run("deliveries --list").ok().out, "");
    assert!(
        !place.path("exchange").exists() && !place.path("sporlog-data").exists(),
        "looking makes nothing"
    );
}

#[test]
fn who_is_late_and_since_when() {
    let place = place();
    let mut deliveries: Vec<_> = [("a", "accepted"), ("b", "accepted"), ("c", "accepted")]
        .map(|(account, outcome)| delivery(account, days_ago(DAYS), outcome, 10))
        .into();
    deliveries.push(delivery("a", days_ago(0), "refused", 0));
    register(&place, &deliveries);
    let late = place.run("deliveries --late").code(1);
    assert_eq!(late.out.lines().count(), 2, "{}", late.out);
    let day = |days| days_ago(days).format("%Y-%m-%d").to_string();
    let since = format!("missing since {}T00:00:00Z: 2 deliveries, {} to {}", day(1), day(2), day(1));
    late.says(&since).says("the newest file was refused at");
    let json = place.run("deliveries --json").ok().lines();
    let states: Vec<_> = json.iter().map(|one| (&one["account"], &one["state"])).collect();
    assert_eq!(
        states,
        [(&json!("a"), &json!("late")), (&json!("b"), &json!("on-time")), (&json!("c"), &json!("on-time"))]
    );
    assert_eq!(json[0]["lateSince"], format!("{}T00:00:00Z", day(1)));
    assert_eq!((&json[0]["recent"]["refused"], &json[0]["recent"]["accepted"]), (&json!(1), &json!(1)));
    // What it owes has come.
    deliveries.push(delivery("a", days_ago(0), "accepted", 10));
    register(&place, &deliveries);
    assert_eq!(place.run("deliveries --late").ok().out, "");
    assert_eq!(place.run("deliveries --late --json").ok().out, "");
}

#[test]
fn volumes_that_are_out_of_the_usual() {
    let place = place();
    let before = |account| (1..=12).map(move |n| delivery(account, days_ago(1 + 7 * n), "accepted", 1_000));
    let mut deliveries: Vec<_> = before("b").chain(before("c")).collect();
    deliveries.sort_by_key(|one| one["takenAt"].as_str().map(str::to_owned));
    deliveries.push(delivery("b", days_ago(1), "accepted", 20));
    deliveries.push(delivery("c", days_ago(1), "accepted", 9_000));
    register(&place, &deliveries);
    let shown = place.run("deliveries --account b --account c").ok();
    assert_eq!(shown.out.lines().count(), 3);
    let day = days_ago(1).format("%Y-%m-%d");
    shown
        .says(&format!("low volume: 20 rows on {day}: less than a third of 1000, the median of the last 8 "))
        .says(&format!(
            "high volume: 9000 rows on {day}: more than three times 1000, the median of the last 8 "
        ))
        .says(" 334-3000 ");
    let json = place.run("deliveries --account b --json").ok().json();
    assert_eq!(json["volume"]["usual"], json!({"days": 8, "median": 1_000, "low": 334, "high": 3_000}));
    assert_eq!(json["volume"]["text"].as_str().map(|text| text.starts_with("20 rows on ")), Some(true));
    // It is on time all the same.
    place.run("deliveries --late --account b").ok();
}

#[test]
fn each_delivery_on_a_line() {
    let place = place();
    let mut deliveries = vec![
        delivery("a", days_ago(9), "accepted", 5),
        delivery("a", days_ago(2), "accepted", 7),
        delivery("gone", days_ago(1), "refused", 0),
    ];
    deliveries[1]["file"] = "løn\u{1b}[2J\u{202e}.csv".into();
    register(&place, &deliveries);
    // One that a crash has cut off.
    let torn = std::fs::read_to_string(place.path("exchange/deliveries/a.jsonl")).expect("read") + "{\"deli";
    place.file("exchange/deliveries/a.jsonl", torn);
    let listed = place.run("deliveries --list").ok();
    let lines: Vec<_> = listed.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", listed.out);
    assert!(lines[1].contains(" gone ") && lines[1].contains(" refused "), "{}", lines[1]);
    assert!(lines[2].ends_with("løn\\u{1b}[2J\\u{202e}.csv"), "{}", lines[2]);
    let words: Vec<_> = lines[3].split_whitespace().collect();
    assert_eq!(words[1..8], ["a", "accepted", "5", "0", "0", "500", "0.25"]);
    assert_eq!(words[8], deliveries[0]["delivery"]);
    let since = days_ago(2).format("%Y-%m-%d");
    let json = place.run(&format!("deliveries --list --json --since {since}")).ok().lines();
    assert_eq!(json, [deliveries[2].clone(), deliveries[1].clone()]);
    assert_eq!(place.run("deliveries --list --account a --json").ok().lines().len(), 2);
    assert_eq!(place.run("deliveries --list --account gone --json").ok().lines().len(), 1);
}

#[test]
fn what_cannot_be_meant() {
    let place = place();
    for name in ["nobody", "kommune", "../a", "A"] {
        place.run(&format!("deliveries --late --account {name}")).code(2).complains("no supplier");
        place.run(&format!("deliveries --list --account {name}")).code(2).complains("no supplier");
    }
    place.run("deliveries --late --list").code(2).complains("cannot be used with");
    place.run("deliveries --since 2026-11-03").code(2).complains("--list");
    place.run("deliveries --list --since yesterday").code(2).complains("2026-11-03");
    // A register that cannot be read is no reason to be content.
    place.file("exchange", "");
    place.run("deliveries --late").code(2).complains("register");
    let help = place.run("deliveries --help").ok();
    help.says("exit code is 1").says("Nagios").says("Examples:");
}
