//! An entry in words: names from the register and the settings, grounds, times.

use sporlog_intake::names::Names;
use sporlog_record::Kind;

use super::configured::Pages;
use super::entry::Entry;
use super::html::{Html, SHORT, data};
use super::texts::{Texts, calendar};

/// Names in one language.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    pub t: &'static Texts,
    pub pages: &'a Pages,
    pub names: &'a Names,
}

/// A name, and the number or code below it; where there is no name, the number stands there.
pub struct Named {
    pub name: Html,
    pub number: Option<Html>,
}

impl Named {
    fn new(name: Option<&str>, number: &str) -> Named {
        match name {
            Some(name) => Named { name: data(name, SHORT), number: Some(data(number, SHORT)) },
            None => Named { name: data(number, SHORT), number: None },
        }
    }
}

impl<'a> Words<'a> {
    /// What an organisation was called.
    pub fn organisation(&self, number: &str, on: Option<i64>) -> Option<&'a str> {
        let own = self.pages.settings.organisation.get(number);
        own.and_then(|organisation| organisation.name.as_deref())
            .or_else(|| self.names.organisation(number, on))
    }

    /// What a kind of data is called.
    pub fn topic_name(&self, code: &str, on: Option<i64>) -> Option<&'a str> {
        self.names.topic(code, on)
    }

    /// What a system is called.
    pub fn system_name(&self, system: &str, on: Option<i64>) -> Option<&'a str> {
        self.names.system(system, on)
    }

    /// The organisation in plain text.
    pub fn whom(&self, entry: &Entry) -> String {
        let number = entry.organisation().unwrap_or_else(|| self.nobody(entry));
        self.organisation(number, entry.occurred).unwrap_or(number).to_owned()
    }

    pub fn whom_named(&self, entry: &Entry) -> Named {
        match entry.organisation() {
            Some(number) => Named::new(self.organisation(number, entry.occurred), number),
            None => Named::new(None, self.nobody(entry)),
        }
    }

    /// What stands in the place of an organisation. Disclosures and look-ups always have one, which is then withheld or
    /// not shown.
    fn nobody(&self, entry: &Entry) -> &'a str {
        self.t.t(match entry.kind {
            Kind::Disclosure | Kind::Revision => "entry.hidden",
            Kind::Auditlog | Kind::Mfa | Kind::Quarantine => "entry.unknown",
        })
    }

    /// What kind of data, in plain text.
    pub fn topic(&self, entry: &Entry) -> Option<String> {
        let code = entry.topic()?;
        if entry.kind == Kind::Auditlog
            && let Some(key) = action(code)
        {
            return Some(self.t.t(key).to_owned());
        }
        Some(self.topic_name(code, entry.occurred).unwrap_or(code).to_owned())
    }

    /// The supplier or the system that the data went through, in plain text.
    pub fn through(&self, entry: &Entry) -> Option<String> {
        if let Some(number) = entry.supplier() {
            return Some(self.organisation(number, entry.occurred).unwrap_or(number).to_owned());
        }
        let name = entry.system().and_then(|system| self.system_name(system, entry.occurred));
        name.or(entry.system_name()).or(entry.system()).map(str::to_owned)
    }

    /// When, in words.
    pub fn when(&self, entry: &Entry) -> String {
        self.t.moment(calendar(entry.time()))
    }

    /// Until when something is withheld.
    pub fn until(&self, entry: &Entry) -> Option<String> {
        entry.until.map(|until| self.t.date(until.date()))
    }
}

/// The text of an action of an audit log.
fn action(action: &str) -> Option<&'static str> {
    Some(match action {
        "LOGIN" => "action.login",
        "LOGOUT" => "action.logout",
        "WRONG_PASSWORD" => "action.wrong-password",
        "CPR_LOOKUP" => "action.cpr-lookup",
        _ => return None,
    })
}

/// The text of a field's name.
pub fn field(name: &str) -> Option<&'static str> {
    Some(match name {
        "person" | "BorgerId" | "cpr" => "field.person",
        "mottaker" => "field.mottaker",
        "tema" => "field.tema",
        "behandlingsGrunnlag" => "field.behandlingsGrunnlag",
        "uthentingsTidspunkt" | "TransaktionsTid" | "tts" => "field.time",
        "leverteData" => "field.leverteData",
        "samtykkeToken" => "field.samtykkeToken",
        "dataForespoersel" => "field.dataForespoersel",
        "leverandoer" => "field.leverandoer",
        "TransaktionsId" => "field.TransaktionsId",
        "BrugerId" | "samaccountName" => "field.BrugerId",
        "KalderOrganisation" => "field.KalderOrganisation",
        "KalderItSystemInstans" => "field.KalderItSystemInstans",
        "LogId" | "sourceId" => "field.LogId",
        "CallersServiceCallIdentifier" | "correlationId" => "field.CallersServiceCallIdentifier",
        "ModtagerAftaleId" | "ServiceAftaleUUID" => "field.ModtagerAftaleId",
        "Parametre" => "field.Parametre",
        "KaldtServiceId" => "field.KaldtServiceId",
        "KalderIP" | "ipAddress" => "field.KalderIP",
        "BrugerNavn" | "performerName" => "field.BrugerNavn",
        "KalderItSystemNavn" => "field.KalderItSystemNavn",
        "ServiceNavn" => "field.ServiceNavn",
        "Note" | "message" => "field.Note",
        "SagId" => "field.SagId",
        "PartId" => "field.PartId",
        "OpgaveId" => "field.OpgaveId",
        "BrugerKalderOrganisationEnhedId" => "field.BrugerKalderOrganisationEnhedId",
        "BrugerOrganisationEnhedNavn" => "field.BrugerOrganisationEnhedNavn",
        "SvarReaktion" => "field.SvarReaktion",
        "personId" => "field.personId",
        "personName" => "field.personName",
        "performerId" => "field.performerId",
        "logAction" => "field.logAction",
        "personDomain" => "field.personDomain",
        "detailType" => "field.detailType",
        "detailContent" => "field.detailContent",
        "detailSupplement" => "field.detailSupplement",
        _ => return None,
    })
}

/// A remark in plain words, by its rule.
pub fn remark(rule: &str) -> Option<&'static str> {
    Some(match rule {
        "check-digit" => "rule.check-digit",
        "length" => "rule.length",
        "future" => "rule.future",
        "past" => "rule.past",
        "base64" | "payload-json" => "rule.payload",
        "jwt" | "consent-claims" => "rule.no-consent",
        "consent-signature" => "rule.consent-signature",
        "consent-person" => "rule.consent-person",
        "consent-recipient" => "rule.consent-recipient",
        "consent-expired" => "rule.consent-expired",
        "consent-validity" => "rule.consent-validity",
        "uuid" | "ip" | "cpr" | "tts" => "rule.form",
        "unknown-field" | "unknown-column" => "rule.unknown",
        _ => return None,
    })
}
