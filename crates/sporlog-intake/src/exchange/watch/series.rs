//! What came over time: a point for each day, or for each week of a weekly supplier, also for those on
//! which nothing came.

use chrono::{Datelike, Days, NaiveDate};
use serde::Serialize;

use super::volume::rows;
use crate::exchange::receipt::{Outcome, Receipt};
use crate::exchange::settings::Rhythm;

/// Days that a series goes back.
const DAYS: u64 = 35;
/// Weeks that a weekly supplier's goes back.
const WEEKS: u64 = 26;

/// A point's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// A UTC day.
    Day,
    /// A week from Monday on, in UTC.
    Week,
}

/// What came over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Series {
    /// How long a point is.
    pub step: Step,
    /// The points, oldest first; the last is that of today, and not over yet.
    pub points: Vec<Point>,
}

/// What came on a day, or in a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The day, or the week's first.
    pub day: NaiveDate,
    /// Accepted deliveries.
    pub deliveries: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of their rows that were refused.
    pub quarantined: u64,
    /// Files that were refused whole.
    pub refused: u64,
}

impl Point {
    fn empty(day: NaiveDate) -> Self {
        Point { day, deliveries: 0, rows: 0, bytes: 0, quarantined: 0, refused: 0 }
    }

    fn add(&mut self, delivery: &Receipt) {
        match delivery.outcome {
            Outcome::Accepted => {
                self.deliveries += 1;
                self.rows = self.rows.saturating_add(rows(delivery));
                self.bytes = self.bytes.saturating_add(delivery.bytes);
                self.quarantined = self.quarantined.saturating_add(delivery.quarantined);
            }
            Outcome::Refused => self.refused += 1,
            Outcome::Repeated => {}
        }
    }
}

impl Series {
    /// Of a supplier's deliveries, up to `today`.
    pub fn of(deliveries: &[Receipt], rhythm: Rhythm, today: NaiveDate) -> Self {
        let (step, length, points) = match rhythm {
            Rhythm::Weekly => (Step::Week, 7, WEEKS),
            Rhythm::Daily | Rhythm::Irregular => (Step::Day, 1, DAYS),
        };
        let newest = match step {
            Step::Day => Some(today),
            Step::Week => today.checked_sub_days(Days::new(today.weekday().num_days_from_monday().into())),
        };
        let day = |back: u64| newest?.checked_sub_days(Days::new(back * length));
        let mut points: Vec<_> = (0..points).rev().filter_map(day).map(Point::empty).collect();
        let Some(first) = points.first().map(|point| point.day) else { return Series { step, points } };
        for delivery in deliveries {
            let after = u64::try_from((delivery.taken_at.date_naive() - first).num_days());
            let at = after.ok().and_then(|days| usize::try_from(days / length).ok());
            if let Some(point) = at.and_then(|at| points.get_mut(at)) {
                point.add(delivery);
            }
        }
        Series { step, points }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepted, at, delivery};
    use super::*;

    #[test]
    fn each_day_has_a_point() {
        let deliveries = [
            accepted("a", "2026-09-01T06:00:00Z", 99),
            accepted("a", "2026-10-07T06:00:00Z", 99),
            accepted("a", "2026-10-08T00:00:00Z", 1),
            accepted("a", "2026-11-10T06:00:00Z", 10),
            delivery("a", "2026-11-10T07:00:00Z", Outcome::Accepted, 20, 3),
            delivery("a", "2026-11-10T08:00:00Z", Outcome::Refused, 5, 0),
            delivery("a", "2026-11-10T09:00:00Z", Outcome::Repeated, 5, 0),
            accepted("a", "2026-11-11T23:59:59Z", 7),
            accepted("a", "2026-11-12T00:00:00Z", 99),
        ];
        let today = at("2026-11-11T12:00:00Z").date_naive();
        for rhythm in [Rhythm::Daily, Rhythm::Irregular] {
            let Series { step, points } = Series::of(&deliveries, rhythm, today);
            assert_eq!((step, points.len()), (Step::Day, 35));
            assert!(points.windows(2).all(|pair| pair[0].day.succ_opt() == Some(pair[1].day)));
            let rows: Vec<_> = points.iter().filter(|p| p.rows > 0).map(|p| (p.day.day(), p.rows)).collect();
            assert_eq!(rows, [(8, 1), (10, 33), (11, 7)]);
            let tenth = points.iter().find(|point| point.day.to_string() == "2026-11-10").expect("there");
            let expected =
                Point { day: tenth.day, deliveries: 2, rows: 33, bytes: 3_000, quarantined: 3, refused: 1 };
            assert_eq!(*tenth, expected);
        }
    }

    #[test]
    fn weeks_begin_on_mondays() {
        let deliveries = [
            accepted("a", "2026-11-01T23:00:00Z", 1),
            accepted("a", "2026-11-02T00:00:00Z", 10),
            accepted("a", "2026-11-08T23:59:59Z", 100),
            accepted("a", "2026-11-09T00:00:00Z", 1_000),
        ];
        for today in ["2026-11-09T00:00:00Z", "2026-11-15T23:00:00Z"] {
            let Series { step, points } = Series::of(&deliveries, Rhythm::Weekly, at(today).date_naive());
            assert_eq!((step, points.len()), (Step::Week, 26));
            let rows: Vec<_> = points.iter().rev().take(4).map(|point| point.rows).collect();
            assert_eq!(rows, [1_000, 110, 1, 0]);
        }
    }

    #[test]
    fn the_ends_of_the_calendar_do_no_harm() {
        for today in [NaiveDate::MIN, NaiveDate::MAX] {
            for rhythm in [Rhythm::Daily, Rhythm::Weekly] {
                Series::of(&[accepted("a", "2026-11-01T23:00:00Z", 1)], rhythm, today);
            }
        }
    }
}
