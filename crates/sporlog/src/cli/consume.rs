//! What `sporlog consume` takes.

use clap::Args;

/// Take messages from Kafka into their logs, each exactly once.
///
/// The section [kafka] of the configuration says from which topics, and into which logs. Good messages
/// become records, with their key, headers and time beside them (envelope); bad ones go to the
/// quarantine, and the partition goes on. How far each partition has been taken in is kept in the log
/// itself, so that this can be stopped, killed and started again, here or elsewhere, at any moment.
///
/// Ctrl-C or SIGTERM ends it when what has been read is stored. At the end it prints what was taken in.
/// With --until-end, exits with 1 if anything was refused.
#[derive(Debug, Args)]
#[command(after_help = super::examples::CONSUME)]
pub struct ConsumeArgs {
    /// Stop when all that was there at the start is stored
    #[arg(short = 'e', long)]
    pub until_end: bool,
}
