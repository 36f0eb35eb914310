//! The bandwidth limit of an account, over all its connections.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sporlog_intake::blocking::lock;

/// After a pause, so many seconds' bytes may be sent at once.
const BURST: Duration = Duration::from_secs(1);

/// A shared rate. Its only state is the moment until which the rate is used up.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: f64,
    used_until: Mutex<Instant>,
}

impl Rate {
    pub(super) fn new(bytes_per_second: u32) -> Self {
        Rate { bytes_per_second: f64::from(bytes_per_second.max(1)), used_until: Mutex::new(Instant::now()) }
    }

    /// Uses up `bytes` of the rate, and waits until they are due.
    pub(super) async fn take(&self, bytes: usize) {
        let wait = self.wait(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn wait(&self, bytes: usize, now: Instant) -> Duration {
        let mut used_until = lock(&self.used_until);
        let from = (*used_until).max(now.checked_sub(BURST).unwrap_or(now));
        *used_until = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        used_until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lets_a_burst_through_and_then_keeps_the_rate() {
        let rate = Rate::new(1_000);
        let start = Instant::now() + Duration::from_secs(10);
        assert_eq!(rate.wait(1_000, start), Duration::ZERO);
        let mut now = start;
        for _ in 0..10 {
            now += rate.wait(500, now);
        }
        let took = now.duration_since(start).as_secs_f64();
        assert!((4.9..5.1).contains(&took), "{took}");
    }
}
