//! How often one client may ask.
//!
//! Clients are told apart by where they ask from and by the key or token they ask with. The second is not
//! verified yet when it is counted: whoever makes keys up is held by the first. What is kept is a
//! hash of 64 bits, under a secret of this process, and never the key itself.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ::metrics::counter;
use axum::http::{HeaderMap, StatusCode, header};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use sporlog_record::identifier::network;

use super::metrics;
use super::settings::{Rate, RateSettings};
use crate::Problem;

/// After how many requests those clients are forgotten that have not been seen for a while.
const FORGET_AFTER: u32 = 16_384;

/// Counts requests by client. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Rates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limiters: RwLock<Arc<Limiters>>,
    hasher: RandomState,
    clock: DefaultClock,
    counted: AtomicU32,
}

#[derive(Debug)]
struct Limiters {
    per_address: Option<DefaultKeyedRateLimiter<u64>>,
    per_client: Option<DefaultKeyedRateLimiter<u64>>,
}

impl Limiters {
    fn new(settings: &RateSettings) -> Self {
        let limiter = |rate: Option<Rate>| {
            let Rate { per_second, burst } = rate?;
            Some(DefaultKeyedRateLimiter::keyed(
                Quota::per_second(per_second).allow_burst(burst.unwrap_or(per_second)),
            ))
        };
        Limiters { per_address: limiter(settings.per_address), per_client: limiter(settings.per_client) }
    }
}

impl Rates {
    /// By these settings.
    pub fn new(settings: &RateSettings) -> Self {
        Rates(Arc::new(Inner {
            limiters: RwLock::new(Arc::new(Limiters::new(settings))),
            hasher: RandomState::new(),
            clock: DefaultClock::default(),
            counted: AtomicU32::new(0),
        }))
    }

    /// By these settings from now on. What was counted so far is forgotten.
    pub fn set(&self, settings: &RateSettings) {
        *self.0.limiters.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Limiters::new(settings));
    }

    /// Counts a request; a problem if it is one too many.
    pub(super) fn count(&self, address: IpAddr, headers: &HeaderMap) -> Result<(), Problem> {
        let limiters = Arc::clone(&self.0.limiters.read().unwrap_or_else(PoisonError::into_inner));
        if let Some(limiter) = &limiters.per_address {
            self.check(limiter, self.0.hasher.hash_one(network(address)))?;
        }
        if let Some(limiter) = &limiters.per_client {
            let with = headers.get("apikey").or_else(|| headers.get(header::AUTHORIZATION));
            if let Some(with) = with {
                self.check(limiter, self.0.hasher.hash_one(with.as_bytes()))?;
            }
        }
        Ok(())
    }

    fn check(&self, limiter: &DefaultKeyedRateLimiter<u64>, client: u64) -> Result<(), Problem> {
        if self.0.counted.fetch_add(1, Ordering::Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            limiter.retain_recent();
        }
        limiter.check_key(&client).map_err(|not_until| {
            counter!(metrics::HTTP_REFUSED, "reason" => "rate").increment(1);
            // In whole seconds, and not before it is worth it.
            let wait = not_until.wait_time_from(self.0.clock.now()).as_secs() + 1;
            let detail = "this client asks too often; Retry-After says when to come back";
            Problem { retry_after: Some(wait), ..Problem::new(StatusCode::TOO_MANY_REQUESTS, detail) }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst) })
    }

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        let value = axum::http::HeaderValue::from_static(value);
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), value)])
    }

    #[test]
    fn clients_are_held_back_each_by_itself() {
        let rates = Rates::new(&RateSettings { per_address: rate(1, 3), per_client: rate(1, 2) });
        let [a, b]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().expect("an address"));
        let none = HeaderMap::new();
        for _ in 0..3 {
            assert!(rates.count(a, &none).is_ok());
        }
        let problem = rates.count(a, &none).expect_err("too many");
        assert_eq!((problem.status, problem.retry_after), (429, Some(1)));
        // Another address is not concerned, and one key is one client from wherever it comes.
        let key = with("apikey", "sporlog_x_y");
        assert!(rates.count(b, &key).is_ok());
        assert!(rates.count("192.0.2.3".parse().expect("an address"), &key).is_ok());
        assert!(rates.count("192.0.2.4".parse().expect("an address"), &key).is_err());
        assert!(rates.count("192.0.2.4".parse().expect("an address"), &with("apikey", "other")).is_ok());
    }

    #[test]
    fn other_rates_hold_at_once() {
        let rates = Rates::new(&RateSettings::default());
        let count = || rates.count("192.0.2.1".parse().expect("an address"), &HeaderMap::new());
        assert!((0..9).all(|_| count().is_ok()));
        rates.clone().set(&RateSettings { per_address: rate(1, 1), per_client: None });
        assert!(count().is_ok() && count().is_err());
        rates.set(&RateSettings::default());
        assert!(count().is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let rates = Rates::new(&RateSettings { per_address: rate(1, 1), per_client: None });
        let count = |address: &str| rates.count(address.parse().expect("an address"), &HeaderMap::new());
        assert!(count("2001:db8::1").is_ok());
        assert!(count("2001:db8::2").is_err());
        assert!(count("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let rates = Rates::new(&RateSettings { per_address: rate(1_000_000, 1), per_client: None });
        for n in 0..4 * FORGET_AFTER {
            let _ = rates.count(IpAddr::from(n.to_be_bytes()), &HeaderMap::new());
        }
        let kept =
            rates.0.limiters.read().expect("whole").per_address.as_ref().map_or(0, |limiter| limiter.len());
        assert!(kept < 2 * FORGET_AFTER as usize, "{kept}");
    }
}
