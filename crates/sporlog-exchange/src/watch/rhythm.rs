//! When a supplier's next delivery is due, and since when it is late.
//!
//! | rhythm | due | late |
//! |---|---|---|
//! | daily | when the UTC day after the one of the last delivery is over | 12 hours after that |
//! | weekly | when the seventh UTC day after the one of the last delivery is over | 24 hours after that |
//! | irregular | never | never |
//!
//! What is due is a matter of days, not of the hour: who delivers at six in the morning one day and at ten
//! in the evening the next is on time. The hours of grace are for nights in which a transfer is repeated,
//! so that nobody is woken for what comes by itself; they decide when it is said that a supplier is
//! late, and not since when it is: that is the moment at which the delivery was due.
//!
//! ```text
//!  delivered      due: nothing came      late, since "due"
//! ──┬──────────┬──────────┬──────────────┬────────────────►
//!   Monday     Tuesday    Wednesday      Wednesday 12:00
//! ```

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::Serialize;

use crate::settings::Rhythm;

/// Hours of grace for a daily delivery …
const DAILY_GRACE: i64 = 12;
/// … and for a weekly one.
const WEEKLY_GRACE: i64 = 24;

/// Whether a supplier delivers as it is expected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing is missing.
    OnTime,
    /// The next delivery was due, and did not come.
    Late,
    /// Nothing has come yet.
    Never,
}

impl State {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            State::OnTime => "on-time",
            State::Late => "late",
            State::Never => "never",
        }
    }
}

/// Deliveries that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The first day that nothing came on.
    pub from: NaiveDate,
    /// The last day of the periods (days or weeks) that are over.
    pub to: NaiveDate,
    /// How many deliveries should have come meanwhile.
    pub deliveries: u64,
}

/// How a supplier stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is late.
    pub state: State,
    /// When the next delivery is expected to be there; the past if it is overdue.
    pub due: Option<DateTime<Utc>>,
    /// Since when a delivery is missing: since it was due; of one who never delivered, since it is known.
    pub late_since: Option<DateTime<Utc>>,
    /// What is missing, of one who is late.
    pub missing: Option<Missing>,
}

impl Standing {
    /// How one stands at `now` whose last delivery was accepted at `last`, and who is known since
    /// `known_since`.
    pub fn of(
        rhythm: Rhythm,
        last: Option<DateTime<Utc>>,
        known_since: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        let Some(last) = last else {
            let due = known_since.and_then(|known| due(rhythm, known));
            return Standing { state: State::Never, due, late_since: known_since, missing: None };
        };
        let due = due(rhythm, last);
        match due {
            Some(due) if now >= due + grace(rhythm) => Standing {
                state: State::Late,
                due: Some(due),
                late_since: Some(due),
                missing: missing(rhythm, last, now),
            },
            due => Standing { state: State::OnTime, due, late_since: None, missing: None },
        }
    }
}

/// The days from one delivery to the next.
fn days(rhythm: Rhythm) -> Option<u64> {
    match rhythm {
        Rhythm::Daily => Some(1),
        Rhythm::Weekly => Some(7),
        Rhythm::Irregular => None,
    }
}

fn grace(rhythm: Rhythm) -> TimeDelta {
    match rhythm {
        Rhythm::Daily => TimeDelta::hours(DAILY_GRACE),
        Rhythm::Weekly | Rhythm::Irregular => TimeDelta::hours(WEEKLY_GRACE),
    }
}

/// When the delivery after that of `last` has to be there.
fn due(rhythm: Rhythm, last: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // The end of the calendar is never due.
    let after = last.date_naive().checked_add_days(Days::new(days(rhythm)? + 1))?;
    let due = after.and_time(NaiveTime::MIN).and_utc();
    due.checked_add_signed(grace(rhythm)).map(|_| due)
}

/// The periods that are over without a delivery.
fn missing(rhythm: Rhythm, last: DateTime<Utc>, now: DateTime<Utc>) -> Option<Missing> {
    let (days, last) = (days(rhythm)?, last.date_naive());
    let over = u64::try_from((now.date_naive() - last).num_days() - 1).ok()?;
    let deliveries = over / days;
    let day = |after: u64| last.checked_add_days(Days::new(after));
    Some(Missing { from: day(1)?, to: day(deliveries * days)?, deliveries })
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    const RHYTHMS: [Rhythm; 3] = [Rhythm::Daily, Rhythm::Weekly, Rhythm::Irregular];

    #[track_caller]
    fn stands(rhythm: Rhythm, last: &str, now: &str, late_since: Option<&str>) -> Standing {
        let standing = Standing::of(rhythm, Some(at(last)), None, at(now));
        let state = if late_since.is_some() { State::Late } else { State::OnTime };
        assert_eq!((standing.state, standing.late_since), (state, late_since.map(at)));
        standing
    }

    #[test]
    fn a_table_of_cases() {
        use Rhythm::{Daily, Irregular, Weekly};
        let monday = ["2026-11-02T00:00:00Z", "2026-11-02T09:00:00Z", "2026-11-02T23:59:59.999Z"];
        for last in monday {
            let wednesday = Some("2026-11-04T00:00:00Z");
            stands(Daily, last, "2026-11-02T23:59:59.999Z", None);
            stands(Daily, last, "2026-11-03T23:59:59Z", None);
            stands(Daily, last, "2026-11-04T11:59:59.999Z", None);
            stands(Daily, last, "2026-11-04T12:00:00Z", wednesday);
            stands(Daily, last, "2027-11-04T12:00:00Z", wednesday);
            let next_tuesday = Some("2026-11-10T00:00:00Z");
            stands(Weekly, last, "2026-11-09T23:59:59Z", None);
            stands(Weekly, last, "2026-11-10T23:59:59.999Z", None);
            stands(Weekly, last, "2026-11-11T00:00:00Z", next_tuesday);
            stands(Irregular, last, "2036-11-11T00:00:00Z", None);
        }
        // A clock that has gone back makes nobody late.
        stands(Daily, "2026-11-02T09:00:00Z", "2026-10-01T00:00:00Z", None);
        // Nor does the end of the calendar.
        for rhythm in RHYTHMS {
            let standing =
                Standing::of(rhythm, Some(DateTime::<Utc>::MAX_UTC), None, DateTime::<Utc>::MAX_UTC);
            assert_eq!((standing.state, standing.due), (State::OnTime, None));
        }
    }

    #[test]
    fn what_is_missing_is_counted_by_whole_periods() {
        let missing = |rhythm, now| {
            let last = at("2026-11-02T09:00:00Z");
            let missing = Standing::of(rhythm, Some(last), None, at(now)).missing;
            missing.map(|m| (m.from.to_string(), m.to.to_string(), m.deliveries))
        };
        let days = |from: &str, to: &str, n| Some((from.to_owned(), to.to_owned(), n));
        assert_eq!(missing(Rhythm::Daily, "2026-11-04T11:00:00Z"), None);
        assert_eq!(missing(Rhythm::Daily, "2026-11-04T13:00:00Z"), days("2026-11-03", "2026-11-03", 1));
        assert_eq!(missing(Rhythm::Daily, "2026-11-07T01:00:00Z"), days("2026-11-03", "2026-11-06", 4));
        assert_eq!(missing(Rhythm::Weekly, "2026-11-11T01:00:00Z"), days("2026-11-03", "2026-11-09", 1));
        assert_eq!(missing(Rhythm::Weekly, "2026-11-17T01:00:00Z"), days("2026-11-03", "2026-11-16", 2));
    }

    #[test]
    fn one_who_never_delivered_is_missed_since_it_is_known() {
        let known = at("2026-11-02T09:00:00Z");
        for rhythm in RHYTHMS {
            let standing = Standing::of(rhythm, None, Some(known), known);
            assert_eq!((standing.state, standing.late_since), (State::Never, Some(known)));
        }
        let unknown = Standing::of(Rhythm::Daily, None, None, known);
        assert_eq!((unknown.state, unknown.late_since, unknown.due), (State::Never, None, None));
    }

    #[test]
    fn time_alone_never_brings_a_delivery() {
        for rhythm in RHYTHMS {
            for hour in 0..24 {
                let last = at("2026-02-27T00:30:00Z") + TimeDelta::hours(hour);
                let mut before = Standing::of(rhythm, Some(last), None, last);
                assert_eq!(before.state, State::OnTime);
                for minutes in (0..20 * 24 * 60).step_by(17) {
                    let now = last + TimeDelta::minutes(minutes);
                    let standing = Standing::of(rhythm, Some(last), None, now);
                    assert_eq!(standing.due, before.due);
                    if before.state == State::Late {
                        assert_eq!((standing.state, standing.late_since), (State::Late, before.late_since));
                        let (earlier, later) = (before.missing.expect("counted"), standing.missing);
                        assert!(later.is_some_and(|m| m.deliveries >= earlier.deliveries && earlier.deliveries > 0));
                    }
                    assert!(standing.late_since.is_none_or(|since| since > last && since < now));
                    before = standing;
                }
                let late = rhythm != Rhythm::Irregular;
                assert_eq!(before.state == State::Late, late, "{rhythm:?}");
            }
        }
    }

    #[test]
    fn a_later_delivery_never_makes_it_worse() {
        let start = at("2026-11-01T00:00:00Z");
        for rhythm in RHYTHMS {
            for (earlier, later) in [(0, 1), (5, 23), (23, 25), (1, 200)] {
                for now in 200..400 {
                    let standing = |hours| {
                        let last = start + TimeDelta::hours(hours);
                        Standing::of(rhythm, Some(last), None, start + TimeDelta::hours(now)).state
                    };
                    assert!(standing(earlier) == State::Late || standing(later) == State::OnTime);
                }
            }
        }
    }
}
