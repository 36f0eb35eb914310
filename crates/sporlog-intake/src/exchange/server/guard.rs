//! Who may connect: not too many at once, and not those who try one key after another.
//!
//! Refused keys are counted by the client's address. The count sinks by one every fifteen seconds. Above
//! ten, new connections from there have to wait a little; above twenty, they are turned away at once for a
//! time that doubles with each further refused key, up to a minute. Being turned away does not count, so that
//! somebody with the right key gets in again soon, also from behind the same address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Refused keys that cost nothing.
const FREE: f64 = 10.0;
/// Refused keys after which connections are turned away.
const ENOUGH: f64 = 20.0;
/// In what time a refused key is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(15);
/// What a new connection waits for each refused key above [`FREE`].
const WAIT: Duration = Duration::from_millis(200);
/// For how long connections are turned away, at most.
const LONGEST: Duration = Duration::from_secs(60);
/// Addresses that are remembered. Beyond, the one that was quiet for longest is forgotten.
const ADDRESSES: usize = 10_000;
/// The part of all connections that one address may hold without having signed in, and how many at least.
const SHARE: usize = 4;
const AT_LEAST: usize = 8;

/// The door. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Guard {
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
    /// Refused keys, less what has been forgotten until `at`.
    level: f64,
    at: Instant,
    refused_until: Instant,
    /// Connections that have not signed in.
    strangers: usize,
}

/// Why somebody is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// Too many are here.
    Crowd,
    /// Too many keys were refused.
    Keys,
}

/// A place at the server, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    guard: Guard,
    address: IpAddr,
    is_stranger: bool,
    /// Keys that were refused on this connection.
    refused: u32,
}

impl Guard {
    /// A door for so many connections at once.
    pub(super) fn new(connections: usize) -> Self {
        Guard { inner: Arc::default(), connections }
    }

    /// Lets somebody in, after a wait.
    pub(super) fn enter(&self, from: IpAddr) -> Result<(Place, Duration), Turned> {
        self.enter_at(from, Instant::now())
    }

    fn enter_at(&self, from: IpAddr, now: Instant) -> Result<(Place, Duration), Turned> {
        let address = network(from);
        let mut inner = self.lock();
        if inner.open >= self.connections {
            return Err(Turned::Crowd);
        }
        let known = inner.address(address, now);
        if now < known.refused_until {
            return Err(Turned::Keys);
        }
        if known.strangers >= (self.connections / SHARE).max(AT_LEAST) {
            return Err(Turned::Crowd);
        }
        known.strangers += 1;
        let wait = WAIT.mul_f64((known.level - FREE).clamp(0.0, ENOUGH - FREE));
        inner.open += 1;
        Ok((Place { guard: self.clone(), address, is_stranger: true, refused: 0 }, wait))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A key was refused. Returns whether this connection should be ended for it.
    pub(super) fn refused(&mut self) -> bool {
        self.refused_at(Instant::now())
    }

    fn refused_at(&mut self, now: Instant) -> bool {
        self.refused += 1;
        let mut inner = self.guard.lock();
        let known = inner.address(self.address, now);
        known.level += 1.0;
        if known.level < ENOUGH {
            return false;
        }
        let doublings = (known.level - ENOUGH).clamp(0.0, 10.0);
        known.refused_until = now + Duration::from_secs_f64(doublings.exp2()).min(LONGEST);
        true
    }

    /// Somebody has signed in: keys that were tried before the right one are no attack.
    pub(super) fn signed_in(&mut self) {
        let mut inner = self.guard.lock();
        let known = inner.address(self.address, Instant::now());
        known.level = (known.level - f64::from(self.refused)).max(0.0);
        known.strangers = known.strangers.saturating_sub(usize::from(self.is_stranger));
        self.is_stranger = false;
        self.refused = 0;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.guard.lock();
        inner.open = inner.open.saturating_sub(1);
        if self.is_stranger
            && let Some(known) = inner.addresses.get_mut(&self.address)
        {
            known.strangers = known.strangers.saturating_sub(1);
            if known.strangers == 0 && known.level <= 0.0 {
                inner.addresses.remove(&self.address);
            }
        }
    }
}

impl Inner {
    fn address(&mut self, address: IpAddr, now: Instant) -> &mut Address {
        if !self.addresses.contains_key(&address) && self.addresses.len() >= ADDRESSES {
            let free = self.addresses.iter().filter(|(_, known)| known.strangers == 0);
            let quietest = free.min_by_key(|(_, known)| known.at).map(|(&address, _)| address);
            quietest.map(|quietest| self.addresses.remove(&quietest));
        }
        let fresh = || Address { level: 0.0, at: now, refused_until: now, strangers: 0 };
        let known = self.addresses.entry(address).or_insert_with(fresh);
        let forgotten = now.saturating_duration_since(known.at).div_duration_f64(FORGOTTEN);
        known.level = (known.level - forgotten).max(0.0);
        known.at = now;
        known
    }
}

/// What is counted as one: an address, or what one subscriber has of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST))
    }

    /// A hundred wrong keys, one after another, a connection each: how many of them were even looked at.
    #[test]
    fn a_hundred_wrong_keys_are_slowed_down_and_a_right_one_works_soon() {
        let guard = Guard::new(200);
        let (from, mut now) = (ip("127.0.0.1"), Instant::now());
        let (mut tried, mut waited) = (0, Duration::ZERO);
        for _ in 0..100 {
            now += Duration::from_millis(100);
            if let Ok((mut place, wait)) = guard.enter_at(from, now) {
                (tried, waited, now) = (tried + 1, waited + wait, now + wait);
                place.refused_at(now);
            }
        }
        assert!((20..30).contains(&tried), "{tried}");
        assert!(waited > Duration::from_secs(5), "{waited:?}");
        assert!(guard.enter_at(ip("127.0.0.2"), now).is_ok(), "others are not concerned");
        now += LONGEST;
        assert!(guard.enter_at(from, now).is_ok_and(|(_, wait)| wait <= WAIT * 10));
        now += FORGOTTEN * 30;
        assert!(guard.enter_at(from, now).is_ok_and(|(_, wait)| wait.is_zero()));
    }

    #[test]
    fn an_agent_with_many_keys_is_no_attack() {
        let guard = Guard::new(200);
        for _ in 0..50 {
            let Ok((mut place, wait)) = guard.enter(ip("10.0.0.1")) else { panic!("turned away") };
            assert!(wait.is_zero());
            assert!((0..5).all(|_| !place.refused()));
            place.signed_in();
        }
    }

    #[test]
    fn places_are_given_back() {
        let guard = Guard::new(40);
        let places: Vec<_> = (0..100).map_while(|_| guard.enter(ip("10.0.0.1")).ok()).collect();
        assert_eq!(places.len(), 10, "one address does not get all of them");
        assert_eq!(guard.enter(ip("10.0.0.1")).err(), Some(Turned::Crowd));
        drop(places);
        assert!(guard.enter(ip("10.0.0.1")).is_ok());
        assert!(guard.lock().addresses.is_empty());
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_address_and_memory_is_bounded() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
        let guard = Guard::new(200);
        for n in 0..u32::try_from(ADDRESSES).unwrap_or_default() + 500 {
            let entered = guard.enter(IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
            assert!(entered.is_ok_and(|(mut place, _)| !place.refused()));
        }
        assert_eq!(guard.lock().addresses.len(), ADDRESSES);
    }
}
