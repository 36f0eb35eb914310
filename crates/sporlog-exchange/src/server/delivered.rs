//! The files that an account has delivered of late, as its sessions go on seeing them.
//!
//! After an upload and its rename, clients ask for the file's size or set its time, and by then the inbox may have
//! claimed it. So a delivered file stays visible until a minute after its receipt, for the sessions that were there
//! when it was delivered: a client may have several, and uses one or another of them. Sessions that begin later do not
//! see it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use sporlog_intake::blocking::lock;

use crate::name::receipt_stem;
use crate::tree::Home;

use super::disk;
use super::packets::Attributes;

/// Files that are remembered of an account. Of more, the oldest are forgotten.
const MOST: usize = 1_000;
/// How long a file stays visible after its receipt, in seconds.
const AFTER_RECEIPT: u64 = 60;

/// The files that an account has delivered of late, oldest first.
#[derive(Debug, Default)]
pub(super) struct Delivered(Mutex<VecDeque<DeliveredFile>>);

#[derive(Debug)]
struct DeliveredFile {
    name: String,
    attributes: Attributes,
    at: Instant,
    /// The same moment, in seconds since 1970.
    clock: u64,
}

impl Delivered {
    /// Remembers a file that lies in the inbox now.
    pub(super) fn remember(&self, name: &str, attributes: Attributes) {
        let mut files = lock(&self.0);
        files.retain(|file| file.name != name);
        if files.len() == MOST {
            files.pop_front();
        }
        let file = DeliveredFile { name: name.to_owned(), attributes, at: Instant::now(), clock: now() };
        files.push_back(file);
    }

    /// Forgets a file that the account has renamed or removed.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.0).retain(|file| file.name != name);
    }

    /// The file of this name, if a session sees it that began at `began`.
    pub(super) fn find(&self, name: &str, home: &Home, began: Instant) -> Option<Attributes> {
        let files = lock(&self.0);
        let file = files.iter().find(|file| file.name == name)?;
        file.is_visible(home, began).then_some(file.attributes)
    }

    /// The files that a session sees that began at `began`.
    pub(super) fn list(&self, home: &Home, began: Instant) -> Vec<(String, Attributes)> {
        let files = lock(&self.0);
        let visible = files.iter().filter(|file| file.is_visible(home, began));
        visible.map(|file| (file.name.clone(), file.attributes)).collect()
    }
}

impl DeliveredFile {
    fn is_visible(&self, home: &Home, began: Instant) -> bool {
        if began > self.at {
            return false;
        }
        let receipt = format!("{}.json", receipt_stem(OsStr::new(&self.name)));
        let receipt = disk::Folder::open(&home.receipts()).and_then(|folder| folder.stat(&receipt));
        let written = receipt.map_or(0, |receipt| receipt.changed.into());
        !is_over(self.clock, written, now())
    }
}

/// Whether a file that was delivered at `delivered` is not seen any more at `now`, where its newest receipt is of
/// `written`. A receipt from before is another delivery's.
fn is_over(delivered: u64, written: u64, now: u64) -> bool {
    written >= delivered && now >= written + AFTER_RECEIPT
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_after_its_receipt_a_file_is_gone() {
        for (written, now, over) in [
            (0, 1_000_000, false),
            (999, 1_000_000, false),
            (1_000, 1_059, false),
            (1_500, 1_559, false),
            (1_000, 1_060, true),
            (1_500, 1_560, true),
        ] {
            assert_eq!(is_over(1_000, written, now), over, "{written} {now}");
        }
    }

    #[test]
    fn the_newest_are_remembered_each_once() {
        let delivered = Delivered::default();
        let attributes = Attributes { size: 1, mode: 0o100_640, changed: 0 };
        for n in 0..MOST + 2 {
            delivered.remember(&n.to_string(), attributes);
        }
        delivered.remember("5", Attributes { size: 2, ..attributes });
        delivered.forget("6");
        let files = lock(&delivered.0);
        assert_eq!((files.len(), &*files[0].name, &*files[MOST - 2].name), (MOST - 1, "2", "5"));
    }
}
