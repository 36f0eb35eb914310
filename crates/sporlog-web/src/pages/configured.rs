//! The pages as they are configured: their settings, explanations and logo, and the logs that they show.

use serde::Deserialize;
use sporlog_ledger::Log;

use super::entry::Visible;
use super::settings::{PagesSettings, Translated};
use super::tally::Copies;
use crate::{Catalog, Problem};

/// The pages as they are configured.
#[derive(Default)]
pub struct Pages {
    pub(super) settings: PagesSettings,
    pub(super) explanations: Vec<Explanation>,
    /// The image's type, and its bytes.
    pub(super) logo: Option<(&'static str, Vec<u8>)>,
    pub(super) copies: Copies,
}

/// The file of explanations.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanations {
    /// All of them; for a record, each counts that fits.
    #[serde(default)]
    pub explanation: Vec<Explanation>,
}

/// Why records of some sort come about. What is left out fits any record.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Explanation {
    /// Records of this topic (`tema`).
    pub topic: Option<String>,
    /// Records of this system (its identifier, or what the record calls it).
    pub system: Option<String>,
    /// Records whose ground contains this text.
    pub ground: Option<String>,
    /// The explanation.
    pub text: Translated,
}

impl Pages {
    /// With explanations, and an image for the head of each page (SVG, or else PNG).
    pub fn new(settings: PagesSettings, explanations: Explanations, logo: Option<Vec<u8>>) -> Self {
        let svg = settings.logo.as_ref().is_some_and(|file| file.extension().is_some_and(|end| end == "svg"));
        let logo = logo.map(|bytes| (if svg { "image/svg+xml" } else { "image/png" }, bytes));
        Pages { settings, explanations: explanations.explanation, logo, copies: Copies::default() }
    }

    /// The logs that persons see, and what of them.
    pub(super) async fn visible(&self, catalog: &Catalog) -> Result<Vec<Visible>, Problem> {
        let mut visible = Vec::new();
        for name in catalog.names().await? {
            visible.extend(self.visible_log(catalog, &name).await?);
        }
        Ok(visible)
    }

    /// The log `name`, if persons see it.
    pub(super) async fn visible_log(
        &self,
        catalog: &Catalog,
        name: &str,
    ) -> Result<Option<Visible>, Problem> {
        let shown = self.settings.log.iter().any(|shown| sporlog_ledger::matches(&shown.name, name));
        if !shown || !sporlog_ledger::is_log_name(name) {
            return Ok(None);
        }
        let log: Option<Log> = catalog.log(name).await?;
        Ok(log.and_then(|log| Visible::of(&self.settings, log)))
    }
}
