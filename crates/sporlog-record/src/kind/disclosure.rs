//! Disclosures, as Norway's Sporingslogg has them: what was handed out about a person, to whom, when and on what
//! ground. A disclosure is made by a system and names no user.

use super::{Column, Content, Definition, Format, Roles};

const COLUMNS: [Column; 10] = [
    Column::text("person").distinct(),
    Column::text("mottaker"),
    Column::text("tema"),
    Column::text("behandlingsGrunnlag"),
    Column::text("uthentingsTidspunkt").distinct(),
    Column::new("leverteData", Content::Encoded("leverteDataEncoding")).distinct(),
    Column::new("leverteDataEncoding", Content::Encoding),
    Column::text("samtykkeToken").distinct(),
    Column::text("dataForespoersel").distinct(),
    Column::text("leverandoer"),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "disclosure",
    format: Format::Json,
    columns: &COLUMNS,
    roles: Some(Roles {
        actor: &[],
        subject: &["person"],
        organisation: &["leverandoer"],
        recipient: &["mottaker"],
        system: &[],
        action: &["tema"],
        ground: &["behandlingsGrunnlag"],
        case_id: &[],
    }),
    organisations: &["mottaker", "leverandoer"],
    identity: &[],
    shows_id: false,
};
