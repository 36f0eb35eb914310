//! Uploads to our server that were cut off and never resumed.
//!
//! A broken connection leaves an incomplete file in `.sporlog/uploads`, to be resumed. After a week without a
//! change the upload counts as abandoned: the file is kept aside like any refused one, with a receipt that
//! says so.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::claim::Claim;
use crate::name::shown;
use crate::receipt::{Note, Outcome, Receipt};
use crate::tree::Home;

/// An upload without a change for so long is abandoned.
const ABANDONED_AFTER: Duration = Duration::from_hours(7 * 24);

/// Claims the account's abandoned uploads, each with the decision that it is refused. Ingesting such a claim
/// writes its receipts and keeps the file aside. An upload that cannot be claimed is tried again by the next
/// call.
pub(super) fn claim_abandoned(home: &Home, account: &str, log: &str) -> io::Result<Vec<Claim>> {
    let before = SystemTime::now().checked_sub(ABANDONED_AFTER);
    let before = before.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let mut claimed = Vec::new();
    for entry in fs::read_dir(home.uploads())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let changed = u64::try_from(metadata.ctime()).unwrap_or_default();
        if !metadata.is_file() || changed > before.as_secs() {
            continue;
        }
        let claim = Claim::plan(home, account, &entry.file_name());
        match refuse(home, &claim, log, metadata.len()) {
            Ok(true) => claimed.push(claim),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(account, %error, "an abandoned upload could not be claimed; it is tried again in an hour")
            }
        }
    }
    Ok(claimed)
}

/// Writes the decision before the file is moved: a crash in between leaves a claim without a file, which the
/// next start removes, and never an incomplete file that would be taken for a delivery.
fn refuse(home: &Home, claim: &Claim, log: &str, bytes: u64) -> io::Result<bool> {
    let text = "its upload broke off a week ago and was not taken up again; deliver the file anew";
    let refused = vec![Note::on_file("incomplete", text)];
    let begun = Receipt::begun(&claim.id, &claim.account, shown(&claim.name), log, claim.taken_at);
    claim.write_decision(&Receipt { outcome: Outcome::Refused, bytes, refused, ..begun })?;
    claim.take_from(&home.uploads())
}
