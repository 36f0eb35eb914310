//! The pages on which a person sees their own log, and a page on which anybody checks a proof.
//!
//! They are whole without JavaScript, have no more than 100 kB each with all they need, and ask nothing of
//! any other server. A view of records is recorded in the log `access` before it is shown.
//! `docs/pages.md` has the addresses, and how a page is added.
//!
//! | module | idea |
//! |---|---|
//! | `settings` | what is configured, and what is safe by default |
//! | `texts`, `html` | the words in three languages; what others have written, made harmless |
//! | `layout` | what all pages share |
//! | `entry` | a record as the person may see it: fields that are not shown or withheld are not in it |
//! | `words` | an entry's names, grounds and times in words |
//! | `home` | the front page, `/about` and `/check` |
//! | `list`, `filter` | `/my`: the list, and what it is narrowed to |
//! | `accesses` | who looked at the person's records through Sporlog itself |
//! | `record`, `consent`, `tree` | one record, its consent, and what was handed out |
//! | `export` | everything about the person for programs; proofs |
//! | `assets` | the style sheet and the scripts |

mod accesses;
mod assets;
mod consent;
mod entry;
mod export;
mod filter;
mod home;
mod html;
mod layout;
mod list;
mod record;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod texts;
mod tree;
mod words;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use serde::Deserialize;
use sporlog_ledger::Log;

use crate::{App, Problem, sign_in};
use entry::Visible;

pub(crate) use layout::Visitor;
pub use settings::{Embargo, Organisation, PagesSettings, ShownLog, Translated};

/// The routes of the pages and of signing in and out.
pub fn served(app: App) -> Router {
    let routes = routes().merge(sign_in::routes());
    routes.layer(from_fn_with_state(app.clone(), sign_in::renew)).with_state(app)
}

/// The routes of the pages.
fn routes() -> Router<App> {
    Router::new()
        .route("/", get(home::home))
        .route("/about", get(home::about))
        .route("/check", get(home::check))
        .route("/my", get(list::list))
        .route("/my/export", get(export::export))
        .route("/my/{log}/{id}", get(record::record))
        .route("/my/{log}/{id}/proof", get(export::proof))
        .route("/assets/{name}", get(assets::asset))
}

/// The pages as they are configured.
#[derive(Default)]
pub struct Pages {
    settings: PagesSettings,
    explanations: Vec<Explanation>,
    /// The image's type, and its bytes.
    logo: Option<(&'static str, Vec<u8>)>,
    copies: accesses::Copies,
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
        Pages { settings, explanations: explanations.explanation, logo, copies: accesses::Copies::default() }
    }

    /// The logs that persons see, and what of them.
    async fn visible(&self, app: &App) -> Result<Vec<Visible>, Problem> {
        let mut visible = Vec::new();
        for name in app.catalog.names().await? {
            visible.extend(self.visible_log(app, &name).await?);
        }
        Ok(visible)
    }

    async fn visible_log(&self, app: &App, name: &str) -> Result<Option<Visible>, Problem> {
        let shown = self.settings.log.iter().any(|shown| sporlog_ledger::matches(&shown.name, name));
        if !shown || !sporlog_ledger::is_log_name(name) {
            return Ok(None);
        }
        let log: Option<Log> = app.catalog.log(name).await?;
        Ok(log.and_then(|log| Visible::of(&self.settings, log)))
    }
}
