//! A task that sets the gauges each minute, and logs each change of a supplier's state once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use super::rhythm::State;
use super::supplier_status::SupplierStatus;
use super::volume::Volume;
use super::{metrics, suppliers};
use crate::settings::LiveSettings;

/// How often the suppliers' state is computed when no delivery comes.
const EVERY: Duration = Duration::from_mins(1);
/// The shortest time from one computation to the next, however many deliveries come.
const PAUSE: Duration = Duration::from_secs(1);

/// The task that monitors deliveries. Dropping this asks the task to stop.
#[derive(Debug)]
pub struct Monitor {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Monitor {
    /// Starts the task, for the suppliers that `settings` has at each moment and the exchange's folder `root`. To be called within a
    /// runtime, and after the accounts' folders are made, because new suppliers are known since then. With each
    /// notification of `delivered`, the suppliers' state is computed soon.
    pub fn start(settings: LiveSettings, root: PathBuf, delivered: Arc<Notify>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(settings, root, delivered, stopped));
        Monitor { stop, task }
    }

    /// Ends the task, after the computation under way.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that monitors deliveries has failed");
        }
    }
}

async fn run(
    settings: LiveSettings,
    root: PathBuf,
    delivered: Arc<Notify>,
    mut stopped: oneshot::Receiver<()>,
) {
    let (mut known, mut failing) = (Known::default(), false);
    loop {
        let (settings, root) = (settings.now(), root.clone());
        let computed = spawn_blocking(move || suppliers(&settings, &root, Utc::now())).await;
        match computed.unwrap_or_else(|error| Err(error.into())) {
            Ok(suppliers) => {
                failing = false;
                metrics::publish(&suppliers);
                // File names are not logged, because they may contain anything.
                for Change { account, is_warning, text } in known.update(&suppliers) {
                    if is_warning {
                        tracing::warn!(account, "{text}")
                    } else {
                        tracing::info!(account, "{text}")
                    }
                }
            }
            // Logged once until the register can be read again.
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "the register of deliveries cannot be read: late deliveries are not noticed until it can be");
            }
            Err(_) => {}
        }
        let wait = async {
            tokio::time::sleep(PAUSE).await;
            // A delivery during the pause ends this wait at once.
            drop(tokio::time::timeout(EVERY - PAUSE, delivered.notified()).await);
        };
        tokio::select! {
            () = wait => {}
            _ = &mut stopped => return,
        }
    }
}

/// For each account, whether a delivery was missing and what the newest day's volume was.
#[derive(Debug, Default)]
struct Known(HashMap<String, (bool, Volume)>);

/// A change of a supplier's state.
#[derive(Debug, PartialEq)]
struct Change {
    account: String,
    /// Whether something is not as it should be.
    is_warning: bool,
    text: String,
}

impl Known {
    /// The changes since the last call. The first call returns everything that is not in order.
    fn update(&mut self, suppliers: &[SupplierStatus]) -> Vec<Change> {
        let mut changes = Vec::new();
        for supplier in suppliers {
            let (missed, volume) = (supplier.is_missed(), supplier.volume.volume);
            let before = self.0.insert(supplier.account.clone(), (missed, volume));
            let (was_missed, volume_before) = before.unwrap_or_default();
            let mut change = |is_warning, text: String| {
                changes.push(Change { account: supplier.account.clone(), is_warning, text });
            };
            if missed && !was_missed {
                let since = supplier.timeliness.late_since.map(|since| since.to_rfc3339());
                change(
                    true,
                    match supplier.timeliness.state {
                        State::Never => "the supplier has never delivered".to_owned(),
                        _ => {
                            format!("the supplier's delivery is missing since {}", since.unwrap_or_default())
                        }
                    },
                );
            } else if was_missed && !missed {
                change(false, "the supplier has delivered again".to_owned());
            }
            match &supplier.volume.text {
                Some(text) if volume != volume_before => {
                    change(true, format!("the supplier's delivery is of unusual size: {text}"));
                }
                None if volume_before.is_unusual() => {
                    change(false, "the supplier's deliveries are of usual size again".to_owned());
                }
                _ => {}
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepted, at, settings, supplier};
    use super::*;
    use crate::receipt::Receipt;
    use crate::register::Register;

    fn update(known: &mut Known, rhythm: &str, deliveries: &[Receipt], now: &str) -> Vec<Change> {
        let now = at(now);
        known.update(&[SupplierStatus::new(&supplier(rhythm), deliveries.to_vec(), None, now)])
    }

    fn change(is_warning: bool, text: &str) -> [Change; 1] {
        [Change { account: "a".to_owned(), is_warning, text: text.to_owned() }]
    }

    #[test]
    fn what_is_not_as_it_should_be_is_said_once() {
        let mut known = Known::default();
        let never = change(true, "the supplier has never delivered");
        assert_eq!(update(&mut known, "daily", &[], "2026-11-01T06:00:00Z"), never);
        assert_eq!(update(&mut known, "daily", &[], "2026-11-01T06:01:00Z"), []);
        let mut deliveries = vec![accepted("a", "2026-11-01T06:02:00Z", 1_000)];
        let back = change(false, "the supplier has delivered again");
        assert_eq!(update(&mut known, "daily", &deliveries, "2026-11-01T06:02:00Z"), back);
        assert_eq!(update(&mut known, "daily", &deliveries, "2026-11-02T06:02:00Z"), []);
        let late = change(true, "the supplier's delivery is missing since 2026-11-03T00:00:00+00:00");
        assert_eq!(update(&mut known, "daily", &deliveries, "2026-11-03T12:00:00Z"), late);
        assert_eq!(update(&mut known, "daily", &deliveries, "2026-11-04T12:00:00Z"), []);
        deliveries.push(accepted("a", "2026-11-04T13:00:00Z", 1_000));
        assert_eq!(update(&mut known, "daily", &deliveries, "2026-11-04T13:00:00Z"), back);
    }

    #[test]
    fn so_is_an_unusual_volume() {
        let mut known = Known::default();
        let mut deliveries = Vec::new();
        let mut deliver = |known: &mut Known, week: i64, rows: u64| {
            let start = at("2026-08-31T06:00:00Z");
            let moment = (start + chrono::TimeDelta::weeks(week)).to_rfc3339();
            deliveries.push(accepted("a", &moment, rows));
            let changes = update(known, "irregular", &deliveries, &moment);
            assert_eq!(update(known, "irregular", &deliveries, &moment), [], "it is said once");
            changes
        };
        for week in 0..8 {
            assert_eq!(deliver(&mut known, week, 1_000), []);
        }
        let unusual = |text: &str| {
            let text = format!("{text} 1000, the median of the last 8 Mondays");
            change(true, &format!("the supplier's delivery is of unusual size: {text}"))
        };
        let high = unusual("5000 rows on 2026-10-26: more than three times");
        assert_eq!(deliver(&mut known, 8, 5_000), high);
        assert_eq!(deliver(&mut known, 9, 5), unusual("5 rows on 2026-11-02: less than a third of"));
        let usual = change(false, "the supplier's deliveries are of usual size again");
        assert_eq!(deliver(&mut known, 10, 1_000), usual);
    }

    #[tokio::test]
    async fn it_stops_when_it_is_asked_to() {
        let root = tempfile::tempdir().expect("a folder");
        Register::new(root.path()).add(&accepted("a", "2026-11-04T13:00:00Z", 7)).expect("added");
        let delivered = Arc::new(Notify::new());
        let monitor = Monitor::start(settings(&["a"]).into(), root.path().to_owned(), delivered.clone());
        delivered.notify_one();
        tokio::time::timeout(Duration::from_secs(10), monitor.stop()).await.expect("stopped");
    }
}
