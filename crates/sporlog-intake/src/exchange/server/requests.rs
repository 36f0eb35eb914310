//! A channel on which SFTP is spoken: bytes come in, requests are done one after another, answers go out.
//!
//! It runs in the connection's own task, so that an upload's bytes go from the cipher to the file without
//! another hop. Only what reads files is left to a task of its own ([`super::downloads`]). What is no packet
//! ends the connection.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use russh::ChannelId;
use russh::server::Session;

use super::acts::Acts;
use super::context::{Held, Visit};
use super::disk::{self, blocking};
use super::downloads::{Download, Pump, Read};
use super::listing::{self, Listing};
use super::member::Member;
use super::path::{self, Folder, Place};
use super::refusal::Refusal;
use super::uploads::Upload;
use super::wire::{self, Code, MAX_DATA, MAX_PACKET, Malformed, Request, flags};

/// Bytes of answers that a client may leave waiting.
const UNREAD: usize = 4 << 20;

/// A channel on which SFTP is spoken.
pub(super) struct Requests {
    channel: ChannelId,
    acts: Acts,
    pump: Pump,
    handles: HashMap<u32, (Open, Held)>,
    next_handle: u32,
    has_begun: bool,
    /// A packet that has not come in full.
    partial: BytesMut,
    /// Bytes of answers since the client had last read all of them.
    unread: usize,
}

/// Something that a client has open.
enum Open {
    Upload(Box<Upload>),
    Download(Arc<Download>),
    Listing(Box<Listing>),
}

/// What a request comes to.
type Answer = Result<Bytes, Refusal>;

/// The client does not keep to the protocol.
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
        session: &Session,
        visit: &Arc<Visit>,
        member: &Arc<Member>,
    ) -> Self {
        Requests {
            channel,
            acts: Acts { visit: Arc::clone(visit), member: Arc::clone(member) },
            pump: Pump::start(session.handle(), channel, Arc::clone(visit), Arc::clone(member)),
            handles: HashMap::new(),
            next_handle: 1,
            has_begun: false,
            partial: BytesMut::new(),
            unread: 0,
        }
    }

    /// Does what has come in full, and keeps the rest.
    pub(super) async fn receive(&mut self, data: &[u8], session: &mut Session) -> Result<(), Broken> {
        if !session.has_pending_data(self.channel) {
            self.unread = 0;
        }
        if self.partial.is_empty() {
            let mut rest = data;
            while let Some((packet, after)) = wire::split(rest)? {
                self.packet(packet, session).await?;
                rest = after;
            }
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        self.partial.extend_from_slice(data);
        let mut partial = std::mem::take(&mut self.partial);
        while let Some((packet, after)) = wire::split(&partial)? {
            let done = partial.len() - after.len();
            self.packet(packet, session).await?;
            partial.advance(done);
        }
        self.partial = partial;
        Ok(())
    }

    async fn packet(&mut self, packet: &[u8], session: &mut Session) -> Result<(), Broken> {
        if !self.has_begun {
            if !wire::is_init(packet) {
                return Err(Broken("SFTP begins with INIT"));
            }
            self.has_begun = true;
            return self.reply(wire::version(), session);
        }
        let id = wire::id(packet);
        let ended = self.acts.visit.ended.clone();
        let answer = match wire::parse(packet) {
            Ok(Request::Read { handle, offset, len }) => match self.read(id, handle, offset, len) {
                // It is answered when it has been read.
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
        let reply = answer.unwrap_or_else(|refusal| wire::status(id, refusal.code, &refusal.text));
        self.reply(reply, session)
    }

    fn reply(&mut self, reply: Bytes, session: &mut Session) -> Result<(), Broken> {
        self.unread += reply.len();
        if self.unread > UNREAD {
            return Err(Broken("the client asks, and does not read the answers"));
        }
        session.data(self.channel, reply).map_err(|_| Broken("an answer could not be sent"))
    }

    async fn answer(&mut self, id: u32, request: Request<'_>) -> Answer {
        let done = |()| wire::status(id, Code::Ok, "");
        match request {
            Request::Open { path, flags } => self.open(id, path, flags).await,
            Request::Close { handle } => self.close(handle).await.map(done),
            Request::Write { handle, offset, data } => self.write(handle, offset, data).await.map(done),
            Request::Stat { path } => {
                let place = self.place(path)?;
                let attributes = blocking(|| listing::stat(&self.acts.member, &place))?;
                Ok(wire::attributes(id, &attributes))
            }
            Request::Fstat { handle } => self.fstat(id, handle),
            Request::SetStat { path, size } => self.set_stat(path, size).map(done),
            Request::FsetStat { handle, size } => self.fset_stat(handle, size).map(done),
            Request::OpenDir { path } => {
                let place = self.place(path)?;
                let held = self.hold()?;
                let listing = blocking(|| Listing::open(&self.acts.member, &place))?;
                Ok(self.keep(id, Open::Listing(Box::new(listing)), held))
            }
            Request::ReadDir { handle } => self.read_dir(id, handle),
            Request::Remove { path } => self.acts.remove(self.place(path)?).await.map(done),
            Request::MakeDir | Request::RemoveDir => {
                Err(Refusal::denied("the folders here are fixed: none can be made or removed"))
            }
            Request::RealPath { path } => Ok(wire::path(id, &path::shortest(path)?)),
            Request::Rename { from, to, replace } => {
                self.acts.rename(self.place(from)?, self.place(to)?, replace).await.map(done)
            }
            Request::Link => Err(Refusal::new(Code::Unsupported, "there are no links here")),
            Request::StatVfs { path } => self.stat_vfs(id, path),
            Request::Fsync { handle } => match self.get(handle)? {
                Open::Upload(upload) => upload.sync().await.map(done),
                _ => Err(Refusal::failure("this is not open for writing")),
            },
            Request::Limits => {
                let data = MAX_DATA as u64;
                Ok(wire::numbers(
                    id,
                    &[MAX_PACKET as u64, data, data, self.acts.visit.context.limits.handles as u64],
                ))
            }
            Request::Read { .. } | Request::Unknown => {
                Err(Refusal::new(Code::Unsupported, "this is not supported"))
            }
        }
    }

    fn place(&self, path: &[u8]) -> Result<Place, Refusal> {
        path::resolve(self.acts.member.role, path)
    }

    fn get(&mut self, handle: wire::Handle) -> Result<&mut Open, Refusal> {
        let open = handle.and_then(|handle| self.handles.get_mut(&handle));
        open.map(|(open, _)| open).ok_or_else(|| Refusal::failure("there is no such handle"))
    }

    fn hold(&self) -> Result<Held, Refusal> {
        if self.acts.visit.context.stopping.is_cancelled() {
            return Err(Refusal::failure("the server is being stopped; try again soon"));
        }
        self.acts.visit.hold().ok_or_else(|| Refusal::failure("too many files are open on this connection"))
    }

    fn keep(&mut self, id: u32, open: Open, held: Held) -> Bytes {
        while self.handles.contains_key(&self.next_handle) {
            self.next_handle = self.next_handle.wrapping_add(1);
        }
        let handle = self.next_handle;
        self.next_handle = handle.wrapping_add(1);
        self.handles.insert(handle, (open, held));
        wire::handle(id, handle)
    }

    async fn open(&mut self, id: u32, path: &[u8], wanted: u32) -> Answer {
        let held = self.hold()?;
        let writes = wanted & flags::WRITE != 0;
        match (self.place(path)?, writes) {
            (Place::File(Folder::Inbox, name), true) => {
                let upload = blocking(|| Upload::open(&self.acts.member, &name, wanted))?;
                Ok(self.keep(id, Open::Upload(Box::new(upload)), held))
            }
            (Place::File(Folder::Inbox, _), false) => {
                Err(Refusal::denied("what was delivered cannot be read back"))
            }
            (Place::File(..), true) => Err(Refusal::denied("files can be put into /ind only")),
            (Place::File(folder, name), false) => {
                let download = self.acts.download(&folder, &name).await?;
                Ok(self.keep(id, Open::Download(Arc::new(download)), held))
            }
            _ => Err(Refusal::failure("this is a folder")),
        }
    }

    async fn write(&mut self, handle: wire::Handle, offset: u64, data: &[u8]) -> Result<(), Refusal> {
        let member = Arc::clone(&self.acts.member);
        let Open::Upload(upload) = self.get(handle)? else {
            return Err(Refusal::denied("this is not open for writing"));
        };
        if let Some(rate) = &member.rate {
            rate.take(data.len()).await;
        }
        upload.write(offset, data)?;
        self.acts.visit.context.meters.up.increment(data.len() as u64);
        self.acts.visit.touch();
        Ok(())
    }

    fn read(&mut self, id: u32, handle: wire::Handle, offset: u64, len: u32) -> Result<(), Refusal> {
        let Open::Download(download) = self.get(handle)? else {
            return Err(Refusal::denied("this is not open for reading"));
        };
        let download = Arc::clone(download);
        self.pump.read(Read { id, download, offset, len })
    }

    fn read_dir(&mut self, id: u32, handle: wire::Handle) -> Answer {
        let member = Arc::clone(&self.acts.member);
        let Open::Listing(listing) = self.get(handle)? else {
            return Err(Refusal::failure("this is no folder"));
        };
        let entries = blocking(|| listing.more(&member))?;
        if entries.is_empty() {
            return Err(Refusal::new(Code::Eof, "this is all"));
        }
        Ok(wire::names(id, &entries))
    }

    async fn close(&mut self, handle: wire::Handle) -> Result<(), Refusal> {
        let open = handle.and_then(|handle| self.handles.remove(&handle));
        match open.ok_or_else(|| Refusal::failure("there is no such handle"))? {
            (Open::Upload(upload), held) => {
                let closed = self.acts.close(&upload).await;
                if closed.is_err() {
                    self.acts.broke_off(&upload);
                }
                drop((upload, held));
                closed
            }
            _ => Ok(()),
        }
    }

    fn fstat(&mut self, id: u32, handle: wire::Handle) -> Answer {
        let attributes = match self.get(handle)? {
            Open::Upload(upload) => upload.attributes()?,
            Open::Download(download) => download.attributes,
            Open::Listing(_) => return Err(Refusal::failure("this is a folder")),
        };
        Ok(wire::attributes(id, &attributes))
    }

    /// Times and permissions are ours to set. Clients send them with each upload, and need not know; also not
    /// that a file has been taken in the meantime.
    fn set_stat(&self, path: &[u8], size: Option<u64>) -> Result<(), Refusal> {
        match (self.place(path)?, size) {
            (_, Some(_)) => Err(Refusal::denied("a file's size cannot be set")),
            (Place::File(Folder::Inbox, _), None) => Ok(()),
            (place, None) => blocking(|| listing::stat(&self.acts.member, &place)).map(drop),
        }
    }

    fn fset_stat(&mut self, handle: wire::Handle, size: Option<u64>) -> Result<(), Refusal> {
        match (self.get(handle)?, size) {
            (_, None) => Ok(()),
            (Open::Upload(upload), Some(size)) => upload.set_size(size),
            _ => Err(Refusal::denied("a file's size cannot be set")),
        }
    }

    fn stat_vfs(&self, id: u32, path: &[u8]) -> Answer {
        /// No set-user-id on this file system, as far as clients are concerned.
        const NO_SETUID: u64 = 2;
        self.place(path)?;
        let space = blocking(|| disk::Folder::open(self.acts.member.home.path())?.space())?;
        let blocks = [space.f_bsize, space.f_frsize, space.f_blocks, space.f_bfree, space.f_bavail];
        let files = [space.f_files, space.f_ffree, space.f_favail, space.f_fsid, NO_SETUID, 255];
        Ok(wire::numbers(id, &[&blocks[..], &files[..]].concat()))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for (open, held) in std::mem::take(&mut self.handles).into_values() {
            if let Open::Upload(upload) = &open {
                self.acts.broke_off(upload);
            }
            drop((open, held));
        }
    }
}
