//! Suppliers and receipts to try the watching with.

use chrono::{DateTime, Utc};

use crate::receipt::{Outcome, Receipt};
use crate::settings::{Account, Settings};

/// A moment.
pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Settings with suppliers of these names, and a municipality.
pub fn settings(suppliers: &[&str]) -> Settings {
    let supplier = |name: &&str| serde_json::json!({"name": name, "role": "supplier"});
    let mut accounts: Vec<_> = suppliers.iter().map(supplier).collect();
    accounts.push(serde_json::json!({"name": "kommune", "role": "municipality", "cvr": ["64942212"]}));
    serde_json::from_value(serde_json::json!({"account": accounts})).expect("settings")
}

/// A supplier with this rhythm.
pub fn supplier(rhythm: &str) -> Account {
    let account = serde_json::json!({"name": "a", "role": "supplier", "rhythm": rhythm});
    serde_json::from_value(account).expect("an account")
}

/// A delivery that was taken at a moment.
pub fn delivery(account: &str, taken: &str, outcome: Outcome, rows: u64, quarantined: u64) -> Receipt {
    let taken_at = at(taken);
    let stored = if outcome == Outcome::Accepted { rows } else { 0 };
    let id = format!("{}-{account}", taken_at.format("%Y%m%dT%H%M%SZ"));
    Receipt {
        outcome,
        bytes: rows.saturating_mul(100),
        accepted: stored,
        quarantined,
        seconds: 0.5,
        ..Receipt::begun(&id, account, "day.csv".to_owned(), "revision", taken_at)
    }
}

/// A delivery all of whose rows were in order.
pub fn accepted(account: &str, taken: &str, rows: u64) -> Receipt {
    delivery(account, taken, Outcome::Accepted, rows, 0)
}
