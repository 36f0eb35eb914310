//! The bytes of a delivery: a file, standard input or a stream; unpacked, with their digest.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::blocking::lock;
use crate::error::{Error, Result};
use sporlog_record::hex;
use sporlog_record::identifier::mask_text;

/// A file or a stream that is about to be read.
pub struct Source {
    name: String,
    size: Option<u64>,
    input: Input,
    stop: Option<Arc<AtomicBool>>,
}

enum Input {
    /// Each source of one file has a read position of its own.
    File(Arc<File>),
    Stream(Box<dyn Read + Send>),
}

impl Source {
    /// The file at `path`; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Source::stream("-", io::stdin()));
        }
        let fail = |source| Error::Read { name: path.display().to_string(), source };
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(io::Error::new(
                io::ErrorKind::IsADirectory,
                "a file is expected, and this is a directory",
            )));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        if metadata.is_file() { Source::file(&name, Arc::new(file)) } else { Ok(Source::stream(&name, file)) }
    }

    /// A file that is open already, from its beginning, under the name `name`.
    pub fn file(name: &str, file: Arc<File>) -> Result<Self> {
        let size = file.metadata().map_err(|source| Error::Read { name: name.to_owned(), source })?.len();
        Ok(Source::new(name, Some(size), Input::File(file)))
    }

    /// The bytes that `reader` gives, under the name `name`.
    pub fn stream(name: &str, reader: impl Read + Send + 'static) -> Self {
        Source::new(name, None, Input::Stream(Box::new(reader)))
    }

    fn new(name: &str, size: Option<u64>, input: Input) -> Self {
        Source { name: mask_text(name).into_owned(), size, input, stop: None }
    }

    /// This source, whose reading fails as soon as `stop` is set, also at its end: the Ctrl-C that sets
    /// `stop` also ends the program that writes into a pipe, and then the bytes before are no whole file.
    pub fn until(self, stop: Arc<AtomicBool>) -> Self {
        Source { stop: Some(stop), ..self }
    }

    /// Two sources of the same bytes, of which the second is to be read after the first. What a stream gives to
    /// the first is kept for the second in a temporary file without a name.
    pub fn twice(self) -> Result<(Self, Self)> {
        let (first, second) = match self.input {
            Input::File(file) => (Input::File(file.clone()), Input::File(file)),
            Input::Stream(stream) => {
                let kept = tempfile::tempfile();
                let kept = kept.map_err(|source| Error::Read { name: self.name.clone(), source })?;
                let kept = Arc::new(kept);
                (Input::Stream(Box::new(Kept { stream, copy: kept.clone() })), Input::File(kept))
            }
        };
        let (name, stop) = (self.name.clone(), self.stop.clone());
        Ok((Source { input: first, ..self }, Source { name, size: self.size, input: second, stop }))
    }

    /// The file's name, without its folder. What may be a personal number in the name is masked.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The size in bytes, if it is known before reading.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The SHA-256 of the bytes as delivered, in hexadecimal. Reads all of them.
    pub fn digest(self) -> Result<String> {
        let account = Arc::new(Account::default());
        let (name, reader) = self.into_reader();
        let mut raw = Accounted { inner: reader, account: account.clone() };
        let read = io::copy(&mut BufReader::with_capacity(1 << 20, &mut raw), &mut io::sink());
        read.map_err(|source| Error::Read { name, source })?;
        Ok(hex(account.sha256()))
    }

    /// The bytes, unpacked if they are compressed (gzip or Zstandard, told by their first bytes), and the
    /// digest and size of the bytes as delivered.
    pub fn unpack(self) -> Result<(Box<dyn Read + Send>, Arc<Account>)> {
        let account = Arc::new(Account::default());
        let (name, reader) = self.into_reader();
        let fail = |source| Error::Read { name: name.clone(), source };
        let mut raw = Accounted { inner: reader, account: account.clone() };
        let mut begin = Vec::with_capacity(FRAME_HEADER);
        (&mut raw).take(FRAME_HEADER as u64).read_to_end(&mut begin).map_err(fail)?;
        let (is_gzip, is_zstd) = (begin.starts_with(&[0x1f, 0x8b]), is_zstd(&begin));
        let whole = Cursor::new(begin).chain(raw);
        let reader: Box<dyn Read + Send> = if is_gzip {
            Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(128 << 10, whole)))
        } else if is_zstd {
            Box::new(zstd::Decoder::new(whole).map_err(fail)?)
        } else {
            Box::new(whole)
        };
        Ok((reader, account))
    }

    fn into_reader(self) -> (String, Box<dyn Read + Send>) {
        let inner: Box<dyn Read + Send> = match self.input {
            Input::File(file) => Box::new(FromStart { file, at: 0 }),
            Input::Stream(stream) => stream,
        };
        let pipe = self.size.is_none();
        match self.stop {
            Some(stop) => (self.name, Box::new(Stoppable { inner, stop, pipe })),
            None => (self.name, inner),
        }
    }
}

/// The longest header of a Zstandard frame.
const FRAME_HEADER: usize = 18;

/// Whether a file that begins so is in Zstandard; it may begin with a skippable frame. A file that is cut off within
/// its first header is told by its magic number.
fn is_zstd(begin: &[u8]) -> bool {
    begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || zstd::zstd_safe::get_frame_content_size(begin).is_ok()
}

/// A reader of a file with a read position of its own.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A stream that copies the bytes read from it into a file.
struct Kept {
    stream: Box<dyn Read + Send>,
    copy: Arc<File>,
}

impl Read for Kept {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        (&*self.copy).write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// The pause at the end of a pipe, in which a Ctrl-C that ended its writer arrives here, too.
const PAUSE_AT_END: Duration = Duration::from_millis(20);

/// A reader that fails as soon as `stop` is set.
struct Stoppable {
    inner: Box<dyn Read + Send>,
    stop: Arc<AtomicBool>,
    pipe: bool,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read == 0 && self.pipe && !buffer.is_empty() {
            std::thread::sleep(PAUSE_AT_END);
        }
        if self.stop.load(Ordering::Acquire) {
            return Err(io::Error::other("reading was interrupted"));
        }
        Ok(read)
    }
}

/// The digest and the size of the bytes read so far, as delivered.
#[derive(Default)]
pub struct Account {
    digest: Mutex<Sha256>,
    bytes: AtomicU64,
}

impl Account {
    /// The number of bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The SHA-256 of the bytes read so far.
    pub fn sha256(&self) -> [u8; 32] {
        lock(&self.digest).clone().finalize().into()
    }
}

/// A reader that keeps an account of its bytes.
struct Accounted {
    inner: Box<dyn Read + Send>,
    account: Arc<Account>,
}

impl Read for Accounted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        lock(&self.account.digest).update(&buffer[..read]);
        self.account.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A reader that tells how many bytes of the file as delivered have been read.
pub(crate) struct Told<'a, R> {
    pub inner: R,
    pub account: &'a Account,
    pub progress: &'a dyn Fn(u64),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        (self.progress)(self.account.bytes());
        Ok(read)
    }
}
