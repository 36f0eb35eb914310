//! What `sporlog collect` takes.

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::{Args, ValueHint};

use crate::timerange::parse_date;

/// Write the municipalities' files at once instead of at night, or check files that were fetched.
///
/// The section [sftp] of the configuration says who the municipalities are. Each gets the rows whose
/// KalderOrganisation is one of its CVR numbers, as ud/<yyyy-mm>/revisionslog_<CVR>_<day>_<nn>.csv in its
/// folder, in the order of the log's ids, and beside them revisionslog_<CVR>_<day>.manifest.json: rows,
/// ids and SHA-256 of each file, and what the log states of them, signed. The days are those of receipt,
/// in UTC. A day of which a municipality has no rows gets a manifest that says so.
///
/// Without --date, it writes what the night would: the days that are over and have not been collected, of
/// the last 35; and besides, the current day so far ("complete": false), which is replaced when it is
/// over. A day is over when something was received after it, or half an hour after midnight. With --date,
/// that day is written in any case. A file that is there already with the same bytes is left alone; one
/// that a municipality has removed comes back only with --date.
///
/// A day's files become visible when all of them are complete, the manifest last, and each municipality's
/// collection is recorded in the log `access` before. It may be stopped at any moment, and it works while
/// `sporlog serve` runs. Prints a line for each day and CVR number; with --json, an object on a line.
///
/// With --check, reads manifests instead and compares them with the files beside them: sizes, digests,
/// rows, whose rows they are, ids, and whether the log's key has signed it. Problems are printed one per
/// line, `FILE: problem`. Exits with 1 if something is not as it should be.
#[derive(Debug, Args)]
#[command(after_help = super::examples::COLLECT)]
pub struct CollectArgs {
    /// Only what was received on this day, whether or not it has been collected
    #[arg(short, long, value_name = "D", value_parser = parse_date)]
    pub date: Option<NaiveDate>,
    /// Only for this account; may be given several times
    #[arg(short, long, value_name = "NAME")]
    pub account: Vec<String>,
    /// Only count the rows, and write nothing
    #[arg(short = 'N', long)]
    pub dry_run: bool,
    /// Check the files of these manifests
    #[arg(long, value_name = "MANIFEST", num_args = 1.., value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["date", "account", "dry_run"])]
    pub check: Vec<PathBuf>,
    /// The log's public key, or a file with it [default: that of the log in the store]
    #[arg(short, long, value_name = "VKEY", requires = "check")]
    pub key: Option<String>,
    /// A file stays below so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 2_000_000_000, hide = true)]
    pub max_bytes: u64,
}
