//! How many requests may be under way at once, in all and of one holder.
//!
//! Each request holds one permit, from its head until its answer is handed over. It begins in the class `Request`; before
//! a handler does what may take long, it moves the permit to another class, so that the ordinary requests of others
//! do not wait for that:
//!
//! | class | what holds it | in all | one holder |
//! |---|---|---|---|
//! | `Request` | every request | `limits.requests` | a quarter |
//! | `LongPoll` | `head?wait=…`, once it has to wait | four times `limits.requests` | a quarter |
//! | `Delivery` | `POST /api/deliveries`, once its sender is known | 8 | 4 |
//! | `Export` | `/my/export`, in which 100 records are in memory at a time | 64 | 4 |
//! | `Issuer` | whoever waits for an issuer of tokens or a provider of sign-in to answer | 64 | 16 |
//!
//! The holder is the client's address (IPv6: its network of 64 bits) until it is known who asks, and then the
//! principal or the person; whatever finds out who asks says so to the permit. Clients behind one address hold no more
//! than an address's share without keys, and one client holds no more than a principal's share, wherever it asks from.
//! Nobody queues: without a permit, the answer is 503 with `Retry-After`. Probes and `/metrics` hold no permit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::metrics::counter;
use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;

use super::metrics;
use crate::Problem;

/// Deliveries at once: each may take a worker's time and a writer's.
const DELIVERIES: (usize, usize) = (8, 4);
/// Exports at once: each may have a hundred large records in memory, for as long as its reader takes.
const EXPORTS: (usize, usize) = (64, 4);
/// Requests that wait for an issuer. Those of other tokens go on meanwhile, so few of them are honest.
const ISSUER: (usize, usize) = (64, 16);
/// A long poll costs a connection and a timer, so more of them are let in than of other requests.
const LONG_POLLS: usize = 4;
/// A holder's share of requests and long polls is one of so many.
const SHARES: usize = 4;

/// What a request is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Anything that does not take long.
    Request,
    /// Waiting for a log to move on.
    LongPoll,
    /// Taking a file in.
    Delivery,
    /// Writing out all of a person's records.
    Export,
    /// Waiting for an issuer of tokens, or a provider of sign-in.
    Issuer,
}

/// The permits of all requests.
pub(super) struct Permits {
    classes: [Counts; 5],
    hasher: RandomState,
}

/// The permits of one class.
struct Counts {
    all: usize,
    each: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    all: usize,
    /// By the hash of the holder.
    by: HashMap<u64, usize>,
}

impl Permits {
    pub(super) fn new(requests: usize) -> Self {
        let counts = |(all, each)| Counts { all, each, held: Mutex::default() };
        let shared = |all: usize| counts((all, (all / SHARES).max(1)));
        let long_polls = shared(requests.saturating_mul(LONG_POLLS));
        Permits {
            classes: [shared(requests), long_polls, counts(DELIVERIES), counts(EXPORTS), counts(ISSUER)],
            hasher: RandomState::new(),
        }
    }

    /// A permit of the class `Request` for this holder.
    pub(super) fn acquire(self: &Arc<Self>, holder: impl Hash) -> Result<RequestPermit, Problem> {
        let holder = self.hasher.hash_one(holder);
        self.counts(Class::Request).acquire(holder)?;
        let state = Mutex::new((Class::Request, holder));
        Ok(RequestPermit(Some(Arc::new(Permit { permits: Arc::clone(self), state }))))
    }

    fn counts(&self, class: Class) -> &Counts {
        &self.classes[class as usize]
    }
}

impl Counts {
    fn acquire(&self, holder: u64) -> Result<(), Problem> {
        let mut held = lock(&self.held);
        let all = held.all;
        let its = held.by.entry(holder).or_default();
        let detail = if *its >= self.each {
            "too many requests of this sort are under way for this client"
        } else if all >= self.all {
            "too many requests are under way"
        } else {
            *its += 1;
            held.all += 1;
            return Ok(());
        };
        if *its == 0 {
            held.by.remove(&holder);
        }
        counter!(metrics::HTTP_REFUSED, "reason" => "crowd").increment(1);
        Err(Problem { retry_after: Some(1), ..Problem::unavailable(detail) })
    }

    fn release(&self, holder: u64) {
        let mut held = lock(&self.held);
        held.all -= 1;
        if let Entry::Occupied(mut its) = held.by.entry(holder) {
            *its.get_mut() -= 1;
            if *its.get() == 0 {
                its.remove();
            }
        }
    }
}

/// A request's permit, in its extensions; cheap to clone. It is given back when the last clone is dropped. The default is
/// that of a request that needs none.
#[derive(Clone, Default)]
pub struct RequestPermit(Option<Arc<Permit>>);

struct Permit {
    permits: Arc<Permits>,
    state: Mutex<(Class, u64)>,
}

impl RequestPermit {
    /// The permit of the request whose extensions these are.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// From now on it is this holder's, who is known by now.
    pub fn held_by(&self, holder: impl Hash) -> Result<(), Problem> {
        let Some(permit) = &self.0 else { return Ok(()) };
        let holder = permit.permits.hasher.hash_one(holder);
        permit.change(|(class, _)| (class, holder))
    }

    /// From now on it is of this class. If no permit of the class can be had, this one stays as it was.
    pub fn move_to(&self, class: Class) -> Result<(), Problem> {
        let Some(permit) = &self.0 else { return Ok(()) };
        permit.change(|(_, holder)| (class, holder))
    }
}

impl Permit {
    fn change(&self, change: impl FnOnce((Class, u64)) -> (Class, u64)) -> Result<(), Problem> {
        let mut state = lock(&self.state);
        let next = change(*state);
        if next != *state {
            self.permits.counts(next.0).acquire(next.1)?;
            let before = std::mem::replace(&mut *state, next);
            self.permits.counts(before.0).release(before.1);
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (class, holder) = *lock(&self.state);
        self.permits.counts(class).release(holder);
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestPermit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_holder_takes_more_than_its_share_of_a_class() {
        let permits = Arc::new(Permits::new(16));
        let mut held: Vec<_> = (0..4).map(|_| permits.acquire("a").expect("within its share")).collect();
        let refused = permits.acquire("a").err().expect("beyond its share");
        assert_eq!((refused.status, refused.retry_after), (503, Some(1)));
        held.extend(
            ["b", "c", "d"].iter().flat_map(|one| [one; 4]).map(|one| permits.acquire(one).expect("a share")),
        );
        assert!(permits.acquire("e").is_err(), "all are taken");
        drop(held);
        assert!(permits.acquire("e").is_ok());
        assert!(lock(&permits.counts(Class::Request).held).by.is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn what_takes_long_leaves_the_permits_of_others_alone() {
        let permits = Arc::new(Permits::new(4));
        let mut waiting = Vec::new();
        loop {
            let permit = permits.acquire("a").expect("the one before has moved");
            if permit.move_to(Class::LongPoll).is_err() {
                break;
            }
            waiting.push(permit);
        }
        assert_eq!(waiting.len(), 4);
        // One that goes on with something else needs a permit for that.
        let other = permits.acquire("a").expect("none is held");
        assert!(waiting[0].move_to(Class::Request).is_err());
        drop(other);
        assert!(waiting[0].move_to(Class::Request).is_ok());
        // Who is known by now holds what an address held before.
        assert!(permits.acquire("a").is_err());
        waiting[0].held_by("somebody").expect("a share of its own");
        assert!(permits.acquire("a").is_ok());
        assert!(permits.acquire("somebody").is_err());
    }
}
