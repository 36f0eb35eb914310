//! The revision exchange: IT systems deliver their logs as CSV, municipalities fetch theirs.
//!
//! ```text
//! supplier ── sftp ─► <home>/ind ─► claimed ─► the log, as one commit ─► <home>/kvittering
//! the log ─► each night, a municipality's rows of a day ─► <home>/ud/<yyyy-mm> ── sftp ─► municipality
//! ```
//!
//! The folders are served by our own [`server`], or by OpenSSH or another server. What happens to the files in
//! them is the same.
//!
//! | module | idea |
//! |---|---|
//! | [`settings`] | the configuration section `[sftp]` and its accounts |
//! | [`tree`] | the folders of an account |
//! | [`name`] | file names: which are temporary, and what a file's receipts are called |
//! | [`inbox`] | suppliers' files: detected, claimed, taken into the log, answered |
//! | [`receipt`] | what became of a delivery |
//! | `json_lines` | files of JSON lines that only grow |
//! | [`register`] | all deliveries, a line for each |
//! | [`server`] | the folders, served over SFTP |
//! | [`monitor`] | who has delivered, who is late, and whose deliveries are of unusual size |
//! | [`collection`] | each municipality's rows of a day, as files in its outbox |
//! | [`client`] | other servers: files fetched from them, or delivered to them |
#![forbid(unsafe_code)]

pub mod client;
pub mod collection;
pub mod inbox;
mod json_lines;
pub mod monitor;
pub mod name;
pub mod receipt;
pub mod register;
pub mod server;
pub mod settings;
pub mod tree;

/// What in the exchange's folder cannot be made anew: the register, and which days have been collected.
pub const LASTING: [&str; 2] = ["deliveries", "collected"];
/// The SFTP server's host key, unless the configuration names others.
pub const HOST_KEY_FILES: [&str; 2] = ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"];

pub use receipt::Receipt;
pub use register::Register;
pub use settings::{Account, LiveSettings, Role, Settings};
