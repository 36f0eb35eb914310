//! What `sporlog exchange` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Take deliveries from folders that another SFTP server serves, and exchange files with one.
///
/// Without a command, watches the folders of the suppliers in section [sftp] of the configuration, and
/// takes what is put there by OpenSSH or any other server: a file counts as complete when nothing about it
/// has changed for settle_seconds (10 by default), or when it is renamed from a temporary name and that has
/// passed. Each is taken into the log once, with a receipt beside it, and a line is printed for it. By
/// night, the municipalities' files are written. `sporlog serve` does the same for its own SFTP server; one
/// process at a time has the exchange.
///
/// Ctrl-C or SIGTERM ends it; a delivery that is being read then is taken at the next start. With --once,
/// exits with 1 if anything was refused.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = super::examples::EXCHANGE)]
pub struct ExchangeArgs {
    /// Take what is there, when it is complete, and end
    #[arg(long)]
    pub once: bool,
    #[command(subcommand)]
    pub what: Option<Exchange>,
}

/// What is exchanged with another server.
#[derive(Debug, Subcommand)]
pub enum Exchange {
    Pull(PullArgs),
    Push(PushArgs),
}

/// Fetch files from another SFTP server, each once.
///
/// Made to be run by a timer. What was fetched stands in a journal, .sporlog-exchange.jsonl in the folder
/// here; a file is fetched again only if its size or the time of its last change is another there.
/// A file appears under its name when all of it is there and durable, and the server says that it
/// has not changed meanwhile; until then it is called .NAME.part, and a run that is cut off (by
/// the network, Ctrl-C or a kill) is gone on with by the next. If another file of the same name is
/// here already, both are kept: the new one becomes NAME.2.csv. Where a *.manifest.json that comes
/// with the files gives their SHA-256, that is compared.
///
/// Left out are links, names that begin with a dot, and those of files that are still being
/// written (.part, .partial, .filepart, .tmp, .temp). Names with control characters are refused.
///
/// The server's key must be known: by --host-key, or from known_hosts. Nobody is asked, and nothing is
/// trusted because it is seen for the first time.
///
/// Prints a line for each file that was fetched, and a summary. With --json, each file is a JSON
/// object on a line, also those that were fetched before. Exits with 1 if a file was refused, differs
/// from its manifest or could not be removed, with 2 if one could not be fetched, or the server not be
/// reached.
#[derive(Debug, Args)]
#[command(after_help = super::examples::EXCHANGE_PULL)]
pub struct PullArgs {
    /// The folder there: sftp://USER@HOST[:PORT]/FOLDER; /~/ is where one is put when signing in
    #[arg(value_name = "URL")]
    pub from: String,
    /// The folder here, made if need be
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub into: PathBuf,
    /// Fetch only files with such names; * is any characters, ? is any one. May be given again
    #[arg(long = "match", value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Fetch from the folders in the folder, too, into folders of the same names
    #[arg(short, long)]
    pub recursive: bool,
    /// Remove from the server what is safely here
    #[arg(long)]
    pub delete: bool,
    /// Only say what would be fetched
    #[arg(long, conflicts_with = "delete")]
    pub dry_run: bool,
    /// Fetch also what was fetched before
    #[arg(long)]
    pub again: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Deliver files to another SFTP server, each once.
///
/// Made to be run by a timer. What was sent stands in a journal, .sporlog-exchange.jsonl in each file's
/// folder, or where --journal says; a file whose bytes were sent to that address is not sent again.
/// It is sent as NAME.part and gets its name when the server has all of it; a run that is cut off (by
/// the network, Ctrl-C or a kill) is gone on with by the next. A file of the same name that is there
/// already is never touched, and a file that changes while it is sent fails.
///
/// With --wait, the receipts of a Sporlog server are waited for, and printed: what was accepted, and
/// what is wrong with rows that were not.
///
/// The server's key must be known: by --host-key, or from known_hosts. Nobody is asked, and nothing is
/// trusted because it is seen for the first time.
///
/// Prints a line for each file that was sent, and a summary. With --json, each file is a JSON object on
/// a line, also those that were sent before. Exits with 1 if a file was refused or, with --wait, has
/// rows in quarantine; with 2 if one could not be sent, no receipt came, or the server was not reached.
#[derive(Debug, Args)]
#[command(after_help = super::examples::EXCHANGE_PUSH)]
pub struct PushArgs {
    /// The files; a folder stands for the files in it, but for those that are still being written
    #[arg(required = true, num_args = 1.., value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    /// The folder there: sftp://USER@HOST[:PORT]/FOLDER; /~/ is where one is put when signing in
    #[arg(required = true, value_name = "URL")]
    pub to: String,
    /// Of a folder, send only files with such names; * is any characters, ? is any one. May be given again
    #[arg(long = "match", value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Give a file its own name from the beginning, for servers that allow no others
    #[arg(long, conflicts_with = "temporary_suffix")]
    pub as_is: bool,
    /// What stands behind a file's name until all of it is there
    #[arg(long, value_name = "SUFFIX", default_value = ".part")]
    pub temporary_suffix: String,
    /// Keep the journal in this file instead of the files' folders
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub journal: Option<PathBuf>,
    /// Only say what would be sent
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Send also what was sent before
    #[arg(long)]
    pub again: bool,
    /// Wait for the receipts of a Sporlog server, and print them
    #[arg(long)]
    pub wait: bool,
    /// Wait so many seconds for receipts
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    pub wait_at_most: u64,
    /// Where the receipts are, seen from the folder there
    #[arg(long, value_name = "FOLDER", default_value = "../kvittering", requires = "wait")]
    pub receipts: String,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// How another server is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Sign in with the private key in this file, and with no other. May be given again. A
    /// passphrase is taken from SPORLOG_IDENTITY_PASSPHRASE
    /// [default: the keys of the ssh-agent, then ~/.ssh/id_ed25519, id_ecdsa, id_rsa]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub identity: Vec<PathBuf>,
    /// The server's key is in this file. May be given again
    /// [default: ~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub known_hosts: Vec<PathBuf>,
    /// The server's key has this fingerprint, such as SHA256:47DEQ…, as `ssh-keygen -l` prints it. May
    /// be given again; known_hosts is not looked into
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "known_hosts")]
    pub host_key: Vec<String>,
    /// Make a lost connection anew so often, with longer and longer pauses, while nothing gets through
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub retries: u32,
    /// Wait so many seconds for the server's answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command, Exchange};

    const URL: &str = "sftp://u@h/ind";

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn what_belongs_together_is_asked_for_together() {
        for good in [
            "pull sftp://u@h/x --into y",
            "pull sftp://u@h/x --into y --match *.csv --match *.json -r --delete --json",
            "pull sftp://u@h/x --into y -i a -i b --known-hosts k --retries 0 --timeout 5",
            "push a sftp://u@h/x",
            "push a b c sftp://u@h/x --as-is --journal j",
            "push a sftp://u@h/x --wait --wait-at-most 9 --receipts /kvittering",
        ] {
            parse(&format!("sporlog exchange {good}")).expect(good);
        }
        for bad in [
            "pull sftp://u@h/x",
            "pull --into y",
            "pull sftp://u@h/x --into y --delete --dry-run",
            "pull sftp://u@h/x --into y --host-key a --known-hosts b",
            "pull sftp://u@h/x --into y --timeout 0",
            "push sftp://u@h/x",
            "push a sftp://u@h/x --wait-at-most 9",
            "push a sftp://u@h/x --wait --dry-run",
            "push a sftp://u@h/x --as-is --temporary-suffix .tmp",
        ] {
            assert!(parse(&format!("sporlog exchange {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_address_comes_last() {
        let cli = parse(&format!("sporlog exchange push a b {URL}")).expect("parsed");
        let Command::Exchange(args) = cli.command else { panic!("another command") };
        let Some(Exchange::Push(args)) = args.what else { panic!("another command") };
        assert_eq!((args.files.len(), args.to.as_str()), (2, URL));
    }
}
