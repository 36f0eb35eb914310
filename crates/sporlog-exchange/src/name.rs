//! Names of delivered files: which names are temporary, and what a file's receipts are called.
//!
//! A file's name comes from outside, and may be any bytes. The name of a receipt has only printable characters
//! and a limited length.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest, Sha256};
use sporlog_record::hex;
use sporlog_record::identifier::mask_text;

/// What follows a file's name in the name of its receipt.
pub const RECEIPT: &str = ".kvittering";
/// Endings that clients give to files until they are complete.
const TEMPORARY: [&str; 5] = [".part", ".partial", ".filepart", ".tmp", ".temp"];
/// The most bytes of a file's name that its receipt's name takes over.
const LONGEST: usize = 190;

/// Whether a name is temporary: by convention, its file is still being written, and renamed when complete.
pub fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_bytes().to_ascii_lowercase();
    name.starts_with(b".") || TEMPORARY.iter().any(|ending| name.ends_with(ending.as_bytes()))
}

/// The name for display, with unprintable characters escaped and what may be a personal number masked.
pub fn shown(name: &OsStr) -> String {
    mask_text(&printable(name)).into_owned()
}

/// The name with unprintable characters escaped.
fn printable(name: &OsStr) -> String {
    let text = name.to_string_lossy();
    let printable = |c: char| !c.is_control() && c != char::REPLACEMENT_CHARACTER;
    if text.chars().all(printable) { text.into_owned() } else { text.escape_debug().to_string() }
}

/// The name of a file's receipts, without `.json` or `.txt`. Files with different names have receipts with
/// different names.
pub fn receipt_stem(name: &OsStr) -> String {
    let text = printable(name);
    let plain = text.as_bytes() == name.as_bytes() && text.len() <= LONGEST;
    if plain {
        return text + RECEIPT;
    }
    let digest = hex(Sha256::digest(name.as_bytes()));
    let mark = digest.get(..12).unwrap_or_default();
    let short = text[..text.floor_char_boundary(LONGEST)].replace('/', "_");
    format!("{short}~{mark}{RECEIPT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_being_written_are_known_by_their_names() {
        for name in [".a.csv", "a.csv.part", "a.csv.filepart", "A.CSV.TMP", "a.partial", "."] {
            assert!(is_temporary(OsStr::new(name)), "{name}");
        }
        for name in ["a.csv", "part", "a.part.csv", "tmp", "æøå.csv"] {
            assert!(!is_temporary(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn receipts_of_plain_names_are_called_after_them() {
        assert_eq!(receipt_stem(OsStr::new("KY 2026.csv")), "KY 2026.csv.kvittering");
        assert_eq!(receipt_stem(OsStr::new("журнал.csv")), "журнал.csv.kvittering");
    }

    #[test]
    fn personal_numbers_are_masked_but_not_in_the_names_of_receipts() {
        let name = OsStr::new("KY_0101018081.csv");
        assert_eq!(
            (&*shown(name), &*receipt_stem(name)),
            ("KY_01********.csv", "KY_0101018081.csv.kvittering")
        );
    }

    #[test]
    fn no_name_is_too_long_or_unprintable_and_no_two_are_the_same() {
        let long = "x".repeat(254);
        let names: [&[u8]; 7] = [
            long.as_bytes(),
            &[b'x'; 255],
            b"a\nb.csv",
            b"a\\nb.csv",
            b"\xff.csv",
            b"\xfe.csv",
            "æ".repeat(127).as_bytes(),
        ]
        .map(|name| -> &[u8] { Box::leak(name.to_vec().into_boxed_slice()) });
        let mut stems: Vec<String> = names.iter().map(|name| receipt_stem(OsStr::from_bytes(name))).collect();
        for stem in &stems {
            assert!(
                stem.len() <= 225 && !stem.contains('/') && !stem.chars().any(char::is_control),
                "{stem:?}"
            );
        }
        stems.sort();
        stems.dedup();
        assert_eq!(stems.len(), names.len());
    }
}
