//! What a supplier's deliveries use to be like, and whether the newest is.
//!
//! Measured are rows as delivered (stored, skipped and refused ones together) of a *period*: all accepted
//! files of a UTC day, for a large delivery may come in several; of a weekly supplier, all files within
//! `WEEKLY_SPAN` days, for they may be spread over a night or a weekend.
//!
//! The newest period is held against earlier ones that it can be compared with, at most `REFERENCE` of
//! them: their median and quartiles, which a single odd file does not move. Its range goes from below
//! the lower quartile to above the upper, by one and a half times what lies between them (`REACH`), on a
//! logarithmic scale: half as much is as odd as twice as much. It is never narrower than from the
//! median divided by `NARROWEST` to the median times it, nor than `FEW_ROWS` to either side.
//!
//! A daily supplier's weekends are held against weekends and its weekdays against weekdays. Where that makes
//! a day look odd, the same day of the week decides: who delivers on Mondays what happened on Sundays has
//! small Mondays. So a day is odd only if it is odd among all that it can be compared with. As long as there
//! are fewer than `ENOUGH` to compare with, nobody knows.
//!
//! A period that may still grow is judged when it has as many files as usual, or is over; until then it
//! can be too large, but not too small.

use chrono::{Datelike, Days, NaiveDate, Weekday};
use serde::Serialize;

use crate::exchange::receipt::Receipt;
use crate::exchange::settings::Rhythm;

/// Earlier periods that one is held against, at most …
const REFERENCE: usize = 12;
/// … and at least.
const ENOUGH: usize = 4;
/// How far the range goes beyond the quartiles, in distances between them.
const REACH: f64 = 1.5;
/// The narrowest range: the median divided by this to the median times this …
const NARROWEST: f64 = 1.75;
/// … and so many rows below and above it.
const FEW_ROWS: f64 = 10.0;
/// Days from a weekly delivery's first file on that belong to it.
const WEEKLY_SPAN: u64 = 4;

/// How large the newest period is, by what is usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Volume {
    /// Within the usual range.
    Usual,
    /// Below it.
    Low,
    /// Above it.
    High,
    /// There is too little to compare it with.
    #[default]
    Unknown,
}

impl Volume {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Volume::Usual => "usual",
            Volume::Low => "low",
            Volume::High => "high",
            Volume::Unknown => "unknown",
        }
    }

    /// Whether somebody should look into it.
    pub fn is_unusual(self) -> bool {
        matches!(self, Volume::Low | Volume::High)
    }
}

/// What a period was held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// All earlier periods.
    All,
    /// Days from Monday to Friday.
    Weekdays,
    /// Saturdays and Sundays.
    Weekends,
    /// The same day of the week.
    Weekday,
}

/// What is usual, in rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// What it is made of.
    pub compared_with: Comparison,
    /// How many periods these are.
    pub periods: usize,
    /// The lower quartile.
    pub lower_quartile: u64,
    /// The median.
    pub median: u64,
    /// The upper quartile.
    pub upper_quartile: u64,
    /// Fewer rows than this are low.
    pub low: u64,
    /// More rows than this are high.
    pub high: u64,
}

/// A verdict, and the numbers that it was found by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The verdict.
    pub volume: Volume,
    /// The first day of the period that was judged; absent if nothing has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<NaiveDate>,
    /// The period's rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// What is usual, where enough is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual: Option<Range>,
}

/// What came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Period {
    first: NaiveDate,
    files: u64,
    rows: u64,
}

impl Verdict {
    /// On a supplier's accepted deliveries, oldest first, as of `today`.
    pub fn of(accepted: &[&Receipt], rhythm: Rhythm, today: NaiveDate) -> Self {
        let periods = periods(accepted, rhythm);
        let Some((newest, earlier)) = periods.split_last() else { return Verdict::default() };
        let verdict = judge(newest, earlier, rhythm);
        if verdict.volume == Volume::High || !may_grow(newest, earlier, rhythm, today) {
            return verdict;
        }
        match earlier.split_last() {
            Some((newest, earlier)) => judge(newest, earlier, rhythm),
            None => Verdict { volume: Volume::Unknown, ..verdict },
        }
    }
}

/// A delivery's rows, as they were delivered.
pub fn rows(delivery: &Receipt) -> u64 {
    delivery.accepted.saturating_add(delivery.skipped).saturating_add(delivery.quarantined)
}

/// Days from a period's first one on that belong to it.
fn span(rhythm: Rhythm) -> Days {
    Days::new(if rhythm == Rhythm::Weekly { WEEKLY_SPAN } else { 1 })
}

fn periods(accepted: &[&Receipt], rhythm: Rhythm) -> Vec<Period> {
    let mut periods: Vec<Period> = Vec::new();
    for delivery in accepted {
        let (day, rows) = (delivery.taken_at.date_naive(), rows(delivery));
        match periods.last_mut() {
            Some(last) if !is_over(last, rhythm, day) => {
                last.files += 1;
                last.rows = last.rows.saturating_add(rows);
            }
            _ => periods.push(Period { first: day, files: 1, rows }),
        }
    }
    periods
}

/// Whether nothing that comes on `day` belongs to it.
fn is_over(period: &Period, rhythm: Rhythm, day: NaiveDate) -> bool {
    period.first.checked_add_days(span(rhythm)).is_some_and(|end| day >= end)
}

/// Whether more files of the period are to be expected.
fn may_grow(newest: &Period, earlier: &[Period], rhythm: Rhythm, today: NaiveDate) -> bool {
    let mut files: Vec<_> = earlier.iter().rev().take(REFERENCE).map(|period| period.files).collect();
    files.sort_unstable();
    let usual = files.get(files.len() / 2).copied().unwrap_or(1);
    newest.files < usual && !is_over(newest, rhythm, today)
}

fn judge(period: &Period, earlier: &[Period], rhythm: Rhythm) -> Verdict {
    let verdict = |volume, usual| Verdict { volume, day: Some(period.first), rows: Some(period.rows), usual };
    let ranges = comparisons(period.first, rhythm).filter_map(|with| range(period, earlier, with));
    let judged: Vec<_> = ranges.map(|range| (range.judge(period.rows), range)).collect();
    let usual = judged.iter().find(|(volume, _)| *volume == Volume::Usual);
    match usual.or(judged.first()) {
        Some((volume, range)) => verdict(*volume, Some(*range)),
        None => verdict(Volume::Unknown, None),
    }
}

/// What a period that begins on `day` is held against, one after the other.
fn comparisons(day: NaiveDate, rhythm: Rhythm) -> impl Iterator<Item = Comparison> {
    let comparisons: &[Comparison] = match rhythm {
        Rhythm::Weekly | Rhythm::Irregular => &[Comparison::All],
        Rhythm::Daily if is_weekend(day) => &[Comparison::Weekends, Comparison::Weekday],
        Rhythm::Daily => &[Comparison::Weekdays, Comparison::Weekday],
    };
    comparisons.iter().copied()
}

fn is_weekend(day: NaiveDate) -> bool {
    matches!(day.weekday(), Weekday::Sat | Weekday::Sun)
}

/// What is usual for a period; `None` if there is not enough to say.
fn range(period: &Period, earlier: &[Period], with: Comparison) -> Option<Range> {
    let compares = |other: &&Period| match with {
        Comparison::All => true,
        Comparison::Weekdays => !is_weekend(other.first),
        Comparison::Weekends => is_weekend(other.first),
        Comparison::Weekday => other.first.weekday() == period.first.weekday(),
    };
    let mut rows: Vec<_> = earlier.iter().rev().filter(compares).take(REFERENCE).map(|p| p.rows).collect();
    if rows.len() < ENOUGH {
        return None;
    }
    rows.sort_unstable();
    // Of empty files there is a logarithm, too.
    let logs: Vec<_> = rows.iter().map(|rows| (*rows as f64).ln_1p()).collect();
    let [lower, median, upper] = [0.25, 0.5, 0.75].map(|part| quantile(&logs, part));
    let back = |log: f64| log.exp_m1().max(0.0);
    let (reach, narrowest, middle) = (REACH * (upper - lower), NARROWEST.ln(), back(median).round());
    let low = back((lower - reach).min(median - narrowest)).min(middle - FEW_ROWS).max(0.0);
    let high = back((upper + reach).max(median + narrowest)).max(middle + FEW_ROWS);
    Some(Range {
        compared_with: with,
        periods: rows.len(),
        lower_quartile: back(lower).round() as u64,
        median: middle as u64,
        upper_quartile: back(upper).round() as u64,
        low: low.round() as u64,
        high: high.round() as u64,
    })
}

impl Range {
    fn judge(&self, rows: u64) -> Volume {
        match rows {
            rows if rows < self.low => Volume::Low,
            rows if rows > self.high => Volume::High,
            _ => Volume::Usual,
        }
    }
}

/// The value below which this part of the sorted values lies, between two of them if need be.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * sorted.len().saturating_sub(1) as f64;
    let value = |at: f64| sorted.get(at as usize).copied().unwrap_or_default();
    let (below, above) = (value(at.floor()), value(at.ceil()));
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests;
