//! What a good token stands for: somebody with a role, or a person, by what is configured for its
//! issuer. What is not configured is not granted.

use std::sync::Arc;

use serde_json::Value;
use sporlog_record::identifier::{is_organisation, mask_text};
use sporlog_record::jose::Claims;

use super::refusal::Refusal;
use super::settings::{IssuerSettings, PersonSettings, RoleSettings};
use super::token::claim;
use super::{Person, Principal, Via};

/// These claims hold a list of words in a text.
const LISTS: [&str; 2] = ["scope", "scp"];
/// What a token calls the client that it was issued to; the first that it has is taken.
const NAMES: [&str; 4] = ["client_id", "azp", "appid", "sub"];
/// A client's name is cut to so many characters.
const LONGEST_NAME: usize = 64;

/// What a token stands for.
#[derive(Debug)]
pub(super) struct Grant {
    pub principal: Result<Principal, Refusal>,
    pub person: Result<Person, Refusal>,
}

impl Grant {
    /// By the claims of a token whose signature was verified.
    pub(super) fn of(settings: &IssuerSettings, issuer: &Arc<str>, claims: &Claims) -> Self {
        let principal = settings.role.iter().find_map(|rule| principal(rule, issuer, claims));
        let person = match &settings.person {
            Some(rule) => person(rule, issuer, claims),
            None => Err(Refusal::NO_PERSON),
        };
        Grant { principal: principal.ok_or(Refusal::NO_ROLE), person }
    }
}

fn principal(rule: &RoleSettings, issuer: &Arc<str>, claims: &Claims) -> Option<Principal> {
    // The settings are refused if there is no condition; here, too, none means nobody.
    let met = !rule.conditions.is_empty() && rule.conditions.iter().all(|(path, is)| holds(claims, path, is));
    if !met {
        return None;
    }
    let organisations = match &rule.organisation_claim {
        None => rule.organisations.clone(),
        Some(path) => {
            let number = organisation(claims, path)?;
            let among = rule.organisations.is_empty() || rule.organisations.iter().any(|one| one == number);
            among.then(|| vec![number.to_owned()])?
        }
    };
    let client = client(claims);
    Some(Principal {
        name: client.chars().take(LONGEST_NAME).collect::<String>().into(),
        via: Via::Token { issuer: Arc::clone(issuer), client: client.into() },
        role: rule.role,
        logs: rule.logs.clone(),
        organisations,
    })
}

/// Whether a claim is this, or is a list that contains it.
fn holds(claims: &Claims, path: &str, wanted: &str) -> bool {
    match claim(claims, path) {
        Some(Value::String(text)) if LISTS.contains(&path) => text.split(' ').any(|word| word == wanted),
        Some(Value::String(text)) => text == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(wanted)),
        Some(Value::Bool(truth)) => wanted == if *truth { "true" } else { "false" },
        Some(Value::Number(number)) => number.to_string() == wanted,
        _ => false,
    }
}

/// The organisation's number, with or without the code of its register (ISO 6523) before it:
/// `0192:974760673`.
fn organisation<'a>(claims: &'a Claims, path: &str) -> Option<&'a str> {
    let text = claim(claims, path)?.as_str()?;
    let number = text.rsplit_once(':').map_or(text, |(_, number)| number);
    is_organisation(number).then_some(number)
}

/// What the client is called in logs and records: no control characters, no personal number.
fn client(claims: &Claims) -> String {
    let text = NAMES.iter().find_map(|name| claims.get(*name)?.as_str()).unwrap_or("unnamed");
    mask_text(text).chars().filter(|char| !char.is_control()).collect()
}

fn person(rule: &PersonSettings, issuer: &Arc<str>, claims: &Claims) -> Result<Person, Refusal> {
    let acr = claims.get("acr").and_then(Value::as_str);
    if !rule.acr.is_empty() && !acr.is_some_and(|acr| rule.acr.iter().any(|enough| enough == acr)) {
        return Err(Refusal::LEVEL);
    }
    let pid = rule.claim.iter().find_map(|path| claim(claims, path)).and_then(Value::as_str);
    let pid = pid.filter(|pid| matches!(pid.len(), 10 | 11) && pid.bytes().all(|byte| byte.is_ascii_digit()));
    let pid = pid.ok_or(Refusal::NO_PERSON)?.to_owned();
    Ok(Person { pid, issuer: Arc::clone(issuer), acr: acr.map(str::to_owned) })
}
