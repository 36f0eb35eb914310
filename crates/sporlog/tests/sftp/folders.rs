//! The same folders under OpenSSH's server, with `sporlog exchange` watching them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{finish, quoted};
use crate::rows::{CVR, csv, each, numbers};
use crate::site::{MUNICIPALITY, SUPPLIER, Server, Site, sha256, wait};
use crate::sshd::Sshd;

/// A site whose folders OpenSSH serves; `None` where that cannot be.
fn site(settle: u32) -> Option<(Site, Sshd, Server)> {
    let site = Site::beside_openssh(settle);
    let sshd = Sshd::start(&site, "sshd", &[SUPPLIER, MUNICIPALITY])?;
    let watcher = site.start(&["-v", "exchange"]);
    let made = site.home(SUPPLIER).join(".sporlog/scratch");
    wait("its folders", || made.is_dir().then_some(()));
    Some((site, sshd, watcher))
}

#[test]
#[ignore = "needs OpenSSH's server: tests/sftp/run"]
fn deliveries_through_openssh_are_answered_just_so() {
    let Some((site, sshd, watcher)) = site(2) else { return };
    let supplier = sshd.client(&site, SUPPLIER);
    let content = csv(0..100);
    let put = |name: &str, content: &str, to: &str| {
        let file = site.file(name, content);
        supplier.sftp(&format!("put {} {}", quoted(file), quoted(to))).ok();
    };
    put("a.csv", &content, "ind/a.csv");
    put("bad.csv", &content[..content.len() - 20], "ind/bad.csv");
    let receipt = site.receipt("a.csv");
    assert_eq!((&receipt["outcome"], &receipt["accepted"]), (&"accepted".into(), &100.into()), "{receipt}");
    assert_eq!(receipt["sha256"], sha256(&content));
    if rustix::process::getuid().is_root() {
        supplier.sftp("rm kvittering/a.csv.kvittering.json").fails();
        supplier.sftp("ls .sporlog/taken").fails();
    }
    let fetched = supplier.get("kvittering/a.csv.kvittering.json");
    assert_eq!(serde_json::from_slice::<Value>(&fetched).expect("JSON"), receipt);
    let refused = site.receipt("bad.csv");
    assert_eq!(
        (&refused["outcome"], &refused["refused"][0]["line"]),
        (&"refused".into(), &101.into()),
        "{refused}"
    );
    put("b.csv", &content, "ind/b.csv");
    assert_eq!(site.receipt("b.csv")["outcome"], "repeated");
    put("c.csv", &csv(50..150), "ind/c.csv");
    let overlap = site.receipt("c.csv");
    assert_eq!((&overlap["accepted"], &overlap["skipped"]), (&50.into(), &50.into()), "{overlap}");
    // By way of a temporary name, and in the meantime it waits.
    put("d.csv", &csv(150..160), "ind/d.csv.filepart");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(supplier.list("ind"), ["d.csv.filepart"]);
    supplier.sftp("rename ind/d.csv.filepart ind/d.csv").ok();
    assert_eq!(site.receipt("d.csv")["accepted"], 10);
    // What a supplier under OpenSSH may make besides files is passed over.
    supplier.sftp("mkdir ind/folder\nln -s /etc/passwd ind/link.csv\nln -s ../kvittering ind/around").ok();
    put("e.csv", &csv(160..170), "ind/e.csv");
    assert_eq!(site.receipt("e.csv")["accepted"], 10);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(site.deliveries(SUPPLIER).len(), 6, "{:?}", site.deliveries(SUPPLIER));
    assert_eq!(numbers(&site.entries("revision")), each(0..170, 1));

    let today = receipt["receivedAt"].as_str().expect("a time")[..10].to_owned();
    site.print(&["collect", "--date", &today]);
    if rustix::process::getuid().is_root() {
        let municipality = sshd.client(&site, MUNICIPALITY);
        let path = format!("ud/{}/revisionslog_{CVR}_{today}_01.csv", &today[..7]);
        let fetched = String::from_utf8(municipality.get(&path)).expect("UTF-8");
        assert_eq!(fetched.lines().count(), 171);
    }
    watcher.stop();
}

#[test]
#[ignore = "needs OpenSSH's server: tests/sftp/run"]
fn a_file_that_still_grows_is_not_taken() {
    let Some((site, sshd, watcher)) = site(2) else { return };
    let supplier = sshd.client(&site, SUPPLIER);
    let content = csv(0..12_000);
    let file = site.file("slow.csv", &content);
    let begun = Instant::now();
    let slow = supplier.start_sftp(&["-l", "4000"], &format!("put {} ind/", quoted(&file)));
    finish(slow).ok();
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    let receipt = site.receipt("slow.csv");
    assert_eq!(
        (&receipt["sha256"], &receipt["accepted"]),
        (&sha256(&content).into(), &12_000.into()),
        "{receipt}"
    );
    // One that is cut off goes on before it has settled.
    let content = csv(20_000..32_000);
    let file = site.file("cut.csv", &content);
    let mut child = supplier.start_sftp(&["-l", "4000"], &format!("put {} ind/", quoted(&file)));
    let arrived = || std::fs::metadata(site.home(SUPPLIER).join("ind/cut.csv")).map_or(0, |file| file.len());
    wait("some of it has come", || (arrived() > 300_000).then_some(()));
    child.kill().expect("killed");
    finish(child).fails();
    supplier.sftp(&format!("reput {} ind/cut.csv", quoted(&file))).ok();
    assert_eq!(site.receipt("cut.csv")["sha256"], sha256(&content));
    assert_eq!(site.deliveries(SUPPLIER).len(), 2);
    watcher.stop();
}

#[test]
#[ignore = "needs OpenSSH's server: tests/sftp/run"]
fn the_watcher_may_be_killed_and_no_second_one_gets_in_its_way() {
    let Some((site, sshd, mut watcher)) = site(1) else { return };
    let supplier = sshd.client(&site, SUPPLIER);
    let deliver = |from: usize, watcher: &mut Server| {
        let file = site.file(&format!("{from}.csv"), csv(from..from + 3_000));
        supplier.put(&file);
        // At another moment of it each time.
        std::thread::sleep(Duration::from_millis(900 + from as u64 / 40));
        watcher.kill();
        *watcher = site.start(&["-v", "exchange"]);
    };
    for round in 0..6 {
        deliver(round * 3_000, &mut watcher);
    }
    for round in 0..6 {
        let receipt = site.receipt(&format!("{}.csv", round * 3_000));
        assert_eq!(
            (&receipt["outcome"], &receipt["accepted"]),
            (&"accepted".into(), &3_000.into()),
            "{receipt}"
        );
    }
    assert_eq!(numbers(&site.entries("revision")), each(0..18_000, 1));
    // Two that watch the same folders: each file has one receipt all the same.
    let second = site.start(&["-v", "exchange"]);
    for n in 0..4 {
        supplier.put(&site.file(&format!("both-{n}.csv"), csv(20_000 + n * 10..20_010 + n * 10)));
    }
    for n in 0..4 {
        site.receipt(&format!("both-{n}.csv"));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(site.deliveries(SUPPLIER).len(), 10);
    drop(second);
    watcher.stop();
    site.print(&["verify", "revision"]);
    assert!(Site::names(&site.home(SUPPLIER).join(".sporlog/taken")).is_empty());
}

#[test]
#[ignore = "needs OpenSSH's server: tests/sftp/run"]
fn folders_that_nobody_has_made_are_made() {
    let site = Site::new();
    let watcher = site.start(&["-v", "exchange"]);
    for (account, folders) in [(SUPPLIER, &["ind", "kvittering"][..]), (MUNICIPALITY, &["ud"])] {
        let home = site.home(account);
        wait("its folders", || folders.iter().all(|name| home.join(name).is_dir()).then_some(()));
    }
    // And whoever is told to take what is there, and to end, does so.
    watcher.stop();
    std::fs::write(site.home(SUPPLIER).join("ind/left.csv"), csv(0..10)).expect("written");
    site.print(&["exchange", "--once"]);
    assert_eq!(site.receipt("left.csv")["accepted"], 10);
}
