//! The least configuration, from a supplier's file to its municipality's.

use std::fs;

use serde_json::Value;

use crate::client::quoted;
use crate::rows::{CVR, HEADER, OTHER_CVR, csv, csv_of, each, number, numbers, row_of};
use crate::site::{MUNICIPALITY, SUPPLIER, Site, sha256, wait};

const EXAMPLE: &str = include_str!("../data/revision_example.csv");

/// The rows of a CSV file whose texts have no quotes or line ends in them, each as its fields by name.
fn parsed(csv: &str) -> Vec<Vec<(String, String)>> {
    let split = |line: &str| -> Vec<String> {
        let inner = line.strip_prefix('"').and_then(|line| line.strip_suffix('"'));
        inner.unwrap_or_else(|| panic!("{line}")).split("\",\"").map(str::to_owned).collect()
    };
    let mut lines = csv.trim_start_matches('\u{feff}').lines();
    let header = split(lines.next().expect("a header"));
    let row = |line: &str| {
        let mut row: Vec<_> =
            header.iter().cloned().zip(split(line)).filter(|(_, text)| !text.is_empty()).collect();
        row.sort();
        row
    };
    lines.map(row).collect()
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn the_least_configuration_is_enough() {
    let site = Site::configured("");
    let server = site.serve();
    let supplier = site.client(SUPPLIER);
    assert_eq!(supplier.list("/"), ["ind", "kvittering"]);

    let content = csv_of(CVR, 0..20) + &row_of(OTHER_CVR, 20) + "\n" + &row_of(OTHER_CVR, 21) + "\n";
    supplier.put(&site.file("KY_2026-01-05.csv", &content));
    supplier.put(&site.file("eksempel.csv", EXAMPLE));
    let receipt = site.receipt("KY_2026-01-05.csv");
    assert_eq!(receipt["outcome"], "accepted", "{receipt}");
    assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&22.into(), &0.into()), "{receipt}");
    assert_eq!((&receipt["bytes"], &receipt["sha256"]), (&content.len().into(), &sha256(&content).into()));
    assert_eq!(receipt["account"], SUPPLIER);
    assert_eq!(site.receipt("eksempel.csv")["accepted"], 1);
    // And as the supplier gets it.
    let fetched = supplier.get("kvittering/KY_2026-01-05.csv.kvittering.json");
    assert_eq!(serde_json::from_slice::<Value>(&fetched).expect("JSON"), receipt);
    let text = String::from_utf8(supplier.get("kvittering/KY_2026-01-05.csv.kvittering.txt")).expect("text");
    assert!(text.contains("accepted") && text.contains(&sha256(&content)), "{text}");
    assert!(supplier.list("ind").is_empty());

    let entries = site.entries("revision");
    let (example, mine): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| !entry["record"]["Note"].to_string().contains("n="));
    assert_eq!(numbers(&mine), each(0..22, 1));
    assert_eq!(example.len(), 1);
    assert_eq!(example[0]["record"]["BrugerNavn"], "YK16");
    let ids: Vec<_> = mine.iter().filter_map(|entry| entry["id"].as_u64()).collect();
    assert_eq!(receipt["firstId"].as_u64().zip(receipt["lastId"].as_u64()), Some((ids[0], ids[21])));
    let placed = mine.iter().filter(|entry| entry["record"]["KalderOrganisation"] == OTHER_CVR);
    assert_eq!(placed.map(number).collect::<Vec<_>>(), [20, 21]);
    site.print(&["verify", "revision"]);

    // The day's files at once: the municipality's rows and no others, each as it was delivered.
    let today = mine[0]["receivedAt"].as_str().expect("a time")[..10].to_owned();
    site.print(&["collect", "--date", &today]);
    let municipality = site.client(MUNICIPALITY);
    assert_eq!(municipality.list("/"), ["ud"]);
    let month = format!("ud/{}", &today[..7]);
    assert_eq!(municipality.list("ud"), [&today[..7]]);
    let files = municipality.list(&month);
    let name = format!("revisionslog_{CVR}_{today}_01.csv");
    assert!(files.contains(&name), "{files:?}");
    let fetched = String::from_utf8(municipality.get(&format!("{month}/{name}"))).expect("UTF-8");
    let mut expected = parsed(&csv_of(CVR, 0..20));
    // The two files were delivered at once: either may be first.
    expected.extend(parsed(
        &EXAMPLE
            .replace("KalderltSystemInstans", "KalderItSystemInstans")
            .replace("kalderltSystemNavn", "KalderItSystemNavn"),
    ));
    let mut got = parsed(&fetched);
    expected.sort();
    got.sort();
    let differ: Vec<_> = got.iter().zip(&expected).filter(|(got, expected)| got != expected).collect();
    assert!(differ.is_empty() && got.len() == expected.len(), "{} rows: {differ:#?}", got.len());
    // With a manifest that names the file and its digest.
    let manifests: Vec<_> = files.iter().filter(|name| name.ends_with(".json")).collect();
    assert!(!manifests.is_empty(), "{files:?}");
    let manifest = String::from_utf8(municipality.get(&format!("{month}/{}", manifests[0]))).expect("UTF-8");
    assert!(manifest.contains(&name) && manifest.contains(&sha256(&fetched)), "{manifest}");
    // The municipality checks that it has all of it, as it is.
    let folder = site.path("fetched");
    fs::create_dir(&folder).expect("made");
    fs::write(folder.join(&name), &fetched).expect("written");
    let manifest_here = folder.join(manifests[0]);
    fs::write(&manifest_here, &manifest).expect("written");
    let check = ["collect", "--check", manifest_here.to_str().expect("UTF-8")];
    site.print(&check);
    fs::write(folder.join(&name), fetched.replacen("n=7\"", "n=8\"", 1)).expect("written");
    assert_eq!(site.run(&check).status.code(), Some(1));
    // Once more: the same bytes.
    site.print(&["collect", "--date", &today]);
    assert_eq!(municipality.list(&month), files);
    assert_eq!(municipality.get(&format!("{month}/{name}")), fetched.as_bytes());

    // All of it was recorded.
    let accesses = wait("the last access", || {
        let accesses: String = site.entries("access").iter().map(|entry| format!("{entry}\n")).collect();
        (accesses.matches(&name).count() >= 2).then_some(accesses)
    });
    for what in
        [SUPPLIER, MUNICIPALITY, "KY_2026-01-05.csv", "KY_2026-01-05.csv.kvittering.json", "127.0.0.1"]
    {
        assert!(accesses.contains(what), "{what}: {accesses}");
    }
    site.print(&["verify", "access"]);
    assert!(server.peak_memory() < 512, "{} MB", server.peak_memory());
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn sample_data_with_faulty_rows_is_received_row_by_row() {
    let site = Site::new();
    let _server = site.serve();
    let path = site.path("day.csv");
    let path_text = path.to_str().expect("UTF-8");
    site.print(&["sample", "revision", "--records", "2000", "--faulty", "0.1", "--out", path_text]);
    let checked = site.run(&["check", "revision", path_text, "--json"]);
    let checked = String::from_utf8(checked.stdout).expect("UTF-8");
    site.client(SUPPLIER).put(&path);
    let receipt = site.receipt("day.csv");
    let counts = (receipt["accepted"].as_u64(), receipt["quarantined"].as_u64());
    let (Some(accepted), Some(quarantined)) = counts else { panic!("{receipt}") };
    assert!(quarantined > 20 && accepted + quarantined == 2_000, "{receipt}");
    assert!(receipt["remarks"].as_u64() > Some(20), "{receipt}");
    // Each with its place, as `sporlog check` finds it.
    let rows = receipt["quarantinedRows"].as_array().expect("rows");
    let content = fs::read_to_string(&path).expect("read");
    let lines: std::collections::BTreeSet<_> = rows.iter().filter_map(|row| row["line"].as_u64()).collect();
    assert_eq!(lines.len() as u64, quarantined, "{receipt}");
    assert!(rows.iter().all(|row| !row["rule"].as_str().unwrap_or("").is_empty()), "{receipt}");
    let width = content.lines().count() as u64;
    assert!(lines.iter().all(|line| (2..=width).contains(line)), "{lines:?}");
    assert!(checked.contains(&accepted.to_string()), "{checked}");
    let held = site.print(&["quarantine", "list", "--json"]);
    assert_eq!(held.lines().count() as u64, quarantined);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn other_clients_deliver_and_fetch_too() {
    let site = Site::new();
    let _server = site.serve();
    let supplier = site.client(SUPPLIER);
    let file = site.file("lftp.csv", csv(0..5));
    supplier.lftp(&format!("put -O ind {}", file.display())).ok();
    assert_eq!(site.receipt("lftp.csv")["accepted"], 5);
    let fetched = site.path("fetched");
    supplier.lftp(&format!("get kvittering/lftp.csv.kvittering.txt -o {}", fetched.display())).ok();
    assert!(fs::read_to_string(fetched).expect("fetched").contains("accepted"));

    // curl, where it was built with SFTP.
    let version = std::process::Command::new("curl").arg("--version").output();
    if !version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains("sftp")) {
        eprintln!("curl does not speak SFTP here: not tried");
        return;
    }
    let file = site.file("curl.csv", csv(5..9));
    let curl = |args: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["--silent", "--show-error", "--insecure", "--user", &format!("{SUPPLIER}:"), "--key"]);
        let output = command.arg(&supplier.key).args(args).output().expect("curl");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let url = |path: &str| format!("sftp://127.0.0.1:{}/{path}", site.port);
    curl(&["--upload-file", file.to_str().expect("UTF-8"), &url("ind/")]);
    assert_eq!(site.receipt("curl.csv")["accepted"], 4);
    let text = curl(&[&url("kvittering/curl.csv.kvittering.txt")]);
    assert!(String::from_utf8_lossy(&text).contains("accepted"));
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_municipality_deletes_what_it_has_fetched_if_it_may() {
    let may = "role = \"municipality\"\ncvr = [\"64942212\"]\ndelete_fetched = true";
    let may_not = "role = \"municipality\"\ncvr = [\"55133018\"]";
    let delivers = "role = \"supplier\"";
    let site =
        Site::with("settle_seconds = 1\n", &[(SUPPLIER, delivers), ("may", may), ("may-not", may_not)]);
    let _server = site.serve();
    let rows = csv_of(CVR, 0..3) + csv_of(OTHER_CVR, 3..6).trim_start_matches(HEADER).trim_start();
    site.client(SUPPLIER).put(&site.file("f.csv", rows));
    let receipt = site.receipt("f.csv");
    let today = receipt["receivedAt"].as_str().expect("a time")[..10].to_owned();
    site.print(&["collect", "--date", &today]);
    let path = |cvr: &str| format!("ud/{}/revisionslog_{cvr}_{today}_01.csv", &today[..7]);
    for (account, cvr) in [("may", CVR), ("may-not", OTHER_CVR)] {
        let client = site.client(account);
        let (path, file) = (path(cvr), site.file("mine.csv", "x"));
        let before = client.get(&path);
        // Nobody writes here.
        for batch in [
            format!("put {} {}", quoted(&file), quoted(&path)),
            format!("put {} ud/", quoted(&file)),
            format!("put {} /", quoted(&file)),
            format!("rename {} ud/mine.csv", quoted(&path)),
            format!("rename {} {}x", quoted(&path), quoted(&path)),
            "mkdir ud/mine".to_owned(),
            "mkdir mine".to_owned(),
            format!("rmdir ud/{}", &today[..7]),
            "rmdir ud".to_owned(),
        ] {
            client.sftp(&batch).fails();
        }
        assert_eq!(client.get(&path), before, "{account}");
        let deleted = client.sftp(&format!("rm {}", quoted(&path)));
        assert_eq!(deleted.ok, account == "may", "{deleted:?}");
        let listed = client.list(&format!("ud/{}", &today[..7]));
        assert_eq!(listed.iter().any(|name| name.ends_with("_01.csv")), account != "may", "{listed:?}");
    }
}
