//! A delivery's receipt in its supplier's folder, as JSON and as text.
//!
//! The newest receipt for a file name has the plain name. The receipt of an earlier delivery with the same
//! file name is renamed, with that delivery's id in its name, so that none is lost. Writing the receipts of a
//! delivery twice gives the same files.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::claim::{Claim, open};
use crate::name::receipt_stem;
use crate::receipt::{Earlier, LISTED_ROWS, Note, Outcome, Receipt};
use crate::tree::Home;
use sporlog_ledger::local_files::{rename_new, replace};

/// A larger file is not read as a receipt; none of ours is as large.
const LARGEST: u64 = 64 << 20;
/// The two forms of a receipt.
const FORMS: [&str; 2] = ["json", "txt"];

/// The receipt as JSON, for programs.
pub(super) fn as_json(receipt: &Receipt) -> io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(receipt)?;
    json.push(b'\n');
    Ok(json)
}

/// Writes both forms of the receipt into the supplier's folder; durable when this returns.
pub(super) fn write_receipts(home: &Home, claim: &Claim, receipt: &Receipt) -> io::Result<()> {
    let folder = home.receipts();
    let stem = receipt_stem(&claim.name);
    rename_earlier(&folder, &stem, &claim.id)?;
    for (form, bytes) in FORMS.into_iter().zip([as_json(receipt)?, as_text(receipt).into_bytes()]) {
        let beside = home.scratch().join(format!("{}.{form}", claim.id));
        replace(&beside, &folder.join(format!("{stem}.{form}")), &bytes, 0o640)?;
    }
    Ok(())
}

/// Renames the receipt of an earlier delivery with the same file name.
fn rename_earlier(folder: &Path, stem: &str, delivery: &str) -> io::Result<()> {
    let plain = folder.join(format!("{stem}.json"));
    let mut bytes = Vec::new();
    match open(&plain) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Anything but a regular file, or what cannot be read, counts as no receipt.
        opened => drop(opened.and_then(|(file, _)| file.take(LARGEST).read_to_end(&mut bytes))),
    }
    let older = serde_json::from_slice::<Receipt>(&bytes);
    let id = match older {
        Ok(older) if older.delivery == delivery => return Ok(()),
        Ok(older) => older.delivery,
        // Not a receipt, or a damaged one: kept all the same.
        Err(_) => format!("before-{delivery}"),
    };
    // The text first. While the JSON has the plain name, a repeat after a crash finds it and goes on.
    for form in FORMS.into_iter().rev() {
        let from = folder.join(format!("{stem}.{form}"));
        match rename_new(&from, &folder.join(format!("{stem}.{id}.{form}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&from)?,
            renamed => renamed?,
        }
    }
    Ok(())
}

/// The receipt as text, for people.
fn as_text(receipt: &Receipt) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("file", &receipt.file);
    line("delivery", &receipt.delivery);
    line("outcome", &outcome(receipt));
    line("bytes", &receipt.bytes);
    if !receipt.sha256.is_empty() {
        line("sha256", &receipt.sha256);
    }
    line("taken at", &receipt.taken_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    if let Some(at) = receipt.received_at {
        line("received at", &at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    }
    if receipt.outcome == Outcome::Accepted {
        line("log", &receipt.log);
        line("accepted", &receipt.accepted);
        line("quarantined", &receipt.quarantined);
        line("remarks", &receipt.remarks);
        line("overlapping", &overlapping(receipt));
        if let Some((first, last)) = receipt.first_id.zip(receipt.last_id) {
            line("ids", &format_args!("{first} to {last}"));
        }
    }
    line("seconds", &format_args!("{:.2}", receipt.seconds));
    if let Some(earlier) = &receipt.repeats {
        let _ = writeln!(text, "\nThe same bytes came before: {}", earlier_one(earlier));
    }
    if !receipt.overlaps.is_empty() {
        let _ = writeln!(text, "\nRows of this file came before, in");
        for earlier in &receipt.overlaps {
            let _ = writeln!(text, "  {}", earlier_one(earlier));
        }
    }
    list(&mut text, "Remarks on the file", &receipt.file_remarks);
    list(&mut text, "Why the file was refused", &receipt.refused);
    list(&mut text, "Rows in the quarantine, and why", &receipt.quarantined_rows);
    list(&mut text, "Remarks on rows that were accepted", &receipt.remarked_rows);
    text
}

fn outcome(receipt: &Receipt) -> &'static str {
    match receipt.outcome {
        Outcome::Accepted if receipt.quarantined > 0 => {
            "accepted, but for the rows in the quarantine: correct them and deliver them again"
        }
        Outcome::Accepted if receipt.accepted == 0 && receipt.skipped > 0 => {
            "accepted; all of its rows were there already"
        }
        Outcome::Accepted => "accepted",
        Outcome::Repeated => "repeated: everything in it is stored since before, and nothing was stored now",
        Outcome::Refused => "refused whole: nothing of it was stored; correct it and deliver it again",
    }
}

fn overlapping(receipt: &Receipt) -> String {
    match (receipt.overlapping, receipt.skipped) {
        (0, _) => "0".to_owned(),
        (rows, 0) => format!("{rows} rows that came before, taken again"),
        (rows, _) => format!("{rows} rows that came before, skipped"),
    }
}

fn earlier_one(earlier: &Earlier) -> String {
    let at = earlier.received_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let mut text = match (&earlier.file, &earlier.delivery) {
        (Some(file), Some(delivery)) => format!("{file} (delivery {delivery}), received at {at}"),
        _ => format!("what was received at {at}"),
    };
    if let Some(rows) = earlier.rows {
        let _ = write!(text, ": {rows} rows");
    }
    text
}

fn list(text: &mut String, title: &str, notes: &[Note]) {
    if notes.is_empty() {
        return;
    }
    let first = if notes.len() < LISTED_ROWS { "" } else { " (the first of them)" };
    let _ = writeln!(text, "\n{title}{first}:");
    for Note { line, column, field, text: what, transaction_id, .. } in notes {
        let row = transaction_id.as_ref().map(|id| format!(", TransaktionsId {id}")).unwrap_or_default();
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        let _ = writeln!(text, "  line {line}, column {column}{row}: {field}{what}");
    }
}
