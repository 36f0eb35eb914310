//! The lock that the writer of a log holds while it appends frames to the journal or commits to the table.
//!
//! The kernel drops the lock when its process ends, however that ends. Whoever wants the lock queues at a second
//! file, `next`, so that a holder can tell that somebody waits, and the one that waits longest is not passed over.
//! Both files are empty, and are opened anew each time: an older copy of the folder may have been put in its place.
//!
//! Locks of network file systems may hold on one machine alone, or differ between the server and its clients. So there
//! is no lock on them, and a writer that comes over one refuses a log that others lock.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::local_files::{make_folder, private_file};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct WriterLock {
    folder: PathBuf,
    held: Option<File>,
}

impl WriterLock {
    /// The lock in `folder`, not held. `None` if the file system has no locks that hold for everybody.
    pub(crate) fn new(folder: PathBuf) -> io::Result<Option<Self>> {
        if folder.parent().is_some_and(is_remote) {
            return Ok(None);
        }
        make_folder(&folder)?;
        let lock = WriterLock { folder, held: None };
        match open(&lock.next())?.try_lock() {
            Err(TryLockError::Error(error)) if !lockable(&error) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(Some(lock)),
        }
    }

    fn next(&self) -> PathBuf {
        self.folder.join("next")
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the lock; waits until whoever holds it lets it go.
    pub(crate) fn take(&mut self) -> io::Result<()> {
        make_folder(&self.folder)?;
        let _next = locked(&self.next())?;
        self.held = Some(locked(&self.folder.join("lock"))?);
        Ok(())
    }

    /// Whether somebody waits for the lock.
    pub(crate) fn is_wanted(&self) -> bool {
        let free = open(&self.next()).map(|next| next.try_lock());
        matches!(free, Ok(Err(TryLockError::WouldBlock)))
    }

    pub(crate) fn release(&mut self) {
        if let Some(file) = self.held.take() {
            // Closing does the same, unless a process that is just being forked has the file, too.
            let _ = file.unlock();
        }
    }
}

/// Whether somebody locks the log whose lock is in `folder`.
pub(crate) fn is_used(folder: &Path) -> bool {
    folder.join("lock").exists()
}

/// NFS, SMB (three versions of Linux's client), FUSE: `statfs(2)`.
const REMOTE: [u32; 5] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x6573_5546];

fn is_remote(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|about| REMOTE.contains(&(about.f_type as u32)))
}

fn open(path: &Path) -> io::Result<File> {
    private_file().open(path)
}

/// The file at `path`, locked.
fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = open(path)?;
        file.lock()?;
        // Whoever opens the path from now on has to find the file that was locked.
        match path.metadata() {
            Ok(there) if there.ino() == file.metadata()?.ino() => return Ok(file),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}

fn lockable(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
        && error.raw_os_error() != Some(rustix::io::Errno::NOLCK.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    fn lock(folder: &Path) -> WriterLock {
        WriterLock::new(folder.join("journal")).expect("a folder").expect("locks")
    }

    #[test]
    fn one_holds_it_and_whoever_waits_is_next() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut one = lock(folder.path());
        one.take()?;
        assert!(one.is_held() && !one.is_wanted());
        let mut other = lock(folder.path());
        let has_it = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                other.take().expect("locks");
                has_it.store(true, Ordering::SeqCst);
                other.release();
            });
            while !one.is_wanted() {
                std::thread::yield_now();
            }
            assert!(!has_it.load(Ordering::SeqCst));
            one.release();
            // Not before the one that has waited.
            one.take().expect("locks");
            assert!(has_it.load(Ordering::SeqCst));
        });
        Ok(())
    }

    #[test]
    fn many_take_turns() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (count, inside) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut lock = lock(folder.path());
                    for _ in 0..200 {
                        lock.take().expect("locks");
                        assert!(!inside.swap(true, Ordering::SeqCst));
                        count.fetch_add(1, Ordering::SeqCst);
                        inside.store(false, Ordering::SeqCst);
                        lock.release();
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 800);
        Ok(())
    }

    #[test]
    fn a_folder_that_was_put_in_the_place_of_another_has_a_lock_of_its_own() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut one = lock(folder.path());
        one.take()?;
        std::fs::rename(folder.path().join("journal"), folder.path().join("aside"))?;
        let mut other = lock(folder.path());
        other.take()?;
        one.release();
        assert!(!other.is_wanted());
        let (sent, received) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                one.take().expect("locks");
                let _ = sent.send(());
                one.release();
            });
            while !other.is_wanted() {
                std::thread::yield_now();
            }
            assert!(received.try_recv().is_err(), "both hold the lock of one folder");
            other.release();
        });
        Ok(())
    }
}
