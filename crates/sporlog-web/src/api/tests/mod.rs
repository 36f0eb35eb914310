//! The way in, tried over the whole router with a store of its own and real keys.

mod delivered;
mod deliveries;
mod entries;
mod idempotency;
mod place;
mod post;
