//! Days of receipt, in UTC, and which ids they have.
//!
//! Times of receipt rise with the ids, so a day is a range of them. A day is over for good when
//! something was received after it. Without that, it is waited for a while: the rows of a long
//! append carry the time at which it began, and are seen when it ends.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use futures::TryStreamExt;
use sporlog_ledger::{Log, numbers};

use crate::error::{Error, Result};

/// An append that began before midnight is given so long to end.
pub const GRACE: Duration = Duration::from_mins(30);

/// A day's first moment, in microseconds UTC.
pub fn midnight(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

/// A day, and what was received on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Day {
    pub day: NaiveDate,
    /// The ids; where there are none, it begins at the one that came next.
    pub ids: Range<u64>,
    /// Whether it is over.
    pub complete: bool,
}

impl Day {
    /// The log's rows of `day`, as of `now`. `None` if they may have expired, so that what is left says
    /// nothing.
    pub(super) async fn of(log: &Log, day: NaiveDate, now: DateTime<Utc>) -> Result<Option<Self>> {
        let next = day.checked_add_days(Days::new(1));
        let next = next.ok_or_else(|| Error::Settings(format!("{day}: the calendar ends there")))?;
        if may_have_expired(log, day).await? {
            return Ok(None);
        }
        // Before the search: what comes in meanwhile is left to the next time.
        let head = log.head();
        let first = log.first_received_from(midnight(day)).await?.min(head + 1);
        let end = log.first_received_from(midnight(next)).await?.min(head + 1);
        let grace = midnight(next).saturating_add(GRACE.as_micros() as i64);
        let complete = end <= head || now.timestamp_micros() >= grace;
        Ok(Some(Day { day, ids: first..end, complete }))
    }
}

/// Retention removes the oldest records first. Of the day on which the oldest one that is left was
/// received, others may be gone as well.
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
