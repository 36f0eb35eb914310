//! A list of deliveries, the newest first.

use std::cmp::Reverse;
use std::io;

use chrono::{DateTime, Utc};

use crate::receipt::{Outcome, Receipt};
use crate::register::{BY_HTTP, HTTP_FILE, Register};
use sporlog_ledger::matches;

/// Selects deliveries.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only of these accounts; of all accounts if the list is empty.
    pub accounts: Vec<String>,
    /// Only into logs of these names or patterns; into all if the list is empty.
    pub logs: Vec<String>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Only deliveries claimed at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Only deliveries claimed before the delivery with this id.
    pub before: Option<String>,
    /// No more deliveries than this.
    pub limit: Option<usize>,
}

impl Query {
    fn admits(&self, delivery: &Receipt, before: Option<&Receipt>) -> bool {
        (self.accounts.is_empty() || self.accounts.contains(&delivery.account))
            && (self.logs.is_empty() || self.logs.iter().any(|log| matches(log, &delivery.log)))
            && self.outcome.is_none_or(|wanted| delivery.outcome == wanted)
            && self.since.is_none_or(|since| delivery.taken_at >= since)
            && before.is_none_or(|before| sort_key(delivery) < sort_key(before))
    }
}

/// The selected deliveries, the newest first. `None` if there is no delivery with the id `before`.
///
/// In memory are only one account's deliveries and the result.
pub fn list(register: &Register, query: &Query) -> io::Result<Option<Vec<Receipt>>> {
    let before = match &query.before {
        None => None,
        Some(id) => match find(register, id)? {
            None => return Ok(None),
            found => found,
        },
    };
    let mut found = Vec::new();
    // Only accounts in the register: a requested name never becomes part of a path.
    for account in register.accounts()? {
        // What came by HTTP is in one file, whoever sent it.
        let named =
            |wanted: &String| *wanted == account || (account == HTTP_FILE && wanted.starts_with(BY_HTTP));
        if query.accounts.is_empty() || query.accounts.iter().any(named) {
            let deliveries = register.of(&account)?;
            found.extend(deliveries.into_iter().filter(|one| query.admits(one, before.as_ref())));
            found.sort_by(|a, b| Reverse(sort_key(a)).cmp(&Reverse(sort_key(b))));
            found.truncate(query.limit.unwrap_or(usize::MAX));
        }
    }
    Ok(Some(found))
}

/// The delivery with this id.
pub fn find(register: &Register, id: &str) -> io::Result<Option<Receipt>> {
    for account in register.accounts()? {
        let found = register.of(&account)?.into_iter().find(|delivery| delivery.delivery == id);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The key by which deliveries are sorted.
fn sort_key(delivery: &Receipt) -> (DateTime<Utc>, &str) {
    (delivery.taken_at, &delivery.delivery)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepted, at, delivery};
    use super::*;

    fn register() -> (tempfile::TempDir, Register) {
        let root = tempfile::tempdir().expect("a folder");
        let register = Register::new(root.path());
        for hour in 0..10 {
            let taken = format!("2026-11-03T0{hour}:00:00Z");
            register.add(&accepted("a", &taken, hour)).expect("added");
            if hour % 3 == 0 {
                register.add(&delivery("b", &taken, Outcome::Refused, 0, 0)).expect("added");
            }
        }
        (root, register)
    }

    fn ids(register: &Register, query: &Query) -> Vec<String> {
        let found = list(register, query).expect("read").expect("there");
        found.into_iter().map(|delivery| delivery.delivery).collect()
    }

    #[test]
    fn the_newest_come_first_and_each_page_goes_on_from_the_last() {
        let (_root, register) = register();
        let all = ids(&register, &Query::default());
        assert_eq!(all.len(), 14);
        assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
        for limit in 1..16 {
            let mut query = Query { limit: Some(limit), ..Query::default() };
            let mut read = Vec::new();
            loop {
                let page = ids(&register, &query);
                assert!(page.len() <= limit);
                query.before = page.last().cloned();
                read.extend(page);
                if read.len() == 14 {
                    break;
                }
            }
            assert_eq!(read, all);
            assert!(ids(&register, &query).is_empty());
        }
    }

    #[test]
    fn what_is_not_wanted_is_left_out() {
        let (_root, register) = register();
        let of = |accounts: &[&str]| accounts.iter().map(ToString::to_string).collect();
        let count = |query| ids(&register, &query).len();
        assert_eq!(count(Query { accounts: of(&["b"]), ..Query::default() }), 4);
        assert_eq!(count(Query { accounts: of(&["a", "b"]), ..Query::default() }), 14);
        assert_eq!(count(Query { accounts: of(&["c", "../a", ""]), ..Query::default() }), 0);
        assert_eq!(count(Query { outcome: Some(Outcome::Refused), ..Query::default() }), 4);
        assert_eq!(count(Query { outcome: Some(Outcome::Repeated), ..Query::default() }), 0);
        assert_eq!(count(Query { since: Some(at("2026-11-03T08:00:00Z")), ..Query::default() }), 3);
        // Where a page begins has nothing to do with what is wanted on it.
        let before = Some("20261103T060000Z-b".to_owned());
        assert_eq!(count(Query { before: before.clone(), ..Query::default() }), 9);
        assert_eq!(count(Query { before, accounts: of(&["a"]), ..Query::default() }), 7);
        let nowhere = Query { before: Some("x".into()), ..Query::default() };
        assert!(list(&register, &nowhere).expect("read").is_none());
        assert_eq!(
            find(&register, "20261103T030000Z-b").expect("read").map(|one| one.account),
            Some("b".into())
        );
        assert!(find(&register, "").expect("read").is_none());
    }
}
