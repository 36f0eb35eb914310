//! SFTP by hand, over OpenSSH's `ssh`: for what no decent client sends.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::client::Client;

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;

pub const READING: u32 = 0x01;
pub const WRITING: u32 = 0x02;
pub const APPENDING: u32 = 0x04;
pub const CREATING: u32 = 0x08;
pub const TRUNCATING: u32 = 0x10;

/// The numbers of requests that have a path and nothing else behind it.
pub const LSTAT: u8 = 7;
pub const OPENDIR: u8 = 11;
pub const REMOVE: u8 = 13;
pub const RMDIR: u8 = 15;
pub const REALPATH: u8 = 16;
pub const STAT: u8 = 17;
pub const READLINK: u8 = 19;

/// An answer: its type, and what follows the request's number.
#[derive(Debug)]
pub struct Answer(pub u8, pub Vec<u8>);

impl Answer {
    /// The code of a status: 0 done, 1 end, 2 no such file, 3 not permitted, 4 failure, 8 unsupported.
    pub fn status(&self) -> Option<u32> {
        (self.0 == STATUS).then(|| u32::from_be_bytes(self.1[..4].try_into().expect("4 bytes")))
    }

    #[track_caller]
    pub fn done(self) {
        assert_eq!(self.status(), Some(0), "{self:?}");
    }

    /// It was refused, in whatever words.
    #[track_caller]
    pub fn refused(self) {
        assert!(self.status().is_some_and(|code| code > 1), "{self:?}: {}", String::from_utf8_lossy(&self.1));
    }

    #[track_caller]
    pub fn handle(self) -> Vec<u8> {
        assert_eq!(self.0, HANDLE, "{self:?}: {}", String::from_utf8_lossy(&self.1));
        self.1[4..].to_vec()
    }
}

/// A connection.
pub struct Wire {
    child: Child,
    to: Option<ChildStdin>,
    from: ChildStdout,
    last: u32,
}

/// Bytes with their length before them.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

impl Client {
    /// Opens the subsystem, and says which version we speak.
    #[track_caller]
    pub fn wire(&self) -> Wire {
        self.try_wire().expect("a connection")
    }

    pub fn try_wire(&self) -> io::Result<Wire> {
        let mut command = self.ssh_command(&["-s"], &["sftp"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let mut wire = Wire { child, to, from, last: 0 };
        wire.send(&[&[INIT][..], &3_u32.to_be_bytes()].concat())?;
        wire.receive().map(|_| wire)
    }
}

impl Wire {
    /// A packet as it is, with its length before it.
    pub fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.send_raw(&string(packet))
    }

    /// Bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let to = self.to.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        to.write_all(bytes)?;
        to.flush()
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length)?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        self.from.read_exact(&mut packet)?;
        Ok(packet)
    }

    /// Sends a request, without waiting for its answer.
    pub fn request(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.last += 1;
        self.send(&[&[kind][..], &self.last.to_be_bytes(), body].concat())
    }

    /// The next answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let packet = self.receive()?;
        Ok(Answer(packet[0], packet[5..].to_vec()))
    }

    pub fn try_ask(&mut self, kind: u8, body: &[u8]) -> io::Result<Answer> {
        self.request(kind, body)?;
        self.answer()
    }

    #[track_caller]
    pub fn ask(&mut self, kind: u8, body: &[u8]) -> Answer {
        self.try_ask(kind, body).unwrap_or_else(|e| panic!("{kind}: {e}"))
    }

    /// A request that has a path only.
    #[track_caller]
    pub fn path(&mut self, kind: u8, path: impl AsRef<[u8]>) -> Answer {
        self.ask(kind, &string(path.as_ref()))
    }

    #[track_caller]
    pub fn open(&mut self, path: impl AsRef<[u8]>, how: u32) -> Answer {
        self.ask(OPEN, &[&string(path.as_ref())[..], &how.to_be_bytes(), &[0; 4]].concat())
    }

    #[track_caller]
    pub fn mkdir(&mut self, path: impl AsRef<[u8]>) -> Answer {
        self.ask(14, &[&string(path.as_ref())[..], &[0; 4]].concat())
    }

    #[track_caller]
    pub fn rename(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Answer {
        self.ask(18, &[string(from.as_ref()), string(to.as_ref())].concat())
    }

    /// OpenSSH's order: where it points to first.
    #[track_caller]
    pub fn symlink(&mut self, target: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Answer {
        self.ask(20, &[string(target.as_ref()), string(link.as_ref())].concat())
    }

    #[track_caller]
    pub fn extended(&mut self, name: &str, body: &[u8]) -> Answer {
        self.ask(200, &[&string(name.as_bytes())[..], body].concat())
    }

    /// One with two paths.
    #[track_caller]
    pub fn extended_paths(&mut self, name: &str, from: &str, to: &str) -> Answer {
        self.extended(name, &[string(from.as_bytes()), string(to.as_bytes())].concat())
    }

    #[track_caller]
    pub fn write(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> Answer {
        self.ask(WRITE, &[&string(handle)[..], &offset.to_be_bytes(), &string(data)].concat())
    }

    #[track_caller]
    pub fn read(&mut self, handle: &[u8], offset: u64, length: u32) -> Answer {
        self.ask(READ, &[&string(handle)[..], &offset.to_be_bytes(), &length.to_be_bytes()].concat())
    }

    #[track_caller]
    pub fn close(&mut self, handle: &[u8]) -> Answer {
        self.path(CLOSE, handle)
    }

    /// Puts a whole file at once.
    #[track_caller]
    pub fn put(&mut self, path: impl AsRef<[u8]>, content: &[u8]) -> Answer {
        let opened = self.open(path, WRITING | CREATING | TRUNCATING);
        if opened.status().is_some() {
            return opened;
        }
        let handle = opened.handle();
        for (n, part) in content.chunks(16 << 10).enumerate() {
            let written = self.write(&handle, (n * (16 << 10)) as u64, part);
            if written.status() != Some(0) {
                return written;
            }
        }
        self.close(&handle)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.to = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
