//! Records that a killed server acknowledged, and no checkpoint covers yet.

use std::time::{Duration, Instant};

use super::records::{PERSONS, disclosure};
use super::server::{PATIENCE, Site};

/// Kills that are tried: a checkpoint follows a record within some milliseconds.
const TRIES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_left_uncovered_is_covered_by_the_next_server() {
    let site = Site::new();
    let (writing, reading) = (site.key("writer", "write", &[]), site.key("auditor", "audit", &[]));
    let covered = || {
        let checkpoint = std::fs::read_to_string(site.path("store/logs/disclosure/tlog/checkpoint"));
        checkpoint.ok().and_then(|text| text.lines().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut newest = 0;
    for n in 0..TRIES {
        let server = site.serve();
        let client = server.client(&writing);
        // Several at once: the checkpoint of the first of them holds that of the others up.
        let post = |n| client.post("/sporingslogg/api/post", disclosure(PERSONS[0], n).to_string());
        let answers = futures::future::join_all((0..8).map(|part| post(8 * n + part))).await;
        server.kill();
        newest = answers.iter().filter_map(|answer| answer.text().parse().ok()).max().unwrap_or(newest);
        if covered() < newest {
            break;
        }
    }
    assert!(covered() < newest, "no kill came before the checkpoint");
    // Without a further append.
    let server = site.serve();
    let client = server.client(&reading);
    let until = Instant::now() + PATIENCE;
    loop {
        let proof = client.get(&format!("/api/logs/disclosure/entries/{newest}/proof")).await;
        if proof.status == 200 {
            break;
        }
        assert!(Instant::now() < until, "{}: {}", proof.status, proof.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop();
    assert_eq!(covered(), newest);
    site.verify("disclosure");
}
