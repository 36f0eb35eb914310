//! An issuer of tokens on this machine: it describes itself, publishes its keys, and signs.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A key to sign with.
pub struct Signer {
    key: EncodingKey,
    id: &'static str,
}

impl Signer {
    pub fn new(id: &'static str) -> Self {
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        Signer { key: EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key"), id }
    }

    fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = self.id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("signed")
    }
}

/// A token that nobody has signed.
pub fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(claims))
}

/// Seconds since 1970, and so many more.
pub fn now(more: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("a time") + more
}

pub struct Issuer {
    address: SocketAddr,
    keys: Arc<Mutex<Value>>,
    /// How often its keys were asked for.
    pub asked: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Issuer {
    pub fn start(signer: &Signer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let keys = Arc::new(Mutex::new(json!({"keys": [signer.jwk()]})));
        let (asked, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let serving = std::thread::spawn({
            let (keys, asked, ended) = (keys.clone(), asked.clone(), ended.clone());
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let _ = answer(stream, address, &keys, &asked);
                }
            }
        });
        Issuer { address, keys, asked, ended, serving: Some(serving) }
    }

    /// Its name in tokens.
    pub fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it signs with this key alone.
    pub fn rotate(&self, signer: &Signer) {
        *self.keys.lock().expect("unharmed") = json!({"keys": [signer.jwk()]});
    }

    /// The claims of a person who has signed in.
    pub fn person(&self, pid: &str) -> Value {
        json!({
            "iss": self.name(), "aud": "sporlog", "sub": "opaque", "pid": pid, "acr": "idporten-loa-high",
            "iat": now(0), "exp": now(600),
        })
    }
}

/// One request a connection.
fn answer(
    mut stream: TcpStream,
    address: SocketAddr,
    keys: &Mutex<Value>,
    asked: &AtomicUsize,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let body = match first.split(' ').nth(1) {
        Some("/.well-known/openid-configuration") => {
            json!({"issuer": format!("http://{address}"), "jwks_uri": format!("http://{address}/jwks")})
        }
        Some("/jwks") => {
            asked.fetch_add(1, Ordering::SeqCst);
            keys.lock().expect("unharmed").clone()
        }
        _ => return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
    .to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
    write!(stream, "{head} {}\r\n\r\n{body}", body.len())
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}
