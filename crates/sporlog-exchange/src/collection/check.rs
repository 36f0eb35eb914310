//! Checks received files against their manifest.

use std::path::Path;

use serde::Serialize;
use sporlog_intake::Result;
use sporlog_record::revision::write_csv_header;

use super::day_files::{FileInfo, digest, failed, file_name, names_in};
use super::manifest::{FORMAT, Manifest};

/// The result of checking a manifest.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// The manifest.
    #[serde(skip)]
    pub manifest: Manifest,
    /// The problems found; empty if all is in order.
    pub problems: Vec<String>,
}

/// Checks the files beside the manifest at `path`: their sizes, digests, rows and organisation, and that the
/// manifest is consistent. Blocks. The signatures are checked by [`Manifest::check_signatures`].
pub fn check(path: &Path) -> Result<Checked> {
    let manifest = Manifest::read(path)?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut problems = contradictions(&manifest);
    for (number, info) in (1..).zip(&manifest.files) {
        // Also keeps a manifest of unknown origin from naming a path outside the folder.
        if info.name != file_name(&manifest.organisation, manifest.day, number) {
            problems.push(format!("'{}' is no name for the file {number}", info.name.escape_debug()));
            continue;
        }
        let found = check_file(folder, info, &manifest.organisation);
        problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", info.name)));
    }
    for name in names_in(folder, &manifest.organisation, manifest.day).map_err(failed(folder))? {
        if !manifest.files.iter().any(|info| info.name == name) {
            problems.push(format!("{name}: the file is not in the manifest"));
        }
    }
    Ok(Checked { manifest, problems })
}

/// The inconsistencies within the manifest.
fn contradictions(manifest: &Manifest) -> Vec<String> {
    let Manifest { files, scanned, .. } = manifest;
    let mut problems = Vec::new();
    let mut expect = |holds: bool, text: &str| {
        if !holds {
            problems.push(text.to_owned());
        }
    };
    expect(manifest.format == FORMAT, "its format is not one that is known here");
    let rows = files.iter().try_fold(0u64, |sum, info| sum.checked_add(info.rows));
    expect(rows == Some(manifest.rows), "the files' rows are not as many as it says in all");
    let ends = (files.first().map(|f| f.first_id), files.last().map(|f| f.last_id));
    expect(ends == (manifest.first_id, manifest.last_id), "its first and last id are not those of its files");
    let fits = |info: &FileInfo| {
        let ids = info.last_id.checked_sub(info.first_id).and_then(|ids| ids.checked_add(1));
        info.rows > 0 && ids.is_some_and(|ids| info.rows <= ids)
    };
    expect(files.iter().all(fits), "a file has more rows than ids");
    let ascending = files.windows(2).all(|pair| matches!(pair, [a, b] if a.last_id < b.first_id));
    expect(ascending, "its files' ids overlap");
    let (first, last) = (manifest.first_id, manifest.last_id);
    let within = match scanned {
        Some(scanned) => {
            first.is_none_or(|id| id >= scanned.first) && last.is_none_or(|id| id <= scanned.last)
        }
        None => files.is_empty(),
    };
    expect(within, "its rows are not among the ids that were looked through");
    let at_end =
        scanned.is_none_or(|scanned| scanned.first <= scanned.last && scanned.last == manifest.tree_size);
    expect(at_end, "its tree does not end with the last id that was looked through");
    problems
}

/// The problems with a file.
fn check_file(folder: &Path, info: &FileInfo, organisation: &str) -> Vec<String> {
    let mut scan = CsvScan::new(organisation);
    let digest = match digest(&folder.join(&info.name), |bytes| scan.read(bytes)) {
        Ok(digest) => digest,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return vec!["it is missing".to_owned()];
        }
        Err(error) => return vec![format!("it cannot be read: {error}")],
    };
    let mut problems = Vec::new();
    if scan.bytes != info.bytes {
        problems.push(format!("it has {} bytes, not {}", scan.bytes, info.bytes));
    }
    if digest != info.sha256 {
        problems.push(format!("its SHA-256 is {digest}, not {}", info.sha256));
    }
    if !scan.header_fits || !scan.at_end {
        problems.push("it does not begin with the header, or does not end with a row's end".to_owned());
    }
    let rows = scan.lines.saturating_sub(1);
    if rows != info.rows {
        problems.push(format!("it has {rows} rows, not {}", info.rows));
    }
    if scan.foreign_rows > 0 {
        problems.push(format!("{} of its rows are not of {organisation}", scan.foreign_rows));
    }
    problems
}

/// The column `KalderOrganisation`, from 0.
const ORGANISATION: usize = 3;

/// What is found in a file, byte by byte.
#[derive(Default)]
struct CsvScan<'a> {
    organisation: &'a [u8],
    header: Vec<u8>,
    header_fits: bool,
    bytes: u64,
    lines: u64,
    /// Rows of other organisations.
    foreign_rows: u64,
    /// The last byte ended a row.
    at_end: bool,
    quoted: bool,
    column: usize,
    /// The organisation of the current row, without quotes.
    text: Vec<u8>,
}

impl<'a> CsvScan<'a> {
    fn new(organisation: &'a str) -> Self {
        let mut header = Vec::new();
        write_csv_header(&mut header);
        CsvScan { organisation: organisation.as_bytes(), header, header_fits: true, ..CsvScan::default() }
    }

    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(expected) = usize::try_from(self.bytes).ok().and_then(|at| self.header.get(at)) {
                self.header_fits &= byte == expected;
            }
            self.bytes += 1;
            self.at_end = false;
            match byte {
                b'"' => self.quoted = !self.quoted,
                b',' if !self.quoted => self.column += 1,
                b'\n' if !self.quoted => self.end_row(),
                // A CVR number has 8 bytes; a longer value is not kept, because it is another organisation's.
                byte if self.column == ORGANISATION && self.text.len() <= self.organisation.len() => {
                    self.text.push(*byte);
                }
                _ => {}
            }
        }
    }

    fn end_row(&mut self) {
        self.lines += 1;
        self.foreign_rows += u64::from(self.lines > 1 && self.text != self.organisation);
        self.at_end = true;
        self.column = 0;
        self.text.clear();
    }
}
