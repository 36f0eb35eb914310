//! Ctrl-C, and a request to terminate: what each has a command do.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::{INTERRUPTED, print_error};

/// How long a source that gives nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ctrl-C and requests to terminate.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on, they do not end the process.
    pub fn listen() -> std::io::Result<Self> {
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until a task that takes in a stream has ended, and has it stop at the first signal. The second one ends the
/// process. Whether there was a signal is given, too.
pub async fn until_asked<T, R>(
    mut task: T,
    ended: impl AsyncFnOnce(&mut T) -> R,
    stop: impl AsyncFnOnce(T) -> R,
    mut signals: StopSignals,
) -> (R, bool) {
    tokio::select! {
        ended = ended(&mut task) => return (ended, false),
        () = signals.recv() => {}
    }
    tokio::select! {
        stopped = stop(task) => (stopped, true),
        () = signals.recv() => {
            print_error("stopped at once: what is not stored is read again the next time");
            process::exit(INTERRUPTED.into());
        }
    }
}

/// Whether Ctrl-C has come while files are taken in: then the reading ends, and nothing is stored.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, Ctrl-C (and a request to terminate) asks for a clean stop. A second one, or
    /// a source that keeps us waiting, ends the process: the store takes no harm from that, for
    /// what is not committed is not there.
    pub fn listen() -> std::io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt(flag.clone());
        let mut signals = StopSignals::listen()?;
        tokio::spawn(async move {
            signals.recv().await;
            flag.store(true, Ordering::Release);
            tokio::select! {
                () = signals.recv() => {}
                () = tokio::time::sleep(PATIENCE) => {}
            }
            print_error("stopped at once; import the file again: what is in the log already is recognised");
            process::exit(INTERRUPTED.into());
        });
        Ok(interrupt)
    }

    /// What a source looks at while it is read.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
