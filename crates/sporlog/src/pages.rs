//! The pages for persons and how persons sign in, put together from the configuration and the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use chrono::TimeDelta;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sporlog_intake::names::NamesFiles;
use sporlog_ledger::overlap;
use sporlog_record::identifier::mask_text;
use sporlog_web::AppState;
use sporlog_web::pages::{Embargo, Explanations, Pages, PagesSettings};
use sporlog_web::sign_in::{DemoPerson, ProviderSettings, SignIn};

use crate::config::Config;
use crate::session_file::SessionFiles;

/// A larger image is none for the head of a page.
const MOST_LOGO_BYTES: usize = 20 << 10;

/// The pages, before there is a store.
pub struct Shown {
    settings: PagesSettings,
    pages: Pages,
    people: Option<Vec<DemoPerson>>,
    /// Each with the secret that it knows this server by.
    providers: Vec<(ProviderSettings, Option<String>)>,
    leeway: TimeDelta,
}

impl Shown {
    /// What is to be shown; `None` if neither the configuration nor the command line says so. Reads all that the
    /// settings name.
    pub fn of(config: &Config, demo_people: Option<&Path>, listen: SocketAddr) -> Result<Option<Self>> {
        if config.pages.is_none() && demo_people.is_none() {
            return Ok(None);
        }
        let settings = config.pages.clone().unwrap_or_default();
        check(config, &settings).map_err(|reason| anyhow!(reason))?;
        if demo_people.is_some() && !settings.provider.is_empty() {
            bail!(
                "--demo-people lets anybody be anybody: remove each [[pages.provider]] from the configuration"
            );
        }
        if demo_people.is_some() && !listen.ip().is_loopback() {
            bail!("--demo-people lets anybody be anybody: {} is not a loopback address", listen.ip());
        }
        let people = demo_people.map(toml::<People>).transpose()?.map(|people| people.person);
        let with_secret = |provider: &ProviderSettings| Ok((provider.clone(), secret(provider)?));
        Ok(Some(Shown {
            pages: load(&settings)?,
            people,
            providers: settings.provider.iter().map(with_secret).collect::<Result<_>>()?,
            leeway: TimeDelta::seconds(config.access.leeway_seconds.cast_signed()),
            settings,
        }))
    }

    /// Has the app show all of this, with the names in the folder `names`, which are to be followed. To be called on a runtime.
    pub fn set_up(self, app: &mut AppState, names: PathBuf, keys: &Path) -> Result<()> {
        let session = self.settings.session;
        let registry = SessionFiles::follow(keys.to_owned(), session.longest())?;
        app.sign_in = match (self.people, &self.settings.address) {
            (Some(people), _) => Some(SignIn::demo(people, session, registry)?),
            (None, Some(address)) if !self.providers.is_empty() => {
                Some(SignIn::with_providers(self.providers, address, self.leeway, session, registry)?)
            }
            _ => None,
        };
        app.names = Some(Arc::new(NamesFiles::open(names)?));
        app.pages = self.pages;
        Ok(())
    }
}

/// Checks the settings of the pages beside the rest of the configuration.
pub fn check(config: &Config, settings: &PagesSettings) -> Result<(), String> {
    settings.check()?;
    let asked_by_persons = config.access.issuer.iter().any(|issuer| issuer.person.is_some());
    let in_les = |embargo: &&Embargo| config.api.les.iter().any(|les| overlap(les, &embargo.log));
    match settings.embargo.iter().find(in_les).filter(|_| asked_by_persons) {
        Some(embargo) => Err(format!(
            "pages.embargo '{}': GET /api/les would show to persons what the embargo withholds; remove `person` from \
             [[access.issuer]], or the log from api.les",
            embargo.log
        )),
        None => Ok(()),
    }
}

/// The pages, with the files that their settings name.
pub fn load(settings: &PagesSettings) -> Result<Pages> {
    let explanations = settings.explanations.as_deref().map(toml::<Explanations>).transpose()?;
    let logo = settings.logo.as_deref().map(|file| {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let small = bytes.len() <= MOST_LOGO_BYTES;
        small.then_some(bytes).ok_or_else(|| {
            anyhow!("{}: an image of at most {MOST_LOGO_BYTES} bytes is expected", file.display())
        })
    });
    Ok(Pages::new(settings.clone(), explanations.unwrap_or_default(), logo.transpose()?))
}

/// The secret that a provider knows this server by.
pub fn secret(provider: &ProviderSettings) -> Result<Option<String>> {
    let (secret, from) = match (&provider.client_secret_file, &provider.client_secret_env) {
        (Some(file), _) => {
            (std::fs::read_to_string(file).map_err(anyhow::Error::from), file.display().to_string())
        }
        (None, Some(name)) => (std::env::var(name).map_err(anyhow::Error::from), name.clone()),
        (None, None) => return Ok(None),
    };
    let secret = secret.with_context(|| from.clone())?;
    match secret.trim() {
        "" => bail!("{from}: the client secret of pages.provider '{}' is expected there", provider.id),
        secret => Ok(Some(secret.to_owned())),
    }
}

/// A file of demo people.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct People {
    person: Vec<DemoPerson>,
}

/// Reads a file. An error quotes what it did not expect, without personal numbers.
fn toml<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let read = || {
        let text = std::fs::read_to_string(file)?;
        let read = Figment::from(Toml::string(&text)).extract();
        read.map_err(|error| anyhow!("{}", mask_text(&error.to_string())))
    };
    read().with_context(|| file.display().to_string())
}
