//! One disclosure a request.

use std::io::Write;

use axum::body::{Body, Bytes};
use axum::http::Request;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::place::{Place, disclosure, disclosure_with};

const PATH: &str = "/sporingslogg/api/post";

#[tokio::test]
async fn a_disclosure_gets_an_id_and_nothing_else() {
    let place = Place::new().await;
    for (id, path) in [("1", PATH), ("2", "/sporingslogg/post"), ("3", PATH)] {
        let answer = place.post(path, disclosure().to_string()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, id));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("idempotency-replayed"), None);
    }
    let entries = place.entries("disclosure").await;
    assert_eq!(entries.len(), 3, "equal disclosures without a key are several");
    assert_eq!(entries[0]["record"], disclosure());
    let origin = entries[0]["origin"].as_str().unwrap();
    assert!(origin.starts_with("http:sender/") && origin.ends_with(":1") && origin.len() == 30, "{origin}");
    assert_eq!(place.entries("access").await.len(), 0, "a delivery is no access");
}

#[tokio::test]
async fn what_is_answered_is_durable() {
    let mut place = Place::new().await;
    assert_eq!(place.post(PATH, disclosure().to_string()).await.text(), "1");
    // Not closed: as if it had been killed.
    place.restart(false).await;
    assert_eq!(place.entries("disclosure").await.len(), 1);
    assert_eq!(place.post(PATH, disclosure().to_string()).await.text(), "2");
}

#[tokio::test]
async fn all_errors_are_told_at_once() {
    let place = Place::new().await;
    let record = json!({"person": "0101018081", "mottaker": 7, "tema": "PE", "leverteData": "e30=",
        "uthentingsTidspunkt": "2018-10-19T12:24:21Z"});
    let problem = place.post(PATH, record.to_string()).await.refused(400);
    let mut found: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            assert!(error["line"] == 1 && error["column"].as_u64().unwrap() > 0, "{error}");
            format!("{} {} {}", error["severity"], error["field"], error["rule"]).replace('"', "")
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "error behandlingsGrunnlag required",
            "error mottaker type",
            "error person digits",
            "error tema length",
            "error uthentingsTidspunkt time"
        ]
    );
    assert!(!problem.to_string().contains("0101018081"), "{problem}");
    assert_eq!(place.entries("disclosure").await.len(), 0);
}

#[tokio::test]
async fn check_digits_are_remarks() {
    let place = Place::new().await;
    let answer = place.post(PATH, disclosure_with("person", "12345678901").to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "1"));
    assert_eq!(place.entries("disclosure").await[0]["remarks"][0]["rule"], "check-digit");
}

#[tokio::test]
async fn bodies_that_are_no_record() {
    let place = Place::with(|_, rules| rules.max_record_bytes = 100_000).await;
    let whole = disclosure().to_string();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(40_000), "]".repeat(40_000));
    let twice = whole.replacen('{', "{\"tema\":\"AAP\",", 1);
    let two = format!("{whole}\n{whole}");
    let many_unknown: String = (0..5_000).map(|n| format!("\"u{n}\":1,")).collect();
    for (body, rule) in [
        ("".into(), "json"),
        (" \n ".into(), "json"),
        ("{".into(), "json"),
        ("[]".into(), "object"),
        ("17".into(), "object"),
        ("null".into(), "object"),
        ("<html>".into(), "object"),
        (whole[..whole.len() - 1].to_owned(), "json"),
        (format!("[{whole}]"), "object"),
        (two, "json"),
        (twice, "duplicate"),
        (deep, "required"),
        ("[".repeat(90_000), "object"),
        (format!("{{{many_unknown}\"person\":1}}"), "unknown-field"),
        (" ".repeat(100_001), "record-size"),
    ] {
        let problem = place.post(PATH, body.clone()).await.refused(400);
        let errors = problem["errors"].as_array().unwrap();
        let start = &body[..body.len().min(40)];
        assert!(errors.iter().any(|error| error["rule"] == rule), "{start}: {errors:?}");
        assert!(errors.len() < 100, "{start}");
    }
    let mut bytes = whole.clone().into_bytes();
    bytes[12] = 0xe6;
    let problem = place.post(PATH, bytes).await.refused(400);
    assert_eq!(problem["errors"][0]["rule"], "encoding");
    // A sign that some put before everything is passed over.
    assert_eq!(place.post(PATH, format!("\u{feff}{whole}")).await.text(), "1");
    assert_eq!(place.entries("disclosure").await.len(), 1);
}

#[tokio::test]
async fn a_large_record_goes_in_and_one_too_large_does_not() {
    let place = Place::new().await;
    let data = "QUJD".repeat((16 << 20) / 4);
    let answer = place.post(PATH, disclosure_with("leverteData", data.clone()).to_string()).await;
    assert_eq!(answer.text(), "1");
    let entry = &place.entries("disclosure").await[0];
    assert_eq!(entry["record"]["leverteData"], data);
    let remarks: Vec<_> = entry["remarks"].as_array().unwrap().iter().map(|remark| &remark["rule"]).collect();
    assert_eq!(remarks, ["length", "payload-json"]);
    let problem =
        place.post(PATH, disclosure_with("leverteData", data + "QUJD").to_string()).await.refused(400);
    assert_eq!(problem["errors"][0]["rule"], "length");
    place.post(PATH, vec![b' '; (64 << 20) + 1]).await.refused(413);
}

#[tokio::test]
async fn packed_bodies() {
    let place = Place::new().await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let send = |packing: &str, body: Vec<u8>| {
        let request = place.request("sender", PATH).header("content-encoding", packing);
        place.send(request.body(body.into()).unwrap())
    };
    let whole = disclosure().to_string();
    assert_eq!(send("gzip", gzip(whole.as_bytes())).await.text(), "1");
    send("br", whole.clone().into_bytes()).await.refused(415);
    send("gzip", whole.clone().into_bytes()).await.refused(400);
    let packed = gzip(whole.as_bytes());
    send("gzip", packed[..packed.len() / 2].to_vec()).await.refused(400);
    let bomb = gzip(&vec![b' '; 200 << 20]);
    assert!(bomb.len() < 1 << 20);
    send("gzip", bomb).await.refused(413);
    assert_eq!(place.entries("disclosure").await.len(), 1);
}

#[tokio::test]
async fn content_types() {
    let place = Place::new().await;
    for (content_type, status) in [
        (Some("application/json"), 200),
        (Some("application/json;charset=UTF-8"), 200),
        (None, 200),
        (Some("text/html"), 415),
        (Some("application/x-ndjson"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
    ] {
        let mut request = place.request("sender", PATH);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = place.send(request.body(disclosure().to_string().into()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{content_type:?}");
        if status != 200 {
            answer.refused(status);
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let place = Place::new().await;
    let whole = disclosure().to_string();
    let pieces = [Ok(Bytes::from(whole)), Err(std::io::Error::other("gone"))];
    place.post(PATH, Body::from_stream(futures::stream::iter(pieces))).await.refused(400);
    assert_eq!(place.entries("disclosure").await.len(), 0);
}

#[tokio::test]
async fn who_may() {
    let place = Place::new().await;
    for (key, status) in [("sender", 200), ("admin", 200), ("reader", 403), ("elsewhere", 403)] {
        let request = place.request(key, PATH).body(disclosure().to_string().into()).unwrap();
        assert_eq!(place.send(request).await.status.as_u16(), status, "{key}");
    }
    let nobody = Request::post(PATH).body(disclosure().to_string().into()).unwrap();
    place.send(nobody).await.refused(401);
    let wrong = Request::post(PATH).header("apikey", "sporlog_x_y").body(Body::empty()).unwrap();
    place.send(wrong).await.refused(401);
}

#[tokio::test]
async fn a_key_of_organisations() {
    let place = Place::new().await;
    let send = |record: serde_json::Value| {
        place.send(place.request("bounded", PATH).body(record.to_string().into()).unwrap())
    };
    assert_eq!(send(disclosure()).await.text(), "1");
    let mut theirs = disclosure_with("mottaker", "889640782");
    let problem = send(theirs.clone()).await.refused(400);
    assert_eq!(problem["errors"][0]["rule"], "organisation");
    theirs["leverandoer"] = "974761076".into();
    assert_eq!(send(theirs).await.text(), "2");
}

#[tokio::test]
async fn correlation_is_kept() {
    let place = Place::new().await;
    let request =
        place.request("sender", PATH).header("x-correlation-id", "abc-1").header("traceparent", "a b");
    place.send(request.body(disclosure().to_string().into()).unwrap()).await;
    place.post(PATH, disclosure().to_string()).await;
    let envelopes = place.envelopes("disclosure").await;
    assert_eq!(envelopes[0], json!(r#"{"headers":[["x-correlation-id","abc-1"]]}"#));
    assert!(envelopes[1].is_null());
}

#[tokio::test]
async fn many_at_once_get_an_id_each() {
    let place = Place::new().await;
    let answers = (0..64).map(|_| place.post(PATH, disclosure().to_string()));
    let mut ids: Vec<u64> = futures::future::join_all(answers)
        .await
        .iter()
        .map(|answer| answer.text().parse().unwrap())
        .collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=64));
}
