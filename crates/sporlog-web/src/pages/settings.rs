//! What persons are shown: the section `[pages]`.
//!
//! The defaults are the safe ones: disclosures with all their fields, no other log, no employee's name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sporlog_record::Kind;
use url::Url;

use crate::sign_in::settings::{ProviderSettings, SessionSettings, check_providers};

/// The section `[pages]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagesSettings {
    /// Where persons reach this server: `https://innsyn.example.org`. Needed if there are providers.
    pub address: Option<Url>,
    /// How long a person stays signed in: `[pages.session]`.
    pub session: SessionSettings,
    /// Whom persons sign in with: `[[pages.provider]]`.
    pub provider: Vec<ProviderSettings>,
    /// What the service is called on its pages.
    pub name: String,
    /// An image for the head of each page: an SVG or PNG file of at most 20 kB.
    pub logo: Option<PathBuf>,
    /// The colour of links and buttons on a light ground: `#rrggbb`.
    pub accent: String,
    /// The same on a dark ground.
    pub accent_dark: String,
    /// Who hands the data out, for the sentence about a disclosure: "NAV".
    pub giver: Option<String>,
    /// Who is responsible for the service: a name, and an address if there is one.
    pub responsible: Option<String>,
    /// Where questions go that no organisation has a contact for: an email address or an `https://` address.
    pub contact: Option<String>,
    /// Where to complain: text in each language.
    pub complaints: Translated,
    /// How long records are kept: text in each language.
    pub retention: Translated,
    /// What is not in the logs: text in each language.
    pub missing: Translated,
    /// The file with explanations of why data is handed out.
    pub explanations: Option<PathBuf>,
    /// The logs that a person sees. The first that matches a log's name is the one that counts.
    pub log: Vec<ShownLog>,
    /// What is withheld for a time.
    pub embargo: Vec<Embargo>,
    /// What is known of organisations, by number.
    pub organisation: BTreeMap<String, Organisation>,
}

impl Default for PagesSettings {
    fn default() -> Self {
        PagesSettings {
            address: None,
            session: SessionSettings::default(),
            provider: Vec::new(),
            name: "Sporlog".into(),
            logo: None,
            accent: "#0b5a82".into(),
            accent_dark: "#8ecdf0".into(),
            giver: None,
            responsible: None,
            contact: None,
            complaints: Translated::default(),
            retention: Translated::default(),
            missing: Translated::default(),
            explanations: None,
            log: vec![ShownLog { name: "disclosure*".into(), fields: Vec::new(), employees: false }],
            embargo: Vec::new(),
            organisation: BTreeMap::new(),
        }
    }
}

/// A text in each of the languages; the Norwegian one stands in where another is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Translated {
    /// Norwegian (Bokmål).
    pub nb: Option<String>,
    /// Danish.
    pub da: Option<String>,
    /// English.
    pub en: Option<String>,
}

/// A log that a person sees.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShownLog {
    /// The log's name; `*` stands for anything.
    pub name: String,
    /// The fields that are shown. Empty: all of a disclosure; of a revision or audit record the time, the
    /// organisation, the unit, the system and the purpose.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Whether employees' names and identifiers may be among the fields.
    #[serde(default)]
    pub employees: bool,
}

/// What is withheld for a time: some fields, or whole records.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embargo {
    /// The logs; `*` stands for anything.
    pub log: String,
    /// Only records of this topic (`tema`).
    pub topic: Option<String>,
    /// Only records of this organisation.
    pub organisation: Option<String>,
    /// The fields. Empty: the whole record.
    #[serde(default)]
    pub fields: Vec<String>,
    /// For how many days from the record's own time.
    pub days: u32,
}

/// What is known of an organisation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Organisation {
    /// Its name, which goes before the one in the register.
    pub name: Option<String>,
    /// Where questions about its records go: an email address or an `https://` address.
    pub contact: Option<String>,
}

/// Fields that say which employee it was.
pub(super) const EMPLOYEE: [&str; 12] = [
    "BrugerId",
    "BrugerNavn",
    "KalderIP",
    "personId",
    "personName",
    "performerId",
    "performerName",
    "samaccountName",
    "ipAddress",
    "message",
    "username",
    "deviceId",
];

/// The fields of a kind that are shown where nothing else is said.
pub(super) fn usual_fields(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Disclosure => columns(kind).collect(),
        Kind::Revision => vec![
            "TransaktionsTid",
            "KalderOrganisation",
            "BrugerOrganisationEnhedNavn",
            "KalderItSystemInstans",
            "KalderItSystemNavn",
            "ServiceNavn",
            "Note",
        ],
        Kind::Auditlog => vec!["tts", "personDomain", "logAction"],
        Kind::Mfa | Kind::Quarantine => Vec::new(),
    }
}

impl PagesSettings {
    /// Takes relative paths as relative to `folder`.
    pub fn relative_to(&mut self, folder: &Path) {
        for file in [&mut self.logo, &mut self.explanations].into_iter().flatten() {
            *file = folder.join(&*file);
        }
        self.provider.iter_mut().for_each(|provider| provider.relative_to(folder));
    }

    /// What is wrong with the settings, if anything.
    pub fn check(&self) -> Result<(), String> {
        self.session.check().map_err(|error| error.to_string())?;
        check_providers(&self.provider, self.address.as_ref()).map_err(|error| error.to_string())?;
        for (name, colour, ground) in
            [("accent", &self.accent, "#ffffff"), ("accent_dark", &self.accent_dark, "#14181c")]
        {
            let ratio = contrast(colour, ground)
                .ok_or_else(|| format!("pages.{name}: '{colour}' is no colour of the form #rrggbb"))?;
            if ratio < 4.5 {
                return Err(format!(
                    "pages.{name}: '{colour}' has a contrast of {ratio:.1} on {ground}, where 4.5 is needed to be readable"
                ));
            }
        }
        let known =
            |field: &str| Kind::DELIVERED.into_iter().any(|kind| columns(kind).any(|name| name == field));
        for log in &self.log {
            for field in &log.fields {
                if !known(field) {
                    return Err(format!("pages.log '{}': no record has a field '{field}'", log.name));
                }
                if EMPLOYEE.contains(&field.as_str()) && !log.employees {
                    return Err(format!(
                        "pages.log '{}': '{field}' may say which employee it was; set employees = true to show it",
                        log.name
                    ));
                }
            }
        }
        for embargo in &self.embargo {
            if let Some(field) = embargo.fields.iter().find(|field| !known(field)) {
                return Err(format!("pages.embargo '{}': no record has a field '{field}'", embargo.log));
            }
            // A log that is named after its kind; such an embargo would withhold nothing, and nobody would notice.
            if let Ok(kind) = embargo.log.parse::<Kind>() {
                let topics = columns(kind).any(|name| name == "tema");
                for (setting, value, known) in [
                    ("topic", &embargo.topic, topics),
                    ("organisation", &embargo.organisation, !kind.organisation_columns().is_empty()),
                ] {
                    if value.is_some() && !known {
                        return Err(format!(
                            "pages.embargo '{}': its records have no {setting}, so this embargo would withhold none; leave {setting} out",
                            embargo.log
                        ));
                    }
                }
            }
        }
        let organisations = self.organisation.values().map(|organisation| &organisation.contact);
        for contact in organisations.chain([&self.contact]).flatten() {
            if contact_link(contact, "").is_none() {
                return Err(format!(
                    "pages: the contact '{contact}' is neither an email nor an https:// address"
                ));
            }
        }
        Ok(())
    }
}

/// Where a contact leads. An email gets the reference as its subject; a web address stays as it is.
pub(super) fn contact_link(contact: &str, reference: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@.-_+".contains(c);
    if contact.starts_with("https://") {
        return url::Url::parse(contact).is_ok().then(|| contact.to_owned());
    }
    let (local, domain) = contact.split_once('@')?;
    let valid = !local.is_empty() && domain.contains('.') && contact.chars().all(plain);
    valid.then(|| format!("mailto:{contact}?subject={}", reference.replace(' ', "%20")))
}

/// The contrast of two colours, as WCAG has it.
fn contrast(one: &str, other: &str) -> Option<f64> {
    let (one, other) = (luminance(one)?, luminance(other)?);
    Some((one.max(other) + 0.05) / (one.min(other) + 0.05))
}

fn luminance(colour: &str) -> Option<f64> {
    let digits = colour.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii())?;
    let channel = |at: usize| {
        let value = f64::from(u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?) / 255.0;
        Some(if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) })
    };
    Some(0.2126 * channel(0)? + 0.7152 * channel(2)? + 0.0722 * channel(4)?)
}

/// The names of a kind's columns.
pub(super) fn columns(kind: Kind) -> impl Iterator<Item = &'static str> {
    kind.columns().iter().map(|column| column.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        assert_eq!(PagesSettings::default().check(), Ok(()));
        let refused = |set: fn(&mut PagesSettings)| {
            let mut settings = PagesSettings::default();
            set(&mut settings);
            settings.check().expect_err("refused")
        };
        assert!(refused(|s| s.accent = "blue".into()).contains("#rrggbb"));
        assert!(refused(|s| s.accent = "#cccccc".into()).contains("contrast"));
        assert!(refused(|s| s.contact = Some("javascript:alert(1)".into())).contains("contact"));
        assert!(refused(|s| s.log[0].fields = vec!["nothing".into()]).contains("nothing"));
        assert!(refused(|s| s.log[0].fields = vec!["BrugerNavn".into()]).contains("employees"));
        let embargo = |log: &str, topic: Option<&str>, organisation: Option<&str>| Embargo {
            log: log.into(),
            topic: topic.map(Into::into),
            organisation: organisation.map(Into::into),
            fields: Vec::new(),
            days: 30,
        };
        let with = |embargo| PagesSettings { embargo: vec![embargo], ..PagesSettings::default() }.check();
        assert_eq!(with(embargo("disclosure", Some("PEN"), Some("889640782"))), Ok(()));
        assert_eq!(with(embargo("*", Some("PEN"), None)), Ok(()));
        assert!(with(embargo("revision", Some("PEN"), None)).is_err_and(|e| e.contains("topic")));
        assert!(
            with(embargo("auditlog", None, Some("889640782"))).is_err_and(|e| e.contains("organisation"))
        );
    }

    #[test]
    fn no_employee_is_shown_by_default() {
        for kind in [Kind::Revision, Kind::Auditlog] {
            assert!(usual_fields(kind).iter().all(|field| !EMPLOYEE.contains(field)), "{kind}");
        }
    }
}
