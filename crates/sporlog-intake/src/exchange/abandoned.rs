//! Uploads to our server that nobody went on with.
//!
//! A connection that breaks leaves what came of a file behind, to be resumed. After a week without a byte
//! it is taken to be given up: it is kept aside like any refused file, with a receipt that says so.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::claim::Claim;
use super::name::shown;
use super::receipt::{Note, Outcome, Receipt};
use super::tree::Home;

/// How long an upload may rest.
const PATIENCE: Duration = Duration::from_hours(7 * 24);

/// Claims the account's abandoned uploads and writes down that they are refused; what is left to be done
/// is to answer and to clear away. One that cannot be claimed is tried again the next time.
pub(super) fn give_up(home: &Home, account: &str, log: &str) -> io::Result<Vec<Claim>> {
    let before = SystemTime::now().checked_sub(PATIENCE);
    let before = before.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let mut given_up = Vec::new();
    for entry in fs::read_dir(home.uploads())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let changed = u64::try_from(metadata.ctime()).unwrap_or_default();
        if !metadata.is_file() || changed > before.as_secs() {
            continue;
        }
        let claim = Claim::plan(home, account, &entry.file_name());
        match refuse(home, &claim, log, metadata.len()) {
            Ok(true) => given_up.push(claim),
            Ok(false) => {}
            Err(error) => tracing::warn!(account, %error, "an abandoned upload cannot be put aside yet"),
        }
    }
    Ok(given_up)
}

/// The decision first: without it, what is claimed would be taken for a delivery.
fn refuse(home: &Home, claim: &Claim, log: &str, bytes: u64) -> io::Result<bool> {
    let text = "its upload broke off a week ago and was not taken up again; deliver the file anew";
    let refused = vec![Note::on_file("incomplete", text)];
    let begun = Receipt::begun(&claim.id, &claim.account, shown(&claim.name), log, claim.taken_at);
    claim.decide(&Receipt { outcome: Outcome::Refused, bytes, refused, ..begun })?;
    claim.take_from(&home.uploads())
}
