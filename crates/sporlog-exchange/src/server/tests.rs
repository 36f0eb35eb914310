//! The server as clients see it, over a socket.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use russh::client::{self, AuthResult, Handle};
use russh::keys::ssh_key::rand_core::CryptoRng;
use russh::keys::{EcdsaCurve, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use russh_sftp::client::SftpSession;
use russh_sftp::protocol::OpenFlags;
use sporlog_ledger::{Store, StoreOptions, Writer};
use sporlog_record::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::context::HANDLES;
use super::*;
use crate::tree::Home;
use sporlog_intake::writers::OwnWriters;

/// Writers that can be out of order.
struct Shaky {
    writers: OwnWriters,
    is_broken: AtomicBool,
}

impl Writers for Shaky {
    fn writer<'a>(&'a self, log: &'a str, kind: Kind) -> BoxFuture<'a, sporlog_ledger::Result<Writer>> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Box::pin(async { Err(sporlog_ledger::Error::NoSuchLog("access".into())) });
        }
        self.writers.writer(log, kind)
    }

    fn forget<'a>(&'a self, log: &'a str) -> BoxFuture<'a, ()> {
        self.writers.forget(log)
    }
}

struct Trial {
    server: SftpServer,
    events: Arc<InboxEvents>,
    writers: Arc<Shaky>,
    key: Arc<PrivateKey>,
    store: Store,
    root: tempfile::TempDir,
}

fn key(algorithm: Algorithm) -> Arc<PrivateKey> {
    fn make(rng: &mut impl CryptoRng, algorithm: Algorithm) -> PrivateKey {
        PrivateKey::random(rng, algorithm).unwrap()
    }
    Arc::new(make(&mut russh::keys::key::safe_rng(), algorithm))
}

impl Trial {
    async fn new(more: serde_json::Value) -> Self {
        let root = tempfile::tempdir().unwrap();
        let key = key(Algorithm::Ed25519);
        let keys = [key.public_key().to_openssh().unwrap()];
        let mut settings = serde_json::json!({
            "listen": "127.0.0.1:0",
            "account": [
                { "name": "ky", "role": "supplier", "keys": keys },
                { "name": "kom", "role": "municipality", "cvr": ["64942212"], "keys": keys, "delete_fetched": true },
            ],
        });
        settings["limits"] = more;
        let settings: Settings = serde_json::from_value(settings).unwrap();
        let address = root.path().join("store").to_string_lossy().into_owned();
        let store = Store::open(StoreOptions { address, create: true, ..StoreOptions::default() }).unwrap();
        let writers = OwnWriters::new(store.clone());
        let writers = Arc::new(Shaky { writers, is_broken: AtomicBool::new(false) });
        let events = Arc::<InboxEvents>::default();
        let server =
            SftpServer::start(settings.into(), root.path(), writers.clone(), events.clone()).await.unwrap();
        Trial { server, events, writers, key, store, root }
    }

    async fn connect(&self) -> Handle<Client> {
        client::connect(Arc::default(), self.server.local_addr(), Client).await.unwrap()
    }

    async fn sign_in(&self, user: &str) -> Handle<Client> {
        let mut session = self.connect().await;
        assert!(sign_in(&mut session, user, &self.key).await.success());
        session
    }

    async fn sftp(&self, user: &str) -> SftpSession {
        SftpSession::new(channel(&self.sign_in(user).await).await.into_stream()).await.unwrap()
    }

    fn home(&self, account: &str) -> Home {
        Home::new(self.root.path().join("accounts").join(account))
    }

    /// Ends the server, and gives what is on record.
    async fn recorded(self) -> Vec<(String, serde_json::Value)> {
        use arrow::array::AsArray;
        use futures::TryStreamExt;
        self.server.stop().await;
        self.writers.writers.close().await.unwrap();
        let mut batches = self.store.log("access").await.unwrap().read(0, None);
        let mut rows = Vec::new();
        while let Some(batch) = batches.try_next().await.unwrap() {
            let column = |name| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
            let (actions, details) = (column("logAction"), column("detailContent"));
            for row in 0..batch.num_rows() {
                let detail = serde_json::from_str(details.value(row)).unwrap();
                rows.push((actions.value(row).to_owned(), detail));
            }
        }
        rows
    }
}

struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn sign_in(session: &mut Handle<Client>, user: &str, key: &Arc<PrivateKey>) -> AuthResult {
    let key = PrivateKeyWithHashAlg::new(key.clone(), None);
    session.authenticate_publickey(user, key).await.unwrap()
}

async fn channel(session: &Handle<Client>) -> Channel<client::Msg> {
    let channel = session.channel_open_session().await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    channel
}

fn packet(kind: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    let body: Vec<u8> = [&[kind][..], &id.to_be_bytes(), &fields.concat()].concat();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

/// Sends bytes, and gives the codes of the statuses that come back until all have, or the connection ends.
async fn codes(channel: Channel<client::Msg>, bytes: &[u8], count: usize) -> Vec<u32> {
    let mut stream = channel.into_stream();
    let mut codes = Vec::new();
    if stream.write_all(bytes).await.is_err() {
        return codes;
    }
    while codes.len() < count {
        let Ok(len) = stream.read_u32().await else { break };
        let mut packet = vec![0; len as usize];
        stream.read_exact(&mut packet).await.unwrap();
        if packet[0] == 101 {
            codes.push(u32::from_be_bytes(packet[5..9].try_into().unwrap()));
        }
    }
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_key_signs_in_and_refusals_look_the_same() {
    let trial = Trial::new(serde_json::json!({})).await;
    let mut refusals = Vec::new();
    for user in ["ky", "nobody"] {
        let mut session = trial.connect().await;
        let began = std::time::Instant::now();
        refusals.push(sign_in(&mut session, user, &key(Algorithm::Ed25519)).await);
        assert!(began.elapsed() >= REFUSED_KEY_DELAY);
    }
    let refused = AuthResult::Failure {
        remaining_methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        partial_success: false,
    };
    assert_eq!(refusals, [refused.clone(), refused.clone()]);
    let mut session = trial.connect().await;
    assert_eq!(session.authenticate_password("ky", "x").await.unwrap(), refused);
    assert!(sign_in(&mut session, "ky", &trial.key).await.success());
    let actions: Vec<_> = trial.recorded().await.into_iter().map(|(action, _)| action).collect();
    let refused = "SFTP_LOGIN_REFUSED";
    assert_eq!(actions, [refused, refused, refused, "SFTP_LOGIN", "SFTP_LOGOUT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_but_sftp() {
    let trial = Trial::new(serde_json::json!({})).await;
    let session = trial.sign_in("ky").await;
    let mut channel = session.channel_open_session().await.unwrap();
    let ask = |kind| {
        let channel = &channel;
        async move {
            match kind {
                0 => channel.request_shell(true).await,
                1 => channel.exec(true, "id").await,
                2 => channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await,
                3 => channel.set_env(true, "A", "b").await,
                4 => channel.agent_forward(true).await,
                5 => channel.request_x11(true, false, "", "", 0).await,
                _ => channel.request_subsystem(true, "netconf").await,
            }
        }
    };
    for kind in 0..7 {
        ask(kind).await.unwrap();
    }
    for kind in 0..7 {
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)), "{kind}");
    }
    assert!(session.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err());
    assert!(session.channel_open_direct_streamlocal("/run/x").await.is_err());
    assert!(session.tcpip_forward("127.0.0.1", 0).await.is_err());
    channel.request_subsystem(true, "sftp").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
    let mut more = Vec::new();
    while let Ok(channel) = session.channel_open_session().await {
        more.push(channel);
    }
    assert_eq!(more.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_up_and_a_receipt_comes_down_and_both_are_on_record() {
    let trial = Trial::new(serde_json::json!({})).await;
    let sftp = trial.sftp("ky").await;
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let mut file = sftp.create("/ind/a.csv").await.unwrap();
    file.write_all(&content).await.unwrap();
    file.shutdown().await.unwrap();
    assert!(std::fs::read(trial.home("ky").inbox().join("a.csv")).unwrap() == content);
    assert!(sftp.read("/ind/a.csv").await.is_err(), "it cannot be read back");
    std::fs::copy(trial.home("ky").inbox().join("a.csv"), trial.home("ky").receipts().join("r.json"))
        .unwrap();
    assert!(sftp.read("kvittering/../kvittering/r.json").await.unwrap() == content);
    assert!(sftp.create("/kvittering/x").await.is_err());
    assert!(sftp.create_dir("/ind/x").await.is_err());
    assert!(sftp.remove_file("/kvittering/r.json").await.is_err(), "receipts are to be read only");
    sftp.create("/ind/b.csv").await.unwrap().shutdown().await.unwrap();
    sftp.remove_file("/ind/b.csv").await.unwrap();
    let names: Vec<_> = sftp.read_dir("/").await.unwrap().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["ind", "kvittering"]);
    sftp.close().await.unwrap();
    let closed = trial.events.take_closed();
    let closed: Vec<_> =
        closed.iter().map(|file| (&*file.account, file.name.to_str(), file.is_final)).collect();
    assert_eq!(closed, [("ky", Some("a.csv"), false), ("ky", Some("b.csv"), false)]);
    let size = content.len();
    let rows = trial.recorded().await;
    let rows: Vec<_> = rows.into_iter().map(|(action, detail)| (action, detail["bytes"].as_u64())).collect();
    let of = |action: &str| rows.iter().find(|(found, _)| found == action).map(|(_, bytes)| *bytes);
    assert_eq!(of("SFTP_UPLOAD"), Some(Some(size as u64)));
    assert_eq!(of("SFTP_DOWNLOAD_END"), Some(Some(size as u64)));
    assert!(of("SFTP_DOWNLOAD").is_some() && of("SFTP_DELETE").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_handed_out() {
    let trial = Trial::new(serde_json::json!({})).await;
    std::fs::write(trial.home("ky").receipts().join("r.json"), "r").unwrap();
    let sftp = trial.sftp("ky").await;
    trial.writers.is_broken.store(true, Ordering::Relaxed);
    assert!(sftp.read("/kvittering/r.json").await.is_err());
    trial.writers.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(sftp.read("/kvittering/r.json").await.unwrap(), b"r");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_uploads_of_one_name_one_is_refused_and_a_lost_one_can_be_resumed() {
    let trial = Trial::new(serde_json::json!({})).await;
    let (one, two) = (trial.sftp("ky").await, trial.sftp("ky").await);
    let mut file = one.create("/ind/a.csv").await.unwrap();
    file.write_all(b"one").await.unwrap();
    file.flush().await.unwrap();
    let refused = two.create("/ind/a.csv").await.err().unwrap().to_string();
    assert!(refused.contains("being uploaded by another"), "{refused}");
    assert_eq!(two.metadata("/ind/a.csv").await.unwrap().size, Some(3));
    drop((file, one));
    let resume = OpenFlags::WRITE | OpenFlags::APPEND;
    let mut file = loop {
        match two.open_with_flags("/ind/a.csv", resume).await {
            Ok(file) => break file,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    file.write_all(b" two").await.unwrap();
    file.shutdown().await.unwrap();
    assert_eq!(std::fs::read_to_string(trial.home("ky").inbox().join("a.csv")).unwrap(), "one two");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_are_there_and_folders_that_cannot_be() {
    const FAILURE: u32 = 4;
    const DENIED: u32 = 3;
    let trial = Trial::new(serde_json::json!({})).await;
    let mut asks = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
    for path in ["/ind", "ind/", "/", "kvittering", "/ind/sub", "/other"] {
        asks.extend(packet(14, 1, &[&string(path.as_bytes()), &[0; 4]]));
    }
    let session = trial.sign_in("ky").await;
    let found = codes(channel(&session).await, &asks, 6).await;
    assert_eq!(found, [FAILURE, FAILURE, FAILURE, FAILURE, DENIED, DENIED]);
    let sftp = trial.sftp("ky").await;
    for path in ["/a.csv", "a.csv", "/other/a.csv"] {
        let refused = sftp.create(path).await.err().unwrap().to_string();
        assert!(refused.contains("deliver into /ind"), "{path}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_seen_until_a_minute_after_its_receipt() {
    let trial = Trial::new(serde_json::json!({})).await;
    let (sftp, other) = (trial.sftp("ky").await, trial.sftp("ky").await);
    for (temporary, name) in [("a.csv.part", "a.csv"), (".b.csv", "b.csv")] {
        let mut file = sftp.create(format!("/ind/{temporary}")).await.unwrap();
        file.write_all(b"abc").await.unwrap();
        file.shutdown().await.unwrap();
        sftp.rename(format!("/ind/{temporary}"), format!("/ind/{name}")).await.unwrap();
    }
    let (inbox, receipts) = (trial.home("ky").inbox(), trial.home("ky").receipts());
    // As the inbox does it.
    std::fs::remove_file(inbox.join("a.csv")).unwrap();
    let later = trial.sftp("ky").await;
    let names = async |sftp: &SftpSession| {
        let listed = sftp.read_dir("/ind").await.unwrap();
        let mut names: Vec<_> = listed.map(|entry| (entry.file_name(), entry.metadata().size)).collect();
        names.sort();
        names
    };
    let both = [("a.csv".to_owned(), Some(3)), ("b.csv".to_owned(), Some(3))];
    for sftp in [&sftp, &other] {
        assert_eq!(sftp.metadata("/ind/a.csv").await.unwrap().size, Some(3));
        assert_eq!(sftp.symlink_metadata("/ind/a.csv").await.unwrap().size, Some(3));
        assert_eq!(names(sftp).await, both);
    }
    assert!(later.metadata("/ind/a.csv").await.is_err());
    assert_eq!(names(&later).await, both[1..]);
    std::fs::write(receipts.join("a.csv.kvittering.json"), "{}").unwrap();
    assert_eq!(sftp.metadata("/ind/a.csv").await.unwrap().size, Some(3));
    // What the client has removed itself is gone.
    sftp.remove_file("/ind/b.csv").await.unwrap();
    assert!(sftp.metadata("/ind/b.csv").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_municipality_deletes_only_what_it_has_fetched() {
    let trial = Trial::new(serde_json::json!({})).await;
    let month = trial.home("kom").outbox().join("2026-11");
    std::fs::create_dir(&month).unwrap();
    std::fs::create_dir(trial.home("kom").outbox().join("notes")).unwrap();
    std::fs::write(month.join("a.csv"), "a").unwrap();
    std::fs::write(month.join("empty.csv"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", month.join("link.csv")).unwrap();
    let sftp = trial.sftp("kom").await;
    let months: Vec<_> = sftp.read_dir("/ud").await.unwrap().map(|e| e.file_name()).collect();
    assert_eq!(months, ["2026-11"], "a folder that is no month cannot be opened, and is not listed");
    let mut names: Vec<_> = sftp.read_dir("/ud/2026-11").await.unwrap().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.csv", "empty.csv"]);
    assert!(sftp.read("/ud/2026-11/link.csv").await.is_err());
    for name in names {
        let path = format!("/ud/2026-11/{name}");
        assert!(sftp.remove_file(&path).await.is_err(), "{name} was not fetched");
        let mut file = sftp.open(&path).await.unwrap();
        file.read_to_end(&mut Vec::new()).await.unwrap();
        drop(file);
        sftp.remove_file(&path).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sftp_ends_the_connection_and_nothing_else() {
    let trial = Trial::new(serde_json::json!({})).await;
    let init = [0, 0, 0, 5, 1, 0, 0, 0, 3];
    for nonsense in [&[0xff; 64][..], &[0, 0, 0, 0], &[0, 0, 0, 5, 9, 0, 0, 0, 3]] {
        let session = trial.sign_in("ky").await;
        assert!(codes(channel(&session).await, nonsense, 1).await.is_empty());
    }
    let session = trial.sign_in("ky").await;
    let too_long = [&init[..], &u32::MAX.to_be_bytes()].concat();
    assert!(codes(channel(&session).await, &too_long, 1).await.is_empty());
    // A packet in itself may be nonsense: that is answered.
    let session = trial.sign_in("ky").await;
    let odd = [
        packet(3, 1, &[&u32::MAX.to_be_bytes()]),
        packet(99, 2, &[b"x"]),
        packet(4, 3, &[&string(b"none")]),
        packet(5, 4, &[&string(&[0, 0, 0, 9]), &[0xff; 8], &[0xff; 4]]),
        packet(16, 5, &[&string(b"/ind/\xff")]),
        packet(3, 6, &[&string(b"/ind/\xff"), &[0, 0, 0, 26], &[0; 4]]),
    ];
    let sent = [&init[..], &odd.concat()].concat();
    assert_eq!(codes(channel(&session).await, &sent, 6).await, [5, 8, 4, 4, 4, 4]);
    assert!(trial.sftp("ky").await.read_dir("/ind").await.is_ok(), "others are not concerned");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_break_nothing() {
    let limits = serde_json::json!({ "sessions": 2, "file_bytes": 1000 });
    let trial = Trial::new(limits).await;
    let session = trial.sign_in("ky").await;
    let init = [0, 0, 0, 5, 1, 0, 0, 0, 3].to_vec();
    let open = |n: u32| packet(11, n, &[&string(b"/ind")]);
    let sent: Vec<u8> = [init].into_iter().chain((0..1000).map(open)).flatten().collect();
    let refused = codes(channel(&session).await, &sent, 1000 - HANDLES).await;
    assert_eq!((refused.len(), refused.iter().all(|&code| code == 4)), (1000 - HANDLES, true));
    let other = trial.sftp("ky").await;
    let mut large = other.create("/ind/large.csv").await.unwrap();
    assert!(large.write_all(&[0; 2000]).await.and(large.flush().await).is_err());
    assert!(large.shutdown().await.is_err());
    assert!(!trial.home("ky").inbox().join("large.csv").exists());
    let mut third = trial.connect().await;
    // It is signed in, and then told to go.
    drop(sign_in(&mut third, "ky", &trial.key).await);
    assert!(third.channel_open_session().await.is_err());
    drop(session);
    assert!(other.read_dir("/ind").await.is_ok());
}

#[test]
fn files_are_reserved_for_all_connections_and_for_all_that_is_open_on_them() {
    let settings = serde_json::json!({ "account": [], "limits": { "connections": 30 } });
    let settings: Settings = serde_json::from_value(settings).unwrap();
    assert_eq!(settings.files(), 2 * 30 + context::all_handles());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_sent_away() {
    let trial = Trial::new(serde_json::json!({ "idle_seconds": 2 })).await;
    let mut silent = tokio::net::TcpStream::connect(trial.server.local_addr()).await.unwrap();
    let session = trial.connect().await;
    let idle = trial.sign_in("ky").await;
    let gone = async {
        let mut heard = Vec::new();
        drop(silent.read_to_end(&mut heard).await);
        while !session.is_closed() || !idle.is_closed() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_idle_sessions_soon_and_lets_transfers_end() {
    let trial = Trial::new(serde_json::json!({})).await;
    let (idle, busy) = (trial.sign_in("ky").await, trial.sftp("ky").await);
    let mut file = busy.create("/ind/a.csv").await.unwrap();
    let inbox = trial.home("ky").inbox();
    let began = std::time::Instant::now();
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        file.write_all(b"a").await.unwrap();
        file.shutdown().await.unwrap();
    };
    tokio::join!(trial.server.stop(), ending);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(inbox.join("a.csv").exists());
    assert!(idle.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_all_good_kinds_sign_in() {
    for algorithm in [Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, Algorithm::Ed25519] {
        let mut trial = Trial::new(serde_json::json!({})).await;
        // Another server with another key: the same start, the same account.
        let made = key(algorithm);
        let account = serde_json::json!({
            "listen": "127.0.0.1:0",
            "account": [{ "name": "ky", "role": "supplier", "keys": [made.public_key().to_openssh().unwrap()] }],
        });
        let settings: Settings = serde_json::from_value(account).unwrap();
        let (writers, events) = (trial.writers.clone(), trial.events.clone());
        trial.server = SftpServer::start(settings.into(), trial.root.path(), writers, events).await.unwrap();
        trial.key = made;
        assert!(trial.sftp("ky").await.read_dir("/").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_is_answered_or_refused_but_breaks_nothing() {
    const READS: u32 = 20_000;
    let trial = Trial::new(serde_json::json!({})).await;
    std::fs::write(trial.home("ky").receipts().join("r.json"), [7; 1000]).unwrap();
    let session = trial.sign_in("ky").await;
    let (mut answers, mut asks) = tokio::io::split(channel(&session).await.into_stream());
    let open = packet(3, 1, &[&string(b"/kvittering/r.json"), &[0, 0, 0, 1], &[0; 4]]);
    let handle = string(&[0, 0, 0, 1]);
    let read = |n: u32| packet(5, n, &[&handle, &u64::from(n % 1100).to_be_bytes(), &[0xff; 4]]);
    asks.write_all(&[&[0, 0, 0, 5, 1, 0, 0, 0, 3], &open[..]].concat()).await.unwrap();
    let mut answered = 0;
    let mut next = async || {
        let len = answers.read_u32().await.unwrap();
        let mut packet = vec![0; len as usize];
        answers.read_exact(&mut packet).await.unwrap();
        packet[0]
    };
    assert_eq!((next().await, next().await), (2, 102));
    let flood: Vec<u8> = (2..READS + 2).flat_map(read).collect();
    let asking = tokio::spawn(async move { asks.write_all(&flood).await.map(|()| asks) });
    while answered < READS {
        assert!(matches!(next().await, 101 | 103));
        answered += 1;
    }
    drop(asking.await.unwrap().unwrap());
    assert!(trial.sftp("ky").await.read_dir("/ind").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn random_packets_break_nothing() {
    let trial = Trial::new(serde_json::json!({ "sessions": 100 })).await;
    let mut state = 42u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u32
    };
    for _ in 0..20 {
        let session = trial.sign_in("ky").await;
        let mut sent = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
        for id in 0..200 {
            let kind = (random() % 21) as u8;
            let field: Vec<u8> = (0..random() % 20).map(|_| random() as u8).collect();
            let path = [&b"/ind/a"[..], b"/ind/b", b"/kvittering/r", b"/", b"\xff"][random() as usize % 5];
            let numbers = [random().to_be_bytes(), random().to_be_bytes(), random().to_be_bytes()].concat();
            let handle = string(&(random() % 8).to_be_bytes());
            sent.extend(match random() % 3 {
                0 => packet(kind, id, &[&field]),
                1 => packet(kind, id, &[&string(path), &numbers]),
                _ => packet(kind, id, &[&handle, &numbers, &string(&field)]),
            });
        }
        // A hundred answers, or the end; both are fine.
        drop(tokio::time::timeout(Duration::from_secs(1), codes(channel(&session).await, &sent, 100)).await);
    }
    assert!(trial.sftp("ky").await.read_dir("/ind").await.is_ok());
}
