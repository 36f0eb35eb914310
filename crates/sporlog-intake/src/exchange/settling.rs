//! Which files of an inbox are complete, and since when.
//!
//! A file that our server has seen closed is told to us; it is complete after a short while in which its
//! sender may take it up again, or at once if it was renamed from a temporary name. Of any other file only
//! its own times tell: it is complete when nothing about it has changed for longer.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use super::claim::Stamp;
use super::name::is_temporary;

/// More of a file than this is not read in a second.
const READ_BYTES_PER_SECOND: u64 = 1_000_000_000;

/// What is known of one account's inbox.
#[derive(Debug, Default)]
pub(super) struct Settling {
    files: HashMap<OsString, Seen>,
    /// When our server has seen files closed, and whether nothing more can come.
    closed: HashMap<OsString, (Instant, bool)>,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// Since when nothing about it has changed.
    since: Instant,
    closed: Option<(Instant, bool)>,
    /// It could not be taken: when it is tried again, and how long that has been waited for.
    put_off: Option<(Instant, Duration)>,
}

/// How long files are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// After our server has seen them closed.
    pub closed: Duration,
    /// After anything about them has changed.
    pub watched: Duration,
}

impl Settling {
    /// Our server has closed the file `name`.
    pub fn closed(&mut self, name: &OsStr, settled: bool, now: Instant) {
        self.closed.insert(name.to_owned(), (now, settled));
    }

    /// Looks at the inbox again, at so many files of it at most; others have their turn when these are gone.
    pub fn look(&mut self, inbox: &Path, most: usize, now: Instant) -> io::Result<()> {
        let mut files = HashMap::with_capacity(self.files.len());
        for entry in fs::read_dir(inbox)? {
            if files.len() == most {
                break;
            }
            let entry = entry?;
            let name = entry.file_name();
            // Neither a folder nor a link is a delivery, wherever it points.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let Some(stamp) = Stamp::of(&metadata).filter(|_| !is_temporary(&name)) else { continue };
            let known = self.files.remove(&name).filter(|seen| seen.stamp == stamp);
            let closed = self.closed.remove(&name).or(known.as_ref().and_then(|seen| seen.closed));
            let put_off = known.as_ref().and_then(|seen| seen.put_off);
            let since = known.map_or_else(|| unchanged_since(&metadata, now), |seen| seen.since);
            files.insert(name, Seen { stamp, since, closed, put_off });
        }
        self.files = files;
        // What was announced and is not there has been renamed or removed since.
        self.closed.clear();
        Ok(())
    }

    /// Of the files whose time has come, the one that has waited for longest; and when it is complete, if
    /// it is one that may only be read until then.
    pub fn next(&self, waits: Waits, now: Instant) -> Option<(OsString, Option<Instant>)> {
        let due = self.files.iter().filter(|(_, seen)| seen.due_at(waits) <= now);
        let (name, seen) = due.min_by_key(|(name, seen)| (seen.since, *name))?;
        let complete = seen.complete_at(waits);
        Some((name.clone(), Some(complete).filter(|complete| *complete > now)))
    }

    /// When the next file's time comes, if nothing is done to it.
    pub fn next_at(&self, waits: Waits) -> Option<Instant> {
        self.files.values().map(|seen| seen.due_at(waits)).min()
    }

    /// Files that wait.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The file could not be taken: it is tried again after `first`, and then later and later, up to
    /// `last`. Whether that is said for the first time.
    pub fn put_off(&mut self, name: &OsStr, first: Duration, last: Duration) -> bool {
        let Some(seen) = self.files.get_mut(name) else { return true };
        let before = seen.put_off.map(|(_, wait)| wait);
        let wait = before.map_or(first, |wait| (2 * wait).min(last));
        seen.put_off = Some((Instant::now() + wait, wait));
        before.is_none()
    }

    /// Files that could not be taken when they were tried.
    pub fn stuck(&self) -> usize {
        self.files.values().filter(|seen| seen.put_off.is_some()).count()
    }

    /// The file has been taken.
    pub fn taken(&mut self, name: &OsStr) {
        self.files.remove(name);
    }
}

impl Seen {
    /// A large file that was closed is read while it settles: so early that it has hardly been read when
    /// it is complete, for its log is held meanwhile.
    fn due_at(&self, waits: Waits) -> Instant {
        let complete = self.complete_at(waits);
        let (Some((closed, _)), None) = (self.closed, self.put_off) else { return complete };
        let reading = Duration::from_secs(self.stamp.size / READ_BYTES_PER_SECOND);
        complete.checked_sub(reading).map_or(closed, |early| early.max(closed))
    }

    fn complete_at(&self, waits: Waits) -> Instant {
        let complete = match self.closed {
            Some((at, true)) => at,
            Some((at, false)) => at + waits.closed,
            None => self.since + waits.watched,
        };
        self.put_off.map_or(complete, |(at, _)| complete.max(at))
    }
}

/// When something about the file was last changed, as far as that lies in the past. The time of change is
/// the system's own: unlike that of modification, no client can set it.
fn unchanged_since(metadata: &fs::Metadata, now: Instant) -> Instant {
    let changed = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or_default());
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed);
    // Whole seconds are compared: it may be a second younger than it seems.
    let age = age.unwrap_or_default().saturating_sub(Duration::from_secs(1));
    now.checked_sub(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 1_000;
    const WAITS: Waits = Waits { closed: Duration::from_secs(2), watched: Duration::from_secs(10) };

    fn after(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn an_announced_file_is_complete_after_a_short_while_and_a_renamed_one_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (now, mut settling) = (Instant::now(), Settling::default());
        fs::write(folder.path().join("a.csv"), "a").unwrap();
        settling.closed(OsStr::new("a.csv"), false, now);
        settling.look(folder.path(), MANY, now).unwrap();
        assert_eq!(settling.next(WAITS, after(now, 1)), None);
        assert_eq!(settling.next(WAITS, after(now, 2)), Some(("a.csv".into(), None)));
        settling.closed(OsStr::new("a.csv"), true, now);
        settling.look(folder.path(), MANY, now).unwrap();
        assert_eq!(settling.next(WAITS, now), Some(("a.csv".into(), None)));
        settling.taken(OsStr::new("a.csv"));
        assert_eq!((settling.next(WAITS, after(now, 100)), settling.len()), (None, 0));
    }

    #[test]
    fn a_large_file_is_read_ahead_once_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (now, mut settling) = (Instant::now(), Settling::default());
        fs::File::create(folder.path().join("a.csv")).unwrap().set_len(1 << 30).unwrap();
        settling.look(folder.path(), MANY, now).unwrap();
        assert_eq!(settling.next(WAITS, after(now, 1)), None);
        settling.closed(OsStr::new("a.csv"), false, now);
        settling.look(folder.path(), MANY, now).unwrap();
        assert_eq!(settling.next(WAITS, now), None);
        assert_eq!(settling.next(WAITS, after(now, 1)), Some(("a.csv".into(), Some(after(now, 2)))));
        assert!(settling.put_off(OsStr::new("a.csv"), Duration::from_secs(5), Duration::from_secs(60)));
        assert_eq!(settling.next(WAITS, after(now, 2)), None);
    }

    #[test]
    fn a_file_that_grows_is_waited_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let (now, mut settling) = (Instant::now(), Settling::default());
        fs::write(&path, "a").unwrap();
        settling.look(folder.path(), MANY, now).unwrap();
        assert_eq!(settling.next(WAITS, after(now, 9)), None);
        fs::write(&path, "ab").unwrap();
        settling.look(folder.path(), MANY, after(now, 9)).unwrap();
        assert_eq!(settling.next(WAITS, after(now, 11)), None);
        settling.look(folder.path(), MANY, after(now, 15)).unwrap();
        assert_eq!(settling.next(WAITS, after(now, 20)), Some(("a.csv".into(), None)));
        assert!(settling.next_at(WAITS) <= Some(after(now, 19)));
    }

    #[test]
    fn neither_links_nor_folders_nor_temporary_names_are_deliveries() {
        let folder = tempfile::tempdir().unwrap();
        let (now, mut settling) = (Instant::now(), Settling::default());
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.csv")).unwrap();
        fs::create_dir(folder.path().join("folder.csv")).unwrap();
        fs::write(folder.path().join("a.csv.part"), "a").unwrap();
        fs::write(folder.path().join(".a.csv"), "a").unwrap();
        settling.look(folder.path(), MANY, now).unwrap();
        assert_eq!(settling.next(WAITS, after(now, 100)), None);
    }

    #[test]
    fn a_crowd_is_looked_at_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut settling = Settling::default();
        for number in 0..20 {
            fs::write(folder.path().join(format!("{number}.csv")), "a").unwrap();
        }
        settling.look(folder.path(), 7, Instant::now()).unwrap();
        assert_eq!(settling.len(), 7);
    }
}
