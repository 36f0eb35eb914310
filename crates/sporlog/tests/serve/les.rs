//! A person reads what was handed out about them, and about nobody else.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::issuer::{Issuer, Signer, now, unsigned};
use super::records::{PERSONS, disclosure, lines};
use super::server::{Server, Site};

/// A site that takes the issuer's tokens.
fn site(issuer: &Issuer) -> Site {
    Site::configured(&format!(
        "[[log]]\nname = 'disclosure-2'\nkind = 'disclosure'\n\
         [[access.issuer]]\nissuer = '{}'\naudience = ['sporlog']\n\
         person = {{ claim = ['pid'], acr = ['idporten-loa-high', 'Level4'] }}\n\
         [[access.issuer.role]]\nrole = 'read'\nlogs = ['disclosure']\nmatch = {{ scope = 'sporlog:read' }}\n",
        issuer.name()
    ))
}

async fn les(server: &Server, token: &str) -> Vec<Value> {
    let answer = server.bearer(token).json("/api/les").await;
    answer.as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_sees_their_own() {
    let signer = Signer::new("first");
    let issuer = Issuer::start(&signer);
    let site = site(&issuer);
    // Three persons' in turn; two for each of them in a second log.
    site.import("disclosure", lines((0..30).map(|n| disclosure(PERSONS[n % 3], n))).as_bytes());
    let file = site.path("more");
    std::fs::write(&file, lines((30..36).map(|n| disclosure(PERSONS[n % 3], n)))).expect("written");
    site.print(&["import", "disclosure", "--log", "disclosure-2", &file.to_string_lossy()]);
    let (writes, audits) = (site.key("writer", "write", &[]), site.key("auditor", "audit", &[]));
    let server = site.serve();
    for (of, person) in PERSONS.iter().enumerate() {
        let token = signer.sign(&issuer.person(person));
        let own = les(&server, &token).await;
        assert_eq!(own.len(), 12, "{own:?}");
        let mut numbers: Vec<_> = own.iter().map(super::records::number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (of..36).step_by(3).collect::<Vec<_>>());
        for one in &own {
            // The object that was posted, and its id as a text.
            let mut posted = disclosure(person, super::records::number(one));
            posted["id"] = one["id"].clone();
            assert!(one["id"].is_string(), "{one}");
            assert_eq!(one, &posted);
        }
        let ids: Vec<u64> = own.iter().filter_map(|one| one["id"].as_str()?.parse().ok()).collect();
        let newest_first = ids.chunk_by(|a, b| a > b).count();
        assert!(newest_first <= 2, "the newest first, log by log: {ids:?}");
    }
    // What comes in meanwhile is there at the next access.
    let writer = server.client(&writes);
    let posted = writer.post("/sporingslogg/api/post", disclosure(PERSONS[1], 99).to_string()).await;
    assert_eq!(posted.status, 200);
    let own = les(&server, &signer.sign(&issuer.person(PERSONS[1]))).await;
    assert_eq!(own.len(), 13);
    assert_eq!(les(&server, &signer.sign(&issuer.person("01010112345"))).await, [] as [Value; 0]);
    // The accesses are on record, each under the person's own number.
    let accesses = server.client(&audits).json("/api/logs/access/read?limit=1000").await;
    let of = |person: &str| {
        let accesses = accesses.as_array().into_iter().flatten();
        accesses
            .filter(|access| access["record"]["logAction"] == "LES" && access["record"]["cpr"] == person)
            .count()
    };
    assert_eq!([of(PERSONS[0]), of(PERSONS[1]), of(PERSONS[2]), of("01010112345")], [1, 2, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_token_of_a_person_will_do() {
    let (signer, stranger) = (Signer::new("first"), Signer::new("first"));
    let issuer = Issuer::start(&signer);
    let site = site(&issuer);
    site.import("disclosure", lines([disclosure(PERSONS[0], 1)]).as_bytes());
    let key = site.key("admin", "admin", &[]);
    let server = site.serve();
    let good = issuer.person(PERSONS[0]);
    let but = |member: &str, value: Value| {
        let mut claims = good.clone();
        claims[member] = value;
        claims
    };
    assert_eq!(les(&server, &signer.sign(&good)).await.len(), 1);
    assert_eq!(les(&server, &signer.sign(&but("aud", json!(["other", "sporlog"])))).await.len(), 1);
    assert_eq!(les(&server, &signer.sign(&but("acr", json!("Level4")))).await.len(), 1);
    // Clocks may differ by a minute.
    assert_eq!(les(&server, &signer.sign(&but("exp", json!(now(-20))))).await.len(), 1);
    let signed = signer.sign(&good);
    let (head, signature) = signed.rsplit_once('.').expect("three parts");
    let body = |token: &str| token.split('.').nth(1).expect("three parts").to_owned();
    let other = signer.sign(&issuer.person(PERSONS[1]));
    for (what, token) in [
        ("run out", signer.sign(&but("exp", json!(now(-100))))),
        ("without an end", signer.sign(&but("exp", Value::Null))),
        ("not valid yet", signer.sign(&but("nbf", json!(now(300))))),
        ("for somebody else", signer.sign(&but("aud", json!("other")))),
        ("for nobody", signer.sign(&but("aud", Value::Null))),
        ("of another issuer", signer.sign(&but("iss", json!("https://elsewhere.example")))),
        ("unsigned", unsigned(&good)),
        ("by another key under the same name", stranger.sign(&good)),
        ("by a key that is not known", Signer::new("nowhere").sign(&good)),
        (
            "with another's claims",
            format!("{}.{}.{signature}", head.split('.').next().unwrap_or_default(), body(&other)),
        ),
        ("without its signature", format!("{head}.")),
        ("cut off", signed[..signed.len() - 5].to_owned()),
        ("nothing of the sort", "abc".to_owned()),
        ("a key of ours", key.clone()),
    ] {
        server.bearer(&token).get("/api/les").await.is_problem(401);
        let answer = server.bearer(&token).get("/api/les").await;
        assert!(!answer.text().contains(PERSONS[0]), "{what}");
        assert!(answer.header("www-authenticate").is_some(), "{what}");
    }
    for (what, claims) in [
        ("too low a level", but("acr", json!("idporten-loa-substantial"))),
        ("no level", but("acr", Value::Null)),
        ("nobody", but("pid", Value::Null)),
        ("no number", but("pid", json!("abc"))),
    ] {
        let answer = server.bearer(&signer.sign(&claims)).get("/api/les").await;
        assert_eq!(answer.status, 403, "{what}: {}", answer.text());
        answer.is_problem(403);
    }
    server.anyone().get("/api/les").await.is_problem(401);
    server.client(&key).get("/api/les").await.is_problem(401);
    server.bearer(&signed).with("ApiKey", &key).get("/api/les").await.is_problem(400);
    server.bearer(&signed).with("Authorization", "Bearer x").get("/api/les").await.is_problem(400);
    // A person reads no log; a machine with the right scope does, and nobody's own.
    server.bearer(&signed).get("/api/logs/disclosure/read").await.is_problem(403);
    let machine = json!({
        "iss": issuer.name(), "aud": "sporlog", "sub": "system", "scope": "openid sporlog:read", "exp": now(60),
    });
    let machine = signer.sign(&machine);
    assert_eq!(server.bearer(&machine).json("/api/logs/disclosure/head").await, json!({"head": 1}));
    server.bearer(&machine).get("/api/logs/auditlog/head").await.is_problem(403);
    server.bearer(&machine).get("/api/les").await.is_problem(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_a_restart() {
    let (first, second) = (Signer::new("first"), Signer::new("second"));
    let issuer = Issuer::start(&first);
    let site = site(&issuer);
    site.import("disclosure", lines([disclosure(PERSONS[0], 1)]).as_bytes());
    let server = site.serve();
    let claims = issuer.person(PERSONS[0]);
    assert_eq!(les(&server, &first.sign(&claims)).await.len(), 1);
    issuer.rotate(&second);
    // An unknown key is asked for, though not as often as anyone likes.
    let until = std::time::Instant::now() + super::server::PATIENCE;
    let token = second.sign(&claims);
    while server.bearer(&token).get("/api/les").await.status != 200 {
        assert!(std::time::Instant::now() < until, "the new key is never taken");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let asked = issuer.asked.load(Ordering::SeqCst);
    for n in 0..50 {
        let token = Signer::new("nowhere").sign(&issuer.person(PERSONS[n % 3]));
        server.bearer(&token).get("/api/les").await.is_problem(401);
    }
    let more = issuer.asked.load(Ordering::SeqCst) - asked;
    assert!(more <= 3, "{more} times for 50 tokens by unknown keys");
    // The old key is gone: a token by it that was never seen is refused.
    let mut late = claims.clone();
    late["jti"] = "late".into();
    server.bearer(&first.sign(&late)).get("/api/les").await.is_problem(401);
}
