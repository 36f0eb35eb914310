//! Downloads: read requests are answered by a task of their own for each channel.
//!
//! Requests are queued as they come, and answered as fast as the client takes the answers. So a slow client
//! holds few buffers, and for a fast client reading from disk and encrypting overlap.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use russh::ChannelId;
use russh::server::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;

use super::account::AccountState;
use super::context::Session;
use super::disk::blocking;
use super::packets::{self, Attributes, Code, DATA_HEAD, MAX_DATA};
use super::record::Row;
use super::refusal::Refusal;
use super::{fetched, metrics};

/// Read requests of one channel that may be queued.
const WAITING: usize = 4096;
/// Buffers that are kept for reuse.
const BUFFERS: usize = 8;

/// A file that is open for reading. The end of the download is recorded when the last request is answered.
pub(super) struct Download {
    file: File,
    session: Arc<Session>,
    account: Arc<AccountState>,
    pub path: String,
    pub attributes: Attributes,
    /// The key in [`AccountState::fetched`], where the account may delete fetched files.
    key: Option<String>,
    sent: AtomicU64,
    /// Bytes from the beginning of the file that were sent without a gap.
    reached: AtomicU64,
}

impl Download {
    pub(super) fn new(
        file: File,
        attributes: Attributes,
        path: String,
        session: &Arc<Session>,
        account: &Arc<AccountState>,
    ) -> Self {
        let key = account.delete_fetched.then(|| fetched::key(&path, &attributes));
        let (sent, reached) = Default::default();
        Download {
            file,
            session: Arc::clone(session),
            account: Arc::clone(account),
            path,
            attributes,
            key,
            sent,
            reached,
        }
    }

    fn handed_out(&self, from: u64, to: u64) {
        self.sent.fetch_add(to - from, Ordering::Relaxed);
        if from <= self.reached.load(Ordering::Relaxed) {
            self.reached.fetch_max(to, Ordering::Relaxed);
        }
        let Some(key) = &self.key else { return };
        if self.account.fetched.handed_out(key, self.attributes.size, from, to)
            && let Err(error) = blocking(|| self.account.fetched.remember(key))
        {
            tracing::warn!(%error, "SFTP: that a file was fetched could not be written down; after a restart it has to be fetched again to be deleted");
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let sent = *self.sent.get_mut();
        let is_complete = *self.reached.get_mut() >= self.attributes.size;
        metrics::transferred("down", is_complete);
        let row = Row {
            action: "SFTP_DOWNLOAD_END",
            message: format!("download of {} ended", self.path),
            parameters: serde_json::json!({
                "file": self.path, "bytes": sent, "size": self.attributes.size, "complete": is_complete,
            }),
            ..self.session.row(&self.account.name)
        };
        self.session.context.recorder.note(row);
    }
}

/// A read request.
pub(super) struct Read {
    pub id: u32,
    pub download: Arc<Download>,
    pub offset: u64,
    pub len: u32,
}

/// The task that answers read requests. Dropping this ends the task.
pub(super) struct Pump {
    reads: Sender<Read>,
    task: AbortHandle,
}

impl Pump {
    pub(super) fn start(
        handle: Handle,
        channel: ChannelId,
        session: Arc<Session>,
        account: Arc<AccountState>,
    ) -> Self {
        let (reads, waiting) = mpsc::channel(WAITING);
        let task = tokio::spawn(pump(waiting, handle, channel, session, account));
        Pump { reads, task: task.abort_handle() }
    }

    pub(super) fn read(&self, read: Read) -> Result<(), Refusal> {
        self.reads.try_send(read).map_err(|_| Refusal::failure("too many requests at once"))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    mut waiting: Receiver<Read>,
    handle: Handle,
    channel: ChannelId,
    session: Arc<Session>,
    account: Arc<AccountState>,
) {
    let mut buffers = Buffers::default();
    while let Some(read) = waiting.recv().await {
        let reply = match data(&read, &mut buffers) {
            Ok(reply) => reply,
            Err(refusal) => packets::status(read.id, refusal.code, &refusal.text),
        };
        let len = reply.len().saturating_sub(DATA_HEAD);
        if let Some(rate) = &account.rate {
            rate.take(len).await;
        }
        if handle.data(channel, reply.clone()).await.is_err() {
            return;
        }
        session.touch();
        session.context.meters.down.increment(len as u64);
        buffers.give_back(reply);
    }
}

/// The answer to a read request.
fn data(read: &Read, buffers: &mut Buffers) -> Result<Bytes, Refusal> {
    let size = read.download.attributes.size;
    let left = usize::try_from(size.saturating_sub(read.offset)).unwrap_or(MAX_DATA);
    let wanted = usize::try_from(read.len).unwrap_or(MAX_DATA).min(MAX_DATA).min(left);
    if left == 0 {
        if size == 0 {
            read.download.handed_out(0, 0);
        }
        return Err(Refusal::new(Code::Eof, "end of file"));
    }
    let mut buffer = buffers.take(DATA_HEAD + wanted);
    let (head, body) = buffer.split_at_mut(DATA_HEAD);
    match blocking(|| read.download.file.read_exact_at(body, read.offset)) {
        // The file has become shorter since it was opened.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(Refusal::new(Code::Eof, "end of file"));
        }
        done => done?,
    }
    head.copy_from_slice(&packets::data_head(read.id, u32::try_from(wanted).unwrap_or_default()));
    read.download.handed_out(read.offset, read.offset + wanted as u64);
    Ok(buffer.freeze())
}

/// Buffers for reuse. Allocating one for each answer would cost more than reading the file.
#[derive(Default)]
struct Buffers(VecDeque<Bytes>);

impl Buffers {
    fn take(&mut self, len: usize) -> BytesMut {
        let used = self.0.pop_front().map(Bytes::try_into_mut);
        let mut buffer = match used {
            Some(Ok(buffer)) => buffer,
            Some(Err(still_sent)) => {
                self.0.push_front(still_sent);
                BytesMut::with_capacity(DATA_HEAD + MAX_DATA)
            }
            None => BytesMut::with_capacity(DATA_HEAD + MAX_DATA),
        };
        buffer.resize(len, 0);
        buffer
    }

    fn give_back(&mut self, sent: Bytes) {
        if self.0.len() < BUFFERS && sent.len() > DATA_HEAD {
            self.0.push_back(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_once_they_are_sent() {
        let mut buffers = Buffers::default();
        let first = buffers.take(100).freeze();
        let at = first.as_ptr();
        buffers.give_back(first.clone());
        assert_ne!(buffers.take(50).as_ptr(), at, "it is still being sent");
        drop(first);
        assert_eq!(buffers.take(200).as_ptr(), at);
    }
}
