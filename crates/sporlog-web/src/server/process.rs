//! The process: how many files it may have open, what it uses, and what the service manager is told.

use std::fmt::Write;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files that may be open at once to what the system allows: each connection is
/// one. Gives the number that holds from now on; `None` is any number.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the number of open files stays limited");
        return current;
    }
    maximum
}

/// How many files may be open at once; `None` is any number.
pub(super) fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// What Prometheus' own clients tell of a process, and Sporlog's version, in its text format. What cannot be read
/// from `/proc` is left out. Blocks.
pub(super) fn exposition() -> String {
    // The kernel's unit of `/proc/<pid>/stat`, on every architecture that Sporlog is built for.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the program's name, which may have anything in it; the first is `state`, proc(5)'s third.
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or_default().split(' ').map(number).collect();
    let field = |number: usize| fields.get(number - 2).copied();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS_A_SECOND);
    let version = format!("sporlog_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let mut text = String::new();
    for (series, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "User and system CPU time, in seconds", cpu),
        ("process_resident_memory_bytes", "gauge", "Resident memory", resident.map(|kb| number(kb) * 1024.0)),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory", field(23)),
        ("process_threads", "gauge", "Threads", field(20)),
        ("process_open_fds", "gauge", "Open files", open),
        ("process_max_fds", "gauge", "Files that may be open", open_files().map(|files| files as f64)),
        ("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970", started()),
        (&*version, "gauge", "Always 1; the label is the version", Some(1.0)),
    ] {
        if let Some(value) = value {
            let name = series.split('{').next().unwrap_or(series);
            // Writing into a text cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{series} {value}\n");
        }
    }
    text
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap_or(f64::NAN)
}

/// When this was called first, which is when the process started to collect metrics.
pub(super) fn started() -> Option<f64> {
    static STARTED: OnceLock<Option<f64>> = OnceLock::new();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
    *STARTED.get_or_init(now)
}

/// Tells systemd how things stand, as `sd_notify` does (`READY=1`, `STOPPING=1`); nothing happens
/// where no `$NOTIFY_SOCKET` is set.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || {
        let bytes = path.as_encoded_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "the service manager could not be told: {state}");
    }
}
