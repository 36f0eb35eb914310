//! For how long records are kept: `[retention]` in the configuration.
//!
//! ```toml
//! [retention]              # months from their receipt
//! "disclosure*" = 120
//! access = 60
//! ```
//!
//! Whole months of receipt are removed, so that a record is kept for as many months as are given, and for one more at most.
//! Each removal is a record in the log `access`, made beforehand, and a signed note in the log itself. A log that is not named
//! keeps all.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Months, Utc};
use serde::Deserialize;
use sporlog_intake::access_event::AccessEvent;
use sporlog_intake::{expiry, writers};
use sporlog_ledger::{is_log_name, matches};

use crate::Catalog;

/// How often records are looked for whose time is over.
const EVERY: Duration = Duration::from_hours(1);
/// Who removes them, for the log `access`.
const PERFORMER: &str = "sporlog";

/// The section `[retention]`: months by log. In a log's name, `*` stands for anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Retention(BTreeMap<String, NonZeroU32>);

impl Retention {
    /// Fails, with the reason, if one of the names cannot be a log's.
    pub fn check(&self) -> Result<(), String> {
        let wrong = self.0.keys().find(|name| !is_log_name(&name.replace('*', "a")));
        wrong.map_or(Ok(()), |name| Err(format!("'{name}' is no name of a log, nor one with * in it")))
    }

    /// The names for which months are given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The months of a log: those of its own name, or else the most that a name with `*` gives.
    fn months(&self, log: &str) -> Option<Months> {
        let patterns =
            || self.0.iter().filter(|(name, _)| matches(name, log)).map(|(_, months)| *months).max();
        self.0.get(log).copied().or_else(patterns).map(|months| Months::new(months.get()))
    }

    /// Removes records whose time is over, again and again. Never returns.
    pub async fn follow(&self, catalog: &Catalog) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        loop {
            self.apply(catalog, Utc::now()).await;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn apply(&self, catalog: &Catalog, now: DateTime<Utc>) {
        let names = catalog.names().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "it cannot be seen which logs have records whose time is over");
            Vec::new()
        });
        for log in names {
            let Some(month) = self.months(&log).and_then(|months| now.checked_sub_months(months)) else {
                continue;
            };
            let before = month.format("%Y-%m").to_string();
            match expire(catalog, &log, &before).await {
                Ok(0) => {}
                Ok(records) => tracing::info!(log, before, records, "removed records whose time is over"),
                Err(error) => {
                    tracing::error!(log, before, %error, "records whose time is over cannot be removed");
                    catalog.forget(&log).await;
                }
            }
        }
    }
}

/// Removes the records of a log that were received before the month, and says how many.
async fn expire(catalog: &Catalog, log: &str, before: &str) -> sporlog_intake::Result<u64> {
    let due = catalog.log(log).await?.is_some_and(|log| log.expirable(before).records > 0);
    if !due {
        return Ok(0);
    }
    let writer = catalog.writer(log).await?;
    let expired = expiry::expire(&writer, before, async |message, parameters| {
        let event = AccessEvent {
            performer: PERFORMER,
            action: expiry::ACTION,
            subject: None,
            address: None,
            correlation: None,
            message,
            parameters,
        };
        writers::record_access(catalog, &event).await
    });
    Ok(expired.await?.records)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sporlog_ledger::{Append, Store, StoreOptions};

    use super::*;

    fn retention(json: serde_json::Value) -> Retention {
        serde_json::from_value(json).expect("settings")
    }

    #[test]
    fn a_logs_own_name_counts_or_else_the_longest_time() {
        let kept = retention(json!({ "disclosure*": 12, "*": 24, "access": 6 }));
        let months = |log| kept.months(log);
        assert_eq!(months("access"), Some(Months::new(6)));
        assert_eq!(months("disclosure-1"), Some(Months::new(24)));
        assert_eq!(retention(json!({ "access": 6 })).months("revision"), None);
        assert!(kept.check().is_ok() && retention(json!({ "No log": 1 })).check().is_err());
        assert!(serde_json::from_value::<Retention>(json!({ "access": 0 })).is_err());
    }

    #[tokio::test]
    async fn what_is_over_is_removed_and_that_is_on_record() {
        let place = tempfile::tempdir().expect("a folder");
        let address = place.path().join("store").display().to_string();
        let store =
            Store::open(StoreOptions { address, create: true, ..StoreOptions::default() }).expect("a store");
        let declared = [("other".to_owned(), sporlog_record::Kind::Auditlog)];
        let catalog = Catalog::new(store, declared);
        let event = AccessEvent {
            performer: "a",
            action: "READ",
            subject: None,
            address: None,
            correlation: None,
            message: String::new(),
            parameters: json!({}),
        };
        for log in ["auditlog", "other"] {
            let append = Append { rows: event.row().expect("a row"), positions: Vec::new() };
            catalog.append(log, append).await.expect("appended");
        }
        let left = async |log: &str| {
            let log = catalog.log(log).await.expect("opened")?;
            Some((log.first(), log.head()))
        };
        let kept = retention(json!({ "auditlog": 12, "revision": 1 }));
        let in_months = |months| Utc::now() + Months::new(months);
        kept.apply(&catalog, in_months(12)).await;
        assert_eq!((left("auditlog").await, left("access").await), (Some((1, 1)), None));
        kept.apply(&catalog, in_months(13)).await;
        kept.apply(&catalog, in_months(13)).await;
        assert_eq!((left("auditlog").await, left("other").await), (Some((2, 1)), Some((1, 1))));
        let access = catalog.log("access").await.expect("opened").expect("there");
        assert_eq!(access.head(), 1);
        catalog.close().await.expect("closed");
    }
}
