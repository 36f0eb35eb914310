//! What `sporlog backup` and `sporlog restore` take.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::examples;

/// Copy all logs to a folder, while they are written to.
///
/// The copy is one of a state that each log had while this ran. Run again, it copies only what is new, and
/// removes what `expire` has removed. It may be killed at any moment: run it again. Appending, compacting and
/// expiring go on meanwhile. At the end each copy is verified; problems are printed as `sporlog verify` prints
/// them, and the exit code is 1.
///
/// With the logs go the register of deliveries and what says which days have been collected. The keys do
/// not, unless --with-keys says so: without them, a restored log can be read, verified and not appended to.
/// The folder can be read like a store (`sporlog verify LOG --store DEST`), and nobody appends to it by mistake.
/// As a backup holds all records, making one is recorded in the log `access`.
#[derive(Debug, Args)]
#[command(after_help = examples::BACKUP)]
pub struct BackupArgs {
    /// The folder of the backup, made if it is not there; best on another machine's disk
    #[arg(value_name = "DEST", value_hint = ValueHint::DirPath)]
    pub dest: PathBuf,
    /// Copy the keys, too: the logs' keys, apikeys.json and the SFTP server's host key. Whoever has them can
    /// sign in this store's name
    #[arg(long)]
    pub with_keys: bool,
}

/// Make a store from a backup, or go on with a log whose newest records are lost.
///
/// `restore BACKUP --store NEW` says how far the backup goes for each log, copies the logs, verifies them, and
/// leaves a store that can be appended to if it has the keys: those of the backup, or those that lie in the
/// key folder already. It may be killed at any moment: run it again. A log that is in the store already
/// is not touched, and is an error.
///
/// `restore --in-place LOG` is for a log that ends before its own checkpoint, or before what its key is known to
/// have signed: an older copy of its files was put in the place of newer ones. Every other command refuses such a
/// log. This one gives up the records that are missing, so that the log goes on from where it ends.
///
/// If the key is known to have signed more than is there, a signed commit in the log says from where to where
/// it was rolled back, and the log `access` says who did it: whoever kept a newer checkpoint will find that the log has
/// shrunk.
#[derive(Debug, Args)]
#[command(after_help = examples::RESTORE)]
pub struct RestoreArgs {
    /// The folder of the backup
    #[arg(value_name = "BACKUP", required_unless_present = "in_place", value_hint = ValueHint::DirPath)]
    pub backup: Option<PathBuf>,
    /// Restore nothing if the backup is older than this checkpoint, or is not of the same log; again for the
    /// checkpoints of more logs
    #[arg(long, value_name = "CHECKPOINT", value_hint = ValueHint::FilePath)]
    pub since: Vec<PathBuf>,
    /// Go on with this log from where it ends
    #[arg(long, value_name = "LOG", conflicts_with_all = ["backup", "since"])]
    pub in_place: Option<String>,
    /// Only say how far the backup goes, or which records would be given up
    #[arg(short = 'N', long)]
    pub dry_run: bool,
}
