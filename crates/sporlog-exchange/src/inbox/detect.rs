//! Which files of an inbox are complete.
//!
//! A file that our SFTP server has closed is complete after a short wait, in which its sender may open it
//! again; or at once if it was renamed from a temporary name. Of any other file only its times of change are
//! known: it is complete when nothing about it has changed for a longer wait.
//!
//! Nothing here is kept on disk. After a restart every file's age is judged anew, by the time of change that
//! the file system has.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use super::claim::Stamp;
use super::events::ClosedFile;
use crate::name::is_temporary;
use sporlog_ledger::local_files::found;

/// The files of one account's inbox, as the last scan found them.
#[derive(Debug, Default)]
pub(super) struct Detector {
    files: HashMap<OsString, WaitingFile>,
    /// Files that the server has closed since the last scan.
    closed: HashMap<OsString, Closed>,
}

#[derive(Debug)]
struct WaitingFile {
    stamp: Stamp,
    /// Since when nothing about the file has changed.
    unchanged_since: Instant,
    closed: Option<Closed>,
    /// Set when claiming the file failed: when it is tried again.
    postponed: Option<Instant>,
}

/// When the server closed a file, and whether it is final.
#[derive(Debug, Clone, Copy)]
struct Closed {
    at: Instant,
    is_final: bool,
}

/// How long a file has to rest before it counts as complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct SettleTimes {
    /// After our server has closed it.
    pub closed: Duration,
    /// After the last change, where no server of ours has seen it closed.
    pub unchanged: Duration,
}

impl Detector {
    /// Notes that our server has closed a file of this inbox.
    pub fn file_closed(&mut self, file: ClosedFile) {
        self.closed.insert(file.name, Closed { at: file.at, is_final: file.is_final });
    }

    /// Reads the inbox's folder again. Of more than `most` files, the others come when these are claimed.
    pub fn scan(&mut self, inbox: &Path, most: usize, now: Instant) -> io::Result<()> {
        let mut files = HashMap::with_capacity(self.files.len());
        for entry in fs::read_dir(inbox)? {
            if files.len() == most {
                break;
            }
            let entry = entry?;
            let name = entry.file_name();
            // Of a link this is the link itself: neither a folder nor a link is a delivery.
            let Some(metadata) = found(entry.metadata())? else { continue };
            let Some(stamp) = Stamp::of(&metadata).filter(|_| !is_temporary(&name)) else { continue };
            let known = self.files.remove(&name).filter(|known| known.stamp == stamp);
            let closed = self.closed.remove(&name).or(known.as_ref().and_then(|known| known.closed));
            let postponed = known.as_ref().and_then(|known| known.postponed);
            let unchanged_since =
                known.map_or_else(|| last_change(&metadata, now), |known| known.unchanged_since);
            files.insert(name, WaitingFile { stamp, unchanged_since, closed, postponed });
        }
        self.files = files;
        // A file that was reported closed and is not there has been renamed or removed since.
        self.closed.clear();
        Ok(())
    }

    /// The complete file that has waited for longest, if any file is complete.
    pub fn next_complete(&self, settle: SettleTimes, now: Instant) -> Option<OsString> {
        let complete = self.files.iter().filter(|(_, file)| file.complete_at(settle) <= now);
        complete.min_by_key(|(name, file)| (file.unchanged_since, *name)).map(|(name, _)| name.clone())
    }

    /// When the next file will be complete if nothing is done to it.
    pub fn next_complete_at(&self, settle: SettleTimes) -> Option<Instant> {
        self.files.values().map(|file| file.complete_at(settle)).min()
    }

    /// How many files wait.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The file could not be claimed, and is tried again at `until`. Returns whether this is the first failure.
    pub fn postpone(&mut self, name: &OsStr, until: Instant) -> bool {
        self.files.get_mut(name).is_none_or(|file| file.postponed.replace(until).is_none())
    }

    /// How many files could not be claimed when that was tried last.
    pub fn postponed(&self) -> usize {
        self.files.values().filter(|file| file.postponed.is_some()).count()
    }

    /// Forgets a file that is not in the inbox any more.
    pub fn forget(&mut self, name: &OsStr) {
        self.files.remove(name);
    }
}

impl WaitingFile {
    fn complete_at(&self, settle: SettleTimes) -> Instant {
        let complete = match self.closed {
            Some(Closed { at, is_final: true }) => at,
            Some(Closed { at, is_final: false }) => at + settle.closed,
            None => self.unchanged_since + settle.unchanged,
        };
        self.postponed.map_or(complete, |until| complete.max(until))
    }
}

/// When something about the file was last changed, no later than `now`. This is the inode's time of change,
/// which the system keeps: a client can set the time of modification, but not this one.
fn last_change(metadata: &fs::Metadata, now: Instant) -> Instant {
    let changed = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or_default());
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed);
    // The time is rounded down to a second, so the file may be up to a second younger.
    let age = age.unwrap_or_default().saturating_sub(Duration::from_secs(1));
    now.checked_sub(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 1_000;
    const SETTLE: SettleTimes =
        SettleTimes { closed: Duration::from_secs(2), unchanged: Duration::from_secs(10) };

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    fn closed(name: &str, is_final: bool, at: Instant) -> ClosedFile {
        ClosedFile { account: "ky".into(), name: name.into(), is_final, at }
    }

    #[test]
    fn a_closed_file_is_complete_after_a_short_while_and_a_renamed_one_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (now, mut detector) = (Instant::now(), Detector::default());
        fs::write(folder.path().join("a.csv"), "a").unwrap();
        detector.file_closed(closed("a.csv", false, now));
        detector.scan(folder.path(), MANY, now).unwrap();
        assert_eq!(detector.next_complete(SETTLE, after(now, 1)), None);
        assert_eq!(detector.next_complete(SETTLE, after(now, 2)), Some("a.csv".into()));
        detector.file_closed(closed("a.csv", true, now));
        detector.scan(folder.path(), MANY, now).unwrap();
        assert_eq!(detector.next_complete(SETTLE, now), Some("a.csv".into()));
        detector.forget(OsStr::new("a.csv"));
        assert_eq!((detector.next_complete(SETTLE, after(now, 100)), detector.len()), (None, 0));
    }

    #[test]
    fn a_large_file_is_complete_when_it_has_settled_and_not_before_a_postponement_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (now, mut detector) = (Instant::now(), Detector::default());
        fs::File::create(folder.path().join("a.csv")).unwrap().set_len(1 << 30).unwrap();
        detector.scan(folder.path(), MANY, now).unwrap();
        assert_eq!(detector.next_complete(SETTLE, after(now, 1)), None);
        detector.file_closed(closed("a.csv", false, now));
        detector.scan(folder.path(), MANY, now).unwrap();
        assert_eq!(detector.next_complete(SETTLE, after(now, 1)), None);
        assert_eq!(detector.next_complete(SETTLE, after(now, 2)), Some("a.csv".into()));
        assert!(detector.postpone(OsStr::new("a.csv"), after(now, 5)));
        assert_eq!(detector.next_complete(SETTLE, after(now, 2)), None);
        assert_eq!(detector.postponed(), 1);
    }

    #[test]
    fn a_file_that_grows_is_waited_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let (now, mut detector) = (Instant::now(), Detector::default());
        fs::write(&path, "a").unwrap();
        detector.scan(folder.path(), MANY, now).unwrap();
        assert_eq!(detector.next_complete(SETTLE, after(now, 9)), None);
        fs::write(&path, "ab").unwrap();
        detector.scan(folder.path(), MANY, after(now, 9)).unwrap();
        assert_eq!(detector.next_complete(SETTLE, after(now, 11)), None);
        detector.scan(folder.path(), MANY, after(now, 15)).unwrap();
        assert_eq!(detector.next_complete(SETTLE, after(now, 20)), Some("a.csv".into()));
        assert!(detector.next_complete_at(SETTLE) <= Some(after(now, 19)));
    }

    #[test]
    fn neither_links_nor_folders_nor_temporary_names_are_deliveries() {
        let folder = tempfile::tempdir().unwrap();
        let (now, mut detector) = (Instant::now(), Detector::default());
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.csv")).unwrap();
        fs::create_dir(folder.path().join("folder.csv")).unwrap();
        fs::write(folder.path().join("a.csv.part"), "a").unwrap();
        fs::write(folder.path().join(".a.csv"), "a").unwrap();
        detector.scan(folder.path(), MANY, now).unwrap();
        assert_eq!(detector.next_complete(SETTLE, after(now, 100)), None);
    }

    #[test]
    fn many_files_are_scanned_in_portions() {
        let folder = tempfile::tempdir().unwrap();
        let mut detector = Detector::default();
        for number in 0..20 {
            fs::write(folder.path().join(format!("{number}.csv")), "a").unwrap();
        }
        detector.scan(folder.path(), 7, Instant::now()).unwrap();
        assert_eq!(detector.len(), 7);
    }
}
