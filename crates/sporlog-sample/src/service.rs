//! The services that the IT systems call, by what they are for; a system adds a package of its own.

use crate::parameters::Shape;

/// One service that a system calls.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) component: &'static str,
    pub(crate) parameters: Shape,
    pub(crate) notes: &'static [&'static str],
}

const fn service(
    name: &'static str,
    component: &'static str,
    parameters: Shape,
    notes: &'static [&'static str],
) -> Service {
    Service { name, component, parameters, notes }
}

const LOOKED_AT: &[&str] =
    &["Opslag", "Borger vist", "Visning af borgerens overblik", "Opslag fra søgeresultat"];
const CHANGED: &[&str] = &["Oplysninger gemt", "Task completed", "Kladde gemt", "Status ændret"];

/// Case files and who is a party to them.
#[rustfmt::skip]
pub(crate) const CASES: &[Service] = &[
    service("SagService", "sag.service.SagServiceImpl", Shape::Rest,
        &["Sag vist", "Sagsoverblik vist", "Sag læst"]),
    service("PartService", "part.service.PartOpslagService", Shape::Query, LOOKED_AT),
    service("DokumentService", "dokument.service.DokumentLaesService", Shape::Rest,
        &["Dokument vist", "Dokument hentet"]),
    service("AdvisService", "advis.view.GetAdvisSearchResultsViewModelTask", Shape::List, &["Adviser vist"]),
    service("JournalService", "journal.service.JournalnotatService", Shape::Json,
        &["Journalnotat læst", "Journalnotat gemt"]),
];

/// Benefits: what is paid, and on what incomes.
#[rustfmt::skip]
pub(crate) const BENEFITS: &[Service] = &[
    service("YdelseService", "bpm.common.service.YdelsesListeService", Shape::List,
        &["Ydelser vist", "Udbetalinger vist"]),
    service("OpgaveService", "bpm.common.service.ProcesOpgaveService", Shape::List,
        &["Task completed", "Task claimed", "Opgave åbnet"]),
    service("IndkomstService", "indkomst.service.IndkomstOpslagService", Shape::Query,
        &["Indkomst indhentet", "Indkomstoplysninger vist"]),
    service("BeregningService", "beregning.service.SatsBeregningService", Shape::Json,
        &["Beregning foretaget", "Prøveberegning"]),
    service("PartService", "part.service.PartOpslagService", Shape::Query, LOOKED_AT),
];

/// Care and support over months and years.
#[rustfmt::skip]
pub(crate) const CARE: &[Service] = &[
    service("BorgerService", "borger.service.BorgerOverblikService", Shape::List, LOOKED_AT),
    service("IndsatsService", "indsats.service.IndsatsForloebService", Shape::Rest,
        &["Indsats vist", "Forløb vist"]),
    service("ObservationService", "observation.service.ObservationLaesService", Shape::Json,
        &["Observation læst", "Observation oprettet"]),
    service("PlanService", "plan.service.HandleplanService", Shape::Rest, CHANGED),
];

/// Registers of people and addresses.
#[rustfmt::skip]
pub(crate) const REGISTER: &[Service] = &[
    service("PersonOpslag", "person.facade.PersonBaseDataUdvidetService", Shape::Query,
        &["Stamdata vist", "Opslag"]),
    service("PersonSoegning", "person.facade.PersonSoegService", Shape::Search,
        &["Søgning", "Søgning på navn og adresse"]),
    service("AdresseOpslag", "adresse.facade.AdresseHistorikService", Shape::Query,
        &["Adressehistorik vist"]),
    service("FamilieOpslag", "familie.facade.FamilieRelationService", Shape::Nothing,
        &["Relationer vist", "Børn vist"]),
];

/// Letters, applications, and those who come in person.
#[rustfmt::skip]
pub(crate) const SERVICE_DESK: &[Service] = &[
    service("HenvendelseService", "henvendelse.service.HenvendelseService", Shape::List,
        &["Henvendelse vist", "Henvendelse oprettet"]),
    service("AnsoegningService", "ansoegning.service.AnsoegningLaesService", Shape::Json, CHANGED),
    service("DokumentService", "dokument.service.DokumentLaesService", Shape::Rest,
        &["Dokument vist", "Dokument hentet"]),
    service("PostService", "post.service.DigitalPostService", Shape::Query, &["Brev sendt", "Brev vist"]),
    service("BorgerService", "borger.service.BorgerOverblikService", Shape::Nothing, LOOKED_AT),
];
