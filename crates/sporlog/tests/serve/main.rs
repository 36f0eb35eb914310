//! The server as its clients meet it: the built program on a free port, over a store of its own, real
//! connections, real signals.

mod auditlog;
mod client;
mod covering;
mod crowd;
mod deliveries;
mod disk;
mod fire;
mod fleet;
mod hostile;
mod intake;
mod issuer;
mod keys;
mod les;
mod logs;
mod pull_storm;
mod pulling;
mod quiet;
mod raw;
mod ready;
mod records;
mod reloading;
mod server;
mod stopping;
mod upstream;
mod watching;
