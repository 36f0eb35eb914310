//! What the server writes about its work names no person, whatever clients send and at whatever level.

use super::issuer::{Issuer, Signer};
use super::records::{CITIZENS, PERSONS, disclosure, lines, login, revision};
use super::server::Site;

/// Others, in places where none is expected.
const STRAY: [&str; 6] =
    ["02020298765", "0303037654", "040404-6543", "050505 5432", "06060612345", "0707078081"];

#[tokio::test(flavor = "multi_thread")]
async fn at_info_in_text() {
    silent(&["-v"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_info_in_json() {
    silent(&["-v"], &[("SPORLOG_LOG_FORMAT", "json")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_debug_in_text() {
    silent(&["-vv"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_debug_in_json() {
    silent(&[], &[("SPORLOG_LOG_FORMAT", "json"), ("SPORLOG_LOG", "debug")]).await;
}

async fn silent(args: &[&str], environment: &[(&str, &str)]) {
    let signer = Signer::new("first");
    let issuer = Issuer::start(&signer);
    let site = Site::configured(&format!(
        "[[access.issuer]]\nissuer = '{}'\naudience = ['sporlog']\nperson = {{ claim = ['pid'] }}\n",
        issuer.name()
    ));
    let (writes, audits) = (site.key("writer", "write", &[]), site.key("auditor", "audit", &[]));
    let collects = site.key("prometheus", "metrics", &[]);
    let server = site.serve_with(args, environment);
    let [eleven, ten, hyphen, space, header, name] = STRAY;
    let (writer, auditor) = (server.client(&writes), server.client(&audits));
    let mut problems = String::new();
    let mut statuses = Vec::new();
    let mut note = |answer: super::client::Answer| {
        statuses.push(answer.status);
        if answer.header("content-type") == Some("application/problem+json") {
            problems.push_str(&answer.text());
        }
    };
    // Records in order and not, with numbers where they belong and where they do not.
    let post = "/sporingslogg/api/post";
    for person in PERSONS {
        note(writer.post(post, disclosure(person, 1).to_string()).await);
    }
    let mut wrong = disclosure(PERSONS[0], 1);
    for member in ["mottaker", "tema", "uthentingsTidspunkt", "leverandoer"] {
        wrong[member] = eleven.into();
    }
    wrong[name] = ten.into();
    note(writer.post(post, wrong.to_string()).await);
    note(writer.post(post, format!("{{\"person\":\"{}\"", PERSONS[1])).await);
    note(writer.post(post, format!("{} {hyphen} {space}", PERSONS[1])).await);
    let entries = "/api/logs/auditlog/entries?quarantine=true";
    let nameless = serde_json::json!({"cpr": CITIZENS[1], "tts": ten, "detailType": hyphen});
    let json_lines = writer.clone().with("Content-Type", "application/x-ndjson");
    note(json_lines.post(entries, lines([login(1), nameless, login(2)])).await);
    note(json_lines.post(&format!("/api/logs/{ten}/entries"), lines([login(1)])).await);
    // In names, paths, queries and headers.
    note(writer.post(&format!("/api/deliveries?file={name}.csv"), revision(&["64942212", eleven])).await);
    note(writer.post(&format!("/api/deliveries?file=x&log={name}"), revision(&["64942212"])).await);
    note(writer.post(&format!("/api/deliveries?kind={name}"), "").await);
    note(writer.post("/api/deliveries", format!("\"{name}\",\"{ten}\"\n\"{eleven}\"\n")).await);
    let strange = writer.clone().with("x-request-id", header).with("x-correlation-id", header);
    let strange = strange.with("Idempotency-Key", header).with("User-Agent", header).with("Referer", header);
    note(strange.post(post, disclosure(PERSONS[0], 2).to_string()).await);
    note(strange.post(post, disclosure(PERSONS[1], 3).to_string()).await);
    note(strange.with("Content-Type", header).post(post, "x").await);
    note(server.client(&format!("sporlog_{ten}_{eleven}")).get("/api/auditlog/read").await);
    note(server.bearer(header).get("/api/les").await);
    for path in [
        format!("/{ten}"),
        format!("/api/{hyphen}/{ten}"),
        format!("/api/logs/{ten}/read"),
        format!("/api/logs/auditlog/entries/{ten}"),
        format!("/api/auditlog/read?offset={ten}"),
        format!("/api/auditlog/read?offset=x{ten}"),
        format!("/api/auditlog/read?offset=0&cpr={ten}"),
        format!("/api/auditlog/head?wait={ten}"),
        format!("/tlog/{ten}/checkpoint"),
        format!("/tlog/auditlog/tile/{ten}"),
        "/api/logs/disclosure/read".into(),
        "/api/logs/quarantine/read".into(),
        "/api/logs/access/read".into(),
    ] {
        note(auditor.get(&path).await);
    }
    // A person, and one whose token is not good enough.
    let own = issuer.person(PERSONS[0]);
    let mut bad = own.clone();
    (bad["aud"], bad["sub"]) = (eleven.into(), ten.into());
    let own = server.bearer(&signer.sign(&own)).get("/api/les").await;
    assert!(own.text().contains(PERSONS[0]), "{}", own.text());
    note(own);
    note(server.bearer(&signer.sign(&bad)).get("/api/les").await);
    let metrics = server.client(&collects).get("/metrics").await.text();
    let said = server.stop();

    assert!(statuses.contains(&200) && statuses.contains(&400) && statuses.contains(&401), "{statuses:?}");
    assert!(statuses.iter().all(|status| *status < 500), "{statuses:?}");
    let lines = said.lines().count();
    assert!(lines > 25, "only {lines} lines: {said}");
    for number in PERSONS.iter().chain(&CITIZENS).chain(&STRAY) {
        let plain = number.replace(['-', ' '], "");
        for form in [*number, &*plain] {
            for (what, text) in [("log", &said), ("problems", &problems), ("metrics", &metrics)] {
                let line = text.lines().find(|line| line.contains(form));
                assert!(line.is_none(), "{form} in the {what}: {line:?}");
            }
        }
    }
    for secret in [&writes, &audits] {
        // The secret may have an underscore in it, too.
        assert!(!said.contains(secret.splitn(3, '_').last().unwrap_or(secret)), "a key in the log");
    }
    if environment.iter().any(|(_, value)| *value == "json") {
        for line in said.lines().filter(|line| !line.starts_with("sporlog: ")) {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(line["time"].is_string() && line["level"].is_string(), "{line}");
            assert!(line["route"].is_null() || line["total_ms"].is_number(), "{line}");
        }
    }
}
