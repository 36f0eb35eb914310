//! The folders of an account on disk.
//!
//! ```text
//! <home>/ind/            a supplier puts its files here
//! <home>/kvittering/     and finds the receipts here
//! <home>/ud/<yyyy-mm>/   a municipality finds its files here
//! <home>/.sporlog/       not served: incomplete uploads, claims, files being written, refused files
//! ```
//!
//! All of them have to be on one file system, because files are moved by renames.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::settings::{Account, Role};

/// The name of a supplier's inbox, on disk and over SFTP.
pub const INBOX: &str = "ind";
/// The name of the folder of a supplier's receipts.
pub const RECEIPTS: &str = "kvittering";
/// The name of the folder of a municipality's files.
pub const OUTBOX: &str = "ud";
/// The folder that is not served.
const OURS: &str = ".sporlog";

/// The folders of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Home(PathBuf);

impl Home {
    /// The folders under `path`.
    pub fn new(path: PathBuf) -> Self {
        Home(path)
    }

    /// An account's folders under the exchange's folder `root`, unless the account has its own.
    pub fn of(root: &Path, account: &Account) -> Self {
        Home(account.home.clone().unwrap_or_else(|| root.join("accounts").join(&account.name)))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a supplier's files lie until they are claimed.
    pub fn inbox(&self) -> PathBuf {
        self.0.join(INBOX)
    }

    /// Where a supplier's receipts lie.
    pub fn receipts(&self) -> PathBuf {
        self.0.join(RECEIPTS)
    }

    /// Where a municipality's files lie, in a folder for each month.
    pub fn outbox(&self) -> PathBuf {
        self.0.join(OUTBOX)
    }

    /// Where files lie while they are uploaded to our server.
    pub fn uploads(&self) -> PathBuf {
        self.0.join(OURS).join("uploads")
    }

    /// Where claims lie: a folder for each, named by the delivery's id.
    pub fn taken(&self) -> PathBuf {
        self.0.join(OURS).join("taken")
    }

    /// Where refused files are kept: a folder for each, named by the delivery's id.
    pub fn refused(&self) -> PathBuf {
        self.0.join(OURS).join("refused")
    }

    /// Where files are written until they are complete.
    pub fn scratch(&self) -> PathBuf {
        self.0.join(OURS).join("scratch")
    }

    /// Since when there is the folder that is not served: since Sporlog knows the account, even where its other
    /// folders are older.
    pub fn known_since(&self) -> Option<SystemTime> {
        let ours = self.0.join(OURS).metadata().ok()?;
        // Not every file system tells when a folder was made; what lies in this one is made at once.
        ours.created().or_else(|_| ours.modified()).ok()
    }

    /// Makes the folders that are missing. Served folders are open to the group, because another SFTP server may
    /// serve them; the others are not.
    pub fn create(&self, role: Role) -> io::Result<()> {
        let (shared, ours): (&[_], &[_]) = match role {
            Role::Supplier => (
                &[self.inbox(), self.receipts()],
                &[self.uploads(), self.taken(), self.refused(), self.scratch()],
            ),
            Role::Municipality => (&[self.outbox()], &[self.scratch()]),
        };
        // Another SFTP server has to get through it.
        DirBuilder::new().recursive(true).mode(0o755).create(&self.0)?;
        let make = |folders: &[PathBuf], mode| {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(mode);
            folders.iter().try_for_each(|folder| builder.create(folder))
        };
        make(&[self.0.join(OURS)], 0o700)?;
        make(shared, 0o770)?;
        make(ours, 0o700)
    }
}
