//! The mirror of an OS2faktor Login: its audit log, or its MFA log, into a log of one's own, each record exactly once.
//!
//! ```text
//! head ─► read on from the last id (pages side by side, in order) ─► judge ─► commit
//!                                                                              │ records and position in one step
//! now and then: read the last ids once more ─► leave out what the log has ─────┘
//! ```
//!
//! The upstream takes its ids from a database cluster and may commit them out of order, so that a record can turn up
//! below ids that have been read. The ids of the last minutes are therefore read again, and what the log has not is
//! appended.
//!
//! Positions in the log, all of which a commit moves from just where they stood:
//!
//! | position | meaning |
//! |---|---|
//! | `pull:NAME` | the highest id that has been read |
//! | `pull:NAME:settled` | above this id, records may still turn up: whoever goes on after a crash looks back as far |
//! | `pull:NAME:late` | how many commits have added records below that; two instances cannot add the same one |
//! | `pull:NAME:top` | up to this id, ids may have been used twice: reading has been set back by `--from` |
//! | `pull:NAME:stopped` | the head that was below the position: nothing is read until `--from` says how to go on |
//!
//! | module | idea |
//! |---|---|
//! | `settings` | what is configured |
//! | `upstream`, `failure` | requests, and what may be wrong with an answer |
//! | `page` | the records of an answer, judged |
//! | `reader` | a range of ids, page by page, several at once |
//! | `mirror`, `stored` | the log: which records it has, and one commit |
//! | `task` | polling, looking back, pauses |
//! | `compare` | the log beside what the upstream still has |

mod compare;
mod failure;
mod mirror;
mod page;
mod reader;
mod settings;
mod stored;
mod task;
mod upstream;

pub use compare::{Compared, Difference, compare};
pub use failure::Failure;
pub use mirror::Totals;
pub use settings::Settings;
pub use task::{Mode, Pull, PullConfig};
