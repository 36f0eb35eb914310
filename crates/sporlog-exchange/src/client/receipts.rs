//! What a Sporlog server made of a delivery: the receipt that it lays beside, `<file>.kvittering.json`.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::address::join;
use super::connection::{Connection, Facts};
use super::error::Result;
use super::link::Link;
use super::{Item, Outcome, Watch};
use crate::name::receipt_stem;
use crate::receipt::{self, Receipt};

/// The pauses between two looks for receipts, of which each is twice the one before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The largest receipt that is read.
const LARGEST: u64 = 64 << 20;

/// The receipt of the name that was there before the file was sent.
pub(super) type Snapshot = Option<Facts>;

/// A delivered file without a receipt so far.
pub(super) struct Awaited {
    pub item: Item,
    pub snapshot: Snapshot,
}

/// Where receipts are found, and how long they are waited for.
pub(super) struct Receipts {
    folder: String,
    at_most: Duration,
}

impl Receipts {
    /// Those in a folder of the server.
    pub fn new(folder: String, at_most: Duration) -> Self {
        Receipts { folder, at_most }
    }

    /// The receipt that is there under the file's name.
    pub async fn look(&self, connection: &Connection, name: &str) -> Result<Snapshot> {
        connection.look(&self.path(name)).await
    }

    fn path(&self, name: &str) -> String {
        join(&self.folder, &format!("{}.json", receipt_stem(OsStr::new(name))))
    }

    /// Waits for the receipts, and tells of each file when its own is there, or when it is enough.
    pub async fn wait(
        &self,
        link: &mut Link<'_>,
        mut awaited: Vec<Awaited>,
        watch: &dyn Watch,
    ) -> Result<()> {
        let (started, mut pause) = (Instant::now(), SHORTEST_PAUSE);
        loop {
            let mut without = Vec::new();
            for Awaited { mut item, snapshot } in awaited {
                match self.find(link, &item, snapshot).await? {
                    Some(receipt) => {
                        answer(&mut item, receipt);
                        watch.done(&item);
                    }
                    None => without.push(Awaited { item, snapshot }),
                }
            }
            awaited = without;
            if awaited.is_empty() {
                return Ok(());
            }
            if started.elapsed() >= self.at_most {
                for Awaited { mut item, .. } in awaited {
                    item.outcome = Outcome::Failed;
                    item.remark(&format!(
                        "it is there, but no receipt came within {} s",
                        self.at_most.as_secs()
                    ));
                    watch.done(&item);
                }
                return Ok(());
            }
            link.pause_for(pause.min(self.at_most)).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn find(&self, link: &mut Link<'_>, item: &Item, snapshot: Snapshot) -> Result<Option<Receipt>> {
        let name = item.remote.rsplit('/').next().unwrap_or_default();
        let path = self.path(name);
        let found = link.with(async |connection| {
            let Some(facts) = connection.look(&path).await? else { return Ok(None) };
            // What was there before we sent the file is about another delivery.
            if (item.outcome == Outcome::Sent && Some(facts) == snapshot) || facts.size > LARGEST {
                return Ok(None);
            }
            match read(connection, &path, facts.size).await {
                Err(error) if error.is_absent() => Ok(None),
                read => read.map(Some),
            }
        });
        let Some(bytes) = found.await? else { return Ok(None) };
        let receipt = serde_json::from_slice::<Receipt>(&bytes).ok();
        Ok(receipt.filter(|receipt| receipt.sha256.is_empty() || receipt.sha256 == item.sha256))
    }
}

async fn read(connection: &Connection, path: &str, size: u64) -> Result<Vec<u8>> {
    let file = connection.read(path).await?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let length = (size - bytes.len() as u64).min(u64::from(connection.chunk())) as u32;
        let more = file.read(bytes.len() as u64, length).await?;
        if more.is_empty() {
            break;
        }
        bytes.extend_from_slice(&more);
    }
    file.close().await?;
    Ok(bytes)
}

/// Takes the receipt for what became of the file.
fn answer(item: &mut Item, receipt: Receipt) {
    match receipt.outcome {
        receipt::Outcome::Refused => item.outcome = Outcome::Refused,
        _ if receipt.quarantined > 0 => item.outcome = Outcome::Differs,
        _ => {}
    }
    item.receipt = Some(Box::new(receipt));
}
