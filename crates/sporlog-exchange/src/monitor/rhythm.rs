//! When a supplier's next delivery is due, and since when the supplier is late.
//!
//! | rhythm | due | late |
//! |---|---|---|
//! | daily | when the UTC day after the day of the last delivery is over | 12 hours after that |
//! | weekly | when the seventh UTC day after the day of the last delivery is over | 24 hours after that |
//! | irregular | never | never |
//!
//! Days count, not hours: who delivers at six in the morning one day and at ten in the evening of the next is on
//! time. The hours of grace are for transfers that are repeated by night. They decide when a supplier is
//! reported as late; it counts as late since the moment at which the delivery was due.
//!
//! ```text
//!  delivered      due: nothing came      late, since "due"
//! ──┬──────────┬──────────┬──────────────┬────────────────►
//!   Monday     Tuesday    Wednesday      Wednesday 12:00
//! ```
//!
//! For a supplier who never delivered, the time since which Sporlog knows it stands for the last delivery: when the
//! folder `.sporlog` was made in its home.

use std::fmt;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::Serialize;

use crate::settings::Rhythm;

/// Whether a supplier delivers as expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No delivery is missing.
    OnTime,
    /// The next delivery was due, and did not come.
    Late,
    /// Nothing was ever accepted.
    Never,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Deliveries that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The first day without a delivery.
    pub from: NaiveDate,
    /// The last day of the periods (days or weeks) that are over.
    pub to: NaiveDate,
    /// How many deliveries should have come meanwhile.
    pub deliveries: u64,
}

/// Whether a supplier is on time at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeliness {
    /// Whether the supplier is on time.
    pub state: State,
    /// Whether a delivery is missing for longer than the hours of grace.
    #[serde(skip)]
    pub is_missed: bool,
    /// When the next delivery has to be there; absent if none is expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// Since when a delivery is missing: the moment at which it was due. For a supplier who never delivered, the
    /// time since which Sporlog knows it, once a delivery is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_since: Option<DateTime<Utc>>,
    /// The deliveries that are missing, if the supplier is late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

impl Timeliness {
    /// The timeliness at `now` of a supplier whose last accepted delivery was claimed at `last`, and who is known
    /// since `known_since`. Where neither is known, a delivery is missed.
    pub fn of(
        rhythm: Rhythm,
        last: Option<DateTime<Utc>>,
        known_since: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        let since = last.or(known_since);
        let due = since.and_then(|since| due(rhythm, since));
        let is_overdue = due.is_some_and(|due| now >= due + grace(rhythm));
        let is_missed = is_overdue || (since.is_none() && rhythm != Rhythm::Irregular);
        let (state, late_since, missing) = match last {
            None => (State::Never, known_since.filter(|_| is_missed), None),
            Some(last) if is_overdue => (State::Late, due, missing(rhythm, last, now)),
            Some(_) => (State::OnTime, None, None),
        };
        Timeliness { state, is_missed, due, late_since, missing }
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
    TimeDelta::hours(if rhythm == Rhythm::Daily { 12 } else { 24 })
}

/// When the delivery after the one at `last` has to be there.
fn due(rhythm: Rhythm, last: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let day = last.date_naive().checked_add_days(Days::new(days(rhythm)? + 1))?;
    let due = day.and_time(NaiveTime::MIN).and_utc();
    // Nothing is due so late that the calendar ends before the hours of grace.
    due.checked_add_signed(grace(rhythm)).map(|_| due)
}

/// The deliveries of the periods that are over.
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
    fn stands(rhythm: Rhythm, last: &str, now: &str, late_since: Option<&str>) -> Timeliness {
        let timeliness = Timeliness::of(rhythm, Some(at(last)), None, at(now));
        let state = if late_since.is_some() { State::Late } else { State::OnTime };
        assert_eq!((timeliness.state, timeliness.late_since), (state, late_since.map(at)));
        timeliness
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
            let timeliness =
                Timeliness::of(rhythm, Some(DateTime::<Utc>::MAX_UTC), None, DateTime::<Utc>::MAX_UTC);
            assert_eq!((timeliness.state, timeliness.due), (State::OnTime, None));
        }
    }

    #[test]
    fn what_is_missing_is_counted_by_whole_periods() {
        let missing = |rhythm, now| {
            let last = at("2026-11-02T09:00:00Z");
            let missing = Timeliness::of(rhythm, Some(last), None, at(now)).missing;
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
            let timeliness = Timeliness::of(rhythm, None, Some(known), known);
            assert_eq!((timeliness.state, timeliness.late_since), (State::Never, None));
            let later = Timeliness::of(rhythm, None, Some(known), known + TimeDelta::days(30));
            let since = Some(known).filter(|_| rhythm != Rhythm::Irregular);
            assert_eq!((later.state, later.late_since), (State::Never, since));
        }
        let unknown = Timeliness::of(Rhythm::Daily, None, None, known);
        assert_eq!((unknown.state, unknown.late_since, unknown.due), (State::Never, None, None));
    }

    #[test]
    fn a_new_supplier_has_one_rhythm_to_deliver() {
        let known = at("2026-11-02T09:00:00Z");
        let missed = |rhythm, known, now| Timeliness::of(rhythm, None, known, at(now)).is_missed;
        assert!(!missed(Rhythm::Daily, Some(known), "2026-11-04T11:59:59Z"));
        assert!(missed(Rhythm::Daily, Some(known), "2026-11-04T12:00:00Z"));
        assert!(!missed(Rhythm::Weekly, Some(known), "2026-11-10T23:59:59Z"));
        assert!(missed(Rhythm::Weekly, Some(known), "2026-11-11T00:00:00Z"));
        assert!(!missed(Rhythm::Irregular, Some(known), "2036-11-11T00:00:00Z"));
        // Nobody can tell since when the supplier is known.
        assert_eq!(RHYTHMS.map(|rhythm| missed(rhythm, None, "2026-11-02T09:00:00Z")), [true, true, false]);
    }

    #[test]
    fn time_alone_never_brings_a_delivery() {
        for rhythm in RHYTHMS {
            for hour in 0..24 {
                let last = at("2026-02-27T00:30:00Z") + TimeDelta::hours(hour);
                let mut before = Timeliness::of(rhythm, Some(last), None, last);
                assert_eq!(before.state, State::OnTime);
                for minutes in (0..20 * 24 * 60).step_by(17) {
                    let now = last + TimeDelta::minutes(minutes);
                    let timeliness = Timeliness::of(rhythm, Some(last), None, now);
                    assert_eq!(timeliness.due, before.due);
                    if before.state == State::Late {
                        assert_eq!(
                            (timeliness.state, timeliness.late_since),
                            (State::Late, before.late_since)
                        );
                        let (earlier, later) = (before.missing.expect("counted"), timeliness.missing);
                        assert!(later.is_some_and(|m| m.deliveries >= earlier.deliveries && earlier.deliveries > 0));
                    }
                    assert_eq!(timeliness.is_missed, timeliness.state == State::Late);
                    assert!(timeliness.late_since.is_none_or(|since| since > last && since < now));
                    before = timeliness;
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
                    let state = |hours| {
                        let last = start + TimeDelta::hours(hours);
                        Timeliness::of(rhythm, Some(last), None, start + TimeDelta::hours(now)).state
                    };
                    assert!(state(earlier) == State::Late || state(later) == State::OnTime);
                }
            }
        }
    }
}
