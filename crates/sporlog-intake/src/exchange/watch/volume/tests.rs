//! Suppliers of all habits.

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

/// The verdict when the last day is over, or `after` days later.
fn verdict_after(rhythm: Rhythm, deliveries: &[Receipt], after: i64) -> Verdict {
    let today = deliveries.last().map_or(at(START), |last| last.taken_at).date_naive();
    Verdict::of(&deliveries.iter().collect::<Vec<_>>(), rhythm, today + TimeDelta::days(after))
}

#[track_caller]
fn is(rhythm: Rhythm, days: impl IntoIterator<Item = (i64, u64)>, expected: Volume) -> Verdict {
    let verdict = verdict_after(rhythm, &deliveries(days), 30);
    assert_eq!(verdict.volume, expected, "{verdict:?}");
    verdict
}

/// What a supplier delivers every day of which it is known: more during the week, and never the same.
fn week(day: i64) -> u64 {
    let varied = 1_000 + (day * 37 % 11) as u64 * 20;
    if day % 7 >= 5 { varied / 20 } else { varied }
}

#[test]
fn until_there_is_enough_nobody_knows() {
    for rhythm in [Rhythm::Daily, Rhythm::Weekly, Rhythm::Irregular] {
        assert_eq!(verdict_after(rhythm, &[], 1), Verdict::default());
        let verdict = is(rhythm, [(0, 7)], Volume::Unknown);
        assert_eq!((verdict.rows, verdict.day), (Some(7), Some(at(START).date_naive())));
        assert_eq!(verdict.usual, None);
    }
    is(Rhythm::Daily, [(0, 1_000), (1, 1_000), (2, 1_000), (3, 0)], Volume::Unknown);
    is(Rhythm::Daily, [(0, 1_000), (1, 1_000), (2, 1_000), (3, 1_000), (4, 0)], Volume::Low);
    // The first weekends of all.
    is(Rhythm::Daily, (0..6).map(|day| (day, week(day))), Volume::Unknown);
    is(Rhythm::Daily, (0..13).map(|day| (day, week(day))), Volume::Unknown);
    is(Rhythm::Daily, (0..20).map(|day| (day, week(day))), Volume::Usual);
}

#[test]
fn a_drop_and_a_jump_are_seen() {
    let steady = |last| (0..20).map(|week| (7 * week, 1_000)).chain([(140, last)]);
    for (rows, expected) in [
        (0, Volume::Low),
        (500, Volume::Low),
        (600, Volume::Usual),
        (1_000, Volume::Usual),
        (1_700, Volume::Usual),
        (1_800, Volume::High),
        (u64::MAX, Volume::High),
    ] {
        is(Rhythm::Weekly, steady(rows), expected);
        is(Rhythm::Irregular, steady(rows), expected);
    }
    let verdict = is(Rhythm::Weekly, steady(0), Volume::Low);
    let usual = verdict.usual.expect("known");
    assert_eq!((usual.compared_with, usual.periods), (Comparison::All, REFERENCE));
    assert_eq!((usual.lower_quartile, usual.median, usual.upper_quartile), (1_000, 1_000, 1_000));
    assert_eq!((usual.low, usual.high), (571, 1_751));
}

#[test]
fn who_varies_has_a_wider_range() {
    let varied = |last| (0..12).map(|n| (n, 500 * (1 + n as u64 % 4))).chain([(12, last)]);
    is(Rhythm::Irregular, varied(400), Volume::Usual);
    is(Rhythm::Irregular, varied(3_500), Volume::Usual);
    is(Rhythm::Irregular, varied(20), Volume::Low);
    is(Rhythm::Irregular, varied(50_000), Volume::High);
}

#[test]
fn one_odd_file_does_not_move_the_range() {
    for odd in [0, 1_000_000] {
        let days = |last| (0..12).map(move |n| (n, if n == 5 { odd } else { 1_000 })).chain([(12, last)]);
        is(Rhythm::Irregular, days(1_000), Volume::Usual);
        is(Rhythm::Irregular, days(500), Volume::Low);
        is(Rhythm::Irregular, days(2_000), Volume::High);
    }
}

#[test]
fn a_few_rows_more_or_less_are_nothing() {
    let small = |last| (0..12).map(|n| (n, 2)).chain([(12, last)]);
    is(Rhythm::Irregular, small(0), Volume::Usual);
    is(Rhythm::Irregular, small(12), Volume::Usual);
    is(Rhythm::Irregular, small(13), Volume::High);
    let empty = (0..12).map(|n| (n, 0));
    is(Rhythm::Irregular, empty.clone(), Volume::Usual);
    is(Rhythm::Irregular, empty.chain([(12, 500)]), Volume::High);
}

#[test]
fn weekends_are_held_against_weekends() {
    for day in 21..70 {
        let before = || (0..day).map(|day| (day, week(day)));
        is(Rhythm::Daily, before(), Volume::Usual);
        is(Rhythm::Daily, before().chain([(day, week(day))]), Volume::Usual);
        is(Rhythm::Daily, before().chain([(day, week(day) / 4)]), Volume::Low);
        is(Rhythm::Daily, before().chain([(day, week(day) * 4)]), Volume::High);
    }
    let saturday = is(Rhythm::Daily, (0..27).map(|day| (day, week(day))), Volume::Usual);
    assert_eq!(saturday.usual.map(|usual| usual.compared_with), Some(Comparison::Weekends));
    // A weekend that is like a weekday is odd, though a weekday would not be.
    is(Rhythm::Daily, (0..26).map(|day| (day, week(day))).chain([(26, 1_000)]), Volume::High);
}

#[test]
fn who_delivers_the_day_after_has_small_mondays() {
    let shifted = |day: i64| (day, week((day + 6) % 7));
    for day in 35..70 {
        let verdict = is(Rhythm::Daily, (0..=day).map(shifted), Volume::Usual);
        let with = verdict.usual.map(|usual| usual.compared_with);
        assert_eq!(with == Some(Comparison::Weekday), day % 7 == 0, "{day}");
    }
    is(Rhythm::Daily, (0..35).map(shifted).chain([(35, 0)]), Volume::Low);
}

#[test]
fn files_of_a_day_count_together() {
    let in_two = |day| [(day, 500), (day, 500)];
    let before = || (0..5).flat_map(in_two);
    is(Rhythm::Irregular, before().chain([(5, 500)]), Volume::Low);
    is(Rhythm::Irregular, before().chain([(5, 500), (5, 500)]), Volume::Usual);
    is(Rhythm::Irregular, before().chain([(5, 1_000)]), Volume::Usual);
    // While the day is not over, the second may still come, and the day before is what is known.
    let first = deliveries(before().chain([(5, 500)]));
    let verdict = verdict_after(Rhythm::Irregular, &first, 0);
    assert_eq!((verdict.volume, verdict.rows), (Volume::Usual, Some(1_000)));
    assert_eq!(verdict_after(Rhythm::Irregular, &first, 1).volume, Volume::Low);
    // Too much is too much at once, and so is too little in as many files as usual.
    let large = deliveries(before().chain([(5, 5_000)]));
    assert_eq!(verdict_after(Rhythm::Irregular, &large, 0).volume, Volume::High);
    let small = deliveries(before().chain([(5, 50), (5, 50)]));
    assert_eq!(verdict_after(Rhythm::Irregular, &small, 0).volume, Volume::Low);
}

#[test]
fn a_week_may_be_spread_over_some_days() {
    // On Fridays, Saturdays and Mondays.
    let spread = |week: i64| [(7 * week + 4, 300), (7 * week + 5, 300), (7 * week + 7, 400)];
    let verdict = is(Rhythm::Weekly, (0..8).flat_map(spread), Volume::Usual);
    assert_eq!(verdict.usual.map(|usual| usual.median), Some(1_000));
    is(Rhythm::Weekly, (0..8).flat_map(spread).chain([(60, 300), (61, 200)]), Volume::Low);
}

#[test]
fn whatever_comes_the_numbers_make_sense() {
    // Any numbers will do, as long as they are the same each time.
    let mut seed = 1_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for rhythm in [Rhythm::Daily, Rhythm::Weekly, Rhythm::Irregular] {
        for _ in 0..300 {
            let mut day = 0;
            let days: Vec<_> = (0..next(40))
                .map(|_| {
                    day += next(4) as i64;
                    let magnitude = next(20) as u32;
                    (day, next(10).saturating_mul(10_u64.saturating_pow(magnitude)))
                })
                .collect();
            let mut deliveries = deliveries(days);
            let verdict = verdict_after(rhythm, &deliveries, 30);
            let Some(usual) = verdict.usual else {
                assert_eq!(verdict.volume, Volume::Unknown);
                continue;
            };
            let ordered = [usual.low, usual.lower_quartile, usual.median, usual.upper_quartile, usual.high];
            assert!(ordered.is_sorted(), "{usual:?}");
            assert_eq!(verdict.volume, usual.judge(verdict.rows.expect("judged")));
            // What the median is of is never odd.
            assert_eq!(usual.judge(usual.median), Volume::Usual);
            // More rows are never too few if fewer were not.
            if let Some(last) = deliveries.last_mut().filter(|_| verdict.volume != Volume::Low) {
                last.accepted = last.accepted.saturating_mul(2);
                assert_ne!(verdict_after(rhythm, &deliveries, 30).volume, Volume::Low);
            }
        }
    }
}
