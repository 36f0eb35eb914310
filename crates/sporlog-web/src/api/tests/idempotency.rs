//! Requests that are made again.

use serde_json::json;
use sha2::{Digest, Sha256};
use sporlog_ledger::{Advance, Append, ONCE};
use sporlog_record::json::RowsBuilder;
use sporlog_record::{Kind, Position, Rules, hex};

use super::place::{Place, disclosure, disclosure_with};

const POST: &str = "/sporingslogg/api/post";
const ENTRIES: &str = "/api/logs/disclosure/entries";

fn several() -> String {
    let doubtful = disclosure_with("person", "12345678901");
    json!([doubtful, {"person": 1}, disclosure(), "x"]).to_string()
}

#[tokio::test]
async fn a_retry_gets_the_same_answer() {
    let place = Place::new().await;
    place.post(POST, disclosure().to_string()).await;
    let first = place.post_once(POST, "a", disclosure().to_string()).await;
    assert_eq!((first.text(), first.header("idempotency-replayed")), ("2", None));
    for _ in 0..2 {
        let again = place.post_once(POST, "a", disclosure().to_string()).await;
        assert_eq!((again.status.as_u16(), again.text()), (200, "2"));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(place.post_once(POST, "b", disclosure().to_string()).await.text(), "3");
    assert_eq!(place.entries("disclosure").await.len(), 3);
}

#[tokio::test]
async fn also_after_a_restart() {
    let mut place = Place::new().await;
    for orderly in [false, true] {
        let key = format!("key-{orderly}");
        let first = place.post_once(ENTRIES, &key, several()).await;
        assert_eq!(first.status.as_u16(), 207);
        // Others come in between, with the same body, too.
        place.post(ENTRIES, several()).await;
        place.restart(orderly).await;
        let again = place.post_once(ENTRIES, &key, several()).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!((again.status, again.text()), (first.status, first.text()));
    }
    assert_eq!(place.entries("disclosure").await.len(), 8);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let place = Place::new().await;
    assert_eq!(place.post_once(ENTRIES, "k", several()).await.status.as_u16(), 207);
    for (path, body) in [
        (ENTRIES, disclosure().to_string()),
        (ENTRIES, several() + " "),
        (ENTRIES, "{}".to_owned()),
        (POST, disclosure().to_string()),
    ] {
        place.post_once(path, "k", body).await.refused(422);
    }
    place.post_once(&format!("{ENTRIES}?quarantine=true"), "k", "{}").await.refused(422);
    assert_eq!(place.entries("disclosure").await.len(), 2);
    assert_eq!(place.entries("quarantine").await.len(), 0);
}

#[tokio::test]
async fn of_several_at_once_one_is_stored() {
    let place = Place::new().await;
    for round in 0..10 {
        let key = format!("round-{round}");
        let requests = (0..8).map(|_| place.post_once(POST, &key, disclosure().to_string()));
        let answers = futures::future::join_all(requests).await;
        let id = (round + 1).to_string();
        assert!(answers.iter().all(|answer| answer.text() == id), "{answers:?}");
        let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_some());
        assert_eq!(replayed.count(), 7);
    }
    assert_eq!(place.entries("disclosure").await.len(), 10);
}

#[tokio::test]
async fn two_bodies_at_once_under_one_key() {
    let place = Place::new().await;
    for round in 0..10 {
        let key = format!("round-{round}");
        let [one, other] = ["PEN", "AAP"].map(|tema| disclosure_with("tema", tema).to_string());
        let (one, other) = tokio::join!(place.post_once(POST, &key, one), place.post_once(POST, &key, other));
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 422]);
    }
    assert_eq!(place.entries("disclosure").await.len(), 10);
}

#[tokio::test]
async fn keys_are_each_senders_own() {
    let place = Place::new().await;
    assert_eq!(place.post_once(POST, "k", disclosure().to_string()).await.text(), "1");
    let request = place.request("other", POST).header("idempotency-key", "k");
    let answer = place.send(request.body(disclosure().to_string().into()).unwrap()).await;
    assert_eq!((answer.text(), answer.header("idempotency-replayed")), ("2", None));
}

/// A version that told senders apart by their names alone has stored a request.
#[tokio::test]
async fn a_request_of_an_earlier_version_is_known_again() {
    let place = Place::new().await;
    let body = disclosure().to_string();
    let rules = Rules::default();
    let mut rows = RowsBuilder::for_few(Kind::Disclosure, &rules);
    let digest = |text: &str, bytes: usize| hex(&Sha256::digest(text)[..bytes]);
    let origin = format!("http:sender/{}:1", digest(&body, 8));
    rows.push(body.as_bytes(), &origin, Position { line: 1, column: 1 });
    let position = (format!("{ONCE}sender:{}", digest("k", 16)), Advance::Once);
    let append = Append { rows: rows.finish(), positions: vec![position] };
    place.app.catalog.append("disclosure", append).await.unwrap();
    let again = place.post_once(POST, "k", body).await;
    assert_eq!((again.text(), again.header("idempotency-replayed")), ("1", Some("true")));
    // Another body may be another sender's of the same name.
    let other = place.post_once(POST, "k", disclosure_with("tema", "AAP").to_string()).await;
    assert_eq!((other.text(), other.header("idempotency-replayed")), ("2", None));
}

#[tokio::test]
async fn a_request_that_is_refused_leaves_its_key() {
    let place = Place::new().await;
    place.post_once(POST, "k", "{}").await.refused(400);
    assert_eq!(place.post_once(ENTRIES, "k", "[1,2]").await.status.as_u16(), 422);
    assert_eq!(place.post_once(POST, "k", disclosure().to_string()).await.text(), "1");
}

#[tokio::test]
async fn a_retry_adds_nothing_to_the_quarantine() {
    let place = Place::new().await;
    let path = format!("{ENTRIES}?quarantine=true");
    for _ in 0..2 {
        assert_eq!(place.post_once(&path, "k", several()).await.status.as_u16(), 207);
        assert_eq!(place.post_once(&path, "none", "[{}]").await.status.as_u16(), 422);
    }
    assert_eq!(place.entries("quarantine").await.len(), 3);
}

#[tokio::test]
async fn what_was_accepted_stays_so_under_other_rules() {
    let mut place = Place::new().await;
    let first = place.post_once(POST, "k", disclosure().to_string()).await;
    let several_first = place.post_once(ENTRIES, "s", several()).await;
    place.restart_with(|rules| rules.disclosure.behandlingsGrunnlag = 3).await;
    let again = place.post_once(POST, "k", disclosure().to_string()).await;
    assert_eq!((again.status, again.text()), (first.status, first.text()));
    let several_again = place.post_once(ENTRIES, "s", several()).await;
    assert_eq!(several_again.text(), several_first.text());
    // And what was refused under stricter rules is not made up for.
    let long = disclosure_with("behandlingsGrunnlag", "law").to_string();
    let mixed = format!("[{long},{}]", disclosure());
    let strict = place.post_once(ENTRIES, "m", mixed.clone()).await.json();
    assert_eq!((&strict["accepted"], &strict["refused"]), (&json!(1), &json!(1)));
    place.restart_with(|rules| rules.disclosure.behandlingsGrunnlag = 100).await;
    let lenient = place.post_once(ENTRIES, "m", mixed).await.json();
    assert_eq!((&lenient["accepted"], &lenient["refused"]), (&json!(1), &json!(1)));
    assert_eq!(lenient["results"][1]["errors"][0]["rule"], "idempotency");
}

#[tokio::test]
async fn keys_that_are_none() {
    let place = Place::new().await;
    for key in ["", "two words", "æ", "tab\t", &"x".repeat(256)] {
        let request = place.request("sender", POST).header("idempotency-key", key.as_bytes());
        place.send(request.body(disclosure().to_string().into()).unwrap()).await.refused(400);
    }
    let twice = place.request("sender", POST).header("idempotency-key", "a").header("idempotency-key", "b");
    place.send(twice.body(disclosure().to_string().into()).unwrap()).await.refused(400);
    assert_eq!(place.entries("disclosure").await.len(), 0);
    let longest = place.post_once(POST, &"~".repeat(255), disclosure().to_string()).await;
    assert_eq!(longest.text(), "1");
}

#[tokio::test]
async fn two_processes_share_a_key() {
    let mut place = Place::new().await;
    place.post(POST, disclosure().to_string()).await;
    // The first goes on beside the second.
    let beside = place.app.clone();
    place.restart(false).await;
    assert_eq!(place.post_once(POST, "k", disclosure().to_string()).await.text(), "2");
    let second = std::mem::replace(&mut place.app, beside.clone());
    place.router_over(beside);
    let again = place.post_once(POST, "k", disclosure().to_string()).await;
    assert_eq!((again.text(), again.header("idempotency-replayed")), ("2", Some("true")));
    drop(second);
}

#[tokio::test]
async fn records_that_have_expired_cannot_be_told_again() {
    let place = Place::new().await;
    assert_eq!(place.post_once(POST, "k", disclosure().to_string()).await.text(), "1");
    let writer = place.app.catalog.writer("disclosure").await.unwrap();
    assert_eq!(writer.expire("9999-12", false).await.unwrap().records, 1);
    let problem = place.post_once(POST, "k", disclosure().to_string()).await.refused(422);
    assert!(problem["detail"].as_str().unwrap().contains("expired"), "{problem}");
    // Nor does another's record, which is now the first there is, stand for them.
    assert_eq!(place.post(POST, disclosure().to_string()).await.text(), "2");
    place.post_once(POST, "k", disclosure().to_string()).await.refused(422);
    assert_eq!(place.post_once(POST, "l", disclosure().to_string()).await.text(), "3");
}
