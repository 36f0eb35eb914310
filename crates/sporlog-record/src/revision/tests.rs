//! Whole deliveries, read as intake reads them: buffer by buffer, slab by slab.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use proptest::prelude::*;

use super::*;
use crate::kind::{EXTRA, REVISION_COLUMNS};
use crate::rules::Encoding;
use crate::{Finding, Kind, Position, Rules, Severity};

const HEADER: &str = "\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\",\
    \"KalderOrganisation\",\"KalderItSystemInstans\",\"Note\"\r\n";
const UUID: &str = "4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8";

fn row(id: &str, note: &str) -> String {
    format!("\"{id}\",\"2021-11-10\",\"{UUID}\",\"64942212\",\"{UUID}\",\"{note}\"\r\n")
}

struct Delivery {
    rows: RecordBatch,
    refused: Vec<RefusedRow>,
    findings: Vec<Finding>,
    remarks: u64,
    records: u64,
    lines: u64,
    blank_lines: u64,
    unquoted: bool,
}

fn read(file: &[u8], rules: &Rules, buffer: usize) -> Result<Delivery, FileRefusal> {
    let header = Header::parse(file, rules)?;
    let mut splitter = Splitter::new(&header, rules);
    let (mut slabs, mut carry) = (Vec::new(), Vec::new());
    for bytes in file[header.body()..].chunks(buffer) {
        let cut = splitter.split(bytes)?;
        let (whole, rest) = bytes.split_at(cut.end);
        carry.extend_from_slice(whole);
        if cut.end > 0 {
            slabs.push(parse_slab(&header, rules, &carry, cut.first_line, "file:day1.csv", usize::MAX)?);
            carry.clear();
        }
        carry.extend_from_slice(rest);
    }
    let line = splitter.finish(&header, &carry)?;
    slabs.push(parse_slab(&header, rules, &carry, line, "file:day1.csv", usize::MAX)?);
    let batches: Vec<_> = slabs.iter().map(|slab| slab.rows.clone()).collect();
    Ok(Delivery {
        rows: concat_batches(&Kind::Revision.row_schema(), &batches).unwrap(),
        remarks: slabs.iter().map(|slab| slab.remarks).sum(),
        records: slabs.iter().map(|slab| slab.records).sum(),
        lines: slabs.iter().map(|slab| slab.lines).sum::<u64>() + header.first_line() - 1,
        blank_lines: slabs.iter().map(|slab| slab.blank_lines).sum(),
        unquoted: header.unquoted() || slabs.iter().any(|slab| slab.unquoted),
        findings: slabs.iter_mut().flat_map(|slab| std::mem::take(&mut slab.findings)).collect(),
        refused: slabs.into_iter().flat_map(|slab| slab.refused).collect(),
    })
}

fn read_whole(file: impl AsRef<[u8]>) -> Result<Delivery, FileRefusal> {
    read(file.as_ref(), &Rules::default(), usize::MAX)
}

fn texts<'a>(rows: &'a RecordBatch, column: &str) -> Vec<Option<&'a str>> {
    let column = rows.column_by_name(column).unwrap();
    column.as_any().downcast_ref::<StringArray>().unwrap().iter().collect()
}

#[track_caller]
fn refused(file: impl AsRef<[u8]>, rule: &str, (line, column): (u64, u64), words: &str) {
    refused_by(file, &Rules::default(), rule, (line, column), words);
}

#[track_caller]
fn refused_by(file: impl AsRef<[u8]>, rules: &Rules, rule: &str, (line, column): (u64, u64), words: &str) {
    for buffer in [usize::MAX, 16] {
        let Err(refusal) = read(file.as_ref(), rules, buffer) else {
            panic!("accepted, with buffers of {buffer}");
        };
        let first = &refusal.findings[0];
        assert_eq!(first.rule, rule, "{refusal}");
        assert_eq!(first.position, Position { line, column }, "{refusal}");
        assert!(first.text.contains(words), "{refusal}");
    }
}

/// Tables 1 and 2 of the document as it was printed, the letters it misreads put right in the
/// values only.
const PRINTED: [(&str, &str); 23] = [
    ("Transaktionsld", "0d57d91a-03d5-4e96-9e63-dee5686b8fab"),
    ("TransaktionsTid", "10-NOV-2021 04.03.47.056000000"),
    ("Brugerld", "4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8"),
    ("KalderOrganisation", "64942212"),
    ("KalderltSystemInstans", "cc038af5-0e68-43e5-bb17-957ad6f45f8e"),
    ("Logld", "bb6e9e88-79ba-46f7-b492-2db79a42cb6e"),
    ("CallersServiceCallldentifier", "91e1750c-6b5d-47c7-9c06-a0026e6c7282"),
    ("ModtagerAftaleld", "5dbf4E02grPU139178999"),
    (
        "Parametre",
        "/Ydelser/YdelserList?sessionKey=MTo4MDZkOGQxYS0wOWIwLTQ0NGMtOTBlOC1lODg4NjA4NDVjMzI%3D\
         &columnConfigurationId=MTEzfDlhNTE3MTI1LWQ0ZWItNGM5OS05OTIlLWE2MzliZDM1NDExMg__\
         &instanceGuid=32c3ebed-96da-4ddf-b126-0b53b05f91ed&_t=637816810245292441",
    ),
    ("KaldtServiceld", "kombit.ky.bpm.common.service.KyProcessOpgaveService"),
    ("KalderIP", "185.16.156.19"),
    ("BrugerNavn", "YK16"),
    ("kalderltSystemNavn", "SAPA: Sag og part eller Advis modul. Borgerblikket: BorgerblikketOK"),
    ("ServiceNavn", "SagService"),
    ("Note", "Task completed"),
    ("Borgerld", "2302XX22XX"),
    ("Sagld", "1ec276c9-402d-63ac-acaa-99c5b2e798d5"),
    ("Partld", "1ec1ca76-3f17-6fc4-b9ff-598352a2351f"),
    ("Opgaveld", "1ecd41d2d-22bd-6c06-ad94-1f5abe6591c7"),
    ("BrugerKalderOrganisationEnhedld", "c8438305-5a95-42e8-9ead-e690335d922c"),
    ("BrugerOrganisationEnhedNavn", "60ecc2bb-59da-4b8e-9d33-4fd64b59fd7"),
    ("SvarReaktion", "GetAdvisSearchResultsViewModelTask executed Error"),
    ("ServiceAftaleUUID", "cea557a2-6a5d-40ee-a137-f7a742874a05"),
];

fn printed_file(change: impl Fn(&'static str, &'static str) -> &'static str) -> String {
    let quoted = |text: &str| format!("\"{text}\"");
    let header: Vec<_> = PRINTED.iter().map(|(name, _)| quoted(name)).collect();
    let row: Vec<_> = PRINTED.iter().map(|(name, value)| quoted(change(name, value))).collect();
    format!("{}\n{}\n", header.join(","), row.join(","))
}

#[test]
fn the_printed_example_is_accepted() {
    let read = read_whole(printed_file(|_, value| value)).unwrap();
    assert_eq!((read.records, read.rows.num_rows(), read.lines), (1, 1, 2));
    for (column, (_, value)) in REVISION_COLUMNS.iter().zip(PRINTED) {
        assert_eq!(texts(&read.rows, column), [Some(value)], "{column}");
    }
    assert_eq!(texts(&read.rows, "origin"), [Some("file:day1.csv:2")]);
    assert_eq!(texts(&read.rows, EXTRA), [None]);
    let times = read.rows.column(0).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
    let time = times.value_as_datetime(0).unwrap();
    assert_eq!(time.to_string(), "2021-11-10 04:03:47.056");
    assert!(!read.unquoted);
    // Nothing is doubtful about it but, perhaps, its invented CVR number.
    assert!(read.findings.iter().all(|finding| finding.rule == "check-digit"));
}

#[test]
fn what_is_doubtful_is_remarked_on() {
    let file = printed_file(|name, value| match name {
        "TransaktionsTid" => "2031-01-01T00:00:00",
        "Brugerld" => "YK16",
        "KalderOrganisation" => "12345678",
        "KalderltSystemInstans" => "SAPA",
        "KalderIP" => "1.2.3",
        "Borgerld" => "2302-YY",
        _ => value,
    });
    let rules = Rules { now: "2026-11-21T08:00:00".parse().unwrap(), ..Rules::default() };
    let read = read(file.as_bytes(), &rules, 100).unwrap();
    let found: Vec<_> = read.findings.iter().map(|f| (f.rule, &*f.field, f.position.column)).collect();
    let expected = [
        ("future", "TransaktionsTid", 2),
        ("uuid", "BrugerId", 3),
        ("check-digit", "KalderOrganisation", 4),
        ("uuid", "KalderItSystemInstans", 5),
        ("ip", "KalderIP", 11),
        ("cpr", "BorgerId", 16),
    ];
    assert_eq!(found, expected);
    assert_eq!(read.remarks, 6);
    assert!(read.findings.iter().all(|f| f.severity == Severity::Remark && f.position.line == 2));
    let stored: serde_json::Value = serde_json::from_str(texts(&read.rows, "remarks")[0].unwrap()).unwrap();
    let expected: Vec<_> = read
        .findings
        .iter()
        .map(|f| serde_json::json!({"field": f.field, "rule": f.rule, "text": f.text}))
        .collect();
    assert_eq!(stored, serde_json::Value::Array(expected));
}

#[test]
fn bad_rows_are_refused_alone() {
    let cases = [
        ("TransaktionsId", "", "required"),
        ("TransaktionsTid", "", "required"),
        ("BrugerId", "", "required"),
        ("KalderOrganisation", "", "required"),
        ("KalderItSystemInstans", "", "required"),
        ("TransaktionsTid", "31-FEB-2021 04.03.47.056000000", "time"),
        ("TransaktionsTid", "2021-11-10T24:61:00", "time"),
        ("TransaktionsTid", "yesterday", "time"),
        ("KalderOrganisation", " 64942212", "digits"),
        ("KalderOrganisation", "64 94 22 12", "digits"),
        ("KalderOrganisation", "6494221", "digits"),
        ("KalderOrganisation", "６４９４２２１２", "digits"),
    ];
    for (column, value, rule) in cases {
        let at = REVISION_COLUMNS.iter().position(|name| *name == column).unwrap();
        let good = row("1", "");
        let mut fields: Vec<&str> = good.trim_end().split(',').collect();
        let value = format!("\"{value}\"");
        fields[at] = &value;
        let bad = fields.join(",");
        let read = read_whole(format!("{HEADER}{good}{bad}\r\n{good}")).unwrap();
        assert_eq!((read.records, read.rows.num_rows()), (3, 2), "{column} {value}");
        let [refused] = &read.refused[..] else { panic!("{column} {value}") };
        assert_eq!((refused.line, &refused.bytes[..]), (3, bad.as_bytes()));
        let error = refused.findings.iter().find(|f| f.severity == Severity::Error).unwrap();
        assert_eq!((error.rule, &*error.field), (rule, column), "{value}");
        assert_eq!(error.position, Position { line: 3, column: at as u64 + 1 });
    }
}

#[test]
fn a_refused_row_names_all_its_faults_and_can_be_put_in_once_mended() {
    let file = format!("{HEADER}\"\",\"x\",\"\",\"1\",\"\",\"æ\"\n");
    let read = read_whole(&file).unwrap();
    let refused = &read.refused[0];
    let found: Vec<_> = refused.findings.iter().map(|f| (f.rule, f.position.column)).collect();
    let expected = [("required", 1), ("time", 2), ("required", 3), ("digits", 4), ("required", 5)];
    assert_eq!(found, expected);

    let rules = Rules::default();
    let header = Header::parse(file.as_bytes(), &rules).unwrap();
    let mended = row("1", "æ");
    let slab = parse_slab(&header, &rules, mended.trim_end().as_bytes(), 2, "replay", 0).unwrap();
    assert_eq!(texts(&slab.rows, "origin"), [Some("replay:2")]);
    assert_eq!((slab.lines, slab.findings.len()), (1, 0));
}

#[test]
fn findings_carry_the_row_s_id_and_no_personal_number() {
    let uuid = "4f123456-1234-4b4f-86e9-0a75a0a009d8";
    for (id, shown) in
        [("A-17", Some("A-17")), (uuid, Some(uuid)), ("0101018081", Some("01********")), ("", None)]
    {
        let read = read_whole(format!("{HEADER}{}", row(id, "").replace("64942212", "1"))).unwrap();
        let ids: Vec<_> = read.refused[0].findings.iter().map(|f| f.transaction_id.as_deref()).collect();
        assert!(!ids.is_empty() && ids.iter().all(|id| *id == shown), "{id}: {ids:?}");
    }
}

#[test]
fn a_nul_refuses_its_row() {
    let read = read_whole(format!("{HEADER}{}{}", row("1", "a\0b"), row("2", ""))).unwrap();
    assert_eq!(texts(&read.rows, "TransaktionsId"), [Some("2")]);
    let nul = read.refused[0].findings.iter().find(|f| f.rule == "nul").unwrap();
    assert_eq!(nul.position, Position { line: 2, column: 6 });
    assert_eq!(read.refused[0].bytes, row("1", "a\0b").trim_end().as_bytes());
}

#[test]
fn a_run_of_nuls_refuses_the_file() {
    let (a, b) = (row("1", "two\nlines"), row("2", "x"));
    for (file, line) in [
        (format!("{HEADER}{a}{}{b}", "\0".repeat(4_096)), 4),
        (format!("{HEADER}{a}{}", b.replace('x', "\0\0")), 4),
        // Quotes and line ends were where the gap is.
        (format!("{HEADER}{a}{}{}{}", &b[..7], "\0".repeat(100), &b[30..]), 4),
    ] {
        refused(&file, "nul", (line, 1), "NUL bytes stand here in a row");
        let rules = Rules::default();
        let refusal = read(file.as_bytes(), &rules, 80).err().unwrap();
        assert_eq!((refusal.position().line, refusal.findings[0].rule), (line, "nul"));
    }
}

#[test]
fn an_end_mark_is_named() {
    refused(format!("{HEADER}{}\u{1a}", row("1", "").trim_end()), "end-mark", (2, 1), "Ctrl-Z");
    refused(format!("{HEADER}{}\u{1a}", row("1", "")), "end-mark", (3, 1), "Ctrl-Z");
}

#[test]
fn what_nobody_sees_refuses_a_row_where_it_identifies_and_else_is_remarked_on() {
    let header = HEADER.trim_end().to_owned() + ",\"LogId\",\"BorgerId\",\"Region\"\r\n";
    let fields = |n: usize, text: &str| {
        let mut fields =
            ["1", "2021-11-10", "user", "64942212", "system", "note", "log", "2302XX22XX", "region"];
        fields[n] = text;
        format!("\"{}\"\n", fields.join("\",\""))
    };
    for (n, text, column, is_refused) in [
        (0, "\u{feff}1", "TransaktionsId", true),
        (2, "user\u{200b}", "BrugerId", true),
        (4, "sys\ttem", "KalderItSystemInstans", true),
        (6, "\u{feff}log", "LogId", true),
        (7, "2302XX22XX\u{202c}", "BorgerId", true),
        (5, "no\u{200d}te", "Note", false),
        (8, "\u{7}region", "Region", false),
    ] {
        let read = read_whole(header.clone() + &fields(n, text) + &fields(0, "2")).unwrap();
        let all = read.findings.iter().chain(read.refused.iter().flat_map(|row| &row.findings));
        let found = all.into_iter().find(|finding| finding.rule == "invisible").expect(column);
        assert_eq!(found.position, Position { line: 2, column: n as u64 + 1 });
        assert_eq!((&*found.field, found.severity == Severity::Error), (column, is_refused));
        assert_eq!(
            (read.refused.len(), read.rows.num_rows()),
            (usize::from(is_refused), 2 - usize::from(is_refused))
        );
        if !is_refused {
            let remarks = texts(&read.rows, "remarks")[0].unwrap().to_owned();
            assert!(
                remarks.contains("\"rule\":\"uuid\"") && remarks.contains("\"rule\":\"invisible\""),
                "{remarks}"
            );
            assert_eq!(read.remarks as usize, read.findings.len());
        }
    }
    // A file of quoted texts behind another one.
    let second = format!("{HEADER}{0}\u{feff}{HEADER}{0}", row("1", ""));
    refused(second, "quotes", (3, 1), "two files were put together here");
    let read = read_whole(format!("{HEADER}{}", row("1", "tab\tand\r\nline"))).unwrap();
    assert_eq!(read.remarks, 0, "{:?}", read.findings);
}

#[test]
fn iso_8859_1_is_read_as_windows_1252() {
    let mut rules = Rules::default();
    rules.revision.encoding = Encoding::Latin1;
    let note = b"S\xf8gning \x96 \x84\xe6rsag\x93 \x80 \x92";
    let row_of = |note: &[u8]| {
        let row = row("1", "?");
        let at = row.find('?').unwrap();
        [&row.as_bytes()[..at], note, &row.as_bytes()[at + 1..]].concat()
    };
    let file = [HEADER.as_bytes(), &row_of(note), &row_of(b"\x81?")].concat();
    let delivery = read(&file, &rules, 50).unwrap();
    assert_eq!(texts(&delivery.rows, "Note"), [Some("Søgning – „ærsag“ € ’"), Some("\u{81}?")]);
    let [finding] = &delivery.findings[..] else { panic!("{:?}", delivery.findings) };
    assert_eq!((finding.rule, &*finding.field, finding.position.line), ("encoding", "Note", 3));
    assert!(finding.text.contains("0x81, which Windows-1252 does not define"), "{finding}");
    // A refused row is kept byte for byte.
    let bytes: Vec<u8> = (0x80..=0xff).collect();
    let bad = [HEADER.as_bytes(), &row_of(&bytes)].concat();
    let bad = bad.iter().map(|&byte| if byte == b'4' { b'x' } else { byte }).collect::<Vec<_>>();
    let delivery = read(&bad, &rules, 50).unwrap();
    assert!(delivery.refused[0].bytes.windows(bytes.len()).any(|kept| kept == bytes));
}

#[test]
fn files_without_rows() {
    for file in [HEADER, HEADER.trim_end(), &format!("{HEADER}\n\r\n")] {
        let read = read_whole(file).unwrap();
        assert_eq!((read.records, read.rows.num_rows()), (0, 0));
        assert_eq!(read.rows.schema(), Kind::Revision.row_schema());
    }
    refused("", "empty", (1, 1), "empty");
}

#[test]
fn files_that_are_cut_off_or_have_lost_a_quote() {
    let (a, b) = (row("1", "two\nlines"), row("2", ""));
    refused(format!("{HEADER}{a}\"3\",\"2021-11-10\",\"us"), "quotes", (4, 3), "cut off");
    refused(format!("{HEADER}{a}\"3\",\"2021-11-10\",\"us\""), "cut-off", (4, 4), "3 of 6 columns");
    refused(format!("{HEADER}{a}\"3\",\"2021-11-10\","), "cut-off", (4, 4), "3 of 6 columns");
    refused(format!("{HEADER}{a}{b}\"4\",\"2021\n11\",\"us"), "quotes", (6, 3), "cut off");
    let lost = b.replacen("\"2\",", "\"2,", 1);
    refused(format!("{HEADER}{a}{lost}{b}"), "quotes", (4, 1), "closing quote");
    let stray = b.replacen("\"2\",", "2\",", 1);
    refused(format!("{HEADER}{a}{stray}{b}"), "quotes", (4, 1), "within a field");
    let behind = b.replacen("\"2\",", "\"2\" ,", 1);
    refused(format!("{HEADER}{a}{behind}{b}"), "quotes", (4, 1), "closing quote");
    let last = format!("{HEADER}{b}{}", a.trim_end());
    assert_eq!(read_whole(last).unwrap().rows.num_rows(), 2);
}

#[test]
fn rows_of_another_width() {
    let good = row("1", "");
    let file = format!("{HEADER}{good}\"a\",\"b\"\n{good}1,2,3,4,5,6,7\r\n");
    refused(&file, "width", (3, 3), "this row has 2 columns, and the header has 6");
    let refusal = read_whole(&file).err().unwrap();
    assert_eq!(refusal.findings.len(), 2);
    assert_eq!(refusal.findings[1].position, Position { line: 5, column: 7 });
    assert_eq!(refusal.position().line, 3);
}

#[test]
fn bytes_that_are_not_utf8() {
    let mut file = format!("{HEADER}{}", row("1", "")).into_bytes();
    file.extend_from_slice(&row("2", "bem?rkning").into_bytes());
    let at = file.iter().position(|byte| *byte == b'?').unwrap();
    file[at] = 0xe6;
    refused(&file, "encoding", (3, 6), "looks like ISO 8859-1");
    file[at] = 0x92;
    refused(&file, "encoding", (3, 6), "Windows-1252");

    file[at] = 0xe6;
    let mut rules = Rules::default();
    rules.revision.encoding = Encoding::Latin1;
    let delivery = read(&file, &rules, 50).unwrap();
    assert_eq!(texts(&delivery.rows, "Note"), [None, Some("bemærkning")]);
    let bad = file.iter().map(|&b| if b == b'4' { b'x' } else { b }).collect::<Vec<_>>();
    let delivery = read(&bad, &rules, 50).unwrap();
    assert!(delivery.refused[1].bytes.contains(&0xe6));

    let marked = [b"\xef\xbb\xbf".as_slice(), HEADER.as_bytes(), row("1", "æ").as_bytes()].concat();
    let delivery = read(&marked, &rules, 50).unwrap();
    assert_eq!(texts(&delivery.rows, "Note"), [Some("æ")], "the byte-order mark says UTF-8");
}

#[test]
fn another_separator() {
    let file = format!("{HEADER}{}", row("1", "a,b")).replace("\",\"", "\";\"");
    refused(&file, "separator", (1, 1), "semicolons");
    let mut rules = Rules::default();
    rules.revision.separator = ';';
    let delivery = read(file.as_bytes(), &rules, 20).unwrap();
    assert_eq!(texts(&delivery.rows, "Note"), [Some("a,b")]);
}

#[test]
fn sizes() {
    let mut rules = Rules { max_record_bytes: 300, ..Rules::default() };
    let fits = format!("{HEADER}{}", row("1", &"x".repeat(100)));
    assert!(read(fits.as_bytes(), &rules, 64).is_ok());
    let exact = row("1", &"x".repeat(100 + 302 - row("1", &"x".repeat(100)).len()));
    assert_eq!(exact.trim_end().len(), 300);
    for buffer in [1, 64, usize::MAX] {
        assert!(read(format!("{HEADER}{exact}{exact}").as_bytes(), &rules, buffer).is_ok());
    }
    let file = format!("{fits}{}{}", row("2", &"x\n".repeat(200)), row("3", ""));
    refused_by(&file, &rules, "record-size", (3, 1), "more than 300 bytes");
    // In ISO 8859-1 a character is a byte, as in the file.
    rules.revision.encoding = Encoding::Latin1;
    let latin1: Vec<u8> =
        row("1", &"?".repeat(160)).bytes().map(|b| if b == b'?' { 0xe6 } else { b }).collect();
    assert!(latin1.len() <= 302);
    assert!(read(&[HEADER.as_bytes(), &latin1].concat(), &rules, 64).is_ok());

    let mut rules = Rules::default();
    rules.revision.max_file_bytes = fits.len() as u64 - 1;
    refused_by(&fits, &rules, "file-size", (1, 1), "bytes");
    rules.revision.max_file_bytes += 1;
    assert!(read(fits.as_bytes(), &rules, 64).is_ok());
}

#[test]
fn lines_are_counted_through_texts_and_blank_lines() {
    let file = format!("{HEADER}\r\n{}\n\n{}{}", row("1", "a\nb\r\n\"\"c"), row("2", ""), row("", ""));
    for buffer in [1, 7, usize::MAX] {
        let read = read(file.as_bytes(), &Rules::default(), buffer).unwrap();
        assert_eq!(texts(&read.rows, "origin"), [Some("file:day1.csv:3"), Some("file:day1.csv:8")]);
        assert_eq!(texts(&read.rows, "Note"), [Some("a\nb\r\n\"c"), None]);
        assert_eq!(read.refused[0].line, 9);
        assert_eq!((read.lines, read.blank_lines), (9, 3));
    }
    // As many line ends as rows, but not one each.
    let cases = [
        (format!("{HEADER}\n{}", row("1", "")), "file:day1.csv:3"),
        (format!("{HEADER}{}{}", row("0", "a\nb"), row("1", "")), "file:day1.csv:4"),
    ];
    for (file, last) in cases {
        let read = read_whole(file.trim_end()).unwrap();
        assert_eq!(texts(&read.rows, "origin").last().unwrap().unwrap(), last);
    }
    let remarks = file_remarks(true, 3);
    assert_eq!(remarks.iter().map(|f| f.rule).collect::<Vec<_>>(), ["unquoted", "blank-lines"]);
    assert!(file_remarks(false, 0).is_empty());
}

#[test]
fn only_texts_want_quotes() {
    let unquoted = |row: &str| read_whole(format!("{HEADER}{row}")).unwrap().unquoted;
    assert!(!unquoted(&format!("\"1\",2021-11-10,\"{UUID}\",64942212,\"{UUID}\",\n")));
    assert!(unquoted(&format!("1,2021-11-10,\"{UUID}\",64942212,\"{UUID}\",\n")));
}

#[test]
fn unknown_columns_are_kept_as_json() {
    let header = HEADER.trim_end().to_owned() + ",\"Regi\"\"on\",X\r\n";
    let good = row("1", "");
    let file = format!("{header}{0},\"\"\"a\"\"\",\n{0},,\n{0},\"\",2\n", good.trim_end());
    let read = read_whole(file).unwrap();
    let expected = [Some(r#"{"Regi\"on":"\"a\""}"#), None, Some(r#"{"X":"2"}"#)];
    assert_eq!(texts(&read.rows, EXTRA), expected);
}

/// Texts of all sorts that the format can hold: no NUL, and no empty text, which is a null.
fn any_text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[a-cæø€😀\",;\n\r |]{1,12}|[^\0]{1,8}")
}

/// What a field that identifies can hold of such a text.
fn seen(text: Option<String>) -> Option<String> {
    let text: String =
        text?.chars().filter(|c| crate::invisible::first(&c.to_string(), true).is_none()).collect();
    Some(text).filter(|text| !text.is_empty())
}

prop_compose! {
    fn any_batch()(rows in proptest::collection::vec(
        (proptest::collection::vec(any_text(), 18), any_text()), 0..12,
    )) -> RecordBatch {
        let count = rows.len();
        let mut columns: Vec<ArrayRef> = vec![
            new_null_array(&DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), count),
            Arc::new(StringArray::from(vec!["o"; count])),
            new_null_array(&DataType::Utf8, count),
            new_null_array(&DataType::Utf8, count),
        ];
        let fixed = ["", "2021-11-10", UUID, "64942212", "sys\"tem"];
        for (number, _) in REVISION_COLUMNS.iter().enumerate() {
            let value = |row: &(Vec<Option<String>>, Option<String>)| match number {
                0 => Some(seen(row.1.clone()).unwrap_or_else(|| "id".to_owned())),
                1..5 => Some(fixed[number].to_owned()),
                5 | 15 => seen(row.0[number - 5].clone()),
                _ => row.0[number - 5].clone(),
            };
            columns.push(Arc::new(rows.iter().map(value).collect::<StringArray>()));
        }
        columns.push(new_null_array(&DataType::Utf8, count));
        RecordBatch::try_new(Kind::Revision.row_schema(), columns).unwrap()
    }
}

/// Bytes that are a delivery, or nearly one.
fn nearly_a_file() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-z0-9]{0,3}".prop_map(|id| row(&id, "n")),
        2 => "[a-z\n\"\"]{0,6}".prop_map(|note| row("1", &note.replace('"', "\"\""))),
        1 => "[a,\"\n\r]{0,6}",
        1 => Just("\n".to_owned()),
    ];
    proptest::collection::vec(piece, 0..8)
        .prop_map(|pieces| (HEADER.to_owned() + &pieces.concat()).into_bytes())
}

proptest! {
    #[test]
    fn rows_written_and_read_again_are_the_same(batch in any_batch(), buffer in 1usize..200) {
        let mut file = Vec::new();
        write_csv_header(&mut file);
        let half = batch.num_rows() / 2;
        write_csv_rows(&batch, 0..half, &mut file).unwrap();
        write_csv_rows(&batch, half..usize::MAX, &mut file).unwrap();
        let read = read(&file, &Rules::default(), buffer).unwrap();
        prop_assert!(read.refused.is_empty() && !read.unquoted);
        for name in REVISION_COLUMNS {
            prop_assert_eq!(texts(&read.rows, name), texts(&batch, name));
        }
    }

    #[test]
    fn buffers_make_no_difference(file in nearly_a_file(), buffer in 1usize..100) {
        let rules = Rules::default();
        match (read(&file, &rules, usize::MAX), read(&file, &rules, buffer)) {
            (Ok(whole), Ok(parts)) => {
                prop_assert_eq!(whole.rows, parts.rows);
                prop_assert_eq!(whole.refused, parts.refused);
                prop_assert_eq!(whole.findings, parts.findings);
                prop_assert_eq!(
                    (whole.remarks, whole.records, whole.lines, whole.blank_lines, whole.unquoted),
                    (parts.remarks, parts.records, parts.lines, parts.blank_lines, parts.unquoted)
                );
            }
            (Err(whole), Err(parts)) => prop_assert_eq!(&whole.findings[0], &parts.findings[0]),
            (whole, parts) => prop_assert!(false, "{:?} / {:?}", whole.err(), parts.err()),
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        syntax in "[a,\"\n\r;\0æ]{0,60}",
        buffer in 1usize..64,
        latin1 in any::<bool>(),
    ) {
        let mut rules = Rules { max_record_bytes: 100, ..Rules::default() };
        if latin1 {
            rules.revision.encoding = Encoding::Latin1;
        }
        let _ = read(&bytes, &rules, buffer);
        for rows in [&bytes[..], syntax.as_bytes()] {
            let file = [HEADER.as_bytes(), rows].concat();
            let _ = read(&file, &rules, buffer);
            let header = Header::parse(&file, &rules).unwrap();
            let _ = parse_slab(&header, &rules, rows, u64::MAX - 1_000, "", usize::MAX);
        }
    }
}

#[test]
fn a_batch_without_the_columns_is_not_written() {
    let batch = RecordBatch::new_empty(Kind::Auditlog.row_schema());
    let error = write_csv_rows(&batch, 0..1, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "column 'TransaktionsId' is missing");
}
