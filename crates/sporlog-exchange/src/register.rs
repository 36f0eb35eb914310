//! The register of deliveries: a file for each supplier, and one for all that came by HTTP, with a line of JSON for
//! each delivery.
//!
//! A line is durable before the delivery's claim is removed. A crash can leave a second line of the same delivery,
//! which readers skip.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sporlog_ledger::local_files::{found, make_folder};

use super::json_lines;
use super::receipt::Receipt;

/// The register's folder in the folder of the exchange.
const FOLDER: &str = "deliveries";

/// Begins the account of a delivery by HTTP; the sender's name follows. No account of the exchange is called so.
pub const BY_HTTP: &str = "http:";
/// Stands for the accounts of all deliveries by HTTP: their names would not all do as a file's.
pub(crate) const HTTP_FILE: &str = "@http";

/// The register. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Register {
    folder: PathBuf,
}

impl Register {
    /// The register of the exchange in the folder `root`. Its folder is made with the first delivery.
    pub fn new(root: &Path) -> Self {
        Register { folder: root.join(FOLDER) }
    }

    /// Adds a delivery; durable when this returns. Processes that add to one file take turns, where the file system can
    /// lock files.
    pub fn add(&self, receipt: &Receipt) -> io::Result<()> {
        let by_http = receipt.account.starts_with(BY_HTTP);
        let path = self.path(if by_http { HTTP_FILE } else { &receipt.account });
        if !path.exists() {
            make_folder(&self.folder)?;
        }
        let mut file = json_lines::open(&path, 0o600)?;
        let _ = file.lock();
        json_lines::append(&mut file, &receipt.brief())
    }

    /// A supplier's deliveries, oldest first.
    pub fn of(&self, account: &str) -> io::Result<Vec<Receipt>> {
        let mut seen = HashSet::new();
        let mut deliveries = Vec::new();
        self.each(account, |receipt| {
            if seen.insert(receipt.delivery.clone()) {
                deliveries.push(receipt);
            }
        })?;
        Ok(deliveries)
    }

    /// Calls `look` with each of a supplier's deliveries, oldest first; a delivery may come twice.
    pub fn each(&self, account: &str, look: impl FnMut(Receipt)) -> io::Result<()> {
        json_lines::read(&self.path(account), look)
    }

    /// The accounts that have deliveries in the register, sorted.
    pub fn accounts(&self) -> io::Result<Vec<String>> {
        let Some(entries) = found(fs::read_dir(&self.folder))? else { return Ok(Vec::new()) };
        let mut accounts = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            accounts.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")).map(str::to_owned));
        }
        accounts.sort();
        Ok(accounts)
    }

    fn path(&self, account: &str) -> PathBuf {
        self.folder.join(format!("{account}.jsonl"))
    }
}
