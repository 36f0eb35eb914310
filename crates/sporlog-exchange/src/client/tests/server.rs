//! A small SFTP server with its files in memory. One key, everybody may sign in.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, HashAlg, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId};
use russh_sftp::protocol::{
    Attrs, Data, File, FileAttributes, Handle, Name, OpenFlags, Status, StatusCode, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server of one test.
pub struct Server {
    pub port: u16,
    pub fingerprint: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    files: Mutex<BTreeMap<String, (Vec<u8>, u32)>>,
    /// Entries with names that no path has.
    strange: Mutex<Vec<(String, String, Vec<u8>)>>,
    /// Bytes after which a connection is cut.
    budget: AtomicU64,
    connections: AtomicU64,
    signed_in: AtomicU64,
    read: AtomicU64,
    changing: AtomicU64,
}

impl Server {
    pub async fn start() -> Self {
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key");
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let config = Config { auth_rejection_time: Duration::ZERO, keys: vec![key], ..Config::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State { budget: AtomicU64::new(u64::MAX), ..State::default() });
        let (config, own) = (Arc::new(config), state.clone());
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                own.connections.fetch_add(1, Ordering::Relaxed);
                let (inside, ours) = tokio::io::duplex(64 << 10);
                tokio::spawn(relay(outside, inside, own.budget.load(Ordering::Relaxed)));
                let (config, ssh) = (config.clone(), Ssh { state: own.clone(), channel: None });
                tokio::spawn(async move {
                    if let Ok(running) = run_stream(config, ours, ssh).await {
                        let _ = running.await;
                    }
                });
            }
        });
        Server { port, fingerprint, state }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, (Vec<u8>, u32)>> {
        self.state.files.lock().expect("the files")
    }

    pub fn put(&self, path: &str, bytes: &[u8], mtime: u32) {
        self.files().insert(path.to_owned(), (bytes.to_vec(), mtime));
    }

    pub fn put_entry(&self, folder: &str, name: &str, bytes: &[u8]) {
        let entry = (folder.to_owned(), name.to_owned(), bytes.to_vec());
        self.state.strange.lock().expect("the entries").push(entry);
    }

    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.files().get(path).map(|(bytes, _)| bytes.clone())
    }

    pub fn remove(&self, path: &str) {
        self.files().remove(path);
    }

    pub fn names(&self) -> Vec<String> {
        self.files().keys().cloned().collect()
    }

    pub fn cut_after(&self, bytes: u64) {
        self.state.budget.store(bytes, Ordering::Relaxed);
    }

    /// From now on, files change whenever they are read.
    pub fn keep_changing(&self) {
        self.state.changing.store(1, Ordering::Relaxed);
    }

    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    pub fn signed_in(&self) -> u64 {
        self.state.signed_in.load(Ordering::Relaxed)
    }

    pub fn read_bytes(&self) -> u64 {
        self.state.read.load(Ordering::Relaxed)
    }
}

/// Passes bytes on, and hangs up after so many.
async fn relay(outside: TcpStream, inside: tokio::io::DuplexStream, mut budget: u64) {
    let (mut from_client, mut to_client) = outside.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(inside);
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let passed = tokio::select! {
            read = from_client.read(&mut up) => match read {
                Ok(length) if length > 0 => to_server.write_all(&up[..length]).await.map(|()| length),
                _ => return,
            },
            read = from_server.read(&mut down) => match read {
                Ok(length) if length > 0 => to_client.write_all(&down[..length]).await.map(|()| length),
                _ => return,
            },
        };
        let Ok(length) = passed else { return };
        budget = budget.saturating_sub(length as u64);
        if budget == 0 {
            return;
        }
    }
}

struct Ssh {
    state: Arc<State>,
    channel: Option<Channel<Msg>>,
}

impl russh::server::Handler for Ssh {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        _key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        self.state.signed_in.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(channel) = self.channel.take() {
            session.channel_success(id)?;
            let sftp = Sftp { state: self.state.clone(), listed: HashMap::new() };
            russh_sftp::server::run(channel.into_stream(), sftp).await;
        }
        Ok(())
    }
}

/// Handles are paths.
struct Sftp {
    state: Arc<State>,
    listed: HashMap<String, bool>,
}

impl Sftp {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, (Vec<u8>, u32)>> {
        self.state.files.lock().expect("the files")
    }

    fn attributes(&self, id: u32, path: &str) -> Result<Attrs, StatusCode> {
        let mut files = self.files();
        let (bytes, mtime) = files.get_mut(path).ok_or(StatusCode::NoSuchFile)?;
        *mtime += self.state.changing.load(Ordering::Relaxed) as u32;
        Ok(Attrs { id, attrs: file(bytes.len(), *mtime) })
    }
}

fn file(size: usize, mtime: u32) -> FileAttributes {
    FileAttributes {
        size: Some(size as u64),
        permissions: Some(0o100_644),
        atime: Some(mtime),
        mtime: Some(mtime),
        ..FileAttributes::empty()
    }
}

fn ok(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: String::new(), language_tag: String::new() }
}

impl russh_sftp::server::Handler for Sftp {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn init(
        &mut self,
        _version: u32,
        _extensions: HashMap<String, String>,
    ) -> Result<Version, StatusCode> {
        Ok(Version::new())
    }

    async fn open(
        &mut self,
        id: u32,
        path: String,
        flags: OpenFlags,
        _attrs: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        let mut files = self.files();
        let is_there = files.contains_key(&path);
        match (is_there, flags.contains(OpenFlags::CREATE)) {
            (true, _) if flags.contains(OpenFlags::EXCLUDE) => return Err(StatusCode::Failure),
            (false, false) => return Err(StatusCode::NoSuchFile),
            _ => {}
        }
        let (bytes, _) = files.entry(path.clone()).or_default();
        if flags.contains(OpenFlags::TRUNCATE) {
            bytes.clear();
        }
        Ok(Handle { id, handle: path })
    }

    async fn close(&mut self, id: u32, _handle: String) -> Result<Status, StatusCode> {
        Ok(ok(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, StatusCode> {
        let files = self.files();
        let (bytes, _) = files.get(&handle).ok_or(StatusCode::NoSuchFile)?;
        let rest = bytes.get(offset as usize..).filter(|rest| !rest.is_empty()).ok_or(StatusCode::Eof)?;
        let data = rest[..rest.len().min(len as usize)].to_vec();
        self.state.read.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusCode> {
        let mut files = self.files();
        let (bytes, _) = files.get_mut(&handle).ok_or(StatusCode::NoSuchFile)?;
        let end = offset as usize + data.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[offset as usize..end].copy_from_slice(&data);
        Ok(ok(id))
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        self.attributes(id, &path)
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusCode> {
        self.listed.remove(&path);
        Ok(Handle { id, handle: path })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusCode> {
        if self.listed.insert(handle.clone(), true).is_some() {
            return Err(StatusCode::Eof);
        }
        let prefix = format!("{}/", handle.trim_end_matches('/'));
        let mut files = Vec::new();
        let mut folders = std::collections::BTreeSet::new();
        for (path, (bytes, mtime)) in self.files().iter() {
            let Some(rest) = path.strip_prefix(&prefix) else { continue };
            match rest.split_once('/') {
                Some((folder, _)) => drop(folders.insert(folder.to_owned())),
                None => files.push(File::new(rest, file(bytes.len(), *mtime))),
            }
        }
        for folder in folders {
            let attributes = FileAttributes { permissions: Some(0o040_755), ..FileAttributes::empty() };
            files.push(File::new(folder, attributes));
        }
        for (folder, name, bytes) in self.state.strange.lock().expect("the entries").iter() {
            if *folder == handle {
                files.push(File::new(name.as_str(), file(bytes.len(), 1)));
            }
        }
        Ok(Name { id, files })
    }

    async fn remove(&mut self, id: u32, path: String) -> Result<Status, StatusCode> {
        self.files().remove(&path).map(|_| ok(id)).ok_or(StatusCode::NoSuchFile)
    }

    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, StatusCode> {
        let mut files = self.files();
        if files.contains_key(&to) {
            return Err(StatusCode::Failure);
        }
        let file = files.remove(&from).ok_or(StatusCode::NoSuchFile)?;
        files.insert(to, file);
        Ok(ok(id))
    }
}
