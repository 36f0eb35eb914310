//! `sporlog deliveries`: who has delivered, and who is late.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveTime, SecondsFormat, Utc};
use sporlog_exchange::monitor::rhythm::{Missing, State, Timeliness};
use sporlog_exchange::monitor::{self, Query, SupplierStatus};
use sporlog_exchange::receipt::{Outcome as Decision, Receipt};
use sporlog_exchange::register::BY_HTTP;
use sporlog_exchange::{Register, Settings};
use sporlog_record::invisible::shown;

use crate::cli::DeliveriesArgs;
use crate::output::{Outcome, Output};
use crate::session::Session;

pub async fn run(session: &Session, args: &DeliveriesArgs) -> Result<Outcome> {
    let unset = Settings::default();
    let settings = match &session.config().sftp {
        Some(settings) => settings,
        // What came by HTTP is in a store's register, too.
        None if args.list && session.store().is_ok() => &unset,
        None => bail!("the configuration has no section [sftp]: it says who delivers"),
    };
    settings.check()?;
    let root = root(session, settings)?;
    known(settings, &root, args)?;
    if args.list { list(session, &root, args) } else { suppliers(session, settings, &root, args) }
}

/// The folder of the exchange. The store is opened only if the folder lies in it.
fn root(session: &Session, settings: &Settings) -> Result<PathBuf> {
    let store = match settings.root {
        Some(_) => None,
        None => session.store()?.directory(),
    };
    Ok(settings.root(store.as_deref())?)
}

/// Fails if a requested account does not exist: a check of no account would always succeed.
fn known(settings: &Settings, root: &Path, args: &DeliveriesArgs) -> Result<()> {
    // An account that was removed from the configuration may have deliveries in the register.
    let delivered =
        if args.list { Register::new(root).accounts().context(unreadable(root))? } else { Vec::new() };
    for name in &args.accounts {
        let configured = settings.account(name).is_some_and(|account| account.is_supplier());
        let by_http = args.list && name.starts_with(BY_HTTP);
        if !configured && !by_http && !delivered.contains(name) {
            bail!("'{}' is no supplier in [sftp]", name.escape_debug());
        }
    }
    Ok(())
}

fn unreadable(root: &Path) -> String {
    format!("reading the register of deliveries in {}", root.display())
}

fn suppliers(session: &Session, settings: &Settings, root: &Path, args: &DeliveriesArgs) -> Result<Outcome> {
    let mut suppliers = monitor::suppliers(settings, root, Utc::now()).with_context(|| unreadable(root))?;
    let is_wanted = |account: &String| args.accounts.is_empty() || args.accounts.contains(account);
    suppliers.retain(|supplier| is_wanted(&supplier.account) && (supplier.is_missed() || !args.late));
    let mut out = Output::new()?;
    if session.json {
        suppliers.iter().try_for_each(|supplier| out.json(supplier))?;
    } else {
        print_suppliers(&mut out, &suppliers)?;
    }
    out.flush()?;
    Ok(if args.late && !suppliers.is_empty() { Outcome::Differs } else { Outcome::Done })
}

fn print_suppliers(out: &mut Output, suppliers: &[SupplierStatus]) -> io::Result<()> {
    if suppliers.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:<24} {:<9} {:<7} {:<20} {:>10} {:>17} {:>7} {:>7}  REMARKS",
        "SUPPLIER", "RHYTHM", "STATE", "LAST", "ROWS", "USUAL", "ERRORS", "REFUSED"
    )?;
    let dash = || "-".to_owned();
    for supplier in suppliers {
        let (name, rhythm, state) = (&supplier.account, supplier.rhythm, supplier.timeliness.state);
        let accepted = supplier.last_accepted.as_ref();
        let last = accepted.map_or_else(dash, |last| moment(last.taken_at));
        let rows = accepted.map_or_else(dash, |last| last.rows.to_string());
        let usual = supplier.volume.usual.map_or_else(dash, |range| format!("{}-{}", range.low, range.high));
        let errors = supplier.error_rate.map_or_else(dash, percent);
        let (refused, remarks) = (supplier.recent.refused, remarks(supplier));
        let line = format!(
            "{name:<24} {rhythm:<9} {state:<7} {last:<20} {rows:>10} {usual:>17} {errors:>7} {refused:>7}  {remarks}"
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn remarks(supplier: &SupplierStatus) -> String {
    let mut remarks = Vec::new();
    let Timeliness { state, late_since, missing, .. } = supplier.timeliness;
    if let Some(since) = late_since.map(moment) {
        let since_when = if state == State::Never { "known since" } else { "missing since" };
        let missing = missing.map(|Missing { from, to, deliveries }| {
            let several = if deliveries == 1 { "delivery" } else { "deliveries" };
            let days = if from == to { from.to_string() } else { format!("{from} to {to}") };
            format!(": {deliveries} {several}, {days}")
        });
        remarks.push(format!("{since_when} {since}{}", missing.unwrap_or_default()));
    }
    if let Some(text) = &supplier.volume.text {
        remarks.push(format!("{} volume: {text}", supplier.volume.volume));
    }
    match supplier.last.as_ref().map(|last| (last.outcome, moment(last.taken_at))) {
        Some((Decision::Refused, at)) => remarks.push(format!("the newest file was refused at {at}")),
        Some((Decision::Repeated, at)) => remarks.push(format!("the file of {at} had come before")),
        _ => {}
    }
    remarks.join("; ")
}

fn list(session: &Session, root: &Path, args: &DeliveriesArgs) -> Result<Outcome> {
    let since = args.since.map(|day| day.and_time(NaiveTime::MIN).and_utc());
    let query = Query { accounts: args.accounts.clone(), since, ..Query::default() };
    let register = Register::new(root);
    let found = monitor::list(&register, &query).with_context(|| unreadable(root))?.unwrap_or_default();
    let mut out = Output::new()?;
    if session.json {
        found.iter().try_for_each(|delivery| out.json(delivery))?;
    } else {
        print_deliveries(&mut out, &found)?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

fn print_deliveries(out: &mut Output, deliveries: &[Receipt]) -> io::Result<()> {
    if deliveries.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{:<20} {:<24} {:<8} {:>10} {:>11} {:>10} {:>13} {:>8} {:<25} FILE",
        "TAKEN", "SUPPLIER", "OUTCOME", "ROWS", "QUARANTINED", "SKIPPED", "BYTES", "SECONDS", "ID"
    )?;
    for delivery in deliveries {
        let Receipt { account, quarantined, skipped, bytes, seconds, delivery: id, .. } = delivery;
        let (taken, rows, file) = (moment(delivery.taken_at), delivery.rows(), shown(&delivery.file));
        let outcome = delivery.outcome;
        writeln!(
            out,
            "{taken:<20} {account:<24} {outcome:<8} {rows:>10} {quarantined:>11} {skipped:>10} {bytes:>13} \
             {seconds:>8.2} {id:<25} {file}"
        )?;
    }
    Ok(())
}

fn moment(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A rate in percent, rounded, but never to zero.
fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    if percent > 0.0 && percent < 0.1 { "<0.1%".to_owned() } else { format!("{percent:.1}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_never_shown_as_nothing() {
        let shown = [0.0, 0.000_01, 0.001, 0.025, 1.0].map(percent);
        assert_eq!(shown, ["0.0%", "<0.1%", "0.1%", "2.5%", "100.0%"]);
    }
}
