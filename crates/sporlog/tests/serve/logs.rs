//! Any log by its ids, and the proofs of it, over HTTP.

use serde_json::{Value, json};

use super::records::{CITIZENS, PERSONS, disclosure, lines, login, revision};
use super::server::Site;

#[tokio::test(flavor = "multi_thread")]
async fn every_log_is_read_alike() {
    let site = Site::configured("[[log]]\nname = 'os2faktor'\nkind = 'auditlog'\n");
    site.import("auditlog", lines((1..=5).map(login)).as_bytes());
    site.import("disclosure", lines((1..=5).map(|n| disclosure(PERSONS[0], n))).as_bytes());
    site.import("revision", revision(&["64942212"; 5]).as_bytes());
    let auditor = site.key("auditor", "audit", &[]);
    let server = site.serve();
    let client = server.client(&auditor);
    let listed = client.json("/api/logs").await;
    for log in ["auditlog", "disclosure", "revision"] {
        let expected = site.entries(log);
        assert_eq!(expected.len(), 5);
        let at = |rest: &str| format!("/api/logs/{log}/{rest}");
        assert_eq!(client.json(&at("head")).await, json!({"head": 5}));
        assert_eq!(client.json(&at("read")).await, Value::Array(expected.clone()));
        assert_eq!(client.json(&at("read?after=2&limit=2")).await, json!(&expected[2..4]));
        assert_eq!(client.json(&at("read?after=5")).await, json!([]));
        assert_eq!(client.json(&at("read?after=99999999999999999999")).await, json!([]));
        for wrong in ["read?after=-1", "read?after=1.5", "read?limit=0", "read?limit=1001", "read?limit=x"] {
            client.get(&at(wrong)).await.is_problem(400);
        }
        let info = listed.as_array().and_then(|logs| logs.iter().find(|info| info["name"] == log));
        let info = info.unwrap_or_else(|| panic!("{listed}"));
        assert_eq!((&info["kind"], &info["first"], &info["head"]), (&json!(log), &json!(1), &json!(5)));
        let key = server.anyone().get(&format!("/tlog/{log}/key")).await.text();
        assert_eq!(info["vkey"], key.trim_end());
        assert_eq!(key.trim_end(), site.print(&["key", "show", log, "--vkey"]));
        // An entry is the same bytes wherever it is asked for, and its proof is the command line's.
        for (id, entry) in (1..).zip(&expected) {
            let answer = client.get(&at(&format!("entries/{id}"))).await;
            assert_eq!((answer.status, &answer.json()), (200, entry));
            let proof = client.get(&at(&format!("entries/{id}/proof"))).await;
            assert_eq!(proof.status, 200, "{}", proof.text());
            let printed = site.print(&["prove", log, &id.to_string()]);
            assert_eq!(proof.text().trim_end(), printed);
        }
        for none in ["0", "6", "-1", "1.0", "x", "99999999999999999999", "%00", "1%2F2"] {
            client.get(&at(&format!("entries/{none}"))).await.is_problem(404);
            client.get(&at(&format!("entries/{none}/proof"))).await.is_problem(404);
        }
    }
    // One that is declared is there, and empty; one that is not is not.
    assert_eq!(client.json("/api/logs/os2faktor/head").await, json!({"head": 0}));
    assert_eq!(client.json("/api/logs/os2faktor/read").await, json!([]));
    for path in ["head", "read", "entries/1", "entries/1/proof"] {
        client.get(&format!("/api/logs/nowhere/{path}")).await.is_problem(404);
        client.get(&format!("/api/logs/..%2Fkeys/{path}")).await.is_problem(404);
    }
    // Whatever is said of an error, it names nobody.
    let number = CITIZENS[0];
    for path in [format!("/api/logs/{number}/head"), format!("/api/logs/{number}/entries/{number}")] {
        assert!(!client.get(&path).await.text().contains(number), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_any_size_is_read_on_from() {
    let site = Site::new();
    site.import("disclosure", lines((1..=2_345).map(|n| disclosure(PERSONS[0], n))).as_bytes());
    let reads = site.key("reader", "read", &[]);
    let server = site.serve();
    let client = server.client(&reads);
    for limit in [7_u64, 100, 999, 1_000] {
        let mut last = 0;
        // With a page of seven, only the beginning: the rest is the same again.
        for _ in 0..40 {
            let page = client.json(&format!("/api/logs/disclosure/read?after={last}&limit={limit}")).await;
            let ids: Vec<_> = page.as_array().expect("entries").iter().map(|e| e["id"].as_u64()).collect();
            let end = (last + limit).min(2_345);
            assert_eq!(ids, (last + 1..=end).map(Some).collect::<Vec<_>>(), "limit {limit} after {last}");
            last = end;
        }
    }
}
