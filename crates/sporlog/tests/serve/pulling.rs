//! The mirror of an OS2faktor Login's log: each record once, whatever the upstream does.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::records::login;
use super::server::{PATIENCE, Server, Site};
use super::upstream::{Fault, KEY, Upstream, changed, record};

/// A store whose log `mirror` mirrors `upstream`.
pub fn mirror_of(upstream: &Upstream) -> Site {
    let site = Site::configured(&upstream.pull());
    std::fs::write(site.path("up.key"), KEY).expect("written");
    site
}

/// The ids that the mirror's records had upstream, in the order of the log.
pub fn mirrored(site: &Site) -> Vec<i64> {
    let ids =
        site.entries("mirror").into_iter().map(|entry| entry["record"]["sourceId"].as_i64().expect("an id"));
    ids.collect()
}

#[track_caller]
fn is_each_once(site: &Site, expected: impl IntoIterator<Item = i64>) {
    let mut ids = mirrored(site);
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(expected), "{} ids: {ids:?}", ids.len());
}

fn said(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

/// Runs `sporlog pull up` with these arguments, which has to fail; what it says.
fn fails(site: &Site, args: &[&str]) -> String {
    let ran = site.run(&[&["pull", "up"], args].concat());
    assert_eq!(ran.status.code(), Some(2), "{}", said(&ran));
    said(&ran)
}

/// Takes in what is there; how many records were stored, and how many of them late.
fn once(site: &Site) -> (u64, u64) {
    let totals: Value = serde_json::from_str(&site.print(&["--json", "pull", "up", "--once"])).expect("JSON");
    (totals["accepted"].as_u64().expect("a number"), totals["late"].as_u64().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_server_is_mirrored_as_it_goes_on_and_as_both_are_restarted() {
    let source = Site::new();
    source.print(&["sample", "auditlog", "--records", "2500", "--faulty", "0", "--out", "day.ndjson"]);
    let day = std::fs::read(source.path("day.ndjson")).expect("read");
    source.import("auditlog", &day);
    let key = source.key("mirror", "read", &["--log", "auditlog"]);
    let writes = source.key("writer", "write", &[]);
    let server = source.serve();
    let writer = server.client(&writes);
    let site = Site::configured(&format!(
        "[[pull]]\nname = \"own\"\nurl = \"{}\"\nkey_env = \"UP_KEY\"\nlog = \"mirror\"\ninterval_seconds = 1\n",
        server.url()
    ));
    let (reader, watches) = (site.key("reader", "read", &[]), site.key("prometheus", "metrics", &[]));
    let mirror = site.serve_with(&[], &[("UP_KEY", &key)]);
    let reached = async |head: u64, of: &Server| {
        let until = Instant::now() + 4 * PATIENCE;
        while of.client(&reader).json("/api/logs/mirror/head").await["head"] != head {
            assert!(Instant::now() < until, "not all is mirrored");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    reached(2_500, &mirror).await;
    let posted = writer.post("/api/logs/auditlog/entries", login(1).to_string()).await;
    assert_eq!(posted.status, 200);
    reached(2_501, &mirror).await;
    let metrics = mirror.client(&watches).get("/metrics").await.text();
    assert!(metrics.contains(r#"sporlog_pull_records_total{pull="own"} 2501"#), "{metrics}");
    assert!(metrics.contains(r#"sporlog_pull_failing{pull="own"} 0"#), "{metrics}");
    tokio::task::block_in_place(|| mirror.stop());
    let mirror = site.serve_with(&[], &[("UP_KEY", &key)]);
    let posted = writer.post("/api/logs/auditlog/entries", login(2).to_string()).await;
    assert_eq!(posted.status, 200);
    reached(2_502, &mirror).await;
    tokio::task::block_in_place(|| mirror.stop());
    is_each_once(&site, 1..=2_502);
    // The same records, but for the ids, which are the logs' own.
    let (there, here) = (source.entries("auditlog"), site.entries("mirror"));
    for (there, here) in there.iter().zip(&here) {
        let (mut there, mut here) = (there["record"].clone(), here["record"].clone());
        assert_eq!(here["sourceId"], here["sourceId"]);
        for record in [&mut there, &mut here] {
            record.as_object_mut().expect("an object").remove("sourceId");
        }
        assert_eq!(there, here);
    }
    assert_eq!(here[6]["origin"], "pull:own@7");
    site.verify("mirror");
    tokio::task::block_in_place(|| server.stop());
}

#[test]
fn whatever_goes_wrong_each_record_comes_once() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.add((1..=1_000).filter(|id| id % 7 != 0));
    let html = "<html>login</html>";
    for (path, fault) in [
        ("head", Fault::Status(503, "Retry-After: 1\r\n", "")),
        ("read", Fault::Status(200, "", html)),
        ("read", Fault::Cut),
        ("read", Fault::Twice),
        ("read", Fault::CutChunked),
        ("head", Fault::Status(200, "", html)),
        ("read", Fault::Slow(Duration::from_millis(100))),
        ("read", Fault::Status(200, "", "{\"head\":5}")),
        ("read", Fault::Empty),
        ("head", Fault::Slow(Duration::from_millis(50))),
    ] {
        upstream.fault(path, fault);
    }
    // Faults that are never due would prove nothing.
    site.print(&["pull", "up", "--until-head"]);
    while !upstream.state().faults.is_empty() {
        // In a statement of its own: `add` locks the state, too.
        let next = upstream.state().records.len() as i64 + 10_000;
        upstream.add([next]);
        site.print(&["pull", "up", "--until-head"]);
    }
    let expected: Vec<i64> = upstream.state().records.keys().copied().collect();
    is_each_once(&site, expected);
    site.verify("mirror");
}

#[test]
fn an_upstream_that_cannot_be_read_is_an_error_that_helps_and_quotes_nothing() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.add(1..=5);
    for (path, fault, expected) in [
        ("head", Fault::Status(500, "", "0101018081"), "500"),
        ("head", Fault::Status(200, "", "<html>0101018081</html>"), "the answer is HTML"),
        ("head", Fault::Status(200, "", "0101018081"), "is expected"),
        ("head", Fault::Status(302, "Location: http://127.0.0.1:1/\r\n", ""), "302"),
        ("head", Fault::Status(403, "", "<html></html>"), "check key_file"),
        ("head", Fault::Status(401, "", r#"{"status":401}"#), "check key_file"),
        ("read", Fault::Status(200, "", r#"[{"id":1,"cpr":"0101018081"#), "the file ends before its array"),
        ("read", Fault::Status(200, "", r#"[{"cpr":"0101018081"}]"#), "an integer `id`"),
    ] {
        upstream.state().faults.clear();
        upstream.fault(path, fault);
        let complaint = fails(&site, &["--once"]);
        assert!(complaint.contains(expected) && !complaint.contains("0101018081"), "{complaint}");
    }
    std::fs::write(site.path("up.key"), "another key").expect("written");
    assert!(fails(&site, &["--once"]).contains("printable"));
    std::fs::write(site.path("up.key"), "another").expect("written");
    assert!(fails(&site, &["--once"]).contains("does not accept the API key (401"));
    std::fs::remove_file(site.path("up.key")).expect("removed");
    assert!(fails(&site, &["--once"]).contains("up.key"));
    std::fs::write(site.path("up.key"), KEY).expect("written");
    assert_eq!(once(&site), (5, 0));
}

#[test]
fn an_empty_table_is_no_error_though_the_upstream_says_500() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    assert_eq!(once(&site), (0, 0));
    upstream.add([7]);
    assert_eq!(once(&site), (1, 0));
}

#[test]
fn records_that_turn_up_late_are_taken_in_once() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.add((1..=600).filter(|id| ![1, 200, 598].contains(id)));
    assert_eq!(once(&site), (597, 0));
    upstream.add([1, 598, 601]);
    assert_eq!(once(&site), (3, 2));
    assert_eq!(once(&site), (0, 0));
    // In a process that goes on, too.
    let server = site.serve();
    std::thread::sleep(Duration::from_millis(1_500));
    upstream.add([200]);
    let until = Instant::now() + PATIENCE;
    while !mirrored(&site).contains(&200) {
        assert!(Instant::now() < until, "the late record is never seen");
        std::thread::sleep(Duration::from_millis(200));
    }
    server.stop();
    is_each_once(&site, 1..=601);
}

#[test]
fn an_empty_page_below_the_head_is_asked_for_again() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.add(1..=300);
    upstream.state().head = Some(320);
    assert_eq!(once(&site), (300, 0));
    assert_eq!(once(&site), (0, 0));
    site.print(&["pull", "up", "--until-head"]);
    upstream.add([310, 320]);
    assert_eq!(once(&site), (2, 0));
}

#[test]
fn a_head_that_goes_back_stops_the_pull_until_it_is_told_how_to_go_on() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.add(1..=250);
    assert_eq!(once(&site), (250, 0));
    // Restored from a backup: ids above 200 are used again, for other records.
    upstream.state().records.split_off(&201);
    let complaint = fails(&site, &["--once"]);
    assert!(complaint.contains("head is 200") && complaint.contains("up to 250"), "{complaint}");
    for id in 201..=300 {
        upstream.state().records.insert(id, changed(id, json!({"correlationId": "again"})));
    }
    assert!(fails(&site, &["--until-head"]).contains("--from ID"), "the head is above the position by now");
    let server = site.serve();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(mirrored(&site).len(), 250, "the server does not go on by itself either");
    assert_eq!(
        site.print(&["--json", "pull", "up", "--once", "--from", "190"]),
        r#"{"accepted":100,"late":0,"refused":0}"#
    );
    // And the server has heard of it.
    upstream.add([301]);
    let until = Instant::now() + PATIENCE;
    while mirrored(&site).len() < 351 {
        assert!(Instant::now() < until, "the server does not go on");
        std::thread::sleep(Duration::from_millis(200));
    }
    server.stop();
    let mut times = BTreeMap::new();
    mirrored(&site).into_iter().for_each(|id| *times.entry(id).or_insert(0) += 1);
    assert!(
        times.iter().all(|(id, times)| *times == if (201..=250).contains(id) { 2 } else { 1 }),
        "{times:?}"
    );
    // From the beginning, all is there already.
    assert_eq!(
        site.print(&["--json", "pull", "up", "--once", "--from", "0"]),
        r#"{"accepted":0,"late":0,"refused":0}"#
    );
}

#[test]
fn what_is_not_known_is_kept_and_what_is_long_comes_whole() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    let zipped = "c0ksSVSwUbBJzk9JtQYA";
    let long = "æ\"<saml> ".repeat(2 << 20);
    assert!(long.len() > 20_000_000);
    let mut records = vec![
        changed(1, json!({"logAction": "A_NEW_ACTION", "aNewField": {"deep": [1, null]}})),
        changed(2, json!({"detailType": "XML_ZIP", "detailContent": zipped})),
        changed(3, json!({"detailType": "YAML"})),
        changed(5, json!({"logAction": null})),
    ];
    records.push(changed(6, json!({"detailContent": long})));
    for (id, record) in [1, 2, 3, 5, 6].into_iter().zip(records) {
        upstream.state().records.insert(id, record);
    }
    upstream.add(10..=120);
    let ran = site.run(&["--json", "pull", "up", "--until-head"]);
    assert_eq!(ran.status.code(), Some(1), "{}", said(&ran));
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), r#"{"accepted":115,"late":0,"refused":1}"#);
    let entries = site.entries("mirror");
    let by_id: BTreeMap<i64, &Value> =
        entries.iter().map(|entry| (entry["record"]["sourceId"].as_i64().expect("an id"), entry)).collect();
    assert_eq!(by_id.len(), entries.len());
    assert_eq!(by_id[&1]["record"]["aNewField"], json!({"deep": [1, null]}), "{}", by_id[&1]);
    assert_eq!(by_id[&2]["record"]["detailContent"], zipped);
    assert_eq!(
        (&by_id[&2]["remarks"], &by_id[&3]["remarks"][0]["rule"]),
        (&json!([]), &json!("detail-type"))
    );
    assert!(by_id[&6]["record"]["detailContent"] == *long, "changed on its way");
    // The refused one is in the quarantine once, however often it is read.
    let ran = site.run(&["pull", "up", "--once", "--from", "0"]);
    assert!(ran.status.success(), "{}", said(&ran));
    assert_eq!(site.print(&["--json", "quarantine", "list"]).lines().count(), 1);
    assert_eq!(mirrored(&site).len(), 115);
}

#[test]
fn ids_near_the_end_of_an_int_are_said_before_they_come() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.state().int = true;
    upstream.add([2_100_000_000, 2_147_483_647]);
    let ran = site.run(&["pull", "up", "--once"]);
    assert!(ran.status.success() && said(&ran).contains("near 2^31 - 1"), "{}", said(&ran));
    upstream.add([2_147_483_648]);
    assert_eq!(once(&site), (1, 0));
    upstream.add([2_147_483_649]);
    assert!(fails(&site, &["--once"]).contains("400"));
}

#[test]
fn two_at_once_take_in_each_record_once() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.add(1..=3_000);
    let mut next = 3_000;
    // Each request shows two more records, of which the first turns up later.
    upstream.state().on_request = Some(Box::new(move |_, records| {
        if next < 4_000 {
            next += 2;
            records.insert(next, record(next));
            records.insert(next - 21, record(next - 21));
        }
    }));
    std::thread::scope(|scope| {
        let run = || site.print(&["pull", "up", "--until-head"]);
        let all = [scope.spawn(run), scope.spawn(run), scope.spawn(run)];
        all.into_iter().for_each(|one| drop(one.join().expect("no panic")));
    });
    upstream.state().on_request = None;
    once(&site);
    let expected: Vec<i64> = upstream.state().records.keys().copied().collect();
    is_each_once(&site, expected);
}

#[test]
fn a_log_with_records_of_another_source_is_left_alone_until_it_is_told() {
    let upstream = Upstream::start();
    let site = mirror_of(&upstream);
    upstream.add(1..=20);
    std::fs::write(site.path("old.ndjson"), (1..=10).map(|id| record(id) + "\n").collect::<String>())
        .expect("written");
    site.print(&["import", "auditlog", "old.ndjson", "--log", "mirror"]);
    assert!(fails(&site, &["--once"]).contains("did not come by this pull"));
    assert_eq!(
        site.print(&["--json", "pull", "up", "--once", "--from", "0"]),
        r#"{"accepted":10,"late":0,"refused":0}"#
    );
    is_each_once(&site, 1..=20);
}

#[test]
fn what_differs_is_missing_or_gone_is_told() {
    let upstream = Upstream::start();
    // So that a late record is missed.
    let site = Site::configured(&format!("{}look_back_ids = 1\nlook_back_minutes = 0\n", upstream.pull()));
    std::fs::write(site.path("up.key"), KEY).expect("written");
    upstream.add((1..=500).filter(|id| *id != 450));
    assert_eq!(once(&site), (499, 0));
    let compare = || {
        let ran = site.run(&["--json", "pull", "up", "--compare"]);
        let text = String::from_utf8(ran.stdout.clone()).expect("text");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (ran.status.code(), lines)
    };
    let (code, lines) = compare();
    assert_eq!((code, lines.len(), &lines[0]["compared"]["same"]), (Some(0), 1, &json!(499)));
    {
        let mut state = upstream.state();
        let records = &mut state.records;
        (1..=100).for_each(|id| drop(records.remove(&id)));
        records.insert(200, changed(200, json!({"samaccountName": "other"})));
        records.insert(300, changed(300, json!({"message": "0101018081", "cpr": null, "isNew": true})));
        // What has not been read yet is not missing.
        (501..=600).chain([450]).for_each(|id| drop(records.insert(id, record(id))));
    }
    let (code, lines) = compare();
    assert_eq!(code, Some(1));
    assert_eq!(lines[0], json!({"sourceId": 300, "id": 300, "fields": ["cpr", "message", "extra"]}));
    assert_eq!(lines[1], json!({"sourceId": 450, "id": null, "fields": []}));
    let compared = json!({"upTo": 500, "there": 400, "same": 398, "different": 1, "missing": 1,
        "quarantined": 0, "kept": 100, "keptIds": [1, 100]});
    assert_eq!(lines[2]["compared"], compared);
    assert_eq!(mirrored(&site).len(), 499, "a comparison stores nothing");
    assert_eq!(
        site.print(&["--json", "pull", "up", "--once", "--from", "449"]),
        r#"{"accepted":101,"late":0,"refused":0}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mfa_log_is_mirrored_into_a_log_of_its_own() {
    let source = Site::new();
    source.print(&["sample", "mfa", "--records", "350", "--faulty", "0", "--out", "mfa.ndjson"]);
    source.import("mfa", &std::fs::read(source.path("mfa.ndjson")).expect("read"));
    let key = source.key("mirror", "read", &["--log", "mfa"]);
    let server = source.serve();
    let site = Site::configured(&format!(
        "[[pull]]\nname = \"up\"\nurl = \"{}\"\nkey_file = \"up.key\"\nlog = \"mirror\"\nkind = \"mfa\"\n",
        server.url()
    ));
    std::fs::write(site.path("up.key"), key).expect("written");
    tokio::task::block_in_place(|| {
        assert_eq!(once(&site), (350, 0));
        assert_eq!(once(&site), (0, 0));
    });
    is_each_once(&site, 1..=350);
}
