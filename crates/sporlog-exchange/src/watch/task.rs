//! A task that sets the gauges each minute, and logs each change of a supplier's state once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use super::rhythm::State;
use super::summary::Watched;
use super::volume::Volume;
use super::{publish, suppliers};
use crate::settings::Settings;

/// How often the suppliers' state is computed when no delivery comes.
const EVERY: Duration = Duration::from_mins(1);
/// The shortest time from one computation to the next, however many deliveries come.
const PAUSE: Duration = Duration::from_secs(1);

/// The task that watches deliveries. Dropping this asks the task to stop.
#[derive(Debug)]
pub struct Watch {
    nudge: Nudge,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Tells the task that a delivery has come. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// Makes the task compute the suppliers' state soon.
    pub fn nudge(&self) {
        self.0.notify_one();
    }
}

impl Watch {
    /// Starts the task, for the suppliers of `settings` and the exchange's folder `root`. To be called within a
    /// runtime.
    pub fn start(settings: Settings, root: PathBuf) -> Self {
        let (stop, stopped) = oneshot::channel();
        let nudge = Nudge::default();
        let task = tokio::spawn(run(Arc::new(settings), root, nudge.clone(), stopped));
        Watch { nudge, stop, task }
    }

    /// A handle by which to tell the task that a delivery has come.
    pub fn nudge(&self) -> Nudge {
        self.nudge.clone()
    }

    /// Ends the task, after the computation under way.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that watches deliveries has failed");
        }
    }
}

async fn run(settings: Arc<Settings>, root: PathBuf, nudge: Nudge, mut stopped: oneshot::Receiver<()>) {
    let mut known = Known::default();
    loop {
        let (settings, root) = (settings.clone(), root.clone());
        match spawn_blocking(move || suppliers(&settings, &root, Utc::now())).await {
            Ok(Ok(suppliers)) => {
                publish(&suppliers);
                known.learn(&suppliers).iter().for_each(Change::log);
            }
            Ok(Err(error)) => known.failed(&error),
            Err(error) => known.failed(&error),
        }
        let wait = async {
            tokio::time::sleep(PAUSE).await;
            // A nudge during the pause ends this wait at once.
            drop(tokio::time::timeout(EVERY - PAUSE, nudge.0.notified()).await);
        };
        tokio::select! {
            () = wait => {}
            _ = &mut stopped => return,
        }
    }
}

/// The suppliers' last known state, by account.
#[derive(Debug, Default)]
struct Known {
    suppliers: HashMap<String, (bool, Volume)>,
    failing: bool,
}

/// A change of a supplier's state.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// A delivery is missing.
    Missed { account: String, since: Option<DateTime<Utc>>, never: bool },
    /// No delivery is missing any more.
    Back { account: String },
    /// The newest day brought far fewer or far more rows than usual.
    Unusual { account: String, text: String },
    /// The newest day is as usual again.
    Usual { account: String },
}

impl Known {
    /// The changes since the last call. The first call returns everything that is not in order.
    fn learn(&mut self, suppliers: &[Watched]) -> Vec<Change> {
        self.failing = false;
        let mut changes = Vec::new();
        for supplier in suppliers {
            let (account, now) = (supplier.account.clone(), (supplier.is_missed(), supplier.volume.volume));
            let before = self.suppliers.insert(account.clone(), now).unwrap_or_default();
            match (before.0, now.0) {
                (false, true) => changes.push(Change::Missed {
                    account: account.clone(),
                    since: supplier.late_since,
                    never: supplier.state == State::Never,
                }),
                (true, false) => changes.push(Change::Back { account: account.clone() }),
                _ => {}
            }
            match &supplier.volume.text {
                Some(text) if now.1 != before.1 => {
                    changes.push(Change::Unusual { account, text: text.clone() });
                }
                None if before.1.is_unusual() => changes.push(Change::Usual { account }),
                _ => {}
            }
        }
        changes
    }

    /// Logs that the register cannot be read, once until it can be read again.
    fn failed(&mut self, error: &dyn std::error::Error) {
        if !self.failing {
            tracing::warn!(error = %error, "the register of deliveries cannot be read: late deliveries are not noticed until it can be");
        }
        self.failing = true;
    }
}

impl Change {
    /// Logs the change. File names are left out, because they may contain anything.
    fn log(&self) {
        match self {
            Change::Missed { account, never: true, .. } => {
                tracing::warn!(account, "the supplier has never delivered");
            }
            Change::Missed { account, since, never: false } => {
                let since = since.map(|since| since.to_rfc3339()).unwrap_or_default();
                tracing::warn!(account, since, "the supplier's delivery is late");
            }
            Change::Back { account } => tracing::info!(account, "the supplier has delivered again"),
            Change::Unusual { account, text } => {
                tracing::warn!(account, "the supplier's delivery is of unusual size: {text}");
            }
            Change::Usual { account } => {
                tracing::info!(account, "the supplier's deliveries are of usual size again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{accepted, at, settings, supplier};
    use super::*;
    use crate::receipt::Receipt;
    use crate::register::Register;

    fn learn(known: &mut Known, rhythm: &str, deliveries: &[Receipt], now: &str) -> Vec<Change> {
        known.learn(&[Watched::new(&supplier(rhythm), deliveries.to_vec(), None, at(now))])
    }

    #[test]
    fn what_is_not_as_it_should_be_is_said_once() {
        let mut known = Known::default();
        let account = || "a".to_owned();
        let never = Change::Missed { account: account(), since: None, never: true };
        assert_eq!(learn(&mut known, "daily", &[], "2026-11-01T06:00:00Z"), [never]);
        assert_eq!(learn(&mut known, "daily", &[], "2026-11-01T06:01:00Z"), []);
        let mut deliveries = vec![accepted("a", "2026-11-01T06:02:00Z", 1_000)];
        let back = [Change::Back { account: account() }];
        assert_eq!(learn(&mut known, "daily", &deliveries, "2026-11-01T06:02:00Z"), back);
        assert_eq!(learn(&mut known, "daily", &deliveries, "2026-11-02T06:02:00Z"), []);
        let since = Some(at("2026-11-03T00:00:00Z"));
        let late = Change::Missed { account: account(), since, never: false };
        assert_eq!(learn(&mut known, "daily", &deliveries, "2026-11-03T12:00:00Z"), [late]);
        assert_eq!(learn(&mut known, "daily", &deliveries, "2026-11-04T12:00:00Z"), []);
        deliveries.push(accepted("a", "2026-11-04T13:00:00Z", 1_000));
        assert_eq!(learn(&mut known, "daily", &deliveries, "2026-11-04T13:00:00Z"), back);
    }

    #[test]
    fn so_is_an_unusual_volume() {
        let mut known = Known::default();
        let mut deliveries = Vec::new();
        let mut deliver = |known: &mut Known, week: i64, rows: u64| {
            let moment = (at("2026-08-31T06:00:00Z") + chrono::TimeDelta::weeks(week)).to_rfc3339();
            deliveries.push(accepted("a", &moment, rows));
            let changes = learn(known, "irregular", &deliveries, &moment);
            assert_eq!(learn(known, "irregular", &deliveries, &moment), [], "it is said once");
            changes
        };
        for week in 0..8 {
            assert_eq!(deliver(&mut known, week, 1_000), []);
        }
        let unusual = |text: &str| {
            let text = format!("{text} 1000, the median of the last 8 Mondays");
            [Change::Unusual { account: "a".into(), text }]
        };
        let high = unusual("5000 rows on 2026-10-26: more than three times");
        assert_eq!(deliver(&mut known, 8, 5_000), high);
        assert_eq!(deliver(&mut known, 9, 5), unusual("5 rows on 2026-11-02: less than a third of"));
        assert_eq!(deliver(&mut known, 10, 1_000), [Change::Usual { account: "a".into() }]);
    }

    #[tokio::test]
    async fn it_stops_when_it_is_asked_to() {
        let root = tempfile::tempdir().expect("a folder");
        Register::new(root.path()).add(&accepted("a", "2026-11-04T13:00:00Z", 7)).expect("added");
        let watch = Watch::start(settings(&["a"]), root.path().to_owned());
        watch.nudge().nudge();
        tokio::time::timeout(Duration::from_secs(10), watch.stop()).await.expect("stopped");
    }
}
