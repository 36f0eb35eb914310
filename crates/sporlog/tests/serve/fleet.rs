//! Three servers over one bucket behind a load balancer, none of which has a state of its own: what one of them has acknowledged
//! each of them shows, once and in order, whichever is killed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::fire::Fire;
use super::server::{PATIENCE, Server, Site};

const SERVERS: usize = 3;

/// A port that nothing listens on.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// haproxy before the servers at these addresses: whichever is ready gets the next connection.
struct Balancer {
    child: Child,
    address: SocketAddr,
}

impl Balancer {
    fn start(site: &Site, servers: &[SocketAddr]) -> Self {
        let address = free();
        let mut text = format!(
            "defaults\n mode http\n timeout connect 1s\n timeout client 30s\n timeout server 30s\n\
             frontend all\n bind {address}\n default_backend servers\n\
             backend servers\n balance roundrobin\n option httpchk GET /health/ready\n retries 0\n"
        );
        for (n, server) in servers.iter().enumerate() {
            text.push_str(&format!(" server server-{n} {server} check inter 200ms fall 1 rise 1\n"));
        }
        let file = site.path("haproxy.cfg");
        std::fs::write(&file, text).expect("written");
        let mut haproxy = Command::new("haproxy");
        let child = haproxy.arg("-q").arg("-f").arg(file).stdin(Stdio::null()).spawn();
        let balancer = Balancer { child: child.expect("haproxy starts"), address };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err()
            || super::raw::status(&super::raw::get(address, "/health/ready", "")) != 200
        {
            assert!(Instant::now() < until, "no server is ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        balancer
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a bucket and haproxy: tests/servers/run"]
async fn nothing_is_lost_or_doubled_among_three_servers_that_are_killed() {
    let site = Site::new();
    site.print(&["logs", "create", "access", "disclosure", "quarantine"]);
    let addresses = [(); SERVERS].map(|()| free());
    let (reads, writes) = (site.key("reader", "read", &[]), site.key("writer", "write", &[]));
    // Each has a copy of the keys, as on a machine of its own.
    for n in 0..SERVERS {
        let keys = site.path(format!("keys-{n}"));
        std::fs::create_dir(&keys).expect("made");
        for file in std::fs::read_dir(site.path("keys")).expect("keys").flatten() {
            std::fs::copy(file.path(), keys.join(file.file_name())).expect("copied");
        }
    }
    let start = |n: usize| {
        let (keys, address) = (format!("keys-{n}"), addresses[n].to_string());
        site.serve_at(&keys, &address)
    };
    let mut servers: Vec<Option<Server>> = (0..SERVERS).map(|n| Some(start(n))).collect();
    let balancer = Balancer::start(&site, &addresses);
    let url = format!("http://{}", balancer.address);
    // Every reader has a server of its own: there, too, what was acknowledged by any is seen.
    let fire = Fire::start(&url, &reads, &writes, &|n| match n {
        0 => url.clone(),
        n => format!("http://{}", addresses[n % SERVERS]),
    });
    for kill in 0..6 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let n = kill * 2 % SERVERS;
        tokio::task::block_in_place(|| {
            let server = servers[n].take().expect("it runs");
            if kill % 3 == 2 {
                drop(server.stop())
            } else {
                server.kill()
            }
            servers[n] = Some(start(n));
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (count, readers) = fire.end().await;
    tokio::task::block_in_place(|| {
        servers.into_iter().flatten().for_each(|server| drop(server.stop()));
        assert_eq!(site.entries("disclosure").len() as u64, count);
        site.verify("disclosure");
        site.verify("access");
    });
    println!("{count} records, {readers} readers, {SERVERS} servers");
}
