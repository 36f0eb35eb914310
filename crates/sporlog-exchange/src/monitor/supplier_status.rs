//! A supplier and the state of its deliveries, as the API and `sporlog deliveries` show it.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::rhythm::Timeliness;
use super::volume::Verdict;
use crate::receipt::{Outcome, Receipt};
use crate::settings::{Account, Rhythm};

/// Days that count as recent.
pub const RECENT_DAYS: i64 = 35;

/// A supplier and the state of its deliveries.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SupplierStatus {
    /// The supplier's account.
    pub account: String,
    /// How often the supplier is expected to deliver.
    pub rhythm: Rhythm,
    /// Whether the supplier is on time, and what is missing.
    #[serde(flatten)]
    pub timeliness: Timeliness,
    /// The newest file, whatever its outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<DeliverySummary>,
    /// The newest accepted file. Only accepted files count as deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_accepted: Option<DeliverySummary>,
    /// Rows refused for each row delivered, 0 to 1, in the newest file that is not a repeated one; 1 for a file
    /// that was refused whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
    /// Totals of the last [`RECENT_DAYS`] days.
    pub recent: Recent,
    /// Whether the newest day brought as many rows as usual.
    pub volume: Verdict,
}

/// A delivery in brief.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySummary {
    /// The delivery's id.
    pub delivery: String,
    /// The file's name.
    pub file: String,
    /// The outcome.
    pub outcome: Outcome,
    /// When the file was claimed.
    pub taken_at: DateTime<Utc>,
    /// The rows of the file, as delivered.
    pub rows: u64,
    /// The size of the file.
    pub bytes: u64,
    /// Rows that were refused.
    pub quarantined: u64,
}

/// Totals of the deliveries within some days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recent {
    /// How many days.
    pub days: i64,
    /// Files.
    pub deliveries: u64,
    /// Files that were accepted.
    pub accepted: u64,
    /// Files whose bytes were stored before.
    pub repeated: u64,
    /// Files that were refused whole.
    pub refused: u64,
    /// Rows of the accepted files, as delivered.
    pub rows: u64,
    /// Bytes of the accepted files.
    pub bytes: u64,
    /// Rows of the accepted files that were refused.
    pub quarantined: u64,
    /// Rows refused for each row of the accepted files, 0 to 1; absent if there are no rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
}

impl SupplierStatus {
    /// The state at `now` of a supplier with these `deliveries`, in any order, whose folder was made at
    /// `known_since`.
    pub fn new(
        account: &Account,
        mut deliveries: Vec<Receipt>,
        known_since: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        deliveries.sort_by(|a, b| (a.taken_at, &a.delivery).cmp(&(b.taken_at, &b.delivery)));
        let accepted: Vec<_> = deliveries.iter().filter(|one| one.outcome == Outcome::Accepted).collect();
        let last_accepted = accepted.last().copied();
        let last_new = deliveries.iter().rfind(|one| one.outcome != Outcome::Repeated);
        let last_taken = last_accepted.map(|last| last.taken_at);
        SupplierStatus {
            account: account.name.clone(),
            rhythm: account.rhythm,
            timeliness: Timeliness::of(account.rhythm, last_taken, known_since, now),
            last: deliveries.last().map(DeliverySummary::of),
            last_accepted: last_accepted.map(DeliverySummary::of),
            error_rate: last_new.map(Receipt::error_rate),
            recent: Recent::of(&deliveries, now),
            volume: Verdict::of(&accepted, now.date_naive()),
        }
    }

    /// Whether a delivery is missing.
    pub fn is_missed(&self) -> bool {
        self.timeliness.is_missed
    }
}

impl DeliverySummary {
    fn of(receipt: &Receipt) -> Self {
        DeliverySummary {
            delivery: receipt.delivery.clone(),
            file: receipt.file.clone(),
            outcome: receipt.outcome,
            taken_at: receipt.taken_at,
            rows: receipt.rows(),
            bytes: receipt.bytes,
            quarantined: receipt.quarantined,
        }
    }
}

impl Recent {
    fn of(deliveries: &[Receipt], now: DateTime<Utc>) -> Self {
        let since = now.checked_sub_signed(TimeDelta::days(RECENT_DAYS));
        let mut recent = Recent { days: RECENT_DAYS, ..Recent::default() };
        for delivery in deliveries.iter().filter(|one| since.is_none_or(|since| one.taken_at > since)) {
            recent.deliveries += 1;
            match delivery.outcome {
                Outcome::Accepted => {
                    recent.accepted += 1;
                    recent.rows = recent.rows.saturating_add(delivery.rows());
                    recent.bytes = recent.bytes.saturating_add(delivery.bytes);
                    recent.quarantined = recent.quarantined.saturating_add(delivery.quarantined);
                }
                Outcome::Repeated => recent.repeated += 1,
                Outcome::Refused => recent.refused += 1,
            }
        }
        recent.error_rate = (recent.rows > 0).then(|| recent.quarantined as f64 / recent.rows as f64);
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::super::rhythm::State;
    use super::super::testing::{accepted, at, delivery, supplier};
    use super::*;

    fn status(rhythm: &str, deliveries: Vec<Receipt>, now: &str) -> SupplierStatus {
        SupplierStatus::new(&supplier(rhythm), deliveries, None, at(now))
    }

    #[test]
    fn only_an_accepted_file_fulfils_the_duty() {
        let deliveries = vec![
            accepted("a", "2026-11-02T06:00:00Z", 10),
            delivery("a", "2026-11-03T06:00:00Z", Outcome::Refused, 10, 0),
            delivery("a", "2026-11-03T07:00:00Z", Outcome::Repeated, 0, 0),
        ];
        let late = status("daily", deliveries.clone(), "2026-11-04T12:00:00Z");
        assert_eq!(
            (late.timeliness.state, late.timeliness.late_since),
            (State::Late, Some(at("2026-11-04T00:00:00Z")))
        );
        assert_eq!(late.last.as_ref().map(|last| last.outcome), Some(Outcome::Repeated));
        assert_eq!(late.last_accepted.map(|last| last.taken_at), Some(at("2026-11-02T06:00:00Z")));
        assert_eq!(late.error_rate, Some(1.0), "the newest that was not repeated was refused");
        assert!(
            status("daily", deliveries.clone(), "2026-11-04T11:00:00Z").timeliness.state == State::OnTime
        );
        let corrected = accepted("a", "2026-11-03T09:00:00Z", 10);
        let now = [deliveries, vec![corrected]].concat();
        assert_eq!(status("daily", now, "2026-11-04T12:00:00Z").timeliness.state, State::OnTime);
        let nothing_good = vec![delivery("a", "2026-11-03T06:00:00Z", Outcome::Refused, 10, 0)];
        let never = status("daily", nothing_good, "2026-11-03T07:00:00Z");
        assert_eq!((never.timeliness.state, never.last.is_some()), (State::Never, true));
    }

    #[test]
    fn the_order_of_the_register_does_not_matter() {
        let mut deliveries: Vec<_> =
            (1..=9).map(|day| accepted("a", &format!("2026-11-0{day}T06:00:00Z"), day)).collect();
        let in_order = status("daily", deliveries.clone(), "2026-11-10T00:00:00Z");
        deliveries.rotate_left(4);
        let turned = status("daily", deliveries, "2026-11-10T00:00:00Z");
        let json = |status: &SupplierStatus| serde_json::to_value(status).expect("JSON");
        assert_eq!(json(&in_order), json(&turned));
        assert_eq!(in_order.last.map(|last| last.rows), Some(9));
    }

    #[test]
    fn recent_is_what_came_in_35_days() {
        let deliveries = vec![
            accepted("a", "2026-10-06T12:00:00Z", 1_000),
            delivery("a", "2026-10-06T12:00:01Z", Outcome::Accepted, 90, 10),
            delivery("a", "2026-11-01T12:00:00Z", Outcome::Accepted, 300, 0),
            delivery("a", "2026-11-02T12:00:00Z", Outcome::Refused, 5, 0),
            delivery("a", "2026-11-03T12:00:00Z", Outcome::Repeated, 5, 0),
        ];
        let recent = status("irregular", deliveries, "2026-11-10T12:00:00Z").recent;
        let expected = Recent {
            days: 35,
            deliveries: 4,
            accepted: 2,
            repeated: 1,
            refused: 1,
            rows: 400,
            bytes: 39_000,
            quarantined: 10,
            error_rate: Some(0.025),
        };
        assert_eq!(recent, expected);
        assert_eq!(status("daily", Vec::new(), "2026-11-10T12:00:00Z").recent.error_rate, None);
    }

    #[test]
    fn what_machines_are_told() {
        let deliveries = vec![accepted("a", "2026-11-02T06:00:00Z", 10)];
        let late = status("daily", deliveries, "2026-11-05T12:00:00Z");
        let told = serde_json::to_value(late).expect("JSON");
        let delivery = serde_json::json!({
            "delivery": "20261102T060000Z-a", "file": "day.csv", "outcome": "accepted",
            "takenAt": "2026-11-02T06:00:00Z", "rows": 10, "bytes": 1000, "quarantined": 0,
        });
        let expected = serde_json::json!({
            "account": "a", "rhythm": "daily", "state": "late", "due": "2026-11-04T00:00:00Z",
            "lateSince": "2026-11-04T00:00:00Z",
            "missing": {"from": "2026-11-03", "to": "2026-11-04", "deliveries": 2},
            "last": delivery, "lastAccepted": delivery, "errorRate": 0.0,
            "recent": {"days": 35, "deliveries": 1, "accepted": 1, "repeated": 0, "refused": 0,
                       "rows": 10, "bytes": 1000, "quarantined": 0, "errorRate": 0.0},
            "volume": {"volume": "unknown", "day": "2026-11-02", "rows": 10},
        });
        assert_eq!(told, expected);
    }
}
