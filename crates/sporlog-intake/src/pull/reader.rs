//! A range of the upstream's ids, page by page, several at once, in order.
//!
//! A page says only with its last id where the next one begins. So that several can be asked for at once, the range is
//! cut into parts by guessing how many ids a page covers; of a part, pages are read until its end is reached, and what
//! is beyond is left to the next part. A wrong guess costs a request or two, and never a record.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::stream::{self, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::page::{Judging, Page, Piece, Range};
use super::upstream::Upstream;
use crate::blocking::blocking;
use crate::error::{Error, Result};

/// Requests that are under way at once.
const AT_ONCE: usize = 4;
/// Parts that may wait to be stored, and the memory that all of them may take.
const WAITING: usize = 1_024;
const WAITING_BYTES: usize = 64 << 20;
/// A page covers at least so many ids, as the interface says; and a guess goes up to so many.
const PAGE: i64 = 100;
const MOST_IDS: i64 = 1_000_000;

/// A part of a range that has been read.
pub(super) struct Part {
    pub range: Range,
    pub pieces: Vec<Piece>,
    /// A page that was too long to be judged at once. The rest of the range has not been read.
    pub rest: Option<Page>,
    /// The upstream has nothing above the last of these, though the range goes on.
    pub empty: bool,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Reads `range`; the parts come in its order. It ends with the first error.
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
            if let Ok(part) = &mut part {
                let bytes: usize = part.pieces.iter().map(Piece::bytes).sum();
                let permits = (bytes >> 10).clamp(1, WAITING_BYTES >> 10) as u32;
                part._memory = memory.clone().acquire_many_owned(permits).await.ok();
            }
            let failed = part.is_err();
            if sender.send(part).await.is_err() || failed {
                return;
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
    let mut part = Part { range, pieces: Vec::new(), rest: None, empty: false, _memory: None };
    let mut after = range.after;
    while after < range.to {
        let body = upstream.page(after).await?;
        let (judging, range) = (judging.clone(), Range { after, to: range.to });
        let (piece, page) = blocking(move || {
            let mut page = Page::new(format!("read?offset={after}"), body, &judging.rules);
            let piece = page.judge(&judging, range)?;
            Ok::<_, Error>((piece, page))
        })
        .await?;
        match piece.highest.filter(|highest| *highest > after) {
            None => {
                part.empty = true;
                break;
            }
            Some(highest) => {
                if after == part.range.after && page.is_ended() {
                    guess.learn(&piece);
                }
                after = highest;
                part.pieces.push(piece);
            }
        }
        if !page.is_ended() {
            part.rest = Some(page);
            break;
        }
    }
    Ok(part)
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
            guess.learn(&Piece { rows, ids, refused, highest, lowest, beyond });
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
