//! Collects a delivery's keys while its rows are staged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;

use super::key::Seeds;
use super::run::Draft;
use super::spill::{CHUNK_KEYS, Spill, Spilled};
use sporlog_intake::import::Rows;
use sporlog_intake::{Error, Result};

/// Collects the keys of all rows that [`prepare`](sporlog_intake::import::prepare) passes through it.
pub struct KeyCollector {
    folder: PathBuf,
    seeds: Seeds,
    collected: Mutex<Collected>,
}

#[derive(Default)]
struct Collected {
    /// Made with the first rows.
    spill: Option<std::sync::Arc<Spill>>,
    parts: BTreeMap<u64, usize>,
}

/// All keys of a delivery.
pub struct Keys {
    pub(super) spilled: Option<Spilled>,
    /// The number of rows of each part.
    pub(super) parts: BTreeMap<u64, usize>,
    /// The run of these keys, if the comparison has written it.
    pub(super) draft: Mutex<Option<Draft>>,
}

impl KeyCollector {
    pub(super) fn new(folder: PathBuf, seeds: Seeds) -> Self {
        KeyCollector { folder, seeds, collected: Mutex::default() }
    }

    /// The keys collected. Blocks.
    pub fn finish(&self) -> Result<Keys> {
        let Collected { spill, parts } =
            std::mem::take(&mut *self.collected.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Keys { spilled: spill.map(|spill| spill.finish()), parts, draft: Mutex::default() })
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Read { name: self.folder.display().to_string(), source }
    }
}

impl Keys {
    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.parts.values().map(|rows| *rows as u64).sum()
    }
}

impl Rows for KeyCollector {
    fn rows(&self, part: u64, rows: RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let spill = {
            let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
            collected.parts.insert(part, count);
            match &collected.spill {
                Some(spill) => spill.clone(),
                None if count == 0 => return Ok(rows),
                None => {
                    let begun = Spill::begin(&self.folder).map_err(|e| self.failed(e))?;
                    collected.spill.insert(begun.into()).clone()
                }
            }
        };
        let mut keys = Vec::new();
        for first in (0..count).step_by(CHUNK_KEYS) {
            keys.clear();
            self.seeds.keys(&rows, first..count.min(first + CHUNK_KEYS), &mut keys)?;
            spill.push(part, &keys).map_err(|e| self.failed(e))?;
        }
        Ok(rows)
    }
}
