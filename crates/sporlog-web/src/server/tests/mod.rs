//! The server as clients meet it: real sockets, and bytes that no well-behaved client sends.

mod answers;
mod bodies;
mod harness;
mod heads;
mod hogs;
mod http2;
mod log;
mod many;
mod secret;
mod slow;
mod stopping;
