//! The configuration: a file, the environment over it, and the command line over both.
//!
//! ```toml
//! store = "/srv/sporlog"                # where the logs lie
//! keys = "/etc/sporlog/keys"            # where their keys lie; by default in the store
//! origin = "sporlog.example.org"        # what new logs are called to the world
//! consent_jwks = "altinn.jwks"          # keys that consent tokens are verified against
//!
//! [rules]                               # how records are judged
//! max_record_bytes = 67_108_864
//! [rules.disclosure]
//! behandlingsGrunnlag = 2_000
//! [rules.revision]
//! encoding = "iso-8859-1"
//! separator = ";"
//!
//! [[log]]                               # logs besides those named after their kinds
//! name = "os2faktor"
//! kind = "auditlog"
//!
//! [ledger]                              # how logs are read
//! [retention]                           # for how many months records are kept, by log
//! [server]                              # how `sporlog serve` listens
//! [api]                                 # what it serves, and from which logs
//! [access]                              # whose tokens it takes, and what they stand for
//! [pages]                               # what persons see, and how they sign in
//! [sftp]                                # the exchange of revision logs, and who takes part
//! [sql]                                 # what a query may use
//!
//! [[pull]]                              # audit logs of other systems that are mirrored
//! name = "odense"
//! url = "https://login.example.dk"
//! key_file = "odense.key"
//! log = "os2faktor"
//! ```
//!
//! Relative paths in the file are relative to the file. In the environment, `SPORLOG_` stands
//! before a name, and two underscores stand between a section and what is in it:
//! `SPORLOG_RULES__DISCLOSURE__BEHANDLINGSGRUNNLAG=110`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use figment::value::magic::RelativePathBuf;
use serde::Deserialize;
use sporlog_record::jose::KeySet;
use sporlog_record::{Kind, Rules};
use sporlog_web::Retention;
use sporlog_web::access::AccessSettings;
use sporlog_web::api::ApiSettings;
use sporlog_web::pages::PagesSettings;
use sporlog_web::server::ServerSettings;

use self::parse_errors::parse_errors;
use self::remark::located;
use crate::cli::Global;

mod line_of;
pub(crate) mod parse_errors;
pub(crate) mod remark;

/// The file that is read if it is there and none is named.
const DEFAULT_FILE: &str = "sporlog.toml";
/// Where the logs lie unless something else is said.
const DEFAULT_STORE: &str = "./sporlog-data";
pub(crate) const PREFIX: &str = "SPORLOG_";
/// How variables begin that are settings of a section, after the prefix.
pub(crate) const SECTIONS: [&str; 10] = [
    "rules__",
    "ledger__",
    "retention__",
    "server__",
    "api__",
    "access__",
    "pages__",
    "kafka__",
    "sftp__",
    "sql__",
];

/// The configuration as it applies, spelt as in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    store: Option<RelativePathBuf>,
    keys: Option<RelativePathBuf>,
    /// What new logs are called to the world.
    pub origin: Option<String>,
    consent_jwks: Option<RelativePathBuf>,
    rules: Rules,
    /// The logs that are declared.
    #[serde(rename = "log")]
    pub logs: Vec<DeclaredLog>,
    /// How logs are read.
    pub ledger: LedgerSettings,
    /// For how long records are kept.
    pub retention: Retention,
    /// How the server listens.
    pub server: ServerSettings,
    /// What it serves.
    pub api: ApiSettings,
    /// Whose tokens it takes.
    pub access: AccessSettings,
    /// What persons see, and how they sign in; they see nothing if it is not there.
    pub pages: Option<PagesSettings>,
    /// Which topics are taken in, if any.
    pub kafka: Option<sporlog_intake::kafka::Settings>,
    /// The exchange of revision logs, if there is one.
    pub sftp: Option<sporlog_exchange::Settings>,
    /// The audit logs of other systems that are mirrored.
    #[serde(rename = "pull")]
    pub pulls: Vec<sporlog_intake::pull::Settings>,
    /// What a query may use.
    pub sql: SqlSettings,
}

/// The section `[sql]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqlSettings {
    /// The memory that a query may use before it goes on on disk, or fails.
    pub memory_bytes: NonZeroUsize,
    /// How long a cluster may take to answer a query.
    pub cluster_seconds: NonZeroU64,
}

impl Default for SqlSettings {
    fn default() -> Self {
        SqlSettings {
            memory_bytes: const { NonZeroUsize::new(256 << 20).unwrap() },
            cluster_seconds: const { NonZeroU64::new(3_600).unwrap() },
        }
    }
}

/// A log besides those named after their kinds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredLog {
    /// Its name.
    pub name: String,
    /// What its records are.
    pub kind: Kind,
}

/// How logs are read.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerSettings {
    /// So many bytes of decoded records are kept for clients that read on.
    pub cache_bytes: usize,
    /// In this folder, parts of a store in a bucket are kept …
    cache_folder: Option<RelativePathBuf>,
    /// … at most so many bytes of them.
    pub cache_folder_bytes: u64,
}

impl LedgerSettings {
    /// Where parts of a store in a bucket are kept, and the most bytes of them.
    pub fn cache_folder(&self) -> Option<(PathBuf, u64)> {
        Some((self.cache_folder.as_ref()?.relative(), self.cache_folder_bytes))
    }
}

impl Default for LedgerSettings {
    fn default() -> Self {
        LedgerSettings {
            cache_bytes: sporlog_ledger::CACHE_BYTES,
            cache_folder: None,
            cache_folder_bytes: 4 << 30,
        }
    }
}

impl Config {
    /// Reads the configuration.
    pub fn load(global: &Global) -> Result<Self> {
        let (figment, file) = sources(global)?;
        let mut config: Config = figment.extract().map_err(|_| {
            let errors = located(parse_errors(&figment), &figment, file);
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            anyhow!("the configuration cannot be used:\n{}", lines.join("\n"))
        })?;
        if let Some(folder) = file.and_then(Path::parent) {
            config.relative_to(folder);
        }
        for log in &config.logs {
            if !sporlog_ledger::is_log_name(&log.name) {
                return Err(sporlog_ledger::Error::LogName(log.name.clone()).into());
            }
            if log.kind == Kind::Quarantine {
                bail!("the log '{}' cannot be a quarantine: there is one, made by itself", log.name);
            }
        }
        config.store = global.store.as_ref().map(RelativePathBuf::from).or(config.store);
        config.keys = global.keys.as_ref().map(RelativePathBuf::from).or(config.keys);
        Ok(config)
    }

    /// Makes relative paths of sections those below `folder`.
    fn relative_to(&mut self, folder: &Path) {
        self.server.relative_to(folder);
        self.api.spool.iter_mut().for_each(|spool| *spool = folder.join(&*spool));
        self.kafka.iter_mut().for_each(|kafka| kafka.relative_to(folder));
        self.sftp.iter_mut().for_each(|sftp| sftp.relative_to(folder));
        self.pages.iter_mut().for_each(|pages| pages.relative_to(folder));
        self.pulls.iter_mut().for_each(|pull| pull.relative_to(folder));
    }

    /// Where the logs lie: a path, which is relative to the file that it stands in, or a URL.
    pub fn store(&self) -> String {
        let Some(store) = &self.store else { return DEFAULT_STORE.to_owned() };
        let given = store.original().to_string_lossy();
        if given.contains("://") {
            given.into_owned()
        } else {
            store.relative().to_string_lossy().into_owned()
        }
    }

    /// Where the keys lie, if not in the store.
    pub fn keys(&self) -> Option<PathBuf> {
        self.keys.as_ref().map(RelativePathBuf::relative)
    }

    /// The rules by which records are judged now.
    pub fn rules(&self) -> Result<Rules> {
        let mut rules = Rules { now: chrono::Local::now().naive_local(), ..self.rules.clone() };
        if let Some(file) = self.consent_jwks.as_ref().map(RelativePathBuf::relative) {
            let json = std::fs::read(&file).with_context(|| file.display().to_string())?;
            let keys = KeySet::from_jwks(&json).with_context(|| file.display().to_string())?;
            rules.consent_keys = Some(Arc::new(keys));
        }
        Ok(rules)
    }
}

/// The setting of earlier versions that an error is about, and what holds instead of it.
pub(crate) fn removed(error: &figment::Error) -> Option<(&'static str, &'static str)> {
    let figment::error::Kind::UnknownField(unknown, _) = &error.kind else { return None };
    let mut path = error.path.clone();
    if path.last() != Some(unknown) {
        path.push(unknown.clone());
    }
    // A section that may be repeated is named without its number.
    path.retain(|part| part.parse::<usize>().is_err());
    let name = path.join(".");
    let kafka = sporlog_intake::kafka::Settings::REMOVED;
    let mut all = ServerSettings::REMOVED.into_iter().chain(kafka).chain(sporlog_exchange::Settings::REMOVED);
    all.find(|(removed, _)| *removed == name)
}

/// What the settings are taken from: the file, if there is one, and the environment over it.
pub(crate) fn sources(global: &Global) -> Result<(Figment, Option<&Path>)> {
    let file = match &global.config {
        Some(file) if !file.is_file() => bail!("{}: there is no such file", file.display()),
        Some(file) => Some(file.as_path()),
        None => Some(Path::new(DEFAULT_FILE)).filter(|file| file.is_file()),
    };
    let from_file = file.map_or_else(Figment::new, |file| Figment::from(Toml::file_exact(file)));
    Ok((from_file.merge(environment()), file))
}

/// The variables that are settings. Others with the prefix are ignored: an
/// orchestrator sets `SPORLOG_PORT` and the like by itself where a service has our name.
fn environment() -> Env {
    const SETTINGS: [&str; 4] = ["store", "keys", "origin", "consent_jwks"];
    let setting = |name: &str| {
        let name = name.to_ascii_lowercase();
        let in_section = SECTIONS.iter().any(|section| name.starts_with(section));
        (SETTINGS.contains(&name.as_str()) || in_section).then(|| spelt(&name))
    };
    Env::prefixed(PREFIX).filter_map(move |name| setting(name.as_str()).map(Into::into)).lowercase(false)
}

/// A variable's name as a path of settings. Variables are in capitals, and some settings are not
/// in small letters.
fn spelt(name: &str) -> String {
    const MIXED: [&str; 4] = ["behandlingsGrunnlag", "leverteData", "samtykkeToken", "dataForespoersel"];
    let part = |part: &str| {
        let mixed = MIXED.iter().find(|mixed| mixed.eq_ignore_ascii_case(part));
        mixed.map_or_else(|| part.to_owned(), ToString::to_string)
    };
    name.split("__").map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
#[allow(clippy::result_large_err, reason = "figment's own error, in its own test harness")]
mod tests {
    use super::*;
    use figment::Jail;

    fn load(global: &Global) -> figment::Result<Config> {
        Config::load(global).map_err(|e| format!("{e:#}").into())
    }

    #[test]
    fn the_command_line_is_over_the_environment_and_that_over_the_file() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.create_file(
                "sporlog.toml",
                "store = 'here'\norigin = 'a.example'\n[rules]\nmax_record_bytes = 1000\n\
                 [rules.disclosure]\nleverteData = 5\n[[log]]\nname = 'os2faktor'\nkind = 'auditlog'\n",
            )?;
            let config = load(&Global::default())?;
            assert!(config.store().ends_with("here"), "{}", config.store());
            assert_eq!(config.rules.max_record_bytes, 1000);
            assert_eq!(config.logs, [DeclaredLog { name: "os2faktor".into(), kind: Kind::Auditlog }]);
            jail.set_env("SPORLOG_STORE", "there");
            jail.set_env("SPORLOG_RULES__DISCLOSURE__BEHANDLINGSGRUNNLAG", "110");
            jail.set_env("SPORLOG_RULES__REVISION__SEPARATOR", "';'");
            jail.set_env("SPORLOG_PORT", "tcp://10.0.0.1:80");
            let config = load(&Global::default())?;
            assert_eq!(config.store(), "there");
            assert_eq!(config.rules.disclosure.behandlingsGrunnlag, 110);
            assert_eq!(config.rules.disclosure.leverteData, 5);
            assert_eq!(config.rules.revision.separator, ';');
            let global = Global { store: Some("s3://bucket/x".into()), ..Global::default() };
            assert_eq!(load(&global)?.store(), "s3://bucket/x");
            Ok(())
        });
    }

    #[test]
    fn paths_are_relative_to_their_file_and_urls_are_not() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.create_dir("etc")?;
            jail.create_file("etc/a.toml", "store = 's3://bucket/sporlog'\nkeys = 'keys'\n")?;
            let global = Global { config: Some("etc/a.toml".into()), ..Global::default() };
            let config = load(&global)?;
            assert_eq!(config.store(), "s3://bucket/sporlog");
            assert!(config.keys().is_some_and(|keys| keys.ends_with("etc/keys")));
            Ok(())
        });
    }

    #[test]
    fn a_setting_that_was_removed_says_what_holds_instead() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            for (name, instead) in
                ServerSettings::REMOVED.into_iter().chain(sporlog_exchange::Settings::REMOVED)
            {
                let (section, setting) = name.rsplit_once('.').expect("a section");
                jail.create_file("sporlog.toml", &format!("[{section}]\nconnections = 5\n{setting} = 7\n"))?;
                let error = load(&Global::default()).expect_err(name).to_string();
                assert!(error.contains(name) && error.contains(instead), "{error}");
            }
            Ok(())
        });
    }
}
