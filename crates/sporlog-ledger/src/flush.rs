//! Records in memory become a data file; and those of the journal a change of the table that takes its frames over.

use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::commit::Change;
use crate::datafile;
use crate::delta::{DataFile, names_of};
use crate::error::{Error, Result};
use crate::keyindex::{self, Postings};
use crate::log::Shared;
use crate::recent::{RecentRows, times_of};
use crate::table_state::{Positions, TableState};
use crate::times::Times;

/// A permit for each processor. More files at once would not be done earlier, and each takes memory while it is made.
static WRITING: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Writes these neighbouring records as a data file, and its key index if they are many.
pub(crate) async fn write_file(shared: &Shared, records: &[Arc<RecentRows>]) -> Result<DataFile> {
    let ([oldest, ..], Times { occurred, received: Some(received) }) = (records, times_of(records)) else {
        return Err(Error::failed(&shared.name, "there is nothing to write"));
    };
    let _permit = WRITING.acquire().await;
    let batches: Vec<_> = records.iter().map(|part| &part.rows).collect();
    let bytes = datafile::encode(shared.kind, &batches).map_err(Error::parquet("a new data file"))?;
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let mut file = DataFile::new(oldest.first, oldest.first + rows as u64 - 1, received.0);
    (file.occurred, file.received) = (occurred, received);
    (file.size, file.sha256) = (bytes.len() as u64, Sha256::digest(&bytes).into());
    let write = async {
        if file.rows() >= keyindex::MIN_ROWS {
            let mut postings = Postings::default();
            for part in records {
                postings.append(Postings::of(shared.kind, &part.rows), (part.first - oldest.first) as u32);
            }
            keyindex::write(&shared.storage, shared.kind, &mut file, postings).await?;
        }
        shared.storage.put_unknown(&file.name(), bytes).await
    };
    let written = write.await;
    if let Err(error) = written {
        let _ = shared.storage.remove(names_of([&file])).await;
        return Err(error);
    }
    Ok(file)
}

/// The change that takes over all frames of the journal: their `positions`, and their records. The oldest of these are in
/// the files `added`; the others are written here.
pub(crate) async fn take_over(
    shared: &Shared,
    state: &TableState,
    positions: &Positions,
    added: Vec<DataFile>,
) -> Result<Change> {
    let recent = &state.recent;
    let rest = recent.after(added.last().map_or(0, |file| file.last));
    let mut change = Change {
        added,
        journal: recent.taken_over(),
        positions: positions.iter().map(|(app, position)| (app.clone(), *position)).collect(),
        appended: Some((state.size, state.root)),
        ..Change::default()
    };
    if !rest.is_empty() {
        change.added.push(write_file(shared, &rest).await?);
    }
    Ok(change)
}
