//! What `sporlog names` takes.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueHint};
use sporlog_intake::names::NameKind;

/// Registers of names, for the pages on which persons see their own log.
#[derive(Debug, Args)]
pub struct NamesArgs {
    #[command(subcommand)]
    pub what: Names,
}

/// What is done with names.
#[derive(Debug, Subcommand)]
pub enum Names {
    Import(NamesImportArgs),
}

/// Take a public register's download into the store's names.
///
/// Organisations: Enhetsregisteret's units and CVR's companies, as JSON or CSV, as they are downloaded. Topics: the
/// kodeverk Tema with its betydninger, as JSON. Systems, and all others: CSV with a column for the number or code,
/// one for the name, and if need be one for the first day on which the name holds.
///
/// Names are added to those that are there; where a download has the days on which names changed, it replaces what
/// there was. A server takes the new names within seconds. Exits with 1 if something in the file was refused.
#[derive(Debug, Args)]
#[command(after_help = super::examples::NAMES_IMPORT)]
pub struct NamesImportArgs {
    /// Of what the names are: organisations, topics or systems
    #[arg(value_name = "REGISTER", value_parser = kind())]
    pub kind: NameKind,
    /// The download; gzip and Zstandard are unpacked, and - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Only say what would come of it
    #[arg(long)]
    pub dry_run: bool,
}

fn kind() -> impl TypedValueParser<Value = NameKind> {
    let names = PossibleValuesParser::new(NameKind::ALL.map(NameKind::name));
    names.map(|name| {
        NameKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(NameKind::Organisations)
    })
}
