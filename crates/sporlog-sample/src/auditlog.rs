//! Audit logs: sign-in sessions of a municipality's staff at an OS2faktor Login. A session begins
//! with a sign-in, goes on in the same correlation id, and may end with a sign-out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sporlog_record::hex;

use crate::chance::{Dice, Weighted, hash, wide_hash};
use crate::clock::{Clock, Moment};
use crate::saml::{self, Subject};
use crate::text::{json_string, put};
use crate::{Options, people};

/// An action, as it stands in the log.
struct Action {
    name: &'static str,
    weight: u64,
    message: &'static str,
    detail: Detail,
    /// Done by an administrator, for the person.
    by_other: bool,
}

/// What comes with an action.
enum Detail {
    None,
    /// Mostly the whole token.
    Token,
    Json(&'static str),
    Text(&'static str),
}

const fn action(
    name: &'static str,
    weight: u64,
    message: &'static str,
    detail: Detail,
    by_other: bool,
) -> Action {
    Action { name, weight, message, detail, by_other }
}

/// What happens within a session: the sign-in first, then anything.
#[rustfmt::skip]
const ACTIONS: [Action; 9] = [
    action("LOGIN", 60, "Login", Detail::Token, false),
    action("AUTHN_REQUEST", 30, "Loginforespørgsel modtaget",
        Detail::Text("NSIS-niveau: SUBSTANTIAL, forceAuthn=false, isPassive=false"), false),
    action("CPR_LOOKUP", 9, "Opslag i CPR-registret",
        Detail::Json("{\"kilde\":\"cpr\",\"resultat\":\"fundet\",\"navnebeskyttelse\":false}"), false),
    action("MFA_APPROVED", 20, "2-faktor godkendt", Detail::None, false),
    action("MFA_REJECTED", 2, "2-faktor afvist af brugeren", Detail::None, false),
    action("REJECTED_BY_CONDITION", 2, "Login afvist: brugeren har ikke adgang til tjenesten",
        Detail::Text("Betingelse: medlem af gruppen \"Fagsystemer, ekstern\""), false),
    action("CHANGE_PASSWORD", 4, "Kodeord skiftet", Detail::None, false),
    action("UNLOCK_ACCOUNT", 2, "Konto låst op af administrator",
        Detail::Json("{\"aarsag\":\"henvendelse til servicedesk\"}"), true),
    action("UPDATE_PERSON", 3, "Person ændret af administrator",
        Detail::Json("{\"felter\":[\"nsisAllowed\",\"domain\"],\"foer\":[false,null],\"efter\":[true,\"kommune.dk\"]}"), true),
];

/// A service that people sign in to.
struct Service {
    sign_in: &'static str,
    host: &'static str,
}

const SERVICES: [Service; 8] = [
    Service { sign_in: "Login til OS2rollekatalog", host: "rollekatalog" },
    Service { sign_in: "Login til Sag og part", host: "sagogpart" },
    Service { sign_in: "Login til Omsorgsjournalen", host: "omsorg" },
    Service { sign_in: "Login til Jobrejsen", host: "jobrejsen" },
    Service { sign_in: "Login til Lønportalen", host: "loen" },
    Service { sign_in: "Login til Intranet", host: "intranet" },
    Service { sign_in: "Login til Skoleadgang", host: "skole" },
    Service { sign_in: "Login til Selvbetjening", host: "selvbetjening" },
];

/// The internal id of the person with the lowest.
const FIRST_PERSON_ID: u64 = 300;

/// The records of an audit log.
pub(crate) struct Source {
    dice: Dice,
    clock: Clock,
    staff: u64,
    actions: Weighted,
    certificate: String,
    id: u64,
    going_on: Vec<Session>,
}

#[derive(Default)]
struct Session {
    left: u64,
    stage: Stage,
    wrong_passwords: u64,
    signs_out: bool,
    person: u64,
    correlation: [u8; 20],
    address: [u8; 2],
}

/// One thing that happens in a session.
struct Event<'a> {
    id: u64,
    now: Moment,
    action: &'a str,
    message: &'a str,
    /// Who did it, if not the person.
    performer: Option<u64>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Stage {
    #[default]
    Over,
    SigningIn,
    SignedIn,
}

impl Source {
    /// The source of a sample.
    pub(crate) fn new(options: &Options, clock: Clock) -> Self {
        let mut noise = [0; 1_100];
        Dice::new(0, 2).fill(&mut noise);
        Source {
            dice: Dice::new(options.seed, 0),
            clock,
            staff: (options.records / 30).clamp(40, 30_000),
            actions: Weighted::new(ACTIONS.iter().map(|action| action.weight)),
            certificate: STANDARD.encode(noise),
            id: 0,
            going_on: (0..(options.records / 40).clamp(1, 2_000)).map(|_| Session::default()).collect(),
        }
    }
}

impl crate::Source for Source {
    fn record(&mut self, out: &mut Vec<u8>) {
        let dice = &mut self.dice;
        let moment = self.clock.next(dice);
        // Ids skip by what the cluster's other nodes have taken.
        self.id += dice.within(1, 3);
        let slot = dice.below(self.going_on.len() as u64) as usize;
        let session = &mut self.going_on[slot];
        if session.stage == Stage::Over {
            session.begin(dice, self.staff);
        }
        let mut event =
            Event { id: self.id, now: moment, action: "LOGIN", message: "Login", performer: None };
        match session.stage {
            Stage::SigningIn if session.wrong_passwords > 0 => {
                session.wrong_passwords -= 1;
                (event.action, event.message) = ("WRONG_PASSWORD", "Forkert kodeord");
                session.write(out, &event);
                detail(out, &Detail::None);
            }
            _ if session.left == 0 => {
                session.stage = Stage::Over;
                (event.action, event.message) = if session.signs_out {
                    ("LOGOUT", "Logget ud")
                } else {
                    ("SESSION_EXPIRED", "Sessionen er udløbet")
                };
                session.write(out, &event);
                detail(out, &Detail::None);
            }
            stage => {
                session.stage = Stage::SignedIn;
                session.left -= 1;
                // A session's first action is the sign-in; later ones are to further services.
                let action = match stage {
                    Stage::SigningIn => &ACTIONS[0],
                    _ => &ACTIONS[self.actions.draw(dice)],
                };
                event.action = action.name;
                event.message = action.message;
                // The municipality has a handful of administrators: the first of its staff.
                event.performer = action.by_other.then(|| dice.below(6));
                let service = dice.pick(&SERVICES);
                if matches!(action.detail, Detail::Token) {
                    event.message = service.sign_in;
                }
                session.write(out, &event);
                if matches!(action.detail, Detail::Token) && dice.percent(60) {
                    put! { out; ",\"detailType\":\"XML\",\"detailContent\":" }
                    json_string(out, &session.token(dice, &moment, service.host, &self.certificate));
                    put! { out; ",\"detailSupplement\":null" }
                } else {
                    detail(out, &action.detail);
                }
            }
        }
        put! { out; "}\n" }
    }
}

impl Session {
    fn begin(&mut self, dice: &mut Dice, staff: u64) {
        *self = Session {
            left: 1 + dice.below(5),
            stage: Stage::SigningIn,
            wrong_passwords: if dice.percent(10) { dice.within(1, 3) } else { 0 },
            signs_out: dice.percent(70),
            person: dice.skewed(staff),
            ..Session::default()
        };
        dice.fill(&mut self.correlation);
        dice.fill(&mut self.address);
    }

    /// Appends a record up to its details.
    fn write(&self, out: &mut Vec<u8>, event: &Event) {
        let [a, b] = self.address.map(u64::from);
        put! { out;
            "{\"id\":" (event.id) ",\"tts\":\"" (event.now.seconds()) "\",\"ipAddress\":\"10."
            (20 + self.person % 4) "." a "." b "\",\"correlationId\":\"" (hex(self.correlation)) "\",\"personId\":"
            (FIRST_PERSON_ID + self.person) ",\"personName\":\"" (name(self.person)) "\",\"cpr\":\""
            (&people::cpr(self.person)) "\",\"performerId\":"
        }
        match event.performer {
            Some(id) => put! { out; (FIRST_PERSON_ID + id) ",\"performerName\":\"" (name(id)) "\"" },
            None => put! { out; "null,\"performerName\":null" },
        }
        put! { out;
            ",\"logAction\":\"" (event.action) "\",\"message\":\"" (event.message)
            "\",\"personDomain\":\"kommune.dk\",\"samaccountName\":\"" (&self.samaccount()) "\""
        }
    }

    /// The token of a sign-in.
    fn token(&self, dice: &mut Dice, now: &Moment, host: &str, certificate: &str) -> String {
        let subject = Subject {
            host,
            login: String::from_utf8_lossy(&self.samaccount()).into_owned(),
            cpr: String::from_utf8_lossy(&people::cpr(self.person)).into_owned(),
            name: name(self.person),
            person: wide_hash(self.person, 0x7374_6166),
        };
        saml::response(dice, &subject, now, certificate)
    }

    fn samaccount(&self) -> [u8; 4] {
        people::initials(hash(self.person, 5)).map(|byte| byte.to_ascii_lowercase())
    }
}

fn name(person: u64) -> String {
    people::name(person).join(" ")
}

/// Appends the last three members, but for a token.
fn detail(out: &mut Vec<u8>, detail: &Detail) {
    let (form, content) = match detail {
        Detail::None | Detail::Token => {
            put! { out; ",\"detailType\":null,\"detailContent\":null,\"detailSupplement\":null" }
            return;
        }
        Detail::Json(content) => ("JSON", content),
        Detail::Text(content) => ("TEXT", content),
    };
    put! { out; ",\"detailType\":\"" form "\",\"detailContent\":" }
    json_string(out, content);
    put! { out; ",\"detailSupplement\":null" }
}
