//! The arguments of `sporlog verify`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueHint};

use super::examples;

/// Check a whole log, a served log, one proof, or that a log continues an earlier checkpoint.
///
/// `verify LOG` recomputes everything from the records up: every commitment, every tile, the root, the
/// signatures, the digests of all files. Problems are printed one per line, `FILE: problem`.
/// `verify LOG --since CHECKPOINT` checks that the log only grew since that checkpoint was signed.
/// `verify LOG --range A..B` checks a part of a log, and prints a small signed result; `verify LOG --join FILE...` checks the
/// whole log by such results of all its parts, and by what has no range. So a log can be checked by many processes at once. It
/// needs the log's keys, which sign the results.
/// `verify --url URL --key VKEY` checks what a server shows of a log to everybody: it fetches the
/// checkpoint, all tiles and all entries, and recomputes the tree from the entries.
/// `verify --proof FILE --key VKEY` checks one record, offline and without a store.
/// Signatures are checked with the key that --key gives, and with no other. Without it, they are checked with
/// the key folder's public key, or else with the log's own copy; the output says with which.
/// Exits with 1 if something is not as it should be.
#[derive(Debug, Args)]
#[command(after_help = examples::VERIFY)]
#[command(group(ArgGroup::new("target").required(true).args(["log", "url", "proof"])))]
pub struct VerifyArgs {
    /// The log's name
    #[arg(value_name = "LOG")]
    pub log: Option<String>,
    /// A served log, such as https://host/tlog/LOG
    #[arg(short, long, value_name = "URL", requires = "key", value_hint = ValueHint::Url)]
    pub url: Option<String>,
    /// A checkpoint that was kept from earlier (a copy of the log's file tlog/checkpoint)
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "proof", value_hint = ValueHint::FilePath)]
    pub since: Option<PathBuf>,
    /// The ids of a part, such as 1..100000; without B, the part goes on to the checkpoint's end
    #[arg(long, value_name = "A..B", requires = "log", conflicts_with = "since", value_parser = parse_range)]
    pub range: Option<(u64, Option<u64>)>,
    /// The results of --range, of all parts of the log
    #[arg(long, value_name = "FILE", requires = "log", num_args = 1.., conflicts_with_all = ["since", "range"],
          value_hint = ValueHint::FilePath)]
    pub join: Vec<PathBuf>,
    /// For --range and --join: the checkpoint up to which the log is checked, as a copy of its file tlog/checkpoint [default:
    /// the log's newest]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub checkpoint: Option<PathBuf>,
    /// A proof, as `sporlog prove` makes it; - is standard input
    #[arg(short, long, value_name = "FILE", requires = "key", value_hint = ValueHint::FilePath)]
    pub proof: Option<PathBuf>,
    /// The log's public key, or a file with it
    #[arg(short, long, value_name = "VKEY")]
    pub key: Option<String>,
}

fn parse_range(text: &str) -> Result<(u64, Option<u64>), String> {
    let ids = || {
        let (first, last) = text.split_once("..")?;
        let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
        Some((first.parse().ok()?, last))
    };
    let range = ids().filter(|(first, last)| *first > 0 && last.is_none_or(|last| *first <= last));
    range.ok_or_else(|| "two ids are expected, the smaller one first, such as 1..100000".to_owned())
}
