//! Names of files: those that a server made up, those that files get here, and patterns of names.

use sporlog_ledger::matches;
use sporlog_record::invisible::shown;

/// Bytes of a name: with what is put around a name until its file is complete, it stays below 255.
const LONGEST: usize = 230;
/// Files of one name that are kept beside each other.
const MOST_VERSIONS: u32 = 1000;

/// Why a file here must not have a name that the server gave.
pub(super) fn objection(name: &str) -> Option<&'static str> {
    match name {
        "" | "." | ".." => Some("this is no file's name"),
        name if name.contains('/') => Some("there is a / in the name"),
        name if name.contains(char::REPLACEMENT_CHARACTER) => Some("the name is not in UTF-8"),
        name if shown(name) != name => Some("there are control characters in the name"),
        name if name.len() > LONGEST => Some("the name is too long"),
        _ => None,
    }
}

/// The names that a file may get: its own, then `day.2.csv`, `day.3.csv`.
pub(super) fn versions(name: &str) -> impl Iterator<Item = String> {
    let (stem, ending) = match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => (stem.to_owned(), format!(".{ending}")),
        _ => (name.to_owned(), String::new()),
    };
    let others = (2..=MOST_VERSIONS).map(move |number| format!("{stem}.{number}{ending}"));
    std::iter::once(name.to_owned()).chain(others)
}

/// Whether `name` matches one of `patterns`, in which `*` stands for any characters and `?` for any one.
/// Without patterns, every name does.
pub(super) fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(231);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "/etc/passwd",
            "a\nb",
            "a\0",
            "a\u{1b}[2J",
            "a\u{fffd}",
            "a\u{202e}b",
            &long,
        ] {
            assert!(objection(bad).is_some(), "{bad:?}");
        }
        for good in ["a", "day.csv", "æøå 2026.csv", "a..b", "-rf", "журнал.csv", "a\\b"] {
            assert_eq!(objection(good), None, "{good:?}");
        }
    }

    #[test]
    fn other_versions_keep_the_ending() {
        let names = |name| versions(name).take(3).collect::<Vec<_>>();
        assert_eq!(names("day.csv"), ["day.csv", "day.2.csv", "day.3.csv"]);
        assert_eq!(names("day"), ["day", "day.2", "day.3"]);
        assert_eq!(names("a.b.json"), ["a.b.json", "a.b.2.json", "a.b.3.json"]);
    }
}
