//! A first read that is killed over and over, from an upstream that commits out of order.
//!
//! `SPORLOG_PULL_RECORDS=500000` has the whole measure; by default there are fewer, for a debug build.

use std::process::Stdio;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::pulling::{mirror_of, mirrored};
use super::upstream::{Upstream, record};

/// Ids within this distance may become visible in any order.
const OUT_OF_ORDER: i64 = 2_000;
/// The most kills.
const KILLS: u64 = 15;

#[test]
fn a_first_read_that_is_killed_over_and_over_has_each_record_once() {
    let records: i64 = std::env::var("SPORLOG_PULL_RECORDS").map_or(40_000, |n| n.parse().expect("a number"));
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    let mut chance = ChaCha8Rng::seed_from_u64(7);
    upstream.add(1..=records - records / 4);
    // The rest is committed while it is read: each id at a moment of its own, near those of its neighbours.
    // One comes last of all: whatever the kills did to the rest, this one is late.
    let late = records - OUT_OF_ORDER / 2;
    let mut waiting: Vec<(i64, i64)> = (records - records / 4 + 1..=records)
        .filter(|id| *id != late)
        .map(|id| (id + chance.random_range(0..OUT_OF_ORDER), id))
        .collect();
    waiting.sort_unstable();
    waiting.reverse();
    // Only when they are nearly read: otherwise all would be there by then.
    let near = records - records / 4 - OUT_OF_ORDER;
    upstream.state().on_request = Some(Box::new(move |path, records| {
        let offset = path.split_once("offset=").map(|(_, offset)| offset.parse().expect("a number"));
        if offset.is_some_and(|offset: i64| offset < near) {
            return;
        }
        for _ in 0..31 {
            records.extend(waiting.pop().map(|(_, id)| (id, record(id))));
        }
    }));
    let mut kills = 0;
    loop {
        let mut child = site.command(&["pull", "up", "--until-head"]);
        let mut child =
            child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        let mut left = Duration::from_millis(chance.random_range(150..1_500 + 100 * kills));
        // In the end, it is left alone.
        while child.try_wait().expect("a child").is_none() && (!left.is_zero() || kills == KILLS) {
            let step = Duration::from_millis(20);
            std::thread::sleep(step);
            left = left.saturating_sub(step);
        }
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "{status}");
            if upstream.state().records.len() as i64 == records - 1 {
                break;
            }
            continue;
        }
        child.kill().expect("killed");
        child.wait().expect("a child");
        kills += 1;
    }
    upstream.add(late..=late);
    site.print(&["pull", "up", "--until-head"]);
    assert!(kills >= 3, "it was hardly killed at all: {kills} times");
    let mut ids = mirrored(&site);
    assert!(!ids.is_sorted(), "nothing came out of order");
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(1..=records), "{} of {records}", ids.len());
    site.verify("mirror");
}
