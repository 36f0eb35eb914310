//! `sporlog store`.

use clap::{Args, Subcommand};

use super::examples;

/// See whether a place can be a store.
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    pub what: StoreCommand,
}

/// What can be done with a store as a whole.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Try out all that is done in a store, in a folder of its own, which goes again
    ///
    /// A line is printed for each thing, with what is wrong if it cannot be done. 32 writers put one name at once, a hundred
    /// times, and only one of them may be told that it was first: some buckets ignore that condition in silence, and records
    /// would be lost there. Exit code 1 if something cannot be done.
    #[command(after_help = examples::STORE_CHECK)]
    Check {
        /// The place [default: the store]
        #[arg(value_name = "URL")]
        url: Option<String>,
    },
}
