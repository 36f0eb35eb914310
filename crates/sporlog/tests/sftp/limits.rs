//! Clients that want too much, are too slow, or talk nonsense; and disks that are full.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::client::{finish, quoted};
use crate::rows::{csv, each, numbers};
use crate::site::{SUPPLIER, Site, sha256, wait};
use crate::wire::{CREATING, OPENDIR, READING, STAT, TRUNCATING, WRITING};

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_thousand_handles_are_not_given_out() {
    let site = Site::new();
    let server = site.serve();
    for round in 0..3 {
        let mut wire = site.client(SUPPLIER).wire();
        let mut given = Vec::new();
        for n in 0..1_000 {
            let answer = match n % 2 {
                0 => wire.open(format!("ind/{n}.part"), WRITING | CREATING | TRUNCATING),
                _ => wire.path(OPENDIR, "/ind"),
            };
            if answer.status().is_none() {
                given.push(answer.handle());
            } else {
                answer.refused();
            }
        }
        assert_eq!(given.len(), 100, "{round}");
        // Those it has work on, and make room.
        wire.close(&given[1]).done();
        let handle = wire.path(OPENDIR, "/").handle();
        wire.close(&handle).done();
        wire.close(&handle).refused();
        // A made-up handle is none.
        wire.read(b"\0\0\0\0", 0, 10).refused();
        wire.read(&[0xff; 256], 0, 10).refused();
        wire.write(&given[0], 0, b"x").done();
        // Gone without a word, with all of them open.
    }
    assert!(server.peak_memory() < 300, "{} MB", server.peak_memory());
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn sessions_and_files_are_counted() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nsessions = 2\nfiles = 5\n");
    let _server = site.serve();
    let client = site.client(SUPPLIER);
    let (one, mut two) = (client.wire(), client.wire());
    assert!(client.try_wire().is_err());
    client.sftp("ls").fails();
    drop(one);
    wait("a place becomes free", || client.sftp("ls").ok.then_some(()));
    for n in 0..5 {
        two.put(format!("ind/{n}.part"), b"x").done();
    }
    two.put("ind/5.part", b"x").refused();
    // To replace one is no more than there was.
    two.put("ind/4.part", b"y").done();
    two.path(crate::wire::REMOVE, "ind/0.part").done();
    two.put("ind/5.part", b"x").done();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn no_file_is_larger_than_it_may_be() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nfile_bytes = 100_000\n");
    let _server = site.serve();
    let client = site.client(SUPPLIER);
    let mut wire = client.wire();
    for offset in [1 << 40, u64::MAX, 99_999] {
        let handle = wire.open("ind/hole.part", WRITING | CREATING).handle();
        wire.write(&handle, offset, b"xx").refused();
        // Nor does such a client hear that all is well, in the end.
        wire.close(&handle).refused();
    }
    let handle = wire.open("ind/hole.part", WRITING | CREATING).handle();
    wire.write(&handle, 99_998, b"xx").done();
    // It is not too large, but for the bytes before these.
    let refused = wire.close(&handle);
    assert!(
        String::from_utf8_lossy(&refused.1).contains("the bytes from 0 to 99998 did not come"),
        "{refused:?}"
    );
    let handle = wire.open("ind/hole.part", WRITING | CREATING).handle();
    wire.write(&handle, 0, &[b'x'; 10]).done();
    wire.close(&handle).done();
    // Nor by setting its size.
    let size = [&1_u32.to_be_bytes()[..], &(1_u64 << 40).to_be_bytes()].concat();
    let _ = wire.ask(9, &[&13_u32.to_be_bytes()[..], b"ind/hole.part", &size].concat());
    assert!(!client.sftp("ls -l ind").ok().out.contains("1099511627776"));
    // What was too large is not delivered by half.
    let file = site.file("large.csv", csv(0..2_000));
    client.sftp(&format!("put {} ind/", quoted(&file))).fails();
    std::thread::sleep(Duration::from_secs(3));
    let taken = site.deliveries(SUPPLIER);
    assert!(taken.iter().all(|receipt| receipt["outcome"] == "refused"), "{taken:?}");
    client.put(&site.file("small.csv", csv(0..100)));
    assert_eq!(site.receipt("small.csv")["accepted"], 100);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn bytes_a_second_are_limited_up_and_down() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nbytes_per_second = 200_000\n");
    let _server = site.serve();
    let client = site.client(SUPPLIER);
    let content = csv(0..4_000);
    let begun = Instant::now();
    client.sftp(&format!("put {} ind/f.part", quoted(site.file("f.csv", &content)))).ok();
    let took = begun.elapsed().as_secs_f64();
    let least = content.len() as f64 / 200_000.0;
    assert!(took > 0.6 * least && took < 3.0 * least + 3.0, "{} bytes in {took} s", content.len());
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn whoever_stalls_is_let_go_and_whoever_is_slow_is_not() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nidle_seconds = 3\nsessions = 20\n");
    let server = site.serve();
    let client = site.client(SUPPLIER);
    // Nothing at all; half a greeting; a sign-in that does not come.
    let mut silent: Vec<_> = [&b""[..], b"SSH-2.0-", b"SSH-2.0-OpenSSH_9.9\r\n"]
        .iter()
        .map(|begin| {
            let mut stream = TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
            stream.write_all(begin).expect("sent");
            stream
        })
        .collect();
    let idle = client.wire();
    let file = site.file("stalled.csv", csv(0..12_000));
    let stalled = client.start_sftp(&["-l", "4000"], &format!("put {} ind/", quoted(&file)));
    // A slow one: longer than what counts as idle. With larger pieces all of it would be sent at once.
    let slow_file = site.file("slow.csv", csv(20_000..20_800));
    let slow = client.start_sftp(&["-B", "32768", "-l", "250"], &format!("put {} ind/", quoted(&slow_file)));
    let begun = Instant::now();
    let uploads = site.home(SUPPLIER).join(".sporlog/uploads/stalled.csv");
    wait("some of it has come", || (std::fs::metadata(&uploads).ok()?.len() > 100_000).then_some(()));
    kill_process(Pid::from_child(&stalled), Signal::STOP).expect("stopped");
    for stream in &mut silent {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        let ended = stream.read_to_end(&mut Vec::new());
        let late = ended.as_ref().is_err_and(|e| {
            matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
        });
        assert!(!late && begun.elapsed() < Duration::from_secs(12), "{ended:?}");
    }
    // Others are served meanwhile.
    client.sftp("ls").ok();
    let mut idle = idle;
    wait("the idle one is let go", || {
        idle.try_ask(STAT, &[0, 0, 0, 1, b'/']).is_err().then_some(()).or_else(|| {
            std::thread::sleep(Duration::from_secs(5));
            None
        })
    });
    assert!(finish(slow).ok);
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(site.receipt("slow.csv")["accepted"], 800);
    kill_process(Pid::from_child(&stalled), Signal::CONT).expect("goes on");
    finish(stalled).fails();
    assert_eq!(site.deliveries(SUPPLIER).len(), 1);
    // What came of it is there, and goes on.
    client.sftp(&format!("reput {} ind/stalled.csv", quoted(&file))).ok();
    assert_eq!(site.receipt("stalled.csv")["accepted"], 12_000);
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn nonsense_on_the_port_harms_nobody() {
    let site = Site::configured(
        "settle_seconds = 1\n[sftp.limits]\nidle_seconds = 3\nconnections = 30\nsessions = 30\n",
    );
    let server = site.serve();
    let noise: Vec<u8> = (0_u32..200_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let greeted = |bytes: &[u8]| [b"SSH-2.0-x\r\n", bytes].concat();
    for bytes in [
        noise.clone(),
        greeted(&noise),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![b'A'; 1 << 20],
        vec![b'\n'; 1 << 20],
        [&b"SSH-2.0-"[..], &vec![b'x'; 1 << 20]].concat(),
        greeted(&[0xff; 64]),
        greeted(&[0; 64]),
        greeted(&[0x7f, 0xff, 0xff, 0xff, 4]),
        greeted(&[0, 0, 0, 12, 4, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(Duration::from_secs(8))).expect("set");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // Within a session.
    let client = site.client(SUPPLIER);
    for bytes in [
        &[0xff; 64][..],
        &[0; 64],
        &[0x7f, 0xff, 0xff, 0xff, 3],
        &[0, 0, 0, 5, 3, 0, 0, 0, 1],
        &[0, 0, 0, 9, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 5, 250, 0, 0, 0, 1],
        &[0, 0, 0, 1, 3],
        &noise,
    ] {
        let mut wire = client.wire();
        let _ = wire.send_raw(bytes);
        // Whether it answers or ends the session is its own affair.
        drop(wire);
        client.sftp("ls").ok();
    }
    // Requests without end whose answers nobody fetches.
    let mut wire = client.wire();
    let path = [&5_u32.to_be_bytes()[..], b"/ind/"].concat();
    let begun = Instant::now();
    let (told, tells) = std::sync::mpsc::channel();
    let flood = std::thread::spawn(move || {
        for n in 0..2_000_000 {
            if begun.elapsed() > Duration::from_secs(5) || wire.request(STAT, &path).is_err() {
                let _ = told.send(n);
                break;
            }
        }
        let _ = told.send(2_000_000);
        wire
    });
    // The client's pipe is full when the server takes no more: that is how it should be.
    let sent = tells.recv_timeout(Duration::from_secs(6));
    eprintln!("requests that were sent without fetching an answer: {sent:?}");
    client.sftp("ls").ok();
    assert!(server.peak_memory() < 400, "{} MB", server.peak_memory());
    // More connections than there may be: those that say nothing make room in the end.
    let many: Vec<_> = (0..60).map(|_| TcpStream::connect(("127.0.0.1", site.port))).collect();
    wait("there is room again", || client.clone().option("ConnectTimeout=3").sftp("ls").ok.then_some(()));
    drop(many);
    client.put(&site.file("f.csv", csv(0..10)));
    assert_eq!(site.receipt("f.csv")["accepted"], 10);
    server.stop();
    drop(flood);
}

/// A command that runs another one with a disk of so many megabytes at `path`, which nobody else sees;
/// `None` where that is not allowed.
fn on_small_disk(path: &std::path::Path, megabytes: u32) -> Option<Command> {
    let allowed = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("no disk can be mounted here (unshare --mount): not tried");
        return None;
    }
    std::fs::create_dir_all(path).expect("made");
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script]).arg(path).arg(env!("CARGO_BIN_EXE_sporlog"));
    Some(command)
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn an_upload_that_finds_no_space_is_told_so() {
    let site = Site::configured("root = \"small\"\nsettle_seconds = 1\n");
    let Some(command) = on_small_disk(&site.path("small"), 4) else { return };
    let server = site.serve_in(command);
    let client = site.client(SUPPLIER);
    let large = site.file("large.csv", csv(0..30_000));
    client.sftp(&format!("put {} ind/", quoted(&large))).fails();
    // Nothing of it is delivered, and when it is gone there is room for others.
    client.sftp("rm ind/large.csv").ok();
    let content = csv(0..2_000);
    client.put(&site.file("fits.csv", &content));
    let receipt = wait("its receipt", || {
        let to = site.path("receipt");
        let got = client.sftp(&format!("get kvittering/fits.csv.kvittering.json {}", quoted(&to)));
        got.ok.then(|| serde_json::from_slice::<Value>(&std::fs::read(to).expect("read")).expect("JSON"))
    });
    assert_eq!(
        (&receipt["accepted"], &receipt["sha256"]),
        (&2_000.into(), &sha256(&content).into()),
        "{receipt}"
    );
    assert_eq!(client.list("kvittering").len(), 2);
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_delivery_that_finds_no_space_in_the_store_waits_for_it() {
    let site = Site::configured("root = \"exchange\"\nsettle_seconds = 1\n");
    let Some(command) = on_small_disk(&site.path("store"), 3) else { return };
    let server = site.serve_in(command);
    let client = site.client(SUPPLIER);
    // Rows that cannot be packed into less.
    let mut dice = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut noise = || -> String { (0..12).map(|_| format!("{:016x}", dice.random::<u64>())).collect() };
    let rows: Vec<_> = csv(0..40_000).lines().map(|row| row.replacen("n=", &noise(), 1)).collect();
    let content = rows.join("\n");
    client.put(&site.file("large.csv", &content));
    let home = site.path("exchange/accounts").join(SUPPLIER);
    std::thread::sleep(Duration::from_secs(8));
    let receipts = || Site::names(&home.join("kvittering"));
    assert!(receipts().is_empty(), "{:?}", receipts());
    // It lies there whole until there is room: that comes now.
    let (id, store) = (server.id().to_string(), site.path("store"));
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--target", &id, "mount", "-o", "remount,size=200m"]).arg(store);
    assert!(command.status().expect("nsenter").success());
    crate::site::wait_for(Duration::from_secs(90), "its receipt", || (receipts().len() == 2).then_some(()));
    let receipt = std::fs::read(home.join("kvittering/large.csv.kvittering.json")).expect("its receipt");
    let receipt: Value = serde_json::from_slice(&receipt).expect("JSON");
    assert_eq!(
        (&receipt["accepted"], &receipt["sha256"]),
        (&40_000.into(), &sha256(&content).into()),
        "{receipt}"
    );
    wait("all is dealt with", || Site::names(&home.join(".sporlog/taken")).is_empty().then_some(()));
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn many_clients_at_once_are_all_served() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nsessions = 12\n");
    let server = site.serve();
    let client = site.client(SUPPLIER);
    client.sftp("ls").ok();
    let clients: Vec<_> = (0..10)
        .map(|n| {
            let file = site.file(&format!("{n}.csv"), csv(n * 500..(n + 1) * 500));
            client.start_sftp(&[], &format!("put {} ind/", quoted(file)))
        })
        .collect();
    for client in clients {
        finish(client).ok();
    }
    for n in 0..10 {
        assert_eq!(site.receipt(&format!("{n}.csv"))["accepted"], 500);
    }
    assert_eq!(numbers(&site.entries("revision")), each(0..5_000, 1));
    // A file is read in parts wherever one likes, and past its end there is nothing.
    let mut wire = client.wire();
    let handle = wire.open("kvittering/3.csv.kvittering.json", READING).handle();
    let whole = client.get("kvittering/3.csv.kvittering.json");
    let answer = wire.read(&handle, 5, 7);
    assert_eq!(answer.1[4..], whole[5..12]);
    assert_eq!(wire.read(&handle, u64::MAX, 7).status(), Some(1));
    assert_eq!(wire.read(&handle, whole.len() as u64, u32::MAX).status(), Some(1));
    wire.close(&handle).done();
    server.stop();
}
