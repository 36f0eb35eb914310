//! Opening data files and key indexes, their footers and page locations kept at hand, and parts of those in a bucket on a
//! local disk.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use lru::LruCache;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use crate::disk_cache::DiskCache;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Footers kept: a file of a million records has one of some 2 MB.
const FOOTERS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// The footer is read with one request if it is no larger than this.
const FOOTER_HINT: usize = 64 << 10;

/// Pages no further apart than this are read together: a local file system would read each alone.
const NEAR: u64 = 32 << 10;

/// A file that is ready to be read.
pub(crate) type OpenFile = ParquetRecordBatchStreamBuilder<StoredFile>;

/// The footers of a log's files.
pub(crate) struct FileCache {
    footers: Mutex<LruCache<String, ArrowReaderMetadata>>,
    /// Parts of the files, if they are kept on a disk.
    pub disk: Option<Arc<DiskCache>>,
}

/// Which of the page indexes a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageIndexes {
    /// Where pages lie; for data files, whose rows are found by number.
    Locations,
    /// What is in them, too; for key indexes.
    Bounds,
}

impl FileCache {
    pub(crate) fn new(disk: Option<Arc<DiskCache>>) -> Self {
        FileCache { footers: Mutex::new(LruCache::new(FOOTERS)), disk }
    }

    /// Opens `name`, relative to the log's folder, to read parts of it.
    pub(crate) async fn open(&self, storage: &Storage, name: &str, pages: PageIndexes) -> Result<OpenFile> {
        self.open_by(self.disk.clone(), storage, name, pages).await
    }

    /// Opens the data file `name` to read all of it, as it is in the store.
    pub(crate) async fn open_whole(&self, storage: &Storage, name: &str) -> Result<OpenFile> {
        self.open_by(None, storage, name, PageIndexes::Locations).await
    }

    async fn open_by(
        &self,
        disk: Option<Arc<DiskCache>>,
        storage: &Storage,
        name: &str,
        pages: PageIndexes,
    ) -> Result<OpenFile> {
        let reader = StoredFile { store: storage.store(), path: storage.path(name), disk };
        let footer = self.footers.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(footer) = footer {
            return Ok(ParquetRecordBatchStreamBuilder::new_with_metadata(reader, footer));
        }
        let bounds =
            if pages == PageIndexes::Bounds { PageIndexPolicy::Required } else { PageIndexPolicy::Skip };
        let options = ArrowReaderOptions::new()
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .with_column_index_policy(bounds);
        let mut source = reader.clone();
        let footer =
            ArrowReaderMetadata::load_async(&mut source, options).await.map_err(Error::parquet(name))?;
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).put(name.to_owned(), footer.clone());
        Ok(ParquetRecordBatchStreamBuilder::new_with_metadata(reader, footer))
    }
}

/// A Parquet file in an object store.
#[derive(Debug, Clone)]
pub(crate) struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    disk: Option<Arc<DiskCache>>,
}

impl StoredFile {
    async fn size(&self) -> object_store::Result<u64> {
        match &self.disk {
            Some(disk) => disk.size(&self.store, &self.path).await,
            None => Ok(self.store.head(&self.path).await?.size),
        }
    }
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            if self.disk.is_some() {
                return Ok(self.get_byte_ranges(vec![range]).await?.swap_remove(0));
            }
            Ok(self.store.get_range(&self.path, range).await?)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            if let Some(disk) = &self.disk {
                let size = self.size().await?;
                return Ok(disk.get_ranges(&self.store, &self.path, size, &ranges).await?);
            }
            // One request for all: on a disk that is one open file, in a bucket they run side by side.
            let merged = merge_near(&ranges);
            let fetched = self.store.get_ranges(&self.path, &merged).await?;
            let cut = |range: &Range<u64>| {
                let at = merged.partition_point(|m| m.end < range.end);
                let whole = merged.get(at).zip(fetched.get(at));
                whole.map_or_else(Bytes::new, |(from, bytes)| {
                    bytes.slice((range.start - from.start) as usize..(range.end - from.start) as usize)
                })
            };
            Ok(ranges.iter().map(cut).collect())
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let policy =
                |of: fn(&ArrowReaderOptions) -> PageIndexPolicy| options.map_or(PageIndexPolicy::Skip, of);
            let reader = ParquetMetaDataReader::new()
                .with_prefetch_hint(Some(FOOTER_HINT))
                .with_offset_index_policy(policy(ArrowReaderOptions::offset_index_policy))
                .with_column_index_policy(policy(ArrowReaderOptions::column_index_policy));
            let size = self.size().await?;
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// The ranges in order, those that lie near each other as one.
fn merge_near(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end + NEAR => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_lie_near_each_other_are_fetched_as_one() {
        let far = 10 * NEAR;
        assert_eq!(merge_near(&[]), []);
        assert_eq!(merge_near(&[far..far + 5, 0..10, 20..30, 5..8]), [0..30, far..far + 5]);
        assert_eq!(merge_near(&[0..10, 2 * NEAR..3 * NEAR]), [0..10, 2 * NEAR..3 * NEAR]);
    }
}
