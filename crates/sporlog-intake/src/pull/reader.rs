//! A range of the upstream's ids, page by page, several at once, in order.
//!
//! A page says only with its last id where the next one begins. So that several can be asked for at once, the range is
//! cut into parts by guessing how many ids a page covers; of a part, pages are read until its end is reached, and what
//! is beyond is left to the next part. A wrong guess costs a request or two, and never a record.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::page::{Judging, Piece, Range, judge};
use super::upstream::Upstream;
use crate::blocking::blocking;
use crate::error::Result;

/// Requests that are under way at once.
const AT_ONCE: usize = 4;
/// Parts that may wait to be stored, and the memory that all of them may take.
const WAITING: usize = 1_024;
const WAITING_BYTES: usize = 64 << 20;
/// A page covers at least so many ids, as the interface says; and a guess goes up to so many.
const PAGE: i64 = 100;
const MOST_IDS: i64 = 1_000_000;

/// A part of a range, as far as it has been read.
pub(super) struct Part {
    /// The records of the part: the highest id of a piece is no higher than the part's end.
    pub pieces: Vec<Piece>,
    /// What is still to be read, because a page was long.
    left: Option<Range>,
    /// The upstream has nothing above the last of these, though the part goes on.
    is_empty: bool,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Reads `range`; the parts come in its order. It ends with the first error, or where the upstream has nothing more,
/// whatever its head says.
pub(super) fn read(
    upstream: &Arc<Upstream>,
    judging: &Arc<Judging>,
    range: Range,
) -> mpsc::Receiver<Result<Part>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (upstream, judging) = (upstream.clone(), judging.clone());
    let memory = Arc::new(Semaphore::new(WAITING_BYTES >> 10));
    let guess = Guess { covered: PAGE.into(), empty_up_to: range.after.into() };
    tokio::spawn(async move {
        let parts = stream::unfold(range.after, |after| {
            let part = guess.part(Range { after, ..range });
            async move { part.map(|part| (part, part.to)) }
        });
        let read = parts.map(|part| read_part(&upstream, &judging, part, &guess)).buffered(AT_ONCE);
        let mut read = std::pin::pin!(read);
        while let Some(mut part) = read.next().await {
            loop {
                let (mut left, mut is_last) = (None, true);
                if let Ok(part) = &mut part {
                    let bytes: usize = part.pieces.iter().map(Piece::bytes).sum();
                    let permits = (bytes >> 10).clamp(1, WAITING_BYTES >> 10) as u32;
                    part._memory = memory.clone().acquire_many_owned(permits).await.ok();
                    (left, is_last) = (part.left, part.is_empty);
                }
                if sender.send(part).await.is_err() || is_last {
                    return;
                }
                let Some(left) = left else { break };
                part = read_part(&upstream, &judging, left, &guess).await;
            }
        }
    });
    receiver
}

/// How a range is cut into parts.
struct Guess {
    /// How many ids a page covers.
    covered: AtomicI64,
    /// From the end of some part up to this id, there is no record.
    empty_up_to: AtomicI64,
}

impl Guess {
    /// The first part of what is left.
    fn part(&self, left: Range) -> Option<Range> {
        let after = left.after.max(self.empty_up_to.load(Ordering::Relaxed));
        let to = after.saturating_add(self.covered.load(Ordering::Relaxed)).min(left.to);
        (after < to).then_some(Range { after, to })
    }

    /// What a part's first page says about the parts after it.
    fn learn(&self, piece: &Piece) {
        if let Some(beyond) = piece.beyond {
            self.empty_up_to.fetch_max(beyond - 1, Ordering::Relaxed);
        }
        if let Some((first, highest)) = piece.lowest.or(piece.beyond).zip(piece.highest) {
            self.covered.store((highest - first + 1).clamp(1, MOST_IDS), Ordering::Relaxed);
        }
    }
}

async fn read_part(upstream: &Upstream, judging: &Arc<Judging>, range: Range, guess: &Guess) -> Result<Part> {
    let mut part = Part { pieces: Vec::new(), left: None, is_empty: false, _memory: None };
    let mut after = range.after;
    while after < range.to && part.left.is_none() {
        let mut piece = read_page(upstream, judging, Range { after, ..range }).await?;
        let Some(highest) = piece.highest.filter(|highest| *highest > after) else {
            part.is_empty = true;
            break;
        };
        if after == range.after && !piece.is_cut {
            guess.learn(&piece);
        }
        // What is beyond the part is the next one's.
        after = highest.min(range.to);
        piece.highest = Some(after);
        part.left = (piece.is_cut && after < range.to).then_some(Range { after, ..range });
        part.pieces.push(piece);
    }
    Ok(part)
}

/// The records of `range` on the page that begins with them.
pub(super) async fn read_page(upstream: &Upstream, judging: &Arc<Judging>, range: Range) -> Result<Piece> {
    let (body, judging) = (upstream.page(range.after).await?, judging.clone());
    blocking(move || judge(&format!("read?offset={}", range.after), body, &judging, range)).await
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use sporlog_record::Kind;

    use super::*;

    #[test]
    fn parts_follow_each_other_and_pass_over_what_is_known_to_be_empty() {
        let guess = Guess { covered: PAGE.into(), empty_up_to: 0.into() };
        let part = |after, to| guess.part(Range { after, to }).map(|part| (part.after, part.to));
        let learn = |lowest, beyond, highest| {
            let rows = RecordBatch::new_empty(Kind::Auditlog.row_schema());
            let (ids, refused) = (Vec::new(), Vec::new());
            guess.learn(&Piece { rows, ids, refused, highest, lowest, beyond, is_cut: false });
        };
        assert_eq!((part(0, 50), part(0, 1_000), part(1_000, 1_000)), (Some((0, 50)), Some((0, 100)), None));
        // Ids that skip: a page covers more of them, and between two of them there is nothing.
        learn(Some(7), Some(130), Some(306));
        assert_eq!(part(100, 1_000), Some((129, 429)));
        // Nothing but what is far beyond.
        learn(None, Some(5_000_000), Some(5_000_099));
        assert_eq!((part(429, 1_000), part(429, 9_000_000)), (None, Some((4_999_999, 5_000_099))));
    }
}
