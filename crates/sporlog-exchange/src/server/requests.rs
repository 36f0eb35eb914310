//! An SFTP channel: bytes come in, requests are done one after another, answers go out.
//!
//! This runs in the connection's own task, so that an upload's bytes go from the cipher to the file without
//! being handed to another task. Only read requests have a task of their own ([`super::downloads`]). Bytes that
//! are not a packet end the connection.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use russh::ChannelId;
use russh::server::Session as SshSession;

use super::account::AccountState;
use super::context::{HANDLES, HandlePermit, Session};
use super::disk::{self, blocking};
use super::downloads::{Download, Pump, Read};
use super::listing::{self, Listing};
use super::operations::Operations;
use super::packets::{self, Attributes, Code, MAX_DATA, MAX_PACKET, Malformed, Request, flags};
use super::path::{self, Folder, VirtualPath};
use super::refusal::Refusal;
use super::uploads::Upload;
use crate::settings::Role;

/// Bytes of answers that a client may leave unread.
const UNREAD: usize = 4 << 20;

/// An SFTP channel.
pub(super) struct Requests {
    channel: ChannelId,
    operations: Operations,
    pump: Pump,
    handles: HashMap<u32, (Open, HandlePermit)>,
    next_handle: u32,
    has_begun: bool,
    /// The beginning of a packet whose end has not come.
    partial: BytesMut,
    /// Bytes of answers since the client last had read all of them.
    unread: usize,
}

/// A file or folder that a client has open.
enum Open {
    Upload(Box<Upload>),
    Download(Arc<Download>),
    Listing(Box<Listing>),
}

/// The answer to a request, or the error.
type Answer = Result<Bytes, Refusal>;

/// The client violates the protocol, and the connection has to be ended.
#[derive(Debug)]
pub(super) struct Broken(pub &'static str);

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Broken("a packet is too long, or too short")
    }
}

impl Requests {
    pub(super) fn new(
        channel: ChannelId,
        ssh: &SshSession,
        session: &Arc<Session>,
        account: &Arc<AccountState>,
    ) -> Self {
        Requests {
            channel,
            operations: Operations { session: Arc::clone(session), account: Arc::clone(account) },
            pump: Pump::start(ssh.handle(), channel, Arc::clone(session), Arc::clone(account)),
            handles: HashMap::new(),
            next_handle: 1,
            has_begun: false,
            partial: BytesMut::new(),
            unread: 0,
        }
    }

    /// Executes the requests that have come completely, and keeps the rest.
    pub(super) async fn receive(&mut self, data: &[u8], ssh: &mut SshSession) -> Result<(), Broken> {
        if !ssh.has_pending_data(self.channel) {
            self.unread = 0;
        }
        if self.partial.is_empty() {
            let mut rest = data;
            while let Some((packet, after)) = packets::split(rest)? {
                self.packet(packet, ssh).await?;
                rest = after;
            }
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        self.partial.extend_from_slice(data);
        let mut partial = std::mem::take(&mut self.partial);
        while let Some((packet, after)) = packets::split(&partial)? {
            let done = partial.len() - after.len();
            self.packet(packet, ssh).await?;
            partial.advance(done);
        }
        self.partial = partial;
        Ok(())
    }

    async fn packet(&mut self, packet: &[u8], ssh: &mut SshSession) -> Result<(), Broken> {
        if !self.has_begun {
            if !packets::is_init(packet) {
                return Err(Broken("SFTP begins with INIT"));
            }
            self.has_begun = true;
            return self.reply(packets::version(), ssh);
        }
        let id = packets::id(packet);
        let ended = self.operations.session.ended.clone();
        let answer = match packets::parse(packet) {
            Ok(Request::Read { handle, offset, len }) => match self.read(id, handle, offset, len) {
                // The task that reads will answer.
                Ok(()) => return Ok(()),
                Err(refusal) => Err(refusal),
            },
            Ok(request) => tokio::select! {
                biased;
                answer = self.answer(id, request) => answer,
                () = ended.cancelled() => return Err(Broken("the connection was ended")),
            },
            Err(Malformed) => Err(Refusal::new(Code::BadMessage, "the packet is malformed")),
        };
        let reply = answer.unwrap_or_else(|refusal| packets::status(id, refusal.code, &refusal.text));
        self.reply(reply, ssh)
    }

    fn reply(&mut self, reply: Bytes, ssh: &mut SshSession) -> Result<(), Broken> {
        self.unread += reply.len();
        if self.unread > UNREAD {
            return Err(Broken("the client asks, and does not read the answers"));
        }
        ssh.data(self.channel, reply).map_err(|_| Broken("an answer could not be sent"))
    }

    async fn answer(&mut self, id: u32, request: Request<'_>) -> Answer {
        let done = |()| packets::status(id, Code::Ok, "");
        match request {
            Request::Open { path, flags } => self.open(id, path, flags).await,
            Request::Close { handle } => self.close(handle).await.map(done),
            Request::Write { handle, offset, data } => self.write(handle, offset, data).await.map(done),
            Request::Stat { path } => {
                let target = self.resolve(path)?;
                Ok(packets::attributes(id, &blocking(|| self.stat(&target))?))
            }
            Request::Fstat { handle } => self.fstat(id, handle),
            Request::SetStat { path, size } => self.set_stat(path, size).map(done),
            Request::FsetStat { handle, size } => self.fset_stat(handle, size).map(done),
            Request::OpenDir { path } => {
                let target = self.resolve(path)?;
                let permit = self.acquire_handle()?;
                let Operations { session, account } = &self.operations;
                let listing = blocking(|| Listing::open(account, session.began, &target))?;
                Ok(self.keep(id, Open::Listing(Box::new(listing)), permit))
            }
            Request::ReadDir { handle } => self.read_dir(id, handle),
            Request::Remove { path } => self.operations.remove(self.resolve(path)?).await.map(done),
            // As OpenSSH's server answers, for clients that make a folder whether it is there or not.
            Request::MakeDir { path }
                if self.resolve(path).is_ok_and(|folder| self.stat(&folder).is_ok()) =>
            {
                Err(Refusal::failure("a file or folder of this name is there already"))
            }
            Request::MakeDir { .. } | Request::RemoveDir => {
                Err(Refusal::denied("the folders here are fixed: none can be made or removed"))
            }
            Request::RealPath { path } => Ok(packets::path(id, &path::shortest(path)?)),
            Request::Rename { from, to, replace } => {
                self.operations.rename(self.resolve(from)?, self.resolve(to)?, replace).await.map(done)
            }
            Request::Link => Err(Refusal::new(Code::Unsupported, "there are no links here")),
            Request::StatVfs { path } => self.stat_vfs(id, path),
            Request::Fsync { handle } => match self.get(handle)? {
                Open::Upload(upload) => upload.sync().await.map(done),
                _ => Err(Refusal::failure("this is not open for writing")),
            },
            Request::Limits => {
                let data = MAX_DATA as u64;
                Ok(packets::numbers(id, &[MAX_PACKET as u64, data, data, HANDLES as u64]))
            }
            Request::Read { .. } | Request::Unknown => {
                Err(Refusal::new(Code::Unsupported, "this is not supported"))
            }
        }
    }

    fn resolve(&self, path: &[u8]) -> Result<VirtualPath, Refusal> {
        path::resolve(self.operations.account.role, path)
    }

    /// The attributes of a file or folder, or of a file that the account has just delivered.
    fn stat(&self, target: &VirtualPath) -> Result<Attributes, Refusal> {
        let Operations { session, account } = &self.operations;
        listing::stat(account, target).or_else(|refusal| match target {
            VirtualPath::File(Folder::Inbox, name) if refusal.code == Code::NoSuchFile => {
                account.delivered.find(name, &account.home, session.began).ok_or(refusal)
            }
            _ => Err(refusal),
        })
    }

    fn get(&mut self, handle: packets::Handle) -> Result<&mut Open, Refusal> {
        let open = handle.and_then(|handle| self.handles.get_mut(&handle));
        open.map(|(open, _)| open).ok_or_else(|| Refusal::failure("there is no such handle"))
    }

    fn acquire_handle(&self) -> Result<HandlePermit, Refusal> {
        if self.operations.session.context.stopping.is_cancelled() {
            return Err(Refusal::failure("the server is being stopped; try again soon"));
        }
        self.operations.session.acquire_handle().map_err(Refusal::failure)
    }

    fn keep(&mut self, id: u32, open: Open, permit: HandlePermit) -> Bytes {
        while self.handles.contains_key(&self.next_handle) {
            self.next_handle = self.next_handle.wrapping_add(1);
        }
        let handle = self.next_handle;
        self.next_handle = handle.wrapping_add(1);
        self.handles.insert(handle, (open, permit));
        packets::handle(id, handle)
    }

    async fn open(&mut self, id: u32, path: &[u8], wanted: u32) -> Answer {
        let permit = self.acquire_handle()?;
        let writes = wanted & flags::WRITE != 0;
        let target = self.resolve(path);
        let is_missing = target.as_ref().is_err_and(|refusal| refusal.code == Code::NoSuchFile);
        if is_missing && writes && self.operations.account.role == Role::Supplier {
            return Err(Refusal::denied("there is no such folder to write to: deliver into /ind"));
        }
        match (target?, writes) {
            (VirtualPath::File(Folder::Inbox, name), true) => {
                let upload = blocking(|| Upload::open(&self.operations.account, &name, wanted))?;
                Ok(self.keep(id, Open::Upload(Box::new(upload)), permit))
            }
            (VirtualPath::File(Folder::Inbox, _), false) => {
                Err(Refusal::denied("what was delivered cannot be read back"))
            }
            (VirtualPath::File(..), true) => Err(Refusal::denied("files can be put into /ind only")),
            (VirtualPath::File(folder, name), false) => {
                let download = self.operations.download(&folder, &name).await?;
                Ok(self.keep(id, Open::Download(Arc::new(download)), permit))
            }
            _ => Err(Refusal::failure("this is a folder")),
        }
    }

    async fn write(&mut self, handle: packets::Handle, offset: u64, data: &[u8]) -> Result<(), Refusal> {
        let account = Arc::clone(&self.operations.account);
        let Open::Upload(upload) = self.get(handle)? else {
            return Err(Refusal::denied("this is not open for writing"));
        };
        if let Some(rate) = &account.rate {
            rate.take(data.len()).await;
        }
        upload.write(offset, data)?;
        self.operations.session.context.meters.up.increment(data.len() as u64);
        self.operations.session.touch();
        Ok(())
    }

    fn read(&mut self, id: u32, handle: packets::Handle, offset: u64, len: u32) -> Result<(), Refusal> {
        let Open::Download(download) = self.get(handle)? else {
            return Err(Refusal::denied("this is not open for reading"));
        };
        let download = Arc::clone(download);
        self.pump.read(Read { id, download, offset, len })
    }

    fn read_dir(&mut self, id: u32, handle: packets::Handle) -> Answer {
        let account = Arc::clone(&self.operations.account);
        let Open::Listing(listing) = self.get(handle)? else {
            return Err(Refusal::failure("not a folder"));
        };
        let entries = blocking(|| listing.more(&account))?;
        if entries.is_empty() {
            return Err(Refusal::new(Code::Eof, "this is all"));
        }
        Ok(packets::names(id, &entries))
    }

    async fn close(&mut self, handle: packets::Handle) -> Result<(), Refusal> {
        let open = handle.and_then(|handle| self.handles.remove(&handle));
        match open.ok_or_else(|| Refusal::failure("there is no such handle"))? {
            (Open::Upload(upload), permit) => {
                let closed = self.operations.close(&upload).await;
                if closed.is_err() {
                    self.operations.broke_off(&upload);
                }
                drop((upload, permit));
                closed
            }
            _ => Ok(()),
        }
    }

    fn fstat(&mut self, id: u32, handle: packets::Handle) -> Answer {
        let attributes = match self.get(handle)? {
            Open::Upload(upload) => upload.attributes()?,
            Open::Download(download) => download.attributes,
            Open::Listing(_) => return Err(Refusal::failure("this is a folder")),
        };
        Ok(packets::attributes(id, &attributes))
    }

    /// Ignores times and permissions, which clients send with each upload; the answer is success also when the
    /// file has been claimed in the meantime.
    fn set_stat(&self, path: &[u8], size: Option<u64>) -> Result<(), Refusal> {
        match (self.resolve(path)?, size) {
            (_, Some(_)) => Err(Refusal::denied("a file's size cannot be set")),
            (VirtualPath::File(Folder::Inbox, _), None) => Ok(()),
            (target, None) => blocking(|| self.stat(&target)).map(drop),
        }
    }

    fn fset_stat(&mut self, handle: packets::Handle, size: Option<u64>) -> Result<(), Refusal> {
        match (self.get(handle)?, size) {
            (_, None) => Ok(()),
            (Open::Upload(upload), Some(size)) => upload.set_size(size),
            _ => Err(Refusal::denied("a file's size cannot be set")),
        }
    }

    fn stat_vfs(&self, id: u32, path: &[u8]) -> Answer {
        /// The flag ST_NOSUID.
        const NO_SETUID: u64 = 2;
        self.resolve(path)?;
        let space = blocking(|| disk::Folder::open(self.operations.account.home.path())?.space())?;
        let blocks = [space.f_bsize, space.f_frsize, space.f_blocks, space.f_bfree, space.f_bavail];
        let files = [space.f_files, space.f_ffree, space.f_favail, space.f_fsid, NO_SETUID, 255];
        Ok(packets::numbers(id, &[&blocks[..], &files[..]].concat()))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for (open, permit) in std::mem::take(&mut self.handles).into_values() {
            if let Open::Upload(upload) = &open {
                self.operations.broke_off(upload);
            }
            drop((open, permit));
        }
    }
}
