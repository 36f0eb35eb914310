//! `sporlog serve`: the logs over HTTP.

use std::sync::Arc;

use anyhow::{Context, Result};
use sporlog_exchange::inbox::Mode;
use sporlog_exchange::{LiveSettings, Register};
use sporlog_intake::kafka::{self, Consumer};
use sporlog_intake::pull::{self, Pull, PullConfig};
use sporlog_intake::writers::Writers;
use sporlog_ledger::Store;
use sporlog_record::Kind;
use sporlog_web::access::AccessControl;
use sporlog_web::server::{Health, Rates, Server, ServerSettings, layers, metrics, process};
use sporlog_web::{self as web, App, AppState, Catalog, api, pages};

use crate::cli::ServeArgs;
use crate::commands::backup::exchange_root;
use crate::exchange::{Exchange, configured};
use crate::interrupt::StopSignals;
use crate::keyfile::KeyFile;
use crate::output::{Outcome, inform, note};
use crate::pages::Shown;
use crate::reload::{self, Live};
use crate::session::Session;

pub async fn run(session: &Session, args: &ServeArgs) -> Result<Outcome> {
    process::raise_open_files();
    let mut settings = session.config().server.clone();
    if let Some(listen) = args.listen {
        settings.listen = listen;
    }
    let shown = Shown::of(session.config(), args.demo_people.as_deref(), settings.listen)?;
    let store = session.store_or_new()?;
    let recording = metrics::install();
    let key_folder = session.keys(&store).context("the keys' folder has to be configured")?;
    let keys = KeyFile::follow(&key_folder)?;
    let access = AccessControl::new(&session.config().access, keys.clone())?;
    fetch_keys(access.clone());
    let declared = session.config().logs.iter().map(|log| (log.name.clone(), log.kind));
    let exchanged_in = session.config().sftp.iter().map(|sftp| (sftp.log.clone(), Kind::Revision));
    let pulled = session.config().pulls.iter().map(|pull| (pull.log.clone(), pull.kind));
    let declared = declared.chain(exchanged_in).chain(pulled);
    let catalog = Catalog::new(store.clone(), declared);
    let exchanged = session.config().sftp.is_some().then(|| configured(session, &store)).transpose()?;
    let exchanged =
        exchanged.map(|(settings, root)| web::Exchange { settings: LiveSettings::from(settings), root });
    let mut app =
        AppState::new(catalog.clone(), access.clone(), session.config().api.clone(), session.rules()?);
    app.exchange = exchanged.clone();
    app.register = exchange_root(session, &store).map(|root| Register::new(&root));
    if let Some(shown) = shown {
        shown.set_up(&mut app, session.names(&store)?, &key_folder)?;
    }
    let app = App::from(app);
    let names = app.names.clone();
    let health = Health::new();
    let router = match names {
        Some(_) => api::routes(app.clone()).merge(pages::served(app.clone())),
        None => api::routes(app.clone()),
    };
    let router = router.merge(health.router());
    let rates = Rates::new(&settings.rate);
    let (router, metrics_server) = match settings.of_metrics() {
        None => (router.merge(api::for_collectors(metrics::router(recording), app.clone())), None),
        Some(own) => {
            let served = layers(metrics::router(recording), &own, Rates::new(&own.rate), []);
            (router, Some((Server::bind(&own, 0).await?, served)))
        }
    };
    let live = Live {
        access: Some(access),
        rates: Some(rates.clone()),
        exchange: exchanged.as_ref().map(|exchange| exchange.settings.clone()),
    };
    let reloading = tokio::spawn(reload::follow(session.global().clone(), live)?);
    let router = layers(router, &settings, rates, api::limits(&session.config().api));
    let reserved = exchanged.as_ref().map_or(0, |exchange| exchange.settings.now().files());
    let server = Server::bind(&settings, reserved).await?;

    // Nobody is told that the server is ready before it is.
    catalog.look().await;
    let watched = catalog.clone();
    health.check("store", move || watched.trouble().map_or(Ok(()), |trouble| Err(trouble.to_owned())));
    let consumer = consume(session, &store, &health)?;
    let pulls = pull_all(session, &catalog)?;
    let exchange = match exchanged {
        Some(configured) => Some(exchange(session, &store, configured, &catalog, &health).await?),
        None => None,
    };
    if let Some((server, router)) = metrics_server {
        inform(&format!("metrics are on http://{}/metrics, for anyone", server.local_addr()));
        // Until the process ends: what is watched last is how it stops.
        tokio::spawn(server.run(router, std::future::pending()));
    }
    announce(&server, &settings);
    let following = tokio::spawn({
        let catalog = catalog.clone();
        let retention = session.config().retention.clone();
        let names = async {
            if let Some(names) = names {
                names.follow().await;
            }
        };
        async move {
            tokio::join!(
                catalog.follow(),
                catalog.watch_quarantine(),
                catalog.keep_house(),
                catalog.cover(),
                retention.follow(&catalog),
                names
            )
        }
    });
    let stop = asked_to_stop(health, app)?;
    let served = server.run(router, stop).await;
    following.abort();
    reloading.abort();
    // Whatever fails: the rest is to be put in order all the same.
    let consumed = match consumer {
        Some(consumer) => consumer.stop().await.map(drop),
        None => Ok(()),
    };
    let pulled = futures::future::join_all(pulls.into_iter().map(Pull::stop)).await;
    let delivered = match exchange {
        Some(exchange) => exchange.stop().await,
        None => Ok(()),
    };
    let closed = catalog.close().await;
    keys.close().await;
    served?;
    consumed.context("consuming")?;
    pulled.into_iter().collect::<Result<Vec<_>, _>>().context("pulling")?;
    delivered?;
    closed.context("publishing the newest checkpoints")?;
    Ok(Outcome::Done)
}

/// Takes messages from Kafka as well, if that is configured. The server is not ready while they cannot
/// be had.
fn consume(session: &Session, store: &Store, health: &Health) -> Result<Option<Consumer>> {
    let Some(settings) = session.config().kafka.clone() else { return Ok(None) };
    settings.check()?;
    for topic in &settings.topics {
        session.check_import(&topic.log, topic.kind)?;
    }
    let consumer = Consumer::start(settings, store.clone(), session.rules()?, kafka::Mode::Forever)?;
    let status = consumer.watch();
    health.check("kafka", move || {
        let status = status();
        if status.healthy { Ok(()) } else { Err(status.problems.join("; ")) }
    });
    Ok(Some(consumer))
}

/// Mirrors other systems' audit logs as well. The server stays ready while one of them cannot be read: its own clients
/// are served all the same, and the metric `sporlog_pull_failing` says so.
fn pull_all(session: &Session, catalog: &Catalog) -> Result<Vec<Pull>> {
    let pulls = super::pull::configured(session)?;
    let start = |settings: &pull::Settings| {
        let config = PullConfig {
            settings: settings.clone(),
            writers: Arc::new(catalog.clone()),
            quarantine: catalog.quarantine().clone(),
            rules: session.rules()?,
            from: None,
            progress: Box::new(|_, _| ()),
        };
        Ok(Pull::start(config, pull::Mode::Forever)?)
    };
    pulls.iter().map(start).collect()
}

/// Takes deliveries over SFTP as well, and writes the municipalities' files. The server is not ready if
/// nobody attends to deliveries any more.
async fn exchange(
    session: &Session,
    store: &Store,
    web::Exchange { settings, root }: web::Exchange,
    catalog: &Catalog,
    health: &Health,
) -> Result<Exchange> {
    let writers: Arc<dyn Writers> = Arc::new(catalog.clone());
    let quarantine = catalog.quarantine().clone();
    let configured = (settings.clone(), root.clone());
    let mode = Mode::Forever;
    let mut exchange =
        Exchange::start(session, store, configured, writers.clone(), quarantine, mode, |_| ()).await?;
    exchange.serve(settings, &root, writers).await?;
    health.check("exchange", exchange.inbox.health());
    if let Some(server) = &exchange.server {
        let (address, keys) = (server.local_addr(), server.fingerprints().join(", "));
        inform(&format!("listening for SFTP on {address}; host key {keys}"));
    }
    Ok(exchange)
}

/// Has the keys of issuers at hand before the first token comes. One that cannot be reached now is asked
/// again when a token of it comes.
fn fetch_keys(access: AccessControl) {
    tokio::spawn(async move {
        for (issuer, fetched) in access.fetch_keys().await {
            if let Err(error) = fetched {
                tracing::warn!(%issuer, %error, "the issuer's keys cannot be had yet");
            }
        }
    });
}

/// Says where to look, on standard error; to the service manager, that requests are taken.
fn announce(server: &Server, settings: &ServerSettings) {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let address = server.local_addr();
    inform(&format!("listening on {scheme}://{address}; try {scheme}://{address}{}", api::PAGE));
    if settings.tls.is_none() && !address.ip().is_loopback() {
        note(
            "this is plain HTTP, and not only for this machine: put a proxy with TLS before it, or set [server.tls]",
        );
    }
    process::notify("READY=1");
}

/// Ends with Ctrl-C or a request to terminate. From then on probes find the server not ready, and whoever waits
/// for a log to move on is answered.
fn asked_to_stop(health: Health, app: App) -> Result<impl Future<Output = ()>> {
    let mut signals = StopSignals::listen().context("listening for signals")?;
    Ok(async move {
        signals.recv().await;
        tracing::info!("stopping: no more requests are taken");
        process::notify("STOPPING=1");
        health.set_stopping();
        app.stop();
    })
}
