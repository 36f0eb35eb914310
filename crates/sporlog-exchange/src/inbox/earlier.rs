//! Which earlier deliveries a receipt names: those of the same account that the register has. Of rows that
//! came from other accounts, or by other ways than SFTP, only the time of receipt is told.

use chrono::{DateTime, Utc};

use super::claim::Claim;
use crate::receipt::{Earlier, Outcome, Receipt};
use crate::register::Register;
use crate::settings::Account;
use sporlog_intake::blocking::blocking;
use sporlog_intake::{Error, Result};
use sporlog_ledger::ReceivedBefore;

/// The delivery that the same bytes were accepted with, which are in the log since `since`.
pub(super) async fn with_digest(
    register: &Register,
    account: &Account,
    claim: &Claim,
    sha256: &str,
    since: DateTime<Utc>,
) -> Result<Earlier> {
    let (sha256, this) = (sha256.to_owned(), claim.id.clone());
    let has_digest = move |receipt: &Receipt| {
        receipt.sha256 == sha256 && receipt.outcome == Outcome::Accepted && receipt.delivery != this
    };
    let earlier = deliveries(register, account, has_digest).await?;
    let receipt = earlier.first();
    let received_at = receipt.and_then(|receipt| receipt.received_at).unwrap_or(since);
    let (delivery, file) = receipt.map(|receipt| (receipt.delivery.clone(), receipt.file.clone())).unzip();
    Ok(Earlier { delivery, file, received_at, rows: None })
}

/// The deliveries that these rows of the log came in, oldest first.
pub(super) async fn overlapped(
    register: &Register,
    account: &Account,
    received: &[ReceivedBefore],
) -> Result<Vec<Earlier>> {
    if received.is_empty() {
        return Ok(Vec::new());
    }
    let contains = |receipt: &Receipt, rows: &ReceivedBefore| {
        let ids = receipt.first_id.zip(receipt.last_id);
        ids.is_some_and(|(first, last)| first <= rows.first_id && rows.last_id <= last)
    };
    let wanted = received.to_vec();
    let wanted = move |receipt: &Receipt| wanted.iter().any(|rows| contains(receipt, rows));
    let known = deliveries(register, account, wanted).await?;
    let named = |rows: &ReceivedBefore| {
        let receipt = known.iter().find(|receipt| contains(receipt, rows))?;
        Some((receipt.delivery.clone(), receipt.file.clone()))
    };
    Ok(Earlier::deliveries(received, named))
}

/// The account's deliveries in the register that are `wanted`, oldest first.
async fn deliveries(
    register: &Register,
    account: &Account,
    wanted: impl Fn(&Receipt) -> bool + Send + 'static,
) -> Result<Vec<Receipt>> {
    let (register, account) = (register.clone(), account.name.clone());
    blocking(move || {
        let mut found = Vec::new();
        let read = register.each(&account, |receipt| {
            if wanted(&receipt) {
                found.push(receipt);
            }
        });
        read.map_err(|source| Error::Read { name: format!("register of deliveries of {account}"), source })?;
        Ok(found)
    })
    .await
}
