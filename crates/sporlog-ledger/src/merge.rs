//! Several logs read as one: a pattern of names, and look-ups over all that match, newest first.

use arrow::array::RecordBatch;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};

use crate::error::Result;
use crate::find::Find;
use crate::log::Log;
use crate::row_commitments::numbers;
use crate::scan::Batches;

/// Whether `pattern` stands for `name`: `*` for any number of characters, `?` for any one, all else for itself.
pub fn matches(pattern: &str, name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    // Which beginnings of the name the pattern matches, as far as it has been read.
    let mut matched = vec![false; name.len() + 1];
    matched[0] = true;
    for wanted in pattern.chars() {
        if wanted == '*' {
            let from = matched.iter().position(|matched| *matched).unwrap_or(matched.len());
            matched[from..].fill(true);
        } else {
            for at in (0..name.len()).rev() {
                matched[at + 1] = matched[at] && (wanted == '?' || wanted == name[at]);
            }
            matched[0] = false;
        }
    }
    matched[name.len()]
}

/// Whether there can be a name that both patterns stand for.
pub fn overlap(one: &str, other: &str) -> bool {
    fn rest_overlaps(one: &[char], other: &[char]) -> bool {
        match (one, other) {
            ([], []) => true,
            (['*', rest @ ..], pattern) | (pattern, ['*', rest @ ..]) if rest_overlaps(rest, pattern) => true,
            (['*', ..], [_, rest @ ..]) => rest_overlaps(one, rest),
            ([_, rest @ ..], ['*', ..]) => rest_overlaps(rest, other),
            ([a, one @ ..], [b, other @ ..]) => {
                (a == b || [a, b].contains(&&'?')) && rest_overlaps(one, other)
            }
            _ => false,
        }
    }
    let chars = |pattern: &str| pattern.chars().collect::<Vec<_>>();
    rest_overlaps(&chars(one), &chars(other))
}

/// What is found in any of `logs`, in batches of one log each. Ids descend within each log. Between logs, the
/// times of receipt decide, so far as these descend within a log: clocks may have been wrong.
pub fn find_in_all(logs: Vec<Log>, find: Find) -> BoxStream<'static, Result<(Log, RecordBatch)>> {
    let left = find.limit.unwrap_or(usize::MAX);
    let found = logs.into_iter().map(|log| Found { batches: log.find(find.clone()), log, rest: None });
    let merging = Merging { found: found.collect(), begun: false, left };
    let next = |mut merging: Merging| async move {
        let next = merging.next().await?;
        Ok(next.map(|next| (next, merging)))
    };
    futures::stream::try_unfold(merging, next).boxed()
}

/// What is found in one log, and how much of it has been given.
struct Found {
    log: Log,
    batches: Batches,
    /// The rows that are next.
    rest: Option<RecordBatch>,
}

impl Found {
    /// Sees to it that the next rows are at hand, unless there are none.
    async fn fill(&mut self) -> Result<()> {
        while self.rest.as_ref().is_none_or(|rest| rest.num_rows() == 0) {
            match self.batches.try_next().await? {
                Some(batch) => self.rest = Some(batch),
                None => {
                    self.rest = None;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// When the next row was received.
    fn newest(&self) -> Result<Option<i64>> {
        let rest = self.rest.as_ref().filter(|rest| rest.num_rows() > 0);
        rest.map(|rest| Ok(numbers(rest)?.1.value(0))).transpose()
    }
}

struct Merging {
    found: Vec<Found>,
    begun: bool,
    /// Rows that may still be given.
    left: usize,
}

impl Merging {
    /// The rows of the log that has the newest, up to where another log's next row is newer.
    async fn next(&mut self) -> Result<Option<(Log, RecordBatch)>> {
        if !self.begun {
            self.begun = true;
            futures::future::try_join_all(self.found.iter_mut().map(Found::fill)).await?;
        }
        let mut best = None;
        let mut second = i64::MIN;
        for (at, found) in self.found.iter().enumerate() {
            let Some(newest) = found.newest()? else { continue };
            match best {
                Some((_, so_far)) if newest <= so_far => second = second.max(newest),
                other => {
                    second = other.map_or(second, |(_, so_far)| second.max(so_far));
                    best = Some((at, newest));
                }
            }
        }
        let Some(found) = best.and_then(|(at, _)| self.found.get_mut(at)).filter(|_| self.left > 0) else {
            return Ok(None);
        };
        let Some(rest) = found.rest.take() else { return Ok(None) };
        let received = numbers(&rest)?.1;
        let run = (0..rest.num_rows()).take_while(|row| received.value(*row) >= second).count();
        let run = run.clamp(1, self.left);
        let (rows, log) = (rest.slice(0, run), found.log.clone());
        found.rest = Some(rest.slice(run, rest.num_rows() - run));
        found.fill().await?;
        self.left -= run;
        Ok(Some((log, rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_wildcards() {
        for (pattern, name, expected) in [
            ("disclosure", "disclosure", true),
            ("disclosure", "disclosure-1", false),
            ("disclosure*", "disclosure", true),
            ("disclosure*", "disclosure-12", true),
            ("disclosure-*", "disclosure", false),
            ("*", "anything", true),
            ("*-1", "disclosure-1", true),
            ("*-1", "disclosure-11", false),
            ("d*s*e", "disclosure", true),
            ("d*x*e", "disclosure", false),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-c-", false),
            ("*.csv", "day.csv", true),
            ("*.csv", "day.csv.gz", false),
            ("rev_??.csv", "rev_01.csv", true),
            ("10.0.0.?", "10.0.0.17", false),
            ("æ*", "æøå", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_overlap_if_both_can_match_a_name() {
        for (one, other, expected) in [
            ("disclosure*", "disclosure-1", true),
            ("disclosure*", "revision", false),
            ("disclosure*", "*-nav", true),
            ("disclosure*", "revision*", false),
            ("disclosure-*", "disclosure", false),
            ("*a", "b*", true),
            ("*a", "*b", false),
            ("a?c", "?b*", true),
            ("a?", "a", false),
            ("", "*", true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_overlaps_a_pattern_that_matches_it(pattern in "[ab*?]{0,8}", name in "[ab]{0,6}") {
            assert_eq!(overlap(&pattern, &name), matches(&pattern, &name));
        }

        #[test]
        fn a_pattern_matches_itself(name in "[a-z0-9.-]{1,40}", other in "[ -~]{0,40}") {
            assert!(matches(&name, &name));
            let _ = matches(&other, &name);
        }
    }
}
