//! Brokers that want to know who is there: TLS both ways, SCRAM, tokens.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::cluster::{Cluster, ports};
use crate::instance::{Place, TOPIC};
use crate::messages::{Messages, disclosure};

/// Certificates of a broker and of a client, signed by an authority of their own.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let made = Certificates(tempfile::tempdir().expect("a folder"));
        made.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        );
        std::fs::write(made.path("san"), "subjectAltName=IP:127.0.0.1\n").expect("written");
        for name in ["broker", "client"] {
            made.openssl(&format!(
                "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out {name}.pem"
            ));
        }
        made.openssl("pkcs12 -export -in client.pem -inkey client.key -password pass:hush -out client.p12");
        let both =
            [made.path("broker.key"), made.path("broker.pem")].map(|path| std::fs::read(path).expect("read"));
        std::fs::write(made.path("broker-both.pem"), both.concat()).expect("written");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, line: &str) {
        let mut command = Command::new("openssl");
        command.current_dir(self.0.path()).args(line.split(' ')).stdin(Stdio::null());
        let output = command.output().expect("openssl");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Gives out a token to whoever asks, as often as they do.
fn token_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("an address"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
    let claims = format!("{{\"sub\":\"sporlog\",\"iat\":{now},\"exp\":{},\"scope\":\"kafka\"}}", now + 600);
    let token = format!("{}.{}.", part("{\"alg\":\"none\"}".into()), part(claims));
    let body = format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":600}}");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 8_192]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            );
            let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
        }
    });
    url
}

fn shown(path: &Path) -> String {
    format!("{path:?}")
}

#[test]
#[ignore = "needs Kafka: tests/kafka/run"]
fn tls_scram_and_tokens() {
    let made = Certificates::new();
    let [tls, scram, token, plain, controller] = ports(5)[..] else { panic!("five ports") };
    let at = |name: &str, port: u16| format!("{name}://127.0.0.1:{port}");
    let listeners =
        [at("PLAINTEXT", plain), at("TLS", tls), at("SCRAM", scram), at("TOKEN", token)].join(",");
    let mut cluster = Cluster::formatted_with(
        &[plain],
        &[controller],
        &format!(
            "listeners={listeners},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners={listeners}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TLS:SSL,SCRAM:SASL_SSL,TOKEN:SASL_PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\n\
             ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             listener.name.tls.ssl.client.auth=required\n\
             listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER\n\
             listener.name.token.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";\n",
            made.path("broker-both.pem").display(),
            made.path("ca.pem").display(),
        ),
        &["--add-scram", "SCRAM-SHA-512=[name=sporlog,password=hush]"],
    );
    cluster.start_broker(0);
    cluster.wait();
    cluster.create_topic(TOPIC, 1, &[]);
    let messages = Messages::new(&cluster);
    let (ca, certificate, key, pkcs12) =
        (made.path("ca.pem"), made.path("client.pem"), made.path("client.key"), made.path("client.p12"));
    let scram_as = |password: &str| {
        format!(
            "properties.security.protocol = \"sasl_ssl\"\nproperties.ssl.ca.location = {}\nproperties.sasl.mechanism = \"SCRAM-SHA-512\"\n\
             properties.sasl.username = \"sporlog\"\nproperties.sasl.password = \"{password}\"\n",
            shown(&ca)
        )
    };
    let ways = [
        (
            "pem",
            tls,
            format!(
                "properties.security.protocol = \"ssl\"\nproperties.ssl.ca.location = {}\nproperties.ssl.certificate.location = {}\nproperties.ssl.key.location = {}\n",
                shown(&ca),
                shown(&certificate),
                shown(&key)
            ),
        ),
        (
            "pkcs12",
            tls,
            format!(
                "properties.security.protocol = \"ssl\"\nproperties.ssl.ca.location = {}\nproperties.ssl.keystore.location = {}\n\
                 properties.ssl.keystore.password = \"hush\"\n",
                shown(&ca),
                shown(&pkcs12)
            ),
        ),
        ("scram", scram, scram_as("hush")),
        (
            "token",
            token,
            format!(
                "properties.security.protocol = \"sasl_plaintext\"\nproperties.sasl.mechanism = \"OAUTHBEARER\"\n\
                 properties.sasl.oauthbearer.method = \"oidc\"\nproperties.sasl.oauthbearer.token.endpoint.url = \"{}\"\n\
                 properties.sasl.oauthbearer.client.id = \"sporlog\"\nproperties.sasl.oauthbearer.client.secret = \"hush\"\n\
                 properties.sasl.oauthbearer.scope = \"kafka\"\n",
                token_server()
            ),
        ),
    ];
    for (number, (name, port, settings)) in ways.iter().enumerate() {
        messages.send(TOPIC, 0, None, Some(&disclosure(number as u64, 40)));
        messages.flush();
        let place = Place::with_settings(&cluster, name, "disclosure", settings, "");
        place.redirect(&cluster, *port);
        assert_eq!(place.drain()["accepted"], number + 1, "{name}");
    }
    // Whoever does not know the password does not come in, is told so, and goes on trying.
    let place = Place::with_settings(&cluster, "wrong", "disclosure", &scram_as("guess"), "");
    place.redirect(&cluster, scram);
    let mut running = place.consume();
    place.wait_for("the refusal", || place.said().contains("uthentication failed"));
    assert!(running.is_alive());
    assert!(!place.said().contains("guess"), "{}", place.said());
}
