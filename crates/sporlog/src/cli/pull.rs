//! What `sporlog pull` takes.

use clap::{ArgGroup, Args};

/// Mirror the audit log of an OS2faktor Login, each record exactly once.
///
/// A section [[pull]] of the configuration says whose, with which key, and into which log. `sporlog serve` does
/// this for all of them; this command does it for one. How far the upstream has been read is kept in the log
/// itself, so that this can be stopped, killed and started again at any moment. The id that a record has there is
/// its sourceId. Records that turn up late below ids that were read are taken in as well.
///
/// If the upstream's head is ever below what was read, nothing is read any more until --from says after which id to
/// go on. Records that the log has are not stored again.
///
/// Ctrl-C or SIGTERM ends it when what has been read is stored. At the end it prints what was taken in. With --once or
/// --until-head, exits with 1 if anything was refused; with --compare, if anything differs or is missing.
#[derive(Debug, Args)]
#[command(after_help = super::examples::PULL)]
#[command(group(ArgGroup::new("how").args(["once", "until_head", "compare"])))]
pub struct PullLogArgs {
    /// The pull's name in the configuration
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Take in what is there now, and stop; an upstream that cannot be read is an error at once
    #[arg(long)]
    pub once: bool,
    /// Stop when the upstream's head is reached
    #[arg(short = 'e', long)]
    pub until_head: bool,
    /// Go on after this id, whatever the log says
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..), conflicts_with = "compare")]
    pub from: Option<i64>,
    /// Take in nothing; compare the log with what the upstream still has
    #[arg(long)]
    pub compare: bool,
}
