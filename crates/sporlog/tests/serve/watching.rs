//! What an operator sees.

use super::records::{PERSONS, disclosure, login, revision};
use super::server::Site;

/// The value of a series whose name and labels hold all of these.
fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let series = metrics.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    series.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened() {
    let site = Site::new();
    let (writes, reads) = (site.key("writer", "write", &[]), site.key("reader", "read", &[]));
    let collects = site.key("prometheus", "metrics", &[]);
    let server = site.serve();
    let (writer, reader) = (server.client(&writes), server.client(&reads));
    let post = "/sporingslogg/api/post";
    for n in 0..5 {
        assert_eq!(writer.post(post, disclosure(PERSONS[0], n).to_string()).await.status, 200);
    }
    writer.post(post, disclosure("1", 0).to_string()).await.is_problem(400);
    let once = writer.clone().with("Idempotency-Key", "1");
    for _ in 0..2 {
        assert_eq!(once.post(post, disclosure(PERSONS[0], 9).to_string()).await.status, 200);
    }
    assert_eq!(writer.post("/api/logs/auditlog/entries", login(1).to_string()).await.status, 200);
    assert_eq!(writer.post("/api/deliveries", revision(&["64942212", "x"])).await.status, 201);
    assert_eq!(reader.get("/api/logs/disclosure/read").await.status, 200);
    server.client("sporlog_x_y").get("/api/auditlog/head").await.is_problem(401);
    server.anyone().get("/api/auditlog/head").await.is_problem(401);
    server.anyone().get("/api/nowhere/0101018081").await.is_problem(404);
    writer.post(post, vec![b' '; 65 << 20]).await.is_problem(413);
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    let answer = server.client(&collects).get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = answer.text();
    let is = |name: &str, labels: &[&str], expected: f64| {
        assert_eq!(value(&metrics, name, labels), Some(expected), "{name} {labels:?} in {metrics}");
    };
    let intake = "sporlog_intake_records_total";
    is(intake, &[r#"log="disclosure""#, r#"source="http""#, r#"outcome="accepted""#], 6.0);
    is(intake, &[r#"log="disclosure""#, r#"source="http""#, r#"outcome="refused""#], 1.0);
    is(intake, &[r#"log="disclosure""#, r#"outcome="replayed""#], 1.0);
    is(intake, &[r#"log="auditlog""#, r#"source="http""#, r#"outcome="accepted""#], 1.0);
    is(intake, &[r#"log="revision""#, r#"source="delivery""#, r#"outcome="accepted""#], 1.0);
    is(intake, &[r#"log="revision""#, r#"source="delivery""#, r#"outcome="refused""#], 1.0);
    is("sporlog_intake_commit_seconds_count", &[r#"log="disclosure""#], 6.0);
    is("sporlog_log_head", &[r#"log="disclosure""#], 6.0);
    is("sporlog_auth_refused_total", &[r#"reason="key_unknown""#], 1.0);
    is("sporlog_auth_refused_total", &[r#"reason="missing""#], 1.0);
    is("sporlog_http_refused_total", &[r#"reason="size""#], 1.0);
    let route = format!("route=\"{post}\"");
    is("sporlog_http_requests_total", &[&route, r#"method="POST""#, r#"status="200""#], 7.0);
    is("sporlog_http_requests_total", &[&route, r#"status="400""#], 1.0);
    is("sporlog_http_requests_total", &[r#"route="none""#, r#"status="404""#], 1.0);
    is("sporlog_http_request_seconds_count", &[&route], 9.0);
    for family in ["sporlog_http_request_bytes_sum", "sporlog_http_response_bytes_sum"] {
        assert!(value(&metrics, family, &[&route]).is_some_and(|bytes| bytes > 0.0), "{family} in {metrics}");
    }
    for family in ["sporlog_connections_open", "sporlog_connections_total", "sporlog_http_requests_under_way"]
    {
        assert!(value(&metrics, family, &[]).is_some_and(|count| count >= 1.0), "{family} in {metrics}");
    }
    // Each family says what it is, and none has a label that a client could fill in.
    for line in metrics.lines().filter(|line| !line.starts_with('#') && line.starts_with("sporlog_")) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let family =
            ["_count", "_sum", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(metrics.contains(&format!("# TYPE {family} ")), "{line}");
        assert!(metrics.contains(&format!("# HELP {family} ")), "nothing says what {family} is");
    }
    assert!(!metrics.contains("nowhere") && !metrics.contains("0101018081"), "{metrics}");
    // The durability that was promised is measured by log: commits, how long they took, how many records.
    for family in ["sporlog_commits_total", "sporlog_commit_seconds_count", "sporlog_commit_records_count"] {
        assert!(value(&metrics, family, &[r#"log="disclosure""#]).is_some(), "{family} in {metrics}");
    }
}

/// Metrics name suppliers and say how much of everything there is: they are not for anyone.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_read_with_a_key_for_them_or_on_an_address_of_their_own() {
    let site = Site::new();
    let (collects, audits) = (site.key("prometheus", "metrics", &[]), site.key("auditor", "audit", &[]));
    let server = site.serve();
    server.anyone().get("/metrics").await.is_problem(401);
    server.client(&audits).get("/metrics").await.is_problem(403);
    // Prometheus sends what is in its credentials_file as a bearer token.
    let metrics = server.bearer(&collects).get("/metrics").await.text();
    for series in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_threads",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(value(&metrics, series, &[]).is_some_and(|value| value > 0.0), "{series} in {metrics}");
    }
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&metrics, "sporlog_build_info", &[&version]), Some(1.0), "{metrics}");
    // And nothing else is read with it.
    let collector = server.client(&collects);
    for path in ["/api/auditlog/read", "/api/logs/revision/head", "/api/deliveries"] {
        collector.get(path).await.is_problem(403);
    }
    assert_eq!(collector.json("/api/logs").await, serde_json::json!([]));
    drop(server);

    let own = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let site = Site::configured(&format!("[server]\nmetrics_listen = '{own}'\n"));
    let collects = site.key("prometheus", "metrics", &[]);
    let server = site.serve();
    server.client(&collects).get("/metrics").await.is_problem(404);
    let apart = server.anyone().at(format!("http://{own}"));
    assert!(apart.get("/metrics").await.text().contains("sporlog_build_info"));
    apart.get("/api/logs").await.is_problem(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_quarantine_is_counted() {
    let site = Site::new();
    let collects = site.key("prometheus", "metrics", &[]);
    let file = site.path("bad.csv");
    std::fs::write(&file, revision(&["64942212", "x", "y"])).expect("written");
    site.run(&["import", "revision", &file.to_string_lossy()]);
    let server = site.serve();
    let waiting = async |expected| {
        let until = std::time::Instant::now() + super::server::PATIENCE;
        loop {
            let metrics = server.client(&collects).get("/metrics").await.text();
            let found = value(&metrics, "sporlog_quarantine_waiting", &[r#"log="revision""#]);
            if found == Some(expected) {
                return;
            }
            assert!(std::time::Instant::now() < until, "{found:?}, not {expected}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    waiting(2.0).await;
    let listed = site.print(&["quarantine", "list", "--json"]);
    let first: serde_json::Value =
        serde_json::from_str(listed.lines().next().expect("an item")).expect("JSON");
    site.print(&["quarantine", "discard", &first["id"].to_string(), "--reason", "sent again"]);
    waiting(1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_dressed_for_browsers_and_proxies() {
    let site = Site::new();
    let reads = site.key("reader", "read", &[]);
    let server = site.serve();
    let client = server.client(&reads);
    for path in ["/api/logs", "/api/nowhere", "/health/live"] {
        let answer = client.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.header("cache-control").is_some_and(|value| value.contains("no-store")), "{path}");
        assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{path}");
        assert!(answer.header("content-security-policy").is_some(), "{path}");
    }
    let answer = client.clone().with("x-request-id", "my-own-1").get("/api/logs").await;
    assert_eq!(answer.header("x-request-id"), Some("my-own-1"));
    let described = server.anyone().json("/api/openapi.json").await;
    for path in
        ["/api/auditlog/head", "/api/auditlog/read", "/api/les", "/sporingslogg/api/post", "/api/deliveries"]
    {
        assert!(described["paths"][path].is_object(), "{path}");
    }
    let page = server.anyone().get("/api/docs/").await;
    assert!(page.status == 200 && page.text().contains("<html"), "{} {}", page.status, page.text());
}
