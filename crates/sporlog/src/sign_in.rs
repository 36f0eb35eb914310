//! How persons sign in to a server, put together from the configuration and the command line.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::TimeDelta;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;
use sporlog_record::identifier::mask_text;
use sporlog_web::server::ServerSettings;
use sporlog_web::sign_in::{
    DemoPerson, ProviderSettings, SessionRegistry, SessionSettings, SignIn, check_providers,
};

use crate::config::Config;

/// How persons sign in; `None` if they cannot. `registry` opens the files of sessions that last at most so many
/// seconds.
pub fn sign_in(
    config: &Config,
    server: &ServerSettings,
    demo_people: Option<&Path>,
    registry: impl FnOnce(i64) -> Result<Arc<dyn SessionRegistry>>,
) -> Result<Option<SignIn>> {
    let pages = config.pages.clone().unwrap_or_default();
    pages.session.check()?;
    let longest = pages.session.longest();
    if let Some(file) = demo_people {
        if !pages.provider.is_empty() {
            bail!("--demo-people: anybody could be anybody; remove each [[pages.provider]] from the configuration");
        }
        if !server.listen.ip().is_loopback() {
            bail!("--demo-people: anybody could be anybody, so the server listens on this machine only; {} is not \
                   a loopback address", server.listen.ip());
        }
        let people = read_people(file).with_context(|| file.display().to_string())?;
        return Ok(Some(SignIn::demo(people, pages.session, registry(longest)?)?));
    }
    let Some(address) = pages.address.as_ref().filter(|_| !pages.provider.is_empty()) else {
        check_providers(&pages.provider, pages.address.as_ref())?;
        return Ok(None);
    };
    check_providers(&pages.provider, Some(address))?;
    let with_secret = |provider: &ProviderSettings| Ok((provider.clone(), secret(provider)?));
    let providers = pages.provider.iter().map(with_secret).collect::<Result<_>>()?;
    let leeway = TimeDelta::seconds(config.access.leeway_seconds.min(3600) as i64);
    Ok(Some(SignIn::with_providers(providers, address, leeway, pages.session, registry(longest)?)?))
}

/// The secret that a provider knows this server by.
pub fn secret(provider: &ProviderSettings) -> Result<Option<String>> {
    let (secret, from) = match (&provider.client_secret_file, &provider.client_secret_env) {
        (Some(file), _) => {
            let from = file.display().to_string();
            (std::fs::read_to_string(file).with_context(|| from.clone())?, from)
        }
        (None, Some(name)) => (std::env::var(name).with_context(|| name.clone())?, name.clone()),
        (None, None) => return Ok(None),
    };
    let secret = secret.trim();
    if secret.is_empty() {
        bail!("{from}: the secret of pages.provider '{}' is expected, and there is nothing", provider.id);
    }
    Ok(Some(secret.to_owned()))
}

/// A file of demo people.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct People {
    person: Vec<DemoPerson>,
}

fn read_people(file: &Path) -> Result<Vec<DemoPerson>> {
    // The parser quotes what it did not expect.
    let text = std::fs::read_to_string(file)?;
    let people: Result<People, _> = Figment::from(Toml::string(&text)).extract();
    Ok(people.map_err(|error| anyhow::anyhow!("{}", mask_text(&error.to_string())))?.person)
}
