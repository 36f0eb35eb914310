//! When things happen, and how the three documents write it.
//!
//! Records are spread over the days by how busy each quarter of an hour is; the n-th of N records
//! falls into the n-th N-th of all the business, so times ascend without anything being sorted.

use std::io;

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Weekday};
use sporlog_record::Kind;

use crate::chance::Dice;

/// How busy each hour of a working day is where people do the work: a peak in the morning, a dip
/// at lunch, hardly anything at night.
const OFFICE: [f64; 24] = [
    1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 12.0, 70.0, 170.0, 205.0, 200.0, 165.0, 95.0, 180.0, 150.0, 80.0, 30.0,
    14.0, 8.0, 6.0, 6.0, 5.0, 3.0, 2.0,
];

/// The same where citizens set it off, by applying for something: into the evening.
const PUBLIC: [f64; 24] = [
    8.0, 4.0, 2.0, 2.0, 3.0, 6.0, 20.0, 50.0, 100.0, 120.0, 125.0, 120.0, 110.0, 115.0, 110.0, 95.0, 80.0,
    70.0, 75.0, 85.0, 85.0, 70.0, 45.0, 20.0,
];

const QUARTERS: usize = 96;
const QUARTER: i64 = 15 * 60 * 1_000_000;

/// Ten years; the clock's memory grows with the days.
const MOST_DAYS: u32 = 3_660;

/// A local time, in the forms that the documents write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(pub(crate) NaiveDateTime);

/// The times of a sample's records, in ascending order.
pub(crate) struct Clock {
    days: Vec<NaiveDate>,
    /// Running totals of how busy the quarters of an hour are, over all days.
    totals: Vec<f64>,
    quarter: usize,
    records: u64,
    next: u64,
}

impl Clock {
    /// A clock for `records` records over `days` days from `first` on.
    pub(crate) fn new(first: NaiveDate, days: u32, records: u64, kind: Kind) -> io::Result<Self> {
        let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
        if days > MOST_DAYS {
            return Err(refuse("a sample covers at most 3660 days"));
        }
        let (hours, weekend) = match kind {
            Kind::Disclosure => (&PUBLIC, 0.6),
            Kind::Revision | Kind::Auditlog | Kind::Mfa | Kind::Quarantine => (&OFFICE, 0.04),
        };
        let mut clock =
            Clock { days: Vec::new(), totals: Vec::new(), quarter: 0, records: records.max(1), next: 0 };
        let mut total = 0.0;
        for day in 0..days.max(1) {
            let date = first
                .checked_add_days(Days::new(day.into()))
                .filter(|date| (1..=9999).contains(&date.year()))
                .ok_or_else(|| refuse("the days reach beyond the years 1 to 9999"))?;
            let free = matches!(date.weekday(), Weekday::Sat | Weekday::Sun);
            clock.days.push(date);
            for quarter in 0..QUARTERS {
                let (hour, part) = (quarter / 4, (quarter % 4) as f64 / 4.0);
                let busy = hours[hour] * (1.0 - part) + hours[(hour + 1) % 24] * part;
                total += if free { busy * weekend } else { busy };
                clock.totals.push(total);
            }
        }
        Ok(clock)
    }

    /// The day after the last one.
    pub(crate) fn end(&self) -> NaiveDate {
        self.days.last().map_or(NaiveDate::MIN, |date| *date + Days::new(1))
    }

    /// How many days there are.
    pub(crate) fn days(&self) -> u64 {
        self.days.len() as u64
    }

    /// The next record's time.
    pub(crate) fn next(&mut self, dice: &mut Dice) -> Moment {
        let last = self.totals.len() - 1;
        let target = (self.next as f64 + dice.unit()) / self.records as f64 * self.totals[last];
        self.next += 1;
        while self.quarter < last && self.totals[self.quarter] <= target {
            self.quarter += 1;
        }
        let before = if self.quarter == 0 { 0.0 } else { self.totals[self.quarter - 1] };
        let part = ((target - before) / (self.totals[self.quarter] - before)).clamp(0.0, 0.999_999_999);
        let micros = (self.quarter % QUARTERS) as i64 * QUARTER + (part * QUARTER as f64) as i64;
        let midnight = self.days[self.quarter / QUARTERS].and_time(NaiveTime::MIN);
        Moment(midnight + TimeDelta::microseconds(micros))
    }
}

impl Moment {
    /// The date: `2021-11-10`.
    pub(crate) fn date(&self) -> String {
        self.0.date().to_string()
    }

    /// ISO 8601 to the second: `2021-11-10T04:03:47`.
    pub(crate) fn seconds(&self) -> String {
        self.0.format("%Y-%m-%dT%H:%M:%S").to_string()
    }

    /// ISO 8601 to the millisecond: `2021-11-10T04:03:47.056`.
    pub(crate) fn millis(&self) -> String {
        self.0.format("%Y-%m-%dT%H:%M:%S%.3f").to_string()
    }

    /// Oracle's form: `10-NOV-2021 04.03.47.056000000`.
    pub(crate) fn oracle(&self) -> String {
        self.0.format("%d-%b-%Y %H.%M.%S%.3f000000").to_string().to_uppercase()
    }

    /// Oracle's form on a twelve-hour clock, to the microsecond: `10-NOV-2021 04.03.47.056123000 PM`.
    pub(crate) fn oracle_twelve(&self) -> String {
        self.0.format("%d-%b-%Y %I.%M.%S%.6f000 %p").to_string().to_uppercase()
    }
}
