//! The times that `--from` and `--to` take.
//!
//! A time is a local one, as the records have it: `2026-11-03` or `2026-11-03T08:30`. From a date
//! on means from its first moment on, and up to a date means the whole of that day; up to a time
//! of day means what was before it.

use chrono::{Days, NaiveDate, NaiveTime};
use sporlog_record::time::{self, TimeError, micros, parse_iso};

/// Reads `--from`: the first moment that is meant, in microseconds.
pub fn parse_from(text: &str) -> Result<i64, String> {
    match time::parse_date(text) {
        Some(date) => Ok(micros(date.and_time(NaiveTime::MIN))),
        None => moment(text),
    }
}

/// Reads `--to`: the first moment that is no longer meant, in microseconds.
pub fn parse_to(text: &str) -> Result<i64, String> {
    match time::parse_date(text) {
        Some(date) => {
            let next = date.checked_add_days(Days::new(1)).ok_or("the calendar ends before this")?;
            Ok(micros(next.and_time(NaiveTime::MIN)))
        }
        None => moment(text),
    }
}

/// Fails if no moment is meant by both.
pub fn check(from: Option<i64>, to: Option<i64>) -> anyhow::Result<()> {
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        anyhow::bail!("--from is later than --to, or the same");
    }
    Ok(())
}

/// Reads a date.
pub fn parse_date(text: &str) -> Result<NaiveDate, String> {
    time::parse_date(text).ok_or_else(|| "a date such as 2026-11-03 is expected".to_owned())
}

/// Reads a month, such as `2026-11`.
pub fn parse_month(text: &str) -> Result<String, String> {
    match time::parse_date(&format!("{text}-01")) {
        Some(_) => Ok(text.to_owned()),
        None => Err("a month such as 2026-11 is expected".to_owned()),
    }
}

fn moment(text: &str) -> Result<i64, String> {
    parse_iso(text).map_err(|error| match error {
        TimeError::Zone => "a local time without a zone is expected, as the records have it".to_owned(),
        TimeError::NoSuchTime => error.to_string(),
        _ => "a date or a local time is expected, such as 2026-11-03 or 2026-11-03T08:30".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn a_date_is_the_whole_day() {
        let (from, to) = (parse_from("2026-11-03").expect("a date"), parse_to("2026-11-03").expect("a date"));
        assert_eq!(to - from, DAY);
        assert_eq!(from % DAY, 0);
    }

    #[test]
    fn a_time_is_a_moment_on_either_side() {
        assert_eq!(parse_from("2026-11-03T08:30:00.5"), parse_to("2026-11-03T08:30:00.5"));
        assert_eq!(
            parse_from("2026-11-03T08:30").expect("a time") - parse_from("2026-11-03").expect("a date"),
            (8 * 60 + 30) * 60_000_000
        );
    }

    #[test]
    fn what_is_no_time_is_said_to_be_none() {
        for wrong in
            ["", "yesterday", "2026-13-01", "2026-02-30", "2026-1-3", "+2026-01-03", "2026-11-03T25:00"]
        {
            assert!(parse_from(wrong).is_err(), "{wrong}");
            assert!(parse_to(wrong).is_err(), "{wrong}");
        }
        assert!(parse_from("2026-11-03T08:30:00Z").is_err_and(|e| e.contains("zone")));
    }

    #[test]
    fn months_have_two_digits() {
        assert_eq!(parse_month("2026-11").as_deref(), Ok("2026-11"));
        for wrong in ["2026", "2026-13", "2026-1", "2026-11-01", "11-2026"] {
            assert!(parse_month(wrong).is_err(), "{wrong}");
        }
    }
}
