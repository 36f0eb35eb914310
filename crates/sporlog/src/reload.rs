//! A configuration that has changed, in a process that runs: SIGHUP has it read again.
//!
//! Accounts of the exchange, issuers of tokens and rates are taken up. (Certificates and API keys are followed by
//! themselves.) Whatever else has changed needs a restart, and a line in the log names it. A configuration with an error
//! in it changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use figment::value::Value;
use sporlog_exchange::LiveSettings;
use sporlog_intake::blocking::blocking;
use sporlog_web::access::AccessControl;
use sporlog_web::server::Rates;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Global;
use crate::commands::config;
use crate::config::{Config, sources};

/// What can take up other settings while it runs, if the process has it.
#[derive(Clone, Default)]
pub struct Live {
    pub access: Option<AccessControl>,
    pub rates: Option<Rates>,
    pub exchange: Option<LiveSettings>,
}

/// Settings by their full names; lists are not taken apart.
type Values = BTreeMap<String, Value>;

/// Reads the configuration on each SIGHUP, and has `live` take up what has changed. Never returns.
pub fn follow(global: Global, live: Live) -> Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup()).context("listening for signals")?;
    let mut known = values(&global)?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            let global = global.clone();
            let read = blocking(move || read(&global)).await;
            match read.and_then(|(config, values)| live.take_up(&config, &mut known, values)) {
                Ok(Changes { live, restart }) => {
                    if !live.is_empty() {
                        tracing::info!(settings = live.join(", "), "SIGHUP: these settings are taken up");
                    }
                    if !restart.is_empty() {
                        let settings = restart.join(", ");
                        tracing::warn!(settings, "SIGHUP: these settings have changed and need a restart");
                    }
                    if live.is_empty() && restart.is_empty() {
                        tracing::info!("SIGHUP: the configuration is as it was");
                    }
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(
                        error,
                        "SIGHUP: the configuration cannot be used, and all stays as it is"
                    );
                }
            }
        }
    })
}

/// The names of settings that have changed.
struct Changes {
    live: Vec<String>,
    restart: Vec<String>,
}

impl Live {
    /// Takes up what has changed from `known` to `values`, and notes it in `known`.
    fn take_up(&self, config: &Config, known: &mut Values, values: Values) -> Result<Changes> {
        let sftp = self.exchange.as_ref().zip(config.sftp.as_ref());
        let is_live = |name: &String| {
            let within = |section: &str| {
                name.strip_prefix(section).is_some_and(|rest| matches!(rest.chars().next(), None | Some('.')))
            };
            within("access") && self.access.is_some()
                || within("server.rate") && self.rates.is_some()
                || within("sftp.account") && sftp.is_some()
        };
        let names: BTreeSet<&String> = known.keys().chain(values.keys()).collect();
        let changed = names.into_iter().filter(|name| known.get(*name) != values.get(*name)).cloned();
        let (live, restart): (Vec<_>, Vec<_>) = changed.partition(is_live);
        let has = |section: &str| live.iter().any(|name| name.starts_with(section));
        if let Some(access) = self.access.as_ref().filter(|_| has("access")) {
            access.set(&config.access)?;
        }
        if let Some(rates) = self.rates.as_ref().filter(|_| has("server")) {
            rates.set(&config.server.rate);
        }
        if let Some((exchange, settings)) = sftp.filter(|_| has("sftp")) {
            exchange.set_accounts(settings.accounts.clone());
        }
        known.retain(|name, _| !live.contains(name));
        known.extend(values.into_iter().filter(|(name, _)| live.contains(name)));
        Ok(Changes { live, restart })
    }
}

fn read(global: &Global) -> Result<(Config, Values)> {
    let errors = config::errors(global);
    if !errors.is_empty() {
        bail!("{}", errors.join("; "));
    }
    Ok((Config::load(global)?, values(global)?))
}

fn values(global: &Global) -> Result<Values> {
    let mut values = Values::new();
    flatten("", sources(global)?.0.extract()?, &mut values);
    Ok(values)
}

fn flatten(name: &str, value: Value, into: &mut Values) {
    match value {
        Value::Dict(_, settings) => {
            for (key, value) in settings {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                flatten(&name, value, into);
            }
        }
        value => {
            into.insert(name.to_owned(), value);
        }
    }
}
