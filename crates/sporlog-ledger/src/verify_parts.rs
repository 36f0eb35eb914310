//! A verification in parts: each part of a log's records is verified by a process of its own, on whatever machine, and the
//! results are joined.
//!
//! A result says: to the tree before the range, which has this root, the entries of these records were appended, and the
//! tree then has that root. The tree before is taken from the stored tiles. So results whose ranges follow on each other,
//! each beginning with the root that the one before ends with, and the first with that of no records, lead to the root of
//! all records, which has to be the signed one:
//!
//! ```text
//! sporlog-verified-range/1
//! <origin>
//! <size> <root>                the checkpoint
//! <first> <last>               the range
//! <root before> <root after>
//! <digest>                     of the names and digests of the data files that records of the range are in
//! <records> <expired>          how many were recomputed, and how many retention has removed
//! ```
//!
//! The log's key signs it: that key lies beside the secret that recomputing needs, so whoever can verify records has it.
//! The signature keeps results from being changed on their way. It does not say more than that somebody with the log's keys
//! vouches for the result.
//!
//! What has no range is verified when results are joined: the public key's copy, the chain of commits, the note on the table,
//! Delta's checkpoints, the frames' digests and signatures, and that the table's data files are those that were read.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use sporlog_record::hex;
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tlog::{self, Hash};

use crate::delta::{DataFile, Sha, unhex};
use crate::error::{Error, Result};
use crate::keys::open_note;
use crate::log::Log;
use crate::rebuild::Rebuilt;
use crate::replay::{Replayed, replay};
use crate::table_state::TableState;
use crate::tlog::{open_checkpoint, read_tree, tlog_name};
use crate::verified::Verified;
use crate::verify::{Records, TRIES, overlapping, verify_root};

const HEADER: &str = "sporlog-verified-range/1";

/// What was found of the records of a range.
#[derive(Debug)]
struct Part {
    size: u64,
    root: Hash,
    first: u64,
    last: u64,
    before: Hash,
    after: Hash,
    files: Sha,
    records: u64,
    expired: u64,
}

impl Part {
    /// The lines after the origin.
    fn lines(&self) -> String {
        let Part { size, root, first, last, before, after, files, records, expired } = self;
        let files = hex(files);
        format!("{size} {root}\n{first} {last}\n{before} {after}\n{files}\n{records} {expired}\n")
    }

    /// The part in a signed note, if one of the keys of `origin` signed it.
    fn open(note: &[u8], vkeys: &str, origin: &str) -> Result<Self, String> {
        let text = open_note(note, vkeys)?;
        let lines: Vec<_> = text.lines().collect();
        let &[HEADER, log, checkpoint, range, roots, files, counts] = lines.as_slice() else {
            return Err("it is no result of `sporlog verify --range`".to_owned());
        };
        if log != origin {
            return Err(format!("it is a result of the log '{log}', not of '{origin}'"));
        }
        let number = |text: &str| text.parse::<u64>().ok();
        let pair = |line: &'_ str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        let numbers = |line| pair(line).and_then(|(a, b)| number(&a).zip(number(&b)));
        let hash = |text: &str| Hash::parse_hash(text).ok();
        let parse = || {
            let (size, root) = pair(checkpoint)?;
            let (first, last) = numbers(range).filter(|(first, last)| (1..=*last).contains(first))?;
            let (before, after) = pair(roots)?;
            let (records, expired) = numbers(counts)?;
            Some(Part {
                size: number(&size)?,
                root: hash(&root)?,
                first,
                last,
                before: hash(&before)?,
                after: hash(&after)?,
                files: unhex(files)?,
                records,
                expired,
            })
        };
        parse().ok_or_else(|| "it is malformed".to_owned())
    }
}

/// The digest of the names and digests of the data files that hold records of a range.
fn digest_of_files(files: &[Arc<DataFile>], first: u64, last: u64) -> Sha {
    let mut digest = Sha256::new();
    for file in overlapping(files, first, last) {
        let index = file.index.map(hex).unwrap_or_default();
        digest.update(format!("{} {} {index}\n", file.name(), hex(file.sha256)));
    }
    digest.finalize().into()
}

impl Log {
    /// Verifies the records from `first` to `last`, or to the end of the checkpoint: `checkpoint`, or else the newest one.
    /// If nothing is wrong, the signed result is given, too, for [`Log::verify_join`]. The log has to be opened for reading.
    pub async fn verify_range(
        &self,
        first: u64,
        last: Option<u64>,
        checkpoint: Option<&[u8]>,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<(Verified, Option<Vec<u8>>)> {
        let keys = self.keys()?;
        let mut tries = 0;
        loop {
            tries += 1;
            self.refresh().await?;
            let state = self.state();
            let mut verified =
                Verified { with_secret: true, signed: true, head: state.size, ..Verified::default() };
            let part = self.verify_part(&mut verified, &state, first, last, checkpoint, &progress).await?;
            let gone = !verified.problems.is_empty() && self.files_went_after(state.version + 1).await?;
            if tries == TRIES || !gone {
                let good = part.filter(|_| verified.problems.is_empty());
                let text = good.map(|part| format!("{HEADER}\n{}\n{}", keys.origin(), part.lines()));
                let note = text.map(|text| keys.sign(&text)).transpose()?;
                return Ok((verified, note));
            }
        }
    }

    async fn verify_part(
        &self,
        verified: &mut Verified,
        state: &TableState,
        first: u64,
        last: Option<u64>,
        checkpoint: Option<&[u8]>,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Result<Option<Part>> {
        let storage = &self.shared.storage;
        let Some(newest) = self.verify_checkpoint(verified).await else { return Ok(None) };
        let covered = newest.size();
        let Some(given) = self.open_given(verified, checkpoint) else { return Ok(None) };
        let checkpoint = given.unwrap_or(newest);
        let (size, root) = (checkpoint.size(), *checkpoint.hash());
        let last = last.unwrap_or(size);
        if first == 0 || first > last || last > size.min(covered) {
            let reason =
                format!("the checkpoint covers the records 1 to {size}, and the range is {first}..{last}");
            return Err(Error::Proof(reason));
        }
        let tree = read_tree(storage, first - 1, covered).await?;
        let before = tree.root();
        let mut rebuilt = Rebuilt::new(storage, &state.files, covered, last, tree);
        let recent = state.recent.parts().iter().map(|part| (part.first, &part.rows));
        let segment = state.recent.extent.name();
        let records = Records { files: &state.files, recent: recent.collect(), segment: &segment };
        self.verify_records(verified, &mut rebuilt, &records, first, last, progress).await?;
        let after = rebuilt.finish(verified).await;
        let files = digest_of_files(&state.files, first, last);
        let Verified { records, expired, .. } = *verified;
        Ok(Some(Part { size, root, first, last, before, after, files, records, expired }))
    }

    /// The given checkpoint, if one is given; none at all if that is not signed by the log's key, which is a problem.
    fn open_given(&self, verified: &mut Verified, given: Option<&[u8]>) -> Option<Option<Checkpoint>> {
        let opened = given.map(|given| open_checkpoint(given, &self.shared.vkeys)).transpose();
        opened.map_err(|e| verified.found(Error::Proof(format!("the given checkpoint: {e}")))).ok()
    }

    /// Verifies the whole log up to the checkpoint (`checkpoint`, or else the newest one) by the results of
    /// [`Log::verify_range`], each with its name, and by what has no range.
    pub async fn verify_join(
        &self,
        results: &[(String, Vec<u8>)],
        checkpoint: Option<&[u8]>,
    ) -> Result<Verified> {
        let shared = &self.shared;
        let mut verified = Verified { with_secret: true, ..Verified::default() };
        self.verify_key(&mut verified).await;
        let newest_checkpoint = self.verify_checkpoint(&mut verified).await;
        let Replayed { files, newest, .. } = replay(shared, &mut verified).await?;
        let Some(newest_checkpoint) = newest_checkpoint else { return Ok(verified) };
        verified.check(verify_root(&newest, &newest_checkpoint));
        let Some(given) = self.open_given(&mut verified, checkpoint) else { return Ok(verified) };
        let given = given.as_ref().unwrap_or(&newest_checkpoint);
        verified.check(self.check_consistency(given, &newest_checkpoint).await);
        verified.files = files.len();
        verified.covered = given.size();

        let origin = given.origin();
        let mut parts = Vec::with_capacity(results.len());
        for (name, note) in results {
            match Part::open(note, &shared.vkeys, origin) {
                Ok(part) if (part.size, part.root) == (given.size(), *given.hash()) => {
                    parts.push((name, part))
                }
                Ok(part) => {
                    let (theirs, ours) = (part.size, given.size());
                    let problem =
                        format!("it is of the checkpoint of {theirs} records, and not of that of {ours}");
                    verified.found_in(name, problem);
                }
                Err(problem) => verified.found_in(name, problem),
            }
        }
        parts.sort_by_key(|(_, part)| (part.first, part.last));
        let (mut next, mut root) = (1, tlog::EMPTY_HASH);
        for (name, part) in parts {
            let Part { first, last, .. } = part;
            if first > next {
                verified.lacks(next, first - 1);
            } else if first < next {
                verified.found_in(
                    name,
                    format!("another result has the records {first} to {} too", last.min(next - 1)),
                );
            } else if part.before != root {
                let problem = format!(
                    "it begins with another tree of {} records than the results before end with",
                    next - 1
                );
                verified.found_in(name, problem);
            }
            if digest_of_files(&files, first, last) != part.files {
                let problem = "the data files with its records are others now: verify its range again";
                verified.found_in(name, problem.to_owned());
            }
            verified.records += part.records;
            verified.expired += part.expired;
            (next, root) = (next.max(last + 1), part.after);
        }
        if next <= given.size() {
            verified.lacks(next, given.size());
        } else if root != *given.hash() {
            let problem = "the records do not lead to the root that was signed";
            verified.found(Error::damaged(tlog_name("checkpoint"), problem));
        }
        Ok(verified)
    }
}

impl Verified {
    fn found_in(&mut self, result: &str, problem: String) {
        self.found(Error::Proof(format!("the result {result}: {problem}")));
    }

    fn lacks(&mut self, first: u64, last: u64) {
        self.found(Error::Proof(format!("no result has the records {first} to {last}")));
    }
}
