//! Results on standard output, failures on standard error, and what the exit code says.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use serde::Serialize;

use crate::logging;

/// What came of a command that could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All was done.
    Done,
    /// It was done, and something was refused or differs.
    Differs,
    /// Part of it could not be done, as has been said on standard error.
    Failed,
    /// Ctrl-C came in between.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        ExitCode::from(match outcome {
            Outcome::Done => 0,
            Outcome::Differs => 1,
            Outcome::Failed => COULD_NOT_RUN,
            Outcome::Interrupted => INTERRUPTED,
        })
    }
}

/// The exit code of a command that could not run.
const COULD_NOT_RUN: u8 = 2;
/// The exit code after Ctrl-C, as shells have it: 128 and the signal's number.
pub const INTERRUPTED: u8 = 130;

/// Says why a command could not run. A reader that has had enough (`| head`) is no failure.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    print_error(&explain(error));
    ExitCode::from(COULD_NOT_RUN)
}

/// An error and its causes, but for those that the error before has put into its own words.
pub fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A message on standard error. What is quoted in it may hold a personal number, so it is masked.
pub fn print_error(message: &str) {
    logging::print("ERROR", message);
}

/// A message on standard error about something that is no failure. `--quiet` leaves it out.
pub fn note(message: &str) {
    if !logging::is_quiet() {
        logging::print("WARN", &format!("note: {message}"));
    }
}

/// Where to look, behind the number of records that were refused.
pub fn refused_hint(refused: u64) -> &'static str {
    if refused > 0 { "; `sporlog quarantine list` says why" } else { "" }
}

/// A message on standard error that says what the program does now, whatever is asked for.
pub fn inform(message: &str) {
    logging::print("INFO", message);
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken)
}

/// Standard output, buffered in large pieces. Flush it at the end: only then failures show.
pub struct Output(BufWriter<File>);

impl Output {
    /// Standard output.
    pub fn new() -> io::Result<Self> {
        // Rust's own handle looks for line ends in all that passes, which is felt at 1 GB/s.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Output(BufWriter::with_capacity(256 << 10, file)))
    }

    /// One JSON value on a line.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, value)?;
        self.0.write_all(b"\n")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A time of receipt, RFC 3339.
pub fn utc(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// `1 record`, `2 records`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_found_below_other_errors() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let wrapped = sporlog_intake::Error::Read { name: "standard output".into(), source: pipe };
        assert!(is_broken_pipe(&anyhow::Error::new(wrapped).context("check")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("something else")));
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("no such file").context("day.csv: no such file").context("import");
        assert_eq!(explain(&error), "import: day.csv: no such file");
    }

    #[test]
    fn the_worse_outcome_wins() {
        assert!(Outcome::Done < Outcome::Differs && Outcome::Differs < Outcome::Failed);
    }
}
