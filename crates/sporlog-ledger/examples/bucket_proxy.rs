//! A proxy before a bucket, for measurements and for trying commands out: it holds requests up and does them harm.
//!
//! ```text
//! bucket_proxy LISTEN UPSTREAM SHORTEST LONGEST [EACH]
//! bucket_proxy 127.0.0.1:9001 127.0.0.1:9000 20 20
//! ```
//!
//! Times are in milliseconds; of a thousand requests, each fault happens to EACH. The proxy prints its address. A request `MARK NAME` is
//! answered by the number of requests since the last one.

#[path = "../tests/common/proxy.rs"]
mod proxy;

use proxy::{Faults, Proxy};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, shortest, longest, each @ ..] = &args[..] else {
        eprintln!("bucket_proxy LISTEN UPSTREAM SHORTEST LONGEST [EACH]");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let each = each.first().map_or(0, number);
    let delay = (number(shortest), number(longest));
    let faults = Faults {
        delay,
        each,
        conflict: true,
        cut: true,
        slow_down: true,
        lost: true,
        late: true,
        ..Faults::default()
    };
    let proxy = Proxy::start(listen, upstream, faults).await;
    println!("{}", proxy.url);
    std::future::pending::<()>().await;
}
