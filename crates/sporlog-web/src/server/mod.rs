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
//! | `listen` | taking connections in, up to a number, and letting go of them |
//! | `connection` | one connection: HTTP/1.1 or HTTP/2, and when it has been idle or slow for too long |
//! | `wire`, `framing` | the bytes of a connection: requests that could be read two ways are refused |
//! | `tls` | certificates, and new ones without a restart |
//! | `layers` | what every request passes, in one place |
//! | `observe` | a request's id, log line and metrics |
//! | `body`, `unpack` | how much a request may bring, how slowly, and packed |
//! | `rate`, `crowd` | how often one client, and how many at once |
//! | `answer` | what every answer has: safe headers, and problems as bodies of errors |
//! | `client` | who is at the other end, seen through proxies |
//! | [`health`], [`metrics`] | what an operator watches |
//! | [`process`] | the process: open files, and the service manager |

mod answer;
mod body;
mod client;
mod connection;
mod crowd;
mod error;
mod framing;
pub mod health;
mod layers;
mod listen;
pub mod metrics;
mod observe;
pub mod process;
mod rate;
mod settings;
mod tls;
mod unpack;
mod wire;

#[cfg(test)]
mod tests;

pub use body::RouteLimits;
pub use client::{ClientAddress, Network};
pub use error::ServerError;
pub use health::Health;
pub use layers::layers;
pub use listen::Server;
pub use observe::{RequestId, RequestedBy};
pub use settings::{ForwardedHeader, Limits, Rate, RateSettings, ServerSettings, TlsSettings};
