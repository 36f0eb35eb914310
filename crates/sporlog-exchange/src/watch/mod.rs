//! Who has delivered, who is late, and whose deliveries are of unusual size.
//!
//! All of this is computed from the register and the settings whenever somebody asks: no state is kept. Days
//! are UTC days, and a delivery's time is when it was claimed.
//!
//! Only an accepted delivery counts. A file that was refused or repeated is shown, but its supplier still owes
//! the delivery.
//!
//! | module | idea |
//! |---|---|
//! | [`rhythm`] | when a supplier's next delivery is due, and since when it is late |
//! | [`volume`] | whether the newest day brought far fewer or far more rows than the same weekday before |
//! | [`summary`] | the state of a supplier's deliveries |
//! | [`list`](list()) | a list of deliveries, the newest first |
//! | [`gauges`] | metrics |
//! | [`task`] | sets the metrics each minute, and logs changes |

pub mod gauges;
mod list;
pub mod rhythm;
pub mod summary;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;
pub mod volume;

use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::register::Register;
use super::settings::{Account, Settings};

pub use gauges::{count, publish};
pub use list::{Query, find, list};
pub use rhythm::State;
pub use summary::Watched;
pub use task::{Nudge, Watch};
pub use volume::Volume;

/// The state at `now` of all suppliers of `settings`, in the order of the configuration. Reads the register
/// under `root`, one supplier after the other.
pub fn suppliers(settings: &Settings, root: &Path, now: DateTime<Utc>) -> io::Result<Vec<Watched>> {
    let register = Register::new(root);
    let accounts = settings.accounts.iter().filter(|account| account.is_supplier());
    accounts.map(|account| supplier(settings, root, &register, account, now)).collect()
}

fn supplier(
    settings: &Settings,
    root: &Path,
    register: &Register,
    account: &Account,
    now: DateTime<Utc>,
) -> io::Result<Watched> {
    let deliveries = register.of(&account.name)?;
    let known_since = known_since(settings.home(root, account).path());
    Ok(Watched::new(account, deliveries, known_since, now))
}

/// When the account's folder was made, where the file system tells.
fn known_since(home: &Path) -> Option<DateTime<Utc>> {
    Some(home.metadata().ok()?.created().ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::testing::{accepted, at, settings};
    use super::*;

    #[test]
    fn each_supplier_is_looked_at_and_nobody_else() {
        let root = tempfile::tempdir().expect("a folder");
        let settings = settings(&["b", "a"]);
        let register = Register::new(root.path());
        register.add(&accepted("a", "2026-11-03T06:00:00Z", 10)).expect("added");
        register.add(&accepted("gone", "2026-11-03T06:00:00Z", 10)).expect("added");
        let watched = suppliers(&settings, root.path(), at("2026-11-03T12:00:00Z")).expect("read");
        let found: Vec<_> = watched.iter().map(|w| (&*w.account, w.state)).collect();
        assert_eq!(found, [("b", State::Never), ("a", State::OnTime)]);
        assert_eq!(watched.first().and_then(|never| never.late_since), None, "there is no folder of it");
    }

    #[test]
    fn whoever_never_delivered_is_missed_since_there_is_a_folder_for_it() {
        let root = tempfile::tempdir().expect("a folder");
        let settings = settings(&["a"]);
        let account = settings.account("a").expect("an account");
        settings.home(root.path(), account).create(account.role).expect("made");
        let watched = suppliers(&settings, root.path(), Utc::now()).expect("read");
        // Not every file system tells when a folder was made.
        if let Some(since) = watched.first().and_then(|never| never.late_since) {
            assert!((Utc::now() - since).num_minutes() < 1, "{since}");
        }
    }
}
