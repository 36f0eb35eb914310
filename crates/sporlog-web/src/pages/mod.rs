//! The pages on which a person sees their own log, and a page on which anybody checks a proof.
//!
//! They are whole without JavaScript, have no more than 100 kB each with all they need, and ask nothing of
//! any other server. A view of records is recorded in the log `access` before it is shown.
//! `docs/pages.md` has the addresses, and how a page is added.
//!
//! | module | idea |
//! |---|---|
//! | `settings`, `configured` | what is configured, and what is safe by default; the logs that are shown |
//! | `texts`, `html` | the words in three languages; what others have written, made harmless |
//! | `layout` | what all pages share |
//! | `entry` | a record as the person may see it: fields that are not shown or withheld are not in it |
//! | `words` | an entry's names, grounds and times in words |
//! | `home` | the front page, `/about` and `/check` |
//! | `list`, `filter` | `/my`: the list, and what it is narrowed to |
//! | `accesses`, `tally` | who looked at the person's records through Sporlog itself |
//! | `record`, `consent`, `tree` | one record, its consent, and what was handed out |
//! | `export` | everything about the person for programs; proofs |
//! | `assets` | the style sheet and the scripts |

mod accesses;
mod assets;
pub(crate) mod configured;
mod consent;
mod entry;
mod export;
mod filter;
mod home;
mod html;
pub(crate) mod layout;
mod list;
mod record;
mod settings;
mod tally;
#[cfg(test)]
mod tests;
pub(crate) mod texts;
mod tree;
mod words;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;

use crate::{App, sign_in};

pub use configured::{Explanation, Explanations, Pages};
pub use settings::{Embargo, Organisation, PagesSettings, ShownLog, Translated};

/// The routes of the pages and of signing in and out.
pub fn served(app: App) -> Router {
    let routes = routes().merge(sign_in::routes()).fallback(layout::missing);
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
