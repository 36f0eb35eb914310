//! What came over the exchange, over HTTP and in the metrics.

use serde_json::{Value, json};

use super::records::{PERSONS, disclosure, revision};
use super::server::{PATIENCE, Site};

const CONFIG: &str = "\
[sftp]
listen = '127.0.0.1:0'
[[sftp.account]]
name = 'a'
role = 'supplier'
[[sftp.account]]
name = 'b'
role = 'supplier'
";

/// A site whose supplier `a` delivered two days' files, one of which was refused, long ago.
fn site() -> Site {
    let site = Site::configured(CONFIG);
    let folder = site.path("store/exchange/deliveries");
    std::fs::create_dir_all(&folder).expect("made");
    let lines = [(1, "accepted"), (2, "refused")].map(|(day, outcome)| {
        let delivery = json!({
            "delivery": format!("2026010{day}T060000Z-a"), "account": "a", "file": "dag.csv",
            "log": "revision", "outcome": outcome, "takenAt": format!("2026-01-0{day}T06:00:00Z"),
            "bytes": 100, "accepted": 10, "quarantined": 0, "remarks": 0, "overlapping": 0, "skipped": 0,
            "seconds": 0.5,
        });
        format!("{delivery}\n")
    });
    std::fs::write(folder.join("a.jsonl"), lines.concat()).expect("written");
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_and_what_is_missing() {
    let site = site();
    let (audits, reads) = (site.key("auditor", "audit", &[]), site.key("reader", "read", &[]));
    let server = site.serve();
    let client = server.client(&audits);
    let ids = |listed: &Value| -> Vec<Value> {
        listed.as_array().expect("a list").iter().map(|one| one["delivery"].clone()).collect()
    };
    let listed = client.json("/api/deliveries").await;
    assert_eq!(ids(&listed), ["20260102T060000Z-a", "20260101T060000Z-a"]);
    let rest = client.json("/api/deliveries?before=20260102T060000Z-a&limit=5").await;
    assert_eq!(ids(&rest), ["20260101T060000Z-a"]);
    let one = client.json("/api/deliveries/20260102T060000Z-a").await;
    assert_eq!(one, listed[0]);
    let suppliers = client.json("/api/deliveries/suppliers").await;
    assert_eq!((&suppliers[0]["state"], &suppliers[1]["state"]), (&json!("late"), &json!("never")));
    assert_eq!(suppliers[0]["lateSince"], "2026-01-03T00:00:00Z");
    client.get("/api/deliveries?limit=0").await.is_problem(400);
    client.get("/api/deliveries/nowhere").await.is_problem(404);
    for path in ["/api/deliveries", "/api/deliveries/suppliers", "/api/deliveries/20260102T060000Z-a"] {
        server.client(&reads).get(path).await.is_problem(403);
        server.anyone().get(path).await.is_problem(401);
    }
    // The same is seen from the command line.
    let printed: Vec<Value> = site.print(&["deliveries", "--list", "--json"]).lines().map(parse).collect();
    assert_eq!(Value::from(printed), listed);
    assert_eq!(site.run(&["deliveries", "--late"]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_who_is_late() {
    let site = site();
    let collects = site.key("prometheus", "metrics", &[]);
    let server = site.serve();
    let deadline = std::time::Instant::now() + PATIENCE;
    let metrics = loop {
        let metrics = server.client(&collects).get("/metrics").await.text();
        if metrics.contains("sporlog_delivery_late{") || std::time::Instant::now() > deadline {
            break metrics;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    for line in [
        "sporlog_delivery_late{account=\"a\"} 1",
        // A new supplier has one rhythm's time to deliver.
        "sporlog_delivery_late{account=\"b\"} 0",
        "sporlog_delivery_last_timestamp_seconds{account=\"a\"} 1767247200",
        "sporlog_delivery_due_timestamp_seconds{account=\"a\"} 1767398400",
        "sporlog_delivery_rows{account=\"a\"} 10",
        "sporlog_delivery_volume_unusual{account=\"a\"} 0",
        "sporlog_delivery_error_ratio{account=\"a\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
        let family = line.split('{').next().unwrap_or_default();
        assert!(metrics.contains(&format!("# HELP {family} ")), "nothing says what {family} is");
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

/// A file that is delivered by HTTP is in the register as well, with or without an exchange.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_by_http_is_in_the_register() {
    for site in [site(), Site::new()] {
        let (writes, audits) = (site.key("løn a/b", "write", &[]), site.key("auditor", "audit", &[]));
        let bounded = site.key("elsewhere", "audit", &["--log", "revision"]);
        let server = site.serve();
        let (writer, auditor) = (server.client(&writes), server.client(&audits));
        let file = revision(&["64942212", "x"]);
        let mut receipts = Vec::new();
        for (query, body) in [
            ("file=dag.csv", file.clone()),
            ("file=igen.csv", file),
            ("file=forkert.csv", "no header".to_owned()),
            ("file=a.json&kind=disclosure", disclosure(PERSONS[0], 1).to_string()),
        ] {
            receipts.push(writer.post(&format!("/api/deliveries?{query}"), body).await.json());
        }
        let outcomes: Vec<_> = receipts.iter().map(|receipt| receipt["outcome"].clone()).collect();
        assert_eq!(outcomes, ["accepted", "repeated", "refused", "accepted"]);
        let by_http = "/api/deliveries?account=http:l%C3%B8n%20a/b";
        let mut listed = auditor.json(by_http).await.as_array().expect("a list").clone();
        listed.sort_by_key(|one| receipts.iter().position(|receipt| receipt["delivery"] == one["delivery"]));
        // Which rows were refused is only for whoever has delivered them.
        for receipt in &mut receipts {
            let receipt = receipt.as_object_mut().expect("an object");
            for only_in_the_answer in ["kind", "alreadySince", "quarantinedRows", "remarkedRows"] {
                receipt.remove(only_in_the_answer);
            }
        }
        assert_eq!(listed, receipts);
        assert!(auditor.json("/api/deliveries").await.as_array().is_some_and(|all| all.len() >= 4));
        // A key for one log is told of the files for that log.
        let bounded = server.client(&bounded);
        let seen = bounded.json(by_http).await;
        assert!(seen.as_array().is_some_and(|seen| seen.len() == 3), "{seen}");
        let other = receipts[3]["delivery"].as_str().expect("an id");
        bounded.get(&format!("/api/deliveries/{other}")).await.is_problem(404);
        assert_eq!(auditor.json(&format!("/api/deliveries/{other}")).await, receipts[3]);
        let printed = site.print(&["deliveries", "--list", "--account", "http:løn a/b", "--json"]);
        assert_eq!(printed.lines().count(), 4, "{printed}");
    }
}
