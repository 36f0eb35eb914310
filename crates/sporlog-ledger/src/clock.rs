//! The clock that times of receipt are taken from.
//!
//! A time of receipt is what the clock said, right or wrong; the order of records is that of their ids, and
//! nothing rests on the times ascending. But records that were received by a wrong clock are exported,
//! collected and removed under the wrong day, so a jump of the clock is reported.

use std::time::{Duration, Instant};

/// Corrections of the clock, and differences between the clocks of several writers, that are no jump back.
const TOLERATED_BACK: Duration = Duration::from_mins(1);
/// A clock that is ahead by more than this has jumped.
const TOLERATED_AHEAD: Duration = Duration::from_hours(24);

/// Tells the time, in microseconds UTC since 1970. The default is the system's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock(pub fn() -> i64);

impl Default for Clock {
    fn default() -> Self {
        Clock(|| chrono::Utc::now().timestamp_micros())
    }
}

/// A writer's clock, compared with the last time that it gave.
#[derive(Debug)]
pub(crate) struct WatchedClock {
    clock: Clock,
    /// The last time of receipt; and, if this process gave it, the monotonic time then.
    last: Option<(i64, Option<Instant>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Jump {
    Back,
    Ahead,
}

impl WatchedClock {
    /// `newest` is when the log's newest record was received.
    pub(crate) fn new(clock: Clock, newest: Option<i64>) -> Self {
        WatchedClock { clock, last: newest.map(|at| (at, None)) }
    }

    /// The time, for what `log` receives now. Reports a jump since the last time.
    pub(crate) fn receive(&mut self, log: &str) -> i64 {
        let (now, instant) = ((self.clock.0)(), Instant::now());
        let Some((last, since)) = self.last.replace((now, Some(instant))) else { return now };
        let passed = since.map_or(Duration::ZERO, |since| instant.duration_since(since));
        let Some(jump) = jump(last, passed, now) else { return now };
        let time = |micros| chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default().to_rfc3339();
        let (last, now_text) = (time(last), time(now));
        let direction = match jump {
            Jump::Back => {
                tracing::error!(
                    log,
                    now = now_text,
                    last_receipt = last,
                    "the clock went back: check this machine's clock, and under which days records are stored"
                );
                "back"
            }
            Jump::Ahead => {
                tracing::error!(
                    log,
                    now = now_text,
                    last_receipt = last,
                    "the clock is over a day ahead of the last receipt: unless the log was idle for so long, \
                     check this machine's clock"
                );
                "ahead"
            }
        };
        metrics::counter!("sporlog_clock_jumps_total", "log" => log.to_owned(), "direction" => direction)
            .increment(1);
        now
    }
}

/// Whether the clock that says `now` has jumped since it said `last`, after which `passed` has passed: as far
/// as that is known, zero otherwise.
fn jump(last: i64, passed: Duration, now: i64) -> Option<Jump> {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let expected = last.saturating_add(micros(passed));
    if now < expected.saturating_sub(micros(TOLERATED_BACK)) {
        Some(Jump::Back)
    } else if now > expected.saturating_add(micros(TOLERATED_AHEAD)) {
        Some(Jump::Ahead)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_told_from_time_that_passes() {
        const HOUR: i64 = 3_600_000_000;
        let days = |days: u64| Duration::from_hours(24 * days);
        for (passed, now, expected) in [
            (Duration::ZERO, 0, None),
            (Duration::ZERO, -HOUR / 61, None),
            (Duration::ZERO, -HOUR / 59, Some(Jump::Back)),
            (Duration::ZERO, 24 * HOUR, None),
            (Duration::ZERO, 24 * HOUR + 1, Some(Jump::Ahead)),
            // A quiet week is no jump, and its end a day early is one.
            (days(7), 7 * 24 * HOUR, None),
            (days(7), 6 * 24 * HOUR, Some(Jump::Back)),
            (days(7), 8 * 24 * HOUR + 1, Some(Jump::Ahead)),
            (Duration::ZERO, i64::MIN, Some(Jump::Back)),
            (Duration::MAX, i64::MAX, None),
        ] {
            assert_eq!(jump(0, passed, now), expected, "{passed:?} {now}");
        }
    }
}
