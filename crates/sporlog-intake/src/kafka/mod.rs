//! Kafka: a topic's messages into a log, each exactly once.
//!
//! The log itself stores how far each partition has been taken in, as the position
//! `kafka:TOPIC:PARTITION`, in the very commit that holds the records. After a rebalance, a kill or a
//! reset of the group's offsets, the log alone says where reading goes on, and a message that is read
//! twice is dropped.
//!
//! | module | idea |
//! |---|---|
//! | [`settings`] | the section `[kafka]`, and librdkafka's configuration |
//! | `consumer`, `consumer/assignment`, `context` | the polling thread; its partitions; librdkafka's callbacks |
//! | `batch` | messages as bytes with their envelopes, and as judged rows |
//! | `pipeline` | a log's batches: judged in parallel, committed one after another, with their positions |
//! | `refusals` | refused messages: into the quarantine, and copies to a topic of their own |
//! | `topic_ids` | which topic offsets belong to, when one was made anew under its name |
//! | `status` | how the consumer is doing, for the outside |

mod batch;
mod consumer;
mod context;
mod pipeline;
mod refusals;
pub mod settings;
mod status;
mod topic_ids;

pub use consumer::{Consumer, Mode};
pub use settings::Settings;
pub use status::{PartitionStatus, Status, Totals};
