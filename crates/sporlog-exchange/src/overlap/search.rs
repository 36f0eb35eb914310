//! Which of some keys a run has.
//!
//! Where there are many, theirs are gone through beside ours; where there are few, each is looked for where
//! it should lie, for hashes are spread evenly.

use std::io;
use std::ops::Range;

use super::key::Key;
use super::run::{Block, Open};

/// With so many of theirs for each of ours, ours are looked for one by one.
const SPARSE: usize = 512;
/// Heads that are read at once then.
const WINDOW: usize = 1_024;
/// A block's heads are read together with its systems if there are no more.
const SMALL: u32 = 16 << 10;
/// Tails that are read for one that is wanted, at most.
const STRAY_TAILS: usize = 64;

/// What a search works with, kept from one to the next.
#[derive(Default)]
pub(super) struct Search {
    bytes: Vec<u8>,
    heads: Vec<u32>,
    alike: Vec<Alike>,
}

/// Keys of ours whose heads are that of one of theirs.
struct Alike {
    ours: Range<usize>,
    theirs: usize,
}

impl Search {
    /// Adds to `hits` which of our keys, sorted and all of the block's slice, are in the block.
    pub fn find(&mut self, run: &Open, block: &Block, ours: &[Key], hits: &mut Vec<u32>) -> io::Result<()> {
        let small = block.keys <= SMALL;
        let begun = if small { block.tails() } else { block.heads() };
        run.read(block.at, (begun - block.at) as usize, &mut self.bytes)?;
        let (systems, small_heads) = self.bytes.split_at(8 * block.systems as usize);
        let systems: Vec<(u32, u32)> = pairs(systems);
        self.heads.clear();
        self.heads.extend(small_heads.as_chunks().0.iter().map(|head| u32::from_le_bytes(*head)));
        let (mut first, keys) = (0, block.keys as usize);
        for of_one in ours.chunk_by(|a, b| a.system() == b.system()) {
            let our_range = first..first + of_one.len();
            first = our_range.end;
            let Some(theirs) = of_one
                .first()
                .and_then(|key| range_of(&systems, key.system()))
                .filter(|theirs| theirs.end <= keys)
            else {
                continue;
            };
            self.alike.clear();
            if small {
                let heads = self.heads.get(theirs.clone()).unwrap_or_default();
                merge(of_one, heads, our_range.start, theirs.start, &mut self.alike);
            } else if of_one.len().saturating_mul(SPARSE) < theirs.len() {
                self.probe(run, block, of_one, our_range.start, theirs)?;
            } else {
                self.read_heads(run, block, theirs.clone())?;
                merge(of_one, &self.heads, our_range.start, theirs.start, &mut self.alike);
            }
            self.compare_tails(run, block, ours, hits)?;
        }
        Ok(())
    }

    fn read_heads(&mut self, run: &Open, block: &Block, theirs: Range<usize>) -> io::Result<()> {
        run.read(block.heads() + 4 * theirs.start as u64, 4 * theirs.len(), &mut self.bytes)?;
        self.heads.clear();
        self.heads.extend(self.bytes.as_chunks().0.iter().map(|head| u32::from_le_bytes(*head)));
        Ok(())
    }

    /// Looks for each of our keys among theirs.
    fn probe(
        &mut self,
        run: &Open,
        block: &Block,
        ours: &[Key],
        offset: usize,
        theirs: Range<usize>,
    ) -> io::Result<()> {
        let mut first = offset;
        for alike in ours.chunk_by(|a, b| a.hash() == b.hash()) {
            let our_range = first..first + alike.len();
            first = our_range.end;
            let Some(hash) = alike.first().map(Key::hash) else { continue };
            let Some(mut at) = self.lower_bound(run, block, theirs.clone(), hash)? else { continue };
            while at < theirs.end {
                self.read_heads(run, block, at..at + 1)?;
                if self.heads.first() != Some(&hash) {
                    break;
                }
                self.alike.push(Alike { ours: our_range.clone(), theirs: at });
                at += 1;
            }
        }
        Ok(())
    }

    /// The first of theirs that is not below `hash`; none if that is seen to be another.
    fn lower_bound(
        &mut self,
        run: &Open,
        block: &Block,
        theirs: Range<usize>,
        hash: u32,
    ) -> io::Result<Option<usize>> {
        let Range { start: mut low, end: mut high } = theirs;
        let expected = (u64::from(hash) * (high - low) as u64) >> 32;
        let mut guess = low + expected as usize;
        while low < high {
            let from = guess.saturating_sub(WINDOW / 2).clamp(low, high - 1);
            let to = high.min(from + WINDOW);
            self.read_heads(run, block, from..to)?;
            let below = self.heads.partition_point(|head| *head < hash);
            if below == 0 && from > low {
                high = from;
            } else if below == to - from && to < high {
                low = to;
            } else {
                let other = self.heads.get(below).is_some_and(|head| *head != hash);
                return Ok((!other).then_some(from + below));
            }
            guess = low + (high - low) / 2;
        }
        Ok(Some(low))
    }

    /// Of keys with the same heads, those with the same tails are the same.
    fn compare_tails(
        &mut self,
        run: &Open,
        block: &Block,
        ours: &[Key],
        hits: &mut Vec<u32>,
    ) -> io::Result<()> {
        let mut rest = self.alike.as_slice();
        while let Some(first) = rest.first() {
            // They ascend: those that are close together are read together.
            let gap = |pair: &[Alike; 2]| pair[1].theirs > pair[0].theirs + STRAY_TAILS;
            let close = rest.array_windows().position(gap).map_or(rest.len(), |last| last + 1);
            let (group, others) = rest.split_at(close);
            rest = others;
            let last = group.last().unwrap_or(first).theirs;
            let from = first.theirs;
            run.read(block.tails() + 8 * from as u64, 8 * (last + 1 - from), &mut self.bytes)?;
            let (tails, _) = self.bytes.as_chunks::<8>();
            for Alike { ours: range, theirs } in group {
                let Some(tail) = tails.get(theirs - from).map(|tail| u64::from_le_bytes(*tail)) else {
                    continue;
                };
                let candidates = ours.get(range.clone()).unwrap_or_default().iter().zip(range.start as u32..);
                hits.extend(candidates.filter(|(key, _)| key.tail == tail).map(|(_, number)| number));
            }
        }
        Ok(())
    }
}

/// Goes through both, ascending; `offset` and `theirs_at` are added to the places.
fn merge(ours: &[Key], theirs: &[u32], offset: usize, theirs_at: usize, alike: &mut Vec<Alike>) {
    let (mut our, mut their) = (0, 0);
    while let Some(hash) = ours.get(our).map(Key::hash) {
        let mut end = our + 1;
        while ours.get(end).is_some_and(|key| key.hash() == hash) {
            end += 1;
        }
        while theirs.get(their).is_some_and(|head| *head < hash) {
            their += 1;
        }
        let mut same = their;
        while theirs.get(same) == Some(&hash) {
            alike.push(Alike { ours: offset + our..offset + end, theirs: theirs_at + same });
            same += 1;
        }
        our = end;
    }
}

/// Where a system's keys lie.
fn range_of(systems: &[(u32, u32)], system: u8) -> Option<Range<usize>> {
    let at = systems.binary_search_by_key(&u32::from(system), |(system, _)| *system).ok()?;
    let start = at.checked_sub(1).and_then(|before| systems.get(before)).map_or(0, |(_, end)| *end);
    systems.get(at).map(|(_, end)| start as usize..*end as usize)
}

fn pairs(bytes: &[u8]) -> Vec<(u32, u32)> {
    let pair = |pair: &[u8; 8]| {
        let word = u64::from_le_bytes(*pair);
        (word as u32, (word >> 32) as u32)
    };
    bytes.as_chunks().0.iter().map(pair).collect()
}
