//! A bulk append: any number of rows, pushed by several threads, as one commit or not at all.
//!
//! ```text
//! threads: push(0) push(1) …   number, commit to, encode one row group each, side by side
//!             └──────┬─────┘
//! assembler:  row groups in order → Parquet files; commitments in order → tree and tiles
//!             │
//! sequencer:  one commit of all files
//! ```
//!
//! What is under way is bounded: a row group per pushing thread, and a few between them and the
//! assembler. While a bulk append lasts, other appends to the same log wait.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::arrow_writer::ArrowColumnChunk;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::datafile::{FileWriter, GroupEncoder};
use crate::delta::DataFile;
use crate::error::{Error, Result};
use crate::keyindex::{self, Postings};
use crate::keys::Commitment;
use crate::log::{Log, Shared};
use crate::overlap::{Overlap, PushedRows};
use crate::row_commitments::RowCommitter;
use crate::spool::TileSpool;
use crate::storage::Storage;
use crate::times::widest;
use crate::tree::Tree;
use crate::writer::{Advance, BulkGrant, BulkResult, Command, Outcome, Writer};
use tlog_tiles::tlog::Hash;

/// A data file is closed after so many rows or bytes.
const FILE_ROWS: u64 = 1 << 20;
const FILE_BYTES: u64 = 512 << 20;
/// Row groups that may wait for the assembler.
const WAITING_GROUPS: usize = 1;
/// Bytes of a part of a multipart upload; a bucket takes no smaller ones.
const PART: usize = 8 << 20;
/// Parts of a file that may be on their way at once: each is in memory until a bucket has answered.
const PARTS_AT_ONCE: usize = 4;

/// A row group on its way to the assembler.
struct Group {
    first: u64,
    rows: u64,
    chunks: Vec<ArrowColumnChunk>,
    entries: Vec<(Commitment, Hash)>,
    postings: Postings,
    occurred: Option<(i64, i64)>,
}

/// Whose turn it is to take numbers.
struct Turn {
    sequence: u64,
    next_id: u64,
    failed: bool,
    /// All has been pushed, and the files are to be kept.
    complete: bool,
}

struct Pushing {
    turn: Mutex<Turn>,
    moved: Condvar,
    /// The first id of the bulk append.
    first: u64,
    pushed: Mutex<PushedRows>,
    committer: RowCommitter,
    encoder: GroupEncoder,
    received_at: i64,
}

/// A bulk append under way. Dropped without [`finish`](Bulk::finish), it leaves nothing behind.
pub struct Bulk {
    pushing: Arc<Pushing>,
    groups: crossbeam_channel::Sender<(u64, Option<Group>)>,
    assembler: JoinHandle<Result<Assembled>>,
    log: Log,
    received_at: i64,
    returned: oneshot::Sender<(BulkResult, oneshot::Sender<Result<Outcome>>)>,
}

/// Pushes rows into a bulk append; one for each thread.
#[derive(Clone)]
pub struct BulkPusher {
    pushing: Arc<Pushing>,
    groups: crossbeam_channel::Sender<(u64, Option<Group>)>,
}

impl Writer {
    /// Begins a bulk append. Others to the same log wait until it is finished or dropped.
    pub async fn bulk(&self) -> Result<Bulk> {
        let BulkGrant { committer, tree, received_at, shared, returned } = self.ask(Command::Bulk).await?;
        let encoder = GroupEncoder::new(committer.kind, true).map_err(Error::parquet("a new data file"))?;
        let (groups, receiver) = crossbeam_channel::bounded(WAITING_GROUPS);
        let first = tree.size() + 1;
        let turn = Mutex::new(Turn { sequence: 0, next_id: first, failed: false, complete: false });
        let (moved, pushed) = (Condvar::new(), Mutex::default());
        let pushing = Arc::new(Pushing { turn, moved, first, pushed, committer, encoder, received_at });
        let log = Log { shared: shared.clone() };
        let assembler = Assembler {
            runtime: Handle::current(),
            shared,
            done: Assembled { tree, files: Vec::new(), tiles: TileSpool::default() },
            open: None,
            received_at,
        };
        let watched = pushing.clone();
        let run = move || {
            let result = assembler.run(&receiver, &watched);
            if result.is_err() {
                // Nobody should wait for a turn that will not come.
                watched.fail();
            }
            result
        };
        let spawned = std::thread::Builder::new().name("assembler".into()).spawn(run);
        let assembler =
            spawned.map_err(|source| Error::Io { what: "starting the assembler".into(), source })?;
        Ok(Bulk { pushing, groups, assembler, log, received_at, returned })
    }
}

impl Bulk {
    /// A handle to push rows with.
    pub fn pusher(&self) -> BulkPusher {
        BulkPusher { pushing: self.pushing.clone(), groups: self.groups.clone() }
    }

    /// Which of the rows pushed so far the log has already, received at `from` (microseconds UTC) or later. Other
    /// processes may append until this bulk append is finished: then it fails. Ask once; rows that are pushed
    /// afterwards are compared with nothing.
    pub async fn overlap(&self, from: i64) -> Result<Overlap> {
        let pushed = std::mem::take(&mut *self.pushing.pushed());
        pushed.compare(&self.log, from).await
    }

    /// Gives up, and waits until what was written is gone again. Gives the failure that made a
    /// push fail, if it was not one of the rows pushed, such as a full disk.
    pub async fn abort(self) -> Option<Error> {
        let Bulk { pushing, groups, assembler, .. } = self;
        pushing.fail();
        drop((pushing, groups));
        match tokio::task::spawn_blocking(move || assembler.join()).await {
            Ok(Ok(Err(error))) if !matches!(error, Error::Failed { .. }) => Some(error),
            _ => None,
        }
    }

    /// Commits all that has been pushed, with the source's `positions`. All pushers must be gone.
    pub async fn finish(self, positions: Vec<(String, Advance)>) -> Result<Outcome> {
        let Bulk { pushing, groups, assembler, received_at, returned, .. } = self;
        pushing.turn().complete = true;
        drop((pushing, groups));
        let joined = tokio::task::spawn_blocking(move || assembler.join()).await;
        let stopped = |reason: &str| Error::failed("bulk append", reason);
        let assembled =
            joined.map_err(|e| stopped(&e.to_string()))?.map_err(|_| stopped("the assembler panicked"))??;
        let Assembled { files, tree, tiles } = assembled;
        let (answer, answered) = oneshot::channel();
        let result = BulkResult { files, tree, tiles, positions, received_at };
        returned.send((result, answer)).map_err(|_| stopped("the sequencer has stopped"))?;
        answered.await.map_err(|_| stopped("the sequencer has stopped"))?
    }
}

impl Pushing {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pushed(&self) -> MutexGuard<'_, PushedRows> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self) {
        self.turn().failed = true;
        self.moved.notify_all();
    }

    /// Waits for `sequence`'s turn and takes `rows` numbers.
    fn take_numbers(&self, sequence: u64, rows: u64) -> Option<u64> {
        let waiting = |turn: &mut Turn| turn.sequence != sequence && !turn.failed;
        let mut turn = self.moved.wait_while(self.turn(), waiting).unwrap_or_else(PoisonError::into_inner);
        if turn.failed {
            return None;
        }
        let first = turn.next_id;
        turn.next_id += rows;
        turn.sequence += 1;
        self.moved.notify_all();
        Some(first)
    }
}

impl BulkPusher {
    /// Appends `rows` as one row group. The caller counts the calls, from 0: rows come into the
    /// log in the order of `sequence`, whichever thread is first. Every number must be used.
    pub fn push(&self, sequence: u64, rows: &RecordBatch) -> Result<()> {
        let pushed = self.try_push(sequence, rows);
        if pushed.is_err() {
            self.pushing.fail();
        }
        pushed
    }

    fn try_push(&self, sequence: u64, rows: &RecordBatch) -> Result<()> {
        let count = rows.num_rows() as u64;
        let failed = || Error::failed(&self.pushing.committer.log, "another part of the bulk append failed");
        let first = self.pushing.take_numbers(sequence, count).ok_or_else(failed)?;
        let before = first - self.pushing.first;
        let group = if count == 0 {
            self.pushing.pushed().push(sequence, before, 0, &[]);
            None
        } else {
            let numbered = self.pushing.committer.number_and_commit(rows, first, self.pushing.received_at)?;
            let postings = Postings::of(self.pushing.committer.kind, &numbered.batch);
            self.pushing.pushed().push(sequence, before, rows.num_rows(), postings.row_keys());
            let chunks =
                self.pushing.encoder.encode(&[numbered.batch]).map_err(Error::parquet("a new data file"))?;
            let (entries, occurred) = (numbered.entries, numbered.occurred);
            Some(Group { first, rows: count, chunks, entries, postings, occurred })
        };
        self.groups.send((sequence, group)).map_err(|_| failed())
    }

    /// Gives the whole bulk append up, so that nobody waits for rows that will not come.
    pub fn give_up(&self) {
        self.pushing.fail();
    }
}

type Groups = crossbeam_channel::Receiver<(u64, Option<Group>)>;

struct Assembled {
    files: Vec<DataFile>,
    tree: Tree,
    tiles: TileSpool,
}

struct OpenFile {
    writer: FileWriter<PartSink>,
    file: DataFile,
    postings: Postings,
}

struct Assembler {
    runtime: Handle,
    shared: Arc<Shared>,
    done: Assembled,
    open: Option<OpenFile>,
    received_at: i64,
}

impl Assembler {
    fn run(mut self, groups: &Groups, pushing: &Pushing) -> Result<Assembled> {
        let result = self.assemble(groups, pushing);
        if result.is_err() {
            let names = self.done.files.iter().flat_map(|f| [f.name(), f.index_name()]).collect();
            let _ = self.runtime.block_on(self.shared.storage.remove(names));
        }
        result.map(|()| self.done)
    }

    fn assemble(&mut self, groups: &Groups, pushing: &Pushing) -> Result<()> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (sequence, group) in groups {
            early.insert(sequence, group);
            while let Some(group) = early.remove(&next) {
                next += 1;
                if let Some(group) = group {
                    self.append(group)?;
                }
            }
        }
        {
            let turn = pushing.turn();
            if turn.failed || !turn.complete {
                return Err(Error::failed(&self.shared.name, "it was given up"));
            }
        }
        self.close_file()
    }

    fn append(&mut self, group: Group) -> Result<()> {
        let Assembled { tree, tiles, .. } = &mut self.done;
        group.entries.iter().for_each(|(entry, leaf)| tree.push(entry, leaf, &mut |tile| tiles.push(tile)));
        tiles.relieve(&self.shared.storage)?;
        let full = |open: &OpenFile| open.file.rows() >= FILE_ROWS || open.writer.size() >= FILE_BYTES;
        if self.open.as_ref().is_some_and(full) {
            self.close_file()?;
        }
        if self.open.is_none() {
            self.open = Some(self.open_file(group.first)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let offset = (group.first - open.file.first) as u32;
        open.postings.append(group.postings, offset);
        open.file.last = group.first + group.rows - 1;
        open.file.occurred = widest(open.file.occurred, group.occurred);
        open.writer.append(group.chunks).map_err(Error::parquet(open.file.name()))
    }

    fn open_file(&self, first: u64) -> Result<OpenFile> {
        let file = DataFile::new(first, first, self.received_at);
        let sink = PartSink::new(self.runtime.clone(), &self.shared.storage, &file.name());
        let writer = FileWriter::new(self.shared.kind, true, sink).map_err(Error::parquet(file.name()))?;
        Ok(OpenFile { writer, file, postings: Postings::default() })
    }

    fn close_file(&mut self) -> Result<()> {
        let Some(OpenFile { writer, mut file, postings }) = self.open.take() else { return Ok(()) };
        let name = file.name();
        let (sink, size, sha256) = writer.finish().map_err(Error::parquet(&name))?;
        (file.size, file.sha256) = (size, sha256);
        sink.complete().map_err(Error::storage(&name))?;
        if file.rows() >= keyindex::MIN_ROWS {
            let Shared { storage, kind, .. } = &*self.shared;
            self.runtime.block_on(keyindex::write(storage, *kind, &mut file, postings))?;
        }
        self.done.files.push(file);
        Ok(())
    }
}

/// A file on its way into the store, part by part; a small one goes in one piece.
pub(crate) struct PartSink {
    runtime: Handle,
    store: Arc<dyn ObjectStore>,
    path: object_store::path::Path,
    upload: Option<Box<dyn MultipartUpload>>,
    /// Parts on their way.
    parts: JoinSet<object_store::Result<()>>,
    buffer: Vec<u8>,
}

impl PartSink {
    pub(crate) fn new(runtime: Handle, storage: &Storage, name: &str) -> Self {
        let (store, path) = (storage.store(), storage.path(name));
        let (parts, buffer) = (JoinSet::new(), Vec::with_capacity(PART));
        PartSink { runtime, store, path, upload: None, parts, buffer }
    }

    fn send_part(&mut self) -> object_store::Result<()> {
        let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(PART));
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let begun = self.runtime.block_on(self.store.put_multipart(&self.path))?;
                self.upload.insert(begun)
            }
        };
        self.parts.spawn_on(upload.put_part(PutPayload::from(part)), &self.runtime);
        self.wait_for_parts(PARTS_AT_ONCE - 1)
    }

    /// Waits until at most so many parts are on their way.
    fn wait_for_parts(&mut self, most: usize) -> object_store::Result<()> {
        while self.parts.len() > most {
            if let Some(part) = self.runtime.block_on(self.parts.join_next()) {
                part??;
            }
        }
        Ok(())
    }

    /// The file is durable when this returns.
    pub(crate) fn complete(mut self) -> object_store::Result<()> {
        if self.upload.is_none() {
            let bytes = std::mem::take(&mut self.buffer);
            return self.runtime.block_on(self.store.put(&self.path, bytes.into())).map(drop);
        }
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        self.wait_for_parts(0)?;
        match self.upload.take() {
            Some(mut upload) => self.runtime.block_on(upload.complete()).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for PartSink {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            self.runtime.block_on(self.parts.shutdown());
            let _ = self.runtime.block_on(upload.abort());
        }
    }
}

impl Write for PartSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART {
            self.send_part().map_err(std::io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
