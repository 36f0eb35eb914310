//! Tokens that were verified, so that a token that comes with every request is verified once.
//!
//! A token is known by its SHA-256, and only for as long as it is valid and its issuer's keys are
//! those that it was verified with: when they change, it is verified anew. Only good tokens are
//! kept, so nobody else can fill the cache.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};
use sporlog_record::jose::KeySet;

use super::grant::Grant;
use super::issuer::Issuer;

/// As many tokens are kept.
const CAPACITY: usize = 10_000;

/// Tokens that were verified.
pub(super) struct TokenCache {
    tokens: RwLock<HashMap<[u8; 32], Good>>,
    capacity: usize,
}

/// A token that was verified.
#[derive(Clone)]
pub(super) struct Good {
    pub grant: Arc<Grant>,
    pub issuer: Arc<Issuer>,
    pub keys: Arc<KeySet>,
    /// Until when it is valid, in seconds since 1970.
    pub until: f64,
}

impl Good {
    fn still_holds(&self, now: f64) -> bool {
        now < self.until && self.issuer.current().is_some_and(|keys| Arc::ptr_eq(&keys, &self.keys))
    }
}

impl Default for TokenCache {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl TokenCache {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        TokenCache { tokens: RwLock::default(), capacity }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What a token is known by.
    pub(super) fn digest(token: &str) -> [u8; 32] {
        Sha256::digest(token).into()
    }

    /// What the token stands for, if that is known and still holds.
    pub(super) fn get(&self, digest: &[u8; 32], now: f64) -> Option<Arc<Grant>> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(digest).filter(|good| good.still_holds(now)).map(|good| Arc::clone(&good.grant))
    }

    /// Keeps what a token stands for.
    pub(super) fn insert(&self, digest: [u8; 32], good: Good, now: f64) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= self.capacity {
            tokens.retain(|_, good| good.still_holds(now));
        }
        // All of them are in use: those that come again are verified again, which is no more than
        // it would be without a cache.
        if tokens.len() >= self.capacity {
            tokens.clear();
        }
        tokens.insert(digest, good);
    }
}
