//! The ledger: append-only logs that prove themselves.
//!
//! A log is a folder: `table/` is a Delta Lake table with the records, `journal/` the newest of them, before the
//! table has them, `tlog/` a C2SP transparency log over all, `index/` what finds a person quickly. This crate appends, reads, finds, queries,
//! proves, verifies, compacts and expires, and knows nothing of what the records mean.
//!
//! | module | idea |
//! |---|---|
//! | [`store`](Store) | a place with logs in it, and their keys |
//! | [`writer`](Writer), `sequencer` | the handle that appends, and the one that does: the life of a batch from top to bottom |
//! | `clock` | what times of receipt are taken from, watched for jumps |
//! | `bulk` | any number of rows as one commit, encoded by several threads |
//! | `row_commitments` | rows get their numbers and are committed to |
//! | `spool` | tiles that wait for their commit |
//! | `recover` | where a writer begins, and what it makes up for after a crash |
//! | `table_state` | a version of the table: its files, its size and root, positions of sources |
//! | `table` | the Delta table: how it is read, and how a version is committed |
//! | `journal`, `segment` | frames: what is signed and stored for a group commit, and the files that frames are in |
//! | `writer_lock` | one process at a time writes to a log |
//! | `flush` | the journal's records become a file of the table |
//! | `recent` | the journal's records in memory, and where records are |
//! | `commit`, `delta`, `delta_checkpoint` | a commit's bytes and signature, Delta's actions, checkpoints |
//! | `high_water_mark` | how far a log has been signed, remembered beside its key |
//! | `tree`, `tlog` | the Merkle tree's edge; tiles, checkpoints and notes as files |
//! | `datafile`, `keyindex`, `files` | how Parquet files are laid out, indexed and opened |
//! | `times` | within what time records lie |
//! | `received_times` | which records were received when |
//! | `scan`, `find`, `sql` | records by id, by person or user, by query |
//! | `blocks`, `disk_cache` | decoded rows, kept for whoever reads on; parts of files in a bucket, kept on a disk |
//! | `cluster` | queries that a Ballista cluster runs (with the feature `ballista`) |
//! | `arithmetic` | whole numbers of queries do not wrap around |
//! | `overlap` | which of many rows a log has already |
//! | `locate` | which records are a person's, by the index alone; then just what is asked of them |
//! | `listing` | the table's data files, for other programs |
//! | `merge` | several logs read as one |
//! | `prove`, `verify`, `replay`, `rebuild`, `verified` | for those who do not take our word for it |
//! | `verify_parts` | a range of records verified, and such results joined |
//! | `verify_served` | the check of a served log, by nothing but its transparency log |
//! | `compact` | housekeeping and retention |
//! | `backup` | the folder of a backup: copies of logs, and what belongs to them |
//! | `copy` | a consistent copy of a log that is written to, for backups and back |
//! | `rollback` | a log that ends before what was signed for goes on from there, on record |
//! | `rotation` | another signing key for a log |
//! | `storage`, `durable`, `bucket` | disk or bucket |
//! | `fitness` | whether a place can be a store |
//! | [`local_files`] | files and folders of this machine: for their owner alone, durable, under names of their own |
#![forbid(unsafe_code)]

mod arithmetic;
mod backup;
mod blocks;
mod bucket;
mod bulk;
mod clock;
#[cfg(feature = "ballista")]
mod cluster;
mod commit;
mod compact;
mod copy;
mod datafile;
mod delta;
mod delta_checkpoint;
mod disk_cache;
mod durable;
mod error;
mod files;
mod find;
mod fitness;
mod flush;
mod high_water_mark;
mod journal;
mod keyindex;
mod keys;
mod listing;
pub mod local_files;
mod locate;
mod log;
mod merge;
mod overlap;
mod prove;
mod rebuild;
mod received_times;
mod recent;
mod recover;
mod replay;
mod rollback;
mod rotation;
mod row_commitments;
mod scan;
mod schema;
mod segment;
mod segment_files;
mod segment_objects;
mod sequencer;
mod spool;
mod sql;
mod storage;
mod store;
mod table;
mod table_state;
mod times;
mod tlog;
mod tree;
mod verified;
mod verify;
mod verify_parts;
mod verify_served;
mod writer;
mod writer_lock;

pub use backup::{Backup, copy_path};
pub use blocks::CACHE_BYTES;
pub use bulk::{Bulk, BulkPusher};
pub use clock::Clock;
#[cfg(feature = "ballista")]
pub use cluster::query_on_cluster;
pub use commit::{Position, RolledBack};
pub use compact::{Compacted, Expired};
pub use copy::Copied;
pub use error::{Error, Result};
pub use find::Find;
pub use fitness::Ability;
pub use keyindex::Key;
pub use keys::{Commitment, LogKeys, Salt, check_vkey, commitment, open_note};
pub use listing::ListedFile;
pub use locate::Located;
pub use log::{KeySource, Log};
pub use merge::{find_in_all, matches, overlap};
pub use overlap::{Overlap, ReceivedBefore};
pub use prove::{Proven, verify_proof};
pub use row_commitments::numbers;
pub use scan::Batches;
pub use schema::table_schema;
pub use sql::{Rows, query, spark_views, statements};
pub use storage::local_directory;
pub use store::{Store, StoreOptions, is_log_name};
pub use table_state::{ONCE, REMEMBERED};
pub use tlog::open_checkpoint;
pub use verified::{Problem, Verified};
pub use verify_served::{Served, TlogSource, verify_served};
pub use writer::{Advance, Append, Appended, Outcome, Writer, WriterOptions};
