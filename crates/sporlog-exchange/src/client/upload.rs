//! Sending one file: under a temporary name, on from where an earlier run ended, and checked before
//! it gets its name.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use chrono::Utc;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Watch;
use super::connection::{Connection, Facts, RemoteFile, Writing};
use super::error::{Error, Result};
use super::journal::{Line, Notes, Step};
use super::part;
use sporlog_intake::blocking::blocking;
use sporlog_record::hex;

/// Pieces that wait to be sent.
const WAITING: usize = 16;

/// A local file that is to be sent.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub local: PathBuf,
    pub name: String,
    /// The path that it gets there.
    pub target: String,
    /// The path that it has until it is complete; the same if it is sent as it is.
    pub temporary: String,
    /// The address that it gets.
    pub remote: String,
    pub size: u64,
    /// In nanoseconds.
    pub mtime: i64,
}

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is there.
    Nothing,
    /// It is there under its temporary name.
    Rename,
    /// It, or the rest of it, is sent.
    Send(Writing, u64),
}

/// The size and last change of a local file.
pub(super) fn look(path: &Path) -> Result<(u64, i64)> {
    let failed = |e| Error::local(path, e);
    let facts = path.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(failed(io::Error::other("this is not a regular file")));
    }
    let changed = facts.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((facts.len(), i64::try_from(changed.as_nanos()).unwrap_or(i64::MAX)))
}

impl Upload {
    /// What the journal says of this very file, as it is now.
    pub fn line(&self, notes: &Notes) -> Option<Line> {
        notes.of(&self.remote).filter(|line| line.size == self.size && line.mtime == self.mtime)
    }

    /// What is to be done, after what the journal and the server say. A file of another's is never
    /// touched.
    pub async fn plan(&self, connection: &Connection, line: Option<&Line>) -> Result<Plan> {
        let step = line.map(|line| line.step);
        let as_is = self.target == self.temporary;
        let there = connection.look(&self.target).await?;
        let part = if as_is { None } else { connection.look(&self.temporary).await? };
        decide(self.size, as_is, step, there, part, connection.doubtful()).ok_or_else(|| {
            Error::Taken("another file of this name is there already; it was left as it is".to_owned())
        })
    }

    /// Does what is left to do, and says what the SHA-256 is. The journal is ahead of each step that
    /// another run must know of. `begun` is where the first of several tries went on.
    pub async fn send(
        &self,
        connection: &Connection,
        notes: &Notes,
        watch: &dyn Watch,
        begun: &mut Option<u64>,
    ) -> Result<String> {
        let line = self.line(notes);
        let plan = self.plan(connection, line.as_ref()).await?;
        let mut sha256 = line.map(|line| line.sha256).unwrap_or_default();
        if let Plan::Send(how, from) = plan {
            begun.get_or_insert(from);
            notes.append(self.note(Step::Sending, "")).await?;
            watch.begun(&self.name, self.size);
            sha256 = self.transfer(connection, how, from, watch).await?;
            notes.append(self.note(Step::Complete, &sha256)).await?;
        }
        if plan != Plan::Nothing && self.target != self.temporary {
            connection.rename(&self.temporary, &self.target).await?;
        }
        notes.append(self.note(Step::Sent, &sha256)).await?;
        Ok(sha256)
    }

    fn note(&self, step: Step, sha256: &str) -> Line {
        Line {
            at: Utc::now(),
            step,
            remote: self.remote.clone(),
            file: self.name.clone(),
            size: self.size,
            mtime: self.mtime,
            sha256: sha256.to_owned(),
        }
    }

    /// Sends the bytes from `from` on, and sees to it that all of them are there.
    async fn transfer(
        &self,
        connection: &Connection,
        how: Writing,
        from: u64,
        watch: &dyn Watch,
    ) -> Result<String> {
        let file = connection.write(&self.temporary, how).await?;
        let (pieces, waiting) = mpsc::channel(WAITING);
        let (path, size, chunk) = (self.local.clone(), self.size, connection.chunk() as usize);
        let reader = tokio::task::spawn_blocking(move || read(&path, from, size, chunk, &pieces));
        let mut sent = copy(connection, &file, from, waiting, watch).await;
        if sent.is_ok() {
            sent = file.sync().await;
        }
        if !sent.as_ref().is_err_and(Error::is_lost) {
            let closed = file.close().await;
            sent = sent.and(closed);
        }
        let read = reader.await.map_err(|e| Error::Internal(e.to_string()))?;
        sent?;
        let sha256 = read?;
        let path = self.local.clone();
        if blocking(move || look(&path)).await? != (self.size, self.mtime) {
            // What is there is neither the old file nor the new one.
            let _ = connection.remove(&self.temporary).await;
            return Err(Error::Changing(
                "it changed while it was sent; it is left for the next time".to_owned(),
            ));
        }
        let there = connection.stat(&self.temporary).await?.size;
        if there != self.size {
            return Err(Error::Changing(format!("the server has {there} bytes of {}", self.size)));
        }
        Ok(sha256)
    }
}

/// What is to be done; `None` if another file has the name.
///
/// If neither name is there though all was sent, it is sent again: a receiver that has taken it away
/// sees that it has had these bytes, and otherwise they would be lost.
fn decide(
    size: u64,
    as_is: bool,
    step: Option<Step>,
    there: Option<Facts>,
    part: Option<Facts>,
    doubtful: u64,
) -> Option<Plan> {
    let is_begun = matches!(step, Some(Step::Sending | Step::Complete));
    let rest = |there: Facts| match there.size {
        there if is_begun && there <= size => Plan::Send(Writing::On, there.saturating_sub(doubtful)),
        _ => Plan::Send(Writing::Anew, 0),
    };
    match there {
        Some(there) if step == Some(Step::Complete) && there.size == size && part.is_none() => {
            Some(Plan::Nothing)
        }
        Some(there) if as_is && is_begun && there.size <= size => Some(rest(there)),
        Some(_) => None,
        None if as_is => Some(Plan::Send(Writing::New, 0)),
        None => Some(match part {
            Some(part) if step == Some(Step::Complete) && part.size == size => Plan::Rename,
            Some(part) => rest(part),
            None => Plan::Send(Writing::Anew, 0),
        }),
    }
}

/// Sends what comes, many requests at a time.
async fn copy(
    connection: &Connection,
    file: &RemoteFile<'_>,
    from: u64,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    watch: &dyn Watch,
) -> Result<()> {
    let (mut next, mut done, mut ended) = (from, from, false);
    let _patience = connection.patience();
    let mut asked = FuturesUnordered::new();
    loop {
        while !ended && asked.len() < connection.requests() {
            match pieces.recv().await {
                Some(bytes) => {
                    let (offset, length) = (next, bytes.len() as u64);
                    asked.push(async move { file.write(offset, bytes).await.map(|()| length) });
                    next += length;
                }
                None => ended = true,
            }
        }
        let Some(written) = connection.soon(asked.next()).await? else { return Ok(()) };
        done += written?;
        watch.at(done);
    }
}

/// Reads the file in pieces from `from` on, and says what the SHA-256 of all of it is.
fn read(path: &Path, from: u64, size: u64, chunk: usize, pieces: &mpsc::Sender<Vec<u8>>) -> Result<String> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::Changing("it became shorter while it was sent".to_owned()),
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
        // The other side has ended; it says why.
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

    fn of(size: u64) -> Option<Facts> {
        Some(Facts { size, mtime: 0 })
    }

    #[test]
    fn only_what_is_ours_is_built_upon() {
        let anew = Some(Plan::Send(Writing::Anew, 0));
        let on = |from| Some(Plan::Send(Writing::On, from));
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
        let new = Some(Plan::Send(Writing::New, 0));
        for (step, there, plan) in [
            (None, None, new),
            (None, of(40), None),
            (Some(Step::Sending), of(40), Some(Plan::Send(Writing::On, 30))),
            (Some(Step::Sending), of(101), None),
            (Some(Step::Complete), of(SIZE), Some(Plan::Nothing)),
            (Some(Step::Sent), None, new),
        ] {
            assert_eq!(decide(SIZE, true, step, there, None, 10), plan, "{step:?} {there:?}");
        }
    }
}
