//! Limits on connections: how many at once, and how often an address may try wrong keys.
//!
//! Refused keys are counted by the client's address. The count falls by one every fifteen seconds. Above ten,
//! new connections from the address are delayed. Above twenty, they are rejected for a time that doubles with
//! each further refused key, up to a minute. A rejected connection does not count as a refused key, so a client
//! with the right key is let in again soon, also from the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sporlog_intake::blocking::lock;
use sporlog_record::identifier::network;

/// Refused keys without a consequence.
const FREE: f64 = 10.0;
/// Refused keys from which on connections are rejected.
const ENOUGH: f64 = 20.0;
/// The time in which the count of refused keys falls by one.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// The delay of a new connection for each refused key above [`FREE`].
const WAIT: Duration = Duration::from_millis(200);
/// The longest time for which connections are rejected.
const LONGEST: Duration = Duration::from_secs(60);
/// Addresses that are remembered. Beyond that, the one that was quiet for longest is forgotten.
const ADDRESSES: usize = 10_000;
/// One address may have one part in so many of all connections without having signed in, and so many at least.
const SHARE: usize = 4;
const AT_LEAST: usize = 8;

/// The limits and counts of all addresses. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LoginThrottle {
    inner: Arc<Mutex<Inner>>,
    connections: usize,
}

#[derive(Debug, Default)]
struct Inner {
    open: usize,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    /// The count of refused keys, as of `at`.
    level: f64,
    at: Instant,
    refused_until: Instant,
    /// Connections that have not signed in.
    unauthenticated: usize,
}

/// Why a connection is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// There are too many connections, in all or of the address without having signed in.
    TooManyConnections,
    /// Too many keys of the address were refused.
    TooManyRefusedKeys,
}

/// One of the connections that the server has at once. Dropping the permit frees it.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    throttle: LoginThrottle,
    address: IpAddr,
    is_unauthenticated: bool,
    /// Keys that were refused on this connection.
    refused: u32,
}

impl LoginThrottle {
    /// Allows so many connections at once.
    pub(super) fn new(connections: usize) -> Self {
        LoginThrottle { inner: Arc::default(), connections }
    }

    /// Admits a connection, which has to be delayed for the time given.
    pub(super) fn admit(&self, from: IpAddr) -> Result<(ConnectionPermit, Duration), Rejection> {
        self.admit_at(from, Instant::now())
    }

    fn admit_at(&self, from: IpAddr, now: Instant) -> Result<(ConnectionPermit, Duration), Rejection> {
        let address = network(from);
        let mut inner = lock(&self.inner);
        if inner.open >= self.connections {
            return Err(Rejection::TooManyConnections);
        }
        let known = inner.address(address, now);
        if now < known.refused_until {
            return Err(Rejection::TooManyRefusedKeys);
        }
        if known.unauthenticated >= (self.connections / SHARE).max(AT_LEAST) {
            return Err(Rejection::TooManyConnections);
        }
        known.unauthenticated += 1;
        let wait = WAIT.mul_f64((known.level - FREE).clamp(0.0, ENOUGH - FREE));
        inner.open += 1;
        Ok((ConnectionPermit { throttle: self.clone(), address, is_unauthenticated: true, refused: 0 }, wait))
    }
}

impl ConnectionPermit {
    /// Counts a refused key. Returns whether the connection has to be ended.
    pub(super) fn refused(&mut self) -> bool {
        self.refused_at(Instant::now())
    }

    fn refused_at(&mut self, now: Instant) -> bool {
        self.refused += 1;
        let mut inner = lock(&self.throttle.inner);
        let known = inner.address(self.address, now);
        known.level += 1.0;
        if known.level < ENOUGH {
            return false;
        }
        let doublings = (known.level - ENOUGH).clamp(0.0, 10.0);
        known.refused_until = now + Duration::from_secs_f64(doublings.exp2()).min(LONGEST);
        true
    }

    /// Notes that the client has signed in: the keys that were refused on this connection do not count any more.
    pub(super) fn signed_in(&mut self) {
        let mut inner = lock(&self.throttle.inner);
        let known = inner.address(self.address, Instant::now());
        known.level = (known.level - f64::from(self.refused)).max(0.0);
        known.unauthenticated = known.unauthenticated.saturating_sub(usize::from(self.is_unauthenticated));
        self.is_unauthenticated = false;
        self.refused = 0;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut inner = lock(&self.throttle.inner);
        inner.open = inner.open.saturating_sub(1);
        if self.is_unauthenticated
            && let Some(known) = inner.addresses.get_mut(&self.address)
        {
            known.unauthenticated = known.unauthenticated.saturating_sub(1);
            if known.unauthenticated == 0 && known.level <= 0.0 {
                inner.addresses.remove(&self.address);
            }
        }
    }
}

impl Inner {
    fn address(&mut self, address: IpAddr, now: Instant) -> &mut Address {
        if !self.addresses.contains_key(&address) && self.addresses.len() >= ADDRESSES {
            let free = self.addresses.iter().filter(|(_, known)| known.unauthenticated == 0);
            let quietest = free.min_by_key(|(_, known)| known.at).map(|(&address, _)| address);
            quietest.map(|quietest| self.addresses.remove(&quietest));
        }
        let fresh = || Address { level: 0.0, at: now, refused_until: now, unauthenticated: 0 };
        let known = self.addresses.entry(address).or_insert_with(fresh);
        let forgotten = now.saturating_duration_since(known.at).div_duration_f64(FORGOTTEN);
        known.level = (known.level - forgotten).max(0.0);
        known.at = now;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST))
    }

    /// Tries a hundred wrong keys, each on a connection of its own. Returns how many keys were checked.
    #[test]
    fn a_hundred_wrong_keys_are_slowed_down_and_a_right_one_works_soon() {
        let throttle = LoginThrottle::new(200);
        let (from, mut now) = (ip("127.0.0.1"), Instant::now());
        let (mut tried, mut waited) = (0, Duration::ZERO);
        for _ in 0..100 {
            now += Duration::from_millis(100);
            if let Ok((mut permit, wait)) = throttle.admit_at(from, now) {
                (tried, waited, now) = (tried + 1, waited + wait, now + wait);
                permit.refused_at(now);
            }
        }
        assert!((20..30).contains(&tried), "{tried}");
        assert!(waited > Duration::from_secs(5), "{waited:?}");
        assert!(throttle.admit_at(ip("127.0.0.2"), now).is_ok(), "others are not concerned");
        now += LONGEST;
        assert!(throttle.admit_at(from, now).is_ok_and(|(_, wait)| wait <= WAIT * 10));
        now += FORGOTTEN * 30;
        assert!(throttle.admit_at(from, now).is_ok_and(|(_, wait)| wait.is_zero()));
    }

    #[test]
    fn an_agent_with_many_keys_is_no_attack() {
        let throttle = LoginThrottle::new(200);
        for _ in 0..50 {
            let Ok((mut permit, wait)) = throttle.admit(ip("10.0.0.1")) else { panic!("turned away") };
            assert!(wait.is_zero());
            assert!((0..5).all(|_| !permit.refused()));
            permit.signed_in();
        }
    }

    #[test]
    fn places_are_given_back() {
        let throttle = LoginThrottle::new(40);
        let places: Vec<_> = (0..100).map_while(|_| throttle.admit(ip("10.0.0.1")).ok()).collect();
        assert_eq!(places.len(), 10, "one address does not get all of them");
        assert_eq!(throttle.admit(ip("10.0.0.1")).err(), Some(Rejection::TooManyConnections));
        drop(places);
        assert!(throttle.admit(ip("10.0.0.1")).is_ok());
        assert!(lock(&throttle.inner).addresses.is_empty());
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_address_and_memory_is_bounded() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
        let throttle = LoginThrottle::new(200);
        for n in 0..u32::try_from(ADDRESSES).unwrap_or_default() + 500 {
            let admitted = throttle.admit(IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
            assert!(admitted.is_ok_and(|(mut permit, _)| !permit.refused()));
        }
        assert_eq!(lock(&throttle.inner).addresses.len(), ADDRESSES);
    }
}
