//! A connection to another server, signed in, with SFTP on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::Handle;
use russh::{ChannelMsg, Disconnect};
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as Sftp;
use russh_sftp::client::rawsession::Limits;
use russh_sftp::protocol::{FileAttributes, FileType, OpenFlags, StatusCode};
use tokio::time::timeout;

use super::address::{Address, join};
use super::error::{Error, Result};
use super::host_key::{Checker, HostKeys, connect};
use super::identity::Identities;

/// The largest answer that is accepted.
const LARGEST_PACKET: u32 = 256 << 10;
/// Bytes that every server reads or writes with one request.
const COMMON_CHUNK: u32 = 32 << 10;
/// Bytes that are read or written with one request where the server says that it can.
const LARGEST_CHUNK: u32 = 255 << 10;
/// Bytes asked for, or sent, and not yet answered.
const IN_FLIGHT: usize = 4 << 20;
/// The library's limit on a single request. Over a slow line the last of many requests waits for all others, so
/// it is [`Access::timeout`] without any answer that ends a connection, and not this.
const LONGEST_REQUEST: Duration = Duration::from_secs(3600);
/// Entries of a folder that are accepted, so that a list without end does not fill the memory.
const MOST_ENTRIES: usize = 1_000_000;

/// How another server is reached.
#[derive(Debug, Clone)]
pub struct Access {
    /// Where the server is.
    pub address: Address,
    /// The keys to sign in with.
    pub identities: Identities,
    /// Which keys the server may have.
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
    can_sync: bool,
    /// Bytes that are read or written with one request.
    pub chunk: u32,
    timeout: Duration,
    /// Whether bytes of a file have got through.
    moved: AtomicBool,
}

/// What the server says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileInfo {
    pub size: u64,
    /// Seconds since 1970; 0 if the server does not say.
    pub mtime: i64,
}

impl From<&FileAttributes> for FileInfo {
    fn from(attributes: &FileAttributes) -> Self {
        FileInfo { size: attributes.size.unwrap_or(0), mtime: attributes.mtime.map_or(0, i64::from) }
    }
}

/// An entry of a folder.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub path: String,
    pub kind: FileType,
    pub info: FileInfo,
}

impl Connection {
    /// Connects and signs in.
    pub async fn open(access: &Access) -> Result<Self> {
        let keys = access.identities.read()?;
        let server = access.address.server();
        let late = |what: &str| Error::Lost(format!("{server}: {what} took too long"));
        let mut session = timeout(access.timeout, connect(&access.address, &access.host_keys))
            .await
            .map_err(|_| late("connecting"))??;
        timeout(access.timeout, keys.sign_in(&mut session, &access.address))
            .await
            .map_err(|_| late("signing in"))??;
        timeout(access.timeout, start_sftp(session, access)).await.map_err(|_| late("starting SFTP"))?
    }

    /// Disconnects.
    pub async fn close(self) {
        // The work is done; a server that does not receive this notices by itself.
        let _ = self.sftp.close_session();
        let goodbye = self.session.disconnect(Disconnect::ByApplication, "", "");
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }

    /// The next answer, if there is one in time.
    pub async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        let late = |_| Error::Lost("the server does not answer any more".to_owned());
        timeout(self.timeout, answer).await.map_err(late)
    }

    async fn ask<T>(&self, what: &str, answer: impl Future<Output = Result<T, Sftp>>) -> Result<T> {
        self.in_time(answer).await?.map_err(|e| Error::sftp(what, e))
    }

    /// The size and time of a file, a link being what it leads to.
    pub async fn stat(&self, path: &str) -> Result<FileInfo> {
        let answer = self.ask(path, self.sftp.stat(path)).await?;
        match answer.attrs.size {
            Some(_) => Ok(FileInfo::from(&answer.attrs)),
            None => {
                let text = "nothing about the file's size".to_owned();
                Err(Error::Refused { what: path.escape_debug().to_string(), code: StatusCode::Failure, text })
            }
        }
    }

    /// The size and time of a file; `None` if there is no such file.
    pub async fn find(&self, path: &str) -> Result<Option<FileInfo>> {
        match self.stat(path).await {
            Err(error) if error.is_absent() => Ok(None),
            found => found.map(Some),
        }
    }

    /// The entries of a folder, sorted by name.
    pub async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let handle = self.ask(folder, self.sftp.opendir(folder)).await?.handle;
        let mut entries = Vec::new();
        loop {
            let more = match self.ask(folder, self.sftp.readdir(handle.as_str())).await {
                Err(Error::Refused { code: StatusCode::Eof, .. }) => break,
                more => more?.files,
            };
            if more.is_empty() {
                break;
            }
            for file in more.into_iter().filter(|file| file.filename != "." && file.filename != "..") {
                let path = join(folder, &file.filename);
                let info = FileInfo::from(&file.attrs);
                // A server may leave out the type of an entry; the line for people has it.
                let kind = match file.attrs.permissions {
                    Some(_) => file.attrs.file_type(),
                    None if file.longname.starts_with('d') => FileType::Dir,
                    None => FileType::File,
                };
                entries.push(Entry { name: file.filename, path, kind, info });
            }
            if entries.len() > MOST_ENTRIES {
                return Err(Error::Settings(format!("{}: too many files", folder.escape_debug())));
            }
        }
        self.ask(folder, self.sftp.close(handle)).await?;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Renames a file; servers refuse if the new name is taken.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.ask(&format!("renaming {from} to {to}"), self.sftp.rename(from, to)).await.map(drop)
    }

    /// Removes a file.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.ask(&format!("removing {path}"), self.sftp.remove(path)).await.map(drop)
    }

    /// Opens a file.
    pub async fn open_file(&self, path: &str, flags: OpenFlags) -> Result<RemoteFile<'_>> {
        let handle = self.ask(path, self.sftp.open(path, flags, FileAttributes::empty())).await?.handle;
        Ok(RemoteFile { connection: self, handle, path: path.to_owned() })
    }

    /// Whether bytes of a file have got through.
    pub fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed)
    }

    /// How many requests may be unanswered.
    pub fn requests(&self) -> usize {
        (IN_FLIGHT / self.chunk.max(1) as usize).clamp(2, 64)
    }

    /// Bytes that a server may have missed before the end of what it has of a file: requests that are under way
    /// together are not always executed in order.
    pub fn doubtful(&self) -> u64 {
        self.requests() as u64 * u64::from(self.chunk)
    }
}

/// An open file of the server. Many of its requests may be under way at a time: [`Connection::in_time`] watches them.
pub(super) struct RemoteFile<'a> {
    connection: &'a Connection,
    handle: String,
    path: String,
}

impl RemoteFile<'_> {
    /// `length` bytes from `offset`; fewer only at the file's end.
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

    /// Writes `bytes` at `offset`.
    pub async fn write(&self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        let done = self.connection.sftp.write(self.handle.as_str(), offset, bytes).await;
        done.map_err(|e| Error::sftp(&self.path, e))?;
        self.connection.moved.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes what was written durable, where the server can.
    pub async fn sync(&self) -> Result<()> {
        if !self.connection.can_sync {
            return Ok(());
        }
        match self.connection.ask(&self.path, self.connection.sftp.fsync(self.handle.as_str())).await {
            Err(Error::Refused { code: StatusCode::OpUnsupported, .. }) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Closes the file. For one that was written, this may be where the server refuses.
    pub async fn close(self) -> Result<()> {
        self.connection.ask(&self.path, self.connection.sftp.close(self.handle.as_str())).await.map(drop)
    }
}

async fn start_sftp(session: Handle<Checker>, access: &Access) -> Result<Connection> {
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
        request_timeout_secs: LONGEST_REQUEST.as_secs(),
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
    let can_sync = offers("fsync@openssh.com");
    tracing::debug!(server, chunk, can_sync, "connected");
    Ok(Connection { session, sftp, can_sync, chunk, timeout: access.timeout, moved: AtomicBool::new(false) })
}
