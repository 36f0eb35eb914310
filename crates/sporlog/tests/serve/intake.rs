//! Records by HTTP: what is answered, and that a retry stores nothing twice, whatever happened between.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::records::{PERSONS, disclosure, lines, login, revision};
use super::server::Site;

const POST: &str = "/sporingslogg/api/post";

async fn replayed(client: &Client, path: &str, body: &str) -> Answer {
    let answer = client.post(path, body.to_owned()).await;
    assert_eq!(answer.header("idempotency-replayed"), Some("true"), "{}", answer.text());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disclosure_is_answered_with_its_id() {
    let site = Site::new();
    let writes = site.key("nav", "write", &["--log", "disclosure"]);
    let server = site.serve();
    let client = server.client(&writes);
    for (n, path) in [POST, "/sporingslogg/post", POST].into_iter().enumerate() {
        // Twice the same without a key is two disclosures.
        let answer = client.post(path, disclosure(PERSONS[0], 7).to_string()).await;
        assert_eq!((answer.status, answer.text()), (200, (n + 1).to_string()));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let example = include_str!("../data/disclosure_example.json");
    let plain: String = example.lines().map(|line| line.split(" // ").next().unwrap_or_default()).collect();
    assert_eq!(client.post(POST, plain).await.text(), "4", "the example of the specification");
    let mut wrong = disclosure("123", 1);
    wrong["tema"] = "ABCD".into();
    let problem = client.post(POST, wrong.to_string()).await.is_problem(400);
    // The same list that the command gives.
    let file = site.path("wrong.json");
    std::fs::write(&file, wrong.to_string()).expect("written");
    let checked = site.run(&["--json", "check", "disclosure", &file.to_string_lossy()]);
    assert_eq!(checked.status.code(), Some(1));
    let checked = String::from_utf8(checked.stdout).expect("text");
    let findings = problem["errors"].as_array().expect("errors");
    let errors = findings.iter().filter(|finding| finding["severity"] == "error");
    let fields: Vec<_> = errors.map(|error| error["field"].as_str().unwrap_or_default()).collect();
    assert!(fields.len() == 2 && fields.contains(&"person") && fields.contains(&"tema"), "{problem}");
    for finding in findings {
        let text = finding["text"].as_str().expect("a text");
        assert!(checked.contains(text), "{text} is not in {checked}");
    }
    for (body, status) in [("", 400), ("{", 400), ("[]", 400), ("null", 400), ("{}", 400), ("\u{0}", 400)] {
        client.post(POST, body).await.is_problem(status);
    }
    client.clone().with("Content-Type", "text/html").post(POST, "<p>").await.is_problem(415);
    client.clone().with("Content-Encoding", "br").post(POST, "x").await.is_problem(415);
    client.post(POST, disclosure(PERSONS[0], 0).to_string().repeat(2)).await.is_problem(400);
    let entries = site.entries("disclosure");
    assert_eq!(entries.len(), 4, "nothing of what was refused is there");
    assert!(
        entries[0]["origin"].as_str().is_some_and(|origin| origin.starts_with("http:nav/")),
        "{entries:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_of_many_has_its_answer() {
    let site = Site::new();
    let (writes, audits) = (site.key("writer", "write", &[]), site.key("auditor", "audit", &[]));
    let server = site.serve();
    let (writer, auditor) = (server.client(&writes), server.client(&audits));
    let path = "/api/logs/auditlog/entries";
    let nameless = json!({"tts": "2022-07-26T06:50:55", "cpr": "3112999999"});
    let mixed = lines([login(1), nameless.clone(), login(2)]);
    let json_lines = writer.clone().with("Content-Type", "application/x-ndjson");
    let answer = json_lines.post(&format!("{path}?quarantine=true"), mixed.clone()).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(2), &json!(1)));
    assert_eq!(answer["results"][0], json!({"index": 1, "id": 1, "remarks": []}));
    assert_eq!(answer["results"][2], json!({"index": 3, "id": 2, "remarks": []}));
    assert!(answer["results"][1]["errors"][0]["text"].is_string(), "{answer}");
    let all = writer.post(path, json!([login(3), login(4)]).to_string()).await;
    assert_eq!((all.status, &all.json()["results"][1]["id"]), (200, &json!(4)));
    assert_eq!(writer.post(path, login(5).to_string()).await.json()["results"][0]["id"], 5);
    let none = writer.post(path, json!([nameless]).to_string()).await;
    assert_eq!((none.status, &none.json()["accepted"]), (422, &json!(0)));
    assert_eq!(auditor.json("/api/logs/auditlog/head").await, json!({"head": 5}));
    // What was asked to be kept is in the quarantine, whole.
    let kept = auditor.json("/api/logs/quarantine/read").await;
    assert_eq!(kept.as_array().map(Vec::len), Some(1), "{kept}");
    let content = kept[0]["record"]["content"].as_str().unwrap_or_else(|| panic!("{kept}"));
    let content = BASE64_STANDARD.decode(content).expect("Base64");
    assert_eq!(content, nameless.to_string().as_bytes());
    for body in ["", "[", "[]", "\n\n", "[1"] {
        writer.post(path, body).await.is_problem(400);
    }
    let too_many = lines((0..10_001).map(|n| json!({"n": n})));
    json_lines.post(path, too_many).await.is_problem(413);
    writer.post("/api/logs/revision/entries", "{}").await.is_problem(400);
    writer.post("/api/logs/nowhere/entries", "{}").await.is_problem(404);
    writer.post(&format!("{path}?quarantine=perhaps"), login(6).to_string()).await.is_problem(400);
    writer.clone().with("Idempotency-Key", "").post(path, login(6).to_string()).await.is_problem(400);
    let long = "x".repeat(256);
    writer.clone().with("Idempotency-Key", &long).post(path, login(6).to_string()).await.is_problem(400);
    assert_eq!(auditor.json("/api/logs/auditlog/head").await, json!({"head": 5}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_as_the_first_time_after_any_restart() {
    let site = Site::new();
    let (writes, others) = (site.key("writer", "write", &[]), site.key("other", "write", &[]));
    let one = disclosure(PERSONS[0], 1).to_string();
    let nobody = disclosure("1", 1);
    let mixed = lines([disclosure("99999999999", 2), nobody, disclosure(PERSONS[1], 3)]);
    let path = "/api/logs/disclosure/entries";
    let mut server = site.serve();
    let once = |server: &super::server::Server, key: &str| {
        server.client(key).with("Idempotency-Key", "0d57d91a").with("Content-Type", "application/json")
    };
    let twice = |server: &super::server::Server| {
        server.client(&writes).with("Idempotency-Key", "2").with("Content-Type", "application/x-ndjson")
    };
    let first = once(&server, &writes).post(POST, one.clone()).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    let several = twice(&server).post(path, mixed.clone()).await;
    assert_eq!(several.status, 207, "{}", several.text());
    for round in 0..3 {
        assert_eq!(replayed(&once(&server, &writes), POST, &one).await.text(), first.text());
        let again = replayed(&twice(&server), path, &mixed).await;
        assert_eq!((again.status, again.json()), (207, several.json()));
        // Another body under the same key is a mistake; the same key of somebody else is another key.
        let other = disclosure(PERSONS[2], 9).to_string();
        once(&server, &writes).post(POST, other.clone()).await.is_problem(422);
        let theirs = once(&server, &others).post(POST, other.clone()).await;
        assert_eq!((theirs.status, theirs.text()), (200, "4".into()));
        assert_eq!(theirs.header("idempotency-replayed").is_some(), round > 0);
        // First in order, then without any warning.
        if round == 0 {
            server.stop();
        } else {
            server.kill();
        }
        server = site.serve();
    }
    // Of several at once, one wins, and all are told the same.
    let mut at_once = Vec::new();
    for _ in 0..8 {
        let (client, body) = (server.client(&writes).with("Idempotency-Key", "at-once"), one.clone());
        at_once.push(tokio::spawn(async move { client.post(POST, body).await }));
    }
    let mut winners = 0;
    for answer in at_once {
        let answer = answer.await.expect("answered");
        assert_eq!((answer.status, answer.text()), (200, "5".into()));
        winners += usize::from(answer.header("idempotency-replayed").is_none());
    }
    assert_eq!(winners, 1);
    server.stop();
    assert_eq!(site.entries("disclosure").len(), 5);
    site.verify("disclosure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_goes_in_once_and_is_receipted() {
    let site = Site::new();
    let (writes, bound) = (
        site.key("kommune", "write", &["--log", "revision"]),
        site.key("bound", "write", &["--organisation", "64942212"]),
    );
    let mut server = site.serve();
    let good = revision(&["64942212", "64942212", "29189846"]);
    let taken = server.client(&writes).post("/api/deliveries?file=day.csv", good.clone()).await;
    assert_eq!(taken.status, 201, "{}", taken.text());
    let receipt = taken.json();
    let member = |name: &str| receipt[name].clone();
    assert_eq!(
        (member("file"), member("log"), member("kind")),
        (json!("day.csv"), json!("revision"), json!("revision"))
    );
    assert_eq!((member("accepted"), member("quarantined")), (json!(3), json!(0)));
    assert_eq!(
        (member("firstId"), member("lastId"), member("bytes")),
        (json!(1), json!(3), json!(good.len()))
    );
    for round in 0..2 {
        let again = server.client(&writes).post("/api/deliveries?file=again.csv", good.clone()).await;
        assert_eq!(again.status, 200, "{}", again.text());
        let again = again.json();
        assert!(again["alreadySince"].is_string() && again["accepted"] == 0, "{again}");
        assert_eq!(again["sha256"], receipt["sha256"]);
        if round == 0 {
            server.kill();
            server = site.serve();
        }
    }
    let client = server.client(&writes);
    // Rows that no other file has.
    let fresh = |file: usize, organisations: &[&str]| {
        revision(organisations).replace("0d57d91a-03d5", &format!("0d57d91a-{file:04}"))
    };
    // A row that is wrong stays behind alone; a file that is cut off stays behind whole.
    let mixed = fresh(0, &["64942212", "no number", "64942212"]);
    let answer = client.post("/api/deliveries?file=mixed.csv", mixed).await;
    assert_eq!((answer.status, &answer.json()["accepted"]), (201, &json!(2)));
    // The receipt is that of a delivery by SFTP: which rows, and why.
    let mixed = answer.json();
    assert_eq!((&mixed["quarantined"], &mixed["outcome"]), (&json!(1), &json!("accepted")));
    let why = &mixed["quarantinedRows"][0];
    assert_eq!(
        (&why["line"], &why["field"], &why["rule"]),
        (&json!(3), &json!("KalderOrganisation"), &json!("digits"))
    );
    let cut = revision(&["64942212"; 10]);
    let answer = client.post("/api/deliveries?file=cut.csv", cut[..cut.len() - 20].to_owned()).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(
        answer.json()["refused"].as_array().is_some_and(|reasons| !reasons.is_empty()),
        "{}",
        answer.text()
    );
    // Packed, and said to be so or not.
    for (n, said) in [None, Some("gzip")].into_iter().enumerate() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(fresh(n + 1, &vec!["64942212"; n + 4]).as_bytes()).expect("packed");
        let client = said.map_or(client.clone(), |said| client.clone().with("Content-Encoding", said));
        let answer = client.post("/api/deliveries?file=day.csv.gz", packed.finish().expect("packed")).await;
        assert_eq!((answer.status, &answer.json()["accepted"]), (201, &json!(n + 4)), "{}", answer.text());
    }
    let packed = zstd::encode_all(fresh(3, &["64942212"; 7]).as_bytes(), 1).expect("packed");
    let answer = client.post("/api/deliveries", packed).await;
    assert_eq!((answer.status, &answer.json()["accepted"]), (201, &json!(7)), "{}", answer.text());
    // What is in the log already is counted and left out, however it is packed.
    let partly = zstd::encode_all(fresh(3, &["64942212"; 9]).as_bytes(), 1).expect("packed");
    let receipt = client.post("/api/deliveries", partly).await.json();
    assert_eq!((&receipt["accepted"], &receipt["skipped"]), (&json!(2), &json!(7)), "{receipt}");
    // A name is a name, not a path, and not somebody's number.
    for name in ["..%2F..%2Fetc%2Fpasswd", "%2Ftmp%2Fx%00.csv", "0101018081.csv"] {
        let body = revision(&vec!["64942212"; 20 + name.len()]);
        let answer = client.post(&format!("/api/deliveries?file={name}"), body).await;
        let shown = answer.json()["file"].clone();
        let shown = shown.as_str().unwrap_or_else(|| panic!("{}", answer.text()));
        assert!(!shown.contains(['/', '\0']) && !shown.contains("0101018081"), "{shown}");
    }
    client.post("/api/deliveries?log=disclosure", good.clone()).await.is_problem(403);
    client.post("/api/deliveries?kind=auditlog", good.clone()).await.is_problem(403);
    client.post("/api/deliveries?kind=other", good.clone()).await.is_problem(400);
    client
        .clone()
        .with("Content-Type", "multipart/form-data; boundary=x")
        .post("/api/deliveries", good.clone())
        .await
        .is_problem(415);
    server.client(&bound).post("/api/deliveries", good).await.is_problem(403);
    let head = site.entries("revision").len();
    server.stop();
    assert_eq!(site.entries("revision").len(), head);
    site.verify("revision");
    site.verify("quarantine");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ties_a_record_to_the_senders_logs_is_kept() {
    let site = Site::new();
    let writes = site.key("writer", "write", &[]);
    let server = site.serve();
    let client = server.client(&writes).with("X-Correlation-ID", "b7ad-6b71");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = client.with("traceparent", trace).post(POST, disclosure(PERSONS[0], 1).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sql = "SELECT envelope FROM disclosure";
    let printed = site.print(&["sql", "--format", "ndjson", sql]);
    let row: Value = serde_json::from_str(printed.trim()).unwrap_or_else(|e| panic!("{e}: {printed}"));
    let envelope = row["envelope"].as_str().unwrap_or_else(|| panic!("{row}"));
    let headers = format!(r#"{{"headers":[["x-correlation-id","b7ad-6b71"],["traceparent","{trace}"]]}}"#);
    assert_eq!(envelope, headers);
}
