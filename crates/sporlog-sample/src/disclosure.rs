//! Disclosures: inquiries of insurers, banks and municipalities. An inquiry is one person, one
//! recipient, one consent, and a few kinds of data handed out one after the other.

use chrono::NaiveDate;

use crate::chance::{Dice, Weighted};
use crate::clock::{Clock, Moment};
use crate::text::{base64, json_string, put};
use crate::token::{Consent, Parties};
use crate::{Options, delivered, people};

const THEMES: [&str; 16] = [
    "AAP", "SYK", "DAG", "PEN", "UFO", "FOR", "INK", "OPP", "BAR", "OMS", "ENF", "KON", "GRU", "YRK", "TSO",
    "SUP",
];
const SUPPLIERS: u64 = 8;

/// A sort of recipient: how many there are, how often they ask, and on what ground.
struct Sort {
    recipients: u64,
    weight: u64,
    grounds: &'static [&'static str],
    /// Of a hundred inquiries, how many come with a consent token.
    consents: u64,
}

const SORTS: [Sort; 3] = [
    // Insurers.
    Sort {
        recipients: 14,
        weight: 50,
        grounds: &[
            "Samtykke, personvernforordningen artikkel 6 nr. 1 bokstav a",
            "Samtykke til innhenting av opplysninger ved skadeoppgjør",
            "Samtykke, forsikringsavtaleloven § 18-1",
            "Samtykke gitt i Altinn: uføre- og livsforsikring",
        ],
        consents: 96,
    },
    // Banks.
    Sort {
        recipients: 14,
        weight: 35,
        grounds: &[
            "Samtykke: søknad om lån, finansavtaleloven § 5-2",
            "Samtykkebasert lånesøknad",
            "Samtykke, personvernforordningen artikkel 6 nr. 1 bokstav a",
        ],
        consents: 98,
    },
    // Municipalities, which may ask by law.
    Sort {
        recipients: 12,
        weight: 15,
        grounds: &[
            "Sosialtjenesteloven § 43",
            "Forvaltningsloven § 13 b nr. 5, jf. NAV-loven § 7",
            "Barnehageloven: redusert foreldrebetaling",
        ],
        consents: 0,
    },
];

/// Requests, as the systems log them: addresses, JSON, XML.
const REQUESTS: [&str; 4] = [
    "GET /api/v1/ytelser?filter=alle&historikk=36",
    "GET /api/v2/inntekt/oppsummering?fom=2019-01&tom=2024-12&formaal=FORSIKRING&detaljer=true",
    r#"{"formaal":"LAANESOEKNAD","fom":"2021-01","tom":"2024-06","felter":["beloep","grad","status"]}"#,
    r#"<hent xmlns="urn:nav:sykepenger:v1">
	<periode fom="2022-01-01"/>
	<detaljer>FULL</detaljer>
</hent>"#,
];

/// The records of a disclosure log.
pub(crate) struct Source {
    dice: Dice,
    clock: Clock,
    people: u64,
    sorts: Weighted,
    recipients: Vec<[u8; 9]>,
    suppliers: Vec<[u8; 9]>,
    going_on: Vec<Inquiry>,
    answer: Vec<u8>,
    claims: Vec<u8>,
}

#[derive(Default)]
struct Inquiry {
    left: u64,
    person: u64,
    number: [u8; 11],
    recipient: usize,
    supplier: Option<usize>,
    ground: &'static str,
    consent: Option<Consent>,
}

impl Source {
    /// The source of a sample.
    pub(crate) fn new(options: &Options, clock: Clock) -> Self {
        let recipients = SORTS.iter().map(|sort| sort.recipients).sum();
        Source {
            dice: Dice::new(options.seed, 0),
            clock,
            people: (options.records / 12).max(25),
            sorts: Weighted::new(SORTS.iter().map(|sort| sort.weight)),
            recipients: (0..recipients).map(people::organisasjonsnummer).collect(),
            suppliers: (recipients..recipients + SUPPLIERS).map(people::organisasjonsnummer).collect(),
            going_on: (0..(options.records / 40).clamp(1, 64)).map(|_| Inquiry::default()).collect(),
            answer: Vec::new(),
            claims: Vec::new(),
        }
    }
}

impl crate::Source for Source {
    fn record(&mut self, out: &mut Vec<u8>) {
        let dice = &mut self.dice;
        let moment = self.clock.next(dice);
        let slot = dice.below(self.going_on.len() as u64) as usize;
        let inquiry = &mut self.going_on[slot];
        if inquiry.left == 0 {
            *inquiry = Inquiry::new(dice, &self.sorts, self.people, &moment, self.clock.end());
        }
        inquiry.left -= 1;
        let recipient = &self.recipients[inquiry.recipient];
        let supplier = inquiry.supplier.map(|nth| &self.suppliers[nth]);
        let tema = dice.word(&THEMES);

        put! { out;
            "{\"person\":\"" (&inquiry.number) "\",\"mottaker\":\"" recipient "\",\"tema\":\"" tema
            "\",\"behandlingsGrunnlag\":\"" (inquiry.ground) "\",\"uthentingsTidspunkt\":\""
            (moment.millis()) "\",\"leverteData\":\""
        }
        self.answer.clear();
        delivered::write(&mut self.answer, dice, tema, moment.0.date(), inquiry.person);
        base64(out, &self.answer);
        out.push(b'"');
        if let Some(consent) = &inquiry.consent {
            put! { out; ",\"samtykkeToken\":\"" }
            let parties =
                Parties { person: &inquiry.number, recipient, supplier: supplier.map(|number| &number[..]) };
            consent.write(out, &mut self.claims, dice, parties, &moment);
            out.push(b'"');
        }
        if dice.percent(50) {
            put! { out; ",\"dataForespoersel\":" }
            json_string(out, dice.word(&REQUESTS));
        }
        if let Some(supplier) = supplier {
            put! { out; ",\"leverandoer\":\"" supplier "\"" }
        }
        put! { out; "}\n" }
    }
}

impl Inquiry {
    fn new(dice: &mut Dice, sorts: &Weighted, people: u64, now: &Moment, end: NaiveDate) -> Self {
        let nth = sorts.draw(dice);
        let before: u64 = SORTS[..nth].iter().map(|sort| sort.recipients).sum();
        let sort = &SORTS[nth];
        let person = dice.skewed(people);
        Inquiry {
            left: 1 + dice.below(3),
            person,
            number: people::fodselsnummer(person),
            recipient: (before + dice.skewed(sort.recipients)) as usize,
            supplier: dice.percent(10).then(|| dice.below(SUPPLIERS) as usize),
            ground: dice.word(sort.grounds),
            consent: dice.percent(sort.consents).then(|| Consent::new(dice, now, end)),
        }
    }
}
