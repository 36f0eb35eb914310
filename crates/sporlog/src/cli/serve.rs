//! What `sporlog serve` takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Serve the logs over HTTP.
///
/// Listens on 127.0.0.1:8080, plain HTTP, unless something else is said. No configuration file is
/// needed; `sporlog config example` prints one with all that may be set. Whoever reads or delivers
/// records needs a key (`sporlog apikey create`) or a token of a configured issuer; the transparency
/// logs are open to anyone.
///
/// With [pages] in the configuration, persons see their own log: / is where they begin. With --demo-people
/// anybody tries these pages.
///
/// The paths: /api/docs is a page to try the API, described in /api/openapi.json. /health/live,
/// /health/ready and /metrics (with a key of the role metrics) are for those who operate it.
///
/// Ctrl-C or SIGTERM ends it when what is under way is answered; SIGHUP has
/// the configuration and the TLS certificate read again, and the log says what of it needs a restart.
#[derive(Debug, Args)]
#[command(after_help = super::examples::SERVE)]
pub struct ServeArgs {
    /// The address and port to listen on; port 0 is any that is free [default: 127.0.0.1:8080]
    #[arg(short, long, value_name = "ADDR", env = "SPORLOG_LISTEN", hide_env_values = true, value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// Show the pages for persons, and let anybody be one of the people in this file, who do not exist. On a loopback
    /// address only
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub demo_people: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "an address and a port are expected, such as 127.0.0.1:8080")
}
