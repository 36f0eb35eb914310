//! The IT systems that case workers use: invented, of the sort that Danish municipalities have. Each
//! logs in its own way, as they do.

use crate::service::{BENEFITS, CARE, CASES, REGISTER, SERVICE_DESK, Service};

/// One IT system.
pub(crate) struct System {
    pub(crate) name: &'static str,
    /// How much it is used, against the others.
    pub(crate) weight: u64,
    /// The departments that work in it.
    pub(crate) area: &'static str,
    /// What its services' identifiers begin with.
    pub(crate) package: &'static str,
    pub(crate) services: &'static [Service],
    pub(crate) style: Style,
}

/// How a system logs.
pub(crate) struct Style {
    pub(crate) time: Time,
    pub(crate) citizen: Citizen,
    pub(crate) address: Address,
    /// One instance for all municipalities, or one for each.
    pub(crate) shared: bool,
    /// Whether it knows cases, and so fills `SagId`.
    pub(crate) cases: bool,
    /// Of a hundred pieces of work, how many are tasks that it handed out, and so have an `OpgaveId`.
    pub(crate) tasks: u64,
    /// Transactions are UUIDs, or else bare hexadecimal.
    pub(crate) uuids: bool,
    /// What the ids of its agreements with other authorities begin with; mostly it has none.
    pub(crate) agreement: &'static str,
}

/// How it writes `TransaktionsTid`.
#[derive(Clone, Copy)]
pub(crate) enum Time {
    Oracle,
    OracleTwelve,
    Iso,
    Date,
}

/// How it writes `BorgerId`.
#[derive(Clone, Copy)]
pub(crate) enum Citizen {
    Full,
    Masked,
    Unknown,
}

/// How it writes `KalderIP`.
#[derive(Clone, Copy)]
pub(crate) enum Address {
    Four,
    Six,
    Integer,
}

/// What most systems do; the others say how they differ.
const USUAL: Style = Style {
    time: Time::Oracle,
    citizen: Citizen::Full,
    address: Address::Four,
    shared: false,
    cases: true,
    tasks: 0,
    uuids: true,
    agreement: "",
};
const MASKED: Style = Style { citizen: Citizen::Masked, ..USUAL };
const WITH_TASKS: Style = Style { tasks: 60, ..USUAL };
const NEWER: Style = Style { time: Time::Iso, shared: true, ..USUAL };

const fn system(
    name: &'static str,
    weight: u64,
    area: &'static str,
    package: &'static str,
    services: &'static [Service],
    style: Style,
) -> System {
    System { name, weight, area, package, services, style }
}

/// The systems. A case worker has one or two of them.
#[rustfmt::skip]
pub(crate) const SYSTEMS: &[System] = &[
    system("Sag og part", 200, "Borgerservice", "dk.sagogpart", CASES, Style { shared: true, ..MASKED }),
    system("Sag og part: Borgerblikket", 120, "Borgerservice", "dk.sagogpart.borgerblik", CASES,
        Style { shared: true, ..MASKED }),
    system("Sag og part: Advismodulet", 60, "Ydelser", "dk.sagogpart.advis", CASES,
        Style { shared: true, tasks: 80, ..MASKED }),
    system("KY Ydelsesblik", 190, "Ydelser", "kommune.ky.ydelsesblik", BENEFITS,
        Style { tasks: 70, agreement: "5dbf4E02grPU", ..USUAL }),
    system("KSD Dagpengeblik", 110, "Sygedagpenge", "kommune.ksd.dagpenge", BENEFITS,
        Style { agreement: "5dbf4E02grPU", ..WITH_TASKS }),
    system("Barselsblik", 30, "Sygedagpenge", "kommune.ksd.barsel", BENEFITS, WITH_TASKS),
    system("Jobrejsen", 130, "Jobcenter", "dk.jobrejsen.kerne", CARE,
        Style { cases: false, tasks: 30, ..NEWER }),
    system("Pensionsbasis", 50, "Pension", "kommune.pension.basis", BENEFITS,
        Style { time: Time::OracleTwelve, ..USUAL }),
    system("Boligstøtte Nu", 40, "Pension", "kommune.bolig.stoette", BENEFITS,
        Style { time: Time::OracleTwelve, ..MASKED }),
    system("Omsorgsjournalen", 180, "Ældre og Omsorg", "dk.omsorgsjournal.app", CARE,
        Style { cases: false, ..NEWER }),
    system("Hjælpemiddeldepotet", 30, "Ældre og Omsorg", "dk.hmdepot.web", SERVICE_DESK, NEWER),
    system("Børneblik", 90, "Børn og Unge", "kommune.boern.blik", CARE, WITH_TASKS),
    system("Skoleadgang", 60, "Skoler", "dk.skoleadgang.portal", SERVICE_DESK,
        Style { cases: false, address: Address::Six, ..NEWER }),
    system("Tandplejejournalen", 25, "Tandplejen", "dk.tandpleje.journal", CARE,
        Style { cases: false, uuids: false, ..USUAL }),
    system("Voksenhandicap Fagsystem", 60, "Social og Handicap", "kommune.voksen.fagsystem", CASES,
        WITH_TASKS),
    system("Borgerservice Disk", 90, "Borgerservice", "dk.disk.borgerservice", SERVICE_DESK, USUAL),
    system("Personopslag", 100, "Borgerservice", "dk.personopslag.register", REGISTER,
        Style { cases: false, shared: true, address: Address::Integer, ..USUAL }),
    system("Flytning og adresse", 35, "Borgerservice", "dk.flytning.adresse", REGISTER,
        Style { cases: false, ..USUAL }),
    system("Byggesagsarkivet", 25, "Teknik og Miljø", "dk.byggesag.arkiv", CASES,
        Style { citizen: Citizen::Unknown, uuids: false, ..USUAL }),
    system("Debitorsyn", 40, "Opkrævning", "kommune.debitor.syn", REGISTER,
        Style { time: Time::Date, cases: false, agreement: "SKAT-", ..USUAL }),
];
