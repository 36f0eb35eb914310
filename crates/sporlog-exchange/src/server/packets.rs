//! The packets of SFTP, version 3: parsing requests and writing answers.
//!
//! This is not left to a library for three reasons. Bytes that are not a packet have to end the connection,
//! where russh-sftp reads on out of step. A name that is not UTF-8 must not be confused with one that is. And
//! an upload's bytes are not copied once more.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest packet, as in OpenSSH.
pub(super) const MAX_PACKET: usize = 256 * 1024;
/// The most bytes of a file in one packet, as in OpenSSH.
pub(super) const MAX_DATA: usize = MAX_PACKET - 1024;

/// The bytes before the data of a file in a packet: length, type, id, length of the data.
pub(super) const DATA_HEAD: usize = 4 + 1 + 4 + 4;

/// The extensions that are announced, with their versions.
const EXTENSIONS: [(&str, &str); 4] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fsync@openssh.com", "1"),
    ("limits@openssh.com", "1"),
];

/// The status code of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// A request. Paths are bytes here; [`super::path`] resolves them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Open { path: &'a [u8], flags: u32 },
    Close { handle: Handle },
    Read { handle: Handle, offset: u64, len: u32 },
    Write { handle: Handle, offset: u64, data: &'a [u8] },
    Stat { path: &'a [u8] },
    Fstat { handle: Handle },
    SetStat { path: &'a [u8], size: Option<u64> },
    FsetStat { handle: Handle, size: Option<u64> },
    OpenDir { path: &'a [u8] },
    ReadDir { handle: Handle },
    Remove { path: &'a [u8] },
    MakeDir { path: &'a [u8] },
    RemoveDir,
    RealPath { path: &'a [u8] },
    Rename { from: &'a [u8], to: &'a [u8], replace: bool },
    Link,
    StatVfs { path: &'a [u8] },
    Fsync { handle: Handle },
    Limits,
    Unknown,
}

/// A handle in a request; `None` if the server never gave out such a one.
pub(super) type Handle = Option<u32>;

/// Flags of [`Request::Open`].
pub(super) mod flags {
    pub const WRITE: u32 = 0x02;
    pub const APPEND: u32 = 0x04;
    pub const CREATE: u32 = 0x08;
    pub const TRUNCATE: u32 = 0x10;
    pub const EXCLUDE: u32 = 0x20;
}

/// The packet is shorter than its content says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The unread rest of a packet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Malformed)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| Malformed)
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed)?)
    }

    fn handle(&mut self) -> Result<Handle, Malformed> {
        Ok(self.string()?.try_into().ok().map(u32::from_be_bytes))
    }

    /// Reads attributes, of which only the size is used; the others are left unread.
    fn size(&mut self) -> Result<Option<u64>, Malformed> {
        let has_size = self.u32()? & ATTR_SIZE != 0;
        has_size.then(|| self.u64()).transpose()
    }
}

/// A packet without its length, and the bytes after it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// Splits off a packet, without its length; `None` if the packet has not come completely.
pub(super) fn split(bytes: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    // The shortest packet has a type and an id.
    if !(5..=MAX_PACKET).contains(&len) {
        return Err(Malformed);
    }
    Ok(rest.split_at_checked(len))
}

const INIT: u8 = 1;
const ATTR_SIZE: u32 = 1;
const ATTR_PERMISSIONS: u32 = 4;
const ATTR_TIMES: u32 = 8;

/// Whether a packet (without its length) is INIT, the first of a client.
pub(super) fn is_init(packet: &[u8]) -> bool {
    packet.first() == Some(&INIT) && packet.len() >= 5
}

/// The id of a request; 0 if it has none.
pub(super) fn id(packet: &[u8]) -> u32 {
    packet.get(1..).and_then(|rest| rest.first_chunk()).map_or(0, |id| u32::from_be_bytes(*id))
}

/// Parses a packet, which comes without its length.
pub(super) fn parse(packet: &[u8]) -> Result<Request<'_>, Malformed> {
    let mut fields = Fields(packet);
    let kind = fields.u8()?;
    fields.u32()?;
    Ok(match kind {
        3 => Request::Open { path: fields.string()?, flags: fields.u32()? },
        4 => Request::Close { handle: fields.handle()? },
        5 => Request::Read { handle: fields.handle()?, offset: fields.u64()?, len: fields.u32()? },
        6 => Request::Write { handle: fields.handle()?, offset: fields.u64()?, data: fields.string()? },
        // There are no links, so LSTAT is the same as STAT.
        7 | 17 => Request::Stat { path: fields.string()? },
        8 => Request::Fstat { handle: fields.handle()? },
        9 => Request::SetStat { path: fields.string()?, size: fields.size()? },
        10 => Request::FsetStat { handle: fields.handle()?, size: fields.size()? },
        11 => Request::OpenDir { path: fields.string()? },
        12 => Request::ReadDir { handle: fields.handle()? },
        13 => Request::Remove { path: fields.string()? },
        14 => Request::MakeDir { path: fields.string()? },
        15 => Request::RemoveDir,
        16 => Request::RealPath { path: fields.string()? },
        18 => Request::Rename { from: fields.string()?, to: fields.string()?, replace: false },
        19 | 20 => Request::Link,
        200 => match fields.string()? {
            b"posix-rename@openssh.com" => {
                Request::Rename { from: fields.string()?, to: fields.string()?, replace: true }
            }
            b"statvfs@openssh.com" => Request::StatVfs { path: fields.string()? },
            b"fsync@openssh.com" => Request::Fsync { handle: fields.handle()? },
            b"limits@openssh.com" => Request::Limits,
            b"hardlink@openssh.com" => Request::Link,
            _ => Request::Unknown,
        },
        _ => Request::Unknown,
    })
}

/// The attributes of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub size: u64,
    /// The type and permissions, as in `st_mode`.
    pub mode: u32,
    /// The time of modification, in seconds since 1970.
    pub changed: u32,
}

/// An entry of a listing.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    /// The entry as a line of `ls -l`.
    pub long: String,
    pub attributes: Attributes,
}

/// A packet being written: its length is filled in at the end.
struct Reply(BytesMut);

impl Reply {
    fn new(kind: u8, id: u32) -> Self {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(id);
        Reply(bytes)
    }

    fn string(&mut self, bytes: &[u8]) {
        self.0.put_u32(u32::try_from(bytes.len()).unwrap_or_default());
        self.0.put_slice(bytes);
    }

    fn attributes(&mut self, attributes: &Attributes) {
        self.0.put_u32(ATTR_SIZE | ATTR_PERMISSIONS | ATTR_TIMES);
        self.0.put_u64(attributes.size);
        self.0.put_u32(attributes.mode);
        self.0.put_u32(attributes.changed);
        self.0.put_u32(attributes.changed);
    }

    fn done(mut self) -> Bytes {
        let len = u32::try_from(self.0.len().saturating_sub(4)).unwrap_or_default();
        if let Some(head) = self.0.first_chunk_mut() {
            *head = len.to_be_bytes();
        }
        self.0.freeze()
    }
}

/// The answer to INIT.
pub(super) fn version() -> Bytes {
    let mut reply = Reply::new(2, 3);
    for (name, version) in EXTENSIONS {
        reply.string(name.as_bytes());
        reply.string(version.as_bytes());
    }
    reply.done()
}

/// A status with a text for people.
pub(super) fn status(id: u32, code: Code, text: &str) -> Bytes {
    let mut reply = Reply::new(101, id);
    reply.0.put_u32(code as u32);
    reply.string(text.as_bytes());
    reply.string(b"en");
    reply.done()
}

/// The answer with a new handle.
pub(super) fn handle(id: u32, handle: u32) -> Bytes {
    let mut reply = Reply::new(102, id);
    reply.string(&handle.to_be_bytes());
    reply.done()
}

/// The bytes before `len` bytes of a file's data.
pub(super) fn data_head(id: u32, len: u32) -> [u8; DATA_HEAD] {
    let mut head = [0; DATA_HEAD];
    let mut rest = &mut head[..];
    rest.put_u32(len + 9);
    rest.put_u8(103);
    rest.put_u32(id);
    rest.put_u32(len);
    head
}

/// Entries of a listing.
pub(super) fn names(id: u32, entries: &[Entry]) -> Bytes {
    let mut reply = Reply::new(104, id);
    reply.0.put_u32(u32::try_from(entries.len()).unwrap_or_default());
    for entry in entries {
        reply.string(entry.name.as_bytes());
        reply.string(entry.long.as_bytes());
        reply.attributes(&entry.attributes);
    }
    reply.done()
}

/// The answer with a path in its shortest form.
pub(super) fn path(id: u32, path: &str) -> Bytes {
    let mut reply = Reply::new(104, id);
    reply.0.put_u32(1);
    reply.string(path.as_bytes());
    reply.string(path.as_bytes());
    reply.0.put_u32(0);
    reply.done()
}

/// The answer with attributes.
pub(super) fn attributes(id: u32, attributes: &Attributes) -> Bytes {
    let mut reply = Reply::new(105, id);
    reply.attributes(attributes);
    reply.done()
}

/// The answer to an extension's request, which is a list of numbers.
pub(super) fn numbers(id: u32, numbers: &[u64]) -> Bytes {
    let mut reply = Reply::new(201, id);
    numbers.iter().for_each(|&number| reply.0.put_u64(number));
    reply.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![kind, 0, 0, 0, 7];
        fields.iter().for_each(|field| packet.extend_from_slice(field));
        packet
    }

    #[test]
    fn a_write_is_taken_apart_without_copying() {
        let bytes = packet(6, &[&[0, 0, 0, 4, 0, 0, 0, 9], &5u64.to_be_bytes(), &[0, 0, 0, 3], b"abc"]);
        assert_eq!(parse(&bytes), Ok(Request::Write { handle: Some(9), offset: 5, data: b"abc" }));
        assert_eq!(id(&bytes), 7);
    }

    #[test]
    fn what_is_cut_short_or_claims_too_much_is_malformed() {
        let whole = packet(6, &[&[0, 0, 0, 4, 0, 0, 0, 9], &5u64.to_be_bytes(), &[0, 0, 0, 3], b"abc"]);
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), Err(Malformed), "{len}");
        }
        assert_eq!(parse(&packet(3, &[&u32::MAX.to_be_bytes(), b"abc"])), Err(Malformed));
    }

    #[test]
    fn a_handle_that_is_not_ours_is_none() {
        let bytes = packet(4, &[&[0, 0, 0, 3], b"abc"]);
        assert_eq!(parse(&bytes), Ok(Request::Close { handle: None }));
    }

    #[test]
    fn a_reply_says_how_long_it_is() {
        let reply = status(3, Code::NoSuchFile, "no");
        assert_eq!(reply.first_chunk().map(|len| u32::from_be_bytes(*len)), Some(reply.len() as u32 - 4));
        assert_eq!(&reply[4..13], &[101, 0, 0, 0, 3, 0, 0, 0, 2]);
        assert_eq!(data_head(1, 10), [0, 0, 0, 19, 103, 0, 0, 0, 1, 0, 0, 0, 10]);
    }

    #[test]
    fn packets_are_told_apart_and_nonsense_is_not_read_on() {
        let mut bytes = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
        bytes.extend_from_slice(&[0, 0, 0, 6, 4]);
        let split_off = |bytes: &[u8]| split(bytes).map(|found| found.map(|(p, r)| (p.len(), r.len())));
        assert!(matches!(split_off(&bytes), Ok(Some((5, 5)))));
        assert!(matches!(split_off(&bytes[9..]), Ok(None)));
        assert!(matches!(split_off(&[0, 0]), Ok(None)));
        for len in [0, 4, MAX_PACKET as u32 + 1, u32::MAX] {
            assert!(split_off(&len.to_be_bytes()).is_err(), "{len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_taken_apart_or_malformed(bytes: Vec<u8>, kind in 0u8..32, rest: Vec<u8>) {
            if let Ok(Some((packet, left))) = split(&bytes) {
                assert_eq!(4 + packet.len() + left.len(), bytes.len());
                let _ = parse(packet);
            }
            // One that has a type and an id, so that more of it is looked at.
            let bytes = packet(kind, &[&rest]);
            if let Ok(Request::Write { data, .. }) = parse(&bytes) {
                assert!(data.len() <= rest.len());
            }
            let _ = (id(&bytes), is_init(&bytes));
        }
    }
}
