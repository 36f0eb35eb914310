//! Metrics of suppliers and their deliveries. The label `account` is a name from the configuration, so clients
//! cannot make the number of time series grow.

use metrics::{counter, gauge, histogram};

use super::supplier_status::SupplierStatus;
use super::volume::Volume;
use crate::receipt::Receipt;

/// Sets the gauges of these suppliers. A gauge without a known value is left unset.
pub fn publish(suppliers: &[SupplierStatus]) {
    for supplier in suppliers {
        let set =
            |name: &'static str, value: f64| gauge!(name, "account" => supplier.account.clone()).set(value);
        set("sporlog_delivery_late", f64::from(u8::from(supplier.is_missed())));
        let unusual = match supplier.volume.volume {
            Volume::Low => -1.0,
            Volume::High => 1.0,
            Volume::Usual | Volume::Unknown => 0.0,
        };
        set("sporlog_delivery_volume_unusual", unusual);
        if let Some(last) = &supplier.last_accepted {
            set("sporlog_delivery_last_timestamp_seconds", last.taken_at.timestamp() as f64);
            set("sporlog_delivery_rows", last.rows as f64);
        }
        if let Some(due) = supplier.timeliness.due {
            set("sporlog_delivery_due_timestamp_seconds", due.timestamp() as f64);
        }
        if let Some(rate) = supplier.error_rate {
            set("sporlog_delivery_error_ratio", rate);
        }
    }
}

/// Counts a delivery that has its receipt.
pub fn count(receipt: &Receipt) {
    let Receipt { accepted, quarantined, skipped, bytes, seconds, .. } = *receipt;
    let account = || receipt.account.clone();
    counter!("sporlog_deliveries_total", "account" => account(), "outcome" => receipt.outcome.to_string())
        .increment(1);
    counter!("sporlog_delivery_bytes_total", "account" => account()).increment(bytes);
    histogram!("sporlog_delivery_seconds", "account" => account()).record(seconds);
    for (outcome, rows) in [("accepted", accepted), ("quarantined", quarantined), ("skipped", skipped)] {
        counter!("sporlog_delivery_rows_total", "account" => account(), "outcome" => outcome).increment(rows);
    }
}
