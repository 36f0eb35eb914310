//! Tiles that wait for their commit.
//!
//! A bulk append finishes thousands of tiles before it is committed, and until then they must not
//! lie in the transparency log: if another writer is there first, the tiles of these names are
//! others. So they wait in a file without a name, which is gone with the process. A few are kept
//! in memory.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::local_files::private_file;
use crate::storage::Storage;
use crate::tree::TileFile;

/// Tiles that are written together.
const TILES: usize = 256;
/// Tiles that are read back together, some 16 MB. In a bucket they are put side by side, and nothing else is put before the last of
/// them is there.
const TILES_BACK: usize = 2_048;

/// Tiles in the order in which they were finished.
#[derive(Debug, Default)]
pub(crate) struct TileSpool {
    /// The names and sizes of those in the file.
    written: Vec<(String, usize)>,
    file: Option<File>,
    /// The tiles that are not in the file.
    waiting: Vec<TileFile>,
}

impl TileSpool {
    pub(crate) fn push(&mut self, tile: TileFile) {
        self.waiting.push(tile);
    }

    /// Writes what has been pushed to the file if it is more than a few tiles.
    pub(crate) fn relieve(&mut self, storage: &Storage) -> Result<()> {
        if self.waiting.len() < TILES {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(nameless(storage).map_err(failed)?),
        };
        let bytes: Vec<_> = self.waiting.iter().map(|(_, bytes)| &bytes[..]).collect();
        file.write_all(&bytes.concat()).map_err(failed)?;
        self.written.extend(self.waiting.drain(..).map(|(name, bytes)| (name, bytes.len())));
        Ok(())
    }

    /// Gives all tiles back, some at a time.
    pub(crate) fn read(self, mut give: impl FnMut(Vec<TileFile>)) -> Result<()> {
        if let Some(mut file) = self.file {
            file.rewind().map_err(failed)?;
            let mut file = BufReader::with_capacity(1 << 20, file);
            for written in self.written.chunks(TILES_BACK) {
                let mut tiles = Vec::with_capacity(written.len());
                for (name, size) in written {
                    let mut bytes = vec![0; *size];
                    file.read_exact(&mut bytes).map_err(failed)?;
                    tiles.push((name.clone(), Bytes::from(bytes)));
                }
                give(tiles);
            }
        }
        give(self.waiting);
        Ok(())
    }
}

/// A file that has lost its name already; beside the log's files, if they lie on a disk.
fn nameless(storage: &Storage) -> std::io::Result<File> {
    let dir = storage.directory().unwrap_or_else(std::env::temp_dir);
    let path = dir.join(format!(".tmp-{}", uuid::Uuid::new_v4()));
    let file = private_file().read(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn failed(source: std::io::Error) -> Error {
    Error::Io { what: "keeping tiles until they are committed".into(), source }
}
