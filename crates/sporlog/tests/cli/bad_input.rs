//! Whatever may be wrong with a file has an answer, and takes little memory.

use std::io::Write;
use std::process::Stdio;

use crate::place::{HEADER, Place, csv, disclosure, row};

/// The file is refused whole, at this place and for this reason; nothing of it goes in.
#[track_caller]
fn refused(kind: &str, content: &[u8], place_and_severity: &str, reason: &str) {
    let place = Place::new();
    place.file("f", content);
    let ran = place.run(&format!("check {kind} f")).code(1).says("refused whole");
    let finding = ran.out.lines().find(|line| line.contains(": error ")).expect("an error");
    assert!(finding.starts_with(place_and_severity), "{finding}");
    assert!(finding.contains(reason), "{finding}");
    let receipt = place.run(&format!("import {kind} f --json")).code(1).json();
    assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&0.into(), &0.into()), "{receipt}");
    assert!(receipt["refused"][0]["text"].as_str().expect("a text").contains(reason), "{receipt}");
    assert_eq!(place.head(kind), 0);
    assert_eq!(place.run("quarantine list").ok().out, "");
}

/// So many records go in, and so many are refused alone, the first of them for this reason.
#[track_caller]
fn quarantined(kind: &str, content: &[u8], accepted: u64, refused: u64, reason: &str) {
    let place = Place::new();
    place.file("f", content);
    let summary =
        format!("{accepted} record{} accepted, {refused} refused", if accepted == 1 { "" } else { "s" });
    let ran = place.run(&format!("check {kind} f")).code(1).says(&summary);
    assert!(ran.out.contains(reason), "{}", ran.out);
    let receipt = place.run(&format!("import {kind} f --json")).code(1).json();
    assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&accepted.into(), &refused.into()));
    let items = place.run("quarantine list --json").ok().lines();
    assert_eq!(items.len() as u64, refused);
    let reasons = items[0]["reasons"].as_array().expect("reasons");
    assert!(
        reasons.iter().any(|r| r["text"].as_str().is_some_and(|t| reason.contains(t) || t.contains(reason)))
    );
    assert_eq!(place.head(kind), accepted);
}

#[test]
fn empty_and_header_only() {
    refused("revision", b"", "f:1:1:", "empty");
    refused("disclosure", b"", "f:1:1:", "empty");
    let place = Place::new();
    place.file("h.csv", format!("{HEADER}\n"));
    place.file("a.json", "[]");
    place.run("check revision h.csv").ok().says("0 records accepted, 0 refused");
    place.run("import revision h.csv").ok().says("accepted     0\n");
    place.run("import auditlog a.json").ok().says("accepted     0\n");
    place.run("verify revision").ok();
}

#[test]
fn the_wrong_separator_and_what_to_do_about_it() {
    let semicolons = csv(0..2).replace("\",\"", "\";\"");
    refused("revision", semicolons.as_bytes(), "f:1:1:", "semicolons");
    let place = Place::new();
    place.file("f", &semicolons);
    place.file("sporlog.toml", "[rules.revision]\nseparator = ';'\n");
    place.run("check revision f").ok().says("2 records accepted");
}

#[test]
fn another_character_set_and_what_to_do_about_it() {
    let file = csv(0..1) + &row(1, "2026-01-05T08:30:00", "0101018081", "Søgning");
    let latin1: Vec<u8> = file.chars().map(|c| u8::try_from(u32::from(c)).expect("ISO 8859-1")).collect();
    refused("revision", &latin1, "f:3:7:", "ISO 8859-1");
    let place = Place::new();
    place.file("f", &latin1);
    place.file("sporlog.toml", "[rules.revision]\nencoding = 'iso-8859-1'\n");
    place.run("import revision f").ok();
    place.run("read revision --after 1").ok().says("\"Note\":\"Søgning\"");
    // With a byte-order mark it is UTF-8 all the same.
    let marked = Place::new();
    marked.file("f", format!("\u{feff}{file}"));
    marked.run("check revision f").ok().says("2 records accepted, 0 refused, 0 remarks");
}

#[test]
fn zero_bytes() {
    let file = csv(0..2) + &row(2, "2026-01-05T08:30:00", "0101018081", "a\0b");
    quarantined("revision", file.as_bytes(), 2, 1, "NUL");
    let file = disclosure("", "") + &disclosure("tema", "\"A\0C\"");
    quarantined("disclosure", file.as_bytes(), 1, 1, "control character");
    // The tail of a file that a crash has left unwritten.
    refused("revision", (csv(0..2) + &"\0".repeat(4_096)).as_bytes(), "f:4:", "cut off");
}

#[test]
fn files_that_spreadsheets_and_dos_have_written() {
    refused("revision", ("sep=,\r\n".to_owned() + &csv(0..2)).as_bytes(), "f:1:1:", "'sep='");
    refused("revision", (csv(0..2) + "\u{1a}").as_bytes(), "f:4:1:", "Ctrl-Z");
}

#[test]
fn files_of_another_format() {
    refused("revision", b"PK\x03\x04\x14\0\x08\0", "f:1:1:", "a ZIP archive or an Excel workbook");
    refused("disclosure", csv(0..3).as_bytes(), "f:1:1:", "no JSON object");
    refused("auditlog", b"[1, 2]", "f:1:1:", "no JSON object");
    // One record of its kind is enough.
    quarantined("disclosure", ("x\n".to_owned() + &disclosure("", "")).as_bytes(), 1, 1, "not a JSON object");
}

#[test]
fn two_files_put_together() {
    let place = Place::new();
    let import = |name: &str| place.run_args(&["import", "revision", &Place::data(name), "--json"]);
    let receipt = import("two-files-put-together.csv").code(1).json();
    assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&9.into(), &1.into()), "{receipt}");
    place.run("quarantine list").ok().says("byte-order mark, as is left where two files were put together");
    // The row that the mark spoiled comes in now, and no other comes in twice.
    let receipt = import("its-second-half-again.csv").ok().json();
    assert_eq!((&receipt["accepted"], &receipt["skipped"]), (&1.into(), &4.into()), "{receipt}");
}

#[test]
fn windows_1252_and_zstandard_with_a_skippable_frame() {
    let place = Place::new();
    place.file("sporlog.toml", "[rules.revision]\nencoding = 'iso-8859-1'\nseparator = ';'\n");
    place.run_args(&["import", "revision", &Place::data("windows-1252.csv")]).ok();
    place.run("read revision").ok().says("\"Note\":\"Søgning – årsag €\"").says("\"Note\":\"„Æble“ …\"");
    let place = Place::new();
    place.run_args(&["import", "revision", &Place::data("skippable-frame-first.csv.zst")]).ok();
    assert!(place.head("revision") > 0);
}

#[test]
fn a_file_that_cannot_be_unpacked_says_why() {
    let mut large = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    large.window_log(28).expect("set");
    large.write_all(csv(0..3).as_bytes()).expect("written");
    let large = large.finish().expect("ended");
    let place = Place::new();
    place.file("large.csv.zst", &large);
    place.file("cut.csv.zst", &zstd::encode_all(csv(0..300).as_bytes(), 1).expect("packed")[..200]);
    place.run("check revision large.csv.zst").code(1).says("a window of 128 MiB or less");
    place.run("import revision large.csv.zst").code(1).says("a window of 128 MiB or less");
    place.run("import revision cut.csv.zst").code(1).says("damaged or cut off: incomplete frame");
}

#[test]
fn personal_numbers_in_names_of_files_are_masked() {
    let place = Place::new();
    place.file("KY_0101018081.csv", csv(0..2) + &row(2, "i går", "0101018081", "x"));
    let receipt = place.run("import revision KY_0101018081.csv --json").code(1).json();
    assert_eq!(receipt["file"], "KY_01********.csv");
    let item = &place.run("quarantine list --json").code(0).lines()[0];
    assert_eq!(item["source"], "KY_01********.csv", "{item}");
    place.run("read revision").ok().says("\"origin\":\"file:KY_01********.csv:2\"");
}

#[test]
fn unbalanced_quotes() {
    let file = csv(0..3).replacen("\"set\"", "\"set", 1);
    refused("revision", file.as_bytes(), "f:2:7:", "quote");
    let file = csv(0..3).replacen("\"set\"", "\"s\"et\"", 1);
    refused("revision", file.as_bytes(), "f:2:7:", "quote");
}

#[test]
fn cut_off_in_the_middle() {
    let file = csv(0..3);
    refused("revision", &file.as_bytes()[..file.len() - 30], "f:4:", "cut off");
    refused("disclosure", format!("[{},", disclosure("", "")).as_bytes(), "f:", "cut off");
    let lines = disclosure("", "").repeat(2);
    quarantined("disclosure", &lines.as_bytes()[..lines.len() - 30], 1, 1, "the record ends in the middle");
    // A missing line end at the end is none of that.
    let place = Place::new();
    place.file("f", file.trim_end());
    place.run("check revision f").ok().says("3 records accepted");
}

#[test]
fn rows_too_short_and_too_long() {
    refused(
        "revision",
        (csv(0..1) + "\"a\",\"b\"\n" + &csv(1..2)).as_bytes(),
        "f:3:",
        "this row has 2 columns",
    );
    let long = csv(0..2).trim_end().to_owned() + ",\"more\"\n";
    refused("revision", long.as_bytes(), "f:3:", "this row has 8 columns");
}

#[test]
fn headers_that_are_none() {
    let repeated = csv(0..1).replacen("\"Note\"", "\"brugerid\"", 1);
    refused("revision", repeated.as_bytes(), "f:1:7:", "twice");
    let missing = csv(0..1).replacen("\"BrugerId\"", "\"Bruger\"", 1);
    refused("revision", missing.as_bytes(), "f:1:", "BrugerId");
    let wide: Vec<_> = (0..100_000).map(|n| format!("\"c{n}\"")).collect();
    refused("revision", wide.join(",").as_bytes(), "f:1:", "columns");
}

#[test]
fn numbers_with_spaces() {
    let file = csv(0..1)
        + &row(1, "2026-01-05T08:30:00", "0101018081", "").replace("64942212", "6494 2212")
        + &row(2, "2026-01-05T08:30:00", "0101018081", "").replace("64942212", " 64942212");
    quarantined("revision", file.as_bytes(), 1, 2, "exactly 8 digits");
    let file = disclosure("person", "\"123456 78901\"") + &disclosure("", "");
    quarantined("disclosure", file.as_bytes(), 1, 1, "11 digits");
}

#[test]
fn times_that_do_not_exist() {
    let rows = ["2026-02-30T08:30:00", "2026-01-05T25:00:00", "32-JAN-2026 01.00.00"];
    let rows: String = rows.iter().map(|time| row(7, time, "0101018081", "")).collect();
    quarantined("revision", (csv(0..1) + &rows).as_bytes(), 1, 3, "no such date or time of day");
    let file = disclosure("uthentingsTidspunkt", "\"2018-02-30T10:00:00\"")
        + &disclosure("uthentingsTidspunkt", "\"2018-02-03T10:00:00Z\"");
    quarantined("disclosure", file.as_bytes(), 0, 2, "no such date or time of day");
}

#[test]
fn json_of_all_sorts() {
    let half = disclosure("behandlingsGrunnlag", r#""\ud800""#);
    let whole = disclosure("behandlingsGrunnlag", r#""\ud83d\ude00""#);
    quarantined("disclosure", (half + &whole).as_bytes(), 1, 1, "not well-formed JSON");
    let deep = disclosure("more", &("[".repeat(100_000) + &"]".repeat(100_000)));
    quarantined("disclosure", (deep + &disclosure("", "")).as_bytes(), 1, 1, "nested too deep");
    let number = disclosure("person", "12345678901") + &disclosure("", "");
    quarantined("disclosure", number.as_bytes(), 1, 1, "a text is expected here, and this is a number");
    let latin1 = [b"{\"person\":\"\xf8\"}\n".as_slice(), disclosure("", "").as_bytes()].concat();
    quarantined("disclosure", &latin1, 1, 1, "not UTF-8");
}

#[test]
fn records_of_the_limit_and_one_over() {
    let place = Place::new();
    place.file("sporlog.toml", "[rules]\nmax_record_bytes = 1000\n");
    let text = |kind: &str, bytes: usize| {
        let with = |text: &str| match kind {
            "revision" => row(1, "2026-01-05T08:30:00", "0101018081", text),
            _ => disclosure("dataForespoersel", &format!("\"{text}\"")),
        };
        let without = with("").trim_end().len();
        with(&"x".repeat(bytes - without))
    };
    for kind in ["revision", "disclosure"] {
        let begin = if kind == "revision" { csv(0..1) } else { disclosure("", "") };
        place.file("fits", begin.clone() + &text(kind, 1_000));
        place.run(&format!("check {kind} fits")).ok().says("2 records accepted, 0 refused");
        place.file("over", begin + &text(kind, 1_001));
        place.run(&format!("check {kind} over")).code(1).says("more than 1000 bytes");
    }
}

#[test]
fn files_of_the_limit_and_one_over() {
    let place = Place::new();
    let file = csv(0..10);
    place.file("f", &file);
    place.file("sporlog.toml", format!("[rules.revision]\nmax_file_bytes = {}\n", file.len()));
    place.run("import revision f").ok().says("accepted     10\n");
    place.file("sporlog.toml", format!("[rules.revision]\nmax_file_bytes = {}\n", file.len() - 1));
    place.run("check revision f").code(1).says("refused whole");
    place.run("import revision f --log other").code(1).says("refused");
    assert_eq!(place.head("revision"), 10);
}

#[test]
fn two_gibibytes_and_one_byte() {
    let place = Place::new();
    let path = place.file("f", csv(0..1));
    // A hole: nothing of it lies on the disk.
    let file = std::fs::OpenOptions::new().append(true).open(path).expect("opened");
    file.set_len((2 << 30) + 1).expect("grown");
    let receipt = place.run("import revision f --json").code(1).json();
    assert_eq!((&receipt["accepted"], &receipt["bytes"]), (&0.into(), &((2_u64 << 30) + 1).into()));
    assert!(receipt["refused"][0]["text"].is_string(), "{receipt}");
}

/// Feeds a line of 300 MB, and gives the most memory that was taken, in MB, and the results.
#[cfg(target_os = "linux")]
fn feed_long_line(kind: &str, begin: &str) -> (u64, String) {
    let place = Place::new();
    let mut command = place.command();
    command.args(["check", kind, "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let mut memory = || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        most = most.max(kilobytes.unwrap_or_default() / 1_024);
    };
    stdin.write_all(begin.as_bytes()).expect("written");
    let megabyte = vec![b'x'; 1_000_000];
    for _ in 0..300 {
        if stdin.write_all(&megabyte).is_err() {
            break;
        }
        memory();
    }
    drop(stdin);
    let output = child.wait_with_output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    (most, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn a_line_of_300_megabytes() {
    for (kind, begin) in [
        ("revision", format!("{HEADER}\n\"")),
        ("revision", String::new()),
        ("disclosure", "{\"person\":\"".to_owned()),
        ("disclosure", String::new()),
    ] {
        let (most, said) = feed_long_line(kind, &begin);
        assert!(said.contains("refused whole") && said.contains("bytes"), "{said}");
        assert!(most < 200, "{most} MB");
    }
}

#[test]
fn findings_are_counted_by_their_rules() {
    let place = Place::new();
    let bad = |n: u32| row(n, "2026-02-30T08:30:00", "0101018081", "");
    let rows = bad(1) + &row(2, "2026-02-03", "nobody", "") + &bad(3);
    place.file("f", format!("{HEADER}\n{rows}"));
    let ran = place.run("check revision f --summary").code(1);
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[0].starts_with("f: 2 x error TransaktionsTid: there is no such date"), "{}", ran.out);
    assert!(lines[0].ends_with("(time; first at 2:2)"), "{}", ran.out);
    assert!(lines[1].starts_with("f: 1 x remark BorgerId: ") && lines.len() == 3, "{}", ran.out);
    let json = place.run("check revision f --summary --json --errors-only").code(1).lines();
    assert_eq!(
        (&json[0]["type"], &json[0]["count"], &json[0]["rule"]),
        (&"rule".into(), &2.into(), &"time".into())
    );
    assert_eq!(json.len(), 2);
}

#[test]
fn bad_rows_are_written_to_be_corrected() {
    let place = Place::new();
    let bad = |n: u32| row(n, "2026-02-30T08:30:00", "0101018081", "a \"\"b\"\"");
    let good = row(2, "2026-02-03", "0101018081", "");
    place.file("f", format!("{HEADER}\n{}{good}{}", bad(1), bad(3)));
    place.run("check revision f --bad-rows bad.csv").code(1);
    let written = std::fs::read_to_string(place.path("bad.csv")).expect("a file");
    assert_eq!(written, format!("{HEADER}\n{}{}", bad(1), bad(3)));
    place.run("check revision f --bad-rows bad.csv").code(2).complains("--force");
    // Corrected, the file is in order, and there is nothing left.
    place.file("bad.csv", written.replace("02-30", "02-03"));
    place.run("check revision bad.csv --bad-rows bad.csv --force").ok();
    assert_eq!(std::fs::read_to_string(place.path("bad.csv")).expect("a file"), format!("{HEADER}\n"));
    place.run("check revision f bad.csv --bad-rows two.csv").code(2).complains("one file");
    place.file("whole", "no header\n");
    place.run("check revision whole --bad-rows whole.csv").code(1).says("refused whole");
    assert!(!place.path("whole.csv").exists());
    // Records in JSON are on a line each.
    place.file("d", disclosure("person", "1") + &disclosure("", ""));
    place.run("check disclosure d --bad-rows d.bad").code(1);
    assert_eq!(std::fs::read_to_string(place.path("d.bad")).expect("a file"), disclosure("person", "1"));
}
