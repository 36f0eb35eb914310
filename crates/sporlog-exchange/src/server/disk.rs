//! Files on disk: only regular files, opened by name relative to an open folder, and never through a symbolic
//! link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, SeekFrom, Stat};
use rustix::io::Errno;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::packets::Attributes;

/// The mode of a new file.
const FILE_MODE: u32 = 0o640;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// Runs disk work on this thread, after the runtime has moved other tasks to another thread.
pub(super) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
        Ok(Folder(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a folder in this one.
    pub(super) fn folder(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            // A file, or a symbolic link.
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Errno::NOENT.into()),
            folder => Ok(Folder(folder?)),
        }
    }

    /// Opens a file for reading.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::RDONLY)
    }

    /// Opens a file for writing, truncated or as it is.
    pub(super) fn write(&self, name: &str, create: bool, truncate: bool) -> io::Result<File> {
        let mut flags = OFlags::WRONLY;
        flags.set(OFlags::CREATE, create);
        flags.set(OFlags::TRUNC, truncate);
        self.file(name, flags)
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Without O_NONBLOCK, opening a named pipe would wait for a process at its other end.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(FILE_MODE)) {
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(Errno::NOENT.into()),
            file => file?,
        };
        if !is_regular(&rustix::fs::fstat(&file)?) {
            return Err(Errno::NOENT.into());
        }
        Ok(File::from(file))
    }

    /// The attributes of a file in this folder.
    pub(super) fn stat(&self, name: &str) -> io::Result<Attributes> {
        let stat = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_regular(&stat) { Ok(attributes(&stat)) } else { Err(Errno::NOENT.into()) }
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> io::Result<bool> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The attributes of the folder itself.
    pub(super) fn own(&self) -> io::Result<Attributes> {
        Ok(attributes(&rustix::fs::fstat(&self.0)?))
    }

    /// Renames a file. An existing file of the new name is replaced, or an error, as `replace` says.
    pub(super) fn rename(&self, name: &str, to: &Folder, new: &str, replace: bool) -> io::Result<()> {
        if replace {
            return Ok(rustix::fs::renameat(&self.0, name, &to.0, new)?);
        }
        match rustix::fs::renameat_with(&self.0, name, &to.0, new, RenameFlags::NOREPLACE) {
            // Not every file system has this in one step; between the two steps another writer may come in.
            Err(Errno::INVAL | Errno::NOSYS) if to.has(new)? => Err(Errno::EXIST.into()),
            Err(Errno::INVAL | Errno::NOSYS) => Ok(rustix::fs::renameat(&self.0, name, &to.0, new)?),
            done => Ok(done?),
        }
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Makes files created, renamed or removed in this folder durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// The size and free space of the file system.
    pub(super) fn space(&self) -> io::Result<rustix::fs::StatVfs> {
        Ok(rustix::fs::fstatvfs(&self.0)?)
    }

    /// How many entries of this folder `other` does not have, counted up to `limit`.
    pub(super) fn count(&self, other: Option<&Folder>, limit: usize) -> io::Result<usize> {
        let mut names = self.names()?;
        let mut count = 0;
        while count < limit {
            let Some(name) = names.next_name()? else { break };
            count += usize::from(!other.map_or(Ok(false), |other| other.has(&name))?);
        }
        Ok(count)
    }

    /// The names of the entries, one after another.
    pub(super) fn names(&self) -> io::Result<Names> {
        Ok(Names(rustix::fs::Dir::read_from(&self.0)?))
    }
}

/// The names in a folder, read one after another.
#[derive(Debug)]
pub(super) struct Names(rustix::fs::Dir);

impl Names {
    /// The next name that a client could use; names that are not UTF-8 are passed over.
    pub(super) fn next_name(&mut self) -> io::Result<Option<String>> {
        loop {
            let Some(entry) = self.0.read() else { return Ok(None) };
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => return Ok(Some(name.to_owned())),
            }
        }
    }
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// The attributes of an open file.
pub(super) fn of_file(file: &File) -> io::Result<Attributes> {
    Ok(attributes(&rustix::fs::fstat(file)?))
}

/// How many bytes of a file come before the first hole that the file system has left in it: all, if there is none.
pub(super) fn before_hole(file: &File) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(0)) {
        // An empty file, or a file system that does not tell.
        Err(Errno::NXIO | Errno::INVAL) => Ok(of_file(file)?.size),
        hole => Ok(hole?),
    }
}

fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode,
        changed: u32::try_from(stat.st_mtime).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_files() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        std::fs::write(root.path().join("secret"), "s")?;
        let inner = root.path().join("inner");
        std::fs::create_dir_all(inner.join("folder"))?;
        std::fs::write(inner.join("file"), "f")?;
        symlink(root.path().join("secret"), inner.join("link"))?;
        symlink(root.path(), inner.join("up"))?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            inner.join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?;

        let folder = Folder::open(&inner)?;
        assert!(folder.has("file")? && folder.read("file").is_ok());
        for name in ["link", "up", "pipe", "folder", "none"] {
            assert!(!folder.has(name)?, "{name}");
            for opened in [folder.read(name), folder.write(name, false, false)] {
                assert_eq!(opened.err().map(|e| e.kind()), Some(io::ErrorKind::NotFound), "{name}");
            }
        }
        assert!(folder.folder("up").is_err());
        assert!(folder.folder("folder").is_ok());
        Ok(())
    }

    #[test]
    fn a_rename_replaces_only_if_it_may() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let folder = Folder::open(root.path())?;
        for name in ["a", "b"] {
            folder.write(name, true, false)?;
        }
        assert!(folder.rename("a", &folder, "b", false).is_err());
        assert!(folder.has("a")?);
        folder.rename("a", &folder, "b", true)?;
        assert!(!folder.has("a")? && folder.has("b")?);
        assert_eq!(folder.count(None, 10)?, 1);
        Ok(())
    }
}
