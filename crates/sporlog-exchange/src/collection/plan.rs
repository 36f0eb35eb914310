//! Whose files of which days are to be written.
//!
//! That a day is done is told by the record of it in the exchange's folder, not by the files in the
//! outbox: what a municipality has fetched and removed does not come again by itself.

use std::collections::HashMap;
use std::path::Path;

use chrono::{DateTime, Days as Span, NaiveDate, Utc};
use sporlog_ledger::Log;

use super::Days;
use super::days::Day;
use super::manifest::Scanned;
use crate::tree::Home;
use sporlog_intake::{Error, Result};

/// How many days are looked back.
const LOOK_BACK: u64 = 35;

/// Whose rows go where.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub account: String,
    pub home: Home,
    /// The CVR number.
    pub organisation: String,
}

/// A day, and whose files of it are to be written.
#[derive(Debug)]
pub(super) struct Plan {
    pub day: Day,
    pub targets: Vec<Target>,
}

impl Plan {
    /// Ids that will be looked through.
    pub(super) fn ids(&self) -> u64 {
        let passes = self.targets.len().div_ceil(super::OPEN_FILES) as u64;
        self.day.rows() * passes
    }
}

/// What is to be done, oldest day first.
pub(super) async fn due(
    log: &Log,
    root: &Path,
    targets: Vec<Target>,
    days: Days,
    now: DateTime<Utc>,
) -> Result<Vec<Plan>> {
    let today = now.date_naive();
    if let Days::Of(day) = days {
        let found = Day::of(log, day, day, now).await?.into_iter().find(|found| found.day == day);
        if day > today && found.as_ref().is_none_or(|found| found.ids.is_empty()) {
            return Err(Error::Settings(format!("{day}: that day has not begun (UTC)")));
        }
        let expired = || Error::Settings(format!("{day}: records of that day may have expired"));
        let day = found.ok_or_else(expired)?;
        return Ok(if targets.is_empty() { Vec::new() } else { vec![Plan { day, targets }] });
    }
    let first_days = first_days(&targets, root)?;
    let mut plans = Vec::new();
    let first = today.checked_sub_days(Span::new(LOOK_BACK)).unwrap_or(today);
    for day in Day::of(log, first, today, now).await? {
        if !day.complete && day.day <= today && days == Days::Due {
            continue;
        }
        let mut due = Vec::new();
        for target in &targets {
            let since = first_days.get(&target.account).copied().flatten();
            if is_due(target, root, &day, today, since)? {
                due.push(target.clone());
            }
        }
        if !due.is_empty() {
            plans.push(Plan { day, targets: due });
        }
    }
    Ok(plans)
}

/// Whether a day's files are still to be written, or written anew; `since` is the first day that anything
/// was collected of for this account. A day after `today` is one of a clock that was ahead: what was received
/// then is not kept back until that day is over.
fn is_due(
    target: &Target,
    root: &Path,
    day: &Day,
    today: NaiveDate,
    since: Option<NaiveDate>,
) -> Result<bool> {
    let wanted = !day.ids.is_empty() || since.is_some_and(|since| since <= day.day);
    let Some(done) = target.outbox(root).collected(&target.organisation, day.day)? else { return Ok(wanted) };
    if !done.complete && (day.complete || day.day <= today) {
        return Ok(true);
    }
    // Ids only rise: what came in later is behind the rest.
    let last = |scanned: Option<Scanned>| scanned.map(|scanned| scanned.last);
    let grown = last(done.scanned) != last(day.scanned());
    if grown {
        let (day, account) = (day.day, &target.account);
        tracing::warn!(%day, account, "rows were received on this day that came in after its collection");
    }
    Ok(grown)
}

fn first_days(targets: &[Target], root: &Path) -> Result<HashMap<String, Option<NaiveDate>>> {
    let mut first_days = HashMap::new();
    for target in targets {
        if !first_days.contains_key(&target.account) {
            first_days.insert(target.account.clone(), target.outbox(root).first_day()?);
        }
    }
    Ok(first_days)
}
