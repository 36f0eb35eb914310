//! Messages taken in from real brokers. `tests/kafka/run` fetches Kafka and runs these; by
//! themselves they are passed over.

mod cluster;
mod instance;
mod messages;
#[path = "../../../sporlog-ledger/tests/common/proxy.rs"]
mod proxy;
mod secured;
mod small;
mod storm;
