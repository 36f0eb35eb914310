//! A disk that is full or read-only: requests get 503, the server is not ready, and both end by themselves.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::client::{Answer, Client};
use super::records::{PERSONS, disclosure, revision};
use super::server::{PATIENCE, Server, Site};

const POST: &str = "/sporingslogg/api/post";

/// A file system of 16 MB in the place of the store, gone again when this is dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(folder: &'a Path) -> Option<Self> {
        std::fs::create_dir(folder).expect("made");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(folder).output();
        if mounted.as_ref().is_ok_and(|done| done.status.success()) {
            return Some(Disk(folder));
        }
        eprintln!("SKIPPED: a tmpfs cannot be mounted here (that takes root): {mounted:?}");
        None
    }

    fn remount(&self, how: &str) {
        let option = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &option]).arg(self.0).status().expect("mount runs");
        assert!(done.success(), "mount -o {option}");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

async fn becomes(server: &Server, status: u16) -> Answer {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = server.anyone().get("/health/ready").await;
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < until, "never {status}: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whoever writes, delivers or reads is told to come again, and so are those who send requests here.
async fn nothing_can_be_done(server: &Server, writer: &Client, reader: &Client) {
    let ready = becomes(server, 503).await.json();
    assert!(
        ready["failing"]["store"].as_str().is_some_and(|why| why.contains("full or read-only")),
        "{ready}"
    );
    for answer in [
        writer.post(POST, disclosure(PERSONS[0], 1).to_string()).await,
        writer.post("/api/deliveries?file=a.csv", revision(&["64942212"])).await,
        reader.get("/api/logs/disclosure/read").await,
    ] {
        answer.is_problem(503);
        assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    }
    assert_eq!(server.anyone().get("/health/live").await.status, 200);
}

async fn all_is_well(server: &Server, writer: &Client, reader: &Client) {
    becomes(server, 200).await;
    let until = Instant::now() + PATIENCE;
    // A writer that stopped because of the disk is replaced by another with the next request.
    while writer.post(POST, disclosure(PERSONS[0], 2).to_string()).await.status != 200 {
        assert!(Instant::now() < until, "nothing is taken in");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(writer.post("/api/deliveries?file=a.csv", revision(&["64942212"])).await.status / 100, 2);
    assert_eq!(reader.get("/api/logs/disclosure/read").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_read_only_or_full_is_503_and_not_ready_until_it_is_not() {
    let site = Site::new();
    let store = site.path("store");
    let Some(disk) = Disk::mount(&store) else { return };
    let (writes, reads) = (site.key("writer", "write", &[]), site.key("reader", "read", &[]));
    // There has to be something to read.
    site.import("disclosure", disclosure(PERSONS[0], 0).to_string().as_bytes());
    let server = site.serve();
    let (writer, reader) = (server.client(&writes), server.client(&reads));

    disk.remount("ro");
    nothing_can_be_done(&server, &writer, &reader).await;
    disk.remount("rw");
    all_is_well(&server, &writer, &reader).await;

    let (ballast, mut bytes) = (store.join("ballast"), 16 << 20);
    // To the last page: what a failed write leaves behind goes by halves.
    while bytes > 0 {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&ballast).expect("opened");
        while file.write_all(&vec![1; bytes]).is_ok() {}
        bytes /= 2;
    }
    nothing_can_be_done(&server, &writer, &reader).await;
    std::fs::remove_file(&ballast).expect("removed");
    all_is_well(&server, &writer, &reader).await;

    server.stop();
    site.verify("disclosure");
    site.verify("access");
}
