//! What can be asked for on the command line, and the help text.
//!
//! Whoever has never seen the program must be able to work from what stands here: every command
//! says what it does, what it prints, and shows an example (in [`examples`]).

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};
use sporlog_record::Kind;
use sporlog_record::identifier::cvr;
use sporlog_sample::DEFAULT_FAULTY;

use crate::timerange::{parse_date, parse_from, parse_month, parse_to};

mod apikey;
mod backup;
mod collect;
mod config;
mod consume;
mod deliveries;
mod examples;
mod exchange;
mod import;
mod logs;
mod names;
mod pull;
mod quarantine;
mod serve;
mod store;
mod verify;

#[cfg(test)]
mod tests;

pub use apikey::{Apikey, ApikeyArgs, CreateArgs};
pub use backup::{BackupArgs, RestoreArgs};
pub use collect::CollectArgs;
pub use config::{Config, ConfigArgs};
pub use consume::ConsumeArgs;
pub use deliveries::DeliveriesArgs;
pub use exchange::{ConnectionArgs, Exchange, ExchangeArgs, PullArgs, PushArgs};
pub use import::{CheckArgs, ImportArgs};
pub use logs::{LogsArgs, LogsCommand};
pub use names::{Names, NamesArgs, NamesImportArgs};
pub use pull::PullLogArgs;
pub use quarantine::{Quarantine, QuarantineArgs};
pub use serve::ServeArgs;
pub use store::{StoreArgs, StoreCommand};
pub use verify::VerifyArgs;

/// Keep and prove the record of who saw or was given whose data.
///
/// Sporlog takes in four kinds of record: `disclosure` (Sporingslogg, Norway: what was handed out
/// about a person), `revision` (Fælles Revisionslog, Denmark: what staff looked up, as CSV),
/// `auditlog` and `mfa` (OS2faktor Login, Denmark: sign-ins, and their second factors). Every record goes into an append-only log, gets
/// the next number, and is covered by a signed Merkle tree, so that anybody can check that nothing
/// was changed, removed or slipped in.
///
/// A store is a folder with logs in it. A log's table is a Delta Lake table that DuckDB, Spark or
/// Polars reads as it is. Every access to the data through this program is itself recorded, in the
/// log `access`.
#[derive(Debug, Parser)]
#[command(name = "sporlog", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = examples::TOP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Where the logs lie: a folder, or a bucket as s3://BUCKET/PREFIX [default: ./sporlog-data]
    #[arg(short, long, global = true, value_name = "URL", env = "SPORLOG_STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// The folder of the logs' keys; has to be named for a bucket [default: keys, in the store]
    #[arg(long, global = true, value_name = "DIR", env = "SPORLOG_KEYS", hide_env_values = true)]
    #[arg(value_hint = ValueHint::DirPath)]
    pub keys: Option<PathBuf>,
    /// The configuration [default: sporlog.toml, if it is there]
    #[arg(short, long, global = true, value_name = "FILE", env = "SPORLOG_CONFIG", hide_env_values = true)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print results for machines, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on standard error; twice for even more (SPORLOG_LOG sets filters)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How lines on standard error are written
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    #[arg(env = "SPORLOG_LOG_FORMAT", hide_env_values = true)]
    pub log_format: LogFormat,
}

/// How lines on standard error are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// An object a line, for what collects logs
    Json,
}

/// The commands. What each is for stands at its arguments, below: a comment here would hide that.
#[derive(Debug, Subcommand)]
pub enum Command {
    Check(CheckArgs),
    Import(ImportArgs),
    Serve(ServeArgs),
    Consume(ConsumeArgs),
    Pull(PullLogArgs),
    Exchange(ExchangeArgs),
    Collect(CollectArgs),
    Deliveries(DeliveriesArgs),
    Logs(LogsArgs),
    /// Print a log's newest id
    Head(LogArg),
    Read(ReadArgs),
    Find(FindArgs),
    Export(ExportArgs),
    Files(FilesArgs),
    Sql(SqlArgs),
    Prove(ProveArgs),
    Verify(VerifyArgs),
    Quarantine(QuarantineArgs),
    Expire(ExpireArgs),
    Compact(CompactArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Store(StoreArgs),
    Key(KeyArgs),
    Apikey(ApikeyArgs),
    Names(NamesArgs),
    Config(ConfigArgs),
    Sample(SampleArgs),
    Completions(CompletionsArgs),
}

/// A log.
#[derive(Debug, Args)]
pub struct LogArg {
    /// The log's name
    #[arg(value_name = "LOG")]
    pub log: String,
}

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Each as its entry, on a line.
    Entries,
    /// Each as its API gives it, on a line.
    Records,
    /// CSV with a header.
    Csv,
    /// A table for reading.
    Table,
}

/// A format of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// One JSON object per line
    Ndjson,
    /// CSV with a header; for revision as specified, every text in quotes
    Csv,
    /// For reading: the first 1,000 records, and the columns that have values
    Table,
}

/// How records are printed.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// At most so many records
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<u64>,
    /// How they are printed
    #[arg(short, long, value_enum, default_value = "ndjson")]
    pub format: RowFormat,
    /// Print the records alone, as their APIs give them, and not the entries that they stand in
    /// ({"log","id","receivedAt","origin","remarks","record"})
    #[arg(short, long)]
    pub records_only: bool,
}

impl RowArgs {
    /// What the records look like.
    pub fn shape(&self) -> Shape {
        match (self.format, self.records_only) {
            (RowFormat::Csv, _) => Shape::Csv,
            (RowFormat::Table, _) => Shape::Table,
            (RowFormat::Ndjson, true) => Shape::Records,
            (RowFormat::Ndjson, false) => Shape::Entries,
        }
    }
}

/// Print records in the order of their ids.
///
/// By default each is printed as its entry, byte for byte what the log has committed to. To follow a
/// log, keep the last id that you have seen and ask for what comes after it: ids only ever rise, and
/// no record appears below one that has been there.
#[derive(Debug, Args)]
#[command(after_help = examples::READ)]
pub struct ReadArgs {
    #[command(flatten)]
    pub log: LogArg,
    /// Only records with ids above this
    #[arg(short, long, value_name = "ID", default_value_t = 0)]
    pub after: u64,
    #[command(flatten)]
    pub rows: RowArgs,
}

/// Print one person's or one user's records, newest first.
///
/// The person is the one the records are about (`person`, `BorgerId`, `cpr`); the user is the one who
/// looked (`BrugerId`, `performerId` or else `samaccountName`). Times are those of the event, as local
/// time: --from 2026-11-03 means from the beginning of that day, --to 2026-11-03 to the end of it;
/// with a time of day, --to means before it.
///
/// A name with * in it, such as 'disclosure*', stands for all logs that it matches.
#[derive(Debug, Args)]
#[command(after_help = examples::FIND)]
#[command(group(ArgGroup::new("whom").required(true).args(["subject", "actor", "source_id"])))]
pub struct FindArgs {
    #[command(flatten)]
    pub log: LogArg,
    /// Whom the records are about; - reads it from standard input, where no list of processes shows it
    #[arg(long, value_name = "X")]
    pub subject: Option<String>,
    /// Who did it; - reads it from standard input
    #[arg(long, value_name = "Y")]
    pub actor: Option<String>,
    /// The id that a record had in the system that it came from (sourceId: auditlog and mfa only); this reads through
    /// the log
    #[arg(long, value_name = "ID")]
    pub source_id: Option<i64>,
    /// From this date or local time on
    #[arg(long, value_name = "T", value_parser = parse_from)]
    pub from: Option<i64>,
    /// Up to and including this date, or before this local time
    #[arg(long, value_name = "T", value_parser = parse_to)]
    pub to: Option<i64>,
    #[command(flatten)]
    pub rows: RowArgs,
}

/// Write deliveries for those who fetch them.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(subcommand)]
    pub what: Export,
}

/// What can be exported.
#[derive(Debug, Subcommand)]
pub enum Export {
    Revision(ExportRevisionArgs),
    Auditlog(ExportAuditlogArgs),
}

/// The form that records are exported in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// CSV as Fælles Revisionslog has it
    Revision,
}

/// Write audit records as a CSV file of a revision log.
///
/// An audit record becomes a row: who acted is BrugerId, whom the record is about BorgerId, what was done
/// ServiceNavn. docs/pull.md has the whole mapping. Of whose staff the users are, and which system it is, no audit
/// record says: --organisation and --system do. Details are exported where they are JSON or text; tokens are not.
#[derive(Debug, Args)]
#[command(after_help = examples::EXPORT_AUDITLOG)]
pub struct ExportAuditlogArgs {
    /// The form of the file
    #[arg(long = "as", value_enum, value_name = "FORM")]
    pub form: ExportForm,
    /// The CVR number of whose staff acted (KalderOrganisation)
    #[arg(short = 'O', long, value_name = "CVR", value_parser = parse_cvr)]
    pub organisation: String,
    /// The system, by its UUID if it has one (KalderItSystemInstans)
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub system: String,
    /// What happened from this date or local time on
    #[arg(long, value_name = "T", value_parser = parse_from)]
    pub from: Option<i64>,
    /// What happened up to and on this date, or before this local time
    #[arg(long, value_name = "T", value_parser = parse_to)]
    pub to: Option<i64>,
    /// The log
    #[arg(short, long, value_name = "NAME", default_value = "auditlog")]
    pub log: String,
    /// The file; it appears when it is complete
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Replace the file if it is there already
    #[arg(long)]
    pub force: bool,
}

/// Write a municipality's revision logs as CSV files, one for each day.
///
/// The days are those of receipt, in UTC: a day that is over never changes, though records about it
/// may still come in later. Files are named revisionslog_<CVR>_<day>_<nn>.csv, in the format as
/// specified and in the order of the log's ids, and stay below 2,000,000,000 bytes each. A day's files
/// become visible together, when all of them are complete. Prints rows, bytes and SHA-256 of each.
#[derive(Debug, Args)]
#[command(after_help = examples::EXPORT)]
pub struct ExportRevisionArgs {
    /// The municipality's CVR number (KalderOrganisation)
    #[arg(short = 'O', long, value_name = "CVR", value_parser = parse_cvr)]
    pub organisation: String,
    /// What was received on this day
    #[arg(short, long, value_name = "D", value_parser = parse_date, conflicts_with_all = ["from", "to"])]
    pub date: Option<NaiveDate>,
    /// What was received from this day on
    #[arg(long, value_name = "D", value_parser = parse_date)]
    pub from: Option<NaiveDate>,
    /// What was received up to and on this day
    #[arg(long, value_name = "D", value_parser = parse_date)]
    pub to: Option<NaiveDate>,
    /// The folder for the files, made if it is not there
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// The log
    #[arg(short, long, value_name = "NAME", default_value = "revision")]
    pub log: String,
    /// Replace files that are there already
    #[arg(long)]
    pub force: bool,
    /// A file stays below so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 2_000_000_000, hide = true)]
    pub max_bytes: u64,
}

/// List the files that hold a log's records.
///
/// A log's table is a Delta Lake table, and programs that read Delta Lake need no list. Others that read
/// Parquet do: the folder also has files that were merged into others, and Delta's checkpoints, so that its
/// records would be counted twice. The files listed here hold each record once. They stay for an hour at the
/// least (--grace of `sporlog compact`) after they were replaced by others. With --json, an object per line:
/// path, firstId, lastId, rows, bytes.
#[derive(Debug, Args)]
#[command(after_help = examples::FILES)]
pub struct FilesArgs {
    #[command(flatten)]
    pub log: LogArg,
    /// Print nothing but the files' paths, one per line
    #[arg(short, long, conflicts_with = "json")]
    pub paths: bool,
}

/// A format of query results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SqlFormat {
    /// For reading: the first 1,000 rows, cut to fit the terminal
    Table,
    /// CSV with a header; a null is an empty field, and an empty text is ""
    Csv,
    /// A JSON array of objects
    Json,
    /// One JSON object per line
    Ndjson,
    /// A Parquet file
    Parquet,
}

/// A program that reads the logs' tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Apache Spark with Delta Lake
    Spark,
}

/// Query the logs with SQL.
///
/// Only queries: nothing can be changed. Without a query, on a terminal, a shell takes one after the other, with history and
/// completion. Each log is a table of its name, with id, received_at (UTC), occurred_at (local), origin, remarks and the
/// records' own fields; names with capitals need double quotes ("BrugerId"). The view `events` has what all kinds share: log,
/// id, occurred_at, received_at, actor, subject, organisation, recipient, system, action, ground, case_id. A name with * in
/// it, in double quotes, stands for all logs that it matches: "disclosure*" has their records, and the log's name in the
/// column log.
///
/// The dialect is Apache DataFusion's, close to PostgreSQL's; its statements and functions are described at
/// https://datafusion.apache.org/user-guide/sql/. A whole number that has no place in 64 bits is an error. Of two columns of
/// one name, the second is called name_1.
#[derive(Debug, Args)]
#[command(after_help = examples::SQL)]
pub struct SqlArgs {
    /// The query; - reads it from standard input [default: a shell, if standard input is a terminal]
    #[arg(value_name = "QUERY")]
    pub query: Option<String>,
    /// Run the statements of this file, one after the other, up to the first that fails; the comments before a statement are its
    /// heading
    #[arg(long, value_name = "FILE", conflicts_with = "query", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Have a cluster of Apache Ballista run the queries: the address of its scheduler, df://HOST:PORT
    #[arg(long, value_name = "URL", conflicts_with = "views")]
    pub cluster: Option<String>,
    /// Print statements by which another program has the same views: each log, and `events`
    #[arg(long, value_name = "PROGRAM", value_enum, conflicts_with_all = ["query", "file", "format"])]
    pub views: Option<Engine>,
    /// How the result is written [default: table; json with --json]
    #[arg(short, long, value_enum)]
    pub format: Option<SqlFormat>,
    #[command(flatten)]
    pub out: OutArgs,
}

/// Where a result goes.
#[derive(Debug, Args)]
pub struct OutArgs {
    /// Write to this file instead of standard output; it appears when it is complete
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Replace the file if it is there already
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// Make a proof that a record is in a log.
///
/// The proof holds the entry, its salt, the inclusion proof and the signed checkpoint in one file (C2SP
/// tlog-proof), and with it the record in clear: hand it only to those who may see that. Whoever has it
/// and the log's public key needs nothing else to check it.
#[derive(Debug, Args)]
#[command(after_help = examples::PROVE)]
pub struct ProveArgs {
    #[command(flatten)]
    pub log: LogArg,
    /// The record's id
    #[arg(value_name = "ID")]
    pub id: u64,
    #[command(flatten)]
    pub out: OutArgs,
}

/// Remove old records for good; the proof stands.
///
/// Removes what was received before the month. What is left keeps its ids, the tree still covers
/// everything, and a signed note says what was removed and when. This cannot be undone.
#[derive(Debug, Args)]
#[command(after_help = examples::EXPIRE)]
pub struct ExpireArgs {
    #[command(flatten)]
    pub log: LogArg,
    /// The first month (of receipt, UTC) whose records stay
    #[arg(short, long, value_name = "MONTH", value_parser = parse_month)]
    pub before: String,
    /// Only say what would be removed
    #[arg(short = 'N', long)]
    pub dry_run: bool,
    /// Remove records of the running month, too
    #[arg(long)]
    pub force: bool,
}

/// Merge small files and remove left-over ones.
///
/// No record changes. A log that is written to does the most of this by itself.
#[derive(Debug, Args)]
pub struct CompactArgs {
    #[command(flatten)]
    pub log: LogArg,
    /// Left-over files younger than so many minutes stay, for those who are reading them
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub grace: u64,
}

/// Show a log's public key, or give the log another key.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub what: Key,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Print the log's origin and its public key as a vkey (C2SP signed-note)
    #[command(after_help = examples::KEY)]
    Show {
        #[command(flatten)]
        log: LogArg,
        /// Print the vkey alone
        #[arg(long)]
        vkey: bool,
    },
    /// Give a log another signing key, and print its vkey
    ///
    /// Stop the server and whatever else writes to the log first: a process that has the old key loaded would go on signing with
    /// it. The old key signs checkpoints and other notes, too, until it is retired, so that whoever knows the old key alone goes
    /// on as before; a note that both sign says which key took over. If a rotation was broken off, this finishes it.
    Rotate(LogArg),
    /// Have a log's old signing key sign nothing any more, and forget it
    ///
    /// Do this when everybody who checks the log has the new key. Stop the server first.
    Retire(LogArg),
}

/// Write synthetic records, to try things out.
///
/// Municipalities, systems, staff and citizens with believable skew and working hours; nobody in it
/// exists. The same options give the same bytes.
#[derive(Debug, Args)]
#[command(after_help = examples::SAMPLE)]
pub struct SampleArgs {
    /// What the records are
    #[arg(value_name = "KIND", value_parser = delivered_kind())]
    pub kind: Kind,
    /// How many
    #[arg(short = 'n', long, value_name = "N")]
    pub records: u64,
    /// Decides all that is left to chance
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The share of records with a fault, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = DEFAULT_FAULTY, value_parser = parse_share)]
    pub faulty: f64,
    /// The first day on which something happens
    #[arg(long, value_name = "D", default_value = "2026-01-05", value_parser = parse_date)]
    pub day: NaiveDate,
    /// Over how many days it is spread
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub days: u32,
    #[command(flatten)]
    pub out: OutArgs,
}

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = examples::COMPLETIONS)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

fn delivered_kind() -> impl TypedValueParser<Value = Kind> {
    let names = Kind::DELIVERED.map(Kind::name);
    PossibleValuesParser::new(names).try_map(|name: String| name.parse::<Kind>())
}

fn parse_cvr(text: &str) -> Result<String, String> {
    cvr::is_plain(text).then(|| text.to_owned()).ok_or_else(|| "a CVR number has 8 digits".to_owned())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a number from 0 to 1 is expected".to_owned())
}
