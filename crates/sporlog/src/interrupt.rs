//! Ctrl-C while something is being taken in: the reading ends, and nothing is stored.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::output::{INTERRUPTED, print_error};

/// How long a source that gives nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether Ctrl-C has come.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, Ctrl-C (and a request to terminate) asks for a clean stop. A second one, or
    /// a source that keeps us waiting, ends the process: the store takes no harm from that, for
    /// what is not committed is not there.
    pub fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let flag = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt(flag.clone());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupts = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminate.recv() => {}
            }
            flag.store(true, Ordering::Release);
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminate.recv() => {}
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
