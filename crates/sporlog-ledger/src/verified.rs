//! What a verification found.

use crate::commit::RolledBack;
use crate::error::{Error, Result};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the log's folder.
    pub file: String,
    /// What is wrong.
    pub problem: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// The newest id.
    pub head: u64,
    /// Where results were joined: how many records the checkpoint covers that they lead to.
    pub covered: u64,
    /// Records whose commitment was recomputed.
    pub records: u64,
    /// Records that retention removed, and whose removal is signed for.
    pub expired: u64,
    /// Data files read.
    pub files: usize,
    /// Commits of the Delta log read.
    pub commits: u64,
    /// From where to where the log was rolled back, each time.
    pub rolled_back: Vec<RolledBack>,
    /// Whether the log's secret was at hand, without which records are only checked by their files' digests.
    pub with_secret: bool,
    /// Whether the newest commit is signed. Otherwise an earlier version of this program made the log, and
    /// the next writer verifies and signs it.
    pub signed: bool,
    /// All that is wrong; empty when nothing is.
    pub problems: Vec<Problem>,
}

impl Verified {
    /// Notes a problem, once.
    pub(crate) fn found(&mut self, error: Error) {
        let (file, problem) = match error {
            Error::Damaged { file, problem } => (file, problem),
            Error::Storage { file, source: object_store::Error::NotFound { .. } } => {
                (file, "it is missing".into())
            }
            Error::Storage { file, source } | Error::Unsure { file, source } => (file, source.to_string()),
            Error::Parquet { file, source } => (file, format!("it cannot be read: {source}")),
            other => ("-".into(), other.to_string()),
        };
        if !self.problems.iter().any(|p| p.file == file && p.problem == problem) {
            self.problems.push(Problem { file, problem });
        }
    }

    /// Notes the problem of a check that failed.
    pub(crate) fn check(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.found(error);
        }
    }
}
