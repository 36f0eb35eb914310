//! OS2faktor Login's audit-log API, to the letter of its description.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::records::{lines, login};
use super::server::Site;

/// The members of a record, in the order of the description.
const MEMBERS: [&str; 16] = [
    "id",
    "tts",
    "ipAddress",
    "correlationId",
    "personId",
    "personName",
    "cpr",
    "performerId",
    "performerName",
    "logAction",
    "message",
    "personDomain",
    "samaccountName",
    "detailType",
    "detailContent",
    "detailSupplement",
];

fn ids(page: &Value) -> Vec<u64> {
    let records = page.as_array().unwrap_or_else(|| panic!("{page}"));
    records.iter().map(|record| record["id"].as_u64().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_kept_as_the_description_says() {
    let site = Site::new();
    let key = site.key("copy", "read", &["--log", "auditlog"]);
    let server = site.serve();
    let client = server.client(&key);
    assert_eq!(client.get("/api/auditlog/head").await.text(), r#"{"head":0}"#);
    assert_eq!(client.get("/api/auditlog/read").await.text(), "[]");
    site.import("auditlog", lines((1..=250).map(login)).as_bytes());
    let until = Instant::now() + Duration::from_secs(10);
    while client.json("/api/auditlog/head").await != json!({"head": 250}) {
        assert!(Instant::now() < until, "what another process took in is never seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = client.get("/api/auditlog/read").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let page = answer.json();
    assert_eq!(ids(&page), (1..=100).collect::<Vec<_>>());
    assert_eq!(page, client.json("/api/auditlog/read?offset=0").await);
    for record in page.as_array().expect("records") {
        let expected = login(record["id"].as_u64().expect("an id") as usize);
        assert_eq!(record.as_object().expect("an object").len(), MEMBERS.len(), "{record}");
        for member in &MEMBERS[1..] {
            assert_eq!(record[member], expected[member], "{member} of {record}");
        }
    }
    // Parsers aside: in this order, and with null where nothing is known.
    let text = answer.text();
    let first = text.get(..text.find('}').expect("an end")).expect("a record");
    let places: Vec<_> = MEMBERS.iter().map(|member| first.find(&format!("\"{member}\":"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{first}");
    assert!(
        first.contains(r#""performerId":null"#) && first.contains(r#""tts":"2022-07-26T06:50:55""#),
        "{first}"
    );

    let read = async |offset: u64| ids(&client.json(&format!("/api/auditlog/read?offset={offset}")).await);
    assert_eq!(read(100).await, (101..=200).collect::<Vec<_>>());
    assert_eq!(read(200).await, (201..=250).collect::<Vec<_>>());
    assert_eq!(read(249).await, [250]);
    for at_the_end in [250, 251, 1 << 40] {
        assert_eq!(read(at_the_end).await, [] as [u64; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_non_negative_integers() {
    let site = Site::new();
    let key = site.key("copy", "read", &[]);
    site.import("auditlog", lines((1..=3).map(login)).as_bytes());
    let server = site.serve();
    let client = server.client(&key);
    for wrong in ["-1", "1.5", "1e1", "abc", "", "%20", "0x1", "null", "%00", "-0", "1&offset=2"] {
        let answer = client.get(&format!("/api/auditlog/read?offset={wrong}")).await;
        answer.is_problem(400);
    }
    for (beyond, expected) in [
        ("3", 0),
        ("18446744073709551615", 0),
        ("18446744073709551616", 0),
        ("99999999999999999999", 0),
        ("002", 1),
    ] {
        let page = client.json(&format!("/api/auditlog/read?offset={beyond}")).await;
        assert_eq!(page.as_array().map(Vec::len), Some(expected), "{beyond}");
    }
    assert_eq!(client.json("/api/auditlog/read?unknown=1").await.as_array().map(Vec::len), Some(3));
    for path in ["/api/auditlog/head?wait=-1", "/api/auditlog/head?wait=61", "/api/auditlog/head?after=x"] {
        client.get(path).await.is_problem(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn details_may_be_megabytes() {
    let site = Site::new();
    let (reads, writes) = (site.key("r", "read", &[]), site.key("w", "write", &[]));
    let server = site.serve();
    let (reader, writer) = (server.client(&reads), server.client(&writes));
    // Characters of one to four bytes, and all that JSON has to escape.
    let piece = "<saml:Assertion ID=\"_1\">\u{0}\u{1f}\"\\\n\t æøå € 𐍈</saml:Assertion>";
    let content = piece.repeat(5 * (1 << 20) / piece.len());
    for n in 1..=4 {
        let mut record = login(n);
        record["detailType"] = "XML".into();
        record["detailContent"] = content.clone().into();
        let answer = writer.post("/api/logs/auditlog/entries", record.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let page = reader.json("/api/auditlog/read?offset=0").await;
    assert_eq!(ids(&page), [1, 2, 3, 4]);
    for record in page.as_array().expect("records") {
        assert!(record["detailContent"] == content.as_str(), "changed on its way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_the_log_moves() {
    let site = Site::new();
    let (reads, writes) = (site.key("r", "read", &[]), site.key("w", "write", &[]));
    let server = site.serve();
    let (reader, writer) = (server.client(&reads), server.client(&writes));
    // Before the log is begun at all, and then from its first record on.
    for head in 0..2_u64 {
        let waiting = tokio::spawn({
            let reader = reader.clone();
            async move {
                let answer = reader.json(&format!("/api/auditlog/head?wait=30&after={head}")).await;
                (answer, Instant::now())
            }
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!waiting.is_finished(), "nothing has happened yet");
        let posted = writer.post("/api/logs/auditlog/entries", login(1).to_string()).await;
        assert_eq!(posted.status, 200, "{}", posted.text());
        let stored = Instant::now();
        let (answer, at) = waiting.await.expect("answered");
        assert_eq!(answer, json!({"head": head + 1}));
        let late = at.saturating_duration_since(stored);
        // A log that is not there yet is looked for every second.
        assert!(late < Duration::from_millis(if head == 0 { 2_500 } else { 500 }), "{late:?}");
    }
    // What is there already is no reason to wait, and what does not come is not waited for longer.
    let began = Instant::now();
    assert_eq!(reader.json("/api/auditlog/head?wait=30&after=1").await, json!({"head": 2}));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(reader.json("/api/auditlog/head?wait=1").await, json!({"head": 2}));
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_be_waited_for_longer_than_an_answer_may_take() {
    let site = Site::configured("[server.limits]\nanswer_seconds = 1\n");
    let key = site.key("reader", "read", &[]);
    let server = site.serve();
    for path in ["/api/auditlog/head?wait=2", "/api/logs/auditlog/head?wait=2"] {
        assert_eq!(server.client(&key).json(path).await, json!({"head": 0}), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mfa_log_is_read_in_the_same_way() {
    let site = Site::new();
    site.print(&["sample", "mfa", "--records", "150", "--faulty", "0", "--out", "mfa.ndjson"]);
    let sample = std::fs::read_to_string(site.path("mfa.ndjson")).expect("read");
    site.import("mfa", sample.as_bytes());
    let (key, other) =
        (site.key("copy", "read", &["--log", "mfa"]), site.key("other", "read", &["--log", "auditlog"]));
    let server = site.serve();
    let client = server.client(&key);
    assert_eq!(client.json("/api/auditlog/mfa/head").await, json!({"head": 150}));
    let page = client.json("/api/auditlog/mfa/read?offset=100").await;
    assert_eq!(ids(&page), (101..=150).collect::<Vec<_>>());
    let given: Value = serde_json::from_str(sample.lines().nth(100).expect("a line")).expect("JSON");
    let members = [
        "clientType",
        "createdTts",
        "deviceId",
        "fetchTts",
        "pushTts",
        "responseTts",
        "status",
        "systemName",
        "username",
    ];
    for member in members {
        assert_eq!(page[0][member], given[member], "{member}");
    }
    client.get("/api/auditlog/mfa/read?offset=x").await.is_problem(400);
    client.get("/api/auditlog/head").await.is_problem(403);
    server.client(&other).get("/api/auditlog/mfa/read").await.is_problem(403);
    let found = site.print(&["find", "mfa", "--actor", given["username"].as_str().expect("a user")]);
    assert!(found.contains(given["deviceId"].as_str().expect("a device")), "{found}");
}
