//! Sending one file: under a temporary name, resumed where an earlier run ended, and checked before the server is asked
//! to rename it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use chrono::Utc;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use russh_sftp::protocol::OpenFlags;
use sha2::{Digest, Sha256};
use sporlog_intake::blocking::blocking;
use sporlog_record::hex;
use tokio::sync::mpsc;

use super::Watch;
use super::connection::{Connection, FileInfo, RemoteFile};
use super::error::{Error, Result};
use super::journal::{Journal, Line, Step};
use super::part;

/// Pieces that wait to be sent.
const WAITING: usize = 16;

/// A local file that is to be sent.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub local: PathBuf,
    pub name: String,
    /// The file's path on the server.
    pub target: String,
    /// The file's path on the server until the file is complete: the same if no temporary name is wanted.
    pub temporary: String,
    /// The file's address, by which the journal knows it.
    pub remote: String,
    pub size: u64,
    /// The time of its last change, in nanoseconds since 1970.
    pub mtime: i64,
}

/// What is left to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// The server has the file under its name.
    Nothing,
    /// The server has all of the file, under its temporary name.
    Rename,
    /// The file's bytes from this offset on are sent.
    Send(Start, u64),
}

/// How the remote file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Truncated, whatever was there.
    Anew,
    /// The file must not be there yet.
    New,
    /// The file must be there.
    Resume,
}

/// The size and last change of a local file.
pub(super) fn stat(path: &Path) -> Result<(u64, i64)> {
    let failed = |e| Error::local(path, e);
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("this is not a regular file")));
    }
    let changed = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), i64::try_from(changed.as_nanos()).unwrap_or(i64::MAX)))
}

impl Upload {
    /// What is left to be done, according to the newest line of the journal and to the server. Another's file is
    /// never touched.
    pub async fn plan(&self, connection: &Connection, line: Option<&Line>) -> Result<Plan> {
        let line = line.filter(|line| line.size == self.size && line.mtime == self.mtime);
        let as_is = self.target == self.temporary;
        let there = connection.find(&self.target).await?;
        let part = if as_is { None } else { connection.find(&self.temporary).await? };
        decide(self.size, as_is, line.map(|line| line.step), there, part, connection.doubtful()).ok_or_else(
            || Error::Taken("another file of this name is there already; it was left as it is".to_owned()),
        )
    }

    /// Does what is left to be done, and returns the SHA-256. The journal is ahead of each step that another run must
    /// know of. `resumed_at` is where the first of several attempts resumed.
    pub async fn send(
        &self,
        connection: &Connection,
        journal: &Journal,
        watch: &dyn Watch,
        resumed_at: &mut Option<u64>,
    ) -> Result<String> {
        let line = journal.of(&self.remote);
        let plan = self.plan(connection, line.as_ref()).await?;
        let mut sha256 = line.map(|line| line.sha256).unwrap_or_default();
        if let Plan::Send(start, from) = plan {
            resumed_at.get_or_insert(from);
            journal.append(self.line(Step::Sending, "")).await?;
            watch.begun(&self.name, self.size);
            sha256 = self.transfer(connection, start, from, watch).await?;
            journal.append(self.line(Step::Complete, &sha256)).await?;
        }
        if plan != Plan::Nothing && self.target != self.temporary {
            connection.rename(&self.temporary, &self.target).await?;
        }
        journal.append(self.line(Step::Sent, &sha256)).await?;
        Ok(sha256)
    }

    fn line(&self, step: Step, sha256: &str) -> Line {
        let (remote, file, size, mtime) = (self.remote.clone(), self.name.clone(), self.size, self.mtime);
        let (sha256, receipt) = (sha256.to_owned(), String::new());
        Line { at: Utc::now(), step, remote, file, size, mtime, sha256, receipt }
    }

    /// Sends the bytes from `from` on, and checks that the server has all of the file.
    async fn transfer(
        &self,
        connection: &Connection,
        start: Start,
        from: u64,
        watch: &dyn Watch,
    ) -> Result<String> {
        let flags = match start {
            Start::Anew => OpenFlags::CREATE | OpenFlags::TRUNCATE,
            Start::New => OpenFlags::CREATE | OpenFlags::EXCLUDE,
            Start::Resume => OpenFlags::empty(),
        };
        let file = connection.open_file(&self.temporary, flags | OpenFlags::WRITE).await?;
        let (pieces, waiting) = mpsc::channel(WAITING);
        let (path, size, chunk) = (self.local.clone(), self.size, connection.chunk as usize);
        let reader = tokio::task::spawn_blocking(move || read(&path, from, size, chunk, &pieces));
        let mut sent = write(connection, &file, from, waiting, watch).await;
        if sent.is_ok() {
            sent = file.sync().await;
        }
        if !sent.as_ref().is_err_and(Error::is_lost) {
            let closed = file.close().await;
            sent = sent.and(closed);
        }
        let read = reader.await?;
        sent?;
        let sha256 = read?;
        let path = self.local.clone();
        if blocking(move || stat(&path)).await? != (self.size, self.mtime) {
            // The bytes on the server are neither the old file nor the new one.
            let _ = connection.remove(&self.temporary).await;
            let text = "the file changed while it was sent; it is left for the next run";
            return Err(Error::Changing(text.to_owned()));
        }
        let there = connection.stat(&self.temporary).await?.size;
        if there != self.size {
            return Err(Error::Changing(format!("the server has {there} bytes of {}", self.size)));
        }
        Ok(sha256)
    }
}

/// What is left to be done; `None` if another file has the name.
///
/// If neither name is there though all was sent, the file is sent again: a receiver that has taken the file away
/// notices that it had these bytes before, and otherwise they would be lost.
fn decide(
    size: u64,
    as_is: bool,
    step: Option<Step>,
    there: Option<FileInfo>,
    part: Option<FileInfo>,
    doubtful: u64,
) -> Option<Plan> {
    let is_begun = matches!(step, Some(Step::Sending | Step::Complete));
    let rest = |there: FileInfo| match there.size {
        there if is_begun && there <= size => Plan::Send(Start::Resume, there.saturating_sub(doubtful)),
        _ => Plan::Send(Start::Anew, 0),
    };
    match there {
        Some(there) if step == Some(Step::Complete) && there.size == size && part.is_none() => {
            Some(Plan::Nothing)
        }
        Some(there) if as_is && is_begun && there.size <= size => Some(rest(there)),
        Some(_) => None,
        None if as_is => Some(Plan::Send(Start::New, 0)),
        None => Some(match part {
            Some(part) if step == Some(Step::Complete) && part.size == size => Plan::Rename,
            Some(part) => rest(part),
            None => Plan::Send(Start::Anew, 0),
        }),
    }
}

/// Writes the pieces to the remote file, with many requests under way.
async fn write(
    connection: &Connection,
    file: &RemoteFile<'_>,
    from: u64,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    watch: &dyn Watch,
) -> Result<()> {
    let (mut next, mut done, mut ended) = (from, from, false);
    let mut requests = FuturesUnordered::new();
    loop {
        while !ended && requests.len() < connection.requests() {
            match pieces.recv().await {
                Some(bytes) => {
                    let (offset, length) = (next, bytes.len() as u64);
                    requests.push(async move { file.write(offset, bytes).await.map(|()| length) });
                    next += length;
                }
                None => ended = true,
            }
        }
        let Some(written) = connection.in_time(requests.next()).await? else { return Ok(()) };
        done += written?;
        watch.at(done);
    }
}

/// Reads the local file in pieces from `from` on, and returns the SHA-256 of all of it. Blocks.
fn read(path: &Path, from: u64, size: u64, chunk: usize, pieces: &mpsc::Sender<Vec<u8>>) -> Result<String> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::Changing("the file became shorter while it was sent".to_owned())
        }
        _ => Error::local(path, e),
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut digest = Sha256::new();
    part::hash(&mut file, from, &mut digest).map_err(failed)?;
    let mut left = size - file.stream_position().map_err(failed)?.min(size);
    while left > 0 {
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(chunk)];
        file.read_exact(&mut bytes).map_err(failed)?;
        digest.update(&bytes);
        left -= bytes.len() as u64;
        // If nobody receives the piece any more, sending has failed, and says why.
        if pieces.blocking_send(bytes).is_err() {
            break;
        }
    }
    Ok(hex(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 100;

    fn of(size: u64) -> Option<FileInfo> {
        Some(FileInfo { size, mtime: 0 })
    }

    #[test]
    fn only_what_is_ours_is_built_upon() {
        let anew = Some(Plan::Send(Start::Anew, 0));
        let on = |from| Some(Plan::Send(Start::Resume, from));
        for (step, there, part, plan) in [
            (None, None, None, anew),
            // Somebody else's, under either name.
            (None, of(SIZE), None, None),
            (None, None, of(40), anew),
            (Some(Step::Sent), of(SIZE), None, None),
            (Some(Step::Sending), of(SIZE), of(40), None),
            // Ours: the end of it is sent again.
            (Some(Step::Sending), None, of(40), on(30)),
            (Some(Step::Sending), None, of(4), on(0)),
            (Some(Step::Sending), None, of(101), anew),
            (Some(Step::Sending), None, None, anew),
            // All of it is there, and its name only was missing, or not noted.
            (Some(Step::Complete), None, of(SIZE), Some(Plan::Rename)),
            (Some(Step::Complete), of(SIZE), None, Some(Plan::Nothing)),
            (Some(Step::Complete), of(99), None, None),
            (Some(Step::Complete), None, None, anew),
        ] {
            assert_eq!(decide(SIZE, false, step, there, part, 10), plan, "{step:?} {there:?} {part:?}");
        }
    }

    #[test]
    fn what_is_sent_as_it_is_is_built_upon_if_it_is_ours() {
        let new = Some(Plan::Send(Start::New, 0));
        for (step, there, plan) in [
            (None, None, new),
            (None, of(40), None),
            (Some(Step::Sending), of(40), Some(Plan::Send(Start::Resume, 30))),
            (Some(Step::Sending), of(101), None),
            (Some(Step::Complete), of(SIZE), Some(Plan::Nothing)),
            (Some(Step::Sent), None, new),
        ] {
            assert_eq!(decide(SIZE, true, step, there, None, 10), plan, "{step:?} {there:?}");
        }
    }
}
