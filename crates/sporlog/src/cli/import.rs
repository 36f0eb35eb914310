//! Files that are checked or taken in.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use sporlog_record::Kind;

use super::{delivered_kind, examples};

/// Validate files without storing anything.
///
/// Prints a line per finding, `file:line:column: error|remark FIELD: text`, and a summary for each
/// file. An error refuses a record; a remark is only stored with it. With --json, each finding and
/// each summary is a JSON object on a line. Exits with 1 if anything would be refused.
#[derive(Debug, Args)]
#[command(after_help = examples::CHECK)]
pub struct CheckArgs {
    #[command(flatten)]
    pub delivery: Delivery,
    /// Print errors only, and no remarks
    #[arg(short, long)]
    pub errors_only: bool,
    /// Print for each rule how many findings there are, and the first, instead of every finding
    #[arg(long)]
    pub summary: bool,
    /// Write the rows that would be refused to this file, as they are delivered, to be corrected; for one FILE
    #[arg(short, long, value_name = "BAD", value_hint = ValueHint::FilePath)]
    pub bad_rows: Option<PathBuf>,
    /// Replace the file of --bad-rows if it is there already
    #[arg(long, requires = "bad_rows")]
    pub force: bool,
}

/// Files with records of one kind.
#[derive(Debug, Args)]
pub struct Delivery {
    /// What the records are
    #[arg(value_name = "KIND", value_parser = delivered_kind())]
    pub kind: Kind,
    /// The files: JSON lines or a JSON array for disclosure, auditlog and mfa, CSV for revision; gzip and
    /// Zstandard are unpacked; - is standard input
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
}

/// Take files into a log, each exactly once.
///
/// All good records of a file become one commit: after a crash, or Ctrl-C, either all of them are
/// there or none. Bad records go to the quarantine, whole and with every reason; a file that is bad
/// as a whole is refused. A file that is written to while it is read is an error, and nothing of it is
/// stored. A receipt for each file says what happened (with --json, an object on a
/// line). The same bytes again are recognised: nothing is stored, and the receipt says since when
/// they are there. Exits with 1 if anything was refused.
#[derive(Debug, Args)]
#[command(after_help = examples::IMPORT)]
pub struct ImportArgs {
    #[command(flatten)]
    pub delivery: Delivery,
    /// The log, made if it is not there [default: named after the kind]
    #[arg(short, long, value_name = "NAME")]
    pub log: Option<String>,
    /// Store rows again that the log has from another file (revision only)
    #[arg(long)]
    pub take_overlapping: bool,
}
