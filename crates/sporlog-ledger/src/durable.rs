//! A local disk as an object store that keeps its promises across a power cut.
//!
//! `object_store`'s own local file system returns before the data is on the disk, and makes files that all
//! users of the machine may read. This one returns from every `put` after the file and its directory are
//! synced, makes a file visible under its name only when it is whole, and makes all of them for their
//! owner alone. [`DurableLocal::put_many`] is for the many small files of the transparency log: one sync
//! of the file system instead of one per file.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::local_files::{lock_parent, make_folder, private_file, rename_new, sync_parent};

/// A directory of the local file system. Paths are counted from there, so that its own name, which may
/// have any characters in it, is never part of an object store's path.
#[derive(Debug)]
pub(crate) struct DurableLocal {
    root: PathBuf,
    inner: LocalFileSystem,
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "disk", source: source.into() }
}

/// Runs file work off the runtime's threads.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(generic)?
}

impl DurableLocal {
    /// For a store in the directory `root`, which has to be there.
    pub(crate) fn new(root: PathBuf) -> Result<Self> {
        Ok(DurableLocal { inner: LocalFileSystem::new_with_prefix(&root)?, root })
    }

    /// Where an object lies.
    pub(crate) fn fs_path(&self, path: &Path) -> PathBuf {
        match path.as_ref() {
            "" => self.root.clone(),
            below => self.root.join(below),
        }
    }

    /// Writes a file whose name nobody knows before this returns: in its place, since nobody can come
    /// upon it half-written. Durable then.
    pub(crate) async fn put_unknown(&self, location: &Path, bytes: Bytes) -> Result<()> {
        let target = self.fs_path(location);
        let write = move || write_synced(&target, &bytes.into()).and_then(|()| sync_parent(&target));
        blocking(move || write().map_err(generic)).await
    }

    /// Locks the folder of `location` until the result is dropped, where the file system can lock folders.
    pub(crate) async fn lock_folder(&self, location: &Path) -> Result<Option<File>> {
        let path = self.fs_path(location);
        blocking(move || {
            let lock = || lock_parent(&path);
            let locked = lock().or_else(|e| match e.kind() {
                io::ErrorKind::NotFound => make_folder(path.parent().unwrap_or(&path)).and_then(|()| lock()),
                _ => Err(e),
            });
            match locked {
                Ok(folder) => Ok(Some(folder)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Err(generic(e)),
                Err(_) => Ok(None),
            }
        })
        .await
    }

    /// Writes many files, then syncs the file system once. A crash may leave some of them torn:
    /// only for files that are derived again when their checkpoint does not cover them.
    pub(crate) async fn put_many(self: &Arc<Self>, files: Vec<(Path, Bytes)>) -> Result<()> {
        let disk = self.clone();
        blocking(move || disk.put_all(&files)).await
    }

    fn put_all(&self, files: &[(Path, Bytes)]) -> Result<()> {
        // Making a file costs more than filling it, and two threads can make two at once.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = files.len().div_ceil(threads).max(ONE_BY_ONE);
        std::thread::scope(|scope| {
            let writers: Vec<_> =
                files.chunks(share).map(|part| scope.spawn(|| self.put_each(part))).collect();
            let panicked = |_| Err(generic("a thread that wrote files panicked"));
            writers.into_iter().try_for_each(|writer| writer.join().unwrap_or_else(panicked))
        })
    }

    fn put_each(&self, files: &[(Path, Bytes)]) -> Result<()> {
        for (path, bytes) in files {
            let target = self.fs_path(path);
            let written = create(&target, private_file().create_new(true));
            match written.and_then(|mut file| file.write_all(bytes)) {
                // Another process has written the same, and somebody may be reading that file; or a crash
                // has left a part of it.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if fs::read(&target).map_err(generic)? != *bytes {
                        Staged::new(target).write(&bytes.clone().into())?.publish(false)?;
                    }
                }
                written => written.map_err(generic)?,
            }
        }
        Ok(())
    }

    /// Makes durable what [`put_many`](Self::put_many) wrote: a few files one by one, many at once.
    pub(crate) async fn sync(&self, files: impl Iterator<Item = Path>) -> Result<()> {
        let files: Vec<_> = files.map(|path| self.fs_path(&path)).collect();
        let root = self.root.clone();
        let sync = move || match files.len() {
            0..=ONE_BY_ONE => files
                .iter()
                .try_for_each(|path| File::open(path)?.sync_all().and_then(|()| sync_parent(path))),
            _ => Ok(rustix::fs::syncfs(File::open(root)?)?),
        };
        blocking(move || sync().map_err(generic)).await
    }
}

/// Up to so many files are synced one by one; beyond, syncing the file system is cheaper.
const ONE_BY_ONE: usize = 64;

/// Opens a file for writing. Its directory is made, durably, if it is not there.
fn create(path: &FsPath, options: &OpenOptions) -> io::Result<File> {
    let open = || options.open(path);
    match (open(), path.parent()) {
        (Err(e), Some(directory)) if e.kind() == io::ErrorKind::NotFound => {
            make_folder(directory)?;
            open()
        }
        (opened, _) => opened,
    }
}

fn write_synced(path: &FsPath, payload: &PutPayload) -> io::Result<()> {
    let mut file = create(path, private_file().truncate(true))?;
    for part in payload {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// A file that is being written and does not have its name yet. Dropped before it has, it goes.
#[derive(Debug)]
struct Staged {
    beside: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Staged {
    /// Nothing is written yet. The file will lie beside `target`.
    fn new(target: PathBuf) -> Self {
        let beside = target.with_file_name(format!(".tmp-{}", uuid::Uuid::new_v4()));
        Staged { beside, target, published: false }
    }

    /// Writes all of the file, and syncs it.
    fn write(self, payload: &PutPayload) -> Result<Self> {
        write_synced(&self.beside, payload).map_err(generic)?;
        Ok(self)
    }

    /// Gives the file the name `target`, unless `create` is set and the name is taken. Durable when this returns.
    fn publish(mut self, create: bool) -> Result<()> {
        let rename = if create { rename_new } else { |from: &FsPath, to: &FsPath| fs::rename(from, to) };
        rename(&self.beside, &self.target).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::AlreadyExists { path: self.target.display().to_string(), source: e.into() }
            }
            _ => generic(e),
        })?;
        self.published = true;
        sync_parent(&self.target).map_err(generic)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.beside);
        }
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => return Err(generic("conditional update is not supported on a disk")),
        };
        let staged = Staged::new(self.fs_path(location));
        blocking(move || staged.write(&payload)?.publish(create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let staged = Staged::new(self.fs_path(location));
        let begin =
            move || Ok((create(&staged.beside, private_file().truncate(true)).map_err(generic)?, staged));
        let (file, staged) = blocking(begin).await?;
        Ok(Box::new(Upload { file: Arc::new(file), size: 0, staged: Some(staged) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    /// Nothing of a store is ever copied.
    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copying".into(), implementer: self.to_string() })
    }
}

/// A large file that comes in parts. It gets its name when it is complete and on the disk.
#[derive(Debug)]
struct Upload {
    file: Arc<File>,
    /// Bytes in the parts so far.
    size: u64,
    /// Until the upload is complete or aborted.
    staged: Option<Staged>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, mut at) = (self.file.clone(), self.size);
        self.size += data.content_length() as u64;
        let write = move || {
            data.iter().try_for_each(|part| {
                file.write_all_at(part, at).map_err(generic)?;
                at += part.len() as u64;
                Ok(())
            })
        };
        Box::pin(blocking(write))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.take().ok_or_else(|| generic("the upload has ended already"))?;
        let file = self.file.clone();
        blocking(move || file.sync_all().map_err(generic).and_then(|()| staged.publish(false))).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged = None;
        Ok(())
    }
}
