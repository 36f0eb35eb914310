//! Which bytes of a file have been written: those up to the first gap, and pieces behind it.
//!
//! Clients have several writes under way, and a connection that is lost may lose some of them in the middle. Whoever
//! resumes an upload goes on where the file ends, so the file must have no gap before its end.

use std::collections::BTreeMap;

/// The most pieces. Clients have some dozens of writes under way.
const MOST: usize = 10_000;

/// The written bytes of a file, as pieces that do not touch: where each begins, and where it ends.
#[derive(Debug, Default)]
pub(super) struct Extents(BTreeMap<u64, u64>);

impl Extents {
    /// A file of so many bytes without a gap.
    pub(super) fn whole(size: u64) -> Self {
        let mut extents = Extents::default();
        extents.add(0, size);
        extents
    }

    /// How many bytes there are before the first gap.
    pub(super) fn prefix(&self) -> u64 {
        self.0.get(&0).copied().unwrap_or(0)
    }

    /// Where the first gap ends; `size` if nothing is written behind it.
    pub(super) fn gap_end(&self, size: u64) -> u64 {
        self.0.keys().copied().find(|start| *start > 0).unwrap_or(size)
    }

    /// Adds the bytes from `start` to `end`. False if there are too many pieces now.
    pub(super) fn add(&mut self, mut start: u64, mut end: u64) -> bool {
        if start == end {
            return true;
        }
        if let Some((&before, &ends)) = self.0.range(..=start).next_back()
            && ends >= start
        {
            (start, end) = (before, end.max(ends));
        }
        while let Some((&next, &ends)) = self.0.range(start..=end).next() {
            self.0.remove(&next);
            end = end.max(ends);
        }
        self.0.insert(start, end);
        self.0.len() <= MOST
    }

    /// Forgets the bytes from `size` on.
    pub(super) fn truncate(&mut self, size: u64) {
        self.0.split_off(&size);
        if let Some(mut last) = self.0.last_entry() {
            let end = (*last.get()).min(size);
            last.insert(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_become_one() {
        let mut extents = Extents::default();
        for (start, end, prefix) in
            [(20, 30, 0), (40, 50, 0), (0, 10, 10), (30, 40, 10), (5, 5, 10), (8, 25, 50)]
        {
            assert!(extents.add(start, end));
            assert_eq!(extents.prefix(), prefix, "{start} to {end}");
        }
        assert_eq!(extents.0.len(), 1);
        assert!(extents.add(60, 70));
        assert_eq!((extents.gap_end(99), extents.prefix()), (60, 50));
        extents.truncate(65);
        assert_eq!(extents.0.last_key_value(), Some((&60, &65)));
        extents.truncate(60);
        assert_eq!((extents.gap_end(99), extents.prefix()), (99, 50));
        extents.truncate(0);
        assert_eq!((extents.gap_end(99), extents.prefix()), (99, 0));
    }

    #[test]
    fn agrees_with_a_plain_list() {
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..300 {
            let (mut extents, mut plain) = (Extents::default(), [false; 64]);
            for _ in 0..12 {
                let (start, length) = (next(60), next(9));
                let end = (start + length).min(64);
                if next(8) == 0 {
                    extents.truncate(start);
                    plain[start as usize..].fill(false);
                } else {
                    extents.add(start, end);
                    plain[start as usize..end as usize].fill(true);
                }
                let prefix = plain.iter().position(|written| !written).unwrap_or(64);
                assert_eq!(extents.prefix(), prefix as u64, "{extents:?}");
            }
        }
    }

    #[test]
    fn pieces_are_bounded() {
        let mut extents = Extents::default();
        assert_eq!((1..20_000).find(|n| !extents.add(n * 2, n * 2 + 1)), Some(MOST as u64 + 1));
    }
}
