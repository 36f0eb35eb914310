//! The register of deliveries: a file for each supplier, with a line of JSON for each delivery.
//!
//! A line is durable before the delivery's claim is removed. A crash can leave an incomplete last line, which
//! readers skip and the next writer removes; or a second line of the same delivery, which readers skip.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::receipt::Receipt;
use sporlog_intake::durable::{make_folder, sync_folder};

/// The register's folder in the folder of the exchange.
const FOLDER: &str = "deliveries";

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

    /// Adds a delivery; durable when this returns. Only one process at a time may do so.
    pub fn add(&self, receipt: &Receipt) -> io::Result<()> {
        let path = self.path(&receipt.account);
        let is_new = !path.exists();
        if is_new {
            make_folder(&self.folder)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        drop_torn_line(&mut file)?;
        let mut line = serde_json::to_vec(&receipt.brief())?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()?;
        if is_new { sync_folder(&self.folder) } else { Ok(()) }
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
    pub fn each(&self, account: &str, mut look: impl FnMut(Receipt)) -> io::Result<()> {
        let file = match File::open(self.path(account)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        for line in BufReader::new(file).split(b'\n') {
            if let Ok(receipt) = serde_json::from_slice::<Receipt>(&line?) {
                look(receipt);
            }
        }
        Ok(())
    }

    /// The accounts that have deliveries in the register, sorted.
    pub fn accounts(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
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

/// Truncates the file after its last complete line.
fn drop_torn_line(file: &mut File) -> io::Result<()> {
    const STEP: u64 = 64 << 10;
    let end = file.metadata()?.len();
    let mut from = end;
    let mut block = Vec::new();
    while from > 0 {
        let start = from.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file).take(from - start).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            let whole = start + at as u64 + 1;
            return if whole == end { Ok(()) } else { file.set_len(whole) };
        }
        from = start;
    }
    file.set_len(0)
}
