//! `sporlog config`: what can be asked for.

use clap::{Args, Subcommand};

use super::examples;

/// Check the configuration, or print an example of one.
#[derive(Debug, Args)]
#[command(after_help = examples::CONFIG)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub what: Config,
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say what is wrong with the configuration
    ///
    /// Reads the file and the environment as every command does, and the files they name. Prints a line
    /// for each mistake, `FILE:LINE: error KEY: text`, or with the variable's name in the place
    /// of file and line; and `warning` for what can be meant so but hardly is. Nothing is
    /// changed, and nobody is connected to. With --json, each is an object on a line. Exits with 1
    /// if there is a mistake.
    Check {
        /// Print what is set, too, and by what; passwords and secrets are not shown
        #[arg(short, long)]
        print: bool,
    },
    /// Print a configuration with every setting, its meaning and its default
    Example,
}
