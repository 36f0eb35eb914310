//! A download into a register.
//!
//! The download's names are added to what is there. Where it says from when on names hold, they replace all that
//! the register had of the same organisation, topic or system. Where it does not say, a new name holds from today
//! on, and the earlier one for the time before.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use chrono::NaiveDate;
use serde::Serialize;
use sporlog_ledger::local_files::{make_folder, replace};

use super::read::{Entry, read};
use super::{HEAD, Line, NameKind, NamesError, Register, compare};
use crate::source::{Source, Told};

/// So many refusals are told in full.
const MOST_TOLD: usize = 20;

/// What came of an import.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Names that the download has.
    pub read: usize,
    /// Organisations, topics or systems that were not known before.
    pub new: usize,
    /// Those that have another name than before.
    pub changed: usize,
    /// Those whose names the register has now.
    pub known: usize,
    /// What could not be taken.
    pub refused: usize,
    /// Why, for the first of them.
    pub reasons: Vec<String>,
}

/// Takes a download into the register in `folder`; with `dry_run`, only says what would come of it. `progress` is
/// told how many bytes were read.
pub fn import(
    kind: NameKind,
    source: Source,
    folder: &Path,
    today: NaiveDate,
    dry_run: bool,
    progress: &dyn Fn(u64),
) -> Result<Imported, NamesError> {
    let name = source.name().to_owned();
    let (reader, account) = source.unpack().map_err(|error| NamesError::File {
        name: name.clone(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let told = Told { inner: reader, account: &account, progress };
    let (mut entries, mut imported) = (Vec::new(), Imported::default());
    read(kind, &name, told, &mut |taken| match taken {
        Ok(entry) => entries.push(entry),
        Err(reason) => {
            imported.refused += 1;
            if imported.reasons.len() < MOST_TOLD {
                imported.reasons.push(reason);
            }
        }
    })?;
    if entries.is_empty() {
        let reason = match imported.reasons.first() {
            Some(first) => format!("there are no {kind} in the file; {first}"),
            None => format!("there are no {kind} in the file"),
        };
        return Err(NamesError::Unknown { name, reason });
    }
    imported.read = entries.len();
    // Of two that say the same day, the later in the file counts.
    entries.reverse();
    entries.sort_by(|a, b| compare(&a.key, &b.key).then_with(|| a.from.cmp(&b.from)));
    entries.dedup_by(|a, b| compare(&a.key, &b.key).is_eq() && a.from == b.from);
    let path = kind.path(folder);
    let before = Register::load(&path)?;
    let today = today.to_string();
    let merged = merge(&before, &entries, &today, &mut imported);
    if !dry_run {
        let mut text = format!("{HEAD}\n");
        for Line { key, from, name } in merged.values().flatten() {
            // Writing into memory cannot fail.
            let _ = writeln!(text, "{key}\t{from}\t{name}");
        }
        let failed = |source| NamesError::File { name: path.display().to_string(), source };
        make_folder(folder).map_err(failed)?;
        replace(&path.with_extension("tmp"), &path, text.as_bytes(), 0o600).map_err(failed)?;
    }
    Ok(imported)
}

/// The lines of both, by their keys in small letters.
fn merge<'a>(
    before: &'a Register,
    entries: &'a [Entry],
    today: &'a str,
    imported: &mut Imported,
) -> BTreeMap<String, Vec<Line<'a>>> {
    let mut merged = BTreeMap::<_, Vec<Line<'_>>>::new();
    for line in before.all() {
        merged.entry(line.key.to_ascii_lowercase()).or_default().push(line);
    }
    for new in entries.chunk_by(|a, b| compare(&a.key, &b.key).is_eq()) {
        let lines = merged.entry(new[0].key.to_ascii_lowercase()).or_default();
        let was = lines.last().map(|line| line.name);
        let mut is: Vec<_> = new.iter().map(|Entry { key, from, name }| Line { key, from, name }).collect();
        match (was, &mut is[..]) {
            // The download does not say when the name has changed.
            (Some(name), [line]) if line.from.is_empty() => {
                if line.name != name {
                    line.from = today;
                    lines.retain(|line| line.from < today);
                    lines.append(&mut is);
                }
            }
            _ => *lines = is,
        }
        imported.new += usize::from(was.is_none());
        imported.changed += usize::from(was.is_some() && was != lines.last().map(|line| line.name));
    }
    imported.known = merged.len();
    merged
}
