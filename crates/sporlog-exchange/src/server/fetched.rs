//! Which files a municipality has fetched completely: only these may be deleted, where deleting is allowed.
//!
//! `<home>/.sporlog/fetched` has a line for each such file. A crash can leave an incomplete last line: it names
//! no file, and the file has to be fetched again before it can be deleted.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use sporlog_intake::blocking::lock;

use crate::json_lines;
use crate::tree::Home;

use super::packets::Attributes;

/// Incomplete downloads that are remembered, so that an interrupted one can be resumed.
const UNDER_WAY: usize = 10_000;

/// The files that an account has fetched, completely or in part.
#[derive(Debug)]
pub(super) struct Fetched {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    whole: HashSet<String>,
    /// Bytes from the beginning of the file that were sent without a gap.
    under_way: HashMap<String, u64>,
}

/// Identifies a version of a file: a file that is written anew has another key.
pub(super) fn key(path: &str, attributes: &Attributes) -> String {
    format!("{}\t{}\t{path}", attributes.size, attributes.changed)
}

impl Fetched {
    /// Reads what an account has fetched; a file that cannot be read counts as empty.
    pub(super) fn of(home: &Home) -> Self {
        let path = home.uploads().with_file_name("fetched");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned);
        Fetched { inner: Mutex::new(Inner { whole: whole.collect(), ..Inner::default() }), path }
    }

    /// Notes that bytes of a file were sent. Returns whether the file is complete now and was not before.
    pub(super) fn handed_out(&self, key: &str, size: u64, from: u64, to: u64) -> bool {
        let mut inner = lock(&self.inner);
        if inner.whole.contains(key) {
            return false;
        }
        let done = inner.under_way.get(key).copied().unwrap_or(0);
        if from > done || (to <= done && to < size) {
            return false;
        }
        if to >= size {
            inner.under_way.remove(key);
            inner.whole.insert(key.to_owned());
            return true;
        }
        match inner.under_way.get_mut(key) {
            Some(done) => *done = to,
            None => {
                if inner.under_way.len() >= UNDER_WAY {
                    inner.under_way.clear();
                }
                inner.under_way.insert(key.to_owned(), to);
            }
        }
        false
    }

    /// Writes down that a file is complete; durable when this returns.
    pub(super) fn remember(&self, key: &str) -> io::Result<()> {
        // The lock keeps one line from being written into another.
        let _inner = lock(&self.inner);
        let mut file = json_lines::open(&self.path, 0o600)?;
        file.write_all(format!("{key}\n").as_bytes())?;
        file.sync_data()
    }

    /// Whether a file has been fetched completely.
    pub(super) fn has(&self, key: &str) -> bool {
        lock(&self.inner).whole.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_fetched_when_all_of_it_was_handed_out_in_order_or_resumed() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let home = Home::new(root.path().to_owned());
        home.create(crate::Role::Municipality)?;
        let attributes = Attributes { size: 100, mode: 0, changed: 5 };
        let (a, b) = (key("2026-11/a", &attributes), key("2026-11/b", &attributes));
        let fetched = Fetched::of(&home);
        assert!(!fetched.handed_out(&a, 100, 0, 60));
        assert!(!fetched.handed_out(&a, 100, 70, 100), "there is a hole");
        assert!(!fetched.has(&a));
        assert!(fetched.handed_out(&a, 100, 60, 100));
        assert!(!fetched.handed_out(&a, 100, 0, 100), "only once");
        assert!(fetched.has(&a) && !fetched.has(&b));
        fetched.remember(&a)?;
        assert!(Fetched::of(&home).has(&a));
        assert!(!Fetched::of(&home).has(&key("2026-11/a", &Attributes { changed: 6, ..attributes })));
        Ok(())
    }
}
