//! Clients that ask for a file after they have delivered it, over lines that take their time: the inbox has taken the
//! file by then, and the client has to be content all the same, and not to deliver again.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::client::{Ran, finish, quoted, tool};
use crate::proxy::slow_line;
use crate::rows::csv;
use crate::site::{SUPPLIER, Site, wait};

/// What each line takes in one direction, in milliseconds.
const LINES: [u64; 3] = [2, 20, 100];

/// Uploads under a temporary name, renames, and asks for what a careful client asks for: at once, and when the receipt
/// is there. Then uploads another file under its own name, and asks when that one has its receipt.
const PARAMIKO: &str = r#"
import os, sys, time, paramiko
port, user, key, renamed, plain = sys.argv[1:]
transport = paramiko.Transport(("127.0.0.1", int(port)))
transport.connect(username=user, pkey=paramiko.Ed25519Key.from_private_key_file(key))
sftp = paramiko.SFTPClient.from_transport(transport)

def ask(path, name):
    size = os.path.getsize(path)
    assert sftp.stat("ind/" + name).st_size == sftp.lstat("ind/" + name).st_size == size
    sftp.utime("ind/" + name, (1_700_000_000, 1_700_000_000))
    sftp.chmod("ind/" + name, 0o600)
    listed = {entry.filename: entry.st_size for entry in sftp.listdir_attr("ind")}
    assert listed.get(name) == size, listed

def answered(name):
    for _ in range(300):
        try:
            return sftp.stat(f"kvittering/{name}.kvittering.json")
        except FileNotFoundError:
            time.sleep(0.1)
    raise TimeoutError(name)

for path, temporary in ((renamed, True), (plain, False)):
    name = os.path.basename(path)
    sftp.put(path, f"ind/{name}.tmp" if temporary else f"ind/{name}")
    if temporary:
        sftp.posix_rename(f"ind/{name}.tmp", f"ind/{name}")
    ask(path, name)
    answered(name)
    ask(path, name)
transport.close()
"#;

/// Runs a client to its end.
fn run(mut command: std::process::Command) -> Ran {
    finish(
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started"),
    )
}

fn rclone(site: &Site, port: u16, args: &[&str]) -> Ran {
    let mut command = tool("rclone");
    command.args(["--config", "", "-v"]).args(args);
    command.args(["--sftp-host", "127.0.0.1", "--sftp-port", &port.to_string(), "--sftp-user", SUPPLIER]);
    command.arg("--sftp-key-file").arg(site.key(SUPPLIER));
    run(command)
}

/// Files of some rows each, in a folder of their own.
fn outgoing(site: &Site, folder: &str, from: usize, count: usize) -> (PathBuf, Vec<String>) {
    let path = site.path(folder);
    fs::create_dir(&path).expect("made");
    let names: Vec<_> = (0..count).map(|n| format!("{folder}-{n}.csv")).collect();
    for (n, name) in names.iter().enumerate() {
        fs::write(path.join(name), csv(from + n * 50..from + n * 50 + 50)).expect("written");
    }
    (path, names)
}

/// Each of these files has come once, and none besides.
#[track_caller]
fn each_came_once(site: &Site, names: &[String]) {
    for name in names {
        let receipt = site.receipt(name);
        assert_eq!(
            (&receipt["outcome"], &receipt["accepted"]),
            (&"accepted".into(), &50.into()),
            "{receipt}"
        );
    }
    std::thread::sleep(Duration::from_secs(2));
    let deliveries = site.deliveries(SUPPLIER);
    assert_eq!(deliveries.len(), names.len(), "{deliveries:?}");
}

#[test]
#[ignore = "needs rclone: tests/sftp/run"]
fn rclone_delivers_each_file_once() {
    for line in LINES {
        let site = Site::new();
        let _server = site.serve();
        let port = slow_line(site.port, Duration::from_millis(line));
        let (folder, mut names) = outgoing(&site, "copied", 0, 6);
        let ran = rclone(&site, port, &["copy", folder.to_str().expect("UTF-8"), ":sftp:ind"]).ok();
        assert!(!ran.err.contains("ERROR"), "{line} ms: {}", ran.err);
        let (folder, moved) = outgoing(&site, "moved", 1_000, 2);
        let ran = rclone(&site, port, &["move", folder.to_str().expect("UTF-8"), ":sftp:/ind/"]).ok();
        assert!(!ran.err.contains("ERROR"), "{line} ms: {}", ran.err);
        assert!(Site::names(&folder).is_empty(), "{line} ms: {}", ran.err);
        names.extend(moved);
        each_came_once(&site, &names);
        assert!(site.client(SUPPLIER).list("ind").is_empty(), "a later session sees none of them");
    }
}

#[test]
#[ignore = "needs paramiko: tests/sftp/run"]
fn paramiko_sees_what_it_has_delivered() {
    for line in LINES {
        let site = Site::new();
        let _server = site.serve();
        let port = slow_line(site.port, Duration::from_millis(line));
        let (folder, names) = outgoing(&site, "day", 0, 2);
        let mut command = tool("python");
        command.args(["-c", PARAMIKO, &port.to_string(), SUPPLIER]).arg(site.key(SUPPLIER));
        run(command_with(command, names.iter().map(|name| folder.join(name)))).ok();
        each_came_once(&site, &names);
    }
}

fn command_with(
    mut command: std::process::Command,
    files: impl Iterator<Item = PathBuf>,
) -> std::process::Command {
    command.args(files);
    command
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn openssh_sees_what_it_has_delivered() {
    for line in LINES {
        let site = Site::new();
        let _server = site.serve();
        let client = site.client(SUPPLIER).at(slow_line(site.port, Duration::from_millis(line)));
        let (folder, names) = outgoing(&site, "day", 0, 2);
        let [renamed, plain] = &names[..] else { panic!("two files") };
        let put = |name: &str, to: &str| format!("put -p {} ind/{to}\n", quoted(folder.join(name)));
        let batch = put(renamed, "x.part")
            + &format!(
                "rename ind/x.part ind/{renamed}\nls -l ind/{renamed}\n!sleep 2\nchmod 600 ind/{renamed}\n"
            )
            + &put(plain, plain)
            + "!sleep 4\nls -1 ind\n";
        let ran = client.sftp(&batch).ok();
        for name in &names {
            assert!(ran.out.lines().any(|line| line.trim() == format!("ind/{name}")), "{line} ms: {ran:?}");
        }
        each_came_once(&site, &names);
        assert!(client.list("ind").is_empty(), "a later session sees none of them");
    }
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn what_was_delivered_is_neither_renamed_nor_removed_nor_sent_again() {
    let site = Site::new();
    let _server = site.serve();
    let mut wire = site.client(SUPPLIER).wire();
    wire.put("ind/a.csv.part", csv(0..50).as_bytes()).done();
    wire.rename("ind/a.csv.part", "ind/a.csv").done();
    each_came_once(&site, &["a.csv".to_owned()]);
    wait("it is taken", || Site::names(&site.home(SUPPLIER).join("ind")).is_empty().then_some(()));
    assert_eq!(wire.path(crate::wire::STAT, "ind/a.csv").0, 105);
    assert_eq!(wire.rename("ind/a.csv", "ind/b.csv").status(), Some(2));
    assert_eq!(wire.path(crate::wire::REMOVE, "ind/a.csv").status(), Some(2));
    // Another file under the same name is another delivery.
    wire.put("ind/a.csv", csv(50..60).as_bytes()).done();
    assert_eq!(site.receipts("a.csv", 2)[1]["accepted"], 10);
}
