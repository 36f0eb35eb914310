//! Revision logs, as Denmark's Fælles Revisionslog has them: which citizen a member of staff looked up, through
//! which system.

use super::{Definition, Format, Roles};
use crate::column::Column;

pub(super) const ORGANISATION: &str = "KalderOrganisation";

pub(super) const COLUMNS: [Column; 23] = [
    Column::text("TransaktionsId").distinct(),
    Column::text("TransaktionsTid").distinct(),
    Column::text("BrugerId"),
    Column::text(ORGANISATION),
    Column::text("KalderItSystemInstans"),
    Column::text("LogId").distinct(),
    Column::text("CallersServiceCallIdentifier").distinct(),
    Column::text("ModtagerAftaleId"),
    Column::text("Parametre").distinct(),
    Column::text("KaldtServiceId"),
    Column::text("KalderIP"),
    Column::text("BrugerNavn"),
    Column::text("KalderItSystemNavn"),
    Column::text("ServiceNavn"),
    Column::text("Note"),
    Column::text("BorgerId").distinct(),
    Column::text("SagId").distinct(),
    Column::text("PartId").distinct(),
    Column::text("OpgaveId").distinct(),
    Column::text("BrugerKalderOrganisationEnhedId"),
    Column::text("BrugerOrganisationEnhedNavn"),
    Column::text("SvarReaktion"),
    Column::text("ServiceAftaleUUID"),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "revision",
    format: Format::Csv,
    columns: &COLUMNS,
    roles: Some(Roles {
        actor: &["BrugerId"],
        subject: &["BorgerId"],
        organisation: &[ORGANISATION],
        recipient: &[],
        system: &["KalderItSystemNavn", "KalderItSystemInstans"],
        action: &["ServiceNavn", "KaldtServiceId"],
        ground: &["Note"],
        case_id: &["SagId"],
        time: "TransaktionsTid",
    }),
    organisations: &[ORGANISATION],
    identity: &["KalderItSystemInstans", "LogId", "TransaktionsId"],
    source_id: &[],
    shows_id: false,
};
