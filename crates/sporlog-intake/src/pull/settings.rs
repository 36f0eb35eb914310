//! What is configured of a pull: `[[pull]]`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Proxy, Url, redirect};
use serde::Deserialize;
use sporlog_ledger::is_log_name;
use sporlog_record::Kind;

use crate::error::{Error, Result};

/// How long a connection may take to come about, and an answer to go on.
const CONNECTING: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(30);

/// One upstream, and the log that mirrors it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The pull's name, by which the log knows how far it has come.
    pub name: String,
    /// The address of the OS2faktor Login, such as `https://login.kommune.dk`.
    pub url: String,
    /// The file with the API key.
    pub key_file: Option<PathBuf>,
    /// The environment variable with the API key.
    pub key_env: Option<String>,
    /// The log; no other source may write to it.
    pub log: String,
    /// Which of the upstream's logs is read: `auditlog` or `mfa`.
    #[serde(default = "default_kind")]
    pub kind: Kind,
    /// The upstream's head is asked for so often.
    #[serde(default = "default_interval")]
    pub interval_seconds: u64,
    /// Records may turn up so many ids below the last one that was read …
    #[serde(default = "default_look_back_ids")]
    pub look_back_ids: u32,
    /// … or so long after a higher id was read.
    #[serde(default = "default_look_back_minutes")]
    pub look_back_minutes: u32,
    /// The proxy, instead of those that the environment names (`HTTPS_PROXY`, `NO_PROXY`).
    pub proxy: Option<String>,
    /// Whether plain HTTP to another machine is allowed.
    #[serde(default)]
    pub allow_http: bool,
}

fn default_kind() -> Kind {
    Kind::Auditlog
}

fn default_interval() -> u64 {
    5
}

fn default_look_back_ids() -> u32 {
    10_000
}

fn default_look_back_minutes() -> u32 {
    10
}

impl Settings {
    /// Takes relative paths as relative to `dir`, the configuration's folder.
    pub fn relative_to(&mut self, dir: &Path) {
        self.key_file = self.key_file.take().map(|file| dir.join(file));
    }

    /// Whether the settings of all pulls make sense, by themselves and together.
    pub fn check_all(pulls: &[Settings]) -> Result<()> {
        let (mut names, mut logs) = (HashSet::new(), HashSet::new());
        for pull in pulls {
            let bad = |what: String| Err(Error::Settings(format!("[[pull]] '{}': {what}", pull.name)));
            if !is_log_name(&pull.name) {
                return bad("name has to be of small letters, digits, '-' and '_'".into());
            }
            if !names.insert(&pull.name) {
                return bad("name is there twice".into());
            }
            if !is_log_name(&pull.log) || ["quarantine", "access"].contains(&pull.log.as_str()) {
                return bad(format!("log = \"{}\" cannot be written to by a pull", pull.log));
            }
            if !logs.insert(&pull.log) {
                return bad(format!(
                    "another pull has the log '{}', too: the ids of two upstreams are not the same ones",
                    pull.log
                ));
            }
            if pull.kind.source_columns().is_empty() {
                return bad(format!(
                    "kind has to be auditlog or mfa; {} records have no API there",
                    pull.kind
                ));
            }
            if pull.key_file.is_some() == pull.key_env.is_some() {
                return bad("the API key is expected in key_file or in key_env: set one of the two".into());
            }
            if pull.interval_seconds == 0 {
                return bad("interval_seconds has to be at least 1".into());
            }
            pull.base()?;
            pull.client()?;
        }
        Ok(())
    }

    /// The upstream's address, ending with a slash.
    pub(super) fn base(&self) -> Result<Url> {
        let bad =
            |why: &str| Error::Settings(format!("[[pull]] '{}': url = \"{}\": {why}", self.name, self.url));
        let url = format!("{}/", self.url.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|_| bad("this is no address such as https://login.kommune.dk"))?;
        let loopback = match url.host_str() {
            Some("localhost" | "[::1]") => true,
            Some(host) => host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
            None => false,
        };
        match url.scheme() {
            "https" => Ok(url),
            "http" if loopback || self.allow_http => Ok(url),
            "http" => Err(bad(
                "the API key would go unencrypted: https is expected (allow_http = true allows http)",
            )),
            _ => Err(bad("an https address is expected")),
        }
    }

    /// The HTTP client. An answer that redirects is not followed: the key would go to wherever it says.
    pub(super) fn client(&self) -> Result<Client> {
        let failed =
            |e: reqwest::Error| Error::Settings(format!("[[pull]] '{}': {}", self.name, e.without_url()));
        let mut builder = Client::builder()
            .user_agent(concat!("sporlog/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECTING)
            .read_timeout(IDLE);
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(Proxy::all(proxy).map_err(failed)?);
        }
        builder.build().map_err(failed)
    }

    /// The API key, read anew each time: the file may have another one by now.
    pub(super) fn key(&self) -> std::result::Result<String, String> {
        let key = match (&self.key_file, &self.key_env) {
            (Some(file), _) => {
                std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?
            }
            (None, Some(name)) => {
                std::env::var(name).map_err(|_| format!("the environment has no variable {name}"))?
            }
            (None, None) => String::new(),
        };
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the API key is empty, or not of printable characters".to_owned());
        }
        Ok(key.to_owned())
    }

    /// The name of a position of this pull: what follows `pull:NAME`.
    pub(super) fn position(&self, what: &str) -> String {
        format!("pull:{}{what}", self.name)
    }

    /// The path of the upstream's API.
    pub(super) fn path(&self) -> &'static str {
        if self.kind == Kind::Mfa { "api/auditlog/mfa" } else { "api/auditlog" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull() -> Settings {
        Settings {
            name: "odense".into(),
            url: "https://login.example.dk".into(),
            key_file: None,
            key_env: Some("KEY".into()),
            log: "odense".into(),
            kind: Kind::Auditlog,
            interval_seconds: 5,
            look_back_ids: 10_000,
            look_back_minutes: 10,
            proxy: None,
            allow_http: false,
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(Settings::check_all(&[pull()]).is_ok());
        let other = || Settings { name: "aarhus".into(), log: "aarhus".into(), ..pull() };
        assert!(Settings::check_all(&[pull(), other()]).is_ok());
        for (wrong, named) in [
            (Settings { name: "pull".into(), ..pull() }, "another pull has the log"),
            (Settings { log: "other".into(), ..pull() }, "name is there twice"),
            (Settings { name: "Å".into(), ..other() }, "name has to be"),
            (Settings { log: "access".into(), ..other() }, "cannot be written to"),
            (Settings { kind: Kind::Revision, ..other() }, "kind has to be"),
            (Settings { key_env: None, ..other() }, "key_file or in key_env"),
            (Settings { key_file: Some("key".into()), ..other() }, "key_file or in key_env"),
            (Settings { interval_seconds: 0, ..other() }, "interval_seconds"),
            (Settings { url: "login.example.dk".into(), ..other() }, "no address"),
            (Settings { url: "ftp://login.example.dk".into(), ..other() }, "https address"),
            (Settings { url: "http://login.example.dk".into(), ..other() }, "unencrypted"),
            (Settings { proxy: Some("::".into()), ..other() }, "aarhus"),
        ] {
            let error = Settings::check_all(&[pull(), wrong]).expect_err(named).to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
        for url in ["http://127.0.0.1:1", "http://localhost/x/", "http://[::1]:8080"] {
            assert!(Settings { url: url.into(), ..pull() }.base().is_ok(), "{url}");
        }
    }
}
