//! A file's records, judged by several threads, in order.
//!
//! ```text
//! reader:   bytes → parts of whole records (bounded queue)
//! workers:  a part → rows, refusals, findings; the rows go straight to the receiver
//! in order: refusals and findings, part by part
//! ```
//!
//! Only a few parts are in memory at a time, whatever the size of the file.

mod csv;
mod json;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sporlog_record::json::FileError;
use sporlog_record::kind::Format;
use sporlog_record::revision::FileRefusal;
use sporlog_record::{Finding, Kind, Position, Rules};

use crate::error::{Error, Result};
use crate::source::{Source, Told};

/// Bytes of a part.
const PART_BYTES: usize = 20 << 20;

/// A record that is refused alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// The line that the record begins on.
    pub line: u64,
    /// The record's bytes, as delivered.
    pub content: Vec<u8>,
    /// The errors and remarks.
    pub findings: Vec<Finding>,
}

/// The outcome of judging one part of a file.
#[derive(Debug, Default)]
pub struct Judged {
    /// Records accepted.
    pub accepted: u64,
    /// Remarks on accepted records.
    pub remarks: u64,
    /// Refused records.
    pub refused: Vec<RefusedRecord>,
    /// The remarks themselves, as many as [`Options::collect`] says.
    pub findings: Vec<Finding>,
}

/// The outcome of judging a whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records accepted.
    pub accepted: u64,
    /// Records refused.
    pub refused: u64,
    /// Remarks on accepted records.
    pub remarks: u64,
    /// Remarks on the file as a whole.
    pub file_remarks: Vec<Finding>,
    /// The SHA-256 of the file as delivered.
    pub sha256: [u8; 32],
    /// The file's size as delivered.
    pub bytes: u64,
    /// The file's header as delivered, for a CSV file.
    pub header: Vec<u8>,
}

/// Takes the rows and refusals of a delivery.
pub trait Receiver: Sync {
    /// Accepted rows; called by several threads. The numbers begin at 0 and have no gaps, and
    /// every number comes, though not in order.
    fn rows(&self, part: u64, rows: RecordBatch) -> Result<()>;

    /// Counts, refusals and remarks, in the order of the file, from one thread. `header` is a CSV file's.
    fn judged(&self, header: &[u8], judged: Judged) -> Result<()>;

    /// The delivery has failed; `rows` will not be called with all numbers.
    fn failed(&self) {}
}

/// What to do with rows that the log has from another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// The rows are not stored again; the receipt says how many there were.
    Skip,
    /// The rows are stored again; the receipt says how many there were.
    Take,
}

/// Which rows count as stored already, and what to do with them. Rows of one file are not compared with each other.
#[derive(Debug, Clone, Copy)]
pub struct OverlapPolicy {
    /// What to do with such rows.
    pub rows: Overlap,
    /// For how many days after its receipt a row is compared with new ones.
    pub days: u32,
}

impl Default for OverlapPolicy {
    fn default() -> Self {
        OverlapPolicy { rows: Overlap::Skip, days: 35 }
    }
}

impl OverlapPolicy {
    /// The time, in microseconds UTC, since when rows were received that are compared with those that came at
    /// `now`.
    pub fn since(&self, now: DateTime<Utc>) -> i64 {
        let since = now.checked_sub_signed(TimeDelta::days(self.days.into()));
        since.map_or(i64::MIN, |since| since.timestamp_micros())
    }
}

/// How a delivery is judged.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kind of its records.
    pub kind: Kind,
    /// The rules by which the records are judged.
    pub rules: Rules,
    /// How many remarks of each part are collected, and not only counted.
    pub collect: usize,
    /// The number of threads that judge.
    pub workers: usize,
    /// What becomes of rows that the log has already.
    pub overlap: OverlapPolicy,
    /// The delivery's id, if it has one: refused records are kept with it.
    pub delivery: Option<String>,
}

impl Options {
    /// Options with as many workers as there are processors.
    pub fn new(kind: Kind, rules: Rules) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Options { kind, rules, collect: 0, workers, overlap: OverlapPolicy::default(), delivery: None }
    }
}

/// Reads `source` to its end. `progress` is called now and then with the number of bytes read.
///
/// Blocks: to be called in a thread that may.
pub fn deliver(
    source: Source,
    options: &Options,
    receiver: &dyn Receiver,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Summary> {
    let name = source.name().to_owned();
    let origin = format!("file:{name}");
    let size = source.size();
    let (mut reader, account) = source.unpack()?;
    let context = Context { options, origin: &origin, name: &name };
    let told = Told { inner: &mut reader, account: &account, progress };
    let result = match options.kind.format() {
        Format::Csv => csv::deliver(&context, told, receiver),
        Format::Json(_) | Format::Internal => json::deliver(&context, told, receiver),
    };
    if result.is_err() {
        receiver.failed();
    }
    let mut summary = result?;
    // The digest is of the whole file, also of bytes behind the end of a compressed stream.
    std::io::copy(&mut reader, &mut std::io::sink())
        .map_err(|source| Error::Read { name: name.clone(), source })?;
    if size.is_some_and(|size| size != account.bytes()) {
        return Err(Error::Unsettled(name));
    }
    (summary.sha256, summary.bytes) = (account.sha256(), account.bytes());
    Ok(summary)
}

/// The finding about a compressed file that cannot be unpacked, if `error` comes from a decoder and not from the disk.
pub fn damage(error: &std::io::Error) -> Option<Finding> {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    let text = match error.to_string() {
        // As Zstandard words it.
        reason if reason.contains("too much memory") => format!(
            "the compressed file cannot be unpacked: {reason}; compress it with a window of 128 MiB or less \
             (zstd without --ultra and --long)"
        ),
        reason => format!("the compressed file is damaged or cut off: {reason}"),
    };
    let is_of_decoder = error.raw_os_error().is_none()
        && matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof);
    let position = Position { line: 1, column: 1 };
    is_of_decoder.then(|| Finding::error("compression", text, position))
}

struct Context<'a> {
    options: &'a Options,
    origin: &'a str,
    name: &'a str,
}

impl Context<'_> {
    fn file_error(&self, error: FileError) -> Error {
        match error {
            FileError::Io(source) => self.read_error(source),
            error => Error::Refused { findings: vec![error.to_finding()] },
        }
    }

    fn read_error(&self, source: std::io::Error) -> Error {
        Error::Read { name: self.name.to_owned(), source }
    }
}

impl From<FileRefusal> for Error {
    fn from(refusal: FileRefusal) -> Self {
        Error::Refused { findings: refusal.findings }
    }
}

/// Runs the threads of a delivery: `read` hands parts to `judge`, whose rows go to the receiver at
/// once, and the rest in order.
fn run<T: Send>(
    workers: usize,
    receiver: &dyn Receiver,
    header: &[u8],
    read: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()>,
    judge: impl Fn(T) -> Result<(RecordBatch, Judged)> + Sync,
) -> Result<Summary> {
    let (parts, waiting) = crossbeam_channel::bounded::<(u64, T)>(1);
    let (done, judged) = crossbeam_channel::bounded::<(u64, Result<Judged>)>(workers);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            let (waiting, done, judge, stop) = (waiting.clone(), done.clone(), &judge, &stop);
            scope.spawn(move || {
                for (number, content) in waiting {
                    if stop.load(Ordering::Acquire) {
                        continue;
                    }
                    let result = judge(content).and_then(|(rows, judged)| {
                        receiver.rows(number, rows)?;
                        Ok(judged)
                    });
                    if result.is_err() {
                        stop.store(true, Ordering::Release);
                        receiver.failed();
                    }
                    if done.send((number, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop((waiting, done));
        let collector = scope.spawn(|| {
            let collected = collect(receiver, header, &judged);
            if collected.is_err() {
                stop.store(true, Ordering::Release);
                receiver.failed();
                // The workers must not wait for a reader that is gone.
                judged.iter().for_each(drop);
            }
            collected
        });
        let mut number = 0;
        let mut hand_on = |content: T| {
            let sent = !stop.load(Ordering::Acquire) && parts.send((number, content)).is_ok();
            number += 1;
            sent
        };
        let read = read(&mut hand_on);
        if read.is_err() {
            stop.store(true, Ordering::Release);
            receiver.failed();
        }
        drop(parts);
        let collected = collector.join().map_err(|_| Error::Internal("a thread panicked".into()))?;
        // The workers' refusal comes earlier in the file than the reader's; another failure of
        // theirs may be no more than what the reader's led to.
        match (collected, read) {
            (Err(refused @ Error::Refused { .. }), _) => Err(refused),
            (_, Err(error)) | (Err(error), Ok(())) => Err(error),
            (Ok(summary), Ok(())) => Ok(summary),
        }
    })
}

/// Hands the parts' results on in the order of the file.
fn collect(
    receiver: &dyn Receiver,
    header: &[u8],
    judged: &crossbeam_channel::Receiver<(u64, Result<Judged>)>,
) -> Result<Summary> {
    let mut summary = Summary::default();
    let (mut early, mut failures) = (BTreeMap::new(), BTreeMap::new());
    let mut next = 0;
    for (number, part) in judged {
        match part {
            Ok(part) => drop(early.insert(number, part)),
            Err(error) => drop(failures.insert(number, error)),
        }
        while let Some(part) = early.remove(&next) {
            next += 1;
            summary.accepted += part.accepted;
            summary.refused += part.refused.len() as u64;
            summary.remarks += part.remarks;
            receiver.judged(header, part)?;
        }
    }
    // The first refusal in the order of the file is the cause: other parts that failed then could
    // not be handed on because of it, even if they come before it.
    let refused = failures.iter().find(|(_, error)| matches!(error, Error::Refused { .. }));
    let first = refused.or_else(|| failures.first_key_value()).map(|(number, _)| *number);
    first.and_then(|number| failures.remove(&number)).map_or(Ok(summary), Err)
}
