//! The embedded SFTP server: the accounts' folders, and nothing else, for those who have a key.
//!
//! ```text
//! accept ─► guard ─► connection ─► handler: who signs in with which key
//!                                     └─► requests: SFTP on a channel
//!                                            ├─► path ─► disk, listing
//!                                            ├─► uploads ─► ind/ ─► told to the inbox
//!                                            └─► downloads: a task that reads and sends
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `keys` | the server's keys and the accounts' |
//! | `guard` | who may connect at all |
//! | `connection` | a connection's time: to sign in, to be idle, to end |
//! | `handler` | what SSH may be used for: signing in, and SFTP |
//! | `member` | an account, with what its connections share |
//! | `context` | what all connections share, and what the parts of one do |
//! | `wire` | the packets of SFTP |
//! | `path` | what a path names |
//! | `refusal` | why not |
//! | `requests` | requests on a channel, done one after another |
//! | `acts` | what is done, and goes on record |
//! | `listing` | lists of folders |
//! | `uploads` | files that come |
//! | `downloads` | files that go |
//! | `fetched` | what a municipality has fetched to its end |
//! | `disk` | regular files, and no links |
//! | `rate` | how fast |
//! | `record` | rows of the `access` log |
//! | [`metrics`] | what is counted |

mod acts;
mod connection;
mod context;
mod disk;
mod downloads;
mod fetched;
mod guard;
mod handler;
mod keys;
mod listing;
mod member;
pub mod metrics;
mod path;
mod rate;
mod record;
mod refusal;
mod requests;
mod uploads;
mod wire;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::counter;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::context::{Context, Visit};
use self::guard::{Guard, Turned};
use self::member::Member;
use self::record::Recorder;
use super::settings::{Limits, Settings};
use crate::error::{Error, Result};
use crate::exchange::inbox::InboxEvents;
use crate::writers::Writers;

/// How long it takes to refuse a key, whatever is wrong with it.
const REFUSAL: Duration = Duration::from_millis(400);
/// What a client may send before we have to have read it.
const WINDOW: u32 = 4 << 20;
/// The largest piece of that. OpenSSH takes packets of 256 KiB, all in all.
const PIECE: u32 = 128 << 10;
/// Answers to requests to read that may wait in a connection, of 255 KiB each at most.
const ANSWERS: usize = 4;
/// How often a silent client is asked whether it is still there, and how often in vain.
const ALIVE: Duration = Duration::from_secs(15);
const ALIVE_TIMES: usize = 3;
/// What all connections get to end when the server is stopped, and the access log to be written.
const STOP: Duration = Duration::from_secs(12);

/// A server that runs.
pub struct SftpServer {
    address: SocketAddr,
    fingerprints: Vec<String>,
    stopping: CancellationToken,
    accept: JoinHandle<()>,
    connections: TaskTracker,
    recorder: JoinHandle<()>,
}

impl SftpServer {
    /// Makes the accounts' folders and, the first time, a host key, and begins to listen. `root` is the
    /// exchange's folder.
    pub async fn start(
        settings: &Settings,
        root: &Path,
        writers: Arc<dyn Writers>,
        events: Arc<InboxEvents>,
    ) -> Result<SftpServer> {
        let (keys, members) = disk::blocking(|| prepare(settings, root))?;
        let fingerprints = keys.iter().map(|key| keys::fingerprint(key.public_key())).collect();
        let bind_error = |source| Error::Read { name: format!("sftp.listen: {}", settings.listen), source };
        let listener = TcpListener::bind(settings.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let (recorder, recording) = Recorder::start(writers);
        let stopping = CancellationToken::new();
        let context = Arc::new(Context {
            members,
            guard: Guard::new(settings.limits.connections),
            limits: settings.limits.clone(),
            recorder,
            events,
            meters: metrics::Meters::new(),
            stopping: stopping.clone(),
        });
        let connections = TaskTracker::new();
        let config = Arc::new(config(keys, &settings.limits));
        let accept = tokio::spawn(accept(listener, config, context, connections.clone()));
        Ok(SftpServer { address, fingerprints, stopping, accept, connections, recorder: recording })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The host keys' fingerprints, as `SHA256:…`, by which clients know the server.
    pub fn fingerprints(&self) -> Vec<String> {
        self.fingerprints.clone()
    }

    /// Takes no new connections, gives transfers under way a few seconds, and ends all. When this returns,
    /// what was to be recorded is in the access log.
    pub async fn stop(self) {
        self.stopping.cancel();
        drop(self.accept.await);
        self.connections.close();
        let ended = async {
            self.connections.wait().await;
            drop(self.recorder.await);
        };
        if tokio::time::timeout(STOP, ended).await.is_err() {
            tracing::warn!("SFTP: not all connections could be ended in time");
        }
    }
}

/// The accounts, by their names.
type Members = HashMap<String, Arc<Member>>;

fn prepare(settings: &Settings, root: &Path) -> Result<(Vec<PrivateKey>, Members)> {
    let keys = keys::host_keys(settings, root)?;
    let members = settings.accounts.iter().map(|account| {
        let member = Member::new(account, settings.home(root, account), &settings.limits)?;
        Ok((account.name.clone(), Arc::new(member)))
    });
    Ok((keys, members.collect::<Result<_>>()?))
}

/// How SSH is spoken: what is known to be safe, in the order in which modern servers have it.
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
        auth_rejection_time: REFUSAL,
        auth_rejection_time_initial: Some(Duration::ZERO),
        // Clients ask first what there is, without a key.
        max_auth_attempts: limits.sign_in_attempts.saturating_add(1),
        keys,
        preferred,
        window_size: WINDOW,
        maximum_packet_size: PIECE,
        channel_buffer_size: 1,
        event_buffer_size: ANSWERS,
        // Idleness is watched by ourselves: it is about requests. This is for a client that takes no bytes.
        inactivity_timeout: Some(Duration::from_secs(limits.idle_seconds.max(1).into())),
        keepalive_interval: Some(ALIVE),
        keepalive_max: ALIVE_TIMES,
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
            Ok((stream, from)) => enter(stream, from, &config, &context, &connections),
            Err(error) => {
                tracing::warn!(%error, "SFTP: a connection could not be taken in");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn enter(
    stream: TcpStream,
    from: SocketAddr,
    config: &Arc<Config>,
    context: &Arc<Context>,
    connections: &TaskTracker,
) {
    let address = from.ip().to_canonical();
    match context.guard.enter(address) {
        Ok((place, wait)) => {
            // Without it, the last bytes of a request wait for an answer to the first.
            drop(stream.set_nodelay(true));
            let visit = Arc::new(Visit::new(Arc::clone(context), address));
            connections.spawn(connection::serve(Arc::clone(config), stream, visit, place, wait));
        }
        Err(turned) => {
            let reason = match turned {
                Turned::Crowd => "crowd",
                Turned::Keys => "keys",
            };
            counter!(metrics::TURNED_AWAY, "reason" => reason).increment(1);
        }
    }
}

#[cfg(test)]
mod tests;
