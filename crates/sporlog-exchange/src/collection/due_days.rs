//! Which days' files are still to be written, and for whom.
//!
//! A day is told by the times of receipt: its ids are those of the rows that were received on it. A day is
//! complete once nothing can be received on it any more: when the newest row is of a later day, or half an hour
//! after midnight. Clocks may have been wrong, so a day's ids may be in several ranges, and rows may be of a day
//! that has not come yet.
//!
//! A record in the exchange's folder tells that a day was collected, not the files in the outbox: a
//! file that a municipality has fetched and removed does not come again by itself.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use sporlog_intake::{Error, Result};
use sporlog_ledger::Log;

use super::Days;
use super::manifest::Scanned;
use super::outbox::Outbox;

/// How long an append that began before midnight may take.
pub(super) const GRACE: Duration = Duration::from_mins(30);
/// How many days are looked back.
const LOOK_BACK: u64 = 35;

/// A day, and the ids that were received on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceivedDay {
    pub day: NaiveDate,
    /// The ids, in ascending ranges.
    pub ids: Vec<Range<u64>>,
    /// The day's last id; of a day without rows, the last id before it.
    pub size: u64,
    /// Whether nothing can be received on the day any more.
    pub complete: bool,
}

/// A day, and the outboxes that its files are to be written to.
#[derive(Debug)]
pub(super) struct DueDay {
    pub received: ReceivedDay,
    pub outboxes: Vec<Outbox>,
}

/// A day's first moment, in microseconds UTC.
pub(super) fn midnight(day: NaiveDate) -> i64 {
    day.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

/// The day of a time in microseconds UTC.
pub(super) fn day_of(micros: i64) -> NaiveDate {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().date_naive()
}

/// How many ids these ranges have.
pub(super) fn count(ids: &[Range<u64>]) -> u64 {
    ids.iter().map(|ids| ids.end - ids.start).sum()
}

/// The days from `days` that are due for any of the outboxes, oldest first.
pub(super) async fn due_days(
    log: &Log,
    outboxes: Vec<Outbox>,
    days: Days,
    now: DateTime<Utc>,
) -> Result<Vec<DueDay>> {
    let today = now.date_naive();
    if let Days::Of(day) = days {
        let mut received = received_days(log, day, day, now).await?;
        received.retain(|received| received.day == day);
        if day > today && received.iter().all(|received| received.ids.is_empty()) {
            return Err(Error::Settings(format!("{day}: that day has not begun (UTC)")));
        }
        let expired = || Error::Settings(format!("{day}: records of that day may have expired"));
        let received = received.pop().ok_or_else(expired)?;
        return Ok(vec![DueDay { received, outboxes }]);
    }
    let mut first_days = BTreeMap::new();
    for outbox in &outboxes {
        first_days.insert(outbox.account.clone(), outbox.first_day()?);
    }
    let mut due = Vec::new();
    let first = today.checked_sub_days(chrono::Days::new(LOOK_BACK)).unwrap_or(today);
    for received in received_days(log, first, today, now).await? {
        if !received.complete && received.day <= today && days == Days::Due {
            continue;
        }
        let mut due_for = Vec::new();
        for outbox in &outboxes {
            let first_day = first_days.get(&outbox.account).copied().flatten();
            if is_due(outbox, &received, today, first_day)? {
                due_for.push(outbox.clone());
            }
        }
        if !due_for.is_empty() {
            due.push(DueDay { received, outboxes: due_for });
        }
    }
    Ok(due)
}

/// Whether a day's files are still to be written, or to be written anew. `first_day` is the account's first
/// collected day. Rows of a day after `today`, which a clock that was ahead has made, are not kept back until
/// that day is over.
fn is_due(
    outbox: &Outbox,
    received: &ReceivedDay,
    today: NaiveDate,
    first_day: Option<NaiveDate>,
) -> Result<bool> {
    let day = received.day;
    let Some(collected) = outbox.collected(day)? else {
        return Ok(!received.ids.is_empty() || first_day.is_some_and(|first_day| first_day <= day));
    };
    if !collected.complete && (received.complete || day <= today) {
        return Ok(true);
    }
    // Ids only rise, so what was received after the collection is behind the rest.
    let last = |scanned: Option<Scanned>| scanned.map(|scanned| scanned.last);
    let has_grown = last(collected.scanned) != last(received.scanned());
    if has_grown {
        let account = &outbox.account;
        tracing::warn!(%day, account, "rows were received on this day that came in after its collection");
    }
    Ok(has_grown)
}

/// The days from `first` to `last`, and the days after them on which anything was received: by a clock that was
/// ahead. Days of which records may have expired are left out.
async fn received_days(
    log: &Log,
    first: NaiveDate,
    last: NaiveDate,
    now: DateTime<Utc>,
) -> Result<Vec<ReceivedDay>> {
    // Read before the ids: the rows of a day that is over by this time are among the ids.
    let newest = log.newest_receipt().await?;
    let expired_until = log.expired_until();
    let before = first.pred_opt().unwrap_or_default();
    let mut received = log.received_by(|at| day_of(at).max(before)).await?;
    for day in first.iter_days().take_while(|day| *day <= last) {
        received.entry(day).or_default();
    }
    let now = now.timestamp_micros();
    let (mut size, mut days) = (0, Vec::new());
    for (day, ids) in received {
        let last_id = ids.last().map(|ids| ids.end - 1);
        let next =
            day.succ_opt().ok_or_else(|| Error::Settings(format!("{day}: the calendar ends there")))?;
        let end = midnight(next);
        let complete = now >= end.saturating_add(GRACE.as_micros() as i64)
            || newest.is_some_and(|newest| (end..=now).contains(&newest));
        if day != before && expired_until.is_none_or(|until| midnight(day) > until) {
            days.push(ReceivedDay { day, size: last_id.unwrap_or(size), ids, complete });
        }
        size = size.max(last_id.unwrap_or_default());
    }
    Ok(days)
}

impl ReceivedDay {
    /// From the day's first id to its last.
    pub(super) fn scanned(&self) -> Option<Scanned> {
        let (first, last) = self.ids.first().zip(self.ids.last())?;
        Some(Scanned { first: first.start, last: last.end - 1 })
    }
}
