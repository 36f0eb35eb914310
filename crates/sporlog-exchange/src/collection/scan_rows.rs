//! The rows of one organisation or of many, in one pass over ranges of ids, written to each one's files. The
//! collection and `sporlog export` read by this alone.
//!
//! ```text
//! readers: 32,768 ids each → rows by organisation → CSV                  (side by side)
//! in the order of the ids: an organisation's CSV → its writer thread
//! writer threads: append to the open files, and hash                     (side by side)
//! ```
//!
//! Memory is bounded, whatever the size of the rows or of the log: a reader hands on its CSV in pieces of some
//! megabytes, and waits while earlier pieces are not written. Each file belongs to one writer thread, so its rows
//! are in the order of the ids.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::{mem, thread};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures::{StreamExt, TryStreamExt};
use sporlog_intake::blocking::{blocking, lock};
use sporlog_intake::{Error, Result};
use sporlog_ledger::{Batches, Log};
use sporlog_record::kind::{REVISION_COLUMNS, REVISION_ORGANISATION};
use sporlog_record::revision::CsvRows;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::day_files::{WrittenFile, sync};
use super::split_writer::SplitWriter;

/// Ids of a reader: as many as a data file keeps together, so that no two readers decode the same bytes.
const READER_IDS: u64 = 32 << 10;
/// A reader hands on its CSV when it has so many bytes.
const PIECES_BYTES: usize = 4 << 20;
/// How often a reader may hand on CSV before it waits until the earlier readers' CSV is written.
const WAITING_PIECES: usize = 2;
/// Pieces that may wait for a writer thread.
const WRITER_PIECES: usize = 16;
/// The most writer threads.
const MAX_WRITERS: usize = 4;
/// After a reader found more than one row in so many to be wanted, all rows are decoded.
const FEW: u64 = 8;

/// The columns of a file, and the row's id.
static COLUMNS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| ["id"].into_iter().chain(REVISION_COLUMNS).collect());

/// A pass over some rows of a log.
pub(super) struct Scan {
    pub log: Log,
    /// The ids, in ascending ranges.
    pub ids: Vec<Range<u64>>,
    /// Cancelled to end the pass with an error.
    pub stop: CancellationToken,
    /// Called with the number of ids that have been read by this pass and earlier ones, and `total`.
    pub progress: Progress,
    /// Ids that were read by earlier passes.
    pub before: u64,
    /// Ids of all passes.
    pub total: u64,
}

/// The error of a pass that was ended by its `stop`.
pub(super) fn stopped() -> Error {
    Error::Unfinished("a stop was asked for".into())
}

/// CVR numbers, sorted. An organisation is known by its position.
#[derive(Clone)]
struct Organisations(Arc<[[u8; 8]]>);

impl Organisations {
    fn new<'a>(numbers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut numbers: Vec<_> =
            numbers.into_iter().filter_map(|cvr| cvr.as_bytes().try_into().ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Organisations(numbers.into())
    }

    fn position(&self, cvr: &str) -> Option<usize> {
        self.0.binary_search(&cvr.as_bytes().try_into().ok()?).ok()
    }
}

/// Rows of one organisation.
#[derive(Default)]
struct Piece {
    ids: Vec<u64>,
    csv: Vec<u8>,
}

/// Pieces, each with its organisation's position.
type Pieces = Vec<(usize, Piece)>;

impl Scan {
    /// Writes each writer's organisation's rows, and returns the writers' files, complete and durable.
    pub(super) async fn write(self, writers: Vec<SplitWriter>) -> Result<Vec<Vec<WrittenFile>>> {
        let runtime = Handle::current();
        blocking(move || {
            let writers = self.append_to(writers, &runtime)?;
            let written = writers.into_iter().map(SplitWriter::finish).collect::<Result<Vec<_>>>()?;
            sync(&written)?;
            Ok(written)
        })
        .await
    }

    /// How many rows each of these organisations has.
    pub(super) async fn count(self, numbers: Vec<String>) -> Result<Vec<u64>> {
        let runtime = Handle::current();
        blocking(move || {
            let mut counts: HashMap<_, u64> = numbers.iter().map(|cvr| (cvr.as_str(), 0)).collect();
            let read = |ids: &Range<u64>| {
                self.log.read_columns(ids.start - 1, Some(ids.end - ids.start), &[REVISION_ORGANISATION])
            };
            let mut batches = futures::stream::iter(self.ids.iter().map(read)).flatten();
            let mut done = 0;
            while let Some(batch) = runtime.block_on(batches.try_next())? {
                if self.stop.is_cancelled() {
                    return Err(stopped());
                }
                let column = batch
                    .column_by_name(REVISION_ORGANISATION)
                    .and_then(|column| column.as_string_opt::<i32>());
                for cvr in column.into_iter().flatten().flatten() {
                    counts.get_mut(cvr).into_iter().for_each(|count| *count += 1);
                }
                done += batch.num_rows() as u64;
                (self.progress)(self.before + done, self.total);
            }
            Ok(numbers.iter().map(|cvr| counts.get(cvr.as_str()).copied().unwrap_or_default()).collect())
        })
        .await
    }

    fn append_to(&self, writers: Vec<SplitWriter>, runtime: &Handle) -> Result<Vec<SplitWriter>> {
        let organisations = Organisations::new(writers.iter().map(SplitWriter::organisation));
        // Several accounts may have the same organisation.
        let mut writers_of = vec![Vec::new(); organisations.0.len()];
        for (number, writer) in writers.iter().enumerate() {
            let at = organisations.position(writer.organisation());
            at.and_then(|at| writers_of.get_mut(at)).into_iter().for_each(|of| of.push(number));
        }
        let writers: Vec<_> = writers.into_iter().map(Mutex::new).collect();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(MAX_WRITERS).min(writers.len());
        thread::scope(|scope| {
            let start = |_| {
                let (sender, pieces) = bounded(WRITER_PIECES);
                let writers = &writers;
                (sender, scope.spawn(move || append(writers, &pieces)))
            };
            let (senders, threads): (Vec<_>, Vec<_>) = (0..threads).map(start).unzip();
            let scanned = self.read_in_order(&organisations, cores, runtime, |(organisation, piece)| {
                let piece = Arc::new(piece);
                for &writer in writers_of.get(organisation).into_iter().flatten() {
                    let sender = senders.get(writer % senders.len());
                    // A writer thread that has ended has failed; its own error is the one that is returned.
                    if sender.is_none_or(|sender| sender.send((writer, piece.clone())).is_err()) {
                        return Err(Error::Internal("a file could not be written".into()));
                    }
                }
                Ok(())
            });
            drop(senders);
            threads.into_iter().try_for_each(|thread| thread.join().map_err(thread_failed)?)?;
            scanned
        })?;
        Ok(writers
            .into_iter()
            .map(|writer| writer.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect())
    }

    /// Calls `take` with all pieces, in the order of the ids. So many `readers` are at work at once.
    fn read_in_order(
        &self,
        organisations: &Organisations,
        readers: usize,
        runtime: &Handle,
        mut take: impl FnMut((usize, Piece)) -> Result<()>,
    ) -> Result<()> {
        let mut ranges = self.ids.iter().flat_map(|ids| {
            let starts = ids.clone().step_by(READER_IDS as usize);
            starts.map(|start| start..ids.end.min(start + READER_IDS))
        });
        let many_wanted = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut reading = VecDeque::new();
            let mut done = 0;
            loop {
                if self.stop.is_cancelled() {
                    return Err(stopped());
                }
                while reading.len() < readers
                    && let Some(ids) = ranges.next()
                {
                    let (sender, pieces) = bounded(WAITING_PIECES);
                    let (count, many_wanted) = (ids.end - ids.start, &many_wanted);
                    let read = move || self.read(organisations, ids, many_wanted, runtime, &sender);
                    reading.push_back((count, pieces, scope.spawn(read)));
                }
                let Some((count, pieces, reader)) = reading.pop_front() else { return Ok(()) };
                // An error here drops the channels, which ends the readers.
                pieces.iter().flatten().try_for_each(&mut take)?;
                reader.join().map_err(thread_failed)??;
                done += count;
                (self.progress)(self.before + done, self.total);
            }
        })
    }

    /// Hands on the organisations' rows with these ids.
    fn read(
        &self,
        organisations: &Organisations,
        ids: Range<u64>,
        many_wanted: &AtomicBool,
        runtime: &Handle,
        sender: &Sender<Pieces>,
    ) -> Result<()> {
        let mut pieces: Vec<Piece> = Vec::new();
        pieces.resize_with(organisations.0.len(), Piece::default);
        let (count, mut bytes, mut wanted) = (ids.end - ids.start, 0, 0_u64);
        let mut batches = self.open(organisations, ids, many_wanted.load(Ordering::Relaxed));
        while let Some(batch) = runtime.block_on(batches.try_next())? {
            let column =
                batch.column_by_name(REVISION_ORGANISATION).and_then(|column| column.as_string_opt::<i32>());
            let ids = batch.column_by_name("id").and_then(|column| column.as_primitive_opt::<Int64Type>());
            let (Some(column), Some(ids)) = (column, ids) else {
                return Err(Error::Internal(format!("the log has no column {REVISION_ORGANISATION}")));
            };
            let rows = CsvRows::new(&batch).map_err(|e| Error::Internal(e.to_string()))?;
            for (row, (cvr, id)) in column.iter().zip(ids.values()).enumerate() {
                let at = cvr.and_then(|cvr| organisations.position(cvr));
                let Some(piece) = at.and_then(|at| pieces.get_mut(at)) else { continue };
                let before = piece.csv.len();
                piece.ids.push(id.unsigned_abs());
                rows.write(row, &mut piece.csv);
                bytes += piece.csv.len() - before;
                wanted += 1;
            }
            if bytes >= PIECES_BYTES {
                bytes = 0;
                // Nobody receives any more where something else has failed.
                if sender.send(take_pieces(&mut pieces)).is_err() {
                    return Ok(());
                }
            }
        }
        many_wanted.store(wanted * FEW > count, Ordering::Relaxed);
        let _ = sender.send(take_pieces(&mut pieces));
        Ok(())
    }

    /// Where few rows are wanted, the other columns are decoded for these alone.
    fn open(&self, organisations: &Organisations, ids: Range<u64>, many_wanted: bool) -> Batches {
        let (after, count) = (ids.start - 1, ids.end - ids.start);
        if many_wanted {
            return self.log.read_columns(after, Some(count), &COLUMNS);
        }
        let organisations = organisations.clone();
        let is_wanted = move |cvr: &str| organisations.position(cvr).is_some();
        self.log.read_columns_if(after, count, &COLUMNS, REVISION_ORGANISATION, is_wanted)
    }
}

/// Appends pieces to the writers that they are for.
fn append(writers: &[Mutex<SplitWriter>], pieces: &Receiver<(usize, Arc<Piece>)>) -> Result<()> {
    for (writer, piece) in pieces {
        if let Some(writer) = writers.get(writer) {
            lock(writer).append(&piece.ids, &piece.csv)?;
        }
    }
    Ok(())
}

/// The pieces that have rows, and new ones in their place, with room for as much again.
fn take_pieces(pieces: &mut [Piece]) -> Pieces {
    let take = |piece: &mut Piece| {
        let ids = Vec::with_capacity(piece.ids.len());
        let csv = Vec::with_capacity(piece.csv.len() + piece.csv.len() / 8);
        mem::replace(piece, Piece { ids, csv })
    };
    let full = pieces.iter_mut().enumerate().filter(|(_, piece)| !piece.ids.is_empty());
    full.map(|(at, piece)| (at, take(piece))).collect()
}

fn thread_failed<T>(_panic: T) -> Error {
    Error::Internal("a thread has failed".into())
}
