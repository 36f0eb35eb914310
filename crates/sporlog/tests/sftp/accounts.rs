//! Who gets in, and what they can do there besides exchanging files: nothing.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::client::{finish, quoted, tool};
use crate::rows::csv;
use crate::site::{DELIVERS, MUNICIPALITY, SUPPLIER, Site, free_port, wait};

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn only_an_accounts_own_key_opens_it() {
    let site = Site::with(
        "settle_seconds = 1\n",
        &[(SUPPLIER, DELIVERS), ("another", DELIVERS), ("keyless", DELIVERS)],
    );
    site.new_key("stranger");
    let server = site.serve();
    site.client(SUPPLIER).put(&site.file("mine.part", "mine"));
    site.client("another").put(&site.file("theirs.part", "theirs"));
    assert_eq!(site.client(SUPPLIER).list("ind"), ["mine.part"]);
    assert_eq!(site.client("another").list("ind"), ["theirs.part"]);
    let refusal = |user: &str, key: &str| {
        let ran = site.client_with(user, key).sftp("ls").fails();
        ran.err.replace(user, "USER")
    };
    let wrong = refusal(SUPPLIER, "stranger");
    assert!(wrong.contains("Permission denied (publickey)"), "{wrong}");
    // Who does not exist cannot be told from who has another key.
    for (user, key) in [
        ("nobody", "stranger"),
        ("root", "stranger"),
        (SUPPLIER, "another"),
        ("KY-LEVERANDOER", SUPPLIER),
        ("another/../ky-leverandoer", SUPPLIER),
    ] {
        assert_eq!(refusal(user, key), wrong, "{user} {key}");
    }
    // No other way in is even offered.
    for methods in ["password", "keyboard-interactive", "none", "hostbased", "gssapi-with-mic"] {
        let client = site
            .client(SUPPLIER)
            .option("LogLevel=DEBUG1")
            .option(&format!("PreferredAuthentications={methods}"));
        let ran =
            client.ssh(&["-s"], &["sftp"]).fails().says("Authentications that can continue: publickey\r\n");
        assert!(
            !ran.err.contains("Authentication succeeded") && !ran.err.contains("Authenticated to"),
            "{ran:?}"
        );
    }
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn accounts_come_go_and_change_while_the_server_runs() {
    let site =
        Site::with("settle_seconds = 1\n", &[(SUPPLIER, DELIVERS), ("stays", DELIVERS), ("goes", DELIVERS)]);
    let server = site.serve();
    let busy = |account: &str| site.client(account).start_sftp(&[], "ls\n!sleep 4\nls\n");
    let sessions = [SUPPLIER, "stays", "goes"].map(busy);
    wait("three sessions", || (server.said().matches("SFTP: signed in").count() == 3).then_some(()));
    let before = std::fs::read_to_string(site.path("sporlog.toml")).expect("read");
    let (kept, _) = before.split_once("[[sftp.account]]\nname = \"goes\"").expect("the last account");
    let old_key = std::fs::read_to_string(site.path("keys").join(format!("{SUPPLIER}.pub"))).expect("read");
    let kept = kept.replace(old_key.trim(), &site.new_key("new"));
    let comes =
        format!("[[sftp.account]]\nname = \"comes\"\nkeys = [\"{}\"]\n{DELIVERS}\n", site.new_key("comes"));
    std::fs::write(site.path("sporlog.toml"), kept + &comes).expect("written");
    server.hang_up();
    wait("the new account", || site.client("comes").sftp("ls\n").ok.then_some(()));
    site.client_with(SUPPLIER, "new").sftp("ls\n").ok();
    for account in [SUPPLIER, "goes"] {
        site.client(account).sftp("ls\n").fails().says("Permission denied");
    }
    // What the new account delivers is taken, as is what comes from one that stayed.
    for (n, account) in ["comes", "stays"].into_iter().enumerate() {
        let name = format!("{account}.csv");
        site.client(account).put(&site.file(&name, csv(n..n + 1)));
        assert_eq!(site.receipts_of(account, &name, 1)[0]["outcome"], "accepted");
    }
    // Sessions of accounts that changed or went have been ended, and of no other.
    let [changed, stayed, gone] = sessions.map(finish);
    changed.fails();
    stayed.ok();
    gone.fails();
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn there_is_no_shell_and_no_forwarding() {
    let site = Site::new();
    let _server = site.serve();
    let client = site.client(SUPPLIER).option("ConnectTimeout=5");
    let canary = site.path("canary");
    let touch = format!("touch {}", canary.display());
    for behind in [
        &["ls"][..],
        &["cat /etc/passwd"],
        &[&touch],
        &["scp -t ind"],
        &["rsync --server . ."],
        &["internal-sftp"],
        &[],
    ] {
        let ran = client.ssh(&[], behind);
        assert!(!ran.ok && ran.out.is_empty(), "{behind:?}: {ran:?}");
    }
    let ran = client.ssh(&["-tt"], &[]);
    assert!(!ran.ok && ran.out.is_empty(), "{ran:?}");
    for subsystem in ["shell", "netconf", "sftp; ls", "SFTP "] {
        client.ssh(&["-s"], &[subsystem]).fails();
    }
    assert!(!canary.exists());
    // To where the server could go: nothing arrives there.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let target = listener.local_addr().expect("an address");
    client.ssh(&["-W", &target.to_string()], &[]).fails();
    let port = free_port();
    let mut command = client.ssh_command(&["-N", "-L", &format!("{port}:{target}")], &[]);
    let mut forwarding = command.stderr(Stdio::null()).spawn().expect("ssh");
    let stream = wait("ssh listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let read = (&stream).read(&mut [0]);
    let _ = forwarding.kill();
    let _ = forwarding.wait();
    assert!(!matches!(read, Ok(1..)), "{read:?}");
    assert!(listener.accept().is_err(), "the server has connected");
    // And from there to here.
    let back = format!("{}:{target}", free_port());
    let ran = finish(
        client
            .ssh_command(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", &back], &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ssh"),
    );
    assert!(!ran.ok, "{ran:?}");
    // It serves on.
    assert_eq!(site.client(SUPPLIER).list("/"), ["ind", "kvittering"]);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_hundred_wrong_keys_slow_down_whoever_tries_them() {
    let site = Site::new();
    let server = site.serve();
    let wrong: Vec<_> = (0..100).map(|n| format!("wrong-{n}")).collect();
    wrong.iter().for_each(|name| drop(site.new_key(name)));
    site.client(SUPPLIER).sftp("ls").ok();
    // Five on a connection, from an address of their own, for ten seconds.
    let (begun, mut tried) = (Instant::now(), 0);
    let from = |key: &str| {
        let client = site.client_with(SUPPLIER, key).option("BindAddress=127.0.0.9");
        client.option("ConnectTimeout=20").option("LogLevel=DEBUG1")
    };
    while tried < wrong.len() && begun.elapsed() < Duration::from_secs(10) {
        let keys = &wrong[tried..(tried + 5).min(wrong.len())];
        let client = keys[1..].iter().fold(from(&keys[0]), |client, key| {
            client.option(&format!("IdentityFile={}", site.key(key).display()))
        });
        let ran = client.ssh(&["-s"], &["sftp"]);
        assert!(!ran.ok, "{ran:?}");
        tried += ran.err.matches("Offering public key").count();
    }
    println!("{tried} wrong keys tried within {:?}", begun.elapsed());
    // Without a slow-down all of them would have been.
    assert!((10..60).contains(&tried), "{tried}");
    // Others are not concerned.
    let begun = Instant::now();
    site.client(SUPPLIER).sftp("ls").ok();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // And the right key opens from there, too, in the end.
    crate::site::wait_for(Duration::from_secs(60), "the right key from there", || {
        from(SUPPLIER).sftp("ls").ok.then_some(())
    });
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn another_host_key_is_noticed() {
    let site = Site::new();
    let server = site.serve();
    let client = site.client(SUPPLIER);
    client.sftp("ls").ok();
    server.stop();
    // The same after a start anew.
    let server = site.serve();
    client.sftp("ls").ok();
    server.stop();
    // One that is not what the client knows.
    let config = std::fs::read_to_string(site.path("sporlog.toml")).expect("read");
    site.new_key("host-a");
    let set = config.replace("[sftp]\n", "[sftp]\nhost_keys = [\"keys/host-a\"]\n");
    std::fs::write(site.path("sporlog.toml"), set).expect("written");
    let server = site.serve();
    client.sftp("ls").fails().says("HOST IDENTIFICATION HAS CHANGED");
    // Whoever knows this one gets in.
    let public = std::fs::read_to_string(site.path("keys/host-a.pub")).expect("read");
    std::fs::write(site.path("known_hosts"), format!("[127.0.0.1]:{} {public}", site.port)).expect("written");
    client.clone().option("StrictHostKeyChecking=yes").sftp("ls").ok();
    server.stop();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn keys_of_all_usual_kinds_open() {
    let site = Site::new();
    let mut more = Vec::new();
    for (name, kind) in [
        ("rsa", ["-t", "rsa", "-b", "3072"]),
        ("p256", ["-t", "ecdsa", "-b", "256"]),
        ("p384", ["-t", "ecdsa", "-b", "384"]),
    ] {
        let mut command = tool("ssh-keygen");
        command.args(["-q", "-N", "", "-C", name]).args(kind).arg("-f").arg(site.key(name));
        assert!(command.status().expect("ssh-keygen").success());
        let public = std::fs::read_to_string(site.path(format!("keys/{name}.pub"))).expect("read");
        more.push(format!("\"{}\"", public.trim()));
    }
    let config = std::fs::read_to_string(site.path("sporlog.toml")).expect("read");
    let config = config.replacen("keys = [", &format!("keys = [{}, ", more.join(", ")), 1);
    std::fs::write(site.path("sporlog.toml"), config).expect("written");
    let _server = site.serve();
    for key in ["rsa", "p256", "p384", SUPPLIER] {
        site.client_with(SUPPLIER, key).sftp("ls").ok();
    }
    site.client_with(MUNICIPALITY, "rsa").sftp("ls").fails();
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_receipt_is_to_be_read_only() {
    let site = Site::new();
    let _server = site.serve();
    let client = site.client(SUPPLIER);
    let file = site.file("f.csv", csv(0..3));
    client.put(&file);
    site.receipt("f.csv");
    let before = client.get("kvittering/f.csv.kvittering.json");
    for batch in [
        format!("put {} kvittering/f.csv.kvittering.json", quoted(&file)),
        format!("put {} kvittering/", quoted(&file)),
        format!("put {} /", quoted(&file)),
        "rm kvittering/f.csv.kvittering.json".to_owned(),
        "rename kvittering/f.csv.kvittering.json kvittering/x".to_owned(),
        "rename kvittering/f.csv.kvittering.json ind/x.csv".to_owned(),
        "rmdir kvittering".to_owned(),
    ] {
        client.sftp(&batch).fails();
    }
    assert_eq!(client.get("kvittering/f.csv.kvittering.json"), before);
    // A file's mode or owner cannot be set on it, whatever is answered to that.
    let _ = client.sftp("chmod 000 kvittering/f.csv.kvittering.json");
    let _ = client.sftp("chown 65534 kvittering/f.csv.kvittering.json");
    assert_eq!(client.get("kvittering/f.csv.kvittering.json"), before);
}
