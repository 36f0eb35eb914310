//! Uploads that break off, go on, meet each other, or are not as complete as they look.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Client, finish, quoted};
use crate::rows::{csv, each, numbers};
use crate::site::{SUPPLIER, Site, sha256, wait};
use crate::wire::{APPENDING, CREATING, STAT, TRUNCATING, WRITING};

/// Kilobits a second that leave time to break an upload off.
const SLOW: &str = "4000";

/// Begins an upload, and kills the client when some of the file has come.
fn cut_off(client: &Client, home: &Path, file: &Path) -> u64 {
    let name = file.file_name().expect("a name");
    let mut child = client.start_sftp(&["-l", SLOW], &format!("put {} ind/", quoted(file)));
    let arrived = || std::fs::metadata(home.join(".sporlog/uploads").join(name)).map_or(0, |file| file.len());
    wait("some of it has come", || (arrived() > 300_000).then_some(()));
    child.kill().expect("killed");
    finish(child).fails();
    // The server notices.
    std::thread::sleep(Duration::from_millis(500));
    arrived()
}

/// Some megabytes.
fn large(site: &Site, name: &str) -> (std::path::PathBuf, String) {
    let content = csv(0..12_000);
    (site.file(name, &content), sha256(content))
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn an_upload_that_was_cut_off_goes_on_where_it_was() {
    let site = Site::new();
    let server = site.serve();
    let (supplier, home) = (site.client(SUPPLIER), site.home(SUPPLIER));
    let (file, digest) = large(&site, "large.csv");
    let arrived = cut_off(&supplier, &home, &file);
    assert!(arrived < std::fs::metadata(&file).expect("there").len());
    // Long after the settling time it is not taken, and the supplier sees how far it came.
    std::thread::sleep(Duration::from_secs(2));
    assert!(site.deliveries(SUPPLIER).is_empty(), "{:?}", site.deliveries(SUPPLIER));
    assert_eq!(supplier.list("ind"), ["large.csv"]);
    supplier.sftp("ls -l ind").ok().says(&format!(" {arrived} "));
    let begun = Instant::now();
    supplier.sftp(&format!("reput {} ind/large.csv", quoted(&file))).ok();
    let receipt = site.receipt("large.csv");
    assert_eq!((&receipt["sha256"], &receipt["accepted"]), (&digest.into(), &12_000.into()), "{receipt}");
    assert!(begun.elapsed() < Duration::from_secs(20));

    // Again, with a server that is killed, and lftp that goes on after it is back.
    let mut server = server;
    let content = csv(20_000..32_000);
    let file = site.file("second.csv", &content);
    let mut child = supplier.start_sftp(&["-l", SLOW], &format!("put {} ind/", quoted(&file)));
    let arrived = || std::fs::metadata(home.join(".sporlog/uploads/second.csv")).map_or(0, |file| file.len());
    wait("some of it has come", || (arrived() > 300_000).then_some(()));
    server.kill();
    let _ = child.kill();
    finish(child).fails();
    let _server = site.serve();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(site.deliveries(SUPPLIER).len(), 1);
    assert!(arrived() > 0);
    supplier.lftp(&format!("put -c -O ind {}", file.display())).ok();
    assert_eq!(site.receipt("second.csv")["sha256"], sha256(&content));
    assert_eq!(site.entries("revision").len(), 24_000);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn an_upload_with_a_gap_goes_on_at_the_gap() {
    /// Bytes of a write, of which the third is lost.
    const PART: usize = 16 << 10;
    let site = Site::new();
    let mut server = site.serve();
    let supplier = site.client(SUPPLIER);
    let content = csv(0..1_000);
    let with_a_gap = |name: &str| {
        let mut wire = supplier.wire();
        let handle = wire.open(name, WRITING | CREATING | TRUNCATING).handle();
        for (n, part) in content.as_bytes().chunks(PART).enumerate().filter(|(n, _)| *n != 2) {
            wire.write(&handle, (n * PART) as u64, part).done();
        }
        (wire, handle)
    };
    let told = |wire: &mut crate::wire::Wire, name: &str| {
        let answer = wire.path(STAT, name);
        u64::from_be_bytes(answer.1[4..12].try_into().expect("a size"))
    };
    let (mut wire, handle) = with_a_gap("ind/closed.csv");
    let refused = wire.close(&handle);
    assert!(String::from_utf8_lossy(&refused.1).contains("did not come; go on at 32768"), "{refused:?}");
    assert_eq!(told(&mut wire, "ind/closed.csv"), 2 * PART as u64);
    drop(wire);
    drop(with_a_gap("ind/lost.csv"));
    let killed = with_a_gap("ind/killed.csv");
    server.kill();
    drop(killed);
    let _server = site.serve();
    for (n, name) in ["closed.csv", "lost.csv", "killed.csv"].into_iter().enumerate() {
        assert_eq!(told(&mut supplier.wire(), &format!("ind/{name}")), 2 * PART as u64, "{name}");
        let file = site.file(name, &content);
        supplier.sftp(&format!("reput {} ind/{name}", quoted(file))).ok();
        let receipt = site.receipt(name);
        let outcome = if n == 0 { "accepted" } else { "repeated" };
        assert_eq!(
            (&receipt["outcome"], &receipt["sha256"]),
            (&outcome.into(), &sha256(&content).into()),
            "{receipt}"
        );
    }
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn an_upload_that_was_cut_off_may_begin_anew() {
    let site = Site::new();
    let _server = site.serve();
    let (supplier, home) = (site.client(SUPPLIER), site.home(SUPPLIER));
    let (file, _) = large(&site, "f.csv");
    cut_off(&supplier, &home, &file);
    // Another, shorter one: nothing of the first is left in it.
    let content = csv(50_000..50_100);
    supplier.put(&site.file("f.csv", &content));
    let receipt = site.receipt("f.csv");
    assert_eq!(
        (&receipt["sha256"], &receipt["accepted"]),
        (&sha256(&content).into(), &100.into()),
        "{receipt}"
    );
    // And one that is given up.
    let (file, _) = large(&site, "g.csv");
    cut_off(&supplier, &home, &file);
    supplier.sftp("rm ind/g.csv").ok();
    assert!(supplier.list("ind").is_empty());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(site.deliveries(SUPPLIER).len(), 1);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_temporary_name_waits_for_its_rename_which_is_taken_at_once() {
    let site = Site::configured("settle_seconds = 6\n");
    let _server = site.serve();
    let supplier = site.client(SUPPLIER);
    let file = site.file("day.csv", csv(0..100));
    for (n, temporary) in ["day.csv.part", ".day.csv", "day.csv.filepart", "DAY.TMP"].iter().enumerate() {
        let name = format!("day-{n}.csv");
        let content = csv(n * 100..n * 100 + 100);
        std::fs::write(&file, &content).expect("written");
        let put = format!("put {} {}", quoted(&file), quoted(format!("ind/{temporary}")));
        let rename =
            format!("rename {} {}", quoted(format!("ind/{temporary}")), quoted(format!("ind/{name}")));
        supplier.sftp(&format!("{put}\n{rename}")).ok();
        let begun = Instant::now();
        let receipt = site.receipt(&name);
        assert!(begun.elapsed() < Duration::from_secs(4), "{temporary}: {:?}", begun.elapsed());
        assert_eq!(receipt["sha256"], sha256(&content), "{receipt}");
    }
    // Without a rename, never.
    supplier.sftp(&format!("put {} ind/left.csv.part", quoted(&file))).ok();
    // Without a temporary name, after the settling time and not before.
    let begun = Instant::now();
    std::fs::write(&file, csv(1_000..1_010)).expect("written");
    supplier.put(&file);
    site.receipt("day.csv");
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(supplier.list("ind"), ["left.csv.part"]);
    assert_eq!(site.deliveries(SUPPLIER).len(), 5);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_file_that_grows_after_it_was_closed() {
    let site = Site::configured("settle_seconds = 3\n");
    let _server = site.serve();
    let supplier = site.client(SUPPLIER);
    let whole = csv(0..200);
    let half = csv(0..100);
    // Within the settling time it is one file.
    let file = site.file("f.csv", &half);
    supplier.put(&file);
    std::thread::sleep(Duration::from_secs(1));
    std::fs::write(&file, &whole).expect("written");
    supplier.sftp(&format!("reput {} ind/f.csv", quoted(&file))).ok();
    assert_eq!(site.receipt("f.csv")["sha256"], sha256(&whole));
    // The same by those who append, and while it is open it is not taken.
    let mut wire = supplier.wire();
    let (begin, end) = whole.split_at(whole.len() / 3);
    wire.put("ind/g.csv", begin.as_bytes()).done();
    let handle = wire.open("ind/g.csv", WRITING | APPENDING | CREATING).handle();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(site.deliveries(SUPPLIER).len(), 1);
    wire.write(&handle, begin.len() as u64, end.as_bytes()).done();
    wire.close(&handle).done();
    let receipt = site.receipt("g.csv");
    assert_eq!(
        (&receipt["outcome"], &receipt["sha256"]),
        (&"repeated".into(), &sha256(&whole).into()),
        "{receipt}"
    );
    // Later it is another delivery, of which only the new rows go in.
    std::fs::write(&file, csv(0..300)).expect("written");
    supplier.sftp(&format!("reput {} ind/f.csv", quoted(&file))).says_not("panic");
    supplier.put(&file);
    let later = site.receipts("f.csv", 2).remove(1);
    assert_eq!((&later["accepted"], &later["skipped"]), (&100.into(), &200.into()), "{later}");
    assert_eq!(numbers(&site.entries("revision")), each(0..300, 1));
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn two_uploads_of_one_name_at_once_never_mix() {
    let site = Site::new();
    let _server = site.serve();
    let supplier = site.client(SUPPLIER);
    let contents = [csv(0..6_000), csv(10_000..16_000)];
    let digests = contents.each_ref().map(sha256);
    let folders = ["one", "two"].map(|name| site.path(name));
    let mut clients = Vec::new();
    for (folder, content) in folders.iter().zip(&contents) {
        std::fs::create_dir(folder).expect("made");
        std::fs::write(folder.join("same.csv"), content).expect("written");
        let batch = format!("put {} ind/", quoted(folder.join("same.csv")));
        clients.push(supplier.start_sftp(&["-l", "8000"], &batch));
        std::thread::sleep(Duration::from_millis(300));
    }
    let ran: Vec<_> = clients.into_iter().map(finish).collect();
    let arrived = ran.iter().filter(|ran| ran.ok).count();
    assert!(arrived > 0, "{ran:?}");
    site.receipt("same.csv");
    std::thread::sleep(Duration::from_secs(3));
    let receipts = site.receipts("same.csv", 1);
    for receipt in &receipts {
        assert_eq!(receipt["outcome"], "accepted", "{receipt}");
        assert!(digests.iter().any(|digest| receipt["sha256"] == **digest), "{receipt}");
    }
    let stored = numbers(&site.entries("revision"));
    assert_eq!(stored.len(), receipts.len() * 6_000);
    assert!(stored.values().all(|times| *times == 1));
    assert!(site.client(SUPPLIER).list("ind").is_empty());
    // Whoever was turned away was told so; whoever was not has a receipt.
    assert!(receipts.len() <= arrived, "{ran:?}");
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn lftp_mirrors_a_folder_with_parallel_uploads() {
    let site = Site::new();
    let _server = site.serve();
    let folder = site.path("outgoing");
    std::fs::create_dir(&folder).expect("made");
    let names: Vec<_> = (0..12).map(|n| format!("day-{n:02}.csv")).collect();
    for (n, name) in names.iter().enumerate() {
        std::fs::write(folder.join(name), csv(n * 1_000..(n + 1) * 1_000)).expect("written");
    }
    let mirror = format!("mirror -R --parallel=4 --no-perms {} ind", folder.display());
    site.client(SUPPLIER).lftp(&mirror).ok();
    for name in &names {
        let receipt = site.receipt(name);
        assert_eq!(
            (&receipt["outcome"], &receipt["accepted"]),
            (&"accepted".into(), &1_000.into()),
            "{receipt}"
        );
    }
    assert_eq!(numbers(&site.entries("revision")), each(0..12_000, 1));
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_file_that_is_opened_again_just_when_it_is_taken() {
    let site = Site::configured("settle_seconds = 3\n");
    let _server = site.serve();
    let mut wire = site.client(SUPPLIER).wire();
    let content = |n: usize| csv(n * 10..n * 10 + 10);
    let mut begun = Vec::new();
    for n in 0..30 {
        let content = content(n);
        let half = content.len() / 2 + content[content.len() / 2..].find('\n').expect("a line's end") + 1;
        wire.put(format!("ind/{n}.csv"), &content.as_bytes()[..half]).done();
        begun.push((Instant::now(), half));
    }
    // Each a little later than the one before, around the time when it has settled.
    let mut expected = Vec::new();
    for (n, (at, half)) in begun.into_iter().enumerate() {
        let due = at + Duration::from_millis(2_850 + n as u64 * 15);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (content, opened) = (content(n), wire.open(format!("ind/{n}.csv"), WRITING));
        if opened.status().is_some() {
            expected.push(sha256(&content[..half]));
            continue;
        }
        let handle = opened.handle();
        wire.write(&handle, half as u64, &content.as_bytes()[half..]).done();
        wire.close(&handle).done();
        expected.push(sha256(&content));
    }
    let mut whole = 0;
    for (n, digest) in expected.iter().enumerate() {
        let receipts = site.receipts(&format!("{n}.csv"), 1);
        assert_eq!(receipts.len(), 1, "{receipts:?}");
        assert_eq!(
            (&receipts[0]["outcome"], &receipts[0]["sha256"]),
            (&"accepted".into(), &digest.as_str().into())
        );
        whole += usize::from(*digest == sha256(content(n)));
    }
    println!("{whole} of {} were opened again in time", expected.len());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(site.deliveries(SUPPLIER).len(), expected.len());
    assert!(numbers(&site.entries("revision")).values().all(|times| *times == 1));
}
