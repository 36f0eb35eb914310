//! `sporlog apikey`: what can be asked for.

use chrono::NaiveDate;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use sporlog_web::access::Role;

use super::examples;
use crate::timerange::parse_date;

/// Make, list, rotate and revoke the keys that programs send to the server.
///
/// A key is sent as `ApiKey: KEY` or `Authorization: Bearer KEY`. Only its digest is kept, in
/// apikeys.json in the folder of the keys. A server that is running takes a new key, and refuses a
/// revoked one, within two seconds. Making, rotating and revoking is recorded in the log `access`. Run this as
/// the user that the server runs as, or it will not be able to read the file.
#[derive(Debug, Args)]
#[command(after_help = examples::APIKEY)]
pub struct ApikeyArgs {
    #[command(subcommand)]
    pub what: Apikey,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Apikey {
    Create(CreateArgs),
    /// List the keys: name, role, what bounds them, since when, until when, and when last used
    ///
    /// The secrets are kept nowhere, and so they are not listed. The last use is written down by the
    /// server every 30 seconds. With --json, each key is an object on a line.
    List,
    /// Give a key another secret, and print it
    ///
    /// The old secret is taken for some days yet, so that there is no gap while programs are given the new one. The key stays the
    /// same: its name, role, bounds and id. A key has two secrets at most; rotating it again ends the older one.
    Rotate {
        /// The key's name
        #[arg(value_name = "NAME")]
        name: String,
        /// For how many days the old secret is taken; 0 ends it at once
        #[arg(short, long, value_name = "DAYS", default_value_t = 7)]
        overlap: u16,
    },
    /// Revoke a key for good
    ///
    /// The name is free for a new key then. The revoked one stays in the list: what it did is on
    /// record under its name.
    Revoke {
        /// The key's name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Make a key, and print it.
///
/// The key alone goes to standard output, this once: nobody can ever see it again. With --json, it
/// stands in an object with all that is known of it.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it is called, in the list and in the log `access`: who holds it, and for what
    #[arg(short, long, value_name = "NAME")]
    pub name: String,
    /// What its holder may: read logs; write into logs, and see none; audit, which is reading,
    /// also Sporlog's own logs and what suppliers deliver; collect metrics, and see no record; or everything
    #[arg(short, long, value_name = "ROLE", value_parser = role())]
    pub role: Role,
    /// Only for this log, or these (disclosure*); again for more [default: all but Sporlog's own]
    #[arg(short, long = "log", value_name = "LOG")]
    pub logs: Vec<String>,
    /// Only for records of this organisation (CVR, 8 digits, or organisasjonsnummer, 9 digits); again
    /// for more [default: all]
    #[arg(short = 'O', long = "organisation", value_name = "NUMBER")]
    pub organisations: Vec<String>,
    /// The last day on which it is taken [default: until it is revoked]
    #[arg(short, long, value_name = "DATE", value_parser = parse_date)]
    pub expires: Option<NaiveDate>,
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.map(Role::name)).try_map(|name: String| name.parse::<Role>())
}
