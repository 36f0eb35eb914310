use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Severity;
use crate::rules::DisclosureLimits;

const START: Position = Position { line: 1, column: 1 };

/// The example that the document on Sporingslogg prints, comments and all.
const PRINTED_DISCLOSURE: &str = r#"{
  "person": "12345678901", // Fnr/dnr for personen dataene gjelder
  "mottaker": "123456789", // Orgnr som dataene leveres ut til Skal være 9 sifre
  "tema": "ABC", // Type data, som definert i https://modapp.adeo.no/kodeverksklient/viskodeverk???, Tema 3 tegn
  "behandlingsGrunnlag": "hjemmelbeskrivelse", // Beskriver hjemmel/samtykke som er bakgrunn for at dataene utleveres TODO kodeverk e.l. Max 100 tegn
  "uthentingsTidspunkt": "2018-10-19T12:24:21.675", // Tidspunkt for utlevering, ISO-format uten tidssone
  "leverteData": "<Base64-encodet JSON-melding>", // Utleverte data, max 1.000.000 tegn (i praksis må hele loggmeldingen være under Kafkas grense på 1 MB)
  "samtykkeToken": "<JSON Web Token, encodet form>", // Samtykketoken produsert av Altinn, definert i https://altinn.github.io/docs/guides/samtykke/datakilde/bruk-av-token/ Max 1000 tegn
  "dataForespoersel": "<forespørselen som er brukt>", // Request/dok hvordan Nav hentet data, max 100.000 tegn
  "leverandoer": "123456789" // Orgnr til den som har utleveringsavtalen, benyttes ved delegering Skal være 9 sifre
}
"#;

/// The example that the document on OS2faktor Login prints.
const PRINTED_AUDIT_RECORDS: &str = r#"[ { 

    "id": 18697, 

    "tts": "2022-07-26T06:50:55", 

    "ipAddress": "127.0.0.1", 

    "correlationId": "a119db568ae33ea66932f8b8df29435b903029e6", 

    "personId": 340, 

    "personName": "Test Testesen", 

    "cpr": "0101018081", 

    "performerId": null, 

    "performerName": null, 

    "logAction": "LOGIN", 

    "message": "Login til OS2rollekatalog", 

    "personDomain": "kommune.dk", 

    "samaccountName": "bsg", 

    "detailType": "XML", 

    "detailContent": "<?xml …", 

    "detailSupplement": null 

  } ] 
"#;

fn disclosure() -> Value {
    json!({
        "person": "25922947409",
        "mottaker": "991825827",
        "tema": "ABC",
        "behandlingsGrunnlag": "hjemmel",
        "uthentingsTidspunkt": "2018-10-19T12:24:21.675",
        "leverteData": STANDARD.encode(r#"{"beløp": 1}"#),
    })
}

fn audit() -> Value {
    json!({"id": 7, "tts": "2022-07-26T06:50:55", "logAction": "LOGIN"})
}

/// The record with one member changed.
fn with(mut record: Value, name: &str, value: Value) -> Value {
    record[name] = value;
    record
}

fn push(kind: Kind, rules: &Rules, record: &str) -> (Judged, RecordBatch) {
    let mut builder = RowsBuilder::new(kind, rules);
    let judged = builder.push(record.as_bytes(), "test:1", START);
    (judged, builder.finish())
}

/// The findings, each as `position: severity field: rule`.
fn findings(kind: Kind, record: &str) -> Vec<String> {
    brief(&push(kind, &Rules::default(), record).0)
}

fn brief(judged: &Judged) -> Vec<String> {
    let (Judged::Accepted(findings) | Judged::Refused(findings)) = judged;
    let brief = |finding: &Finding| {
        let Finding { severity, field, rule, position: Position { line, column }, .. } = finding;
        format!("{line}:{column} {severity} {field}: {rule}")
    };
    findings.iter().map(brief).collect()
}

/// The findings without their positions.
fn rules_of(kind: Kind, record: &Value) -> Vec<String> {
    let brief = findings(kind, &record.to_string());
    brief.iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

fn row(kind: Kind, record: &Value) -> RecordBatch {
    let (judged, rows) = push(kind, &Rules::default(), &record.to_string());
    assert!(matches!(judged, Judged::Accepted(_)), "{judged:?}");
    rows
}

fn text(rows: &RecordBatch, column: &str) -> Option<String> {
    let column = rows[column].as_string::<i32>();
    column.is_valid(0).then(|| column.value(0).to_owned())
}

#[test]
fn the_printed_disclosure_is_accepted_as_it_stands() {
    let (judged, rows) = push(Kind::Disclosure, &Rules::default(), PRINTED_DISCLOSURE);
    assert!(matches!(judged, Judged::Accepted(_)));
    assert_eq!(
        brief(&judged),
        [
            "2:28 remark : comments",
            "2:13 remark person: check-digit",
            "3:15 remark mottaker: check-digit",
            "7:18 remark leverteData: base64",
            "8:20 remark samtykkeToken: jwt",
            "10:18 remark leverandoer: check-digit",
        ]
    );
    assert_eq!(text(&rows, "person").unwrap(), "12345678901");
    assert_eq!(text(&rows, "uthentingsTidspunkt").unwrap(), "2018-10-19T12:24:21.675");
    assert_eq!(rows["leverteData"].as_binary::<i32>().value(0), b"<Base64-encodet JSON-melding>");
    assert_eq!(text(&rows, "leverteDataEncoding"), None);
    assert_eq!(text(&rows, "extra"), None);
    let remarks: Value = serde_json::from_str(&text(&rows, "remarks").unwrap()).unwrap();
    assert_eq!(remarks[1]["text"], "the check digits do not match: 12*********");
    assert_eq!(remarks.as_array().unwrap().len(), 6);

    // The splitter finds it in a file, too.
    let records: Vec<_> =
        RecordReader::new(PRINTED_DISCLOSURE.as_bytes(), 10_000).collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(findings(Kind::Disclosure, std::str::from_utf8(&records[0].bytes).unwrap()).len(), 6);
}

#[test]
fn the_printed_audit_record_is_accepted_without_a_remark() {
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Auditlog, &rules);
    for record in RecordReader::new(PRINTED_AUDIT_RECORDS.as_bytes(), 10_000) {
        let RawRecord { bytes, at } = record.unwrap();
        assert_eq!(builder.push(&bytes, "os2faktor:18697", at), Judged::Accepted(vec![]));
    }
    let rows = builder.finish();
    assert_eq!(rows.num_rows(), 1);
    assert_eq!(text(&rows, "cpr").unwrap(), "0101018081");
    assert_eq!(text(&rows, "detailContent").unwrap(), "<?xml …");
    assert_eq!(text(&rows, "performerName"), None);
    assert_eq!(text(&rows, "remarks"), None);
    assert_eq!(text(&rows, "origin").unwrap(), "os2faktor:18697");
    assert_eq!(rows["sourceId"].as_primitive::<Int64Type>().value(0), 18697);
    assert_eq!(rows["personId"].as_primitive::<Int64Type>().value(0), 340);
    assert!(rows["performerId"].is_null(0));
    let occurred_at = rows["occurred_at"].as_primitive::<TimestampMicrosecondType>().value(0);
    assert_eq!(crate::time::format_local(occurred_at), "2022-07-26T06:50:55");
}

#[test]
fn errors_and_remarks_of_a_disclosure() {
    assert_eq!(rules_of(Kind::Disclosure, &disclosure()), [] as [&str; 0]);
    for (field, value, expected) in [
        ("person", json!(null), "error person: required"),
        ("person", json!(25_922_947_409_u64), "error person: type"),
        ("person", json!("2592294740"), "error person: digits"),
        ("person", json!("2592294740٣"), "error person: digits"),
        ("person", json!(""), "error person: digits"),
        ("person", json!("25922947408"), "remark person: check-digit"),
        ("mottaker", json!("99182582"), "error mottaker: digits"),
        ("mottaker", json!("991825828"), "remark mottaker: check-digit"),
        ("tema", json!("AB"), "error tema: length"),
        ("tema", json!("ABCD"), "error tema: length"),
        ("tema", json!(true), "error tema: type"),
        ("behandlingsGrunnlag", json!(""), "error behandlingsGrunnlag: length"),
        ("behandlingsGrunnlag", json!("ø".repeat(101)), "remark behandlingsGrunnlag: length"),
        ("behandlingsGrunnlag", json!("ø".repeat(1_001)), "error behandlingsGrunnlag: length"),
        ("behandlingsGrunnlag", json!([["x"]]), "error behandlingsGrunnlag: type"),
        ("uthentingsTidspunkt", json!("2018-10-19"), "error uthentingsTidspunkt: time"),
        ("uthentingsTidspunkt", json!("2018-10-19T12:24:21Z"), "error uthentingsTidspunkt: time"),
        ("uthentingsTidspunkt", json!(""), "error uthentingsTidspunkt: time"),
        ("uthentingsTidspunkt", json!("1989-12-31T23:59:59"), "remark uthentingsTidspunkt: past"),
        ("leverteData", json!(""), "error leverteData: length"),
        ("leverteData", json!({"a": 1}), "error leverteData: type"),
        ("leverteData", json!("{\"a\": 1}"), "remark leverteData: base64"),
        ("leverteData", json!(STANDARD.encode("{")), "remark leverteData: payload-json"),
        ("leverteData", json!(STANDARD.encode(b"\"\xff\"")), "remark leverteData: payload-json"),
        ("samtykkeToken", json!("x".repeat(1_001)), "remark samtykkeToken: length|remark samtykkeToken: jwt"),
        ("samtykkeToken", json!("x".repeat(16_385)), "error samtykkeToken: length|remark samtykkeToken: jwt"),
        ("samtykkeToken", json!(1), "error samtykkeToken: type"),
        ("dataForespoersel", json!("ø".repeat(100_001)), "remark dataForespoersel: length"),
        ("leverandoer", json!("991825828"), "remark leverandoer: check-digit"),
        ("extra", json!(1), "remark extra: unknown-field"),
    ] {
        let found = rules_of(Kind::Disclosure, &with(disclosure(), field, value.clone()));
        assert_eq!(found.join("|"), expected, "{field} {}", shown(&value.to_string()));
    }
    for (field, value) in [
        ("tema", json!("ÆØÅ")),
        ("behandlingsGrunnlag", json!("ø".repeat(100))),
        ("dataForespoersel", json!("ø".repeat(100_000))),
        ("uthentingsTidspunkt", json!("2018-10-19 12:24")),
        ("samtykkeToken", json!(null)),
        ("leverandoer", json!("889640782")),
        ("leverteData", json!(URL_SAFE_NO_PAD.encode("[\"~~???\"]"))),
    ] {
        let found = rules_of(Kind::Disclosure, &with(disclosure(), field, value.clone()));
        assert_eq!(found.join("|"), "", "{field} {value}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    assert_eq!(
        findings(
            Kind::Disclosure,
            "{\"tema\": 1,\n \"person\": \"x\", \"tema\": \"ABC\", \"ø\": 1, \"y\" :2}"
        ),
        [
            "2:17 error tema: duplicate",
            "1:1 error mottaker: required",
            "1:10 error tema: type",
            "1:1 error behandlingsGrunnlag: required",
            "1:1 error uthentingsTidspunkt: required",
            "1:1 error leverteData: required",
            "2:12 error person: digits",
            "2:32 remark ø: unknown-field",
            "2:40 remark y: unknown-field",
        ]
    );
}

#[test]
fn limits_are_settings() {
    for (limit, length, expected) in [(50, 50, ""), (50, 51, "error"), (2_000, 2_000, "remark")] {
        let disclosure_limits =
            DisclosureLimits { behandlingsGrunnlag: limit, ..DisclosureLimits::default() };
        let rules = Rules { disclosure: disclosure_limits, ..Rules::default() };
        let record = with(disclosure(), "behandlingsGrunnlag", json!("x".repeat(length)));
        let found = brief(&push(Kind::Disclosure, &rules, &record.to_string()).0).join("|");
        assert_eq!(found.split(' ').nth(1).unwrap_or_default(), expected, "{found}");
    }
    let rules = Rules { max_record_bytes: 400, ..Rules::default() };
    let long = disclosure().to_string() + &" ".repeat(400);
    assert_eq!(brief(&push(Kind::Disclosure, &rules, &long).0), ["1:1 error : record-size"]);
    let now = chrono::NaiveDate::from_ymd_opt(2018, 10, 19).unwrap().and_hms_opt(12, 24, 21).unwrap();
    let rules = Rules { now, ..Rules::default() };
    let judged = push(Kind::Disclosure, &rules, &disclosure().to_string()).0;
    assert_eq!(brief(&judged), ["1:152 remark uthentingsTidspunkt: future"]);
}

/// The sizes at which a remark and an error begin, by a text of three bytes a character and by one of one.
#[test]
fn data_may_be_longer_than_the_document_says() {
    let data = |length: usize| "{".to_owned() + &"€".repeat(length - 1);
    let base64 = "AAAA".repeat((16 << 20) / 4);
    let remarked = "remark leverteData: length";
    for (value, expected) in [
        (data(1_000_000), "remark leverteData: base64".to_owned()),
        (data(1_000_001), format!("{remarked}|remark leverteData: base64")),
        (base64.clone(), format!("{remarked}|remark leverteData: payload-json")),
        (base64 + "AAAA", "error leverteData: length|remark leverteData: payload-json".to_owned()),
    ] {
        let record = with(disclosure(), "leverteData", json!(value));
        assert_eq!(rules_of(Kind::Disclosure, &record).join("|"), expected, "{} bytes", value.len());
    }
    let record = with(disclosure(), "dataForespoersel", json!("x".repeat((16 << 20) + 1)));
    assert_eq!(rules_of(Kind::Disclosure, &record), ["error dataForespoersel: length"]);
}

#[test]
fn what_nobody_sees_refuses_a_record_where_it_identifies_and_else_is_remarked_on() {
    for (field, text, expected) in [
        ("samaccountName", "ky\u{200b}", "error samaccountName: invisible"),
        ("message", "no\u{feff}te", "remark message: invisible"),
        ("personName", "\u{81}", "remark personName: invisible"),
        ("detailContent", "two\nlines\tof text – „ærsag“", ""),
    ] {
        let found = rules_of(Kind::Auditlog, &with(audit(), field, json!(text)));
        assert_eq!(found.join("|"), expected, "{field}");
    }
}

#[test]
fn an_empty_optional_text_is_absent() {
    let mut record = disclosure();
    for field in ["samtykkeToken", "dataForespoersel", "leverandoer"] {
        record = with(record, field, json!(""));
    }
    assert_eq!(rules_of(Kind::Disclosure, &record), [] as [&str; 0]);
    assert_eq!(row(Kind::Disclosure, &record), row(Kind::Disclosure, &disclosure()));
}

#[test]
fn an_unknown_field_that_is_null_is_absent() {
    for kind in [Kind::Disclosure, Kind::Auditlog] {
        let known = if kind == Kind::Disclosure { disclosure() } else { audit() };
        let record = with(known.clone(), "somethingElse", json!(null));
        assert_eq!(rules_of(kind, &record), [] as [&str; 0]);
        assert_eq!(row(kind, &record), row(kind, &known));
        // One of several.
        let record = with(record, "somethingMore", json!({"a": null}));
        assert_eq!(rules_of(kind, &record), ["remark somethingMore: unknown-field"]);
        assert_eq!(text(&row(kind, &record), "extra").as_deref(), Some(r#"{"somethingMore":{"a":null}}"#));
    }
}

#[test]
fn payloads_come_back_as_they_were_given() {
    for payload in ["{}", "[1,2]", "\"æ\"", "{\"a\":1}"] {
        let standard = STANDARD.encode(payload);
        let rows = row(Kind::Disclosure, &with(disclosure(), "leverteData", json!(standard)));
        assert_eq!(rows["leverteData"].as_binary::<i32>().value(0), payload.as_bytes());
        assert_eq!(text(&rows, "leverteDataEncoding").as_deref(), Some("base64"));
    }
    // Base64 that another writer made is kept as text.
    let wrapped = format!("{}\r\n", STANDARD.encode("[1,2]"));
    for other in [wrapped.as_str(), "WzEsMl0", "WzEsMl1", "e30"] {
        let rows = row(Kind::Disclosure, &with(disclosure(), "leverteData", json!(other)));
        assert_eq!(rows["leverteData"].as_binary::<i32>().value(0), other.as_bytes());
        assert_eq!(text(&rows, "leverteDataEncoding"), None);
    }
}

#[test]
fn a_consent_token_is_judged_with_its_disclosure() {
    let claims = json!({
        "OfferedBy": "21818297804", "CoveredBy": "991825827", "ValidToDate": "18.06.2017 16:40:52",
    });
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(claims));
    let record = with(disclosure(), "samtykkeToken", json!(token));
    let expected = ["remark samtykkeToken: consent-person", "remark samtykkeToken: consent-expired"];
    assert_eq!(rules_of(Kind::Disclosure, &record), expected);

    let keys = br#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
    let keys = crate::jose::KeySet::from_jwks(keys).unwrap();
    let rules = Rules { consent_keys: Some(Arc::new(keys)), ..Rules::default() };
    let (judged, _) = push(Kind::Disclosure, &rules, &record.to_string());
    assert!(brief(&judged).last().unwrap().ends_with("consent-signature"));
}

#[test]
fn errors_and_remarks_of_an_audit_record() {
    assert_eq!(rules_of(Kind::Auditlog, &audit()), [] as [&str; 0]);
    for (field, value, expected) in [
        ("tts", json!(null), "remark tts: required"),
        ("tts", json!(""), "error tts: time"),
        ("tts", json!("2022-07-26"), "error tts: time"),
        ("tts", json!(1_658_818_255), "error tts: type"),
        ("logAction", json!(null), "error logAction: required"),
        ("logAction", json!(""), "error logAction: required"),
        ("logAction", json!(1), "error logAction: type"),
        ("personId", json!("340"), "error personId: type"),
        ("performerId", json!(1.5), "error performerId: type"),
        ("id", json!(u64::MAX), "error id: type"),
        ("detailType", json!("xml"), "remark detailType: detail-type"),
        ("detailContent", json!({}), "error detailContent: type"),
        ("cpr", json!("010101-8081"), "remark cpr: cpr"),
        ("cpr", json!(101_018_081), "error cpr: type"),
        ("Message", json!("x"), "remark Message: unknown-field"),
    ] {
        let found = rules_of(Kind::Auditlog, &with(audit(), field, value.clone()));
        assert_eq!(found.join("|"), expected, "{field} {value}");
    }
    for (field, value) in [("cpr", json!("")), ("detailType", json!("TEXT")), ("id", json!(null))] {
        let found = rules_of(Kind::Auditlog, &with(audit(), field, value.clone()));
        assert_eq!(found.join("|"), "", "{field} {value}");
    }
    let rows = row(Kind::Auditlog, &with(audit(), "tts", json!(null)));
    assert!(rows["occurred_at"].is_null(0));
}

#[test]
fn the_upstreams_id_is_the_source_id() {
    let source_id = |record: Value| row(Kind::Auditlog, &record)["sourceId"].clone();
    let value = |record: Value| source_id(record).as_primitive::<Int64Type>().value(0);
    assert_eq!(value(audit()), 7);
    assert_eq!(value(json!({"sourceId": 8, "logAction": "X", "tts": null})), 8);
    assert_eq!(value(json!({"id": null, "sourceId": -8, "logAction": "X"})), -8);
    assert!(source_id(json!({"logAction": "X"})).is_null(0));

    let same = with(audit(), "sourceId", json!(7));
    assert_eq!(rules_of(Kind::Auditlog, &same), [] as [&str; 0]);
    let both = with(audit(), "sourceId", json!(8));
    assert_eq!(rules_of(Kind::Auditlog, &both), ["remark sourceId: source-id"]);
    assert_eq!(value(both.clone()), 7);
    assert_eq!(text(&row(Kind::Auditlog, &both), "extra").unwrap(), "{\"sourceId\":8}");
}

#[test]
fn unknown_fields_are_kept_in_their_order_and_as_they_are() {
    let record = r#"{"logAction": "X", "b": [1, 1e400, -0.10], "tts": "2022-07-26T06:50:55", "a\"": { "x" : "\u00e6 y" }}"#;
    let (judged, rows) = push(Kind::Auditlog, &Rules::default(), record);
    assert_eq!(brief(&judged), ["1:20 remark b: unknown-field", "1:74 remark a\": unknown-field"]);
    assert_eq!(text(&rows, "extra").unwrap(), r#"{"b":[1,1e400,-0.10],"a\"":{"x":"\u00e6 y"}}"#);

    let many: Vec<String> = (0..1_000).map(|n| format!("\"f{n}\":{n}")).collect();
    let record = format!("{{\"logAction\":\"X\",{}}}", many.join(","));
    let (judged, rows) = push(Kind::Auditlog, &Rules::default(), &record);
    let Judged::Accepted(findings) = judged else { panic!("{judged:?}") };
    assert_eq!(findings.len(), 52, "tts, 50 fields, and how many more");
    assert_eq!(findings[51].text, "950 more fields are unknown, and kept");
    assert_eq!(text(&rows, "extra").unwrap(), format!("{{{}}}", many.join(",")));
}

#[test]
fn what_is_not_well_formed_is_refused_where_it_is_not() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let deep = format!("{{\"logAction\":\"X\",\"tts\":\"2022-07-26T06:50\",\"x\":{}}}", nested(200_000));
    let deep_known = format!("{{\"tts\":\"2022-07-26T06:50\",\"logAction\":{}}}", nested(200_000));
    for (record, expected) in [
        ("", "1:1 error : json"),
        (" \n ", "2:2 error : json"),
        ("[]", "1:1 error : object"),
        ("\"x\"", "1:1 error : object"),
        ("// x\n[]", "1:1 remark : comments|2:1 error : object"),
        ("{\"logAction\": \"X\"", "1:17 error : json"),
        ("{\"logAction\": \"X\"} {}", "1:20 error : json"),
        ("{\"logAction\": \"X\"}\0", "1:19 error : json"),
        ("{\"logAction\": \"ø\0\"}", "1:17 error : json"),
        ("{\"logAction\": \"X\",\n \"æ\": x}", "2:7 error : json"),
        ("{\"logAction\": \"\\ud83d\"}", "1:22 error : json"),
        (
            "{\"logAction\": \"X\", \"tts\": null, \"x\": [\"\\ude00\"]}",
            "1:27 remark tts: required|1:33 remark x: unknown-field|1:38 error x: json",
        ),
        ("{\"\\ud83d\": 1}", "1:9 error : json"),
        ("{\"a\": 1, // x\n \"b\": }", "1:10 remark : comments|2:7 error : json"),
        (&deep, "1:43 remark x: unknown-field|1:47 error x: depth"),
        (&deep_known, "1:39 error logAction: type"),
        (&nested(200_000), "1:1 error : object"),
        (
            "{\"logAction\":\"X\",\"tts\":\"2022-07-26T06:50\",\"x\":1,\"x\":1}",
            "1:49 error x: duplicate|1:43 remark x: unknown-field",
        ),
    ] {
        let (judged, rows) = push(Kind::Auditlog, &Rules::default(), record);
        assert!(matches!(judged, Judged::Refused(_)), "{}", shown(record));
        assert_eq!(brief(&judged).join("|"), expected, "{}", shown(record));
        assert_eq!(rows.num_rows(), 0);
    }
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Auditlog, &rules);
    let judged = builder.push(b"{\n\"\xc3\xa6\": \"\xe6\"}", "x", Position { line: 7, column: 1 });
    assert_eq!(brief(&judged), ["8:7 error : encoding"]);
}

#[test]
fn a_nul_that_is_escaped_is_a_character() {
    let rows = row(Kind::Auditlog, &with(audit(), "message", json!("a\0b")));
    assert_eq!(text(&rows, "message").unwrap(), "a\0b");
    let marked = format!("\u{feff}{}", audit());
    assert_eq!(findings(Kind::Auditlog, &marked), [] as [&str; 0]);
}

#[test]
fn positions_are_those_of_the_source() {
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Auditlog, &rules);
    let at = Position { line: 9, column: 5 };
    let judged = builder.push("{\"message\": \"æ\", \"logAction\":\n  1, \"tts\": 2}".as_bytes(), "x", at);
    assert_eq!(brief(&judged), ["10:13 error tts: type", "10:3 error logAction: type"]);
    let judged = builder.push("{\"message\": \"æ\", \"tts\": 2}".as_bytes(), "x", at);
    assert_eq!(brief(&judged), ["9:29 error tts: type", "9:5 error logAction: required"]);
}

#[test]
fn findings_give_no_personal_number_away() {
    let record = json!({
        "person": "12345678901", "mottaker": "12345678901", "leverandoer": "1234567890",
        "12345678901": 1, "tema": "12345678901",
    });
    let (judged, _) = push(Kind::Disclosure, &Rules::default(), &record.to_string());
    assert!(!format!("{judged:?}").contains("345678"), "{judged:?}");
    let (judged, _) = push(Kind::Disclosure, &Rules::default(), "\"12345678901\"");
    assert!(!format!("{judged:?}").contains("345678"), "{judged:?}");
}

#[test]
fn a_builder_can_be_used_again() {
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Disclosure, &rules);
    for _ in 0..2 {
        assert_eq!((builder.rows(), builder.bytes()), (0, 0));
        builder.push(disclosure().to_string().as_bytes(), "x", START);
        builder.push(b"{}", "x", START);
        builder.push(disclosure().to_string().as_bytes(), "x", START);
        assert_eq!(builder.rows(), 2);
        assert!(builder.bytes() > 2 * disclosure().to_string().len());
        assert_eq!(builder.finish().num_rows(), 2);
    }
    let mut none = RowsBuilder::new(Kind::Revision, &rules);
    assert_eq!(brief(&none.push(b"{}", "x", START)), ["1:1 error : kind"]);
    assert_eq!(none.finish().num_rows(), 0);
}

/// Texts that are nearly records.
fn nearly_a_record() -> impl Strategy<Value = Vec<u8>> {
    let columns = [Kind::Disclosure, Kind::Auditlog].into_iter().flat_map(Kind::columns);
    let names = columns.map(|column| column.name).chain(["id"]);
    let name = prop::sample::select(names.collect::<Vec<_>>()).prop_map(str::to_owned);
    let value = prop_oneof![
        Just("null".to_owned()),
        "-?[0-9]{1,25}",
        "\"[0-9]{9,11}\"",
        "\"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]\"",
        "\"[A-Za-z0-9+/=_.-]{0,20}\"",
        "\"\\PC{0,9}\"",
        "[\\[\\]{}\",:/0\\\\]{0,9}",
    ];
    let member = (prop_oneof![4 => name, 1 => "\\PC{0,3}"], value);
    prop::collection::vec(member, 0..12).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_judged(
        record in prop_oneof![nearly_a_record(), prop::collection::vec(any::<u8>(), 0..60)],
        cut in 0..300_usize,
    ) {
        let rules = Rules { max_record_bytes: 500, ..Rules::default() };
        for kind in [Kind::Disclosure, Kind::Auditlog] {
            let mut builder = RowsBuilder::new(kind, &rules);
            let mut accepted = 0;
            for bytes in [&record[..], &record[..cut.min(record.len())]] {
                match builder.push(bytes, "x", START) {
                    Judged::Accepted(findings) => {
                        accepted += 1;
                        prop_assert!(findings.iter().all(|f| f.severity == Severity::Remark));
                    }
                    Judged::Refused(findings) => {
                        prop_assert!(findings.iter().any(|f| f.severity == Severity::Error));
                    }
                }
            }
            prop_assert_eq!(builder.finish().num_rows(), accepted);
        }
    }

    #[test]
    fn whatever_a_payload_is_it_is_given_out_as_it_came(payload in ".{1,40}|[A-Za-z0-9+/]{4,40}={0,2}") {
        let rows = row(Kind::Disclosure, &with(disclosure(), "leverteData", json!(payload)));
        let stored = rows["leverteData"].as_binary::<i32>().value(0);
        let given_out = match text(&rows, "leverteDataEncoding") {
            Some(_) => STANDARD.encode(stored),
            None => String::from_utf8(stored.to_vec()).unwrap(),
        };
        prop_assert_eq!(given_out, payload);
    }

    #[test]
    fn texts_are_stored_as_they_were_given(message in any::<String>()) {
        let rows = row(Kind::Auditlog, &with(audit(), "message", json!(message)));
        prop_assert_eq!(text(&rows, "message"), Some(message));
    }
}
