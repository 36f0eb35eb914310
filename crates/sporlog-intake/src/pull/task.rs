//! The task of one pull: polling, reading on, looking back, and pauses.
//!
//! | when | what is read |
//! |---|---|
//! | each interval | the head; if it has moved, everything up to it |
//! | every sixth interval | the ids that were passed within the last `look_back_minutes`, if any |
//! | at the start, and each hour | the last `look_back_ids` ids |
//! | after a failure | nothing, for a pause that grows, or for as long as the upstream asks |

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Local, TimeDelta, Utc};
use sporlog_ledger::Error as LedgerError;
use sporlog_record::Rules;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::mirror::{Mirror, Totals};
use super::page::{Judging, Piece, Range, together};
use super::reader::{self, Part};
use super::settings::Settings;
use super::upstream::Upstream;
use crate::error::{Error, Result};
use crate::quarantine::Quarantine;
use crate::writers::Writers;

/// Intervals between two looks at the last minutes, and the time between two looks at all ids of the window.
const LOOK_BACK_EVERY: u32 = 6;
const LOOK_BACK_WHOLE: Duration = Duration::from_hours(1);
/// A look back takes at most this share of the time.
const LOOK_BACK_SHARE: u32 = 10;
/// Records of one commit, and their bytes.
const COMMIT_ROWS: usize = 32 << 10;
const COMMIT_BYTES: usize = 32 << 20;
/// A commit waits no longer than this for more records.
const COMMIT_AGE: Duration = Duration::from_secs(2);
/// The pause after a failure: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// In [`Mode::UntilHead`], so many failures in a row are the end.
const TRIES: u32 = 6;
/// OS2faktor Login deletes traces after 14 days; half of that is when to say that it comes near.
const BEHIND: TimeDelta = TimeDelta::days(7);
/// An upstream whose `offset` is an `int` cannot be asked for more than this; and from when on that is said.
const MOST_INT: i64 = 2_147_483_647;
const NEAR_MOST_INT: i64 = 2_000_000_000;

/// How long a pull goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is stopped.
    Forever,
    /// Until the head has been reached, and nothing has come meanwhile.
    UntilHead,
    /// What is there now; the first failure is the end.
    Once,
}

/// What a pull works with.
pub struct PullConfig {
    /// What is configured.
    pub settings: Settings,
    /// Where the log's writer comes from.
    pub writers: Arc<dyn Writers>,
    /// Where refused records go.
    pub quarantine: Quarantine,
    /// How records are judged.
    pub rules: Rules,
    /// After which id to go on, whatever the log says.
    pub from: Option<i64>,
    /// Told how many records have been stored, and about how many there are.
    pub progress: Box<dyn Fn(u64, u64) + Send + Sync>,
}

/// A pull that runs.
pub struct Pull {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Totals>>,
}

impl Pull {
    /// Starts a pull; within a runtime.
    pub fn start(config: PullConfig, mode: Mode) -> Result<Self> {
        Settings::check_all(std::slice::from_ref(&config.settings))?;
        let (stop, stopping) = watch::channel(false);
        let task = Task {
            upstream: Arc::new(Upstream::new(&config.settings)?),
            judging: Arc::new(Judging {
                kind: config.settings.kind,
                rules: config.rules.clone(),
                source: config.settings.position(""),
            }),
            config,
            mode,
            stopping,
            totals: Totals::default(),
            head: 0,
            read_at: None,
            problem: None,
            mirror: None,
            passed: VecDeque::new(),
            looked_back: None,
            looked_back_whole: None,
            first_read: false,
            said: Said::default(),
        };
        Ok(Pull { stop, task: tokio::spawn(task.run()) })
    }

    /// Waits until the pull has ended by itself. To be called again only after a call that was dropped.
    pub async fn ended(&mut self) -> Result<Totals> {
        (&mut self.task).await?
    }

    /// Has the pull store what it has read, and end.
    pub async fn stop(mut self) -> Result<Totals> {
        let _ = self.stop.send(true);
        self.ended().await
    }
}

/// What has been said, so that it is not said every second.
#[derive(Default)]
struct Said {
    behind: Option<Instant>,
    most_int: bool,
}

struct Task {
    config: PullConfig,
    mode: Mode,
    upstream: Arc<Upstream>,
    judging: Arc<Judging>,
    stopping: watch::Receiver<bool>,
    totals: Totals,
    /// The upstream's head when it was last asked.
    head: i64,
    /// When the upstream was last read; before the start, when that moved the position.
    read_at: Option<DateTime<Utc>>,
    /// Why the upstream could not be read when that was last tried.
    problem: Option<String>,
    mirror: Option<Mirror>,
    /// When ids were passed: at each of these times, all up to the id had been before.
    passed: VecDeque<(Instant, i64)>,
    /// When the last look back ended, and how long it took.
    looked_back: Option<(Instant, Duration)>,
    looked_back_whole: Option<Instant>,
    /// The head has not been reached since the very first record: old records are no news.
    first_read: bool,
    said: Said,
}

impl Task {
    async fn run(mut self) -> Result<Totals> {
        let interval = Duration::from_secs(self.config.settings.interval_seconds);
        let mut failures = 0;
        while !*self.stopping.borrow() {
            let polled = self.poll().await;
            let pause = match polled {
                Ok(news) => {
                    failures = 0;
                    self.recovered();
                    match self.mode {
                        Mode::Once => break,
                        Mode::UntilHead if !news => break,
                        Mode::UntilHead => Duration::ZERO,
                        Mode::Forever => interval.mul_f64(jitter(0.9, 1.1)),
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.failed(&error);
                    let settled =
                        matches!(error, Error::Upstream(Failure::WentBack { .. }) | Error::Settings(_));
                    match self.mode {
                        Mode::Once => return Err(error),
                        Mode::UntilHead if settled || failures >= TRIES => return Err(error),
                        // Somebody has to say how to go on, and may do so at any moment.
                        _ if settled => interval,
                        _ => pause(&error, failures),
                    }
                }
            };
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
        Ok(self.totals)
    }

    fn recovered(&mut self) {
        let name = &self.config.settings.name;
        if self.problem.take().is_some() {
            tracing::info!(pull = name, "the upstream can be read again");
        }
        metrics::gauge!("sporlog_pull_failing", "pull" => name.clone()).set(0.0);
        self.read_at = Some(Utc::now());
    }

    /// Says why nothing can be read, once for each reason.
    fn failed(&mut self, error: &Error) {
        let name = &self.config.settings.name;
        let text = error.to_string();
        if self.problem.as_ref() != Some(&text) {
            tracing::warn!(pull = name, error = text, "the upstream cannot be read");
        }
        self.problem = Some(text);
        metrics::gauge!("sporlog_pull_failing", "pull" => name.clone()).set(1.0);
        metrics::counter!("sporlog_pull_failures_total", "pull" => name.clone()).increment(1);
        if let Some(read) = self.read_at.filter(|read| Utc::now() - read > BEHIND) {
            self.say_behind(read.date_naive().to_string());
        }
    }

    fn say_behind(&mut self, since: String) {
        if self.said.behind.is_none_or(|said| said.elapsed() >= LOOK_BACK_WHOLE) {
            self.said.behind = Some(Instant::now());
            tracing::warn!(
                pull = self.config.settings.name,
                since,
                "the mirror is behind: OS2faktor Login deletes traces after 14 days, log-ins after 3 months, \
                 everything after 13 months"
            );
        }
    }

    /// Asks for the head, reads on, and looks back if that is due. True if there was something new.
    async fn poll(&mut self) -> Result<bool> {
        let mut mirror = self.open().await?;
        let polled = self.poll_into(&mut mirror).await;
        // A writer that has failed may not know where its log stands.
        self.mirror = (!matches!(polled, Err(Error::Ledger(_)))).then_some(mirror);
        polled
    }

    async fn poll_into(&mut self, mirror: &mut Mirror) -> Result<bool> {
        let (name, last) = (self.config.settings.name.clone(), mirror.last());
        if let Some(head) = mirror.stopped() {
            return Err(Failure::WentBack { name, head, position: last }.into());
        }
        let Some(head) = self.head(last == 0).await? else { return Ok(false) };
        metrics::gauge!("sporlog_pull_head", "pull" => name.clone()).set(head as f64);
        self.head = head;
        if head > NEAR_MOST_INT && !self.said.most_int {
            self.said.most_int = true;
            tracing::warn!(
                pull = name,
                left = MOST_INT.saturating_sub(head),
                "the upstream's ids come near 2^31 - 1: if its `offset` is an int, nothing can be read beyond that; ask \
                 its operator"
            );
        }
        if head < last {
            mirror.stop_at(head).await?;
            return Err(Failure::WentBack { name, head, position: last }.into());
        }
        if head > last {
            let window = i64::from(self.config.settings.look_back_ids);
            self.passed.push_back((Instant::now(), last.max(head - window)));
            if !self.read(mirror, Range { after: last, to: head }, false).await? {
                return Ok(false);
            }
        }
        let now = mirror.last();
        self.first_read &= now < head;
        self.look_back(mirror).await?;
        Ok(now > last)
    }

    /// Opens the log, if it is not open.
    async fn open(&mut self) -> Result<Mirror> {
        if let Some(mut mirror) = self.mirror.take() {
            if mirror.stopped().is_some() {
                // Until another process has said how to go on.
                mirror.reload().await?;
            }
            return Ok(mirror);
        }
        let settings = &self.config.settings;
        let opened = Mirror::open(settings, &self.config.writers, &self.config.quarantine).await;
        if let Err(Error::Ledger(LedgerError::Stopped { .. })) = opened {
            self.config.writers.forget(&settings.log).await;
        }
        let mut mirror = opened?;
        if let Some(from) = self.config.from.take() {
            mirror.set(from).await?;
        }
        mirror.check_begun()?;
        self.first_read = mirror.is_new();
        let settled = mirror.settled();
        self.passed = (settled < mirror.last()).then(|| (Instant::now(), settled)).into_iter().collect();
        self.read_at = self.read_at.or(mirror.moved_at.and_then(DateTime::from_timestamp_millis));
        (self.looked_back, self.looked_back_whole) = (None, None);
        Ok(mirror)
    }

    /// The upstream's head; `None` if the pull is to stop.
    async fn head(&self, is_new: bool) -> Result<Option<i64>> {
        let (upstream, judging, mut stopping) = (&self.upstream, &self.judging, self.stopping.clone());
        let head = async {
            match upstream.head().await {
                // So it is where there is no record yet.
                Err(Error::Upstream(failure)) if is_new && failure.is_internal() => {
                    let page = reader::read_page(upstream, judging, Range { after: 0, to: i64::MAX }).await?;
                    if page.highest.is_none() { Ok(0) } else { Err(failure.into()) }
                }
                head => head,
            }
        };
        tokio::select! {
            head = head => head.map(Some),
            _ = stopping.wait_for(|stop| *stop) => Ok(None),
        }
    }

    /// Reads the ids that may have turned up late, if that is due.
    async fn look_back(&mut self, mirror: &mut Mirror) -> Result<()> {
        let settings = &self.config.settings;
        let last = mirror.last();
        let whole = self.looked_back_whole.is_none_or(|at| at.elapsed() >= LOOK_BACK_WHOLE);
        let every = Duration::from_secs(settings.interval_seconds) * LOOK_BACK_EVERY;
        let due = self.looked_back.is_none_or(|(at, took)| at.elapsed() >= every.max(took * LOOK_BACK_SHARE));
        let passed = self.passed.iter().map(|(_, id)| *id).min();
        let from = if whole {
            Some(passed.unwrap_or(last).min(last - i64::from(settings.look_back_ids)))
        } else {
            passed
        };
        let Some(from) = from.map(|from| from.max(0)).filter(|from| (whole || due) && *from < last) else {
            return Ok(());
        };
        let began = Instant::now();
        let kept = Duration::from_secs(u64::from(settings.look_back_minutes) * 60);
        mirror.know_above(from).await?;
        if !self.read(mirror, Range { after: from, to: last }, true).await? {
            return Ok(());
        }
        while self.passed.front().is_some_and(|(at, _)| began.duration_since(*at) >= kept) {
            self.passed.pop_front();
        }
        self.looked_back = Some((Instant::now(), began.elapsed()));
        if whole {
            self.looked_back_whole = Some(began);
        }
        Ok(())
    }

    /// Reads `range` and stores what the log has not. What came before a failure is stored, too. False if the pull is to
    /// stop.
    async fn read(&mut self, mirror: &mut Mirror, range: Range, back: bool) -> Result<bool> {
        let mut parts = reader::read(&self.upstream, &self.judging, range);
        let mut stopping = self.stopping.clone();
        let (mut batch, mut rows, mut bytes) = (Vec::<Part>::new(), 0, 0);
        let mut begun = Instant::now();
        let outcome = loop {
            if rows >= COMMIT_ROWS || bytes >= COMMIT_BYTES || begun.elapsed() >= COMMIT_AGE {
                self.store(mirror, std::mem::take(&mut batch), back).await?;
                (rows, bytes, begun) = (0, 0, Instant::now());
            }
            // A part may wait for the memory that the batch takes.
            let (waits, due) = (!batch.is_empty(), COMMIT_AGE.saturating_sub(begun.elapsed()));
            let part = tokio::select! {
                part = parts.recv() => part,
                () = tokio::time::sleep(due), if waits => continue,
                _ = stopping.wait_for(|stop| *stop) => break Ok(false),
            };
            match part {
                None => break Ok(true),
                Some(Err(error)) => break Err(error),
                Some(Ok(part)) => {
                    rows += part.pieces.iter().map(|piece| piece.rows.num_rows()).sum::<usize>();
                    bytes += part.pieces.iter().map(Piece::bytes).sum::<usize>();
                    batch.push(part);
                }
            }
        };
        self.store(mirror, batch, back).await?;
        outcome
    }

    async fn store(&mut self, mirror: &mut Mirror, parts: Vec<Part>, back: bool) -> Result<()> {
        let pieces: Vec<Piece> = parts.into_iter().flat_map(|part| part.pieces).collect();
        if pieces.is_empty() {
            return Ok(());
        }
        let piece = together(self.config.settings.kind, pieces)?;
        let settled = self.passed.iter().map(|(_, id)| *id).min().unwrap_or(mirror.last());
        let stored = match mirror.commit(&piece, settled).await {
            Err(error @ Error::Ledger(LedgerError::Stopped { .. })) => {
                self.config.writers.forget(&self.config.settings.log).await;
                return Err(error);
            }
            stored => stored?,
        };
        let last = mirror.last();
        let window = i64::from(self.config.settings.look_back_ids);
        mirror.forget_up_to(settled.min(last - window));
        let name = &self.config.settings.name;
        for (counter, count) in [
            ("sporlog_pull_records_total", stored.accepted),
            ("sporlog_pull_late_total", stored.late),
            ("sporlog_pull_refused_total", stored.refused),
        ] {
            metrics::counter!(counter, "pull" => name.clone()).increment(count);
        }
        metrics::gauge!("sporlog_pull_position", "pull" => name.clone()).set(last as f64);
        self.totals.accepted += stored.accepted;
        self.totals.late += stored.late;
        self.totals.refused += stored.refused;
        // Ids may skip: the share of those that there are is what it has been so far.
        let read = piece.ids.first().map_or(1, |first| (last - first + 1).max(1)) as f64;
        let left = (self.head - last).max(0) as f64 * (piece.ids.len() as f64 / read).min(1.0);
        (self.config.progress)(self.totals.accepted, self.totals.accepted + left as u64);
        if !back
            && !self.first_read
            && let Some(newest) = newest(&piece)
            && Local::now().naive_local().and_utc() - newest > BEHIND
        {
            self.say_behind(newest.date_naive().to_string());
        }
        Ok(())
    }
}

/// When the newest of some records happened, by local time.
fn newest(piece: &Piece) -> Option<DateTime<Utc>> {
    let times = piece.rows.column_by_name("occurred_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    DateTime::from_timestamp_micros(arrow::compute::max(times)?)
}

/// The pause after so many failures in a row.
fn pause(error: &Error, failures: u32) -> Duration {
    let grown = PAUSE
        .0
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(PAUSE.1)
        .mul_f64(jitter(0.5, 1.0));
    let asked = match error {
        Error::Upstream(failure) => failure.retry_after(),
        _ => None,
    };
    asked.map_or(grown, |asked| asked.max(PAUSE.0).mul_f64(jitter(1.0, 1.1)))
}

/// A number between two others, by chance, so that many pulls do not come at the same moment.
fn jitter(from: f64, to: f64) -> f64 {
    let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    from + (to - from) * chance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_the_upstream_is_heeded() {
        let error = Error::Internal("x".into());
        for failures in 1..100 {
            let pause = pause(&error, failures);
            let least = (500 << (failures - 1).min(16)).min(150_000);
            assert!(pause >= Duration::from_millis(least) && pause <= PAUSE.1, "{failures}: {pause:?}");
        }
        let status = reqwest::StatusCode::SERVICE_UNAVAILABLE;
        let asks = Failure::Status { at: "head".into(), status, retry_after: Some(Duration::from_secs(100)) };
        assert!((100..=110).contains(&pause(&asks.into(), 1).as_secs()));
    }
}
