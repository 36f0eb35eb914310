//! Sporlog over HTTP.
//!
//! This crate answers requests: it finds out who asks, holds what they ask for against what they
//! may, and reads from or appends to logs through the ledger and the intake. It touches neither
//! files nor tables itself.
//!
//! | module | idea |
//! |---|---|
//! | [`access`] | who asks, and what they may |
//! | [`api`] | the routes, and what each of them answers |
//! | [`catalog`](Catalog) | the logs, opened once and kept up with |
//! | [`pages`] | what a person sees of their own log |
//! | [`app`](App) | what handlers work with |
//! | [`problem`](Problem) | what a client is told when a request fails |
//! | [`retention`](Retention) | for how long records are kept |
//! | [`sign_in`] | how a person signs in, and their session |
//! | [`server`] | listening, limits, and what an operator watches |
#![forbid(unsafe_code)]

pub mod access;
pub mod api;
mod app;
mod catalog;
pub mod pages;
mod problem;
mod retention;
pub mod server;
pub mod sign_in;

pub use app::{App, AppState, Exchange};
pub use catalog::Catalog;
pub use problem::Problem;
pub use retention::Retention;
