//! Decoded blocks of data files, kept for clients that read on.
//!
//! A client that reads a log on from its last id asks for some hundred records at a time, which lie in the same pages of
//! a data file: [`BLOCK_ROWS`] rows, whose values are decompressed together. Such a client has each block decoded once,
//! whole, and its next page comes from memory. A page somewhere else has just its own rows decoded, as a whole block
//! would take longer and not be asked for again.
//!
//! Data files are immutable, so a block never becomes wrong. It is dropped when others were used more recently and the
//! limit is reached, and when its file leaves the table: what retention has removed is not kept in memory either.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use lru::LruCache;

use crate::datafile::PAGE_ROWS;
use crate::delta::DataFile;

/// Rows in a block, which begins so many rows after the block before it in its row group, as pages do.
pub(crate) const BLOCK_ROWS: usize = PAGE_ROWS;
/// Unless configured otherwise, blocks of so many bytes are kept.
pub const CACHE_BYTES: usize = 64 << 20;
/// So many ends of reads are remembered, to know who reads on.
const ENDS: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// The blocks of all logs of a store.
pub(crate) struct BlockCache {
    /// The most bytes that are kept.
    limit: usize,
    kept: Mutex<Kept>,
}

struct Kept {
    /// By the log, the file and the first row.
    blocks: LruCache<(Arc<str>, String, usize), Block>,
    bytes: usize,
    /// The logs and the ids with which reads ended.
    ends: LruCache<(Arc<str>, u64), ()>,
}

struct Block {
    file: Arc<DataFile>,
    rows: RecordBatch,
}

impl Block {
    fn bytes(&self) -> usize {
        self.rows.get_array_memory_size()
    }
}

impl BlockCache {
    pub(crate) fn new(limit: usize) -> Self {
        let kept = Kept { blocks: LruCache::unbounded(), bytes: 0, ends: LruCache::new(ENDS) };
        BlockCache { limit, kept: Mutex::new(kept) }
    }

    /// Whether a read of `log` after the id `after` goes on where another one ended. It ends with the id `last`.
    pub(crate) fn reads_on(&self, log: &Arc<str>, after: u64, last: u64) -> bool {
        let mut kept = self.kept();
        kept.ends.put((log.clone(), last), ());
        self.limit > 0 && kept.ends.get(&(log.clone(), after)).is_some()
    }

    /// The block of `file` that begins with `row`.
    pub(crate) fn get(&self, log: &Arc<str>, file: &DataFile, row: usize) -> Option<RecordBatch> {
        Some(self.kept().blocks.get(&(log.clone(), file.path.clone(), row))?.rows.clone())
    }

    /// Keeps the block of `file` that begins with `row`.
    pub(crate) fn put(&self, log: &Arc<str>, file: &Arc<DataFile>, row: usize, rows: RecordBatch) {
        let block = Block { file: file.clone(), rows };
        let mut kept = self.kept();
        kept.bytes += block.bytes();
        if let Some((_, replaced)) = kept.blocks.push((log.clone(), file.path.clone(), row), block) {
            kept.bytes -= replaced.bytes();
        }
        while kept.bytes > self.limit {
            let Some((_, oldest)) = kept.blocks.pop_lru() else { break };
            kept.bytes -= oldest.bytes();
        }
    }

    /// Drops the blocks of those files of `log` of which there are none any more, by `is_there`.
    pub(crate) fn retain(&self, log: &Arc<str>, is_there: impl Fn(&DataFile) -> bool) {
        let mut kept = self.kept();
        let gone = kept.blocks.iter().filter(|((of, ..), block)| of == log && !is_there(&block.file));
        let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            kept.bytes -= kept.blocks.pop(&key).map_or(0, |block| block.bytes());
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    fn block(rows: i64) -> RecordBatch {
        let ids: Int64Array = (0..rows).collect();
        RecordBatch::try_from_iter([("id", Arc::new(ids) as _)]).expect("a batch")
    }

    #[test]
    fn the_least_recently_used_blocks_go_first_and_no_more_are_kept_than_the_limit() {
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let file = Arc::new(DataFile::new(1, 4_096, 0));
        let cache = BlockCache::new(3 * block(1_024).get_array_memory_size());
        for row in [0, 1_024, 2_048] {
            cache.put(&a, &file, row, block(1_024));
        }
        assert!(cache.get(&a, &file, 0).is_some() && cache.get(&b, &file, 0).is_none());
        cache.put(&a, &file, 0, block(1_024));
        cache.put(&b, &file, 0, block(1_024));
        let kept = [0, 1_024, 2_048].map(|row| cache.get(&a, &file, row).is_some());
        assert_eq!(kept, [true, false, true]);
        cache.put(&a, &file, 0, block(100_000));
        assert!(cache.get(&a, &file, 0).is_none() && cache.kept().bytes <= cache.limit);
    }

    #[test]
    fn what_leaves_a_table_is_dropped() {
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let [old, new] = [1, 2_000].map(|first| Arc::new(DataFile::new(first, first + 1_000, 0)));
        let cache = BlockCache::new(CACHE_BYTES);
        for (log, file) in [(&a, &old), (&a, &new), (&b, &old)] {
            cache.put(log, file, 0, block(1_000));
        }
        cache.retain(&a, |file| file.first == 2_000);
        let kept = [(&a, &old), (&a, &new), (&b, &old)].map(|(log, file)| cache.get(log, file, 0).is_some());
        assert_eq!(kept, [false, true, true]);
        assert_eq!(cache.kept().bytes, 2 * block(1_000).get_array_memory_size());
    }

    #[test]
    fn a_read_goes_on_where_another_of_the_same_log_ended() {
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let cache = BlockCache::new(CACHE_BYTES);
        assert!(!cache.reads_on(&a, 0, 100));
        assert!(cache.reads_on(&a, 100, 200) && cache.reads_on(&a, 100, 200) && cache.reads_on(&a, 200, 300));
        assert!(!cache.reads_on(&b, 100, 200) && !cache.reads_on(&a, 150, 250));
        let none = BlockCache::new(0);
        assert!(!none.reads_on(&a, 0, 100) && !none.reads_on(&a, 100, 200));
    }
}
