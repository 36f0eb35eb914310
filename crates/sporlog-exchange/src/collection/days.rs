//! Days of receipt, in UTC, and which ids they have.
//!
//! A time of receipt is what the clock said, so a day is any number of ranges of ids. A day is over for good
//! when something was received after it. Without that, it is waited for a while: the rows of a long append carry
//! the time at which it began, and are seen when it ends.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use sporlog_ledger::Log;

use super::manifest::Scanned;
use sporlog_intake::{Error, Result};

/// An append that began before midnight is given so long to end.
pub const GRACE: Duration = Duration::from_mins(30);

/// A day's first moment, in microseconds UTC.
pub fn midnight(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

/// The day of a time in microseconds UTC.
pub fn day_of(micros: i64) -> NaiveDate {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().date_naive()
}

/// A day, and what was received on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Day {
    pub day: NaiveDate,
    /// The ids, ascending.
    pub ids: Vec<Range<u64>>,
    /// The day's last id; where it has none, that of the last record before it.
    pub size: u64,
    /// Whether it is over.
    pub complete: bool,
}

impl Day {
    /// The log's rows of each day from `first` to `last`, as of `now`, and of those after it on which anything
    /// was received: by a clock that was ahead. Days are left out that may have expired, so that what is left
    /// of them says nothing.
    pub(super) async fn of(
        log: &Log,
        first: NaiveDate,
        last: NaiveDate,
        now: DateTime<Utc>,
    ) -> Result<Vec<Self>> {
        // Before the ids: what is over by this is among them.
        let newest = log.newest_receipt().await?;
        let expired_until = log.expired_until();
        let before = first.pred_opt().unwrap_or_default();
        let mut received = log.received_by(|at| day_of(at).max(before)).await?;
        let last_id = |ids: &[Range<u64>]| ids.last().map_or(0, |ids| ids.end - 1);
        let mut size = received.remove(&before).map_or(0, |ids| last_id(&ids));
        let mut days = Vec::new();
        for day in first.iter_days().take_while(|day| *day <= last).collect::<Vec<_>>() {
            received.entry(day).or_default();
        }
        for (day, ids) in received {
            let next = day.checked_add_days(Days::new(1));
            let next = next.ok_or_else(|| Error::Settings(format!("{day}: the calendar ends there")))?;
            let end = midnight(next);
            let grace = end.saturating_add(GRACE.as_micros() as i64);
            let now = now.timestamp_micros();
            let complete = now >= grace || newest.is_some_and(|newest| (end..=now).contains(&newest));
            let rows = !ids.is_empty();
            let day = Day { day, size: if rows { last_id(&ids) } else { size }, ids, complete };
            size = size.max(day.size);
            if expired_until.is_none_or(|until| midnight(day.day) > until) {
                days.push(day);
            }
        }
        Ok(days)
    }

    /// How many ids it has.
    pub(super) fn rows(&self) -> u64 {
        self.ids.iter().map(|ids| ids.end - ids.start).sum()
    }

    /// From its first id to its last.
    pub(super) fn scanned(&self) -> Option<Scanned> {
        let (first, last) = self.ids.first().zip(self.ids.last())?;
        Some(Scanned { first: first.start, last: last.end - 1 })
    }
}
