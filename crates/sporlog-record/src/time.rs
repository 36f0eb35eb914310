//! Local wall-clock times, as the three documents write them.
//!
//! None of the documents gives a zone, so none is assumed: a time is a count of microseconds
//! since 1970 by the clock on the wall, exact where the text is (what is finer is cut off). A
//! text that does carry a zone is turned down, for which of the two was meant cannot be known.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};

/// A date alone has no more characters than this in any form, and with a time of day it has more.
pub const DATE_CHARACTERS: usize = 11;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Why a text is no local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Nothing is there.
    #[error("the time is empty")]
    Empty,
    /// The text carries a zone.
    #[error("the time carries a zone, where a local time without one is expected")]
    Zone,
    /// No calendar or clock shows it, such as 31 February or 25:00.
    #[error("there is no such date or time of day")]
    NoSuchTime,
    /// The text is a date alone, where a time of day belongs to it.
    #[error("there is only a date, where a time of day is expected, too")]
    DateOnly,
    /// The text is written otherwise than expected.
    #[error("this is not written as a time, such as 2018-10-19T12:24:21.675")]
    Format,
}

/// Reads an ISO 8601 local date-time: `2018-10-19T12:24:21.675`, with a `T` or a space, with or
/// without seconds, with up to nine decimals.
pub fn parse_iso(text: &str) -> Result<i64, TimeError> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err(TimeError::Empty);
    }
    let (date, rest) = iso_date(bytes)?;
    if rest.is_empty() {
        return Err(TimeError::DateOnly);
    }
    Ok(date + iso_time_of_day(rest)?)
}

/// Reads a date: `2018-10-19`, with all of its digits.
pub fn parse_date(text: &str) -> Option<NaiveDate> {
    let (midnight, rest) = iso_date(text.as_bytes()).ok()?;
    DateTime::from_timestamp_micros(midnight).filter(|_| rest.is_empty()).map(|day| day.date_naive())
}

/// Reads a time in any form that a revision log may hold: those of [`parse_iso`], a bare date,
/// and Oracle's `10-NOV-2021 04.03.47.056000000` (English or Danish month, with or without a
/// time of day, on the 24-hour clock or with AM or PM). Spaces around it do not matter.
pub fn parse_local(text: &str) -> Result<i64, TimeError> {
    let bytes = text.as_bytes().trim_ascii();
    if bytes.is_empty() {
        return Err(TimeError::Empty);
    }
    // An ISO date has its first hyphen behind four digits, an Oracle date behind one or two.
    if matches!(bytes, [_, b'-', ..] | [_, _, b'-', ..]) {
        let (date, rest) = oracle_date(bytes)?;
        return if rest.is_empty() { Ok(date) } else { Ok(date + oracle_time_of_day(rest)?) };
    }
    let (date, rest) = iso_date(bytes)?;
    if rest.is_empty() { Ok(date) } else { Ok(date + iso_time_of_day(rest)?) }
}

/// Writes a local time as ISO 8601, with as many decimals as it needs: none, three or six.
pub fn format_local(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc());
    format!("{:?}", time.unwrap_or(if micros < 0 { NaiveDateTime::MIN } else { NaiveDateTime::MAX }))
}

/// A calendar's local time in microseconds, as the functions above give it.
pub fn micros(time: NaiveDateTime) -> i64 {
    time.and_utc().timestamp_micros()
}

/// Midnight of a day.
fn midnight(year: u32, month: u32, day: u32) -> Result<i64, TimeError> {
    const EPOCH: i64 = 719_163;
    let date = NaiveDate::from_ymd_opt(year as i32, month, day).ok_or(TimeError::NoSuchTime)?;
    Ok((i64::from(date.num_days_from_ce()) - EPOCH) * DAY)
}

/// A time of day within its day.
fn since_midnight(hour: u32, minute: u32, second: u32, micros: u32) -> Result<i64, TimeError> {
    if hour > 23 || minute > 59 || second > 59 {
        return Err(TimeError::NoSuchTime);
    }
    Ok(i64::from(hour * 3600 + minute * 60 + second) * SECOND + i64::from(micros))
}

/// `2018-10-19`, and what follows.
fn iso_date(bytes: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, rest @ ..] = bytes else {
        return Err(TimeError::Format);
    };
    let year = pair(*y1, *y2)? * 100 + pair(*y3, *y4)?;
    Ok((midnight(year, pair(*m1, *m2)?, pair(*d1, *d2)?)?, rest))
}

/// `T12:24:21.675`, to the end.
fn iso_time_of_day(bytes: &[u8]) -> Result<i64, TimeError> {
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, rest @ ..] = bytes else {
        return Err(zone_or_format(bytes));
    };
    let (hour, minute) = (pair(*h1, *h2)?, pair(*m1, *m2)?);
    let (second, micros, rest) = seconds(rest, b":")?;
    if !rest.is_empty() {
        return Err(zone_or_format(rest));
    }
    since_midnight(hour, minute, second, micros)
}

/// `10-NOV-2021`, and what follows.
fn oracle_date(bytes: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    let (day, rest) = one_or_two_digits(bytes)?;
    let [b'-', m1, m2, m3, b'-', y1, y2, y3, y4, rest @ ..] = rest else {
        return Err(TimeError::Format);
    };
    let year = pair(*y1, *y2)? * 100 + pair(*y3, *y4)?;
    Ok((midnight(year, month([*m1, *m2, *m3])?, day)?, rest))
}

/// ` 04.03.47.056000000 PM`, to the end.
fn oracle_time_of_day(bytes: &[u8]) -> Result<i64, TimeError> {
    let Some((b' ', bytes)) = bytes.split_first() else {
        return Err(zone_or_format(bytes));
    };
    let (hour, rest) = one_or_two_digits(bytes.trim_ascii_start())?;
    let [b'.' | b':', m1, m2, rest @ ..] = rest else {
        return Err(TimeError::Format);
    };
    let (second, micros, rest) = seconds(rest, b".:")?;
    let (half, rest) = match rest.trim_ascii_start() {
        [half @ (b'A' | b'a' | b'P' | b'p'), b'M' | b'm', rest @ ..] => {
            (Some(half.to_ascii_uppercase()), rest)
        }
        rest => (None, rest),
    };
    if !rest.is_empty() {
        return Err(zone_or_format(rest));
    }
    let hour = match half {
        None => hour,
        Some(_) if !(1..=12).contains(&hour) => return Err(TimeError::NoSuchTime),
        Some(half) => hour % 12 + if half == b'P' { 12 } else { 0 },
    };
    since_midnight(hour, pair(*m1, *m2)?, second, micros)
}

fn month(name: [u8; 3]) -> Result<u32, TimeError> {
    Ok(match &name.map(|byte| byte.to_ascii_uppercase()) {
        b"JAN" => 1,
        b"FEB" => 2,
        b"MAR" => 3,
        b"APR" => 4,
        b"MAY" | b"MAJ" => 5,
        b"JUN" => 6,
        b"JUL" => 7,
        b"AUG" => 8,
        b"SEP" => 9,
        b"OCT" | b"OKT" => 10,
        b"NOV" => 11,
        b"DEC" => 12,
        _ => return Err(TimeError::Format),
    })
}

#[inline]
fn pair(tens: u8, ones: u8) -> Result<u32, TimeError> {
    match (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0')) {
        (tens @ 0..=9, ones @ 0..=9) => Ok(u32::from(tens) * 10 + u32::from(ones)),
        _ => Err(TimeError::Format),
    }
}

fn one_or_two_digits(bytes: &[u8]) -> Result<(u32, &[u8]), TimeError> {
    match bytes {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] => Ok((pair(*tens, *ones)?, rest)),
        [ones, rest @ ..] => Ok((pair(b'0', *ones)?, rest)),
        [] => Err(TimeError::Format),
    }
}

/// `:47.056`, the seconds and microseconds behind one of the `marks`, if they are there; and what follows.
fn seconds<'t>(bytes: &'t [u8], marks: &[u8]) -> Result<(u32, u32, &'t [u8]), TimeError> {
    match bytes {
        [mark, s1, s2, b'.' | b',', rest @ ..] if marks.contains(mark) => {
            let (micros, rest) = fraction(rest)?;
            Ok((pair(*s1, *s2)?, micros, rest))
        }
        [mark, s1, s2, rest @ ..] if marks.contains(mark) => Ok((pair(*s1, *s2)?, 0, rest)),
        rest => Ok((0, 0, rest)),
    }
}

/// One to nine decimals of a second as microseconds, and what follows.
fn fraction(bytes: &[u8]) -> Result<(u32, &[u8]), TimeError> {
    let mut micros = 0;
    let mut unit = 100_000;
    let mut length = 0;
    for digit in bytes.iter().map_while(|byte| char::from(*byte).to_digit(10)) {
        micros += digit * unit;
        unit /= 10;
        length += 1;
    }
    match bytes.get(length..) {
        Some(rest) if (1..=9).contains(&length) => Ok((micros, rest)),
        _ => Err(TimeError::Format),
    }
}

/// What to say about a rest that does not belong to a time.
fn zone_or_format(rest: &[u8]) -> TimeError {
    match rest.trim_ascii() {
        b"Z" | b"z" | b"UTC" | b"GMT" | b"CET" | b"CEST" => TimeError::Zone,
        [b'+' | b'-', digits @ ..] if digits.first().is_some_and(u8::is_ascii_digit) => TimeError::Zone,
        // A region, as Oracle writes it: EUROPE/COPENHAGEN; or as Java does: [Europe/Oslo].
        region if region.contains(&b'/') => TimeError::Zone,
        _ => TimeError::Format,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> String {
        parse_local(text).map(format_local).unwrap_or_else(|error| format!("{error:?}"))
    }

    #[test]
    fn forms_of_a_revision_log() {
        for (text, expected) in [
            ("10-NOV-2021 04.03.47.056000000", "2021-11-10T04:03:47.056"),
            ("10-nov-2021 04:03:47.056000000", "2021-11-10T04:03:47.056"),
            ("10-NOV-2021 04.03.47.056000000 PM", "2021-11-10T16:03:47.056"),
            ("10-NOV-2021 04.03.47,056 am", "2021-11-10T04:03:47.056"),
            ("10-NOV-2021 12.00.00 AM", "2021-11-10T00:00:00"),
            ("10-NOV-2021 12.00.00PM", "2021-11-10T12:00:00"),
            ("1-Okt-2021 4.03 PM", "2021-10-01T16:03:00"),
            ("31-MAJ-2021", "2021-05-31T00:00:00"),
            ("31-MAY-2021", "2021-05-31T00:00:00"),
            ("10-NOV-2021 04.03.47.123456789", "2021-11-10T04:03:47.123456"),
            ("2021-11-10", "2021-11-10T00:00:00"),
            ("2021-11-10T04:03", "2021-11-10T04:03:00"),
            (" 2021-11-10 04:03:47,5 ", "2021-11-10T04:03:47.500"),
            ("2024-02-29T23:59:59.999999999", "2024-02-29T23:59:59.999999"),
            ("", "Empty"),
            ("  ", "Empty"),
            ("10-NOV-2021 04.03.47 +01:00", "Zone"),
            ("10-NOV-2021 04.03.47 AM EUROPE/COPENHAGEN", "Zone"),
            ("2021-11-10T04:03:47Z", "Zone"),
            ("2021-11-10T04:03:47.5+0100", "Zone"),
            ("2021-11-10T04:03-01:00", "Zone"),
            ("2021-11-10T04:03:47+01:00[Europe/Oslo]", "Zone"),
            ("31-FEB-2021", "NoSuchTime"),
            ("2021-02-29", "NoSuchTime"),
            ("2021-13-01", "NoSuchTime"),
            ("00-NOV-2021", "NoSuchTime"),
            ("10-NOV-2021 25.00.00", "NoSuchTime"),
            ("10-NOV-2021 13.00.00 PM", "NoSuchTime"),
            ("10-NOV-2021 00.00.00 AM", "NoSuchTime"),
            ("2021-11-10T24:00:00", "NoSuchTime"),
            ("2021-11-10T23:60:00", "NoSuchTime"),
            ("2021-11-10T23:59:60", "NoSuchTime"),
            ("10-NOV-21", "Format"),
            ("10-XYZ-2021", "Format"),
            ("10-11-2021", "Format"),
            ("2021-11-10T04:03:47.", "Format"),
            ("2021-11-10T04:03:47.1234567890", "Format"),
            ("2021-11-10T4:03", "Format"),
            ("2021-11-10T04", "Format"),
            ("2021-11-10T04:03:47 PM", "Format"),
            ("20211110T040347", "Format"),
            ("i går", "Format"),
            ("1-", "Format"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_disclosure_takes_only_iso_date_times() {
        assert_eq!(
            parse_iso("2018-10-19T12:24:21.675").map(format_local).unwrap(),
            "2018-10-19T12:24:21.675"
        );
        assert!(parse_iso("2018-10-19 12:24").is_ok());
        assert_eq!(parse_iso("2018-10-19"), Err(TimeError::DateOnly));
        assert_eq!(parse_iso("10-NOV-2021 04.03.47"), Err(TimeError::Format));
        assert_eq!(parse_iso(" 2018-10-19T12:24"), Err(TimeError::Format));
        assert_eq!(parse_iso(""), Err(TimeError::Empty));
        assert_eq!(parse_iso("1970-01-01T00:00:00.000001"), Ok(1));
        assert_eq!(parse_iso("1969-12-31T23:59:59.999999"), Ok(-1));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000) {
            prop_assert_eq!(parse_iso(&format_local(micros)), Ok(micros));
            prop_assert_eq!(parse_local(&format_local(micros)), Ok(micros));
        }

        #[test]
        fn agrees_with_the_calendar(micros in -62_000_000_000_000_000_i64..253_000_000_000_000_000) {
            let time = DateTime::from_timestamp_micros(micros).unwrap().naive_utc();
            prop_assert_eq!(super::micros(time), micros);
            let oracle = time.format("%d-%b-%Y %H.%M.%S%.9f").to_string();
            prop_assert_eq!(parse_local(&oracle), Ok(micros));
            let with_half = time.format("%d-%b-%Y %I:%M:%S%.6f %p").to_string();
            prop_assert_eq!(parse_local(&with_half), Ok(micros));
        }

        #[test]
        fn any_text_is_judged(text in "\\PC*", digits in "[0-9TZ:. +-]{0,40}", micros in any::<i64>()) {
            for text in [text, digits] {
                let _ = (parse_iso(&text), parse_local(&text));
            }
            format_local(micros);
        }
    }
}
