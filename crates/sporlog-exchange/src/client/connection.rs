//! A connection to another server, signed in, with SFTP on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::Handle;
use russh::{ChannelMsg, Disconnect};
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::rawsession::Limits;
use russh_sftp::protocol::{FileAttributes, FileType, OpenFlags, StatusCode};
use tokio::time::timeout;

use super::address::{Address, join};
use super::error::{Error, Result};
use super::handshake::{Checker, connect};
use super::identity::Identities;
use super::known_hosts::HostKeys;

/// The largest answer that is taken.
const LARGEST_PACKET: u32 = 256 << 10;
/// What every server reads or writes at once.
const COMMON_CHUNK: u32 = 32 << 10;
/// What is read or written at once where the server says that it can.
const LARGEST_CHUNK: u32 = 255 << 10;
/// Bytes asked for, or sent, and not yet answered.
const IN_FLIGHT: usize = 4 << 20;
/// How long one of many requests may take, as long as others are answered.
const LONGEST_REQUEST: Duration = Duration::from_secs(3600);
/// Entries of a folder that are taken; a list without end must not fill our memory.
const MOST_ENTRIES: usize = 1_000_000;
/// How another server is reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where it is.
    pub address: Address,
    /// What we sign in with.
    pub identities: Identities,
    /// Which keys it may have.
    pub host_keys: HostKeys,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How often a lost connection is made anew while nothing gets through.
    pub retries: u32,
}

/// A connection, signed in.
pub(super) struct Connection {
    session: Handle<Checker>,
    sftp: RawSftpSession,
    fsync: bool,
    chunk: u32,
    timeout: Duration,
    /// Whether bytes of a file have got through.
    moved: AtomicBool,
}

/// What the server says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub size: u64,
    /// Seconds since 1970; 0 if the server does not say.
    pub mtime: i64,
}

/// An entry of a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub path: String,
    pub kind: FileType,
    pub facts: Facts,
}

/// An open file of the server.
pub(super) struct RemoteFile<'a> {
    connection: &'a Connection,
    handle: String,
    path: String,
}

impl Connection {
    /// Connects and signs in.
    pub async fn open(access: &Access) -> Result<Self> {
        let keys = access.identities.read()?;
        let server = access.address.server();
        let late = |what: &str| Error::Lost(format!("{server}: {what} took too long"));
        let mut session =
            timeout(access.timeout, connect(access)).await.map_err(|_| late("connecting"))??;
        timeout(access.timeout, keys.sign_in(&mut session, &access.address))
            .await
            .map_err(|_| late("signing in"))??;
        timeout(access.timeout, begin(session, access)).await.map_err(|_| late("starting SFTP"))?
    }

    /// Takes leave.
    pub async fn close(self) {
        // The work is done; if the server does not hear this, it notices.
        let _ = self.sftp.close_session();
        let goodbye = self.session.disconnect(Disconnect::ByApplication, "", "");
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }

    /// What a file is like, a link being what it leads to.
    pub async fn stat(&self, path: &str) -> Result<Facts> {
        let answer = self.sftp.stat(path).await.map_err(|e| Error::sftp(path, e))?;
        match answer.attrs.size {
            Some(_) => Ok(Facts::of(&answer.attrs)),
            None => Err(Error::Refused {
                what: path.escape_debug().to_string(),
                code: StatusCode::Failure,
                text: "nothing about its size".to_owned(),
            }),
        }
    }

    /// What a file is like; `None` if there is none.
    pub async fn look(&self, path: &str) -> Result<Option<Facts>> {
        match self.stat(path).await {
            Err(error) if error.is_absent() => Ok(None),
            looked => looked.map(Some),
        }
    }

    /// What is in a folder, in the order of the names.
    pub async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let failed = |e| Error::sftp(folder, e);
        let handle = self.sftp.opendir(folder).await.map_err(failed)?.handle;
        let mut entries = Vec::new();
        loop {
            let more = match self.sftp.readdir(handle.as_str()).await.map_err(failed) {
                Err(Error::Refused { code: StatusCode::Eof, .. }) => break,
                more => more?.files,
            };
            if more.is_empty() {
                break;
            }
            for file in more.into_iter().filter(|file| file.filename != "." && file.filename != "..") {
                let path = join(folder, &file.filename);
                let facts = Facts::of(&file.attrs);
                // A server may leave out what an entry is; its line for people says it.
                let kind = match file.attrs.permissions {
                    Some(_) => file.attrs.file_type(),
                    None if file.longname.starts_with('d') => FileType::Dir,
                    None => FileType::File,
                };
                entries.push(Entry { name: file.filename, path, kind, facts });
            }
            if entries.len() > MOST_ENTRIES {
                return Err(Error::Settings(format!("{}: too many files", folder.escape_debug())));
            }
        }
        self.sftp.close(handle).await.map_err(failed)?;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Renames a file; servers refuse if the new name is taken.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let done = self.sftp.rename(from, to).await;
        done.map(drop).map_err(|e| Error::sftp(&format!("renaming {from} to {to}"), e))
    }

    /// Removes a file.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.sftp.remove(path).await.map(drop).map_err(|e| Error::sftp(&format!("removing {path}"), e))
    }

    /// Opens a file for reading.
    pub async fn read(&self, path: &str) -> Result<RemoteFile<'_>> {
        self.open_file(path, OpenFlags::READ).await
    }

    /// Opens a file for writing from its beginning, or to go on with it.
    pub async fn write(&self, path: &str, how: Writing) -> Result<RemoteFile<'_>> {
        let flags = match how {
            Writing::Anew => OpenFlags::CREATE | OpenFlags::TRUNCATE,
            Writing::New => OpenFlags::CREATE | OpenFlags::EXCLUDE,
            Writing::On => OpenFlags::empty(),
        };
        self.open_file(path, flags | OpenFlags::WRITE).await
    }

    async fn open_file(&self, path: &str, flags: OpenFlags) -> Result<RemoteFile<'_>> {
        let opened = self.sftp.open(path, flags, FileAttributes::empty()).await;
        let handle = opened.map_err(|e| Error::sftp(path, e))?.handle;
        Ok(RemoteFile { connection: self, handle, path: path.to_owned() })
    }

    /// While this lives, a single request may take long: many are under way at a time, and over a slow
    /// line the last of them waits for all others.
    pub fn patience(&self) -> Patience<'_> {
        self.sftp.set_timeout(LONGEST_REQUEST.as_secs());
        Patience(self)
    }

    /// What comes next of requests that are under way, if it comes in time.
    pub async fn soon<T>(&self, next: impl Future<Output = T>) -> Result<T> {
        let late = |_| Error::Lost("the server does not answer any more".to_owned());
        timeout(self.timeout, next).await.map_err(late)
    }

    /// Whether bytes of a file have got through.
    pub fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed)
    }

    /// Bytes that are read or written with one request.
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// How many requests may be unanswered.
    pub fn requests(&self) -> usize {
        (IN_FLIGHT / self.chunk.max(1) as usize).clamp(2, 64)
    }

    /// Bytes that a server may have missed before the end of what it has of a file: requests that are
    /// under way together are not always done in order.
    pub fn doubtful(&self) -> u64 {
        self.requests() as u64 * u64::from(self.chunk)
    }
}

/// Requests may take long.
pub(super) struct Patience<'a>(&'a Connection);

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        self.0.sftp.set_timeout(self.0.timeout.as_secs().max(1));
    }
}

/// How a file of the server is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Empty, whatever was there.
    Anew,
    /// It must not be there yet.
    New,
    /// It is there.
    On,
}

impl RemoteFile<'_> {
    /// So many bytes from `offset`; fewer only at the file's end.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < u64::from(length) {
            let (from, left) = (offset + bytes.len() as u64, length - bytes.len() as u32);
            let answer = self.connection.sftp.read(self.handle.as_str(), from, left).await;
            match answer.map_err(|e| Error::sftp(&self.path, e)) {
                Err(Error::Refused { code: StatusCode::Eof, .. }) => break,
                Err(error) => return Err(error),
                Ok(answer) if answer.data.is_empty() || answer.data.len() as u64 > u64::from(left) => break,
                Ok(answer) if bytes.is_empty() => bytes = answer.data,
                Ok(answer) => bytes.extend_from_slice(&answer.data),
            }
        }
        self.connection.moved.store(true, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Writes at `offset`.
    pub async fn write(&self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        let done = self.connection.sftp.write(self.handle.as_str(), offset, bytes).await;
        done.map_err(|e| Error::sftp(&self.path, e))?;
        self.connection.moved.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes what was written durable, where the server can.
    pub async fn sync(&self) -> Result<()> {
        if !self.connection.fsync {
            return Ok(());
        }
        let done = self.connection.sftp.fsync(self.handle.as_str()).await;
        match done.map(drop).map_err(|e| Error::sftp(&self.path, e)) {
            Err(Error::Refused { code: StatusCode::OpUnsupported, .. }) => Ok(()),
            done => done,
        }
    }

    /// Closes it; for a file that was written, this may be where the server refuses.
    pub async fn close(self) -> Result<()> {
        let done = self.connection.sftp.close(self.handle.as_str()).await;
        done.map(drop).map_err(|e| Error::sftp(&self.path, e))
    }
}

impl Facts {
    fn of(attributes: &FileAttributes) -> Self {
        Facts { size: attributes.size.unwrap_or(0), mtime: attributes.mtime.map_or(0, i64::from) }
    }
}

/// Begins SFTP.
async fn begin(session: Handle<Checker>, access: &Access) -> Result<Connection> {
    let server = access.address.server();
    let lost = |error: russh::Error| Error::Lost(format!("{server}: starting SFTP: {error}"));
    let mut channel = session.channel_open_session().await.map_err(lost)?;
    channel.request_subsystem(true, "sftp").await.map_err(lost)?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break,
            Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof) => {
                return Err(Error::Denied(format!("{server} offers no SFTP to '{}'", access.address.user)));
            }
            None => return Err(Error::Lost(format!("{server}: the connection was lost"))),
            Some(_) => {}
        }
    }
    let config = russh_sftp::client::Config {
        max_packet_len: LARGEST_PACKET + 1024,
        request_timeout_secs: access.timeout.as_secs().max(1),
        ..Default::default()
    };
    let mut sftp = RawSftpSession::new_with_config(channel.into_stream(), config);
    let failed = |e| Error::sftp("starting SFTP", e);
    let offer = sftp.init().await.map_err(failed)?;
    let offers = |name: &str| offer.extensions.get(name).is_some_and(|version| version == "1");
    let mut chunk = COMMON_CHUNK;
    if offers("limits@openssh.com") {
        let limits = Limits::from(sftp.limits().await.map_err(failed)?);
        let least = limits.read_len.into_iter().chain(limits.write_len).min();
        // A request has room for a handle, besides.
        let packet = limits.packet_len.map(|length| length.saturating_sub(1024));
        let most = least.into_iter().chain(packet).min().unwrap_or(u64::from(COMMON_CHUNK));
        chunk = most.clamp(1024, u64::from(LARGEST_CHUNK)) as u32;
        sftp.set_limits(limits);
    }
    let fsync = offers("fsync@openssh.com");
    tracing::debug!(server, chunk, fsync, "connected");
    Ok(Connection { session, sftp, fsync, chunk, timeout: access.timeout, moved: AtomicBool::new(false) })
}
