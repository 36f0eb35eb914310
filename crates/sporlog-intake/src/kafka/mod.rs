//! Kafka: a topic's messages into a log, each exactly once.
//!
//! How far each partition has been taken in is kept by the log itself, as `kafka:TOPIC:PARTITION`, in
//! the very commit that its records are in. So whatever happens, a rebalance, a kill, a group whose
//! offsets were reset, the log alone says where to go on, and a message that comes twice is turned away.
//!
//! | module | idea |
//! |---|---|
//! | [`settings`], `client` | what may be set, and what librdkafka makes of it |
//! | `consumer`, `status` | the handle to a running consumer, and how it is doing |
//! | `poll`, `context`, `partition` | the loop that polls, follows the group (`poll/group`), begins where the logs say (`poll/place`), and keeps to its memory (`poll/pressure`) |
//! | `batch`, `envelope` | messages as bytes, and as judged rows; what they carry besides |
//! | `lane` | the way into one log |
//! | `refusals`, `dead_letter` | what becomes of refused messages |

mod batch;
mod client;
mod consumer;
mod context;
mod dead_letter;
mod envelope;
mod lane;
mod partition;
mod poll;
mod refusals;
pub mod settings;
mod status;

pub use consumer::{Consumer, Mode};
pub use settings::Settings;
pub use status::{PartitionStatus, Status, Totals};
