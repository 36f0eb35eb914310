//! A local disk as an object store that keeps its promises across a power cut.
//!
//! `object_store`'s own local file system returns before the data is on the disk. This one returns
//! from every `put` after the file and its directory are synced, and makes a file visible under its
//! name only when it is whole. [`DurableLocal::put_many`] is for the many small files of the
//! transparency log: one sync of the file system instead of one per file.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// The local file system, its paths counted from `/`.
#[derive(Debug)]
pub(crate) struct DurableLocal {
    /// A directory of the file system that [`sync_all`](Self::sync_all) syncs.
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
    pub(crate) fn new(root: PathBuf) -> Self {
        DurableLocal { inner: LocalFileSystem::new(), root }
    }

    fn fs_path(&self, path: &Path) -> Result<PathBuf> {
        self.inner.path_to_filesystem(path)
    }

    /// Writes a file whose name nobody knows before this returns: in its place, since nobody can come
    /// upon it half-written. Durable then.
    pub(crate) async fn put_unknown(&self, location: &Path, bytes: Bytes) -> Result<()> {
        let target = self.fs_path(location)?;
        let write = move || write_synced(&target, &bytes.into()).and_then(|()| sync_dir(&target));
        blocking(move || write().map_err(generic)).await
    }

    /// Writes a file that gets its name later; its bytes are on the disk when this returns.
    pub(crate) async fn stage(&self, location: &Path, bytes: Bytes) -> Result<Staged> {
        let (target, location) = (self.fs_path(location)?, location.clone());
        blocking(move || Staged::write(target, location, &bytes.into())).await
    }

    /// Gives a file its name, which has to be new. Durable when it returns.
    pub(crate) async fn publish_new(&self, staged: Staged) -> Result<()> {
        blocking(move || staged.publish(true)).await
    }

    /// Writes many files, then syncs the file system once. A crash may leave some of them torn:
    /// only for files that are derived again when their checkpoint does not cover them.
    pub(crate) fn put_many(&self, files: &[(Path, Bytes)]) -> Result<()> {
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
            let target = self.fs_path(path)?;
            let written = match fs::write(&target, bytes) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    make_parent(&target).and_then(|()| fs::write(&target, bytes))
                }
                other => other,
            };
            written.map_err(generic)?;
        }
        Ok(())
    }

    /// Makes durable what [`put_many`](Self::put_many) wrote: a few files one by one, many at once.
    pub(crate) fn sync(&self, files: &[Path]) -> Result<()> {
        if files.len() > ONE_BY_ONE {
            let root = File::open(&self.root).map_err(generic)?;
            return rustix::fs::syncfs(&root).map_err(generic);
        }
        for path in files {
            let path = self.fs_path(path)?;
            File::open(&path).and_then(|f| f.sync_all()).and_then(|()| sync_dir(&path)).map_err(generic)?;
        }
        Ok(())
    }
}

/// Up to so many files are synced one by one; beyond, syncing the file system is cheaper.
const ONE_BY_ONE: usize = 64;

fn make_parent(path: &FsPath) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn sync_dir(path: &FsPath) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// A file that is on the disk and does not have its name yet. Dropped, it goes.
pub(crate) struct Staged {
    beside: PathBuf,
    target: PathBuf,
    location: Path,
}

impl Staged {
    /// Writes the file beside its place, and syncs it.
    fn write(target: PathBuf, location: Path, payload: &PutPayload) -> Result<Self> {
        let beside = target.with_file_name(format!(".tmp-{}", uuid::Uuid::new_v4()));
        let staged = Staged { beside, target, location };
        write_synced(&staged.beside, payload).map_err(generic)?;
        Ok(staged)
    }

    /// Gives it its name, unless that is taken and `create` is set; durable when it returns.
    fn publish(self, create: bool) -> Result<()> {
        let publish = || -> std::io::Result<()> {
            if create {
                // A link, unlike a rename, fails if the name is taken: this is put-if-absent.
                fs::hard_link(&self.beside, &self.target)?;
                fs::remove_file(&self.beside)?;
            } else {
                fs::rename(&self.beside, &self.target)?;
            }
            sync_dir(&self.target)
        };
        publish().map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::AlreadyExists { path: self.location.to_string(), source: e.into() }
            }
            _ => generic(e),
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Once it is published, there is nothing of this name.
        let _ = fs::remove_file(&self.beside);
    }
}

fn write_synced(path: &FsPath, payload: &PutPayload) -> std::io::Result<()> {
    let mut file = match File::create(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            make_parent(path)?;
            File::create(path)?
        }
        other => other?,
    };
    for part in payload {
        file.write_all(part)?;
    }
    file.sync_all()
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => return Err(generic("conditional update is not supported on a disk")),
        };
        let (target, location) = (self.fs_path(location)?, location.clone());
        blocking(move || Staged::write(target, location, &payload)?.publish(create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(SyncedUpload { inner, target: self.fs_path(location)? }))
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

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// A multipart upload that is on the disk when it is complete.
#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    target: PathBuf,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let target = self.target.clone();
        blocking(move || {
            File::open(&target).and_then(|f| f.sync_all()).and_then(|()| sync_dir(&target)).map_err(generic)
        })
        .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// The object store of a [`Storage`](crate::storage::Storage), with what only a disk can do.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    /// A directory of this machine.
    Disk(Arc<DurableLocal>),
    /// Anything else that `object_store` reaches.
    Remote(Arc<dyn ObjectStore>),
}
