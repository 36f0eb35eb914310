//! Who may do what, and that every access is on record before it is answered.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Answer;
use super::issuer::{Issuer, Signer};
use super::records::{PERSONS, disclosure, lines, login, revision};
use super::server::Site;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_without_a_good_key() {
    let site = Site::new();
    site.import("auditlog", lines([login(1)]).as_bytes());
    let key = site.key("reader", "read", &[]);
    let server = site.serve();
    let path = "/api/auditlog/read";
    // The secret, the third part, may have underscores in it.
    let (id, _) = key.split_at(key.match_indices('_').nth(1).expect("three parts").0);
    let other = if key.ends_with('x') { "y" } else { "x" };
    let changed = format!("{}{other}", &key[..key.len() - 1]);
    let mut wrong = vec![changed, key[..key.len() - 1].to_owned(), format!("{key}x"), id.to_owned()];
    wrong.extend(["sporlog_", "sporlog__", "x", "09fc50d5-f9f6-44e1-ba63-524c146354ad"].map(str::to_owned));
    for wrong in wrong {
        let answer = server.client(&wrong).get(path).await;
        answer.is_problem(401);
        assert!(!answer.text().contains(&wrong), "it is not said again: {}", answer.text());
        server.bearer(&wrong).get(path).await.is_problem(401);
    }
    let anyone = server.anyone();
    for path in [path, "/api/auditlog/head", "/api/logs", "/api/logs/auditlog/head", "/api/logs/nowhere/head"]
    {
        let answer = anyone.get(path).await;
        answer.is_problem(401);
        assert_eq!(challenges(&answer), [r#"Bearer realm="sporlog""#, r#"ApiKey realm="sporlog""#]);
    }
    for (path, body) in
        [("/sporingslogg/api/post", "{}"), ("/api/logs/auditlog/entries", "{}"), ("/api/deliveries", "")]
    {
        anyone.post(path, body).await.is_problem(401);
    }
    anyone.clone().with("Authorization", "Basic dTpw").get(path).await.is_problem(401);
    // Said twice, whatever it is.
    let good = server.client(&key);
    good.clone().with("ApiKey", &key).get(path).await.is_problem(400);
    good.clone().with("ApiKey", "x").get(path).await.is_problem(400);
    good.clone().with("Authorization", &format!("Bearer {key}")).get(path).await.is_problem(400);
    // RFC 6750's error says what to do: another token, another request, or another role.
    let refused = |error: &str| format!(r#"Bearer realm="sporlog", error="{error}""#);
    let invalid = server.bearer("x").get(path).await;
    assert_eq!(challenges(&invalid), [&*refused("invalid_token"), r#"ApiKey realm="sporlog""#]);
    let doubled = good.clone().with("Authorization", &format!("Bearer {key}")).get(path).await;
    assert_eq!(challenges(&doubled), [refused("invalid_request")]);
    let forbidden = good.post("/api/deliveries", "").await;
    forbidden.is_problem(403);
    assert_eq!(challenges(&forbidden), [refused("insufficient_scope")]);
    assert!(challenges(&good.get("/api/logs/nowhere/head").await).is_empty());
    // In either manner once, with any case of the header's name.
    assert_eq!(good.get(path).await.status, 200);
    assert_eq!(server.bearer(&key).get(path).await.status, 200);
    assert_eq!(anyone.clone().with("apikey", &key).get(path).await.status, 200);
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("www-authenticate").iter().map(|one| one.to_str().expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_and_go_while_the_server_runs() {
    let site = Site::new();
    site.import("auditlog", lines([login(1)]).as_bytes());
    let server = site.serve();
    let within = async |key: &str, status: u16| {
        let until = Instant::now() + Duration::from_secs(5);
        while server.client(key).get("/api/auditlog/head").await.status != status {
            assert!(Instant::now() < until, "never {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (first, second) = (site.key("first", "read", &[]), site.key("second", "read", &[]));
    within(&first, 200).await;
    within(&second, 200).await;
    site.print(&["apikey", "revoke", "first"]);
    within(&first, 401).await;
    within(&second, 200).await;
    // Under the same name, it is another key.
    let again = site.key("first", "read", &[]);
    within(&again, 200).await;
    within(&first, 401).await;
    server.stop();
    let listed = site.print(&["--json", "apikey", "list"]);
    let keys: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(!listed.contains(first.splitn(3, '_').last().unwrap_or(&first)), "no secret is listed");
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key["lastUsed"].is_string()), "{listed}");
}

/// A key that was revoked and made anew under its name is another principal, and so is a token's client of that name: on
/// record, and for what its requests are.
#[tokio::test(flavor = "multi_thread")]
async fn principals_of_one_name_are_told_apart() {
    let signer = Signer::new("first");
    let issuer = Issuer::start(&signer);
    let site = Site::configured(&format!(
        "[[access.issuer]]\nissuer = '{}'\naudience = ['sporlog']\n[[access.issuer.role]]\nrole = 'admin'\n\
         match = {{ client_id = 'fagsystem' }}\n",
        issuer.name()
    ));
    let first = site.key("fagsystem", "admin", &[]);
    let server = site.serve();
    let mut claims = issuer.person(PERSONS[0]);
    claims["client_id"] = "fagsystem".into();
    let token = format!("Bearer {}", signer.sign(&claims));
    let mut expected = Vec::new();
    for turn in 1..=3u64 {
        let client = match turn {
            1 => server.client(&first),
            2 => {
                site.print(&["apikey", "revoke", "fagsystem"]);
                let second = site.key("fagsystem", "admin", &[]);
                server.client(&second)
            }
            _ => server.anyone().with("Authorization", &token),
        };
        let until = Instant::now() + Duration::from_secs(5);
        while client.get("/api/logs").await.status != 200 {
            assert!(Instant::now() < until, "the new key is not known");
        }
        let post = client.with("Idempotency-Key", "the-same");
        // The same request of each is a request of its own, and is known again as that.
        for replayed in [None, Some("true")] {
            let answer = post.post("/sporingslogg/api/post", disclosure(PERSONS[0], 1).to_string()).await;
            assert_eq!((answer.status, answer.text()), (200, turn.to_string()));
            assert_eq!(answer.header("idempotency-replayed"), replayed);
        }
        let read = post.get("/api/logs/disclosure/read").await;
        let access = access_of(&read, &accesses(&site));
        let details: Value =
            serde_json::from_str(access["detailContent"].as_str().expect("details")).expect("JSON");
        assert_eq!(access["performerName"], "fagsystem");
        expected.push(details["principal"].as_str().expect("an id").to_owned());
    }
    assert!(expected[0].starts_with("key:") && expected[1].starts_with("key:") && expected[0] != expected[1]);
    assert_eq!(expected[2], format!("token:{}#fagsystem", issuer.name()));
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_logs_bound_what_a_key_may() {
    let site = Site::configured("[[log]]\nname = 'disclosure-2'\nkind = 'disclosure'\n");
    site.import("auditlog", lines([login(1)]).as_bytes());
    site.import("disclosure", lines([disclosure(PERSONS[0], 1)]).as_bytes());
    let key = |name: &str, role: &str, args: &[&str]| site.key(name, role, args);
    let keys = [
        key("read", "read", &[]),
        key("one", "read", &["--log", "auditlog"]),
        key("some", "read", &["--log", "disclosure*"]),
        key("own", "read", &["--log", "access"]),
        key("write", "write", &[]),
        key("audit", "audit", &[]),
        key("admin", "admin", &[]),
    ];
    let server = site.serve();
    let reads = |log: &str| format!("/api/logs/{log}/read");
    for (path, allowed) in [
        // read, one, some, own, write, audit, admin
        (reads("auditlog"), [1, 1, 0, 0, 0, 1, 1]),
        ("/api/auditlog/read".into(), [1, 1, 0, 0, 0, 1, 1]),
        ("/api/auditlog/head".into(), [1, 1, 0, 0, 0, 1, 1]),
        ("/api/logs/auditlog/entries/1".into(), [1, 1, 0, 0, 0, 1, 1]),
        ("/api/logs/auditlog/entries/1/proof".into(), [1, 1, 0, 0, 0, 1, 1]),
        (reads("disclosure"), [1, 0, 1, 0, 0, 1, 1]),
        (reads("disclosure-2"), [1, 0, 1, 0, 0, 1, 1]),
        (reads("access"), [0, 0, 0, 1, 0, 1, 1]),
        (reads("quarantine"), [0, 0, 0, 0, 0, 1, 1]),
    ] {
        for (key, allowed) in keys.iter().zip(allowed) {
            let answer = server.client(key).get(&path).await;
            let expected = if allowed == 1 { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{path} with the key {}: {}", &key[..20], answer.text());
        }
    }
    let one = disclosure(PERSONS[0], 1).to_string();
    for (path, body, allowed) in [
        ("/sporingslogg/api/post", &one, [0, 0, 0, 0, 1, 0, 1]),
        ("/api/logs/disclosure-2/entries", &one, [0, 0, 0, 0, 1, 0, 1]),
        ("/api/logs/auditlog/entries", &login(1).to_string(), [0, 0, 0, 0, 1, 0, 1]),
        ("/api/deliveries", &revision(&["64942212"]), [0, 0, 0, 0, 1, 0, 1]),
    ] {
        for (key, allowed) in keys.iter().zip(allowed) {
            let answer = server.client(key).post(path, body.clone()).await;
            let expected = if allowed == 1 { 2 } else { 4 };
            assert_eq!(
                answer.status / 100,
                expected,
                "{path} with the key {}: {}",
                &key[..20],
                answer.text()
            );
            assert!(answer.status < 400 || answer.status == 403, "{}", answer.text());
        }
    }
    // Sporlog's own logs are written to by Sporlog alone.
    for key in &keys {
        for log in ["access", "quarantine"] {
            let path = format!("/api/logs/{log}/entries");
            server.client(key).post(&path, login(1).to_string()).await.is_problem(403);
            let path = format!("/api/deliveries?log={log}&kind=auditlog");
            server.client(key).post(&path, login(1).to_string()).await.is_problem(403);
        }
    }
    // A key sees only its logs in the list.
    let named = |list: Value| -> Vec<String> {
        let logs = list.as_array().cloned().unwrap_or_default();
        logs.iter().filter_map(|log| Some(log["name"].as_str()?.to_owned())).collect()
    };
    assert_eq!(named(server.client(&keys[1]).json("/api/logs").await), ["auditlog"]);
    assert_eq!(named(server.client(&keys[2]).json("/api/logs").await), ["disclosure", "disclosure-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn organisations_bound_what_is_seen_and_delivered() {
    let site = Site::new();
    let organisations = ["64942212", "29189846", "64942212", "29189846", "29189846"];
    site.import("revision", revision(&organisations).as_bytes());
    site.import("auditlog", lines([login(1)]).as_bytes());
    let mut others = disclosure(PERSONS[1], 2);
    others["mottaker"] = "987654325".into();
    let mut through = disclosure(PERSONS[2], 3);
    through["mottaker"] = "987654325".into();
    through["leverandoer"] = "123456789".into();
    site.import("disclosure", lines([disclosure(PERSONS[0], 1), others.clone(), through]).as_bytes());
    let kommune = site.key("kommune", "read", &["--organisation", "64942212"]);
    let two = site.key("two", "read", &["--organisation", "64942212", "--organisation", "29189846"]);
    let recipient = site.key("recipient", "read", &["--organisation", "123456789"]);
    let supplier = site.key("supplier", "write", &["--organisation", "123456789"]);
    let server = site.serve();
    let ids = async |key: &str, path: &str| -> Vec<u64> {
        let page = server.client(key).json(path).await;
        page.as_array().expect("a page").iter().filter_map(|entry| entry["id"].as_u64()).collect()
    };
    assert_eq!(ids(&kommune, "/api/logs/revision/read").await, [1, 3]);
    assert_eq!(ids(&kommune, "/api/logs/revision/read?after=1&limit=1").await, [3]);
    assert_eq!(ids(&two, "/api/logs/revision/read").await, [1, 2, 3, 4, 5]);
    assert_eq!(ids(&recipient, "/api/logs/revision/read").await, [] as [u64; 0]);
    assert_eq!(ids(&recipient, "/api/logs/disclosure/read").await, [1, 3]);
    for (id, status) in [(1, 200), (2, 404), (3, 200), (6, 404)] {
        for rest in ["", "/proof"] {
            let path = format!("/api/logs/revision/entries/{id}{rest}");
            assert_eq!(server.client(&kommune).get(&path).await.status, status, "{path}");
        }
    }
    // Audit records name no organisation: whose they are cannot be told.
    server.client(&kommune).get("/api/auditlog/read").await.is_problem(403);
    server.client(&kommune).get("/api/logs/auditlog/entries/1").await.is_problem(403);
    // Deliveries are bound alike.
    let client = server.client(&supplier);
    let own = client.post("/sporingslogg/api/post", disclosure(PERSONS[0], 4).to_string()).await;
    assert_eq!((own.status, own.text()), (200, "4".into()));
    let problem = client.post("/sporingslogg/api/post", others.to_string()).await.is_problem(400);
    assert_eq!(problem["errors"][0]["rule"], "organisation");
    let path = "/api/logs/disclosure/entries";
    let mixed = client.post(path, json!([others, disclosure(PERSONS[0], 5)]).to_string()).await;
    assert_eq!((mixed.status, &mixed.json()["results"][1]["id"]), (207, &json!(5)));
}

/// The accesses on record, as audit records, whatever became of the server.
fn accesses(site: &Site) -> Vec<Value> {
    site.entries("access").into_iter().map(|entry| entry["record"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_access_is_on_record_before_it_is_answered() {
    let site = Site::new();
    site.import("auditlog", lines((1..=3).map(login)).as_bytes());
    site.import("disclosure", lines((1..=3).map(|n| disclosure(PERSONS[0], n))).as_bytes());
    let (reader, auditor) = (site.key("os2-copy", "read", &[]), site.key("auditor", "audit", &[]));
    for (path, action) in [
        ("/api/auditlog/read?offset=1", "READ"),
        ("/api/logs/disclosure/read?after=2&limit=1", "READ"),
        ("/api/logs/disclosure/entries/2", "READ"),
        ("/api/logs/auditlog/entries/3/proof", "PROVE"),
    ] {
        let server = site.serve();
        let answer = server.client(&reader).get(path).await;
        // It is killed at once: what was not on disk before the answer never will be.
        server.kill();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let found = access_of(&answer, &accesses(&site));
        assert_eq!(found["logAction"], action, "{found}");
        assert_eq!((&found["performerName"], &found["ipAddress"]), (&json!("os2-copy"), &json!("127.0.0.1")));
    }
    // So are accesses to the log of accesses; heads, lists and refusals show nothing and leave none.
    let server = site.serve();
    let count = accesses(&site).len();
    for path in ["/api/auditlog/head", "/api/logs", "/api/logs/auditlog/head", "/tlog/auditlog/checkpoint"] {
        assert_eq!(server.client(&reader).get(path).await.status, 200, "{path}");
    }
    server.client(&reader).get("/api/logs/access/read").await.is_problem(403);
    // Reading them by the command is an access itself.
    assert_eq!(accesses(&site).len(), count + 1);
    let answer = server.client(&auditor).get("/api/logs/access/read").await;
    assert_eq!(answer.status, 200);
    server.stop();
    access_of(&answer, &accesses(&site));
}

/// The access that stands under an answer's request id.
fn access_of(answer: &Answer, accesses: &[Value]) -> Value {
    let id = answer.header("x-request-id").expect("an id");
    let mut found = accesses.iter().filter(|access| access["correlationId"] == id);
    let access = found.next().unwrap_or_else(|| panic!("no access under {id}: {accesses:?}"));
    assert!(found.next().is_none(), "two accesses under {id}");
    access.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_shown() {
    let site = Site::new();
    site.import("auditlog", lines((1..=3).map(login)).as_bytes());
    let reader = site.key("reader", "read", &[]);
    let server = site.serve();
    assert_eq!(server.client(&reader).get("/api/auditlog/read").await.status, 200);
    // The log of accesses breaks: there is a file where its commits have to go.
    server.stop();
    let commits = site.path("store/logs/access/table/_delta_log");
    std::fs::rename(&commits, site.path("away")).expect("moved");
    std::fs::write(&commits, "").expect("written");
    // It is not ready, and answers all the same.
    let server = site.serve_unready(&[]);
    assert_eq!(server.anyone().get("/health/ready").await.status, 503);
    for path in [
        "/api/auditlog/read",
        "/api/logs/auditlog/read",
        "/api/logs/auditlog/entries/1",
        "/api/logs/auditlog/entries/1/proof",
    ] {
        let answer = server.client(&reader).get(path).await;
        assert!([500, 503].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        assert!(!answer.text().contains("0101018081"), "{path}");
    }
    // It is whole again, and so is the service, without a restart.
    std::fs::remove_file(&commits).expect("removed");
    std::fs::rename(site.path("away"), &commits).expect("moved");
    let until = Instant::now() + Duration::from_secs(10);
    while server.client(&reader).get("/api/auditlog/read").await.status != 200 {
        assert!(Instant::now() < until, "it does not recover");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.until_ready();
    server.stop();
    site.verify("access");
}
