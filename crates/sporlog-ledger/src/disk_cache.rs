//! Parts of data files and key indexes of a store in a bucket, kept on a local disk.
//!
//! A request to a bucket takes some tens of milliseconds. So readers get footers, key indexes and pages in chunks of
//! [`CHUNK`] bytes, which are kept as `<folder>/<path of the object>/<number of the chunk>`, and beside them the object's size
//! as `size`. A chunk file ends with its checksum; what a crash left of one counts as missing.
//!
//! The objects are immutable, so a chunk never becomes wrong. Chunks go when others were used more recently and the limit is
//! reached, and when their file leaves the table. An error of this cache is never an error of a read: the bucket is asked then.
//! `verify` asks the bucket itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, Result};
use tokio::runtime::Handle;
use twox_hash::XxHash64;
use walkdir::WalkDir;

use crate::local_files::{make_folder, private_file};

/// Bytes in a chunk. A page of a column has some ten thousand.
const CHUNK: u64 = 16 << 10;
const CHECKSUM: usize = size_of::<u64>();
/// The name of the file that has an object's size.
const SIZE: &str = "size";

/// The chunks of all logs of a store.
#[derive(Debug)]
pub(crate) struct DiskCache {
    folder: PathBuf,
    /// The most bytes that are kept.
    limit: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// The files by their paths below the folder, and their sizes.
    files: LruCache<PathBuf, u64>,
    bytes: u64,
}

impl DiskCache {
    /// Takes over what is in `folder`, which is made if it is not there.
    pub(crate) fn open(folder: &FsPath, limit: u64) -> io::Result<Self> {
        make_folder(folder)?;
        let folder = folder.canonicalize()?;
        let mut files = Vec::new();
        for entry in WalkDir::new(&folder).into_iter().filter_map(std::result::Result::ok) {
            let (Ok(metadata), Ok(path)) = (entry.metadata(), entry.path().strip_prefix(&folder)) else {
                continue;
            };
            if metadata.is_file() {
                files.push((metadata.modified()?, path.to_owned(), metadata.len()));
            }
        }
        files.sort();
        let kept = Mutex::new(Kept { files: LruCache::unbounded(), bytes: 0 });
        let cache = DiskCache { folder, limit, kept };
        for (_, path, bytes) in files {
            cache.note(path, bytes);
        }
        Ok(cache)
    }

    /// The size of the object at `path`.
    pub(crate) async fn size(self: &Arc<Self>, store: &dyn ObjectStore, path: &Path) -> Result<u64> {
        let name = file_name(path, SIZE);
        let (cache, kept) = (self.clone(), name.clone());
        if let Some(Ok(size)) =
            blocking(move || cache.read(&kept)).await?.map(|size| size.as_ref().try_into())
        {
            return Ok(u64::from_le_bytes(size));
        }
        let size = store.head(path).await?.size;
        let cache = self.clone();
        blocking(move || cache.keep(name, &size.to_le_bytes())).await?;
        Ok(size)
    }

    /// These ranges of the object at `path`, which has `size` bytes.
    pub(crate) async fn get_ranges(
        self: &Arc<Self>,
        store: &dyn ObjectStore,
        path: &Path,
        size: u64,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let wanted: BTreeSet<_> = ranges.iter().flat_map(numbers).collect();
        let names = wanted.iter().map(|number| (*number, file_name(path, &number.to_string())));
        let (cache, names) = (self.clone(), names.collect::<BTreeMap<_, _>>());
        let read = move || {
            names.into_iter().filter_map(|(number, name)| Some((number, cache.read(&name)?))).collect()
        };
        let mut chunks: BTreeMap<_, Bytes> = blocking(read).await?;
        let missing: Vec<_> = wanted.into_iter().filter(|number| !chunks.contains_key(number)).collect();
        if !missing.is_empty() {
            let fetch = missing.iter().map(|number| number * CHUNK..size.min((number + 1) * CHUNK));
            let fetched = store.get_ranges(path, &fetch.collect::<Vec<_>>()).await?;
            let fetched: BTreeMap<_, _> = missing.into_iter().zip(fetched).collect();
            chunks.extend(fetched.clone());
            let (cache, path) = (self.clone(), path.clone());
            let name = move |number: u64| file_name(&path, &number.to_string());
            blocking(move || fetched.iter().for_each(|(number, chunk)| cache.keep(name(*number), chunk)))
                .await?;
        }
        Ok(ranges.iter().map(|range| cut(&chunks, range)).collect())
    }

    /// Removes what there is of the objects below `folder` whose names, relative to it, are not among `names`.
    pub(crate) fn retain(self: &Arc<Self>, folder: &Path, names: &HashSet<String>) {
        let folder = FsPath::new(folder.as_ref());
        let is_gone = |file: &&PathBuf| {
            let object = file.parent().and_then(|object| object.strip_prefix(folder).ok());
            object.is_some_and(|object| !names.contains(object.to_string_lossy().as_ref()))
        };
        let gone: Vec<_> = self.kept().files.iter().map(|(file, _)| file).filter(is_gone).cloned().collect();
        let cache = self.clone();
        let remove = move || gone.iter().for_each(|file| cache.remove(file));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }

    /// What is kept as `name`.
    fn read(&self, name: &FsPath) -> Option<Bytes> {
        let mut bytes = std::fs::read(self.folder.join(name)).ok()?;
        let sum = bytes.split_off(bytes.len().checked_sub(CHECKSUM)?);
        if sum != checksum(&bytes) {
            self.remove(name);
            return None;
        }
        self.note(name.to_owned(), (bytes.len() + CHECKSUM) as u64);
        Some(bytes.into())
    }

    /// Keeps `bytes` as `name`, if the disk takes them.
    fn keep(&self, name: PathBuf, bytes: &[u8]) {
        let path = self.folder.join(&name);
        let beside = path.with_extension(uuid::Uuid::new_v4().simple().to_string());
        let write = || {
            path.parent().map(std::fs::create_dir_all).transpose()?;
            let mut file = private_file().create_new(true).open(&beside)?;
            file.write_all(bytes)?;
            file.write_all(&checksum(bytes))?;
            std::fs::rename(&beside, &path)
        };
        match write() {
            Ok(()) => self.note(name, (bytes.len() + CHECKSUM) as u64),
            Err(error) => {
                let _ = std::fs::remove_file(&beside);
                tracing::debug!(%error, folder = %self.folder.display(), "nothing can be kept in the cache on disk");
            }
        }
    }

    /// The file `name` was used. Removes the least recently used ones if there is too much.
    fn note(&self, name: PathBuf, bytes: u64) {
        let mut kept = self.kept();
        kept.bytes += bytes;
        kept.bytes -= kept.files.push(name, bytes).map_or(0, |(_, before)| before);
        let mut gone = Vec::new();
        while kept.bytes > self.limit {
            let Some((name, bytes)) = kept.files.pop_lru() else { break };
            kept.bytes -= bytes;
            gone.push(name);
        }
        drop(kept);
        gone.iter().for_each(|name| self.remove(name));
    }

    /// Removes the file `name`, and its folder if nothing else is in it.
    fn remove(&self, name: &FsPath) {
        let mut kept = self.kept();
        kept.bytes -= kept.files.pop(name).unwrap_or(0);
        drop(kept);
        let path = self.folder.join(name);
        let _ = std::fs::remove_file(&path);
        path.parent().map(std::fs::remove_dir);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_name(path: &Path, file: &str) -> PathBuf {
    FsPath::new(path.as_ref()).join(file)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    XxHash64::oneshot(0, bytes).to_le_bytes()
}

/// The numbers of the chunks that `range` lies in.
fn numbers(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / CHUNK..range.end.div_ceil(CHUNK) }
}

/// The bytes of `range` as far as there are any.
fn cut(chunks: &BTreeMap<u64, Bytes>, range: &Range<u64>) -> Bytes {
    let parts = numbers(range).filter_map(|number| {
        let (chunk, start) = (chunks.get(&number)?, number * CHUNK);
        let within = |at: u64| at.saturating_sub(start).min(chunk.len() as u64) as usize;
        Some(chunk.slice(within(range.start)..within(range.end)))
    });
    match &parts.collect::<Vec<_>>()[..] {
        [part] => part.clone(),
        parts => parts.concat().into(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    const OBJECT: &str = "logs/a/table/month=2026-11/000000000001-0123456789ab.parquet";

    fn ranges(size: u64) -> [Range<u64>; 5] {
        [0..10, CHUNK - 5..CHUNK + 5, 7..7, 0..size, size - 8..size]
    }

    /// A bucket with an object in it, and the object.
    async fn bucket(name: &str, size: u64) -> (InMemory, Path, Vec<u8>) {
        let (store, path) = (InMemory::new(), Path::from(name));
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        store.put(&path, bytes.clone().into()).await.expect("put");
        (store, path, bytes)
    }

    async fn read(cache: &Arc<DiskCache>, store: &InMemory, path: &Path) -> Result<Vec<Bytes>> {
        let size = cache.size(store, path).await?;
        cache.get_ranges(store, path, size, &ranges(size)).await
    }

    #[tokio::test]
    async fn what_was_read_once_is_read_again_without_the_bucket() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, path, bytes) = bucket(OBJECT, 5 * CHUNK / 2).await;
        let expected: Vec<_> =
            ranges(bytes.len() as u64).map(|r| bytes[r.start as usize..r.end as usize].to_vec()).into();
        let cache = Arc::new(DiskCache::open(dir.path(), u64::MAX).expect("a cache"));
        assert_eq!(read(&cache, &store, &path).await.expect("from the bucket"), expected);
        store.delete(&path).await.expect("deleted");
        // Also by the next process.
        for cache in [cache, Arc::new(DiskCache::open(dir.path(), u64::MAX).expect("a cache"))] {
            assert_eq!(read(&cache, &store, &path).await.expect("from the disk"), expected);
        }
        // What a crash left of a chunk counts as missing.
        std::fs::write(dir.path().join(OBJECT).join("1"), [0; 100]).expect("written");
        let cache = Arc::new(DiskCache::open(dir.path(), u64::MAX).expect("a cache"));
        assert!(read(&cache, &store, &path).await.is_err());
        store.put(&path, bytes.into()).await.expect("put");
        assert_eq!(read(&cache, &store, &path).await.expect("mended"), expected);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_the_limit_and_nothing_of_files_that_are_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let on_disk = || {
            WalkDir::new(dir.path()).into_iter().flatten().filter(|e| e.file_type().is_file()).count() as u64
        };
        let (store, path, _) = bucket(OBJECT, 10 * CHUNK).await;
        let cache = Arc::new(DiskCache::open(dir.path(), 4 * CHUNK).expect("a cache"));
        read(&cache, &store, &path).await.expect("read");
        assert!(
            on_disk() > 0 && cache.kept().bytes <= 4 * CHUNK && on_disk() == cache.kept().files.len() as u64
        );
        let retain = |folder: &str, names: &[String]| {
            let (cache, folder, names) = (cache.clone(), Path::from(folder), names.iter().cloned().collect());
            std::thread::spawn(move || cache.retain(&folder, &names)).join().expect("retained");
        };
        retain("logs/a", &[OBJECT.replace("logs/a/", "")]);
        retain("logs/b", &[]);
        assert!(on_disk() > 0);
        retain("logs/a", &[]);
        assert_eq!((on_disk(), cache.kept().bytes), (0, 0));
    }
}
