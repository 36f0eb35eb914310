//! What an operator watches: all of Sporlog's metrics, in Prometheus' text format.
//!
//! Names are in base units (seconds, bytes) and labels come from closed sets: a route's pattern, never
//! a path; a log's name; a reason out of a list. So nobody can make the number of time series grow,
//! and no personal number gets into one.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use axum::Router;
use axum::http::header;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::process;

/// Counter: requests answered, by `method`, `route` (its pattern) and `status`.
pub const HTTP_REQUESTS: &str = "sporlog_http_requests_total";
/// Histogram: seconds from a request's head to its answer's, by `method` and `route`.
pub const HTTP_SECONDS: &str = "sporlog_http_request_seconds";
/// Gauge: requests under way.
pub const HTTP_UNDER_WAY: &str = "sporlog_http_requests_under_way";
/// Histogram: bytes of a request's body as sent, by `route`.
pub const HTTP_REQUEST_BYTES: &str = "sporlog_http_request_bytes";
/// Histogram: bytes of an answer's body, by `route`.
pub const HTTP_RESPONSE_BYTES: &str = "sporlog_http_response_bytes";
/// Counter: requests turned away by the server itself, by `reason`: `size`, `slow`, `broken` (the body ends
/// too early, or cannot be unpacked), `timeout`, `rate`, `crowd`, `head` (it is no HTTP/1.1, or has not
/// one `Host`), `panic`.
pub const HTTP_REFUSED: &str = "sporlog_http_refused_total";
/// Gauge: connections open.
pub const CONNECTIONS: &str = "sporlog_connections_open";
/// Counter: connections taken in.
pub const CONNECTIONS_TOTAL: &str = "sporlog_connections_total";
/// Counter: connections that the server ended, by `reason`: `idle` (no complete head in time), `write` (the
/// client took nothing of an answer), `handshake`, `shutdown` (not done in time).
pub const CONNECTIONS_CLOSED: &str = "sporlog_connections_closed_total";
/// Counter: times that a connection had to wait for another to end.
pub const CONNECTIONS_WAITED: &str = "sporlog_connections_waited_total";
/// Gauge: seconds since 1970 at which the certificate runs out.
pub const TLS_EXPIRY: &str = "sporlog_tls_certificate_expiry_seconds";
/// Counter: certificates read again, by `outcome`: `ok` or `failed`.
pub const TLS_RELOADS: &str = "sporlog_tls_reloads_total";
/// Counter: failed authentications, by `reason`.
pub const AUTH_REFUSED: &str = "sporlog_auth_refused_total";
/// Counter: records taken in, by `log`, `source` (`http`, `delivery`, `kafka`, `pull`) and `outcome` (`accepted`,
/// `refused`, `replayed`: sent again, `duplicate`: files that were there).
pub const INTAKE_RECORDS: &str = "sporlog_intake_records_total";
/// Histogram: seconds until the records of a request were durable, by `log` and `source`.
pub const INTAKE_COMMIT_SECONDS: &str = "sporlog_intake_commit_seconds";
/// Counter: commits, by `log` and `outcome`: `ok` or `failed`.
pub const COMMITS: &str = "sporlog_commits_total";
/// Histogram: seconds that a commit took, by `log`.
pub const COMMIT_SECONDS: &str = "sporlog_commit_seconds";
/// Histogram: records in a commit, by `log`.
pub const COMMIT_RECORDS: &str = "sporlog_commit_records";
/// Gauge: a log's newest id, by `log`.
pub const LOG_HEAD: &str = "sporlog_log_head";

/// Gauge: refused records that wait in the quarantine to be replayed or discarded, by `log`.
pub const QUARANTINE_WAITING: &str = "sporlog_quarantine_waiting";

/// How often values are folded into their histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// Bounds of histograms of seconds: half a millisecond to a minute.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Bounds of histograms of sizes: 256 bytes to 4 GiB.
const BYTES: [f64; 13] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
];
/// Bounds of histograms of numbers of records.
const RECORDS: [f64; 8] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0];

/// Begins to collect metrics, for the whole process, and says what each is. Called again, it gives the
/// same handle.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            process::started();
            let mut builder = PrometheusBuilder::new();
            for (ending, bounds) in [
                ("_seconds", &SECONDS[..]),
                ("_bytes", &BYTES[..]),
                ("_records", &RECORDS[..]),
                ("_messages", &RECORDS[..]),
            ] {
                builder = match builder.set_buckets_for_metric(Matcher::Suffix(ending.into()), bounds) {
                    Ok(builder) => builder,
                    // Only an empty list of bounds is refused.
                    Err(_) => PrometheusBuilder::new(),
                };
            }
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("something else collects metrics in this process: /metrics stays empty");
            }
            describe();
            keep_up(handle.clone());
            handle
        })
        .clone()
}

/// Folds what histograms have collected, whether or not anybody asks for it: until then each value is kept.
fn keep_up(handle: PrometheusHandle) {
    let upkeep = move || loop {
        std::thread::sleep(UPKEEP);
        handle.run_upkeep();
    };
    if let Err(error) = std::thread::Builder::new().name("metrics".into()).spawn(upkeep) {
        tracing::warn!(%error, "metrics take memory until they are asked for");
    }
}

/// The route `/metrics`.
pub fn router<S: Clone + Send + Sync + 'static>(handle: PrometheusHandle) -> Router<S> {
    let render = async move || {
        let process = tokio::task::spawn_blocking(process::exposition).await.unwrap_or_default();
        let text = handle.render() + &process;
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
    };
    Router::new().route("/metrics", get(render))
}

fn describe() {
    describe_counter!(HTTP_REQUESTS, "Requests answered, by method, route and status");
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "From a request's head to its answer's");
    describe_gauge!(HTTP_UNDER_WAY, "Requests under way");
    describe_histogram!(HTTP_REQUEST_BYTES, Unit::Bytes, "Size of requests' bodies, as sent");
    describe_histogram!(HTTP_RESPONSE_BYTES, Unit::Bytes, "Size of answers' bodies");
    describe_counter!(HTTP_REFUSED, "Requests turned away by the server itself, by reason");
    describe_gauge!(CONNECTIONS, "Connections open");
    describe_counter!(CONNECTIONS_TOTAL, "Connections taken in");
    describe_counter!(CONNECTIONS_CLOSED, "Connections that the server ended, by reason");
    describe_counter!(CONNECTIONS_WAITED, "Times that a connection had to wait for another to end");
    describe_gauge!(TLS_EXPIRY, Unit::Seconds, "When the certificate runs out, in seconds since 1970");
    describe_counter!(TLS_RELOADS, "Certificates read again, by outcome");
    describe_counter!(AUTH_REFUSED, "Failed authentications, by reason");
    describe_counter!(INTAKE_RECORDS, "Records taken in, by log, source and outcome");
    describe_histogram!(INTAKE_COMMIT_SECONDS, Unit::Seconds, "Until the records of a request were durable");
    describe_counter!(COMMITS, "Commits, by log and outcome");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "How long a commit took");
    describe_histogram!(COMMIT_RECORDS, "Records in a commit");
    describe_gauge!(LOG_HEAD, "A log's newest id");
    describe_gauge!(QUARANTINE_WAITING, "Refused records that wait to be replayed or discarded, by log");
    describe_gauge!("sporlog_kafka_healthy", "1 if messages can be taken in, 0 if not");
    describe_gauge!("sporlog_kafka_lag", "Messages of a partition that are not in their log yet");
    describe_counter!("sporlog_kafka_messages_total", "Messages read, by topic");
    describe_counter!("sporlog_kafka_refused_total", "Messages refused, by topic");
    describe_counter!("sporlog_kafka_skipped_total", "Empty messages passed over, by topic");
    describe_histogram!("sporlog_kafka_batch_messages", "Messages in a batch, by log");
    describe_histogram!("sporlog_kafka_batch_bytes", Unit::Bytes, "Bytes in a batch, by log");
    describe_histogram!(
        "sporlog_kafka_commit_seconds",
        Unit::Seconds,
        "How long a batch took to be stored, by log"
    );
    describe_counter!(
        "sporlog_kafka_conflicts_total",
        "Batches that another instance had stored some of, by log"
    );
    describe_counter!(
        "sporlog_kafka_dead_letter_failures_total",
        "Copies of refused messages that could not be sent"
    );
    describe_counter!(
        "sporlog_kafka_lost_offsets_total",
        "Offsets that Kafka had removed before they were read"
    );
    describe_counter!("sporlog_kafka_rebalances_total", "Partitions given and taken away");
    sporlog_exchange::server::metrics::describe();
    describe_gauge!("sporlog_delivery_late", "1 if a supplier's delivery is missing, 0 if not, by account");
    describe_gauge!(
        "sporlog_delivery_last_timestamp_seconds",
        Unit::Seconds,
        "When the last accepted delivery was taken, in seconds since 1970, by account"
    );
    describe_gauge!(
        "sporlog_delivery_due_timestamp_seconds",
        Unit::Seconds,
        "When the next delivery has to be there, in seconds since 1970, by account"
    );
    describe_gauge!("sporlog_delivery_rows", "Rows of the last accepted delivery, by account");
    describe_gauge!(
        "sporlog_delivery_volume_unusual",
        "-1 if a supplier's deliveries are smaller than usual, 1 if larger, by account"
    );
    describe_gauge!(
        "sporlog_delivery_error_ratio",
        "Rows refused for each row of the last delivery, 0 to 1, by account"
    );
    describe_gauge!(
        "sporlog_deliveries_stuck",
        "Deliveries that could not be dealt with when they were tried, and are tried again"
    );
    describe_counter!("sporlog_deliveries_total", "Deliveries, by account and outcome");
    describe_counter!("sporlog_delivery_rows_total", "Rows delivered, by account and outcome");
    describe_counter!("sporlog_delivery_bytes_total", Unit::Bytes, "Bytes delivered, by account");
    describe_histogram!(
        "sporlog_delivery_seconds",
        Unit::Seconds,
        "From the moment that a delivery was taken to its receipt, by account"
    );
    describe_gauge!(
        "sporlog_collect_last_success_seconds",
        Unit::Seconds,
        "When the municipalities' files were last written, in seconds since 1970"
    );
    describe_histogram!("sporlog_collect_seconds", Unit::Seconds, "How long writing them took");
    describe_counter!("sporlog_collect_rows_total", "Rows written into municipalities' files");
    describe_counter!("sporlog_collect_bytes_total", Unit::Bytes, "Bytes of municipalities' files");
    describe_counter!("sporlog_collect_failures_total", "Collections that failed");
}
