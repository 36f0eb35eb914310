//! Downloads as they come, and names by their day.

use std::io::{Cursor, Write};

use chrono::NaiveDate;

use super::*;
use crate::source::Source;

const A: &str = "974761076";
const B: &str = "889640782";

fn take(folder: &Path, kind: NameKind, day: &str, text: impl Into<Vec<u8>>) -> Result<Imported, NamesError> {
    let today: NaiveDate = day.parse().expect("a day");
    let source = Source::stream("download", Cursor::<Vec<u8>>::new(text.into()));
    import(kind, source, folder, today, false, &|_| ())
}

fn names(folder: &Path) -> Names {
    NamesFiles::open(folder.into()).expect("read").current()
}

fn on(day: &str) -> Option<i64> {
    let day: NaiveDate = day.parse().expect("a day");
    Some(day.and_hms_opt(12, 0, 0).expect("noon").and_utc().timestamp_micros())
}

#[test]
fn enhetsregisteret_as_csv_and_as_json_gzipped() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("names");
    let csv = format!(
        "\u{feff}\"organisasjonsnummer\",\"navn\",\"organisasjonsform.kode\",\"hjemmeside\"\r\n\
         \"{A}\",\"SKATTEETATEN, \"\"SKE\"\"\",\"ORGL\",\"\"\r\n\"{B}\",\"ARBEIDS- OG\nVELFERDSETATEN (NAV)\",\"ORGL\",\"\"\r\n\
         \"123456789\",\"FALSK NUMMER\",\"AS\",\"\"\r\n"
    );
    let imported = take(&folder, NameKind::Organisations, "2026-01-01", csv).expect("taken");
    assert_eq!((imported.read, imported.new, imported.known, imported.refused), (2, 2, 2, 1), "{imported:?}");
    assert!(imported.reasons[0].contains("line 5"), "{imported:?}");
    assert_eq!(names(&folder).organisation(A, None), Some("SKATTEETATEN, \"SKE\""));
    assert_eq!(names(&folder).organisation(B, on("1999-01-01")), Some("ARBEIDS- OG VELFERDSETATEN (NAV)"));
    assert_eq!(names(&folder).organisation("000000000", None), None);

    let json = format!(
        r#"[ {{"organisasjonsnummer" : "{A}", "navn" : "SKATT", "organisasjonsform" : {{"navn" : "x"}}}},
             {{"organisasjonsnummer" : "{B}", "navn" : "ARBEIDS- OG VELFERDSETATEN (NAV)"}} ]"#
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(json.as_bytes()).expect("packed");
    let packed = packed.finish().expect("packed");
    let imported = take(&folder, NameKind::Organisations, "2026-06-01", packed).expect("taken");
    assert_eq!((imported.new, imported.changed, imported.known), (0, 1, 2), "{imported:?}");
    // The name changed between two downloads: each holds in its time.
    assert_eq!(names(&folder).organisation(A, on("2026-05-31")), Some("SKATTEETATEN, \"SKE\""));
    assert_eq!(names(&folder).organisation(A, on("2026-06-01")), Some("SKATT"));
    assert_eq!(names(&folder).organisation(A, None), Some("SKATT"));
    assert_eq!(names(&folder).count(NameKind::Organisations), 3);
}

#[test]
fn cvr_with_the_names_that_a_company_has_had() {
    let place = tempfile::tempdir().expect("a folder");
    let company = r#"{"Vrvirksomhed": {"cvrNummer": 64942212, "binavne": [{"navn": "NOT THIS"}], "navne": [
        {"navn": "Københavns Magistrat", "periode": {"gyldigFra": "1950-01-01", "gyldigTil": "1997-12-31"}},
        {"navn": "Københavns Kommune", "periode": {"gyldigFra": "1998-01-01", "gyldigTil": null}}]}}"#;
    for text in [
        company.to_owned(),
        format!("{company}\n{company}\n"),
        format!(r#"{{"hits": {{"total": 1, "hits": [{{"_source": {company}}}]}}}}"#),
        format!("[{company}]"),
    ] {
        take(place.path(), NameKind::Organisations, "2026-01-01", text).expect("taken");
        let names = names(place.path());
        assert_eq!(names.organisation("64942212", on("1990-06-01")), Some("Københavns Magistrat"));
        assert_eq!(names.organisation("64942212", on("1940-06-01")), Some("Københavns Magistrat"));
        assert_eq!(names.organisation("64942212", on("1998-01-01")), Some("Københavns Kommune"));
        assert_eq!(names.count(NameKind::Organisations), 2);
    }
    let csv = "CVR-nummer;Status;Navn;Branche\n64942212;NORMAL;Københavns Kommune;841100\n";
    let imported = take(place.path(), NameKind::Organisations, "2026-02-01", csv).expect("taken");
    assert_eq!((imported.new, imported.changed, imported.known), (0, 0, 1));
    assert_eq!(names(place.path()).organisation("64942212", on("1990-06-01")), Some("Københavns Magistrat"));
}

#[test]
fn topics_have_periods_and_systems_two_columns() {
    let place = tempfile::tempdir().expect("a folder");
    let tema = r#"{"betydninger": {
        "AAP": [{"gyldigFra": "2018-01-01", "gyldigTil": "9999-12-31", "beskrivelser": {
            "en": {"term": "Work assessment", "tekst": ""}, "nb": {"term": "Arbeidsavklaringspenger", "tekst": ""}}}],
        "GAM": [{"gyldigFra": "1900-01-01", "gyldigTil": "2019-12-31", "beskrivelser": {"nb": {"term": "Gammel"}}},
                {"gyldigFra": "2020-01-01", "gyldigTil": "9999-12-31", "beskrivelser": {"nb": {"tekst": "Ny"}}}],
        "TOM": [{"gyldigFra": "1900-01-01", "beskrivelser": {}}]}}"#;
    let imported = take(place.path(), NameKind::Topics, "2026-01-01", tema).expect("taken");
    assert_eq!((imported.read, imported.known, imported.refused), (3, 2, 1), "{imported:?}");
    assert!(imported.reasons[0].contains("TOM"), "{imported:?}");
    let names_then = names(place.path());
    assert_eq!(names_then.topic("AAP", None), Some("Arbeidsavklaringspenger"));
    assert_eq!(names_then.topic("GAM", on("2019-12-31")), Some("Gammel"));
    assert_eq!(names_then.topic("GAM", on("2020-01-01")), Some("Ny"));
    assert_eq!(names_then.system("AAP", None), None);

    let systems = "4FCFF0C2-AB6C-4B4F-86E9-0A75A0A009D8;Sagssystemet\nfagsystem 2;\"Det; andet\"\n";
    take(place.path(), NameKind::Systems, "2026-01-01", systems).expect("taken");
    let names = names(place.path());
    assert_eq!(names.system("4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8", None), Some("Sagssystemet"));
    assert_eq!(names.system("fagsystem 2", None), Some("Det; andet"));
}

#[test]
fn what_is_no_download_changes_nothing() {
    let place = tempfile::tempdir().expect("a folder");
    take(place.path(), NameKind::Topics, "2026-01-01", "AAP,Arbeidsavklaringspenger\n").expect("taken");
    let before = std::fs::read(place.path().join("topics.tsv")).expect("read");
    for (text, says) in [
        ("", "no topics"),
        ("a,b,c,d\n1,2,3,4\n", "kode"),
        ("organisasjonsnummer,navn\n974761076,SKATTEETATEN\n", "kode"),
        ("{\"enheter\": []}", "no topics"),
        ("[{\"kode\": \"AAP\", \"navn\": \"x\"", "cut off"),
        ("kode,navn\nAAP,\n", "empty name"),
        ("kode;navn;gyldigFra\nAAP;Navn;i fjor\n", "2019-05-01"),
    ] {
        let error = take(place.path(), NameKind::Topics, "2026-02-01", text).expect_err(text).to_string();
        assert!(error.contains(says) && error.contains("download"), "{text}: {error}");
    }
    let error = take(place.path(), NameKind::Organisations, "2026-02-01", "nummer,navn\n25922947409,Kari\n");
    let error = error.expect_err("a personal number").to_string();
    assert!(!error.contains("25922947409"), "{error}");
    assert_eq!(std::fs::read(place.path().join("topics.tsv")).expect("read"), before);
    assert!(!place.path().join("organisations.tsv").exists());

    let text = Source::stream("x", "kode,navn\nBAR,Barnetrygd\n".as_bytes());
    let today = NaiveDate::MIN;
    let dry = import(NameKind::Topics, text, place.path(), today, true, &|_| ()).expect("tried");
    assert_eq!((dry.new, dry.known), (1, 2));
    assert_eq!(std::fs::read(place.path().join("topics.tsv")).expect("read"), before);
}

#[test]
fn a_server_has_the_names_of_the_newest_file_and_keeps_them_if_that_is_damaged() {
    let place = tempfile::tempdir().expect("a folder");
    let files = NamesFiles::open(place.path().join("names")).expect("none");
    assert_eq!(files.current().topic("AAP", None), None);
    let folder = place.path().join("names");
    take(&folder, NameKind::Topics, "2026-01-01", "AAP,Arbeidsavklaringspenger\n").expect("taken");
    files.refresh().expect("read");
    assert_eq!(files.current().topic("AAP", None), Some("Arbeidsavklaringspenger"));
    let path = folder.join("topics.tsv");
    for damaged in [
        "",
        "x\n",
        "sporlog-names 1\nAAP\tx\n",
        "sporlog-names 1\nB\t\tb\nA\t\ta\n",
        "sporlog-names 1\nB\t\tb",
    ] {
        std::fs::write(&path, damaged).expect("written");
        assert!(files.refresh().is_err(), "{damaged}");
        assert_eq!(files.current().topic("AAP", None), Some("Arbeidsavklaringspenger"));
    }
    std::fs::remove_file(&path).expect("removed");
    files.refresh().expect("none");
    assert_eq!(files.current().topic("AAP", None), None);
}

#[test]
fn a_million_organisations_are_found_and_take_little_memory() {
    let mut text = format!("{HEAD}\n");
    for number in 0..100_000 {
        text.push_str(&format!("{}\t\tORGANISASJON NUMMER {number} AS\n", 800_000_000 + number * 7));
    }
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("organisations.tsv");
    std::fs::write(&path, &text).expect("written");
    let register = Register::load(&path).expect("read");
    // Of a million, ten times this: below 60 MB.
    assert!(register.text.capacity() + register.lines.capacity() * 4 < 6_000_000);
    assert_eq!(register.find("800000000", None), Some("ORGANISASJON NUMMER 0 AS"));
    assert_eq!(register.find("800699993", None), Some("ORGANISASJON NUMMER 99999 AS"));
    assert_eq!(register.find("800000001", None), None);
}
