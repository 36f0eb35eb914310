//! Whether a supplier's newest day brought far fewer or far more rows than usual.
//!
//! All accepted files of a UTC day count together, with their rows as delivered (stored, skipped and refused). A
//! day is low with less than a third, and high with more than three times, the median of the last eight days with
//! deliveries of the same weekday. With fewer than four such days there is no verdict.
//!
//! Today may still get another file. Until today has as many files as the last day of the same weekday, today can
//! be high but not low, and the day before is judged instead.

use std::fmt;

use chrono::{Datelike, NaiveDate};
use serde::Serialize;

use crate::receipt::Receipt;

/// The most days of the same weekday that a day is compared with …
const DAYS: usize = 8;
/// … and the fewest.
const MIN_DAYS: usize = 4;
/// Less than the median divided by this is low; more than the median times this is high.
const FACTOR: u64 = 3;

/// How many rows a day brought, compared with the same weekday before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Volume {
    /// As many as usual.
    Usual,
    /// Less than a third of the median.
    Low,
    /// More than three times the median.
    High,
    /// There are too few days to compare with.
    #[default]
    Unknown,
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Volume {
    /// Whether somebody should look into the deliveries.
    pub fn is_unusual(self) -> bool {
        matches!(self, Volume::Low | Volume::High)
    }
}

/// The rows that a day is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usual {
    /// How many earlier days of the same weekday.
    pub days: usize,
    /// The median of those days' rows.
    pub median: u64,
    /// Fewer rows than this are low.
    pub low: u64,
    /// More rows than this are high.
    pub high: u64,
}

/// The verdict on a supplier's newest day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The verdict.
    pub volume: Volume,
    /// The day that was judged; absent if nothing has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<NaiveDate>,
    /// The rows of that day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The rows that the day was compared with; absent if there are too few days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual: Option<Usual>,
    /// What is unusual, in words; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// All that was accepted on one day.
struct Day {
    date: NaiveDate,
    files: usize,
    rows: u64,
}

impl Verdict {
    /// The verdict on a supplier's accepted deliveries, oldest first, as of `today`.
    pub fn of(accepted: &[&Receipt], today: NaiveDate) -> Self {
        let date = |receipt: &Receipt| receipt.taken_at.date_naive();
        let days = accepted.chunk_by(|a, b| date(a) == date(b)).filter_map(|files| {
            let rows = files.iter().fold(0u64, |rows, file| rows.saturating_add(file.rows()));
            Some(Day { date: date(files.first()?), files: files.len(), rows })
        });
        let mut days: Vec<_> = days.collect();
        while let Some(newest) = days.pop() {
            let same_weekday = days.iter().rev().filter(|day| day.date.weekday() == newest.date.weekday());
            let compared: Vec<_> = same_weekday.take(DAYS).collect();
            let verdict = judge(&newest, &compared);
            let expected_files = compared.first().map_or(1, |day| day.files);
            if newest.date < today || newest.files >= expected_files || verdict.volume == Volume::High {
                return verdict;
            }
        }
        Verdict::default()
    }
}

fn judge(day: &Day, compared: &[&Day]) -> Verdict {
    let verdict = Verdict { day: Some(day.date), rows: Some(day.rows), ..Verdict::default() };
    if compared.len() < MIN_DAYS {
        return verdict;
    }
    let median = median(compared.iter().map(|day| day.rows).collect());
    let usual = Usual {
        days: compared.len(),
        median,
        low: median.div_ceil(FACTOR),
        high: median.saturating_mul(FACTOR),
    };
    let (volume, relation) = match day.rows {
        rows if rows < usual.low => (Volume::Low, "less than a third of"),
        rows if rows > usual.high => (Volume::High, "more than three times"),
        _ => return Verdict { volume: Volume::Usual, usual: Some(usual), ..verdict },
    };
    let (rows, date, days) = (day.rows, day.date, usual.days);
    let weekday = date.format("%A");
    let text =
        format!("{rows} rows on {date}: {relation} {median}, the median of the last {days} {weekday}s");
    Verdict { volume, usual: Some(usual), text: Some(text), ..verdict }
}

/// The value in the middle, or between the two in the middle.
fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    let upper = values.len() / 2;
    if values.len().is_multiple_of(2) { at(upper.saturating_sub(1)).midpoint(at(upper)) } else { at(upper) }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::super::testing::{accepted, at};
    use super::*;

    /// A Monday.
    const START: &str = "2026-08-31T06:00:00Z";

    /// Deliveries on these days after [`START`], with so many rows.
    fn deliveries(days: impl IntoIterator<Item = (i64, u64)>) -> Vec<Receipt> {
        let one = |(day, rows)| accepted("a", &(at(START) + TimeDelta::days(day)).to_rfc3339(), rows);
        days.into_iter().map(one).collect()
    }

    /// The verdict on the last delivery's day, or `after` days later.
    fn verdict_after(deliveries: &[Receipt], after: i64) -> Verdict {
        let today = deliveries.last().map_or(at(START), |last| last.taken_at).date_naive();
        Verdict::of(&deliveries.iter().collect::<Vec<_>>(), today + TimeDelta::days(after))
    }

    #[track_caller]
    fn is(days: impl IntoIterator<Item = (i64, u64)>, expected: Volume) -> Verdict {
        let verdict = verdict_after(&deliveries(days), 30);
        assert_eq!(verdict.volume, expected, "{verdict:?}");
        verdict
    }

    /// So many weeks with 1,000 rows each Monday, and then one with `last`.
    fn mondays(weeks: i64, last: u64) -> impl Iterator<Item = (i64, u64)> {
        (0..weeks).map(|week| (7 * week, 1_000)).chain([(7 * weeks, last)])
    }

    #[test]
    fn nothing_is_said_until_there_are_four_days_to_compare_with() {
        assert_eq!(verdict_after(&[], 1), Verdict::default());
        let verdict = is([(0, 7)], Volume::Unknown);
        assert_eq!((verdict.rows, verdict.day), (Some(7), Some(at(START).date_naive())));
        assert_eq!((verdict.usual, verdict.text), (None, None));
        is(mondays(3, 0), Volume::Unknown);
        is(mondays(4, 0), Volume::Low);
        // Other weekdays do not count.
        is((0..6).map(|day| (day, 1_000)).chain([(7, 0)]), Volume::Unknown);
    }

    #[test]
    fn less_than_a_third_is_low_and_more_than_three_times_is_high() {
        for (rows, expected) in [
            (0, Volume::Low),
            (333, Volume::Low),
            (334, Volume::Usual),
            (1_000, Volume::Usual),
            (3_000, Volume::Usual),
            (3_001, Volume::High),
            (u64::MAX, Volume::High),
        ] {
            let usual = is(mondays(20, rows), expected).usual;
            assert_eq!(usual, Some(Usual { days: 8, median: 1_000, low: 334, high: 3_000 }));
        }
        let low = "20 rows on 2026-10-26: less than a third of 1000, the median of the last 8 Mondays";
        assert_eq!(is(mondays(8, 20), Volume::Low).text.as_deref(), Some(low));
        let high = "9000 rows on 2026-09-28: more than three times 1000, the median of the last 4 Mondays";
        assert_eq!(is(mondays(4, 9_000), Volume::High).text.as_deref(), Some(high));
        assert_eq!(is(mondays(8, 999), Volume::Usual).text, None);
    }

    #[test]
    fn the_median_is_of_the_last_eight() {
        // Of twenty weeks, the last eight have twice as many rows.
        let days = (0..20).map(|week| (7 * week, if week < 12 { 500 } else { 1_000 }));
        assert_eq!(
            is(days.chain([(140, 1_000)]), Volume::Usual).usual.map(|usual| usual.median),
            Some(1_000)
        );
        for (values, expected) in
            [(vec![], 0), (vec![7], 7), (vec![9, 1], 5), (vec![3, 1, 2], 2), (vec![4, 1, 2, 9], 3)]
        {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn files_of_a_day_count_together() {
        let in_two = |week: i64| [(7 * week, 500), (7 * week, 500)];
        let before = || (0..5).flat_map(in_two);
        is(before().chain([(35, 300)]), Volume::Low);
        is(before().chain([(35, 300), (35, 300)]), Volume::Usual);
        is(before().chain([(35, 1_000)]), Volume::Usual);
        // While today is not over, the second file may still come, and the day before is judged.
        let first = deliveries(before().chain([(35, 300)]));
        let verdict = verdict_after(&first, 0);
        assert_eq!((verdict.volume, verdict.rows), (Volume::Usual, Some(1_000)));
        assert_eq!(verdict_after(&first, 1).volume, Volume::Low);
        // Too much is too much at once, and so is too little in as many files as last time.
        assert_eq!(verdict_after(&deliveries(before().chain([(35, 5_000)])), 0).volume, Volume::High);
        let small = deliveries(before().chain([(35, 50), (35, 50)]));
        assert_eq!(verdict_after(&small, 0).volume, Volume::Low);
    }

    #[test]
    fn whatever_comes_the_numbers_make_sense() {
        // Any numbers will do, as long as they are the same each time.
        let mut seed = 1_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut judged = 0;
        for _ in 0..900 {
            let mut day = 0;
            let days: Vec<_> = (0..next(40))
                .map(|_| {
                    day += 7 * next(2) as i64;
                    let magnitude = next(20) as u32;
                    (day, next(10).saturating_mul(10_u64.saturating_pow(magnitude)))
                })
                .collect();
            let mut deliveries = deliveries(days);
            let verdict = verdict_after(&deliveries, 30);
            let Some(usual) = verdict.usual else {
                assert_eq!(verdict.volume, Volume::Unknown);
                continue;
            };
            judged += 1;
            assert!([usual.low, usual.median, usual.high].is_sorted(), "{usual:?}");
            assert_eq!(verdict.text.is_some(), verdict.volume.is_unusual());
            // More rows are never too few if fewer were not.
            if let Some(last) = deliveries.last_mut().filter(|_| verdict.volume != Volume::Low) {
                last.accepted = last.accepted.saturating_mul(2);
                assert_ne!(verdict_after(&deliveries, 30).volume, Volume::Low);
            }
        }
        assert!(judged > 300, "{judged}");
    }

    #[test]
    fn the_ends_of_the_calendar_do_no_harm() {
        for today in [NaiveDate::MIN, NaiveDate::MAX] {
            Verdict::of(&[&accepted("a", "2026-11-01T23:00:00Z", 1)], today);
        }
    }
}
