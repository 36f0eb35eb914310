//! What every answer has.

use std::num::NonZeroU32;

use super::harness::{problem, read_until, settings, start, start_with, status};
use crate::server::{Limits, Rate, RateSettings, ServerSettings};

#[tokio::test]
async fn errors_have_a_problem_for_a_body() {
    let server = start().await;
    let json = "Content-Type: application/json\r\n";
    for (line, headers, body, expected, said) in [
        ("GET /nowhere/0101018081", "", "", 404, "nothing at this address"),
        ("POST /hello", "", "x", 405, "Allow"),
        ("POST /json", "", "{}", 415, "Content-Type"),
        ("POST /json", json, "{\"cpr\":0101018081", 400, ""),
        ("POST /length", "Content-Encoding: br\r\n", "x", 415, "gzip"),
        ("GET /slowly/01010112345x", "", "", 400, ""),
        ("GET /panic", "", "", 500, "log"),
    ] {
        let answer = server.ask(line, headers, body).await;
        assert_eq!(status(&answer), expected, "{line}: {answer}");
        let detail = problem(&answer).get("detail").and_then(|d| d.as_str().map(str::to_owned));
        assert!(detail.expect("a detail").contains(said), "{answer}");
        assert!(!answer.contains("0101018081") && !answer.contains("01010112345"), "{answer}");
    }
    let answer = server.ask("POST /hello", "", "x").await;
    assert!(answer.contains("\r\nallow: GET,HEAD\r\n"), "{answer}");
}

#[tokio::test]
async fn headers_are_safe_by_default() {
    let server = start().await;
    for line in ["GET /hello", "GET /nowhere", "GET /panic"] {
        let answer = server.ask(line, "", "").await;
        for header in [
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'",
            "x-request-id: ",
        ] {
            assert_eq!(answer.matches(header).count(), 1, "{line} {header}: {answer}");
        }
        assert!(!answer.contains("strict-transport-security"), "{answer}");
    }
    let page = server.ask("GET /page", "", "").await;
    assert!(page.contains("content-security-policy: default-src 'self'"), "{page}");
}

#[tokio::test]
async fn a_request_keeps_its_id_if_it_is_a_sane_one() {
    let server = start().await;
    let answer = server.ask("GET /hello", "X-Request-Id: trace-17\r\n", "").await;
    assert!(answer.contains("x-request-id: trace-17\r\n"), "{answer}");
    for bad in ["0101018081", "a b", &"x".repeat(65), "\u{e6}"] {
        let answer = server.ask("GET /hello", &format!("X-Request-Id: {bad}\r\n"), "").await;
        assert_eq!(status(&answer), 200);
        assert!(!answer.contains(bad) && answer.contains("x-request-id: "), "{answer}");
    }
}

#[tokio::test]
async fn probes_are_told_how_things_stand() {
    let server = start().await;
    assert_eq!(status(&server.ask("GET /health/live", "", "").await), 200);
    let ready = server.ask("GET /health/ready", "", "").await;
    assert!(ready.ends_with("{\"status\":\"ready\"}"), "{ready}");
    server.health.check("store", || Err("full, says 0101018081".into()));
    server.health.check("kafka", || Ok(()));
    let not = server.ask("GET /health/ready", "", "").await;
    assert_eq!(status(&not), 503);
    let expected = "{\"status\":\"not ready\",\"failing\":{\"store\":\"full, says 01********\"}}";
    assert!(not.ends_with(expected), "{not}");
    assert_eq!(status(&server.ask("GET /health/live", "", "").await), 200);
    server.health.check("store", || Ok(()));
    assert_eq!(status(&server.ask("GET /health/ready", "", "").await), 200);
    server.health.set_stopping();
    assert_eq!(status(&server.ask("GET /health/ready", "", "").await), 503);
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_back() {
    let one = NonZeroU32::MIN;
    let per_address = Some(Rate { per_second: one, burst: NonZeroU32::new(2) });
    let rate = RateSettings { per_address, per_client: None };
    let trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let server = start_with(ServerSettings { rate, trusted_proxies, ..settings() }).await;
    let from = "X-Forwarded-For: 192.0.2.1\r\n";
    assert!(server.ask("GET /client", from, "").await.ends_with("192.0.2.1"));
    assert_eq!(status(&server.ask("GET /client", from, "").await), 200);
    let answer = server.ask("GET /client", from, "").await;
    assert_eq!(status(&answer), 429);
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    problem(&answer);
    assert!(server.ask("GET /client", "X-Forwarded-For: 192.0.2.2\r\n", "").await.ends_with("192.0.2.2"));
    assert_eq!(status(&server.ask("GET /health/live", from, "").await), 200);
}

#[tokio::test]
async fn when_it_is_crowded_others_are_sent_away() {
    let limits = Limits { requests: 1, answer_seconds: 10, ..settings().limits };
    let server = start_with(ServerSettings { limits, ..settings() }).await;
    // An answer that is still being read keeps its place.
    let mut stream = server.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("sent");
    read_until(&mut stream, "\r\n\r\n").await;
    let answer = server.ask("GET /hello", "", "").await;
    assert_eq!(status(&answer), 503);
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    problem(&answer);
    assert_eq!(status(&server.ask("GET /health/live", "", "").await), 200);
    drop(stream);
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if status(&server.ask("GET /hello", "", "").await) == 200 {
            return;
        }
    }
    panic!("the place was never given back");
}

#[tokio::test]
async fn metrics_are_by_route_and_hold_no_path() {
    let server = start().await;
    server.ask("GET /person/01010112345?cpr=0101018081", "", "").await;
    server.ask("GET /nowhere/at-all", "", "").await;
    server.ask("BREW /hello", "", "").await;
    server.ask("POST /length", "", vec![0; 100_000]).await;
    let metrics = server.ask("GET /metrics", "", "").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    for line in [
        "# TYPE sporlog_http_requests_total counter",
        "sporlog_http_requests_total{method=\"GET\",route=\"/person/{number}\",status=\"200\"} ",
        "sporlog_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} ",
        "sporlog_http_requests_total{method=\"other\",route=\"/hello\",status=\"405\"} ",
        "sporlog_http_request_seconds_bucket{method=\"GET\",route=\"/person/{number}\",le=\"0.0005\"} ",
        "sporlog_http_refused_total{reason=\"size\"} ",
        "sporlog_connections_open ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    for never in ["01010112345", "0101018081", "at-all", "BREW"] {
        assert!(!metrics.contains(never), "{never}: {metrics}");
    }
}
