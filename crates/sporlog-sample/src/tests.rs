//! What a sample promises, whatever the kind.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{NaiveDate, NaiveDateTime};
use serde_json::Value;
use sporlog_record::Kind;
use sporlog_record::identifier::{cpr, cvr, fodselsnummer, is_ip_or_integer, is_uuid, organisasjonsnummer};
use sporlog_record::kind::REVISION_COLUMNS;

use super::*;

fn options(kind: Kind, records: u64) -> Options {
    let day = NaiveDate::from_ymd_opt(2024, 11, 13).expect("a date");
    Options { kind, records, seed: 7, faulty: 0.0, day, days: 1 }
}

fn sample(options: &Options) -> Vec<u8> {
    let mut out = Vec::new();
    write(options, &mut out, &|_| {}).expect("written");
    out
}

fn lines(options: &Options) -> Vec<Value> {
    let text = String::from_utf8(sample(options)).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Reads CSV whose fields are all quoted; panics where it is none.
fn rows(csv: &[u8]) -> Vec<Vec<String>> {
    let text = std::str::from_utf8(csv).expect("UTF-8");
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.strip_prefix('"').expect("an opening quotation mark");
        let mut field = String::new();
        loop {
            let end = rest.find('"').expect("a closing quotation mark");
            field.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    rest = after;
                }
                None => break,
            }
        }
        row.push(field);
        if let Some(after) = rest.strip_prefix('\n') {
            rows.push(std::mem::take(&mut row));
            rest = after;
        } else {
            rest = rest.strip_prefix(',').expect("a comma or a line end");
        }
    }
    rows
}

fn column(name: &str) -> usize {
    REVISION_COLUMNS.iter().position(|column| *column == name).expect("a column")
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().expect("a string")
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for kind in Kind::DELIVERED {
        let options = options(kind, 500);
        assert_eq!(sample(&options), sample(&options), "{kind}");
        assert_ne!(sample(&options), sample(&Options { seed: 8, ..options.clone() }), "{kind}");
    }
}

#[test]
fn progress_ends_with_the_number_of_records() {
    for kind in Kind::DELIVERED {
        let (last, calls) = (Cell::new(0), Cell::new(0));
        write(&options(kind, 15_000), &mut std::io::sink(), &|done| {
            assert!(done >= last.get());
            last.set(done);
            calls.set(calls.get() + 1);
        })
        .expect("written");
        assert_eq!(last.get(), 15_000);
        assert!(calls.get() > 2, "{kind}: told {} times", calls.get());
    }
}

#[test]
fn the_smallest_samples_come_out() {
    for kind in Kind::DELIVERED {
        for records in [0, 1, 2] {
            let options = Options { days: 0, faulty: 1.0, ..options(kind, records) };
            let header = u64::from(kind == Kind::Revision);
            let found = sample(&options).iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!(found >= records + header, "{kind}, {records}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |options: &Options| write(options, &mut Vec::new(), &|_| {}).is_err();
    assert!(refused(&options(Kind::Quarantine, 1)));
    assert!(refused(&Options { days: u32::MAX, ..options(Kind::Revision, 1) }));
    assert!(refused(&Options { day: NaiveDate::MAX, days: 2, ..options(Kind::Revision, 1) }));
}

#[test]
fn every_row_has_every_column_even_when_faulty() {
    for faulty in [0.0, 0.5, 1.0] {
        let rows = rows(&sample(&Options { faulty, ..options(Kind::Revision, 3_000) }));
        assert_eq!(rows.len(), 3_001);
        assert_eq!(rows[0], REVISION_COLUMNS);
        assert!(rows.iter().all(|row| row.len() == REVISION_COLUMNS.len()));
    }
}

#[test]
fn rows_are_what_the_spec_asks_for() {
    let rows = rows(&sample(&options(Kind::Revision, 3_000)));
    let mut citizens = HashMap::<_, u32>::new();
    for row in &rows[1..] {
        for required in &row[..5] {
            assert!(!required.is_empty());
        }
        let caller = &row[column("KalderOrganisation")];
        assert!(caller.len() == 8 && cvr::is_valid(caller), "{caller}");
        let citizen = &row[column("BorgerId")];
        assert!(citizen.is_empty() || cpr::is_masked_or_plain(citizen), "{citizen}");
        let address = &row[column("KalderIP")];
        assert!(is_ip_or_integer(address), "{address}");
        for id in ["BrugerId", "KalderItSystemInstans", "LogId", "ServiceAftaleUUID"] {
            assert!(is_uuid(row[column(id)].as_bytes()), "{id}");
        }
        *citizens.entry(&row[column("PartId")]).or_default() += 1;
        if !citizen.is_empty() {
            assert!(!row[column("PartId")].is_empty());
            assert!(citizen.as_str() >= "6", "the day is one that none has: {citizen}");
        }
    }
    assert!(citizens.len() > 100 && citizens.len() < 1_000, "{} citizens", citizens.len());
    let callers: HashSet<_> = rows[1..].iter().map(|row| &row[column("KalderOrganisation")]).collect();
    assert!(callers.len() > 50 && callers.len() <= 98, "{} municipalities", callers.len());
}

#[test]
fn rows_come_in_the_order_of_time() {
    let rows = rows(&sample(&Options { days: 9, ..options(Kind::Revision, 3_000) }));
    let times: Vec<_> = rows[1..]
        .iter()
        .filter_map(|row| {
            NaiveDateTime::parse_from_str(&row[column("TransaktionsTid")], "%d-%b-%Y %H.%M.%S.%f").ok()
        })
        .collect();
    assert!(times.len() > 1_500, "most are in this form: {}", times.len());
    assert!(times.is_sorted());
    let days: HashSet<_> = times.iter().map(NaiveDateTime::date).collect();
    assert!(days.len() >= 7, "{} days", days.len());
}

#[test]
fn disclosures_are_what_the_spec_asks_for() {
    let records = lines(&options(Kind::Disclosure, 1_500));
    assert_eq!(records.len(), 1_500);
    let mut last = String::new();
    for record in &records {
        let person = text(record, "person");
        assert!(person.len() == 11 && fodselsnummer::is_valid(person), "{person}");
        assert!(("81"..="92").contains(&&person[2..4]), "of the synthetic series: {person}");
        assert!(organisasjonsnummer::is_valid(text(record, "mottaker")));
        assert_eq!(text(record, "tema").chars().count(), 3);
        assert!((1..=100).contains(&text(record, "behandlingsGrunnlag").chars().count()));
        let time = text(record, "uthentingsTidspunkt");
        assert!(time >= last.as_str());
        last = time.to_owned();
        let delivered = STANDARD.decode(text(record, "leverteData")).expect("Base64");
        serde_json::from_slice::<Value>(&delivered).expect("JSON");
        if let Some(supplier) = record.get("leverandoer") {
            assert!(organisasjonsnummer::is_valid(supplier.as_str().expect("a string")));
        }
    }
}

#[test]
fn consent_tokens_agree_with_their_record() {
    let mut shapes = [0; 2];
    for record in lines(&options(Kind::Disclosure, 1_500)) {
        let Some(token) = record.get("samtykkeToken") else { continue };
        let token = token.as_str().expect("a string");
        assert!(token.len() <= 1_000, "{} characters", token.len());
        let parts: Vec<_> =
            token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("Base64 for URLs")).collect();
        assert_eq!(parts.len(), 3);
        let claims: Value = serde_json::from_slice(&parts[1]).expect("JSON");
        let (person, recipient) = (text(&record, "person"), text(&record, "mottaker"));
        let (given, until) = if let Some(consent) = claims["authorization_details"].get(0) {
            shapes[0] += 1;
            assert_eq!(text(consent, "from"), format!("urn:altinn:person:identifier-no:{person}"));
            assert_eq!(text(&consent["to"], "ID"), format!("0192:{recipient}"));
            (text(consent, "consented"), text(consent, "validTo"))
        } else {
            shapes[1] += 1;
            assert_eq!(text(&claims, "OfferedBy"), person);
            assert_eq!(text(&claims, "CoveredBy"), recipient);
            (text(&claims, "DelegatedDate"), text(&claims, "ValidToDate"))
        };
        let handed_out = text(&record, "uthentingsTidspunkt");
        assert!(given < handed_out && handed_out < until, "{given} {handed_out} {until}");
    }
    assert!(shapes.iter().all(|count| *count > 200), "{shapes:?}");
}

#[test]
fn audit_records_have_all_members_and_ascend() {
    let records = lines(&options(Kind::Auditlog, 2_000));
    assert_eq!(records.len(), 2_000);
    let mut last = (0, String::new());
    let mut sessions = HashMap::<_, Vec<_>>::new();
    for record in &records {
        assert_eq!(record.as_object().map(|members| members.len()), Some(16));
        let next = (record["id"].as_u64().expect("a number"), text(record, "tts").to_owned());
        assert!(next.0 > last.0 && next.1 >= last.1);
        last = next;
        sessions.entry(text(record, "correlationId")).or_default().push(text(record, "logAction"));
    }
    assert!(last.0 > 2_000, "ids skip");
    for session in sessions.values() {
        assert!(matches!(session[0], "LOGIN" | "WRONG_PASSWORD"), "{session:?}");
        let ends = session.iter().position(|action| matches!(*action, "LOGOUT" | "SESSION_EXPIRED"));
        assert!(ends.is_none_or(|at| at == session.len() - 1), "{session:?}");
    }
    let tokens = records.iter().filter(|record| record["detailType"] == "XML").count();
    assert!(tokens > 300, "{tokens} tokens");
}

#[test]
fn faults_change_nothing_else() {
    for kind in Kind::DELIVERED {
        let good = options(kind, 2_000);
        let bad = Options { faulty: 0.05, ..good.clone() };
        let split = |bytes: Vec<u8>| -> Vec<Vec<u8>> {
            bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
        };
        let (good, bad) = (split(sample(&good)), split(sample(&bad)));
        assert_eq!(good.len(), bad.len(), "{kind}");
        let changed = good.iter().zip(&bad).filter(|(good, bad)| good != bad).count();
        assert!((60..140).contains(&changed), "{kind}: {changed} of 2000");
    }
}
