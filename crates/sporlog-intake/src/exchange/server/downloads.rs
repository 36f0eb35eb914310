//! Downloads: what clients ask for is read and sent by a task of its own for each channel.
//!
//! Requests are taken from the network as they come, and answered as fast as the client takes the answers;
//! so a slow one holds few buffers, and a fast one never waits for the disk and the cipher in turn.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use russh::ChannelId;
use russh::server::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;

use super::context::Visit;
use super::disk::blocking;
use super::member::Member;
use super::record::Row;
use super::refusal::Refusal;
use super::wire::{self, Attributes, Code, DATA_HEAD, MAX_DATA};
use super::{fetched, metrics};

/// Requests of one channel that may wait for their answers.
const WAITING: usize = 4096;
/// Buffers that are used again.
const BUFFERS: usize = 8;

/// A file that is open for reading. Its end is recorded when the last request for it is done.
pub(super) struct Download {
    file: File,
    visit: Arc<Visit>,
    member: Arc<Member>,
    pub path: String,
    pub attributes: Attributes,
    /// By what it is remembered that it was fetched, if that matters.
    key: Option<String>,
    sent: AtomicU64,
    /// How far it was read without a hole.
    reached: AtomicU64,
}

impl Download {
    pub(super) fn new(
        file: File,
        attributes: Attributes,
        path: String,
        visit: &Arc<Visit>,
        member: &Arc<Member>,
    ) -> Self {
        let key = member.delete_fetched.then(|| fetched::key(&path, &attributes));
        let (sent, reached) = Default::default();
        Download {
            file,
            visit: Arc::clone(visit),
            member: Arc::clone(member),
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
        if self.member.fetched.handed_out(key, self.attributes.size, from, to)
            && let Err(error) = blocking(|| self.member.fetched.remember(key))
        {
            tracing::warn!(%error, "SFTP: a restart will have forgotten that a file was fetched");
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
            ..self.visit.row(&self.member.name)
        };
        self.visit.context.recorder.note(row);
    }
}

/// A request to read.
pub(super) struct Read {
    pub id: u32,
    pub download: Arc<Download>,
    pub offset: u64,
    pub len: u32,
}

/// The task that reads and sends. It ends when this is dropped.
pub(super) struct Pump {
    reads: Sender<Read>,
    task: AbortHandle,
}

impl Pump {
    pub(super) fn start(handle: Handle, channel: ChannelId, visit: Arc<Visit>, member: Arc<Member>) -> Self {
        let (reads, waiting) = mpsc::channel(WAITING);
        let task = tokio::spawn(pump(waiting, handle, channel, visit, member));
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
    visit: Arc<Visit>,
    member: Arc<Member>,
) {
    let mut buffers = Buffers::default();
    while let Some(read) = waiting.recv().await {
        let reply = match data(&read, &mut buffers) {
            Ok(reply) => reply,
            Err(refusal) => wire::status(read.id, refusal.code, &refusal.text),
        };
        let len = reply.len().saturating_sub(DATA_HEAD);
        if let Some(rate) = &member.rate {
            rate.take(len).await;
        }
        if handle.data(channel, reply.clone()).await.is_err() {
            return;
        }
        visit.touch();
        visit.context.meters.down.increment(len as u64);
        buffers.give_back(reply);
    }
}

/// The answer to a request to read.
fn data(read: &Read, buffers: &mut Buffers) -> Result<Bytes, Refusal> {
    let size = read.download.attributes.size;
    let left = usize::try_from(size.saturating_sub(read.offset)).unwrap_or(MAX_DATA);
    let wanted = usize::try_from(read.len).unwrap_or(MAX_DATA).min(MAX_DATA).min(left);
    if left == 0 {
        if size == 0 {
            read.download.handed_out(0, 0);
        }
        return Err(Refusal::new(Code::Eof, "this is the end of the file"));
    }
    let mut buffer = buffers.take(DATA_HEAD + wanted);
    let (head, body) = buffer.split_at_mut(DATA_HEAD);
    let count = blocking(|| read_full(&read.download.file, body, read.offset))?;
    if count == 0 && wanted > 0 {
        return Err(Refusal::new(Code::Eof, "this is the end of the file"));
    }
    head.copy_from_slice(&wire::data_head(read.id, u32::try_from(count).unwrap_or_default()));
    read.download.handed_out(read.offset, read.offset + count as u64);
    buffer.truncate(DATA_HEAD + count);
    Ok(buffer.freeze())
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Buffers that have been sent. Getting fresh ones from the system for each answer costs more than reading.
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
