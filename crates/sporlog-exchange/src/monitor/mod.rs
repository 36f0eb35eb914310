//! The monitor: who has delivered, who is late, and whose deliveries are of unusual size.
//!
//! All of this is computed from the register and the settings whenever somebody asks: no state is kept. Days
//! are UTC days, and a delivery's time is when it was claimed.
//!
//! Only an accepted delivery counts. A file that was refused or repeated is shown, but its supplier still owes
//! the delivery.
//!
//! | module | idea |
//! |---|---|
//! | [`rhythm`] | when a supplier's next delivery is due, and since when the supplier is late |
//! | [`volume`] | whether the newest day brought far fewer or far more rows than the same weekday before |
//! | [`supplier_status`] | the state of a supplier's deliveries |
//! | [`list`](list()) | a list of deliveries, the newest first |
//! | [`metrics`] | gauges of the suppliers' state, and counters of deliveries |
//! | [`task`] | sets the gauges each minute, and logs changes |

mod list;
pub mod metrics;
pub mod rhythm;
pub mod supplier_status;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;
pub mod volume;

use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::register::Register;
use super::settings::Settings;
use super::tree::Home;

pub use list::{Query, find, list};
pub use metrics::count;
pub use rhythm::State;
pub use supplier_status::SupplierStatus;
pub use task::Monitor;
pub use volume::Volume;

/// The state at `now` of all suppliers of `settings`, in the order of the configuration. Reads the register
/// under `root`, one supplier after the other.
pub fn suppliers(settings: &Settings, root: &Path, now: DateTime<Utc>) -> io::Result<Vec<SupplierStatus>> {
    let register = Register::new(root);
    let accounts = settings.accounts.iter().filter(|account| account.is_supplier());
    let status = |account| {
        let known_since = Home::of(root, account).known_since().map(DateTime::from);
        // A supplier that is new has no folder yet. Where there is no exchange at all, its disk may be missing.
        let known_since = known_since.or_else(|| root.exists().then_some(now));
        Ok(SupplierStatus::new(account, register.of(&account.name)?, known_since, now))
    };
    accounts.map(status).collect()
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
        let found = suppliers(&settings, root.path(), at("2026-11-03T12:00:00Z")).expect("read");
        assert!(!found.iter().any(SupplierStatus::is_missed), "b is new");
        let states: Vec<_> = found.iter().map(|one| (&*one.account, one.timeliness.state)).collect();
        assert_eq!(states, [("b", State::Never), ("a", State::OnTime)]);
        assert_eq!(
            found.first().and_then(|never| never.timeliness.late_since),
            None,
            "there is no folder of it"
        );
    }

    #[test]
    fn whoever_never_delivered_is_missed_since_there_is_a_folder_for_it() {
        let root = tempfile::tempdir().expect("a folder");
        let settings = settings(&["a"]);
        let account = settings.account("a").expect("an account");
        Home::of(root.path(), account).create(account.role).expect("made");
        let at = |now| suppliers(&settings, root.path(), now).expect("read").remove(0).timeliness;
        assert_eq!((at(Utc::now()).is_missed, at(Utc::now()).late_since), (false, None));
        let elsewhere = suppliers(&settings, &root.path().join("none"), Utc::now()).expect("read");
        assert!(elsewhere.iter().all(SupplierStatus::is_missed), "there is no exchange");
        let later = at(Utc::now() + chrono::TimeDelta::days(3));
        let since = later.late_since.filter(|_| later.is_missed).expect("it is known since when");
        assert!((Utc::now() - since).num_minutes() < 1, "{since}");
    }
}
