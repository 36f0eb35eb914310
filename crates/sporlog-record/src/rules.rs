//! The limits and switches of validation, with the spec's figures as defaults.

use chrono::{NaiveDateTime, TimeDelta};
use serde::{Deserialize, Serialize};

/// How records are judged. One value serves all kinds; a deployment sets it under `[rules]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The lengths of a disclosure's fields.
    pub disclosure: DisclosureLimits,
    /// How CSV deliveries are read.
    pub revision: CsvRules,
    /// A JSON record or a CSV row larger than this is an error (bytes). The default holds a disclosure whose
    /// fields all have their greatest length, in ASCII, twice over: other characters and escapes need more.
    pub max_record_bytes: usize,
    /// "Now", as a local time, against which times in the future are remarked on. The caller sets it.
    #[serde(skip)]
    pub now: NaiveDateTime,
    /// Keys that consent tokens are verified against; `None` leaves signatures unchecked.
    #[serde(skip)]
    pub consent_keys: Option<std::sync::Arc<crate::jose::KeySet>>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            disclosure: DisclosureLimits::default(),
            revision: CsvRules::default(),
            max_record_bytes: 64 << 20,
            now: NaiveDateTime::MAX - TimeDelta::days(2),
            consent_keys: None,
        }
    }
}

/// Greatest lengths, in characters (spec, part 1): a longer text is an error. The figures that the document on
/// Sporingslogg gives are lower, and producers exceed them; a text above those is remarked on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(non_snake_case, reason = "the fields' names on the wire")]
pub struct DisclosureLimits {
    /// Greatest length of `behandlingsGrunnlag`.
    pub behandlingsGrunnlag: usize,
    /// Greatest length of `leverteData`.
    pub leverteData: usize,
    /// Greatest length of `samtykkeToken`.
    pub samtykkeToken: usize,
    /// Greatest length of `dataForespoersel`.
    pub dataForespoersel: usize,
}

impl Default for DisclosureLimits {
    fn default() -> Self {
        DisclosureLimits {
            behandlingsGrunnlag: 1_000,
            leverteData: 16 << 20,
            samtykkeToken: 16 << 10,
            dataForespoersel: 16 << 20,
        }
    }
}

/// The character set of a CSV delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// UTF-8, with or without a byte-order mark.
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1, for a supplier that cannot do otherwise; read as Windows-1252, as the WHATWG does.
    #[serde(rename = "iso-8859-1")]
    Latin1,
}

/// How a CSV delivery is written (spec, part 2); a supplier may be configured to differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CsvRules {
    /// The character set.
    pub encoding: Encoding,
    /// The separator: a comma, or a semicolon where configured.
    pub separator: char,
    /// A file with more bytes than this is refused.
    pub max_file_bytes: u64,
    /// A header with more columns than this is refused.
    pub max_columns: usize,
}

impl Default for CsvRules {
    fn default() -> Self {
        CsvRules { encoding: Encoding::Utf8, separator: ',', max_file_bytes: 2 << 30, max_columns: 1_000 }
    }
}
