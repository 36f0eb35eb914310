//! Synthetic records of every delivered kind, to try Sporlog out and to measure it.
//!
//! What it promises: the same [`Options`] give the same bytes; records come in the order of time;
//! memory does not grow with their number; nobody in them exists. The population (citizens, case
//! workers, recipients) is the same for every seed, so that the files of several days fit
//! together: the seed decides what happens.
//!
//! | module | idea |
//! |---|---|
//! | `chance` | the dice: random draws, weights, and stable hashes for what must stay the same |
//! | `clock` | when things happen: office hours, weekends, and the forms that times are written in |
//! | `text` | writing numbers, UUIDs, Base64 and JSON strings into a byte buffer |
//! | `people`, `municipality` | who there is: invented people and numbers, and Denmark's 98 municipalities |
//! | `revision`, `system`, `service`, `parameters` | revision logs: case work in IT systems |
//! | `disclosure`, `delivered`, `token` | disclosures: inquiries on the ground of consents |
//! | `auditlog`, `saml` | audit logs: sign-in sessions |
//! | `mfa` | MFA logs: log-ins with a second factor |
//! | `fault` | what goes wrong in a small share of the records |
#![forbid(unsafe_code)]

use std::io::{self, Write};

use chrono::NaiveDate;
use sporlog_record::Kind;

use clock::Clock;
use fault::Faults;

mod auditlog;
mod chance;
mod clock;
mod delivered;
mod disclosure;
mod fault;
mod mfa;
mod municipality;
mod parameters;
mod people;
mod revision;
mod saml;
mod service;
mod system;
#[cfg(test)]
mod tests;
mod text;
mod token;

/// The share of faulty records where none is asked for: one in a thousand, so that every larger
/// sample shows refusals and remarks. A measurement sets it to 0.
pub const DEFAULT_FAULTY: f64 = 0.001;

/// Output is handed on in portions of about this size.
const PORTION: usize = 1 << 20;

/// What to write.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kind of record: CSV with a header for revision logs, JSON lines for the others.
    pub kind: Kind,
    /// How many records.
    pub records: u64,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The share of records that get a fault, from 0 to 1. All other records, and the faulty ones
    /// but for their fault, are the same whatever it is.
    pub faulty: f64,
    /// The first day.
    pub day: NaiveDate,
    /// Over how many days the records are spread; 0 is taken as 1.
    pub days: u32,
}

/// A stream of records of one kind.
trait Source {
    /// Appends what comes before the first record.
    fn header(&self, _out: &mut Vec<u8>) {}

    /// Appends the next record, with its line end.
    fn record(&mut self, out: &mut Vec<u8>);
}

/// Writes a sample to `out`; `progress` is told the number of records written so far, now and then
/// and at the end.
///
/// # Errors
/// When `out` fails; and with [`io::ErrorKind::InvalidInput`] when the kind is none that is
/// delivered, or the days are too many or outside the calendar.
pub fn write(options: &Options, out: &mut dyn Write, progress: &dyn Fn(u64)) -> io::Result<()> {
    let clock = Clock::new(options.day, options.days, options.records, options.kind)?;
    match options.kind {
        Kind::Revision => stream(revision::Source::new(options, clock), options, out, progress),
        Kind::Disclosure => stream(disclosure::Source::new(options, clock), options, out, progress),
        Kind::Auditlog => stream(auditlog::Source::new(options, clock), options, out, progress),
        Kind::Mfa => stream(mfa::Source::new(options, clock), options, out, progress),
        Kind::Quarantine => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the quarantine is Sporlog's own: nothing is delivered to it",
        )),
    }
}

fn stream(
    mut source: impl Source,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> io::Result<()> {
    let mut faults = Faults::new(options.seed, options.faulty);
    let mut buffer = Vec::with_capacity(PORTION + PORTION / 4);
    source.header(&mut buffer);
    for done in 0..options.records {
        let start = buffer.len();
        source.record(&mut buffer);
        if faults.strike() {
            fault::spoil(options.kind, &mut buffer, start, &mut faults);
        }
        if buffer.len() >= PORTION {
            out.write_all(&buffer)?;
            buffer.clear();
            progress(done + 1);
        }
    }
    out.write_all(&buffer)?;
    out.flush()?;
    progress(options.records);
    Ok(())
}
