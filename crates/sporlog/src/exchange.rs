//! The revision exchange within a process: who takes deliveries, writes files, watches, and serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sporlog_intake::exchange::collection::Nightly;
use sporlog_intake::exchange::inbox::{Inbox, InboxConfig, Mode};
use sporlog_intake::exchange::server::SftpServer;
use sporlog_intake::exchange::watch::{self, Watch};
use sporlog_intake::exchange::{Receipt, Settings};
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::writers::Writers;
use sporlog_ledger::Store;
use sporlog_record::Kind;

use crate::session::{Session, directory};

/// Everything about the exchange that runs in the background.
pub struct Exchange {
    inbox: Inbox,
    watch: Watch,
    nightly: Option<Nightly>,
    server: Option<SftpServer>,
}

/// What the configuration says about the exchange, and where its folder is; it has to say something.
pub fn configured(session: &Session, store: &Store) -> Result<(Settings, PathBuf)> {
    let Some(settings) = session.config().sftp.clone() else {
        bail!(
            "the configuration has no section [sftp]: it says who delivers and who fetches; \
             `sporlog config example` shows one"
        );
    };
    settings.check()?;
    session.check_import(&settings.log, Kind::Revision)?;
    let root = settings.root(directory(store).as_deref())?;
    Ok((settings, root))
}

impl Exchange {
    /// What is [`configured`] begins to take deliveries and, unless they are to be taken only once, to watch them and to write
    /// the municipalities' files by night. Nothing is served yet.
    pub async fn start(
        session: &Session,
        store: &Store,
        (settings, root): (Settings, PathBuf),
        writers: Arc<dyn Writers>,
        quarantine: Quarantine,
        mode: Mode,
        on_receipt: impl Fn(&Receipt) + Send + Sync + 'static,
    ) -> Result<Self> {
        let watch = Watch::start(settings.clone(), root.clone());
        let nudge = watch.nudge();
        let config = InboxConfig {
            settings: settings.clone(),
            root: root.clone(),
            writers: writers.clone(),
            quarantine,
            rules: session.rules()?,
            on_receipt: Arc::new(move |receipt: &Receipt| {
                watch::count(receipt);
                nudge.nudge();
                on_receipt(receipt);
            }),
        };
        let inbox = Inbox::start(config, mode).await?;
        let nightly = (mode == Mode::Forever).then(|| Nightly::start(settings, root, store.clone(), writers));
        Ok(Exchange { inbox, watch, nightly, server: None })
    }

    /// Serves the folders over SFTP as well.
    pub async fn serve(&mut self, settings: &Settings, root: &Path, writers: Arc<dyn Writers>) -> Result<()> {
        let server = SftpServer::start(settings, root, writers, self.inbox.events()).await;
        self.server = Some(server.context("serving SFTP")?);
        Ok(())
    }

    /// The SFTP server, if there is one.
    pub fn server(&self) -> Option<&SftpServer> {
        self.server.as_ref()
    }

    /// The inbox.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Waits until all that waited is taken, if that is what was asked for, or until it fails.
    pub async fn ended(&mut self) -> Result<()> {
        Ok(self.inbox.ended().await?)
    }

    /// Ends all of it: first no more comes in, then what has come is brought to where it is safe.
    pub async fn stop(self) -> Result<()> {
        if let Some(server) = self.server {
            server.stop().await;
        }
        if let Some(nightly) = self.nightly {
            nightly.stop().await;
        }
        let stopped = self.inbox.stop().await;
        self.watch.stop().await;
        stopped.context("taking deliveries")
    }
}
