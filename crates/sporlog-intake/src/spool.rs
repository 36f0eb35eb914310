//! A file that arrives over a network, on disk until all of it has arrived.
//!
//! A bulk append holds its log, so a file is imported only after its last byte has arrived: a slow sender
//! holds up nobody, and nothing is stored of a transfer that is cut off. The spool is a file without a
//! name: it is gone with its last handle, also when the process is killed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, BufWriter};

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::source::Source;

/// How many bytes are written to the disk at a time.
const PART: usize = 1 << 20;

/// A file that is arriving.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<tokio::fs::File>,
    bytes: u64,
}

/// A file that has arrived.
#[derive(Debug, Clone)]
pub struct Spooled {
    file: Arc<File>,
    bytes: u64,
}

impl Spool {
    /// An empty spool in `folder`, or else in the system's folder for temporary files.
    pub async fn begin(folder: Option<&Path>) -> io::Result<Self> {
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
        let file = blocking(move || tempfile::tempfile_in(folder)).await?;
        Ok(Spool { file: BufWriter::with_capacity(PART, file.into()), bytes: 0 })
    }

    /// Adds bytes that have arrived.
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes += piece.len() as u64;
        self.file.write_all(piece).await
    }

    /// How many bytes have arrived.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the spool: all of the file has arrived.
    pub async fn finish(mut self) -> io::Result<Spooled> {
        self.file.flush().await?;
        Ok(Spooled { file: Arc::new(self.file.into_inner().into_std().await), bytes: self.bytes })
    }
}

impl Spooled {
    /// The size of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file from its beginning, under `name`, which may not name a folder. Can be called several times.
    pub fn source(&self, name: &str) -> Result<Source> {
        if Path::new(name).file_name() != Some(name.as_ref()) || name.contains('\0') {
            let source =
                io::Error::new(io::ErrorKind::InvalidInput, "a file's name is expected, without a folder");
            return Err(Error::Read { name: name.to_owned(), source });
        }
        Source::file(name, self.file.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn listing(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    async fn spooled(folder: &Path, pieces: &[&[u8]]) -> Spooled {
        let mut spool = Spool::begin(Some(folder)).await.unwrap();
        for piece in pieces {
            spool.write(piece).await.unwrap();
            // At no time is there a name: a kill leaves nothing behind.
            assert_eq!(listing(folder), 0);
        }
        spool.finish().await.unwrap()
    }

    fn read(source: Source) -> Vec<u8> {
        let mut bytes = Vec::new();
        source.unpack().unwrap().0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let large = vec![b'x'; PART + 7];
        let spooled = spooled(folder.path(), &[b"a", &large, b"", b"z"]).await;
        assert_eq!(spooled.bytes(), large.len() as u64 + 2);
        let first = spooled.source("day.csv").unwrap();
        let second = spooled.source("day.csv").unwrap();
        assert_eq!((first.name(), first.size()), ("day.csv", Some(spooled.bytes())));
        let whole = [b"a", &large[..], b"z"].concat();
        assert!(read(first) == whole && read(second) == whole);
        assert_eq!(listing(folder.path()), 0);
    }

    #[tokio::test]
    async fn an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let spooled = spooled(folder.path(), &[]).await;
        assert_eq!(read(spooled.source("-").unwrap()), b"");
    }

    #[tokio::test]
    async fn names_are_names_alone() {
        let folder = tempfile::tempdir().unwrap();
        let spooled = spooled(folder.path(), &[b"x"]).await;
        for name in ["", ".", "..", "a/b", "/etc/passwd", "../x", "a/", "a\0b"] {
            assert!(spooled.source(name).is_err(), "{name:?}");
        }
        assert_eq!(listing(folder.path()), 0);
    }

    #[tokio::test]
    async fn without_a_folder_it_fails() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Spool::begin(Some(&folder.path().join("none"))).await.is_err());
    }
}
