//! What handlers work with, and the whole of the routes.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::FromRef;
use sporlog_exchange as exchange;
use sporlog_intake::access_event::AccessEvent;
use sporlog_intake::names::{Names, NamesFiles};
use sporlog_intake::writers;
use sporlog_record::Rules;
use tokio::sync::watch;

use crate::access::AccessControl;
use crate::api::settings::ApiSettings;
use crate::catalog::Catalog;
use crate::pages::configured::Pages;
use crate::problem::Problem;
use crate::sign_in::ways::SignIn;

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
pub struct Inner {
    /// The logs.
    pub catalog: Catalog,
    /// Who asks.
    pub access: AccessControl,
    /// What is served, and from where.
    pub settings: ApiSettings,
    rules: Rules,
    exchange: OnceLock<Exchange>,
    register: OnceLock<exchange::Register>,
    sign_in: OnceLock<SignIn>,
    pages: OnceLock<Pages>,
    names: OnceLock<Arc<NamesFiles>>,
    /// Turns true when the server is about to stop.
    stopping: watch::Sender<bool>,
}

/// The exchange that deliveries come over.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Who takes part.
    pub settings: exchange::LiveSettings,
    /// Its folder.
    pub root: PathBuf,
}

impl App {
    /// Records are judged by `rules`.
    pub fn new(catalog: Catalog, access: AccessControl, settings: ApiSettings, rules: Rules) -> Self {
        let stopping = watch::channel(false).0;
        App(Arc::new(Inner {
            catalog,
            access,
            settings,
            rules,
            exchange: OnceLock::new(),
            register: OnceLock::new(),
            sign_in: OnceLock::new(),
            pages: OnceLock::new(),
            names: OnceLock::new(),
            stopping,
        }))
    }

    /// With a register of deliveries in this folder, which is the exchange's if there is one. The first is kept.
    #[must_use]
    pub fn with_register(self, root: &Path) -> Self {
        self.0.register.get_or_init(|| exchange::Register::new(root));
        self
    }

    /// The register of deliveries, if there is a place for one.
    pub fn register(&self) -> Option<&exchange::Register> {
        self.0.register.get()
    }

    /// With the exchange that deliveries come over, whose folder is `root`. The first one is kept.
    #[must_use]
    pub fn with_exchange(self, settings: exchange::LiveSettings, root: PathBuf) -> Self {
        let this = self.with_register(&root);
        this.0.exchange.get_or_init(|| Exchange { settings, root });
        this
    }

    /// The exchange that deliveries come over, if there is one.
    pub fn exchange(&self) -> Option<&Exchange> {
        self.0.exchange.get()
    }

    /// With persons who sign in. The first way is kept.
    #[must_use]
    pub fn with_sign_in(self, sign_in: SignIn) -> Self {
        self.0.sign_in.get_or_init(|| sign_in);
        self
    }

    /// How persons sign in, if they can.
    pub fn sign_in(&self) -> Option<&SignIn> {
        self.0.sign_in.get()
    }

    /// With pages for persons. The first are kept.
    #[must_use]
    pub fn with_pages(self, pages: Pages) -> Self {
        self.0.pages.get_or_init(|| pages);
        self
    }

    /// The pages for persons, as they are configured.
    pub fn pages(&self) -> &Pages {
        self.0.pages.get_or_init(Pages::default)
    }

    /// With registers of names. The first are kept.
    #[must_use]
    pub fn with_names(self, names: Arc<NamesFiles>) -> Self {
        self.0.names.get_or_init(|| names);
        self
    }

    /// What organisations, topics and systems are called.
    pub fn names(&self) -> Names {
        self.0.names.get().map(|names| names.current()).unwrap_or_default()
    }

    /// How records are judged now.
    pub fn rules(&self) -> Rules {
        Rules { now: chrono::Local::now().naive_local(), ..self.rules.clone() }
    }

    /// Records an access to the data. Nothing may be shown unless this succeeds.
    pub async fn record_access(&self, event: &AccessEvent<'_>) -> Result<(), Problem> {
        let unavailable = |error: &dyn std::error::Error| {
            tracing::error!(%error, "an access could not be recorded");
            Problem::unavailable("the access log cannot be written to, so nothing is shown; try again")
        };
        writers::record_access(&self.catalog, event).await.map_err(|e| unavailable(&e))
    }

    /// Tells those who wait for something to happen that the server is about to stop.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits for `what`, but not longer than `limit`, nor while the server wants to stop.
    pub async fn wait(&self, limit: Duration, what: impl Future<Output = ()>) {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            () = what => {}
            () = tokio::time::sleep(limit) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Whether the server is about to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl FromRef<App> for AccessControl {
    fn from_ref(app: &App) -> Self {
        app.access.clone()
    }
}
