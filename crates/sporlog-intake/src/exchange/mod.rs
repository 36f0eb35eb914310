//! The revision exchange: IT systems deliver their logs as CSV, municipalities fetch theirs.
//!
//! ```text
//! supplier ── sftp ─► <home>/ind ─► taken ─► the log, as one commit ─► <home>/kvittering
//! the log ─► each night, a municipality's rows of a day ─► <home>/ud/<yyyy-mm> ── sftp ─► municipality
//! ```
//!
//! The folders are served by our own [`server`], or by OpenSSH or any other; what is done with the
//! files in them is the same.
//!
//! | module | idea |
//! |---|---|
//! | [`settings`] | what may be set: `[sftp]` and its accounts |
//! | [`tree`] | an account's folders |
//! | [`name`] | files' names: which are still being written, and what their receipts are called |
//! | [`inbox`] | all suppliers' inboxes, attended to |
//! | `announced` | what our server tells the inbox |
//! | `settling` | which files of an inbox are complete |
//! | `claim` | a delivery that has been taken out of the inbox, and what a kill leaves of it |
//! | [`receipt`] | what became of a delivery |
//! | [`growth`] | a large file that is read while it is still being uploaded |
//! | `stage` | what a delivery comes to, before anything of it is visible |
//! | `take` | a claimed delivery into the log, and its receipt out |
//! | `abandoned` | uploads that nobody went on with |
//! | `answer` | the receipts, where the supplier finds them |
//! | [`overlap`] | which rows of a delivery came before |
//! | [`server`] | the folders, served over SFTP |
//! | [`register`] | all deliveries, for those who watch them |
//! | [`watch`] | who has delivered, who is late, and whose deliveries are of unusual size |
//! | [`collection`] | each municipality's rows of a day, as files in its outbox |
//! | [`client`] | other servers: files fetched from them, or delivered to them |

mod abandoned;
mod announced;
mod answer;
mod claim;
pub mod client;
pub mod collection;
pub mod growth;
pub mod inbox;
pub mod name;
pub mod overlap;
pub mod receipt;
pub mod register;
pub mod server;
pub mod settings;
mod settling;
mod stage;
mod take;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod watch;

/// What in the exchange's folder cannot be made anew: the register, and which days have been collected.
pub const LASTING: [&str; 2] = ["deliveries", "collected"];
/// The SFTP server's host key, unless the configuration names others.
pub const HOST_KEY_FILES: [&str; 2] = ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"];

pub use receipt::Receipt;
pub use register::Register;
pub use settings::{Account, Role, Settings};
