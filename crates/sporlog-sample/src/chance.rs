//! The dice: reproducible draws, weighted choices, and hashes for whatever must stay the same.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A reproducible source of chance.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// The dice of a seed; different streams of one seed know nothing of each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 128 random bits, enough for a UUID.
    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    /// Fills `bytes`.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A number from 0 to just below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `n`; 0 where there is none.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        scale(self.bits(), n)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// One of `words`, which must not be empty.
    pub(crate) fn word(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len() as u64) as usize]
    }

    /// A number below `n`, the low ones more often: the first some ten times as often as the mean,
    /// the last about a third as often.
    pub(crate) fn skewed(&mut self, n: u64) -> u64 {
        skew(self.bits(), n)
    }
}

/// As [`Dice::skewed`], from given bits.
pub(crate) fn skew(bits: u64, n: u64) -> u64 {
    let u = (bits >> 11) as f64 / (1u64 << 53) as f64;
    let position = 0.1 * u + 0.9 * u * u * u;
    ((position * n as f64) as u64).min(n.saturating_sub(1))
}

/// Spreads 64 random bits evenly over the numbers below `n`.
pub(crate) fn scale(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}

/// A hash of two numbers (the finaliser of SplitMix64): equal for equal ones, always.
pub(crate) fn hash(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// [`hash`] at twice the width, enough for a UUID.
pub(crate) fn wide_hash(a: u64, b: u64) -> u128 {
    let high = hash(a, b);
    u128::from(high) << 64 | u128::from(hash(high, b ^ 0x5851_f42d_4c95_7f2d))
}

/// A hash of a text.
pub(crate) fn hash_text(text: &str) -> u64 {
    text.bytes().fold(0, |sum, byte| hash(sum, byte.into()))
}

/// A choice among things of different weight.
pub(crate) struct Weighted {
    /// Running totals of the weights.
    totals: Vec<u64>,
}

impl Weighted {
    /// Of the given weights, not all of which are 0.
    pub(crate) fn new(weights: impl IntoIterator<Item = u64>) -> Self {
        let totals = weights.into_iter().scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Weighted { totals: totals.collect() }
    }

    /// The choice that 64 random bits stand for.
    pub(crate) fn at(&self, bits: u64) -> usize {
        let target = scale(bits, self.totals.last().copied().unwrap_or(0));
        self.totals.partition_point(|total| *total <= target)
    }

    /// A random choice.
    pub(crate) fn draw(&self, dice: &mut Dice) -> usize {
        self.at(dice.bits())
    }
}
