//! Metrics of suppliers and their deliveries. The label `account` is a name from the configuration, so clients
//! cannot make the number of time series grow.

use metrics::{counter, gauge, histogram};

use super::summary::Watched;
use super::volume::Volume;
use crate::receipt::Receipt;

/// Gauge: 1 if a delivery is missing, 0 if not, by `account`.
pub const LATE: &str = "sporlog_delivery_late";
/// Gauge: when the last accepted delivery was taken, in seconds since 1970, by `account`.
pub const LAST: &str = "sporlog_delivery_last_timestamp_seconds";
/// Gauge: when the next delivery has to be there, in seconds since 1970, by `account`.
pub const DUE: &str = "sporlog_delivery_due_timestamp_seconds";
/// Gauge: rows of the last accepted delivery, by `account`.
pub const ROWS: &str = "sporlog_delivery_rows";
/// Gauge: -1 if the newest day brought less than a third of the usual rows, 1 if more than three times, by
/// `account`.
pub const UNUSUAL: &str = "sporlog_delivery_volume_unusual";
/// Gauge: rows refused for each row of the last delivery, 0 to 1, by `account`.
pub const ERRORS: &str = "sporlog_delivery_error_ratio";
/// Counter: deliveries, by `account` and `outcome`: `accepted`, `repeated` or `refused`.
pub const DELIVERIES: &str = "sporlog_deliveries_total";
/// Counter: rows delivered, by `account` and `outcome`: `accepted`, `quarantined` or `skipped`.
pub const ROWS_TOTAL: &str = "sporlog_delivery_rows_total";
/// Counter: bytes delivered, by `account`.
pub const BYTES_TOTAL: &str = "sporlog_delivery_bytes_total";
/// Histogram: seconds from the moment that a delivery was taken to its receipt, by `account`.
pub const SECONDS: &str = "sporlog_delivery_seconds";

/// Sets the gauges of these suppliers. A gauge without a known value is left unset.
pub fn publish(suppliers: &[Watched]) {
    for supplier in suppliers {
        let set =
            |name: &'static str, value: f64| gauge!(name, "account" => supplier.account.clone()).set(value);
        set(LATE, if supplier.is_missed() { 1.0 } else { 0.0 });
        set(UNUSUAL, unusual(supplier.volume.volume));
        if let Some(last) = &supplier.last_accepted {
            set(LAST, last.taken_at.timestamp() as f64);
            set(ROWS, last.rows as f64);
        }
        if let Some(due) = supplier.due {
            set(DUE, due.timestamp() as f64);
        }
        if let Some(rate) = supplier.error_rate {
            set(ERRORS, rate);
        }
    }
}

fn unusual(volume: Volume) -> f64 {
    match volume {
        Volume::Low => -1.0,
        Volume::High => 1.0,
        Volume::Usual | Volume::Unknown => 0.0,
    }
}

/// Counts a delivery that has its receipt.
pub fn count(receipt: &Receipt) {
    let account = || receipt.account.clone();
    counter!(DELIVERIES, "account" => account(), "outcome" => receipt.outcome.name()).increment(1);
    counter!(BYTES_TOTAL, "account" => account()).increment(receipt.bytes);
    histogram!(SECONDS, "account" => account()).record(receipt.seconds);
    let Receipt { accepted, quarantined, skipped, .. } = *receipt;
    for (outcome, rows) in [("accepted", accepted), ("quarantined", quarantined), ("skipped", skipped)] {
        counter!(ROWS_TOTAL, "account" => account(), "outcome" => outcome).increment(rows);
    }
}
