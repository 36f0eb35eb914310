//! Files that are wrong, whole or in part.

use serde_json::Value;

use crate::rows::{HEADER, csv, each, numbers, row};
use crate::site::{DELIVERS, SUPPLIER, Site, wait};

/// The file that was kept aside for this delivery.
fn kept(site: &Site, receipt: &Value) -> Vec<u8> {
    let id = receipt["delivery"].as_str().expect("an id");
    let folder = site.home(SUPPLIER).join(".sporlog/refused").join(id).join("file");
    // That is the last that is done with it, when the receipt is there.
    let name = wait("it is kept aside", || Site::names(&folder).pop());
    std::fs::read(folder.join(name)).expect("kept")
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("ISO 8859-1")).collect()
}

/// In its last row, half a character.
fn broken(text: &str) -> Vec<u8> {
    let at = text.rfind("n=").expect("a row");
    [&text.as_bytes()[..at], b"\xe2\x82\"\n"].concat()
}

fn utf16(text: &str) -> Vec<u8> {
    [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn bad_files_are_refused_whole_and_say_why() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nfile_bytes = 1_000_000\n");
    let server = site.serve();
    let good = csv(0..50);
    let danish = good.replacen("n=49", "Søgning", 1);
    let long = "x".repeat(1_100_000);
    // The file, the line that is named, and what is said.
    let files: Vec<(&str, Vec<u8>, u64, &str)> = vec![
        ("no-header.csv", (row(1) + "\n" + &row(2) + "\n").into(), 1, "header"),
        ("column-missing.csv", good.replacen("BrugerId", "Bruger", 1).into(), 1, "BrugerId"),
        ("column-twice.csv", good.replacen("Note", "brugerid", 1).into(), 1, "twice"),
        ("narrow-row.csv", (csv(0..3) + "\"a\",\"b\"\n" + &row(4) + "\n").into(), 5, "2 columns"),
        ("wide-row.csv", (csv(0..2) + &row(2) + ",\"more\"\n" + &row(3) + "\n").into(), 4, "9 columns"),
        ("cut-off.csv", good.as_bytes()[..good.len() - 30].to_vec(), 51, "cut off"),
        ("not-utf-8.csv", broken(&good), 51, "UTF-8"),
        ("latin-1.csv", latin1(&danish), 51, "ISO 8859-1"),
        ("utf-16.csv", utf16(&good), 1, "UTF-16"),
        ("semicolons.csv", good.replace("\",\"", "\";\"").into(), 1, "semicolons"),
        ("tabs.csv", good.replace("\",\"", "\"\t\"").into(), 1, "tabs"),
        ("empty.csv", Vec::new(), 1, "empty"),
        ("only-a-mark.csv", "\u{feff}".into(), 1, "empty"),
        ("open-quote.csv", good.replacen("\"n=7\"", "\"n=7", 1).into(), 9, "quote"),
        ("zeros.csv", (csv(0..2) + &"\0".repeat(4_096)).into(), 4, "cut off"),
        ("garbage.csv", (0..=255).cycle().take(10_000).collect(), 1, ""),
        ("a.zip", b"PK\x03\x04 is no CSV".to_vec(), 1, ""),
    ];
    let batch: String = files
        .iter()
        .map(|(name, content, ..)| format!("put {} ind/\n", site.file(name, content).display()))
        .collect();
    site.client(SUPPLIER).sftp(&batch).ok();
    for (name, content, line, said) in &files {
        let receipt = site.receipt(name);
        assert_eq!(receipt["outcome"], "refused", "{receipt}");
        assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&0.into(), &0.into()), "{receipt}");
        let why = &receipt["refused"][0];
        assert_eq!(why["line"], *line, "{receipt}");
        assert!(why["text"].as_str().is_some_and(|text| text.contains(said)), "{said:?}: {receipt}");
        assert_eq!(&kept(&site, &receipt), content, "{name}");
        let text = format!("kvittering/{name}.kvittering.txt");
        let text = std::fs::read_to_string(site.home(SUPPLIER).join(text)).expect("its text");
        assert!(text.contains("refused") && text.contains(&format!("line {line},")), "{text}");
    }
    // Over the size: the server does not let it come in, or it is refused with a receipt.
    let file = site.file("too-large.csv", format!("{HEADER}\n\"{long}\"\n"));
    let put = site.client(SUPPLIER).sftp(&format!("put {} ind/", file.display()));
    if put.ok {
        assert_eq!(site.receipt("too-large.csv")["outcome"], "refused");
    }
    assert!(site.entries("revision").is_empty());
    let taken = site.home(SUPPLIER).join(".sporlog/taken");
    wait("all is dealt with", || Site::names(&taken).is_empty().then_some(()));
    // The supplier sees neither what was kept nor that there is such a folder.
    assert_eq!(site.client(SUPPLIER).list("/"), ["ind", "kvittering"]);
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn what_is_doubtful_is_accepted_and_remarked_on() {
    let site = Site::new();
    let _server = site.serve();
    let supplier = site.client(SUPPLIER);
    let files = [
        ("header-only.csv", format!("{HEADER}\n"), 0, 0),
        ("mark.csv", format!("\u{feff}{}", csv(0..3)), 3, 0),
        ("unquoted.csv", csv(10..13).replace('"', ""), 3, 1),
        ("unknown.csv", csv(20..23).replacen("Note", "Region", 1), 3, 1),
        ("crlf.csv", csv(30..33).replace('\n', "\r\n"), 3, 0),
        ("no-last-end.csv", csv(40..43).trim_end().to_owned(), 3, 0),
        ("name with spaces 'and' quotes.csv", csv(50..53), 3, 0),
    ];
    for (name, content, accepted, file_remarks) in &files {
        supplier.put(&site.file(name, content));
        let receipt = site.receipt(name);
        assert_eq!(receipt["outcome"], "accepted", "{receipt}");
        assert_eq!(receipt["accepted"], *accepted, "{receipt}");
        let remarks = receipt["fileRemarks"].as_array().map_or(0, Vec::len);
        assert!(remarks >= *file_remarks && (remarks > 0) == (*file_remarks > 0), "{receipt}");
    }
    assert_eq!(site.entries("revision").len(), 18);
    // Bad rows stay out alone, and the receipt says which.
    let mixed = csv(60..70).replacen("\"64942212\"", "\"6494221\"", 1).replace("2026-01-05T08:30:00\",\"4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8\",\"64942212\",\"cc038af5-0e68-43e5-bb17-957ad6f45f8e\",\"bb6e9e88-79ba-46f7-b492-000000000065", "i går\",\"4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8\",\"64942212\",\"cc038af5-0e68-43e5-bb17-957ad6f45f8e\",\"bb6e9e88-79ba-46f7-b492-000000000065");
    supplier.put(&site.file("mixed.csv", mixed));
    let receipt = site.receipt("mixed.csv");
    assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&8.into(), &2.into()), "{receipt}");
    let places: Vec<_> = receipt["quarantinedRows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["line"].as_u64(), row["field"].as_str()))
        .collect();
    assert_eq!(
        places,
        [(Some(2), Some("KalderOrganisation")), (Some(7), Some("TransaktionsTid"))],
        "{receipt}"
    );
    let stored = site.entries("revision");
    let stored: Vec<_> =
        stored.into_iter().filter(|entry| entry["record"]["Note"].to_string().contains("n=6")).collect();
    assert_eq!(numbers(&stored), each([61, 62, 63, 64, 66, 67, 68, 69], 1));
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn what_a_supplier_is_configured_to_send_is_taken() {
    let other = format!("{DELIVERS}\nencoding = \"iso-8859-1\"\nseparator = \";\"");
    let site = Site::with("settle_seconds = 1\n", &[("plain", DELIVERS), ("other", &other)]);
    let _server = site.serve();
    let content = latin1(&csv(0..4).replace("\",\"", "\";\"").replacen("n=3", "Søgning", 1));
    let file = site.file("f.csv", content);
    site.client("plain").put(&file);
    assert_eq!(site.receipts_of("plain", "f.csv", 1)[0]["outcome"], "refused");
    site.client("other").put(&file);
    let receipt = &site.receipts_of("other", "f.csv", 1)[0];
    assert_eq!(receipt["accepted"], 4, "{receipt}");
    assert!(site.entries("revision").iter().any(|entry| entry["record"]["Note"] == "Søgning"));
}
