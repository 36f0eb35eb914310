//! The embedded SFTP server: an account that signs in with its key sees its own folders, and nothing else.
//!
//! ```text
//! accept ─► login_throttle ─► connection ─► handler: signing in with a key
//!                                           └─► requests: SFTP on a channel
//!                                                  ├─► path ─► disk, listing
//!                                                  ├─► uploads ─► ind/ ─► InboxEvents
//!                                                  └─► downloads: a task that reads and sends
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `keys` | host keys, and the accounts' public keys |
//! | `login_throttle` | limits on connections and on wrong keys |
//! | `connection` | the time limits of a connection |
//! | `handler` | what SSH may be used for: signing in, and SFTP |
//! | `account` | the state of an account that its connections share |
//! | `context` | the state that all connections share, and that of one connection |
//! | `packets` | the packets of SFTP: parsing and writing |
//! | `path` | what a client's path names, without asking the disk |
//! | `refusal` | the error that a client gets |
//! | `requests` | the requests of a channel, one after another |
//! | `operations` | operations that are recorded in the `access` log before they happen |
//! | `listing` | directory listings |
//! | `uploads`, `extents` | files being written, and which of their bytes have been |
//! | `delivered` | delivered files that their sessions go on seeing |
//! | `downloads` | files being read |
//! | `fetched` | which files a municipality has fetched completely |
//! | `disk` | regular files, and no links |
//! | `rate` | the bandwidth limit of an account |
//! | `record` | rows of the `access` log |
//! | [`metrics`] | the server's metrics |

mod account;
mod connection;
mod context;
mod delivered;
mod disk;
mod downloads;
mod extents;
mod fetched;
mod handler;
mod keys;
mod listing;
mod login_throttle;
pub mod metrics;
mod operations;
mod packets;
mod path;
mod rate;
mod record;
mod refusal;
mod requests;
mod uploads;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::metrics::counter;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::keys::public_key;

use self::account::AccountState;
use self::context::{Context, Session};
use self::login_throttle::{LoginThrottle, Rejection};
use self::record::Recorder;
use super::settings::{Limits, LiveSettings, Role, Settings};
use crate::inbox::InboxEvents;
use crate::tree::Home;
use sporlog_intake::writers::Writers;
use sporlog_intake::{Error, Result};

/// Keys that may be tried on one connection, as many as with OpenSSH.
const SIGN_IN_ATTEMPTS: usize = 6;
/// The delay of a refused key, whatever the reason.
const REFUSED_KEY_DELAY: Duration = Duration::from_millis(400);
/// The SSH window: bytes that a client may send before the server has read them.
const WINDOW: u32 = 4 << 20;
/// The largest SSH packet. OpenSSH accepts packets of up to 256 KiB.
const LARGEST_SSH_PACKET: u32 = 128 << 10;
/// Answers to read requests, of up to 255 KiB each, that may be queued on a connection.
const QUEUED_ANSWERS: usize = 4;
/// How often a silent client is sent a keepalive, and how many may stay unanswered.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES_UNANSWERED: usize = 3;
/// How often the settings are looked at for accounts that changed.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How long ending all connections and writing the access log may take when the server is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

impl Settings {
    /// How many files a server with these settings has open at most: two for each connection, and what is open on them.
    pub fn files(&self) -> u64 {
        2 * self.limits.connections as u64 + context::all_handles()
    }
}

/// A running SFTP server.
pub struct SftpServer {
    address: SocketAddr,
    fingerprints: Vec<String>,
    stopping: CancellationToken,
    accept: JoinHandle<()>,
    connections: TaskTracker,
    recorder: JoinHandle<()>,
}

impl SftpServer {
    /// Makes the accounts' folders and, at the first start, a host key, and begins to listen. `root` is the
    /// exchange's folder. Closed uploads are reported to `events`. Accounts that come, go or change in `settings` do so
    /// here within a second.
    pub async fn start(
        live: LiveSettings,
        root: &Path,
        writers: Arc<dyn Writers>,
        events: Arc<InboxEvents>,
    ) -> Result<SftpServer> {
        let settings = live.now();
        let keys = disk::blocking(|| keys::host_keys(&settings, root))?;
        let accounts = disk::blocking(|| accounts(&settings, root, &Accounts::new()))?;
        let fingerprints = keys.iter().map(|key| keys::fingerprint(key.public_key())).collect();
        let bind_error = |source| Error::Read { name: format!("sftp.listen: {}", settings.listen), source };
        let listener = TcpListener::bind(settings.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let (recorder, recording) = Recorder::start(writers);
        let stopping = CancellationToken::new();
        let context = Arc::new(Context {
            accounts: RwLock::new(Arc::new(accounts)),
            throttle: LoginThrottle::new(settings.limits.connections),
            limits: settings.limits.clone(),
            recorder,
            events,
            meters: metrics::Meters::new(),
            handles: Arc::new(Semaphore::new(
                usize::try_from(context::all_handles()).unwrap_or(Semaphore::MAX_PERMITS),
            )),
            stopping: stopping.clone(),
        });
        let connections = TaskTracker::new();
        let config = Arc::new(config(keys, &settings.limits));
        let following = follow(live, settings, root.to_owned(), Arc::clone(&context));
        let accepting = accept(listener, config, context, connections.clone());
        let accept = tokio::spawn(async {
            tokio::select! { () = following => {}, () = accepting => {} }
        });
        Ok(SftpServer { address, fingerprints, stopping, accept, connections, recorder: recording })
    }

    /// The address that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The fingerprints of the host keys, as `SHA256:…`.
    pub fn fingerprints(&self) -> Vec<String> {
        self.fingerprints.clone()
    }

    /// Accepts no new connections, lets transfers go on for a few seconds, and ends all connections. When this
    /// returns, all rows are in the access log.
    pub async fn stop(self) {
        self.stopping.cancel();
        drop(self.accept.await);
        self.connections.close();
        let ended = async {
            self.connections.wait().await;
            drop(self.recorder.await);
        };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("SFTP: not all connections could be ended in time");
        }
    }
}

/// The accounts by name.
type Accounts = HashMap<String, Arc<AccountState>>;

/// The accounts of `settings`. Those that are as they were `before` keep their state; connections of the others end.
fn accounts(settings: &Settings, root: &Path, before: &Accounts) -> Result<Accounts> {
    let mut accounts = Accounts::new();
    for account in &settings.accounts {
        let state = match before.get(&account.name) {
            Some(state) if state.configured == *account => Arc::clone(state),
            before => {
                let (home, before) = (Home::of(root, account), before.map(|before| &**before));
                let state = AccountState::new(account, home, &settings.limits, before)?;
                if before.is_none() && state.role == Role::Supplier {
                    let failed =
                        |source| Error::Read { name: state.home.path().display().to_string(), source };
                    uploads::cut_at_gaps(&state.home).map_err(failed)?;
                }
                Arc::new(state)
            }
        };
        accounts.insert(account.name.clone(), state);
    }
    Ok(accounts)
}

/// Takes up the accounts of `live` when they change. Never returns.
async fn follow(live: LiveSettings, mut known: Arc<Settings>, root: PathBuf, context: Arc<Context>) {
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let settings = live.now();
        if Arc::ptr_eq(&settings, &known) {
            continue;
        }
        let before = context.accounts();
        match disk::blocking(|| accounts(&settings, &root, &before)) {
            Ok(accounts) => {
                for (name, state) in before.iter() {
                    if accounts.get(name).is_none_or(|now| !Arc::ptr_eq(now, state)) {
                        state.end_connections();
                    }
                }
                *context.accounts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(accounts);
            }
            Err(error) => tracing::error!(%error, "SFTP: the accounts stay as they are"),
        }
        known = settings;
    }
}

/// The SSH configuration: only algorithms that are considered safe, in the order of OpenSSH.
fn config(keys: Vec<PrivateKey>, limits: &Limits) -> Config {
    let safe = Preferred::DEFAULT;
    let key = safe.key.iter().filter(|algorithm| **algorithm != Algorithm::Rsa { hash: None });
    let preferred = Preferred {
        key: key.cloned().collect(),
        cipher: Cow::Borrowed(&[
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_GCM,
            cipher::AES_128_GCM,
            cipher::AES_256_CTR,
            cipher::AES_192_CTR,
            cipher::AES_128_CTR,
        ]),
        compression: Cow::Borrowed(&[compression::NONE]),
        ..safe
    };
    Config {
        server_id: SshId::Standard(concat!("SSH-2.0-Sporlog_", env!("CARGO_PKG_VERSION")).into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REFUSED_KEY_DELAY,
        auth_rejection_time_initial: Some(Duration::ZERO),
        // A client's first attempt is without a key, to ask for the methods.
        max_auth_attempts: SIGN_IN_ATTEMPTS + 1,
        keys,
        preferred,
        window_size: WINDOW,
        maximum_packet_size: LARGEST_SSH_PACKET,
        channel_buffer_size: 1,
        event_buffer_size: QUEUED_ANSWERS,
        // `connection` ends clients without requests. This one ends a client that takes no bytes.
        inactivity_timeout: Some(Duration::from_secs(limits.idle_seconds.max(1).into())),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_UNANSWERED,
        nodelay: true,
        ..Config::default()
    }
}

async fn accept(listener: TcpListener, config: Arc<Config>, context: Arc<Context>, connections: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = context.stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => admit(stream, from, &config, &context, &connections),
            Err(error) => {
                tracing::warn!(%error, "SFTP: a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    from: SocketAddr,
    config: &Arc<Config>,
    context: &Arc<Context>,
    connections: &TaskTracker,
) {
    let address = from.ip().to_canonical();
    match context.throttle.admit(address) {
        Ok((permit, wait)) => {
            // With Nagle's algorithm, the last bytes of an answer would wait for an acknowledgement of the first.
            drop(stream.set_nodelay(true));
            let session = Arc::new(Session::new(Arc::clone(context), address));
            connections.spawn(connection::serve(Arc::clone(config), stream, session, permit, wait));
        }
        Err(rejection) => {
            let reason = match rejection {
                Rejection::TooManyConnections => "crowd",
                Rejection::TooManyRefusedKeys => "keys",
            };
            counter!(metrics::TURNED_AWAY, "reason" => reason).increment(1);
        }
    }
}

#[cfg(test)]
mod tests;
