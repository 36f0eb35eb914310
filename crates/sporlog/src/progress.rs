//! A progress bar on standard error, for work of more than a second, where a person is looking.

use std::io::{IsTerminal, stderr, stdout};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::logging::is_json;

/// Work that is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far some work has come. Gone from the screen when it is dropped.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    wanted: bool,
    shown: AtomicBool,
}

/// Whether results are printed while the work goes on: on a terminal, they would run into the bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Results {
    /// They come at the end.
    After,
    /// They come in between.
    Meanwhile,
}

impl Progress {
    /// Of so many bytes, if that is known.
    pub fn bytes(what: &str, total: Option<u64>, results: Results) -> Self {
        let style = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        Progress::new(what, total, style, results)
    }

    /// Of so many records.
    pub fn records(what: &str, total: u64, results: Results) -> Self {
        Progress::new(what, Some(total), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}", results)
    }

    /// Of records, for work whose extent is known only after a while: called with those that are done and all.
    pub fn of_records(what: &'static str) -> impl Fn(u64, u64) + Send + Sync + 'static {
        let progress = OnceLock::new();
        move |done, total| {
            progress.get_or_init(|| Progress::records(what, total, Results::After)).at(done);
        }
    }

    /// All of the work, where that changes.
    pub fn total(&self, total: u64) {
        self.bar.set_length(total);
    }

    fn new(what: &str, total: Option<u64>, style: &str, results: Results) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        let wanted =
            stderr().is_terminal() && !is_json() && (results == Results::After || !stdout().is_terminal());
        Progress { bar, started: Instant::now(), wanted, shown: AtomicBool::new(false) }
    }

    /// So much is done.
    pub fn at(&self, done: u64) {
        if !self.wanted {
            return;
        }
        if self.started.elapsed() >= PATIENCE && !self.shown.swap(true, Ordering::Relaxed) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
