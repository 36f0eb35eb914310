//! What is wrong with the exchange's settings, and what can hardly be meant.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sporlog_exchange::Settings;
use sporlog_exchange::server::public_key;
use sporlog_exchange::settings::{Account, Limits, Role};
use sporlog_exchange::tree::Home;
use sporlog_record::Kind;

use super::{FOR_OTHERS, Remarks, folder_of, kind_of, others_may, unwritable};
use crate::config::Config;

/// A file of the format's full size takes days at less than this.
const SLOW: u32 = 16 << 10;

/// Errors and warnings about `[sftp]`.
pub(super) fn lint(config: &Config, remarks: &mut Remarks) {
    let Some(sftp) = &config.sftp else { return };
    if let Some((account, text)) = sftp.problem() {
        // The rest builds on names that can be told apart.
        return remarks.error(&account.map_or_else(|| "sftp".to_owned(), account_key), text);
    }
    if sftp.listen == config.server.listen && sftp.listen.port() != 0 {
        remarks.error("sftp.listen", "this is where HTTP is listened for (server.listen)");
    }
    log(config, sftp, remarks);
    host_keys(sftp, remarks);
    folders(config, sftp, remarks);
    limits("sftp.limits", &sftp.limits, remarks);
    if config.rules().is_ok_and(|rules| sftp.limits.file_bytes > rules.revision.max_file_bytes) {
        remarks.warn("sftp.limits.file_bytes", "rules.revision.max_file_bytes is less, and counts");
    }
    if sftp.settle_seconds == Some(0) {
        remarks.warn("sftp.settle_seconds", "a file may be taken while its sender means to go on with it");
    }
    if sftp.overlap_days == 0 {
        remarks.warn("sftp.overlap_days", "rows are not compared with any that came before");
    }
    accounts(sftp, remarks);
}

fn account_key(at: usize) -> String {
    format!("sftp.account.{at}")
}

/// The log has to be one of revision logs.
fn log(config: &Config, sftp: &Settings, remarks: &mut Remarks) {
    let own = [sporlog_intake::access_event::LOG, sporlog_intake::quarantine::LOG];
    if own.contains(&sftp.log.as_str()) {
        return remarks.error("sftp.log", "this log is Sporlog's own");
    }
    if let Some(kind) = kind_of(config, &sftp.log).filter(|kind| *kind != Kind::Revision) {
        remarks.error("sftp.log", format!("this log is for {kind} records"));
    }
}

fn host_keys(sftp: &Settings, remarks: &mut Remarks) {
    for (at, file) in sftp.host_keys.iter().enumerate() {
        let key = format!("sftp.host_keys.{at}");
        if let Err(error) = std::fs::File::open(file) {
            remarks.error(&key, format!("{}: {error}", file.display()));
        } else if others_may(FOR_OTHERS, file) {
            remarks.error(&key, "others may read this private key, and pass for this server (chmod 600)");
        }
    }
}

/// Where the exchange's folder and the homes are: there is one, it can be written to, and nobody looks
/// into another's.
fn folders(config: &Config, sftp: &Settings, remarks: &mut Remarks) {
    let root = match sftp.root(folder_of(&config.store()).as_deref()) {
        Ok(root) => root,
        Err(error) => return remarks.error("sftp.root", error.to_string()),
    };
    if let Some(reason) = unwritable(&root) {
        remarks.warn("sftp.root", reason);
    }
    let homes: Vec<PathBuf> = sftp.accounts.iter().map(|account| home(&root, account)).collect();
    for (at, home) in homes.iter().enumerate() {
        let key = format!("{}.home", account_key(at));
        // Under another server the home itself may well be somebody else's.
        let inside = Home::new(home.clone());
        let served = sftp
            .accounts
            .get(at)
            .filter(|account| account.home.is_some())
            .map(|account| if account.is_supplier() { inside.inbox() } else { inside.outbox() });
        if let Some(reason) =
            served.and_then(|served| unwritable(&served).or_else(|| unwritable(&inside.scratch())))
        {
            remarks.warn(&key, reason);
        }
        let within = |other: &Path| home.starts_with(other) || other.starts_with(home);
        if let Some(other) = homes.iter().take(at).position(|other| within(other)) {
            let other = sftp.accounts.get(other).map_or("", |account| &account.name);
            remarks.error(&key, format!("it is the folder of '{other}', too, or one lies in the other"));
        }
    }
}

/// As it is compared with others: some are relative to the file, and some to where we run.
fn home(root: &Path, account: &Account) -> PathBuf {
    let home = Home::of(root, account);
    std::path::absolute(home.path()).unwrap_or_else(|_| home.path().to_owned())
}

/// Limits under which nothing can be done, or which hardly limit anything.
fn limits(key: &str, limits: &Limits, remarks: &mut Remarks) {
    let mut none = |name: &str, is_none: bool| {
        if is_none {
            remarks.warn(&format!("{key}.{name}"), "with none, nothing can be delivered or fetched");
        }
    };
    none("file_bytes", limits.file_bytes == 0);
    none("files", limits.files == 0);
    none("sessions", limits.sessions == 0);
    none("connections", limits.connections == 0);
    none("idle_seconds", limits.idle_seconds == 0);
    if limits.bytes_per_second.is_some_and(|rate| rate < SLOW) {
        remarks.warn(&format!("{key}.bytes_per_second"), "at this rate a file of 2 GB takes more than a day");
    }
    if limits.sessions > limits.connections {
        remarks.warn(&format!("{key}.sessions"), "connections is less, and counts");
    }
}

fn accounts(sftp: &Settings, remarks: &mut Remarks) {
    if sftp.accounts.is_empty() {
        return remarks.warn("sftp", "there is no [[sftp.account]], so nobody takes part");
    }
    // Where another server serves the folders, it has the keys, and there are none here; the homes are said.
    let any_keys = sftp.accounts.iter().any(|account| !account.keys.is_empty());
    if !any_keys && sftp.accounts.iter().any(|account| account.home.is_none()) {
        remarks.warn(
            "sftp.account",
            "no account has keys: nobody can sign in to `sporlog serve` (with `sporlog exchange`, the server \
             that serves the folders has them)",
        );
    }
    let (mut keys, mut numbers) = (HashMap::new(), HashMap::new());
    for (at, account) in sftp.accounts.iter().enumerate() {
        let name = account.name.as_str();
        let at = account_key(at);
        if any_keys && account.keys.is_empty() {
            remarks.warn(&at, format!("nobody can sign in as '{name}': it has no keys"));
        }
        for (number, line) in account.keys.iter().enumerate() {
            let key = format!("{at}.keys.{number}");
            match public_key(line) {
                Err(text) => remarks.error(&key, text),
                Ok(blob) => {
                    if let Some(other) = keys.insert(blob, name) {
                        remarks.warn(&key, format!("'{other}' has the same key"));
                    }
                }
            }
        }
        for cvr in &account.cvr {
            if let Some(other) = numbers.insert(cvr, name) {
                remarks.warn(&format!("{at}.cvr"), format!("'{other}' gets the rows of {cvr}, too"));
            }
        }
        without_effect(&at, account, remarks);
        own_limits(&at, account, &sftp.limits, remarks);
    }
}

/// Settings that are for the other role.
fn without_effect(at: &str, account: &Account, remarks: &mut Remarks) {
    let (set, of): (&[_], _) = match account.role {
        Role::Supplier => (&[("delete_fetched", account.delete_fetched)], "municipalities"),
        Role::Municipality => (
            &[("encoding", account.encoding.is_some()), ("separator", account.separator.is_some())],
            "suppliers",
        ),
    };
    for (name, _) in set.iter().filter(|(_, set)| *set) {
        remarks.warn(&format!("{at}.{name}"), format!("this is for {of}, and has no effect here"));
    }
}

/// Only what an account sets of its own.
fn own_limits(at: &str, account: &Account, general: &Limits, remarks: &mut Remarks) {
    let own = Limits {
        file_bytes: account.file_bytes.unwrap_or(1),
        files: account.files.unwrap_or(1),
        sessions: account.sessions.unwrap_or(1),
        bytes_per_second: account.bytes_per_second,
        connections: general.connections.max(1),
        ..Limits::default()
    };
    limits(at, &own, remarks);
}
