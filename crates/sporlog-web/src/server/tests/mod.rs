//! The server as clients meet it: real sockets, and bytes that no well-behaved client sends.

mod answers;
mod bodies;
mod exhaustion;
mod harness;
mod heads;
mod http2;
pub(crate) mod log;
mod many;
mod slow;
mod stopping;
mod tls;
