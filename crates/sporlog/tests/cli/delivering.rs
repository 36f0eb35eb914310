//! `check` and `import`, with files that are in order or nearly so.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::{Place, csv, disclosure};

#[test]
fn the_examples_of_the_specs_are_accepted_as_they_stand() {
    let place = Place::new();
    for (kind, file, remarks) in [
        ("disclosure", "disclosure_example.json", 6),
        ("revision", "revision_example.csv", 0),
        ("auditlog", "auditlog_example.json", 0),
    ] {
        let file = Place::data(file);
        place.run_args(&["check", kind, &file]).ok().says("1 record accepted, 0 refused");
        let receipt = place.run_args(&["import", kind, &file, "--json"]).ok().json();
        assert_eq!(receipt["accepted"], 1, "{receipt}");
        assert_eq!(receipt["remarks"], remarks, "{receipt}");
        assert_eq!((&receipt["firstId"], &receipt["lastId"]), (&1.into(), &1.into()));
        assert_eq!(place.head(kind), 1);
    }
    let record = place.run("read disclosure --records-only").ok().json();
    assert_eq!(record["leverteData"], "<Base64-encodet JSON-melding>");
    let record = place.run("read auditlog --records-only").ok().json();
    assert_eq!((&record["id"], &record["cpr"]), (&1.into(), &"0101018081".into()));
    let entry = place.run("read revision").ok().json();
    assert_eq!(entry["record"]["KalderItSystemInstans"], "cc038af5-0e68-43e5-bb17-957ad6f45f8e");
}

#[test]
fn a_check_stores_nothing_and_says_where() {
    let place = Place::new();
    place.file("a.csv", csv(0..3).replace("64942212", "6494221"));
    let ran = place.run("check revision a.csv").code(1);
    assert!(ran.out.starts_with("a.csv:2:4: error KalderOrganisation: "), "{}", ran.out);
    assert!(ran.out.ends_with("a.csv: 0 records accepted, 3 refused, 0 remarks\n"), "{}", ran.out);
    assert!(!place.path("sporlog-data").exists());

    place.file(
        "b.ndjson",
        disclosure("person", "\"1234567890\"") + &disclosure("leverandoer", "\"123456789\""),
    );
    let lines = place.run("check disclosure b.ndjson --json").code(1).lines();
    assert_eq!(lines[0]["type"], "finding");
    assert_eq!((&lines[0]["line"], &lines[0]["field"]), (&1.into(), &"person".into()));
    assert!(lines.iter().any(|l| l["severity"] == "remark" && l["field"] == "leverandoer" && l["line"] == 2));
    let summary = lines.last().expect("a summary");
    assert_eq!(
        (&summary["type"], &summary["accepted"], &summary["refused"]),
        (&"summary".into(), &1.into(), &1.into())
    );
    let ran = place.run("check disclosure b.ndjson --errors-only").code(1);
    assert!(!ran.out.contains(": remark "), "{}", ran.out);
    // Numbers of people are nowhere in clear.
    assert!(!ran.out.contains("1234567890"), "{}", ran.out);
}

#[test]
fn the_same_file_goes_in_once() {
    let place = Place::new();
    place.file("day.csv", csv(0..100));
    let first = place.run("import revision day.csv --json").ok().json();
    assert_eq!((&first["accepted"], &first["lastId"]), (&100.into(), &100.into()));
    place.file("renamed.csv", csv(0..100));
    let again = place.run("import revision renamed.csv --json").ok().json();
    assert_eq!(again["accepted"], 0);
    let since = again["alreadySince"].as_str().expect("a time");
    assert_eq!(since[..16], first["receivedAt"].as_str().expect("a time")[..16]);
    assert_eq!(again["sha256"], first["sha256"]);
    assert_eq!(place.head("revision"), 100);
    place.run("import revision day.csv").ok().says("already in   since ").says("accepted     0\n");
    // In another log they are not.
    place.run("import revision day.csv --log copy").ok().says("accepted     100\n");
    assert_eq!(place.head("copy"), 100);
}

#[test]
fn an_extract_of_delivered_rows_is_told_apart_and_stores_what_is_new() {
    let place = Place::new();
    place.file("day.csv", csv(0..5_000));
    place.run("import revision day.csv").ok();
    place.file("extract.csv", csv(4_990..5_010).replace("\"set\"", "\"changed\""));
    let extract = place
        .run("import revision extract.csv")
        .ok()
        .says("accepted     10\n")
        .says("overlapping  10 rows that came before, skipped\n")
        .says("10 of them in what was received at ");
    extract.says("ids          5001 to 5010\n");
    let read = place.run("read revision --after 4989").ok();
    assert_eq!(read.lines().len(), 21);
    assert_eq!(read.out.matches("changed").count(), 10);

    // All of it is there already; and through a pipe.
    place.file("old.csv", csv(7..9));
    let old = place.run("import revision old.csv --json").ok().json();
    assert_eq!((&old["accepted"], &old["skipped"], &old["firstId"]), (&0.into(), &2.into(), &Value::Null));
    assert_eq!(old["overlaps"][0]["rows"], 2);
    place
        .run_with("import revision -", csv(5_005..5_015).as_bytes())
        .ok()
        .says("ids          5011 to 5015\n")
        .says("overlapping  5 rows that came before, skipped\n");
    place.run("import revision old.csv").ok().says("already in");

    // Stored again where that is wanted: by this import, or by the configuration.
    place.file("again.csv", csv(1..3));
    let again = place.run("import revision again.csv --take-overlapping").ok();
    again.says("overlapping  2 rows that came before, taken again\n").says("ids          5016 to 5017\n");
    place.file("sporlog.toml", "[sftp]\noverlap = 'take'\noverlap_days = 9\n");
    place.file("third.csv", csv(2..4));
    place.run("import revision third.csv").ok().says("accepted     2\n");
    place.run("import revision third.csv --log other").ok().says("accepted     2\n");
    place.run("verify revision").ok();
}

#[test]
fn files_may_be_compressed_or_come_through_a_pipe() {
    let place = Place::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(csv(0..10).as_bytes()).expect("packed");
    let gzip = gzip.finish().expect("packed");
    place.file("a.csv.gz", &gzip);
    place.file("b.csv.zst", zstd::encode_all(csv(10..20).as_bytes(), 1).expect("packed"));
    let receipts = place.run("import revision a.csv.gz b.csv.zst --json").ok().lines();
    assert_eq!((&receipts[0]["lastId"], &receipts[1]["lastId"]), (&10.into(), &20.into()));
    place.run_with("import revision -", csv(20..30).as_bytes()).ok().says("ids          21 to 30\n");
    place
        .run_with("check disclosure -", disclosure("", "").as_bytes())
        .ok()
        .says("(standard input): 1 record");
    let array = format!("[{},{}]", disclosure("", ""), disclosure("", ""));
    place.run_with("import disclosure -", array.as_bytes()).ok().says("accepted     2\n");

    place.file("cut.csv.gz", &gzip[..gzip.len() / 2]);
    place.run("check revision cut.csv.gz").code(1).says("the compressed file is damaged or cut off");
    let receipt = place.run("import revision cut.csv.gz --json").code(1).json();
    assert_eq!((&receipt["accepted"], &receipt["refused"][0]["rule"]), (&0.into(), &"compression".into()));
    assert_eq!(place.head("revision"), 30);
}

#[test]
fn one_bad_file_does_not_hold_up_the_others() {
    let place = Place::new();
    place.file("good.csv", csv(0..5));
    place.file("bad.csv", "nothing,of,that\n");
    place.file("also.csv", csv(5..8));
    let ran = place.run("import revision bad.csv good.csv also.csv --json").code(1);
    let accepted: Vec<_> = ran.lines().iter().map(|r| r["accepted"].clone()).collect();
    assert_eq!(accepted, [Value::from(0), 5.into(), 3.into()]);
    let ran = place.run("import revision nowhere.csv good.csv").code(2).complains("nowhere.csv");
    assert!(ran.out.contains("already in"), "{}", ran.out);
    place.run("check revision nowhere.csv").code(2).complains("nowhere.csv");
}

#[test]
fn a_mistyped_name_leaves_no_store_behind() {
    let place = Place::new();
    place.run("import revision nowhere.csv").code(2).complains("nowhere.csv");
    assert!(!place.path("sporlog-data").exists());
}

#[test]
fn a_log_takes_one_kind() {
    let place = Place::new();
    place.file("a.csv", csv(0..1));
    place.file("d.json", disclosure("", ""));
    place.file("sporlog.toml", "[[log]]\nname = 'kombit'\nkind = 'revision'\n");
    place.run("import revision a.csv --log kombit").ok();
    place.run("import disclosure d.json --log kombit").code(2).complains("is for revision records");
    place.run("import disclosure d.json --log auditlog").code(2).complains("is for auditlog records");
    for own in ["access", "quarantine"] {
        place.run(&format!("import disclosure d.json --log {own}")).code(2).complains("Sporlog's own");
    }
    place.run("import revision a.csv --log other").ok();
    place.run("import disclosure d.json --log other").code(2).complains("holds revision records");
    place.run("import disclosure d.json --log Ø").code(2).complains("cannot name a log");
}

#[test]
fn interrupted_means_that_nothing_is_stored() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["import", "disclosure", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(disclosure("", "").repeat(1_000).as_bytes()).expect("written");
    let begun = Instant::now();
    while !place.path("sporlog-data/logs/disclosure").exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("nothing of it was stored"), "{err}");
    assert_eq!(place.head("disclosure"), 0);
    place.run("verify disclosure").ok();
}
