//! Audit records as rows of a revision log, by a mapping that docs/pull.md documents.
//!
//! | column | taken from |
//! |---|---|
//! | `TransaktionsId` | `correlationId`, or else as `LogId` |
//! | `TransaktionsTid` | `tts`, or else the time of receipt, in UTC |
//! | `BrugerId` | `performerId`, or else `samaccountName`, `personId`, `cpr`; where there is none, `ukendt` |
//! | `BrugerNavn` | `performerName`; `personName` where nobody acted for the person |
//! | `KalderOrganisation`, `KalderItSystemInstans` | given for all |
//! | `LogId` | `sourceId`, or else the id in the log |
//! | `KalderIP` | `ipAddress` |
//! | `ServiceNavn`, `Note` | `logAction`, `message` |
//! | `BorgerId`, `PartId` | `cpr`, `personId` |
//! | `BrugerOrganisationEnhedNavn` | `personDomain` |
//! | `Parametre` | `detailContent` where it is JSON or TEXT: whole SAML tokens stay behind |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};

use crate::canonical::ColumnError;
use crate::kind::REVISION_COLUMNS;
use crate::time::format_local;

/// What an audit record does not say of itself.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// `KalderOrganisation`: the CVR number of whose staff acted.
    pub organisation: &'a str,
    /// `KalderItSystemInstans`: the system that the records are of.
    pub system: &'a str,
}

/// The rows of an audit log as those of a revision log.
pub fn revision_rows(audit: &RecordBatch, caller: Caller<'_>) -> Result<RecordBatch, ColumnError> {
    let texts = |name: &'static str| -> Result<StringArray, ColumnError> {
        let column = audit.column_by_name(name).and_then(|column| cast(column, &DataType::Utf8).ok());
        column.and_then(|column| column.as_string_opt().cloned()).ok_or(ColumnError::Missing(name))
    };
    let first = |names: &[&'static str]| -> Result<StringArray, ColumnError> {
        let columns = names.iter().map(|name| texts(name)).collect::<Result<Vec<_>, _>>()?;
        Ok((0..audit.num_rows()).map(|row| columns.iter().find_map(|column| text(column, row))).collect())
    };
    let received =
        audit.column_by_name("received_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let received = received.ok_or(ColumnError::Missing("received_at"))?;
    let column = |name: &&str| -> Result<ArrayRef, ColumnError> {
        let rows = 0..audit.num_rows();
        let column: StringArray = match *name {
            "TransaktionsId" => first(&["correlationId", "sourceId", "id"])?,
            "TransaktionsTid" => {
                let times = texts("tts")?;
                let time =
                    |row| text(&times, row).map_or_else(|| format_local(received.value(row)), str::to_owned);
                rows.map(|row| Some(time(row))).collect()
            }
            "BrugerId" => {
                let users = first(&["performerId", "samaccountName", "personId", "cpr"])?;
                rows.map(|row| Some(text(&users, row).unwrap_or("ukendt"))).collect()
            }
            "BrugerNavn" => {
                let (performers, names) = (texts("performerName")?, texts("personName")?);
                let others = texts("performerId")?;
                rows.map(|row| match text(&others, row) {
                    Some(_) => text(&performers, row),
                    None => text(&performers, row).or(text(&names, row)),
                })
                .collect()
            }
            "KalderOrganisation" => rows.map(|_| Some(caller.organisation)).collect(),
            "KalderItSystemInstans" => rows.map(|_| Some(caller.system)).collect(),
            "LogId" => first(&["sourceId", "id"])?,
            "KalderIP" => texts("ipAddress")?,
            "ServiceNavn" => texts("logAction")?,
            "Note" => texts("message")?,
            "BorgerId" => texts("cpr")?,
            "PartId" => texts("personId")?,
            "BrugerOrganisationEnhedNavn" => texts("personDomain")?,
            "Parametre" => {
                let (forms, contents) = (texts("detailType")?, texts("detailContent")?);
                let short = |row: &usize| matches!(text(&forms, *row), Some("JSON" | "TEXT"));
                rows.map(|row| Some(row).filter(short).and_then(|row| text(&contents, row))).collect()
            }
            _ => StringArray::new_null(audit.num_rows()),
        };
        Ok(Arc::new(column))
    };
    let columns =
        REVISION_COLUMNS.iter().map(|name| Ok((*name, column(name)?))).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(|_| ColumnError::Missing("TransaktionsId"))
}

/// A row's text, if it has one.
fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row)).filter(|text| !text.is_empty())
}
