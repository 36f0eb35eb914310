//! Which earlier deliveries a receipt names: those of the same account that the register has. Of rows that
//! came from other accounts, or by other ways than SFTP, only the time of receipt is told.

use chrono::{DateTime, Utc};

use super::claim::Claim;
use crate::overlap::{Found, Hit};
use crate::receipt::{Earlier, Outcome, Receipt};
use crate::register::Register;
use crate::settings::Account;
use sporlog_intake::blocking::blocking;
use sporlog_intake::{Error, Result};

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
    Ok(name(receipt, received_at, None))
}

/// The deliveries that the rows found came in, oldest first.
pub(super) async fn overlapped(
    register: &Register,
    account: &Account,
    found: &Found,
) -> Result<Vec<Earlier>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let contains = |receipt: &Receipt, hit: &Hit| {
        let ids = receipt.first_id.zip(receipt.last_id);
        ids.is_some_and(|(first, last)| first <= hit.first_id && hit.last_id <= last)
    };
    let hits = found.runs().to_vec();
    let earlier = deliveries(register, account, move |receipt| hits.iter().any(|hit| contains(receipt, hit)));
    let earlier = earlier.await?;
    let named = found.runs().iter().map(|hit| {
        let receipt = earlier.iter().find(|receipt| contains(receipt, hit));
        name(receipt, hit.received_at, Some(hit.rows))
    });
    Ok(named.collect())
}

fn name(receipt: Option<&Receipt>, received_at: DateTime<Utc>, rows: Option<u64>) -> Earlier {
    Earlier {
        delivery: receipt.map(|receipt| receipt.delivery.clone()),
        file: receipt.map(|receipt| receipt.file.clone()),
        received_at,
        rows,
    }
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
