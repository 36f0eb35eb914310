//! Files and folders of a store on this machine.
//!
//! Nobody but their owner may read them, whatever the umask is. A folder that was made is durable when
//! the function returns, and a rename never replaces a file.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Bytes that have to be free for a disk to count as one that can be written to: as many as a commit of a few
/// records takes.
const PROBE: usize = 64 << 10;

/// Options for a file that is opened for writing, made with mode 0600 if it is not there.
pub fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// Fails if nothing can be written into `folder`: the disk is full or read-only, say.
pub(crate) fn check_writable(folder: &Path) -> io::Result<()> {
    // One name for all processes: a crash leaves one small file, which the next call removes.
    let probe = folder.join(".probe");
    let written = private_file().truncate(true).open(&probe).and_then(|mut file| file.write_all(&[0; PROBE]));
    written.and(found(fs::remove_file(&probe)).map(drop))
}

/// The result, with `None` where there is no such file or folder.
pub fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Makes a folder and those above it that are missing, with mode 0700. Each is durable when this returns.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(folder);
    let made = match (make(), folder.parent()) {
        (Err(error), Some(above)) if error.kind() == ErrorKind::NotFound => {
            make_folder(above)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made.and_then(|()| sync_parent(folder)),
    }
}

/// Makes durable what was created, renamed or removed in `folder`.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Syncs the folder of `path`, so that its name survives a power cut.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(parent(path))
}

/// Locks the folder of `path` against other callers, of this and other processes, until the result is dropped.
pub(crate) fn lock_parent(path: &Path) -> io::Result<File> {
    let folder = File::open(parent(path))?;
    folder.lock()?;
    Ok(folder)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Writes the file `path` anew, with `mode`: whoever opens it finds all of the earlier bytes or all of the
/// new ones. Durable when this returns.
///
/// The bytes are written to `beside` first, on the same file system. A crash can leave that file, which the
/// next call with the same name removes; two callers must not use one name at the same time.
pub fn replace(beside: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    found(fs::remove_file(beside))?;
    write_beside(beside, path, bytes, mode, |from, to| fs::rename(from, to))
}

/// Writes a file for its owner alone, and makes its folder if that is missing. A file that is there is not replaced:
/// that is an error of the kind `AlreadyExists`. Durable when this returns.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_folder(parent(path))?;
    // Written beside, so that a crash leaves no half of a key under its name.
    let beside = path.with_extension(format!("tmp-{}", uuid::Uuid::new_v4().simple()));
    write_beside(&beside, path, bytes, 0o600, rename_new)
}

fn write_beside(
    beside: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    rename: fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| rename(beside, path));
    if written.is_err() {
        let _ = fs::remove_file(beside);
    }
    written.and_then(|()| sync_parent(path))
}

/// Renames a file unless the new name is taken, which is an error of the kind `AlreadyExists`. Of several
/// processes that give the same name at once, one succeeds.
///
/// Where the file system has no such rename (NFS), the file is linked under the new name, which fails as
/// well if the name is taken. Where it has no links either (exFAT by FUSE), the folder is locked while
/// the name is looked for; then processes of other machines are not kept apart.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        renamed => return renamed.map_err(io::Error::from),
    }
    match rustix::fs::link(from, to) {
        Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP) => rename_under_lock(from, to),
        linked => linked.map_err(io::Error::from).and_then(|()| fs::remove_file(from)),
    }
}

/// Like [`rename_new`], for a file system that can only rename.
fn rename_under_lock(from: &Path, to: &Path) -> io::Result<()> {
    let _locked = lock_parent(to).map_err(|error| {
        let needed = "the file system has neither renames that do not replace nor hard links, and its \
                      folders cannot be locked: use another file system for this folder";
        io::Error::new(error.kind(), format!("{needed} ({error})"))
    })?;
    if to.symlink_metadata().is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Why a file with a secret must not be used: somebody may read it who should not.
///
/// A file of this process's user may be read by that user alone. A file of another user, usually root, was
/// handed to this process: as a Kubernetes Secret or a systemd credential it can be read by a group
/// as well, and nobody else may read or change it.
pub(crate) fn exposed(file: &Metadata) -> Option<String> {
    let is_ours = file.uid() == rustix::process::geteuid().as_raw();
    let (allowed, wanted) = if is_ours { (0o700, "600") } else { (0o740, "440") };
    let mode = file.mode() & 0o777;
    (mode & !allowed != 0).then(|| {
        format!(
            "other users of this machine may read or change the file (mode {mode:03o}): \
             run chmod {wanted} on it. Where the file system has no modes, mount it with umask=077"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn two_files() -> io::Result<(tempfile::TempDir, PathBuf, PathBuf)> {
        let folder = tempfile::tempdir()?;
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        fs::write(&one, "1")?;
        Ok((folder, one, other))
    }

    #[test]
    fn a_file_that_is_there_is_not_replaced() -> io::Result<()> {
        for rename in [rename_new, rename_under_lock] {
            let (_folder, one, other) = two_files()?;
            fs::write(&other, "2")?;
            let refused = rename(&one, &other).map_err(|e| e.kind());
            assert_eq!(refused, Err(ErrorKind::AlreadyExists));
            assert_eq!((fs::read(&one)?, fs::read(&other)?), (b"1".to_vec(), b"2".to_vec()));
            fs::remove_file(&other)?;
            rename(&one, &other)?;
            assert!(!one.exists() && fs::read(&other)? == b"1");
        }
        Ok(())
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (beside, path) = (folder.path().join(".new"), folder.path().join("file"));
        fs::write(&beside, "left by a crash, and longer than what is written now")?;
        replace(&beside, &path, b"one", 0o640)?;
        replace(&beside, &path, b"two", 0o600)?;
        assert_eq!(fs::read(&path)?, b"two");
        assert_eq!(fs::metadata(&path)?.mode() & 0o777, 0o600);
        let nowhere = folder.path().join("none/file");
        assert!(replace(&beside, &nowhere, b"three", 0o600).is_err());
        assert_eq!(fs::read_dir(folder.path())?.count(), 1, "nothing is left beside");
        Ok(())
    }

    #[test]
    fn of_many_that_give_one_name_one_succeeds() -> io::Result<()> {
        for rename in [rename_new, rename_under_lock] {
            let folder = tempfile::tempdir()?;
            let target = folder.path().join("target");
            let one = |n: usize| {
                let (from, target) = (folder.path().join(n.to_string()), target.clone());
                move || fs::write(&from, n.to_string()).and_then(|()| rename(&from, &target)).is_ok()
            };
            let succeeded = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..16).map(|n| scope.spawn(one(n))).collect();
                threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|done| *done).count()
            });
            assert_eq!(succeeded, 1);
        }
        Ok(())
    }

    #[test]
    fn folders_are_for_their_owner_alone() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        make_folder(&root.path().join("a/b/c"))?;
        make_folder(&root.path().join("a/b/c"))?;
        for folder in ["a", "a/b", "a/b/c"] {
            assert_eq!(fs::metadata(root.path().join(folder))?.mode() & 0o777, 0o700, "{folder}");
        }
        fs::write(root.path().join("file"), "")?;
        assert!(make_folder(&root.path().join("file")).is_err());
        assert!(make_folder(&root.path().join("file/below")).is_err());
        Ok(())
    }
}
