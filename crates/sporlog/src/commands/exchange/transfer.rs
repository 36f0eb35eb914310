//! What fetching and delivering have in common: the way to the server, and telling how it goes.

use std::io::{self, Write};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use sporlog_exchange::Receipt;
use sporlog_exchange::client::{self, Access, CancellationToken, HostKeys, Identities, Item, Watch};
use sporlog_record::identifier::mask_text;

use crate::cli::ConnectionArgs;
use crate::interrupt::StopSignals;
use crate::output::{INTERRUPTED, Outcome, Output, counted, print_error};
use crate::progress::{Progress, Results};
use crate::session::Session;

/// Refused rows of a receipt that are printed.
const SHOWN_NOTES: usize = 20;

/// The way to the server.
pub fn access(url: &str, args: &ConnectionArgs) -> Result<Access> {
    let host_keys = match (args.host_key.as_slice(), args.known_hosts.as_slice()) {
        ([], []) => HostKeys::usual(),
        ([], files) => HostKeys::Files(files.to_vec()),
        (fingerprints, _) => HostKeys::fingerprints(fingerprints)?,
    };
    Ok(Access {
        address: url.parse()?,
        identities: Identities::of_environment(args.identity.clone()),
        host_keys,
        timeout: Duration::from_secs(args.timeout),
        retries: args.retries,
    })
}

/// Ctrl-C and a request to terminate end the transfer such that the next run goes on with it. A second
/// one ends the process.
pub fn stop_on_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut signals = StopSignals::listen()?;
    let asked = stop.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            signals.recv().await;
            if last {
                print_error("stopped at once; the next run goes on with what is durable");
                process::exit(INTERRUPTED.into());
            }
            asked.cancel();
        }
    });
    Ok(stop)
}

/// Tells how it goes.
pub struct Teller {
    json: bool,
    done: &'static str,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    out: Output,
    /// Where it failed: nobody may be reading any more.
    broken: Option<io::Error>,
    progress: Option<Progress>,
    outcome: Outcome,
    transferred: u64,
    bytes: u64,
    known: u64,
    due: u64,
    amiss: u64,
}

impl Teller {
    /// `done` is what is said of a file that was transferred.
    pub fn new(session: &Session, done: &'static str) -> Result<Self> {
        let state = State {
            out: Output::new()?,
            broken: None,
            progress: None,
            outcome: Outcome::Done,
            transferred: 0,
            bytes: 0,
            known: 0,
            due: 0,
            amiss: 0,
        };
        Ok(Teller { json: session.json, done, started: Instant::now(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summary(&self, state: &State) -> String {
        let files = counted(state.transferred, "file");
        let seconds = self.started.elapsed().as_secs_f64();
        let mut text = format!("{} {files}, {} bytes, in {seconds:.1} s", self.done, state.bytes);
        for (count, what) in [
            (state.due, "to be transferred"),
            (state.known, "transferred before"),
            (state.amiss, "with something amiss"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} {what}"));
            }
        }
        text
    }
}

impl Watch for Teller {
    fn begun(&self, name: &str, bytes: u64) {
        self.state().progress = Some(Progress::bytes(name, Some(bytes), Results::Meanwhile));
    }

    fn at(&self, bytes: u64) {
        if let Some(progress) = &self.state().progress {
            progress.at(bytes);
        }
    }

    fn done(&self, item: &Item) {
        let mut state = self.state();
        state.progress = None;
        state.count(item);
        let written = if self.json { state.out.json(item) } else { print(&mut state.out, item) };
        if let Err(error) = written.and_then(|()| state.out.flush()) {
            state.broken.get_or_insert(error);
        }
        if is_amiss(item) {
            let name = if item.file.is_empty() { &item.remote } else { &item.file };
            let why = if item.note.is_empty() { "the receipt says that not all is well" } else { &item.note };
            print_error(&format!("{name}: {why}"));
        }
    }
}

impl State {
    fn count(&mut self, item: &Item) {
        self.outcome = self.outcome.max(weight(item.outcome));
        if item.transferred {
            self.transferred += 1;
            self.bytes += item.bytes.saturating_sub(item.resumed_at);
        }
        self.known += u64::from(item.outcome == client::Outcome::Known);
        self.due += u64::from(item.outcome == client::Outcome::Due);
        self.amiss += u64::from(is_amiss(item));
    }
}

/// What a file's outcome means for the exit code.
fn weight(outcome: client::Outcome) -> Outcome {
    match outcome {
        client::Outcome::Differs | client::Outcome::Refused => Outcome::Differs,
        client::Outcome::Failed => Outcome::Failed,
        _ => Outcome::Done,
    }
}

fn is_amiss(item: &Item) -> bool {
    matches!(item.outcome, client::Outcome::Differs | client::Outcome::Refused | client::Outcome::Failed)
}

/// A line for people; what is amiss is said on standard error, and what was known beforehand is not news.
fn print(out: &mut Output, item: &Item) -> io::Result<()> {
    let done = match item.outcome {
        client::Outcome::Fetched => "fetched",
        client::Outcome::Sent => "sent",
        client::Outcome::Due => "due",
        _ if item.transferred && item.receipt.is_some() => "sent",
        _ if item.receipt.is_some() => "sent before",
        _ => return Ok(()),
    };
    let name = if item.file.is_empty() { &item.remote } else { &item.file };
    write!(out, "{done:<11} {name}  {} bytes", item.bytes)?;
    if item.resumed_at > 0 {
        write!(out, ", gone on at {}", item.resumed_at)?;
    }
    if item.removed {
        write!(out, ", removed from the server")?;
    }
    if !item.note.is_empty() && !is_amiss(item) {
        write!(out, " ({})", item.note)?;
    }
    writeln!(out)?;
    item.receipt.as_deref().map_or(Ok(()), |receipt| print_receipt(out, receipt))
}

fn print_receipt(out: &mut Output, receipt: &Receipt) -> io::Result<()> {
    let Receipt { delivery, accepted, quarantined, skipped, .. } = receipt;
    let outcome = format!("{:?}", receipt.outcome).to_lowercase();
    writeln!(
        out,
        "            receipt {delivery}: {outcome}; accepted {accepted}, quarantined {quarantined}, skipped {skipped}"
    )?;
    let notes = || receipt.refused.iter().chain(&receipt.quarantined_rows);
    for note in notes().take(SHOWN_NOTES) {
        let field = if note.field.is_empty() { String::new() } else { format!(" {}", note.field) };
        writeln!(out, "            {}:{}:{field} {}", note.line, note.column, mask_text(&note.text))?;
    }
    let more = notes().count().saturating_sub(SHOWN_NOTES);
    if more > 0 { writeln!(out, "            and {more} more, which --json prints") } else { Ok(()) }
}

/// Sums up, and says what the exit code is to say.
pub fn conclude(teller: Teller, ended: Result<(), client::Error>) -> Result<Outcome> {
    let mut state = teller.state();
    state.progress = None;
    // Where nothing could be begun, there is nothing to sum up.
    let is_begun = ended.is_ok() || state.transferred + state.known + state.amiss > 0;
    if !teller.json && state.broken.is_none() && is_begun {
        let summary = teller.summary(&state);
        writeln!(state.out, "{summary}")?;
        state.out.flush()?;
    }
    if let Some(error) = state.broken.take() {
        return Err(error.into());
    }
    match ended {
        Ok(()) => Ok(state.outcome),
        Err(client::Error::Stopped) => {
            print_error("stopped; the next run goes on with what is there");
            Ok(Outcome::Interrupted)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_file_decides() {
        use client::Outcome as Of;
        for (files, outcome) in [
            (&[Of::Fetched, Of::Known, Of::Due][..], Outcome::Done),
            (&[Of::Differs, Of::Sent], Outcome::Differs),
            (&[Of::Refused], Outcome::Differs),
            (&[Of::Failed, Of::Refused, Of::Sent], Outcome::Failed),
        ] {
            let worst = files.iter().map(|file| weight(*file)).max();
            assert_eq!(worst, Some(outcome), "{files:?}");
        }
    }
}
