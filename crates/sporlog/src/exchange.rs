//! The exchange's tasks within a process: the inbox, the nightly collection, the monitor and the SFTP server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sporlog_exchange::collection::Nightly;
use sporlog_exchange::inbox::{Inbox, InboxConfig, Mode};
use sporlog_exchange::monitor::{self, Monitor};
use sporlog_exchange::server::SftpServer;
use sporlog_exchange::{LiveSettings, Receipt, Settings};
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::writers::Writers;
use sporlog_ledger::Store;
use sporlog_record::Kind;
use tokio::sync::Notify;

use crate::session::Session;

/// The exchange's running tasks.
pub struct Exchange {
    pub inbox: Inbox,
    monitor: Monitor,
    nightly: Option<Nightly>,
    /// The SFTP server, if it was started.
    pub server: Option<SftpServer>,
}

/// The section `[sftp]` of the configuration, which has to be there, and the exchange's folder.
pub fn configured(session: &Session, store: &Store) -> Result<(Settings, PathBuf)> {
    let Some(settings) = session.config().sftp.clone() else {
        bail!(
            "the configuration has no section [sftp]: it says who delivers and who fetches; \
             `sporlog config example` shows one"
        );
    };
    settings.check()?;
    session.check_import(&settings.log, Kind::Revision)?;
    let root = settings.root(store.directory().as_deref())?;
    Ok((settings, root))
}

impl Exchange {
    /// Starts the inbox and the monitor and, in [`Mode::Forever`], the nightly collection. The SFTP server is
    /// started by [`serve`](Exchange::serve).
    pub async fn start(
        session: &Session,
        store: &Store,
        (settings, root): (LiveSettings, PathBuf),
        writers: Arc<dyn Writers>,
        quarantine: Quarantine,
        mode: Mode,
        on_receipt: impl Fn(&Receipt) + Send + Sync + 'static,
    ) -> Result<Self> {
        let delivered = Arc::new(Notify::new());
        let notify = delivered.clone();
        let config = InboxConfig {
            settings: settings.clone(),
            root: root.clone(),
            writers: writers.clone(),
            quarantine,
            rules: session.rules()?,
            on_receipt: Arc::new(move |receipt: &Receipt| {
                monitor::count(receipt);
                notify.notify_one();
                on_receipt(receipt);
            }),
        };
        let inbox = Inbox::start(config, mode).await?;
        let monitor = Monitor::start(settings.clone(), root.clone(), delivered);
        let nightly = match mode {
            Mode::Forever => Nightly::start(settings, root, store.clone(), writers),
            Mode::Once => None,
        };
        Ok(Exchange { inbox, monitor, nightly, server: None })
    }

    /// Starts the SFTP server.
    pub async fn serve(
        &mut self,
        settings: LiveSettings,
        root: &Path,
        writers: Arc<dyn Writers>,
    ) -> Result<()> {
        let server = SftpServer::start(settings, root, writers, self.inbox.events()).await;
        self.server = Some(server.context("serving SFTP")?);
        Ok(())
    }

    /// Ends all tasks: first the server, so that no more files come in, and the inbox last.
    pub async fn stop(self) -> Result<()> {
        if let Some(server) = self.server {
            server.stop().await;
        }
        if let Some(nightly) = self.nightly {
            nightly.stop().await;
        }
        let stopped = self.inbox.stop().await;
        self.monitor.stop().await;
        stopped.context("taking deliveries")
    }
}
