//! The rows of many organisations in one pass over ranges of ids.
//!
//! ```text
//! workers: some thousand ids each → rows by organisation → CSV          (side by side)
//! in order: each organisation's CSV → its lane
//! lanes: append to the open files, and hash                             (side by side)
//! ```
//!
//! What is under way is bounded: a few pieces of each worker's part, and a few between them and the
//! lanes, whatever the size of the rows or of the log. A file is written by one lane alone, so its rows
//! are in the order of the ids.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures::{StreamExt, TryStreamExt};
use sporlog_ledger::{Batches, Log};
use sporlog_record::revision::CsvRows;
use tokio::runtime::Handle;

use super::split_writer::{FileSink, SplitWriter};
use sporlog_intake::{Error, Result};
use sporlog_record::kind::REVISION_COLUMNS;
use std::sync::LazyLock;

/// Ids in a worker's part: no fewer than a data file keeps together.
const PART_IDS: u64 = 32 << 10;
/// A worker hands on what it has of a part when it comes to so many bytes.
const PIECES_BYTES: usize = 4 << 20;
/// So often it may do so before it has to wait for its part's turn.
const WAITING_PIECES: usize = 2;
/// Pieces between the workers and a lane.
const LANE_PIECES: usize = 64;
/// Threads that append to files.
const MAX_LANES: usize = 4;
/// Where at least one row in so many is wanted, all of them are decoded.
const FEW: u64 = 8;

/// The column that says whose a row is.
const ORGANISATION: &str = "KalderOrganisation";
/// What a file needs of a row, and its number.
static COLUMNS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| ["id"].into_iter().chain(REVISION_COLUMNS).collect());

/// Where the rows come from.
pub(super) struct Source<'a> {
    pub log: &'a Log,
    pub ids: &'a [Range<u64>],
    /// Whose rows are wanted.
    pub organisations: &'a Organisations,
    /// Asks for an end.
    pub stop: &'a AtomicBool,
    /// Is told how many ids have been looked through.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// CVR numbers, looked up once for each row.
#[derive(Debug, Clone)]
pub(super) struct Organisations(Arc<HashMap<[u8; 8], usize>>);

impl Organisations {
    /// The first of them is 0, and so on.
    pub(super) fn new<'a>(cvr: impl IntoIterator<Item = &'a str>) -> Self {
        let keys =
            cvr.into_iter().enumerate().filter_map(|(at, cvr)| Some((cvr.as_bytes().try_into().ok()?, at)));
        Organisations(Arc::new(keys.collect()))
    }

    fn get(&self, text: &str) -> Option<usize> {
        self.0.get(<&[u8; 8]>::try_from(text.as_bytes()).ok()?).copied()
    }
}

/// Rows of one organisation.
#[derive(Default)]
struct Piece {
    ids: Vec<u64>,
    csv: Vec<u8>,
}

/// What a worker hands on of its part.
enum Message {
    Pieces(Vec<(usize, Piece)>),
    End,
}

type Part = Receiver<Result<Message>>;

/// How many rows each organisation has.
pub(super) fn count(source: &Source<'_>, runtime: &Handle) -> Result<Vec<u64>> {
    let mut counts = vec![0; source.organisations.0.len()];
    let read = |ids: &Range<u64>| {
        source.log.read_columns(ids.start.saturating_sub(1), Some(ids.end - ids.start), &[ORGANISATION])
    };
    let mut batches = futures::stream::iter(source.ids.iter().map(read)).flatten();
    let mut done = 0;
    while let Some(batch) = runtime.block_on(batches.try_next())? {
        if source.stop.load(Ordering::Acquire) {
            return Err(stopped());
        }
        let column = batch.column_by_name(ORGANISATION).and_then(|column| column.as_string_opt::<i32>());
        let found = column.into_iter().flatten().flatten().filter_map(|cvr| source.organisations.get(cvr));
        for at in found {
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
            }
        }
        done += batch.num_rows() as u64;
        (source.progress)(done);
    }
    Ok(counts)
}

/// Writes each organisation's rows to its `targets`, and gives these back in their order. Blocks.
pub(super) fn scan_rows<S>(
    source: &Source<'_>,
    targets: Vec<(usize, SplitWriter<S>)>,
    runtime: &Handle,
) -> Result<Vec<SplitWriter<S>>>
where
    S: FileSink<Error = Error> + Send,
    S::Open: Send,
    S::Closed: Send,
{
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let lanes = cores.min(MAX_LANES).min(targets.len()).max(1);
    // Which lanes' files an organisation's rows go to.
    let mut places: Vec<Vec<(usize, usize)>> = vec![Vec::new(); source.organisations.0.len()];
    let mut shares: Vec<Vec<(usize, SplitWriter<S>)>> = (0..lanes).map(|_| Vec::new()).collect();
    for (number, (organisation, parts)) in targets.into_iter().enumerate() {
        let lane = number % lanes;
        if let (Some(places), Some(share)) = (places.get_mut(organisation), shares.get_mut(lane)) {
            places.push((lane, share.len()));
            share.push((number, parts));
        }
    }
    thread::scope(|scope| {
        let mut senders = Vec::with_capacity(lanes);
        let mut writing = Vec::with_capacity(lanes);
        for share in shares {
            let (sender, receiver) = bounded(LANE_PIECES);
            senders.push(sender);
            writing.push(scope.spawn(move || append(share, &receiver)));
        }
        let scanned = in_order(source, cores, runtime, |organisation, piece| {
            let piece = Arc::new(piece);
            for &(lane, at) in places.get(organisation).into_iter().flatten() {
                // A lane that is gone has failed, and says so itself.
                let sent = senders.get(lane).is_some_and(|lane| lane.send((at, piece.clone())).is_ok());
                if !sent {
                    return Err(Error::Internal("a file could not be written".into()));
                }
            }
            Ok(())
        });
        drop(senders);
        let mut written = Vec::new();
        for lane in writing {
            written.extend(lane.join().map_err(|_| Error::Internal("a thread has failed".into()))??);
        }
        scanned?;
        written.sort_by_key(|(number, _)| *number);
        Ok(written.into_iter().map(|(_, parts)| parts).collect())
    })
}

/// What a lane does.
fn append<S: FileSink<Error = Error>>(
    mut share: Vec<(usize, SplitWriter<S>)>,
    pieces: &Receiver<(usize, Arc<Piece>)>,
) -> Result<Vec<(usize, SplitWriter<S>)>> {
    for (at, piece) in pieces {
        if let Some((_, parts)) = share.get_mut(at) {
            parts.append(&piece.ids, &piece.csv)?;
        }
    }
    Ok(share)
}

/// Ids that are still to be taken, in order, and where those parts of them go that have been.
struct Claims {
    left: VecDeque<Range<u64>>,
    parts: Option<Sender<(u64, Part)>>,
}

/// Hands on all pieces, in the order of the ids.
fn in_order(
    source: &Source<'_>,
    workers: usize,
    runtime: &Handle,
    mut take: impl FnMut(usize, Piece) -> Result<()>,
) -> Result<()> {
    let (sender, parts) = bounded(workers);
    let claims = Mutex::new(Claims { left: source.ids.iter().cloned().collect(), parts: Some(sender) });
    let seen = Seen::default();
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(source, &claims, &seen, runtime));
        }
        // Moved in here, so that the workers end where this ends early.
        let parts = parts;
        let mut done = 0;
        for (count, part) in &parts {
            loop {
                match part.recv() {
                    Ok(Ok(Message::Pieces(pieces))) => {
                        pieces.into_iter().try_for_each(|(organisation, piece)| take(organisation, piece))?;
                    }
                    Ok(Ok(Message::End)) => break,
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(Error::Internal("a part of the rows was lost".into())),
                }
            }
            done += count;
            (source.progress)(done);
        }
        let all = done == source.ids.iter().map(|ids| ids.end - ids.start).sum::<u64>();
        if all { Ok(()) } else { Err(stopped()) }
    })
}

fn work(source: &Source<'_>, claims: &Mutex<Claims>, seen: &Seen, runtime: &Handle) {
    let mut pieces: Vec<Piece> = Vec::new();
    pieces.resize_with(source.organisations.0.len(), Piece::default);
    loop {
        let mut claimed = claims.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = source.stop.load(Ordering::Acquire);
        let Some(ids) = claimed.left.front_mut().filter(|_| !stopped) else {
            claimed.parts = None;
            return;
        };
        let (first, count) = (ids.start, PART_IDS.min(ids.end - ids.start));
        ids.start += count;
        if ids.is_empty() {
            claimed.left.pop_front();
        }
        let (sender, part) = bounded(WAITING_PIECES);
        // Whoever waits here keeps the others from taking parts, which would have to wait as well.
        if claimed.parts.as_ref().is_none_or(|parts| parts.send((count, part)).is_err()) {
            return;
        }
        drop(claimed);
        let mut batches = open(source, first, count, seen);
        let next = || Ok(runtime.block_on(batches.try_next())?);
        let read = read_part(source.organisations, next, &mut pieces, &sender);
        if let Ok(wanted) = &read {
            seen.rows.fetch_add(count, Ordering::Relaxed);
            seen.wanted.fetch_add(*wanted, Ordering::Relaxed);
        }
        let failed = read.is_err();
        // Nobody listens any more where something else has failed.
        if sender.send(read.map(|_| Message::End)).is_err() || failed {
            return;
        }
    }
}

/// How many rows there were, and how many of them were wanted.
#[derive(Default)]
struct Seen {
    rows: AtomicU64,
    wanted: AtomicU64,
}

/// Hands on the wanted rows of the batches that `next` gives, and gives how many they were. `pieces`
/// are empty before and after.
fn read_part(
    organisations: &Organisations,
    mut next: impl FnMut() -> Result<Option<RecordBatch>>,
    pieces: &mut [Piece],
    sender: &Sender<Result<Message>>,
) -> Result<u64> {
    let (mut bytes, mut wanted) = (0, 0);
    while let Some(batch) = next()? {
        let column = batch.column_by_name(ORGANISATION).and_then(|column| column.as_string_opt::<i32>());
        let ids = batch.column_by_name("id").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(column), Some(ids)) = (column, ids) else {
            return Err(Error::Internal(format!("the log has no column {ORGANISATION}")));
        };
        let rows = CsvRows::new(&batch).map_err(|e| Error::Internal(e.to_string()))?;
        for (row, (cvr, id)) in column.iter().zip(ids.values()).enumerate() {
            let at = cvr.and_then(|cvr| organisations.get(cvr));
            let Some(piece) = at.and_then(|at| pieces.get_mut(at)) else { continue };
            let before = piece.csv.len();
            piece.ids.push(id.unsigned_abs());
            rows.write(row, &mut piece.csv);
            bytes += piece.csv.len() - before;
            wanted += 1;
        }
        if bytes >= PIECES_BYTES {
            bytes = 0;
            if sender.send(Ok(take_pieces(pieces))).is_err() {
                return Ok(wanted);
            }
        }
    }
    if bytes > 0 {
        let _ = sender.send(Ok(take_pieces(pieces)));
    }
    Ok(wanted)
}

fn open(source: &Source<'_>, first: u64, count: u64, seen: &Seen) -> Batches {
    let (rows, wanted) = (seen.rows.load(Ordering::Relaxed), seen.wanted.load(Ordering::Relaxed));
    if wanted.saturating_mul(FEW) > rows {
        return source.log.read_columns(first.saturating_sub(1), Some(count), &COLUMNS);
    }
    let organisations = source.organisations.clone();
    let wanted = move |cvr: &str| organisations.get(cvr).is_some();
    source.log.read_columns_if(first.saturating_sub(1), count, &COLUMNS, ORGANISATION, wanted)
}

fn take_pieces(pieces: &mut [Piece]) -> Message {
    let full = pieces.iter_mut().enumerate().filter(|(_, piece)| !piece.ids.is_empty());
    // What comes next will be about as much.
    let take = |piece: &mut Piece| {
        let next = Piece {
            ids: Vec::with_capacity(piece.ids.len()),
            csv: Vec::with_capacity(piece.csv.len() + piece.csv.len() / 8),
        };
        mem::replace(piece, next)
    };
    Message::Pieces(full.map(|(at, piece)| (at, take(piece))).collect())
}

pub(super) fn stopped() -> Error {
    Error::Unfinished("a stop was asked for".into())
}
