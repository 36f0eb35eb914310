//! Many records a request.

use serde_json::{Value, json};

use sporlog_intake::delivery::OverlapPolicy;
use sporlog_intake::quarantine::Replay;
use sporlog_record::Rules;

use super::place::{Place, disclosure, disclosure_with};

const PATH: &str = "/api/logs/disclosure/entries";

/// Sends lines of JSON.
async fn send_lines(place: &Place, path: &str, body: &str) -> super::place::Answer {
    let request = place.request("sender", path).header("content-type", "application/x-ndjson");
    place.send(request.body(body.to_owned().into()).unwrap()).await
}

#[tokio::test]
async fn lines() {
    let place = Place::new().await;
    let good = disclosure().to_string();
    let doubtful = disclosure_with("person", "12345678901").to_string();
    let body = format!("{good}\r\n\n{doubtful}\n{{\"person\":1}}\n{good}");
    let answer = send_lines(&place, PATH, &body).await;
    assert_eq!(answer.status.as_u16(), 207);
    let found = answer.json();
    assert_eq!((&found["accepted"], &found["refused"]), (&json!(3), &json!(1)));
    let results = found["results"].as_array().unwrap();
    // Records are counted; what is wrong with one is told by its line in the body, where one is empty.
    let indexes: Vec<_> = results.iter().map(|result| &result["index"]).collect();
    assert_eq!(indexes, [1, 2, 3, 4]);
    assert_eq!(results[0], json!({"index": 1, "id": 1, "remarks": []}));
    assert_eq!(results[1]["id"], 2);
    assert_eq!(results[1]["remarks"][0]["rule"], "check-digit");
    assert_eq!(results[2].get("id"), None);
    assert_eq!(results[2]["errors"][0]["line"], 4);
    assert_eq!(results[3]["id"], 3);
    let entries = place.entries("disclosure").await;
    let origins: Vec<_> = entries.iter().map(|entry| entry["origin"].as_str().unwrap()).collect();
    assert!(origins[0].ends_with(":1") && origins[1].ends_with(":3") && origins[2].ends_with(":5"));
    assert!(entries.iter().all(|entry| entry["receivedAt"] == entries[0]["receivedAt"]), "one commit");
    assert_eq!(place.entries("quarantine").await.len(), 0, "nobody asked for it");
}

#[tokio::test]
async fn arrays_and_single_objects() {
    let place = Place::new().await;
    let one = place.post(PATH, disclosure().to_string()).await;
    assert_eq!(one.status.as_u16(), 200);
    assert_eq!(
        one.json(),
        json!({"accepted": 1, "refused": 0, "results": [{"index": 1, "id": 1, "remarks": []}]})
    );
    // All on one line: they are numbered.
    let array = json!([disclosure(), {"x": 1}, disclosure(), 17]).to_string();
    let several = place.post(PATH, format!(" {array} ")).await;
    assert_eq!(several.status.as_u16(), 207);
    let ids: Vec<_> = several.json()["results"].as_array().unwrap().iter().map(|r| r["id"].clone()).collect();
    assert_eq!(ids, [json!(2), Value::Null, json!(3), Value::Null]);
    let indexes: Vec<_> =
        several.json()["results"].as_array().unwrap().iter().map(|r| r["index"].clone()).collect();
    assert_eq!(indexes, [1, 2, 3, 4]);
}

#[tokio::test]
async fn audit_records() {
    let place = Place::new().await;
    let body =
        "{\"logAction\":\"LOGIN\",\"tts\":\"2022-07-26T06:50:55\",\"personId\":7}\n{\"message\":\"x\"}";
    let answer = send_lines(&place, "/api/logs/auditlog/entries", body).await;
    assert_eq!(answer.status.as_u16(), 207);
    assert_eq!(place.entries("auditlog").await[0]["record"]["personId"], 7);
}

#[tokio::test]
async fn if_all_are_refused_nothing_is_stored() {
    let place = Place::new().await;
    let answer = send_lines(&place, PATH, "{}\n[]\nx\n\u{1}").await;
    assert_eq!(answer.status.as_u16(), 422);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["refused"], 4);
    assert!(!std::path::Path::new(&place.store()).join("logs/disclosure").exists());
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let place = Place::new().await;
    let whole = disclosure().to_string();
    for body in [
        String::new(),
        "\r\n ".to_owned(),
        "[]".to_owned(),
        " [ ] ".to_owned(),
        format!("[{whole}"),
        format!("[{whole},"),
        format!("[{whole},]"),
        format!("[{whole}]]"),
        format!("[{whole} {whole}]"),
        format!("[{}", &whole[..20]),
    ] {
        place.post(PATH, body).await.refused(400);
    }
    for body in ["", "\n", " \r\n \n"] {
        send_lines(&place, PATH, body).await.refused(400);
    }
    // One object that is cut off is a record that is refused.
    assert_eq!(place.post(PATH, whole[..40].to_owned()).await.status.as_u16(), 422);
    assert_eq!(place.entries("disclosure").await.len(), 0);
}

#[tokio::test]
async fn deep_and_broken_records_are_refused_alone() {
    let place = Place::new().await;
    let good = disclosure().to_string();
    let deep = format!("{{\"x\":{}", "[".repeat(300_000));
    let mut body = format!("{good}\n{deep}\n").into_bytes();
    body.extend_from_slice(b"{\"person\":\"\xff\"}\n");
    body.extend_from_slice(good.as_bytes());
    let request = place.request("sender", PATH).header("content-type", "application/x-ndjson");
    let answer = place.send(request.body(body.into()).unwrap()).await;
    assert_eq!(answer.status.as_u16(), 207);
    let found = answer.json();
    assert_eq!((&found["accepted"], &found["refused"]), (&json!(2), &json!(2)));
    assert_eq!(found["results"][2]["errors"][0]["rule"], "encoding");
    let bomb = format!("[{good},{}{}]", "[".repeat(500_000), "]".repeat(500_000));
    let found = place.post(PATH, bomb).await.json();
    assert_eq!((&found["accepted"], &found["refused"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn ten_thousand_and_not_one_more() {
    let place = Place::new().await;
    let record = "{\"logAction\":\"X\"}\n";
    let path = "/api/logs/auditlog/entries";
    let answer = send_lines(&place, path, &record.repeat(10_000)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["accepted"]), (200, &json!(10_000)));
    send_lines(&place, path, &record.repeat(10_001)).await.refused(413);
    let array = format!("[{}{{}}]", "{},".repeat(10_000));
    place.post(path, array).await.refused(413);
    assert_eq!(place.entries("auditlog").await.len(), 10_000);
}

#[tokio::test]
async fn records_that_are_too_large() {
    let place = Place::with(|_, rules| rules.max_record_bytes = 1_000).await;
    let good = disclosure().to_string();
    let large = disclosure_with("leverteData", "QUJD".repeat(300)).to_string();
    let found = send_lines(&place, PATH, &format!("{good}\n{large}\n{good}")).await.json();
    assert_eq!((&found["accepted"], &found["refused"]), (&json!(2), &json!(1)));
    assert_eq!(found["results"][1]["errors"][0]["rule"], "record-size");
    // In an array, what follows could not be trusted.
    let problem = place.post(PATH, format!("[{good},{large}]")).await.refused(400);
    assert_eq!(problem["errors"][0]["rule"], "record-size");
    assert_eq!(place.entries("disclosure").await.len(), 2);
}

#[tokio::test]
async fn logs_that_take_no_records() {
    let place = Place::new().await;
    let body = || disclosure().to_string();
    let problem = place.post("/api/logs/revision/entries", body()).await.refused(400);
    assert!(problem["detail"].as_str().unwrap().contains("/api/deliveries"));
    place.post("/api/logs/nothing/entries", body()).await.refused(404);
    let problem = place.post("/api/logs/n0101018081/entries", body()).await.refused(404);
    assert!(!problem.to_string().contains("0101018081"), "{problem}");
    for own in ["access", "quarantine"] {
        let path = format!("/api/logs/{own}/entries");
        place.post(&path, body()).await.refused(403);
        // Nor by those who may do everything else.
        let admin = place.request("admin", &path).body(body().into()).unwrap();
        place.send(admin).await.refused(403);
    }
}

#[tokio::test]
async fn who_may() {
    let place = Place::new().await;
    for (key, log, status) in [
        ("reader", "disclosure", 403),
        ("elsewhere", "disclosure", 403),
        ("elsewhere", "nothing", 403),
        ("elsewhere", "auditlog", 200),
        ("bounded", "auditlog", 403),
    ] {
        let path = format!("/api/logs/{log}/entries");
        let request = place.request(key, &path).body("{\"logAction\":\"X\"}".into()).unwrap();
        assert_eq!(place.send(request).await.status.as_u16(), status, "{key} {log}");
    }
}

#[tokio::test]
async fn a_key_of_organisations() {
    let place = Place::new().await;
    let (own, others) = (disclosure(), disclosure_with("mottaker", "889640782"));
    let body = format!("{others}\n{own}\n{{}}\n{others}\n{own}");
    let request = place.request("bounded", PATH).header("content-type", "application/x-ndjson");
    let answer = place.send(request.body(body.into()).unwrap()).await;
    assert_eq!(answer.status.as_u16(), 207);
    let results = answer.json()["results"].clone();
    assert_eq!(results[0]["errors"][0]["rule"], "organisation");
    assert_eq!(results[1]["id"], 1);
    assert_eq!(results[3]["errors"][0]["line"], 4);
    assert_eq!(results[4]["id"], 2);
    let entries = place.entries("disclosure").await;
    assert!(entries.len() == 2 && entries.iter().all(|entry| entry["record"]["mottaker"] == "974761076"));
}

#[tokio::test]
async fn a_replay_holds_the_senders_bounds() {
    let place = Place::new().await;
    let others = disclosure_with("mottaker", "889640782").to_string();
    for (key, bounds) in [("bounded", Some(vec!["974761076".to_owned()])), ("sender", None)] {
        let refused = if bounds.is_some() { others.clone() } else { "{}".to_owned() };
        let request = place.request(key, &format!("{PATH}?quarantine=true"));
        assert_eq!(place.send(request.body(refused.into()).unwrap()).await.status.as_u16(), 422);
        let quarantine = place.app.catalog.quarantine();
        let id = quarantine.list().await.unwrap()[0].id;
        let shown = quarantine.show(id).await.unwrap();
        assert_eq!((shown.organisations.clone(), shown.header), (bounds.clone(), None));
        let replay = async |corrected: String| {
            quarantine
                .replay(id, Some(corrected.into()), &Rules::default(), OverlapPolicy::default())
                .await
                .unwrap()
        };
        if bounds.is_some() {
            let Replay::StillRefused(findings) = replay(others.clone()).await else {
                panic!("out of bounds")
            };
            assert_eq!(findings[0].rule, "organisation");
            assert!(matches!(replay(disclosure().to_string()).await, Replay::Appended(_)));
        } else {
            assert!(matches!(replay(others.clone()).await, Replay::Appended(_)));
        }
    }
}

#[tokio::test]
async fn what_is_refused_goes_into_the_quarantine_if_wanted() {
    let place = Place::new().await;
    let path = format!("{PATH}?quarantine=true");
    let body = format!("{}\n{{\"person\":1}}\n\n x", disclosure());
    assert_eq!(send_lines(&place, &path, &body).await.status.as_u16(), 207);
    let items = place.app.catalog.quarantine().list().await.unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!((&*items[0].log, &*items[0].kind, items[0].line), ("disclosure", "disclosure", Some(2)));
    assert!(items[0].reasons.contains("required"));
    let shown = place.app.catalog.quarantine().show(items[1].id).await.unwrap();
    assert_eq!(shown.content, b" x");
    place.post(&format!("{PATH}?quarantine=yes"), "{}").await.refused(400);
    place.post(&format!("{PATH}?quarantine=true&quarantine=true"), "{}").await.refused(400);
    assert_eq!(place.post(&format!("{PATH}?quarantine=false"), "{}").await.status.as_u16(), 422);
    assert_eq!(place.app.catalog.quarantine().list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn correlation_is_kept_with_each() {
    let place = Place::new().await;
    let request = place.request("sender", PATH).header("x-request-id", "r1");
    place.send(request.body(json!([disclosure(), disclosure()]).to_string().into()).unwrap()).await;
    let expected = json!(r#"{"headers":[["x-request-id","r1"]]}"#);
    assert_eq!(place.envelopes("disclosure").await, [expected.clone(), expected]);
}
