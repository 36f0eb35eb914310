//! Parts of data files and key indexes of a store in a bucket, kept on a local disk.
//!
//! A request to a bucket takes some tens of milliseconds. So what readers get of footers, key indexes and pages is kept, in
//! parts of [`PART`] bytes. Each object has a folder `<folder>/<path of the object>` with two files:
//!
//! | file | what it has |
//! |---|---|
//! | `data` | the parts, each at its place; holes where the object has not been read |
//! | `parts` | the object's size and a checksum of that; then, for each part that was written, its number and its checksum |
//!
//! A part whose checksum is another one, as a crash may leave it, counts as missing.
//!
//! The objects are immutable, so a part never becomes wrong. An object's parts go together: when others were used more recently
//! and the limit is reached, and when the object leaves the table. An error of this cache is never an error of a read: the
//! bucket is asked then. `verify` asks the bucket itself.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
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

/// Bytes in a part: a block of most disks.
const PART: u64 = 4 << 10;
const DATA: &str = "data";
const PARTS: &str = "parts";
/// The object's size and its checksum.
const HEADER: usize = 16;
/// The number of a part and its checksum.
const ENTRY: usize = 8;

/// The parts of all objects of a store.
#[derive(Debug)]
pub(crate) struct DiskCache {
    folder: PathBuf,
    /// The most bytes that are kept.
    limit: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// By their paths in the bucket.
    objects: LruCache<Path, Object>,
    bytes: u64,
}

/// What is known of an object.
#[derive(Debug)]
struct Object {
    size: u64,
    /// The checksums of its parts, by their numbers.
    parts: HashMap<u32, u32>,
}

impl DiskCache {
    /// Takes over what is in `folder`, which is made if it is not there.
    pub(crate) fn open(folder: &FsPath, limit: u64) -> io::Result<Self> {
        make_folder(folder)?;
        let folder = folder.canonicalize()?;
        let mut found = Vec::new();
        for entry in WalkDir::new(&folder).into_iter().filter_map(std::result::Result::ok) {
            let place = entry.path().parent().and_then(|object| object.strip_prefix(&folder).ok());
            let path = place.and_then(|place| Path::parse(place.to_str()?).ok());
            // What else somebody has in the folder is left alone.
            let path = path.filter(|path| path.extension() == Some("parquet"));
            let (PARTS, Some(path)) = (entry.file_name().to_str().unwrap_or_default(), path) else {
                continue;
            };
            let Ok(metadata) = entry.metadata() else { continue };
            found.push((metadata.modified()?, path, Object::read(entry.path())));
        }
        found.sort_by_key(|(used, ..)| *used);
        let kept = Mutex::new(Kept { objects: LruCache::unbounded(), bytes: 0 });
        let cache = DiskCache { folder, limit, kept };
        for (_, path, object) in found {
            match object {
                Some(object) => cache.note(&path, object.size, object.parts),
                None => cache.remove(&path),
            }
        }
        Ok(cache)
    }

    /// The size of the object at `path`.
    pub(crate) async fn size(&self, store: &dyn ObjectStore, path: &Path) -> Result<u64> {
        let known = self.kept().objects.get(path).map(|object| object.size);
        if let Some(size) = known {
            return Ok(size);
        }
        let size = store.head(path).await?.size;
        self.note(path, size, HashMap::new());
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
        let whole: Vec<_> = ranges.iter().map(|range| whole_parts(range, size)).collect();
        let (cache, name, wanted) = (self.clone(), path.clone(), whole.clone());
        let mut there = blocking(move || cache.read(&name, &wanted)).await?;
        let absent = whole.iter().zip(&mut there).filter(|(_, bytes)| bytes.is_none());
        let (missing, places): (Vec<_>, Vec<_>) = absent.map(|(range, place)| (range.clone(), place)).unzip();
        if !missing.is_empty() {
            let fetched = store.get_ranges(path, &missing).await?;
            places.into_iter().zip(&fetched).for_each(|(place, bytes)| *place = Some(bytes.clone()));
            let (cache, name) = (self.clone(), path.clone());
            blocking(move || cache.keep(&name, size, &missing, &fetched)).await?;
        }
        let cut = |((range, whole), bytes): ((&Range<u64>, &Range<u64>), Option<Bytes>)| {
            let bytes = bytes.unwrap_or_default();
            let within = |at: u64| (at.saturating_sub(whole.start) as usize).min(bytes.len());
            bytes.slice(within(range.start)..within(range.end))
        };
        Ok(ranges.iter().zip(&whole).zip(there).map(cut).collect())
    }

    /// Removes what there is of the objects below `folder` whose names, relative to it, are not among `names`.
    pub(crate) fn retain(self: &Arc<Self>, folder: &Path, names: &HashSet<String>) {
        let is_gone = |path: &&Path| {
            let name = path.prefix_match(folder).map(Path::from_iter);
            name.is_some_and(|name| !names.contains(name.as_ref()))
        };
        let gone: Vec<_> =
            self.kept().objects.iter().map(|(path, _)| path).filter(is_gone).cloned().collect();
        let cache = self.clone();
        let remove = move || gone.iter().for_each(|path| cache.remove(path));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }

    /// What is kept of each of these ranges of whole parts, if all of it is.
    fn read(&self, path: &Path, ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let checksums_of = |object: &Object, range: &Range<u64>| {
            numbers(range).map(|number| object.parts.get(&number).copied()).collect::<Option<Vec<_>>>()
        };
        let expected: Vec<_> = match self.kept().objects.get(path) {
            Some(object) => ranges.iter().map(|range| checksums_of(object, range)).collect(),
            None => vec![None; ranges.len()],
        };
        let file = File::open(self.place(path).join(DATA)).ok();
        let read = |(range, expected): (&Range<u64>, Option<Vec<u32>>)| {
            if range.is_empty() {
                return Some(Bytes::new());
            }
            let expected = expected?;
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.as_ref()?.read_exact_at(&mut bytes, range.start).ok()?;
            let is_whole = bytes.chunks(PART as usize).map(checksum).eq(expected);
            is_whole.then(|| bytes.into())
        };
        ranges.iter().zip(expected).map(read).collect()
    }

    /// Keeps these ranges of whole parts, if the disk takes them.
    fn keep(&self, path: &Path, size: u64, ranges: &[Range<u64>], bytes: &[Bytes]) {
        let place = self.place(path);
        let write = || {
            std::fs::create_dir_all(&place)?;
            let data = private_file().open(place.join(DATA))?;
            let mut list = private_file().append(true).open(place.join(PARTS))?;
            let mut entries = Vec::new();
            if list.metadata()?.len() == 0 {
                entries.extend_from_slice(&size.to_le_bytes());
                entries.extend_from_slice(&XxHash64::oneshot(0, &size.to_le_bytes()).to_le_bytes());
            }
            let mut parts = HashMap::new();
            for (range, bytes) in ranges.iter().zip(bytes) {
                data.write_all_at(bytes, range.start)?;
                parts.extend(numbers(range).zip(bytes.chunks(PART as usize).map(checksum)));
            }
            for (number, checksum) in &parts {
                entries.extend_from_slice(&number.to_le_bytes());
                entries.extend_from_slice(&checksum.to_le_bytes());
            }
            list.write_all(&entries)?;
            Ok::<_, io::Error>(parts)
        };
        match write() {
            Ok(parts) => self.note(path, size, parts),
            Err(error) => {
                tracing::debug!(%error, folder = %self.folder.display(), "nothing can be kept in the cache on disk");
            }
        }
    }

    /// These parts of an object are there. If that is too much, the objects go that were not used for the longest time.
    fn note(&self, path: &Path, size: u64, parts: HashMap<u32, u32>) {
        let mut guard = self.kept();
        let kept = &mut *guard;
        let object = kept.objects.get_or_insert_mut(path.clone(), || Object { size, parts: HashMap::new() });
        let before = object.bytes();
        object.parts.extend(parts);
        kept.bytes += object.bytes() - before;
        let mut gone = Vec::new();
        while kept.bytes > self.limit {
            let Some((path, object)) = kept.objects.pop_lru() else { break };
            kept.bytes -= object.bytes();
            gone.push(path);
        }
        drop(guard);
        gone.iter().for_each(|path| self.remove(path));
    }

    /// Removes what is kept of an object.
    fn remove(&self, path: &Path) {
        let mut kept = self.kept();
        kept.bytes -= kept.objects.pop(path).map_or(0, |object| object.bytes());
        drop(kept);
        let place = self.place(path);
        for file in [PARTS, DATA] {
            let _ = std::fs::remove_file(place.join(file));
        }
        let _ = std::fs::remove_dir(place);
    }

    fn place(&self, path: &Path) -> PathBuf {
        self.folder.join(path.as_ref())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object {
    fn bytes(&self) -> u64 {
        PART * self.parts.len() as u64
    }

    /// What the file `parts` says of an object, if its size is right.
    fn read(file: &FsPath) -> Option<Self> {
        let bytes = std::fs::read(file).ok()?;
        let (header, entries) = bytes.split_first_chunk::<HEADER>()?;
        let (size, sum) = header.split_first_chunk()?;
        if XxHash64::oneshot(0, size).to_le_bytes() != sum {
            return None;
        }
        let (entries, torn) = entries.as_chunks::<ENTRY>();
        if !torn.is_empty() {
            return None;
        }
        let entry = |[a, b, c, d, rest @ ..]: &[u8; ENTRY]| {
            (u32::from_le_bytes([*a, *b, *c, *d]), u32::from_le_bytes(*rest))
        };
        Some(Object { size: u64::from_le_bytes(*size), parts: entries.iter().map(entry).collect() })
    }
}

fn checksum(part: &[u8]) -> u32 {
    XxHash64::oneshot(0, part) as u32
}

/// `range`, widened to whole parts of an object of `size` bytes.
fn whole_parts(range: &Range<u64>, size: u64) -> Range<u64> {
    let start = range.start / PART * PART;
    if range.is_empty() { start..start } else { start..range.end.next_multiple_of(PART).min(size) }
}

/// The numbers of the parts that `range` lies in.
fn numbers(range: &Range<u64>) -> Range<u32> {
    (range.start / PART) as u32..range.end.div_ceil(PART) as u32
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    const OBJECT: &str = "logs/a/table/month=2026-11/000000000001-0123456789ab.parquet";

    const KB: u64 = 1 << 10;

    fn ranges(size: u64) -> [Range<u64>; 5] {
        [0..10, KB - 5..KB + 5, 7..7, 0..size, size - 8..size]
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
        let (store, path, bytes) = bucket(OBJECT, 40 * KB).await;
        let expected: Vec<_> =
            ranges(bytes.len() as u64).map(|r| bytes[r.start as usize..r.end as usize].to_vec()).into();
        let cache = Arc::new(DiskCache::open(dir.path(), u64::MAX).expect("a cache"));
        assert_eq!(read(&cache, &store, &path).await.expect("from the bucket"), expected);
        store.delete(&path).await.expect("deleted");
        // Also by the next process.
        for cache in [cache, Arc::new(DiskCache::open(dir.path(), u64::MAX).expect("a cache"))] {
            assert_eq!(read(&cache, &store, &path).await.expect("from the disk"), expected);
        }
        // What a crash left of a part counts as missing.
        private_file()
            .open(dir.path().join(OBJECT).join(DATA))
            .expect("there")
            .write_all(&[1; 100])
            .expect("written");
        let cache = Arc::new(DiskCache::open(dir.path(), u64::MAX).expect("a cache"));
        assert!(read(&cache, &store, &path).await.is_err());
        store.put(&path, bytes.into()).await.expect("put");
        assert_eq!(read(&cache, &store, &path).await.expect("mended"), expected);
        // Without the object's size, nothing that is kept of it is relied on.
        std::fs::write(dir.path().join(OBJECT).join(PARTS), [1; 100]).expect("written");
        let cache = Arc::new(DiskCache::open(dir.path(), u64::MAX).expect("a cache"));
        assert_eq!((cache.kept().bytes, dir.path().join(OBJECT).exists()), (0, false));
        assert_eq!(read(&cache, &store, &path).await.expect("from the bucket"), expected);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_the_limit_and_nothing_of_files_that_are_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let on_disk = || {
            WalkDir::new(dir.path()).into_iter().flatten().filter(|e| e.file_type().is_file()).count() as u64
        };
        let cache = Arc::new(DiskCache::open(dir.path(), 100 * KB).expect("a cache"));
        let others = ["logs/a/table/1.parquet", "logs/a/table/2.parquet"];
        for name in [others[0], OBJECT, others[1]] {
            let (store, path, _) = bucket(name, 40 * KB).await;
            read(&cache, &store, &path).await.expect("read");
        }
        // The one that was not used for the longest time is gone.
        assert_eq!((on_disk(), cache.kept().bytes), (4, 80 * KB));
        assert!(!dir.path().join(others[0]).exists());
        let cache = Arc::new(DiskCache::open(dir.path(), 100 * KB).expect("a cache"));
        assert_eq!((on_disk(), cache.kept().bytes), (4, 80 * KB));
        let retain = |folder: &str, names: &[String]| {
            let (cache, folder, names) = (cache.clone(), Path::from(folder), names.iter().cloned().collect());
            std::thread::spawn(move || cache.retain(&folder, &names)).join().expect("retained");
        };
        retain("logs/a", &[OBJECT.replace("logs/a/", "")]);
        assert_eq!(on_disk(), 2);
        retain("logs/b", &[]);
        assert_eq!(on_disk(), 2);
        retain("logs/a", &[]);
        assert_eq!((on_disk(), cache.kept().bytes), (0, 0));
    }
}
