//! `sporlog exchange`: takes deliveries from folders that another SFTP server serves.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use sporlog_exchange::inbox::Mode;
use sporlog_exchange::receipt::Outcome as DeliveryOutcome;
use sporlog_exchange::{LiveSettings, Receipt};
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::writers::OwnWriters;

use crate::cli::ExchangeArgs;
use crate::exchange::{Exchange, configured};
use crate::interrupt::StopSignals;
use crate::output::{Outcome, Output, inform};
use crate::reload::{self, Live};
use crate::session::Session;

pub async fn run(session: &Session, args: &ExchangeArgs) -> Result<Outcome> {
    let store = session.store_or_new()?;
    let (settings, root) = configured(session, &store)?;
    let live = LiveSettings::from(settings.clone());
    let mut signals = StopSignals::listen()?;
    let writers = OwnWriters::new(store.clone());
    let quarantine = Quarantine::new(store.clone());
    let receipts = Arc::new(Mutex::new(Output::new()?));
    let all_good = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let on_receipt = {
        let (receipts, all_good, json) = (receipts.clone(), all_good.clone(), session.json);
        move |receipt: &Receipt| {
            if receipt.outcome == DeliveryOutcome::Refused || receipt.quarantined > 0 {
                all_good.store(false, std::sync::atomic::Ordering::Relaxed);
            }
            let mut out = receipts.lock().unwrap_or_else(PoisonError::into_inner);
            // A closed standard output does not end the taking of deliveries.
            let _ = print(&mut out, receipt, json);
        }
    };
    let mode = if args.once { Mode::Once } else { Mode::Forever };
    let mut exchange = Exchange::start(
        session,
        &store,
        (live.clone(), root.clone()),
        Arc::new(writers.clone()),
        quarantine.clone(),
        mode,
        on_receipt,
    )
    .await?;
    let suppliers = settings.accounts.iter().filter(|account| account.is_supplier()).count();
    if mode == Mode::Forever {
        inform(&format!(
            "watching the folders of {suppliers} suppliers; the exchange is in {}",
            root.display()
        ));
    }
    let reloading =
        reload::follow(session.global().clone(), Live { exchange: Some(live), ..Live::default() })?;
    let ended = tokio::select! {
        ended = exchange.inbox.ended() => Some(ended),
        () = signals.recv() => None,
        () = reloading => None,
    };
    let stuck = exchange.inbox.stuck();
    let stopped = exchange.stop().await;
    let closed = writers.close().await;
    quarantine.close().await?;
    let interrupted = ended.is_none();
    ended.unwrap_or(Ok(()))?;
    stopped?;
    closed?;
    let all_good = all_good.load(std::sync::atomic::Ordering::Relaxed);
    Ok(match (mode, interrupted) {
        (Mode::Once, true) => Outcome::Interrupted,
        (Mode::Once, false) if stuck > 0 => Outcome::Failed,
        (Mode::Once, false) if !all_good => Outcome::Differs,
        _ => Outcome::Done,
    })
}

/// A line for each delivery.
fn print(out: &mut Output, receipt: &Receipt, json: bool) -> Result<()> {
    if json {
        out.json(&receipt.brief())?;
    } else {
        let Receipt { account, file, accepted, quarantined, skipped, delivery, .. } = receipt;
        let outcome = receipt.outcome;
        writeln!(
            out,
            "{outcome}  {account}  {file}  {accepted} rows  {quarantined} quarantined  {skipped} skipped  {delivery}"
        )?;
    }
    Ok(out.flush()?)
}
