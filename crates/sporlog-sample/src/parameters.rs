//! The `Parametre` of a call, and the error texts of the calls that fail.

use crate::chance::Dice;
use crate::text::{digits, noise, put, uuid};

/// How a service's parameters look.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A long path and query of a portlet, as in the spec's example.
    List,
    /// A path with ids in it.
    Rest,
    /// Names and values.
    Query,
    /// A search form.
    Search,
    /// A JSON object: its quotation marks are doubled in CSV.
    Json,
    /// None.
    Nothing,
}

const LISTS: [&str; 6] = [
    "/Ydelser/YdelserList",
    "/Opgaver/MineOpgaverList",
    "/Adviser/AdvisSearchResultsList",
    "/Borger/OverblikView",
    "/Udbetalinger/UdbetalingHistorikList",
    "/Henvendelser/HenvendelseList",
];
const RESOURCES: [&str; 6] =
    ["dokumenter", "parter", "haendelser", "journalnotater", "indsatser", "relationer?inkluder=alle"];
const BENEFITS: [&str; 8] = ["KTH", "UDH", "SDP", "BAR", "BOS", "FTP", "RES", "SHO"];
const STATES: [&str; 4] = ["AKTIV", "AFSLUTTET", "OPLYST", "BESLUTTET"];
const FIELDS: [&str; 4] = [
    r#"[""navn"",""adresse""]"#,
    r#"[""navn"",""adresse"",""civilstand"",""familie""]"#,
    r#"[""alle""]"#,
    r#"[""ydelser"",""perioder"",""satser""]"#,
];

/// What failed calls answer, as it stands in a quoted CSV field. The long ones span lines.
pub(crate) const FAILURES: [&str; 8] = [
    "GetAdvisSearchResultsViewModelTask executed Error",
    "Timeout: intet svar fra den kaldte service inden 30000 ms",
    "HTTP 503 Service Unavailable",
    "Fejl 40312: brugeren mangler rollen \"\"Sagsbehandler, udvidet\"\", opslag afvist",
    "Sagen er låst af en anden bruger, prøv igen senere",
    "Ugyldig kombination af parametre: fraDato ligger efter tilDato",
    "dk.kommune.common.ServiceException: Read timed out\n\tat dk.kommune.common.Kald.udfoer(Kald.java:214)\n\
     \tat dk.kommune.common.Kald.medGentagelse(Kald.java:97)\n\tat dk.kommune.web.Handler.svar(Handler.java:58)",
    "SOAP-ENV:Server, AuthenticationFailed: token udløbet (IDnr. 5)",
];

/// Appends the parameters of one call about a part and a case (0 where there is none). Where it is
/// about nobody yet, someone is searched for.
pub(crate) fn write(out: &mut Vec<u8>, dice: &mut Dice, shape: Shape, part: u128, case: u128) {
    let shape = match shape {
        Shape::Rest | Shape::Query | Shape::Json if part == 0 => Shape::Search,
        other => other,
    };
    match shape {
        Shape::Nothing => {}
        Shape::List => {
            put! { out; (dice.word(&LISTS)) "?sessionKey=MTo" }
            noise(out, dice, 45);
            put! { out; "%3D&columnConfigurationId=MTE" }
            noise(out, dice, 50);
            put! { out; "__&instanceGuid=" (uuid(dice.wide())) "&_t=63" (&digits::<16>(dice.bits())) }
        }
        Shape::Rest => {
            put! { out;
                "/api/v3/sager/" (uuid(if case == 0 { part } else { case })) "/" (dice.word(&RESOURCES))
            }
            if dice.percent(60) {
                put! { out; "?side=" (dice.within(1, 4)) "&antal=25&sortering=dato%20desc" }
            }
        }
        Shape::Query => {
            put! { out; "partId=" (uuid(part)) }
            if dice.percent(70) {
                put! { out;
                    "&fraDato=20" (&digits::<2>(dice.within(10, 23))) "-01-01&ydelse=" (dice.word(&BENEFITS))
                    "&status=" (dice.word(&STATES))
                }
            }
            put! { out; "&udtraek=navn,adresse,civilstand,forsoergerforhold&maxAntal=200" }
        }
        Shape::Search => {
            put! { out;
                "soegetype=navn&postnr=" (dice.within(1000, 9990)) "&side=1&antal=50&medtagDoede=false"
            }
        }
        Shape::Json => {
            put! { out;
                r#"{""partId"":"""# (uuid(part)) r#""",""felter"":"# (dice.word(&FIELDS))
                r#",""udsnit"":{""fra"":0,""antal"":"# (25 * dice.within(1, 8)) "}}"
            }
        }
    }
}
