//! Errors and warnings about settings that can be read: values that contradict each other, files that are missing
//! or that others may read, limits under which nothing can be done.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use sporlog_ledger::{Store, StoreOptions, is_log_name, matches};
use sporlog_record::Kind;
use sporlog_web::server::TlsSettings;

use crate::config::remark::{Remark, Severity};
use crate::config::{Config, PREFIX, SECTIONS};

mod exchange;

/// Anyone may read it.
const READ_BY_OTHERS: u32 = 0o004;
/// Anyone but the owner may do something with it.
const FOR_OTHERS: u32 = 0o077;

/// Errors and warnings about settings that can be read.
pub fn lint(config: &Config, file: Option<&Path>) -> Vec<Remark> {
    let mut remarks = Remarks::default();
    server(config, &mut remarks);
    issuers(config, &mut remarks);
    rules(config, &mut remarks);
    retention(config, &mut remarks);
    api(config, &mut remarks);
    pages(config, &mut remarks);
    store(config, &mut remarks);
    kafka(config, file, &mut remarks);
    pulls(config, &mut remarks);
    exchange::lint(config, &mut remarks);
    variables(&mut remarks);
    remarks.0
}

#[derive(Default)]
struct Remarks(Vec<Remark>);

impl Remarks {
    fn error(&mut self, key: &str, text: impl AsRef<str>) {
        self.0.push(Remark::new(Severity::Error, key, text.as_ref()));
    }

    fn warn(&mut self, key: &str, text: impl AsRef<str>) {
        self.0.push(Remark::new(Severity::Warning, key, text.as_ref()));
    }
}

fn server(config: &Config, remarks: &mut Remarks) {
    let server = &config.server;
    match &server.tls {
        Some(tls) => certificate(tls, remarks),
        None if !server.listen.ip().is_loopback() && server.trusted_proxies.is_empty() => remarks.warn(
            "server.listen",
            "what goes over the network from here is not encrypted: set [server.tls], or trusted_proxies if \
             a proxy does it",
        ),
        None => {}
    }
    if server.trusted_proxies.iter().any(|network| network.is_everything()) {
        remarks.warn("server.trusted_proxies", "whoever connects may say that it is anybody");
    }
    let files = getrlimit(Resource::Nofile).maximum;
    if files.is_some_and(|files| files < server.limits.connections as u64) {
        let text = format!("only {} files may be open at once here", files.unwrap_or_default());
        remarks.warn("server.limits.connections", text);
    }
}

fn certificate(tls: &TlsSettings, remarks: &mut Remarks) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    match runtime.map(|runtime| runtime.block_on(tls.check())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => remarks.error("server.tls", error.to_string()),
        Err(error) => remarks.error("server.tls", error.to_string()),
    }
    if others_may(READ_BY_OTHERS, &tls.key) {
        remarks.warn("server.tls.key", "everybody on this machine may read it (chmod 600, or 640)");
    }
}

fn issuers(config: &Config, remarks: &mut Remarks) {
    if let Err(error) = config.access.check() {
        remarks.error("access", error.to_string());
    }
    for (at, issuer) in config.access.issuer.iter().enumerate() {
        if issuer.allow_http {
            remarks.warn(
                &format!("access.issuer.{at}.allow_http"),
                "whoever can change what goes over that network can sign tokens",
            );
        }
    }
}

fn rules(config: &Config, remarks: &mut Remarks) {
    match config.rules() {
        Err(error) => remarks.error("consent_jwks", format!("{error:#}")),
        Ok(rules) => {
            for (key, limit) in [
                ("rules.max_record_bytes", rules.max_record_bytes as u64),
                ("rules.revision.max_columns", rules.revision.max_columns as u64),
                ("rules.revision.max_file_bytes", rules.revision.max_file_bytes),
            ] {
                if limit == 0 {
                    remarks.error(key, "it must be 1 or more");
                }
            }
        }
    }
}

/// A mistyped name would keep records for ever. Which logs a bucket has is not looked for.
fn retention(config: &Config, remarks: &mut Remarks) {
    if let Err(reason) = config.retention.check() {
        return remarks.error("retention", reason);
    }
    let Some(store) = folder_of(&config.store()) else { return };
    let entries = std::fs::read_dir(store.join("logs")).into_iter().flatten().flatten();
    let there = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let api = &config.api;
    let topics = config.kafka.iter().flat_map(|kafka| &kafka.topics);
    let known: Vec<String> = Kind::DELIVERED
        .map(|kind| kind.name().to_owned())
        .into_iter()
        .chain([sporlog_intake::access_event::LOG, sporlog_intake::quarantine::LOG].map(str::to_owned))
        .chain([&api.auditlog, &api.mfa, &api.disclosure, &api.revision].map(Clone::clone))
        .chain(config.logs.iter().map(|log| log.name.clone()))
        .chain(config.pulls.iter().map(|pull| pull.log.clone()))
        .chain(config.sftp.iter().map(|sftp| sftp.log.clone()))
        .chain(topics.map(|topic| topic.log.replace("{partition}", "0")))
        .chain(there)
        .collect();
    for name in config.retention.names() {
        if !known.iter().any(|log| matches(name, log)) {
            remarks.warn(&format!("retention.{name}"), "there is no such log, so nothing is removed");
        }
    }
}

/// What a log's records are, by its name.
fn kind_of(config: &Config, log: &str) -> Option<Kind> {
    let declared = config.logs.iter().find(|declared| declared.name == log).map(|declared| declared.kind);
    declared.or_else(|| Kind::DELIVERED.into_iter().find(|kind| kind.name() == log))
}

fn api(config: &Config, remarks: &mut Remarks) {
    let api = &config.api;
    for (key, log, kind) in [
        ("api.auditlog", &api.auditlog, Kind::Auditlog),
        ("api.mfa", &api.mfa, Kind::Mfa),
        ("api.disclosure", &api.disclosure, Kind::Disclosure),
        ("api.revision", &api.revision, Kind::Revision),
    ] {
        if !is_log_name(log) {
            remarks.error(key, sporlog_ledger::Error::LogName(log.clone()).to_string());
        } else if let Some(other) = kind_of(config, log).filter(|other| *other != kind) {
            remarks.error(key, format!("the log '{log}' is for {other} records, and not for {kind} records"));
        }
    }
    if let Some(spool) = &api.spool {
        if !spool.is_dir() {
            remarks.error("api.spool", format!("{}: there is no such folder", spool.display()));
        } else if let Some(reason) = unwritable(spool) {
            remarks.warn("api.spool", reason);
        }
    }
}

fn pages(config: &Config, remarks: &mut Remarks) {
    let Some(pages) = &config.pages else { return };
    if let Err(reason) = crate::pages::check(config, pages) {
        remarks.error("pages", reason);
    }
    if let Err(error) = crate::pages::load(pages) {
        remarks.error("pages", format!("{error:#}"));
    }
    for (at, provider) in pages.provider.iter().enumerate() {
        let key = |name: &str| format!("pages.provider.{at}.{name}");
        let file = provider.client_secret_file.as_deref();
        if let Err(error) = crate::pages::secret(provider) {
            let name = if file.is_some() { "client_secret_file" } else { "client_secret_env" };
            remarks.error(&key(name), format!("{error:#}"));
        }
        if file.is_some_and(|file| others_may(READ_BY_OTHERS, file)) {
            remarks.warn(
                &key("client_secret_file"),
                "everybody on this machine may read the secret (chmod 600, or 640)",
            );
        }
        if provider.allow_http {
            remarks.warn(&key("allow_http"), "whoever can change what goes over that network can be anybody");
        }
    }
}

fn store(config: &Config, remarks: &mut Remarks) {
    let origin = config.origin.as_deref().unwrap_or_default();
    if origin.contains(|c: char| c.is_whitespace() || c == '+') {
        remarks.error("origin", "a name without spaces and '+' is expected, such as sporlog.example.org");
    } else if origin.contains("://") {
        remarks.warn(
            "origin",
            "a name such as sporlog.example.org is usual, without https://; new logs keep it",
        );
    }
    let address = config.store();
    let folder = folder_of(&address);
    if address.is_empty() {
        remarks.error("store", "a folder or s3://BUCKET/PREFIX is expected");
    } else if folder.is_none() {
        if let Err(error) = Store::open(StoreOptions { address, ..StoreOptions::default() }) {
            remarks.error("store", error.to_string());
        }
        if config.keys().is_none() {
            remarks.warn("keys", "for a store in a bucket, the folder of the logs' keys has to be named");
        }
    }
    if let Some(reason) = config.ledger.cache_folder().and_then(|(folder, _)| unwritable(&folder)) {
        remarks.warn("ledger.cache_folder", reason);
    }
    let keys = config.keys().or_else(|| Some(folder.as_ref()?.join("keys")));
    for (key, folder) in [("store", folder), ("keys", keys.clone())] {
        if let Some(reason) = folder.and_then(|folder| unwritable(&folder)) {
            remarks.warn(key, reason);
        }
    }
    if keys.is_some_and(|keys| others_may(FOR_OTHERS, &keys)) {
        remarks.warn("keys", "others on this machine may look into the folder (chmod 700)");
    }
}

/// The folder of a store, if it is one of this machine.
fn folder_of(store: &str) -> Option<PathBuf> {
    sporlog_ledger::local_directory(store).ok().flatten()
}

/// Why nothing can be written to a folder, or to where it would be made.
fn unwritable(folder: &Path) -> Option<String> {
    let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let there = folder.ancestors().map(here).find(|path| path.exists())?;
    if !there.is_dir() {
        return Some(format!("{} is no folder", there.display()));
    }
    let refused = access(&there, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!("nothing can be written to {}: {refused}", there.display()))
}

fn kafka(config: &Config, file: Option<&Path>, remarks: &mut Remarks) {
    let Some(kafka) = &config.kafka else { return };
    if let Err(error) = kafka.check() {
        remarks.error("kafka", error.to_string());
    }
    let properties = &kafka.properties.0;
    let protocol = properties.get("security.protocol");
    if protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("sasl_plaintext")) {
        let text = "security.protocol = \"sasl_plaintext\" sends the password or token unencrypted; use \"sasl_ssl\"";
        remarks.warn("kafka.properties", text);
    }
    let variable =
        |name: &str| format!("{PREFIX}KAFKA__PROPERTIES__{}", name.to_uppercase().replace('.', "__"));
    let in_file = |name: &String| super::is_secret(name) && std::env::var_os(variable(name)).is_none();
    if properties.keys().any(in_file) && file.is_some_and(|file| others_may(READ_BY_OTHERS, file)) {
        remarks
            .warn("kafka.properties", "there is a secret in a file that everybody on this machine may read");
    }
}

fn pulls(config: &Config, remarks: &mut Remarks) {
    if let Err(error) = sporlog_intake::pull::Settings::check_all(&config.pulls) {
        remarks.error("pull", error.to_string());
    }
    for (at, pull) in config.pulls.iter().enumerate() {
        let key = |name: &str| format!("pull.{at}.{name}");
        match &pull.key_file {
            Some(file) if !file.is_file() => remarks.error(&key("key_file"), "there is no such file"),
            Some(file) if others_may(READ_BY_OTHERS, file) => remarks
                .warn(&key("key_file"), "everybody on this machine may read the API key (chmod 600, or 640)"),
            _ => {}
        }
        if pull.key_env.as_ref().is_some_and(|name| std::env::var_os(name).is_none()) {
            remarks.error(&key("key_env"), "there is no such environment variable");
        }
        if pull.allow_http {
            remarks.warn(&key("allow_http"), "whoever can read what goes over that network has the API key");
        }
    }
}

/// Variables that look like settings, and are none.
fn variables(remarks: &mut Remarks) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let Some(setting) = name.strip_prefix(PREFIX) else { continue };
        let known = SECTIONS.iter().any(|section| setting.to_lowercase().starts_with(section));
        if setting.contains("__") && !known {
            remarks.warn("", "there is no such section, so the variable sets nothing");
            if let Some(remark) = remarks.0.last_mut() {
                remark.source = Some(name.into_owned());
            }
        }
    }
}

/// Whether the file's mode has one of these bits.
fn others_may(bits: u32, path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & bits != 0)
}
