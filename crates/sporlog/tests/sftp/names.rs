//! Names and paths of all sorts: what is delivered under them, and that none of them leads out.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::client::quoted;
use crate::rows::csv;
use crate::site::{MUNICIPALITY, SUPPLIER, Site};
use crate::wire::{CREATING, LSTAT, OPENDIR, READING, READLINK, REALPATH, REMOVE, RMDIR, STAT, WRITING};

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn names_of_all_sorts_are_delivered_under_them() {
    let site = Site::new();
    let _server = site.serve();
    let mut wire = site.client(SUPPLIER).wire();
    let longest = format!("{}.csv", "x".repeat(251));
    let wide = format!("{}.csv", "æ".repeat(125));
    let names = [
        "plain.csv",
        "Plain.csv",
        "PLAIN.CSV",
        "-rf.csv",
        "--help",
        " leading and trailing ",
        "a'b\"c`d$(e).csv",
        "*.csv",
        "back\\slash.csv",
        "журнал-日志-سجل.csv",
        "😀.csv",
        "e\u{301}.csv",
        "\u{e9}.csv",
        "a%2e%2e.csv",
        "C:day.csv",
        "con",
        "~",
        "no-ending",
        "..csv..",
        "a.csv.kvittering.json",
        &longest,
        &wide,
    ];
    let mut expected = Vec::new();
    for (n, name) in names.iter().enumerate() {
        // Such as begin with a dot are still being written.
        let to = format!("ind/{name}");
        wire.put(&to, csv(n * 3..n * 3 + 3).as_bytes()).done();
        if !name.starts_with('.') {
            expected.push((n, *name));
        }
    }
    for (n, name) in &expected {
        let receipts = site.receipts(name, 1);
        assert_eq!(receipts.len(), 1, "{name}");
        assert_eq!(
            (&receipts[0]["outcome"], &receipts[0]["accepted"]),
            (&"accepted".into(), &3.into()),
            "{n} {name}"
        );
    }
    // What cannot be printed is either refused, or escaped wherever it is shown.
    let odd: [&[u8]; 7] = [
        b"a\nb.csv",
        b"a\rb.csv",
        b"\x1b[31mred.csv",
        b"tab\t.csv",
        b"\xff\xfe.csv",
        b"\x7f.csv",
        "rtl\u{202e}vsc.exe".as_bytes(),
    ];
    let mut taken = 0;
    for (n, name) in odd.iter().enumerate() {
        let path = [b"ind/", *name].concat();
        let answer = wire.put(&path, csv(1_000 + n * 3..1_003 + n * 3).as_bytes());
        taken += usize::from(answer.status() == Some(0));
    }
    crate::site::wait("all that came in has a receipt", || {
        (site.deliveries(SUPPLIER).len() == expected.len() + taken).then_some(())
    });
    for receipt in site.deliveries(SUPPLIER) {
        let file = receipt["file"].as_str().expect("a name");
        assert!(!file.chars().any(char::is_control), "{file:?}");
    }
    // Names that cannot be.
    for name in [&b"x".repeat(256)[..], b"a\0b", b"a/b", b"", b".", b"..", b"../f.csv", b"sub/../../../f.csv"]
    {
        let path = [b"ind/", name].concat();
        wire.put(&path, b"nothing").refused();
    }
    wire.put("x".repeat(30_000), b"nothing").refused();
    // Two receipts for each, and all of them to be seen and read.
    let listed = site.client(SUPPLIER).list("kvittering");
    assert_eq!(listed.len(), 2 * (expected.len() + taken), "{listed:?}");
    for name in std::fs::read_dir(site.home(SUPPLIER).join("kvittering")).expect("there") {
        let name = name.expect("an entry").file_name();
        let handle = wire.open([b"kvittering/", name.as_bytes()].concat(), READING).handle();
        assert_eq!(wire.read(&handle, 0, 100).0, 103, "{name:?}");
        wire.close(&handle).done();
    }
    assert!(!site.said().contains('\x1b'), "an escape sequence in the log: {}", site.said());
    assert_eq!(site.print(&["head", "revision"]), (3 * (expected.len() + taken)).to_string());
}

/// Something that nobody may get, whose place is known.
const SECRET: &str = "nobody may read this";

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn no_path_leads_out() {
    let site = Site::new();
    let _server = site.serve();
    let secret = site.file("secret", SECRET);
    let secret = secret.to_str().expect("UTF-8").to_owned();
    let client = site.client(SUPPLIER);
    let mut wire = client.wire();
    wire.put("ind/mine.part", b"mine").done();
    let folder = site.path("").to_str().expect("UTF-8").to_owned();
    let far = "../".repeat(40);
    let outside = [
        secret.clone(),
        format!("{far}{secret}"),
        format!("/{far}{secret}"),
        format!("ind/{far}{secret}"),
        format!("ind/mine.part/{far}{secret}"),
        format!("ind/.//./{far}etc/../{secret}"),
        format!("{far}etc/passwd"),
        "/etc/passwd".to_owned(),
        "../../../../secret".to_owned(),
        "../kommune-64942212/ud".to_owned(),
        format!("../{MUNICIPALITY}"),
        ".sporlog/uploads".to_owned(),
        "/.sporlog/taken/x".to_owned(),
        "ind/../.sporlog/uploads/mine.part".to_owned(),
        "ind\\..\\..\\secret".to_owned(),
        "~/secret".to_owned(),
        "/proc/self/environ".to_owned(),
        "/dev/null".to_owned(),
        format!("file://{secret}"),
        format!("{folder}store/keys"),
    ];
    for path in &outside {
        for kind in [STAT, LSTAT, OPENDIR, REMOVE, RMDIR, READLINK] {
            let answer = wire.path(kind, path);
            assert!(answer.status().is_some_and(|code| code != 0), "{kind} {path}: {answer:?}");
        }
        wire.open(path, READING).refused();
        wire.open(path, READING | WRITING).refused();
        wire.mkdir(path).refused();
        wire.rename("ind/mine.part", path).refused();
        wire.rename(path, "ind/got.part").refused();
        for extension in ["posix-rename@openssh.com", "hardlink@openssh.com", "copy-data"] {
            wire.extended_paths(extension, path, "ind/got.part").refused();
            wire.extended_paths(extension, "ind/mine.part", path).refused();
        }
        wire.symlink(path, "ind/link.csv").refused();
        wire.symlink("ind/mine.part", path).refused();
        let opened = wire.open(path, WRITING | CREATING);
        assert!(opened.status().is_some_and(|code| code != 0), "{path}: {opened:?}");
    }
    // However long it is, the way up ends at the top.
    for path in ["", ".", "/", "..", "/../..", "ind/../..", &far] {
        let answer = wire.path(REALPATH, path);
        assert_eq!(answer.0, 104, "{path}: {answer:?}");
        assert!(String::from_utf8_lossy(&answer.1).contains('/'), "{answer:?}");
        assert!(!String::from_utf8_lossy(&answer.1).contains("accounts"), "{answer:?}");
    }
    // By the real client.
    let to = site.path("fetched");
    for path in ["/etc/passwd", "../../../../secret", &secret] {
        client.sftp(&format!("get {} {}", quoted(path), quoted(&to))).fails();
    }
    for batch in [
        "ln -s /etc/passwd ind/passwd.csv",
        "ln ind/mine.part ind/other.csv",
        "mkdir ind/folder",
        "mkdir folder",
        "rmdir ind",
        "rename ind inbox",
        "rename ind/mine.part mine.part",
        "rename ind/mine.part kvittering/mine.part",
        "rename ind/mine.part ../mine.part",
        "cd ../..\nget secret",
        "rm kvittering/*",
    ] {
        client.sftp(batch).fails();
    }
    client.sftp("cd /\ncd ../../..\npwd").says(" /\n");
    assert!(!to.exists());
    assert_eq!(std::fs::read_to_string(&secret).expect("still there"), SECRET);
    assert_eq!(client.list("/"), ["ind", "kvittering"]);
    assert_eq!(client.list("ind"), ["mine.part"]);
    // Nothing but what is asked of an SFTP server.
    for (name, body) in [
        ("fsync@openssh.com", &b"\0\0\0\x01x"[..]),
        ("home-directory", b"\0\0\0\x04root"),
        ("users-groups-by-id@openssh.com", b"\0\0\0\x04\0\0\0\0\0\0\0\0"),
        ("no-such@example.org", b""),
    ] {
        let answer = wire.extended(name, body);
        assert!(!String::from_utf8_lossy(&answer.1).contains("root:"), "{answer:?}");
    }
    // And it is still there to be asked.
    assert_eq!(wire.path(STAT, "ind/mine.part").0, 105);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn links_that_someone_has_planted_are_not_followed() {
    let site = Site::new();
    let secret = site.file("secret", csv(0..3));
    let elsewhere = site.path("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    let (supplier, municipality) = (site.home(SUPPLIER), site.home(MUNICIPALITY));
    let mut server = site.serve();
    for home in [supplier.join("ind"), supplier.join("kvittering"), municipality.join("ud")] {
        symlink(&secret, home.join("file.csv")).expect("linked");
        symlink(&elsewhere, home.join("folder")).expect("linked");
    }
    for (account, folder) in [(SUPPLIER, "ind"), (SUPPLIER, "kvittering"), (MUNICIPALITY, "ud")] {
        let client = site.client(account);
        let mut wire = client.wire();
        wire.open(format!("{folder}/file.csv"), READING).refused();
        wire.path(OPENDIR, format!("{folder}/folder")).refused();
        wire.open(format!("{folder}/folder/new.csv"), WRITING | CREATING).refused();
        let link = wire.path(READLINK, format!("{folder}/file.csv"));
        assert!(!String::from_utf8_lossy(&link.1).contains("secret"), "{link:?}");
        // What it points to is not told, either.
        let answer = wire.path(STAT, format!("{folder}/file.csv"));
        assert!(answer.status().is_some_and(|code| code > 1), "{answer:?}");
        drop(wire);
        let to = site.path("fetched");
        client.sftp(&format!("get {folder}/file.csv {}", quoted(&to))).fails();
        assert!(!to.exists());
    }
    // To write over one does not write through it.
    let _ = site
        .client(SUPPLIER)
        .sftp(&format!("put {} ind/file.csv", quoted(site.file("new.csv", csv(10..12)))));
    assert_eq!(std::fs::read_to_string(&secret).expect("there"), csv(0..3));
    assert!(Site::names(&elsewhere).is_empty());
    std::thread::sleep(std::time::Duration::from_secs(3));
    server.kill();
    // What a link points to is never delivered.
    let stored = crate::rows::numbers(&site.entries("revision"));
    assert!(stored.keys().all(|n| *n >= 10), "{stored:?}");
}
