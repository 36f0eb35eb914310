//! When a consent runs out, by the wall clock that disclosures are timed by.
//!
//! Altinn 2 writes local Norwegian time without a zone; Maskinporten writes a point in time, which
//! has to be put on that clock before the two can be compared. Norway's rule for summer time has
//! been the European Union's since 1996, and no consent is older.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, Weekday};
use serde_json::Value;

use crate::time;

/// Reads the end of a validity: a text in one of the forms seen, or seconds since 1970.
pub(super) fn end(claim: &Value) -> Option<i64> {
    match claim {
        Value::Number(seconds) => {
            let seconds = seconds.as_i64().or_else(|| seconds.as_f64().map(|s| s as i64))?;
            Some(time::micros(norwegian(DateTime::from_timestamp(seconds, 0)?.naive_utc())?))
        }
        Value::String(text) => end_of(text.trim()),
        _ => None,
    }
}

fn end_of(text: &str) -> Option<i64> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(time::micros(norwegian(instant.naive_utc())?));
    }
    if let Ok(local) = time::parse_iso(text) {
        return Some(local);
    }
    const FORMS: [&str; 3] = ["%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H.%M.%S", "%m/%d/%Y %H:%M:%S"];
    if let Some(local) = FORMS.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok()) {
        return Some(time::micros(local));
    }
    // A day is valid to its end.
    let day = ["%d.%m.%Y", "%Y-%m-%d"].iter().find_map(|form| NaiveDate::parse_from_str(text, form).ok())?;
    Some(time::micros(day.succ_opt()?.and_hms_opt(0, 0, 0)?) - 1)
}

/// What the clocks in Norway show at a point in time (UTC).
fn norwegian(utc: NaiveDateTime) -> Option<NaiveDateTime> {
    let summer = summer_time_turn(utc.year(), 3)?..summer_time_turn(utc.year(), 10)?;
    let hours = if summer.contains(&utc) { 2 } else { 1 };
    utc.checked_add_signed(TimeDelta::hours(hours))
}

/// The last Sunday of March or October, at 01:00 UTC.
fn summer_time_turn(year: i32, month: u32) -> Option<NaiveDateTime> {
    let last = NaiveDate::from_ymd_opt(year, month, 31)?;
    let since_sunday = last.weekday().days_since(Weekday::Sun);
    (last - TimeDelta::days(i64::from(since_sunday))).and_hms_opt(1, 0, 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ends_in_the_forms_seen() {
        for (claim, expected) in [
            (json!("18.06.2019 16:40:52"), "2019-06-18T16:40:52"),
            (json!("2019-06-18T16:40:52"), "2019-06-18T16:40:52"),
            (json!("06/18/2019 16:40:52"), "2019-06-18T16:40:52"),
            (json!("18.06.2019"), "2019-06-18T23:59:59.999999"),
            (json!("2019-06-18"), "2019-06-18T23:59:59.999999"),
            (json!("2026-07-18T07:57:15.639509+00:00"), "2026-07-18T09:57:15.639509"),
            (json!("2026-01-18T07:57:15Z"), "2026-01-18T08:57:15"),
            (json!(0), "1970-01-01T01:00:00"),
            (json!(1_752_825_571), "2025-07-18T09:59:31"),
        ] {
            assert_eq!(end(&claim).map(time::format_local).as_deref(), Some(expected), "{claim}");
        }
        for claim in [json!(""), json!("snart"), json!(true), json!(1e300), json!(i64::MAX)] {
            assert_eq!(end(&claim), None, "{claim}");
        }
        end(&json!("+262142-12-31T23:59:59Z"));
        end(&json!("31.12.262142"));
    }

    #[test]
    fn summer_time_begins_and_ends() {
        for (utc, local) in [
            ("2025-03-30T00:59:59Z", "2025-03-30T01:59:59"),
            ("2025-03-30T01:00:00Z", "2025-03-30T03:00:00"),
            ("2025-10-26T00:59:59Z", "2025-10-26T02:59:59"),
            ("2025-10-26T01:00:00Z", "2025-10-26T02:00:00"),
        ] {
            assert_eq!(end(&json!(utc)).map(time::format_local).as_deref(), Some(local));
        }
    }
}
