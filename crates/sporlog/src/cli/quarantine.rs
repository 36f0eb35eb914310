//! What can be asked of the quarantine.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};
use sporlog_intake::quarantine::Meant;

use super::examples;

/// See what was refused and why, and put it right.
///
/// The quarantine is itself a log: what was refused stays on record, and so does what became of it.
#[derive(Debug, Args)]
#[command(after_help = examples::QUARANTINE)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    pub what: Quarantine,
}

/// What can be done with the quarantine.
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List what waits: id, since when, log, source, and the first error
    List {
        /// Only what was meant for this log
        #[arg(short, long, value_name = "NAME")]
        log: Option<String>,
    },
    /// Show one item: where it came from, all reasons, and the bytes as they were delivered
    Show {
        /// The item's id in the quarantine
        #[arg(value_name = "ID")]
        id: u64,
        /// Print nothing but the bytes, to be corrected and replayed
        #[arg(short = 'C', long, conflicts_with = "json")]
        content: bool,
    },
    /// Put an item into its log after all, as it is or corrected
    Replay {
        /// The item's id in the quarantine
        #[arg(value_name = "ID")]
        id: u64,
        /// The corrected record (for revision: the row, with or without a header); - is standard input
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Store a row that the log has already all the same
        #[arg(long)]
        force: bool,
    },
    /// Give items up; that is recorded, too
    #[command(group(ArgGroup::new("meant").required(true).multiple(true).args(["items", "delivery"])))]
    Discard {
        /// The items' ids in the quarantine, or ranges of them (4-9)
        #[arg(value_name = "ID", value_parser = parse_items)]
        items: Vec<Meant>,
        /// What waits of this delivery, by the id in its receipt (SFTP)
        #[arg(short, long, value_name = "DELIVERY")]
        delivery: Option<String>,
        /// Why
        #[arg(short, long, value_name = "TEXT")]
        reason: String,
    },
}

/// `4`, or `4-9` for all that wait from 4 to 9.
fn parse_items(text: &str) -> Result<Meant, String> {
    let id = |text: &str| text.parse::<u64>().ok();
    let meant = match text.split_once('-') {
        None => id(text).map(Meant::One),
        Some((first, last)) => id(first).zip(id(last)).map(|(first, last)| Meant::Range(first, last)),
    };
    let meant = meant.filter(|meant| !matches!(meant, Meant::Range(first, last) if first > last));
    meant.ok_or_else(|| "an id such as 4, or a range such as 4-9, is expected".to_owned())
}
