//! Days of receipt, in UTC, and the range of ids of each.
//!
//! Times of receipt rise with the ids, so a day has a range of ids. A day is over when the log has received a
//! row after it, or some time after midnight: the rows of a long append carry the time at which the append
//! began, and become visible when it ends.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use futures::TryStreamExt;
use sporlog_ledger::{Log, numbers};

use crate::error::{Error, Result};

/// How long an append that began before midnight may take.
pub const GRACE: Duration = Duration::from_mins(30);

/// A day's first moment, in microseconds UTC.
pub fn midnight(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

/// A day, and the ids received on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Day {
    pub day: NaiveDate,
    /// The ids. An empty range begins at the next id after the day.
    pub ids: Range<u64>,
    /// Whether the day is over.
    pub complete: bool,
}

impl Day {
    /// The rows of `day` in the log, as of `now`. `None` if some of them may have expired.
    pub(super) async fn of(log: &Log, day: NaiveDate, now: DateTime<Utc>) -> Result<Option<Self>> {
        let next = day.checked_add_days(Days::new(1));
        let next = next.ok_or_else(|| Error::Settings(format!("{day}: the calendar ends there")))?;
        if may_have_expired(log, day).await? {
            return Ok(None);
        }
        // Before the search: rows that come in meanwhile are left for the next collection.
        let head = log.head();
        let first = log.first_received_from(midnight(day)).await?.min(head + 1);
        let end = log.first_received_from(midnight(next)).await?.min(head + 1);
        let grace = midnight(next).saturating_add(GRACE.as_micros() as i64);
        let complete = end <= head || now.timestamp_micros() >= grace;
        Ok(Some(Day { day, ids: first..end, complete }))
    }
}

/// Whether rows of the day may have expired. Retention removes the oldest records first, so of the day of the
/// oldest remaining record some may be gone.
async fn may_have_expired(log: &Log, day: NaiveDate) -> Result<bool> {
    let first = log.first();
    if first <= 1 {
        return Ok(false);
    }
    let mut rows = log.read_columns(first - 1, Some(1), &["id", "received_at"]);
    let Some(row) = rows.try_next().await?.filter(|row| row.num_rows() > 0) else { return Ok(true) };
    let received = DateTime::from_timestamp_micros(numbers(&row)?.1.value(0)).unwrap_or_default();
    Ok(day <= received.date_naive())
}
