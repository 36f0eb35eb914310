//! Waiting for the receipt that a Sporlog server writes for a delivery, `<file>.kvittering.json`.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use chrono::Utc;
use russh_sftp::protocol::OpenFlags;

use super::address::join;
use super::connection::{Connection, FileInfo};
use super::error::Result;
use super::journal::{Journal, Line};
use super::link::Link;
use super::{Item, Outcome, Watch};
use crate::name::receipt_stem;
use crate::receipt::{self, Receipt};

/// The pauses between two looks for receipts, of which each is twice the one before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The largest receipt that is read.
const LARGEST: u64 = 64 << 20;

/// A file that the server has, whose receipt is waited for.
pub(super) struct Awaited {
    pub item: Item,
    /// The receipt that was there before the file was sent: it is about another delivery.
    pub before: Option<FileInfo>,
    /// Where it is written down that the receipt has been reported; `None` if it has been by an earlier run.
    pub journal: Option<Journal>,
}

/// The path of the receipt of the file `name`.
pub(super) fn path(folder: &str, name: &str) -> String {
    join(folder, &format!("{}.json", receipt_stem(OsStr::new(name))))
}

/// Reports each file to `watch` when its receipt is there, and the others after `at_most`. The journal then has that the
/// receipt was reported: a later run does not do so again.
pub(super) async fn wait(
    link: &mut Link<'_>,
    folder: &str,
    at_most: Duration,
    mut awaited: Vec<Awaited>,
    watch: &dyn Watch,
) -> Result<()> {
    let (started, mut pause) = (Instant::now(), SHORTEST_PAUSE);
    loop {
        let mut without = Vec::new();
        for Awaited { mut item, before, journal } in awaited {
            match find(link, folder, &item, before).await? {
                Some(receipt) => {
                    match receipt.outcome {
                        receipt::Outcome::Refused => item.outcome = Outcome::Refused,
                        _ if receipt.quarantined > 0 => item.outcome = Outcome::Differs,
                        _ => {}
                    }
                    let delivery = receipt.delivery.clone();
                    item.receipt = Some(Box::new(receipt));
                    watch.done(&item);
                    // After a kill before this, the receipt is reported again.
                    if let Some(journal) = journal
                        && let Some(line) = journal.of(&item.remote)
                    {
                        journal.append(Line { at: Utc::now(), receipt: delivery, ..line }).await?;
                    }
                }
                None => without.push(Awaited { item, before, journal }),
            }
        }
        awaited = without;
        if awaited.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= at_most {
            for Awaited { mut item, .. } in awaited {
                item.outcome = Outcome::Failed;
                let seconds = at_most.as_secs();
                item.remark(&format!("the server has the file, but no receipt came within {seconds} s"));
                watch.done(&item);
            }
            return Ok(());
        }
        link.pause(pause.min(at_most)).await?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn find(
    link: &mut Link<'_>,
    folder: &str,
    item: &Item,
    before: Option<FileInfo>,
) -> Result<Option<Receipt>> {
    let path = path(folder, item.remote.rsplit('/').next().unwrap_or_default());
    let found = link.with(async |connection| {
        let Some(info) = connection.find(&path).await? else { return Ok(None) };
        if (item.outcome == Outcome::Sent && Some(info) == before) || info.size > LARGEST {
            return Ok(None);
        }
        match read(connection, &path, info.size).await {
            Err(error) if error.is_absent() => Ok(None),
            read => read.map(Some),
        }
    });
    let Some(bytes) = found.await? else { return Ok(None) };
    let receipt = serde_json::from_slice::<Receipt>(&bytes).ok();
    Ok(receipt.filter(|receipt| receipt.sha256.is_empty() || receipt.sha256 == item.sha256))
}

async fn read(connection: &Connection, path: &str, size: u64) -> Result<Vec<u8>> {
    let file = connection.open_file(path, OpenFlags::READ).await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let length = (size - bytes.len() as u64).min(u64::from(connection.chunk)) as u32;
        let more = connection.in_time(file.read(bytes.len() as u64, length)).await??;
        if more.is_empty() {
            break;
        }
        bytes.extend_from_slice(&more);
    }
    file.close().await?;
    Ok(bytes)
}
