//! `export revision`: what comes out is what went in. `export auditlog --as revision`: what comes out is a revision log.

use crate::place::{HEADER, Place, csv, row};

const EXPORT: &str = "export revision --organisation 64942212 --out out";

/// The store holds a file of many municipalities.
fn sampled() -> Place {
    let place = Place::new();
    place.run("sample revision --records 5000 --faulty 0 --out day.csv").ok();
    place.run("import revision day.csv").ok();
    place
}

#[test]
fn a_municipality_gets_its_own_rows_as_they_were() {
    let place = sampled();
    let top =
        "SELECT \"KalderOrganisation\" AS o, count(*) AS n FROM revision GROUP BY 1 ORDER BY n DESC LIMIT 1";
    let top = place.run_args(&["sql", top, "--json"]).ok().json();
    let (cvr, count) = (top[0]["o"].as_str().expect("a CVR number"), top[0]["n"].as_u64().expect("a count"));
    let export = place.run(&format!("export revision --organisation {cvr} --out out --json")).ok().json();
    assert_eq!(export["rows"], count);
    let file = &export["files"][0];
    let day = file["day"].as_str().expect("a day");
    assert_eq!(place.files("out"), [format!("revisionslog_{cvr}_{day}_01.csv")]);
    let bytes = std::fs::read(place.path("out").join(&place.files("out")[0])).expect("a file");
    assert_eq!(file["bytes"], bytes.len());
    assert!(bytes.starts_with(b"\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\""));
    // Delivered to another Sporlog, it holds the same records in the same order.
    let received = place.run(&format!(
        "--store other import revision {} --json",
        place.path("out").join(&place.files("out")[0]).display()
    ));
    let received = received.ok().json();
    assert_eq!((&received["accepted"], &received["sha256"]), (&count.into(), &file["sha256"]));
    let there = place.run("--store other read revision --records-only").ok().out;
    let here = place.run("read revision --records-only").ok().out;
    let mine = format!("\"KalderOrganisation\":\"{cvr}\"");
    let here: String =
        here.lines().filter(|line| line.contains(&mine)).map(|line| format!("{line}\n")).collect();
    assert_eq!(here, there);
}

#[test]
fn files_are_split_below_the_limit() {
    let place = Place::new();
    place.file("day.csv", csv(0..100));
    place.run("import revision day.csv").ok();
    let export = place.run(&format!("{EXPORT} --max-bytes 5000 --json")).ok().json();
    let files = export["files"].as_array().expect("files");
    assert!(files.len() > 3, "{export}");
    assert!(files.iter().all(|file| file["bytes"].as_u64() < Some(5_000)), "{export}");
    assert!(files.iter().rev().skip(1).all(|file| file["bytes"].as_u64() > Some(4_500)), "{export}");
    assert_eq!(files.iter().filter_map(|file| file["rows"].as_u64()).sum::<u64>(), 100);
    let names = place.files("out");
    assert_eq!(names.len(), files.len());
    assert!(names[0].ends_with("_01.csv") && names[3].ends_with("_04.csv"), "{names:?}");
    // Every part is a delivery of its own, and together they hold every row once.
    let paths: Vec<_> = names.iter().map(|name| format!("out/{name}")).collect();
    place.run(&format!("--store other import revision {}", paths.join(" "))).ok();
    assert_eq!(place.run("--store other head revision").ok().out, "100\n");
    // A row that is too large for any file gets one of its own.
    let export = place.run(&format!("{EXPORT} --max-bytes 10 --force --json")).ok().json();
    assert_eq!(export["files"].as_array().map(Vec::len), Some(100));
}

#[test]
fn what_is_there_is_replaced_only_on_request() {
    let place = Place::new();
    place.file("day.csv", csv(0..50));
    place.run("import revision day.csv").ok();
    place.run(&format!("{EXPORT} --max-bytes 3000")).ok();
    let before = place.files("out");
    place.run(EXPORT).code(2).complains("--force");
    assert_eq!(place.files("out"), before);
    // Parts of the earlier export that are not needed any more go, so that no row is there twice.
    place.run(&format!("{EXPORT} --force")).ok().says("50 rows of 64942212 in 1 file");
    assert_eq!(place.files("out").len(), 1);
}

#[test]
fn the_days_are_those_of_receipt() {
    let place = Place::new();
    let rows = row(1, "2021-11-10T04:03:47", "0101018081", "of long ago");
    place.file("old.csv", format!("{HEADER}\n{rows}"));
    let receipt = place.run("import revision old.csv --json").ok().json();
    let day = &receipt["receivedAt"].as_str().expect("a time")[..10];
    place
        .run(&format!("{EXPORT} --date {day}"))
        .ok()
        .says("1 row of 64942212 in 1 file")
        .complains("not over");
    for none in ["--date 2021-11-10", "--to 2021-11-10", "--from 2099-01-01"] {
        let ran = place.run(&format!("{EXPORT} {none}")).ok().says("0 rows of 64942212 in 0 files");
        assert_eq!(ran.err, "");
    }
    place.run(&format!("{EXPORT} --from 2021-11-10 --to {day} --force")).ok().says("1 row ");
    place.run(&format!("{EXPORT} --from 2026-01-02 --to 2026-01-01")).code(2).complains("later than");
    place
        .run("export revision --organisation 12345678 --out out")
        .ok()
        .says("0 rows")
        .complains("check digit");
    place.run("export revision --organisation 123 --out out").code(2).complains("8 digits");
    assert_eq!(place.files("out").len(), 1);
}

#[test]
fn audit_records_become_rows_that_a_revision_log_takes() {
    let place = Place::new();
    let records = [
        r#"{"id":7192,"tts":"2026-11-03T06:50:55","ipAddress":"10.0.0.1","correlationId":"c1","personId":301,"personName":"Bo Test","cpr":"0101018081","performerId":17,"performerName":"Ib Admin","logAction":"CPR_LOOKUP","message":"Opslag \"her\"","personDomain":"kommune.dk","samaccountName":"bsg","detailType":"JSON","detailContent":"{}"}"#,
        r#"{"tts":"2026-11-04T06:50:55","personName":"Bo Test","samaccountName":"bsg","logAction":"LOGIN","detailType":"XML","detailContent":"<saml/>"}"#,
        r#"{"logAction":"CLEAN_UP"}"#,
    ];
    place.file("audit.ndjson", records.join("\n"));
    place.run("import auditlog audit.ndjson").ok();
    let export = "export auditlog --as revision --organisation 64942212 --system login.kommune.dk";
    let told = place.run(&format!("{export} --out all.csv --json")).ok().json();
    assert_eq!(told["rows"], 3);
    place.run(&format!("{export} --out all.csv")).code(2).complains("--force");
    let receipt = place.run("import revision all.csv --json").ok().json();
    assert_eq!(receipt["accepted"], 3, "{receipt}");
    let rows: Vec<_> = place.run("read revision --records-only").ok().lines();
    let column = |name: &str| {
        rows.iter().map(|row| row[name].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(column("LogId"), ["7192", "2", "3"]);
    assert_eq!(column("TransaktionsId"), ["c1", "2", "3"]);
    assert_eq!(column("TransaktionsTid")[..2], ["2026-11-03T06:50:55", "2026-11-04T06:50:55"]);
    assert_eq!(column("BrugerId"), ["17", "bsg", "ukendt"]);
    assert_eq!(column("BrugerNavn"), ["Ib Admin", "Bo Test", ""]);
    assert_eq!(column("BorgerId"), ["0101018081", "", ""]);
    assert_eq!(column("ServiceNavn"), ["CPR_LOOKUP", "LOGIN", "CLEAN_UP"]);
    assert_eq!(column("Note")[0], "Opslag \"her\"");
    assert_eq!(column("Parametre"), ["{}", "", ""]);
    // Only what happened on a day; and the same rows again are known as the same.
    place.run(&format!("{export} --from 2026-11-04 --to 2026-11-04 --out day.csv")).ok().says("1 row");
    let again = place.run("import revision day.csv --json").ok().json();
    assert_eq!((&again["accepted"], &again["skipped"]), (&0.into(), &1.into()));
    place.run("find auditlog --source-id 7192").ok().says("CPR_LOOKUP");
    assert_eq!(place.run("find auditlog --source-id 2").ok().out, "");
    place.run("find revision --source-id 2").code(2).complains("no id of where they came from");
}
