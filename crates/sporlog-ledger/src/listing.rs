//! Which data files a log's table has at the moment, for programs that read them without Delta Lake.

use serde::Serialize;

use crate::log::Log;

/// A data file of a log's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedFile {
    /// The file's path on this machine, or its URL.
    pub path: String,
    /// The id of its first record.
    pub first_id: u64,
    /// The id of its last record.
    pub last_id: u64,
    /// How many records it holds.
    pub rows: u64,
    /// The file's size in bytes.
    pub bytes: u64,
}

impl Log {
    /// The data files, in the order of their ids. Together they hold each record once that the table has; the journal
    /// has the newest ([`Writer::flush`](crate::Writer::flush)). The folder has more:
    /// files that housekeeping has replaced stay for a while, for those who are reading them.
    pub fn data_files(&self) -> Vec<ListedFile> {
        let state = self.state();
        let listed = state.files.iter().map(|file| ListedFile {
            path: self.shared.storage.location(&file.name()),
            first_id: file.first,
            last_id: file.last,
            rows: file.rows(),
            bytes: file.size,
        });
        listed.collect()
    }
}
