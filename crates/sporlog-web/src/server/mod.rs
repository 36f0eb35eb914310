//! Listening, limits, and what an operator watches.
//!
//! Everything here is about requests in general, over any [`axum::Router`]: what they are for is
//! settled elsewhere. What it promises: one client cannot take the server from the others, whether it
//! sends too much, too slowly, too often or nonsense; a request that was begun is finished before the
//! server stops; and no log line or metric holds a personal number, a key or a query.
//!
//! | module | idea |
//! |---|---|
//! | `settings` | what may be set, and its defaults |
//! | `listen` | accepting connections, up to a number, and stopping |
//! | `connection` | one connection: TLS, HTTP/1.1, and when it has been idle or slow for too long |
//! | `tls` | certificates, and new ones without a restart |
//! | `layers` | what every request passes, in one place |
//! | `permits` | how many requests at once, in all and of one client |
//! | `observe` | a request's id, log line and metrics |
//! | `request_body` | how large a request's body may be, how slowly it may come, and gzip |
//! | `rate` | how often one client may ask |
//! | `answer` | what every answer has: safe headers, and problems as bodies of errors |
//! | `client` | who is at the other end, seen through proxies |
//! | [`health`], [`metrics`] | what an operator watches |
//! | [`process`] | the process: open files, and the service manager |

mod answer;
mod client;
mod connection;
mod error;
pub mod health;
mod layers;
mod listen;
pub mod metrics;
mod observe;
mod permits;
pub mod process;
mod rate;
mod request_body;
mod settings;
mod tls;

#[cfg(test)]
pub(crate) mod tests;

pub use client::{ClientAddress, ForwardedHeader, Network};
pub use error::ServerError;
pub use health::Health;
pub use layers::layers;
pub use listen::Server;
pub use observe::{RequestId, RequestedBy};
pub use permits::{Class, RequestPermit};
pub use rate::Rates;
pub use request_body::RouteLimits;
pub use settings::{Limits, Rate, RateSettings, ServerSettings, TlsSettings};
