//! Revision logs: case workers at work. A piece of work is one worker, one system, one citizen, one
//! case and a handful of calls within a few minutes; many go on at once.

use sporlog_record::hex;
use sporlog_record::kind::REVISION_COLUMNS;

use crate::Options;
use crate::chance::{Dice, Weighted, hash, hash_text, skew, wide_hash};
use crate::clock::{Clock, Moment};
use crate::municipality::Municipalities;
use crate::parameters::{self, FAILURES};
use crate::people;
use crate::system::{Address, Citizen, SYSTEMS, System, Time};
use crate::text::{put, uuid};

/// The end of a field and the beginning of the next: all are quoted.
const NEXT: &str = "\",\"";

/// How many calls a person is looked up with, on average over the sample.
const CALLS_PER_CITIZEN: u64 = 50;

/// How many calls a case worker makes on a day.
const CALLS_PER_WORKER_DAY: u64 = 100;

/// The records of a revision log.
pub(crate) struct Source {
    dice: Dice,
    clock: Clock,
    municipalities: Municipalities,
    systems: Weighted,
    going_on: Vec<Work>,
}

/// A piece of work, with everything rendered that its calls have in common.
#[derive(Default)]
struct Work {
    calls_left: u64,
    system: usize,
    part: u128,
    case: u128,
    /// `BrugerId`, `KalderOrganisation`, `KalderItSystemInstans`.
    caller: Vec<u8>,
    /// `ModtagerAftaleId`.
    agreement: Vec<u8>,
    /// `KalderIP`, `BrugerNavn`, `KalderItSystemNavn`.
    origin: Vec<u8>,
    /// `BorgerId`, `SagId`, `PartId`, `OpgaveId`, `BrugerKalderOrganisationEnhedId`,
    /// `BrugerOrganisationEnhedNavn`.
    subject: Vec<u8>,
    /// `ServiceAftaleUUID`.
    service_agreement: Vec<u8>,
}

impl Source {
    /// The source of a sample.
    pub(crate) fn new(options: &Options, clock: Clock) -> Self {
        let citizens = (options.records / CALLS_PER_CITIZEN).max(300);
        let workers = (options.records / clock.days() / CALLS_PER_WORKER_DAY).clamp(100, 40_000);
        // One in eight is at it at any time; a small sample has less going on, so that what belongs
        // together is not torn apart.
        let going_on = (workers / 8).min(options.records / 40).max(1);
        Source {
            dice: Dice::new(options.seed, 0),
            clock,
            municipalities: Municipalities::new(citizens, workers),
            systems: Weighted::new(SYSTEMS.iter().map(|system| system.weight)),
            going_on: (0..going_on).map(|_| Work::default()).collect(),
        }
    }
}

impl crate::Source for Source {
    fn header(&self, out: &mut Vec<u8>) {
        for (i, name) in REVISION_COLUMNS.iter().enumerate() {
            put! { out; (if i == 0 { "\"" } else { NEXT }) name }
        }
        put! { out; "\"\n" }
    }

    fn record(&mut self, out: &mut Vec<u8>) {
        let moment = self.clock.next(&mut self.dice);
        let slot = self.dice.below(self.going_on.len() as u64) as usize;
        let work = &mut self.going_on[slot];
        if work.calls_left == 0 {
            work.begin(&mut self.dice, &self.municipalities, &self.systems);
        }
        work.calls_left -= 1;
        work.call(out, &mut self.dice, &moment);
    }
}

impl Work {
    /// Begins another piece of work: who, where, about whom.
    fn begin(&mut self, dice: &mut Dice, municipalities: &Municipalities, systems: &Weighted) {
        let municipality = municipalities.draw(dice.bits());
        let nth = dice.below(municipalities.workers(municipality));
        let worker = hash(municipality as u64, nth);

        self.calls_left =
            1 + dice.below(6) + dice.below(6) + if dice.one_in(12) { dice.below(20) } else { 0 };
        self.system = match dice.below(100) {
            0..80 => systems.at(hash(worker, 1)),
            80..97 => systems.at(hash(worker, 2)),
            _ => systems.draw(dice),
        };
        let system = &SYSTEMS[self.system];

        // Mostly one of the worker's own cases, sometimes anyone who calls. One piece of work in
        // twelve is about nobody in particular.
        let citizens = municipalities.citizens(municipality);
        let citizen = (!dice.one_in(12)).then(|| {
            let chance = if dice.percent(75) { hash(worker, 100 + dice.below(40)) } else { dice.bits() };
            Municipalities::citizen(municipality, skew(chance, citizens))
        });
        self.part = citizen.map_or(0, |citizen| wide_hash(citizen, 0x7061_7274));
        self.case = match citizen {
            Some(citizen) if system.style.cases => {
                wide_hash(hash(citizen, self.system as u64), dice.below(3) * dice.below(2))
            }
            _ => 0,
        };

        self.render_caller(municipalities.cvr(municipality), worker, municipality, system);
        self.render_origin(hash(worker, 3), hash(worker, 5), system);
        self.render_subject(dice, citizen, worker, municipality, system);
        self.agreement.clear();
        if !system.style.agreement.is_empty() && dice.percent(40) {
            let number = 100_000_000 + hash(municipality as u64, self.system as u64) % 900_000_000;
            put! { &mut self.agreement; (system.style.agreement) number }
        }
        self.service_agreement =
            uuid(wide_hash(municipality as u64, 0x6166_7400 + self.system as u64)).to_vec();
    }

    fn render_caller(&mut self, cvr: [u8; 8], worker: u64, municipality: usize, system: &System) {
        let out = &mut self.caller;
        out.clear();
        let owner = if system.style.shared { u64::MAX } else { municipality as u64 };
        let instance = uuid(wide_hash(owner, 0x6974_0000 + self.system as u64));
        put! { out; (uuid(wide_hash(worker, 0x7573_6572))) NEXT cvr NEXT instance }
    }

    fn render_origin(&mut self, desk: u64, name: u64, system: &System) {
        let out = &mut self.origin;
        out.clear();
        let address = [10, (desk >> 16) as u8, (desk >> 8) as u8, (desk % 254) as u8 + 1];
        match system.style.address {
            Address::Four => {
                let [a, b, c, d] = address.map(u64::from);
                put! { out; a "." b "." c "." d }
            }
            Address::Six => put! { out; "2001:db8:" (hex(&address[..2])) "::" (hex(&address[2..])) },
            Address::Integer => put! { out; (u64::from(u32::from_be_bytes(address))) },
        }
        put! { out; NEXT (&people::initials(name)) NEXT (system.name) }
    }

    fn render_subject(
        &mut self,
        dice: &mut Dice,
        citizen: Option<u64>,
        worker: u64,
        municipality: usize,
        system: &System,
    ) {
        let out = &mut self.subject;
        out.clear();
        match (citizen, system.style.citizen) {
            (Some(citizen), Citizen::Full) => put! { out; (people::cpr(citizen)) },
            (Some(citizen), Citizen::Masked) => put! { out; (people::masked_cpr(citizen)) },
            _ => {}
        }
        let known = |bits: u128| if bits != 0 { uuid(bits).to_vec() } else { Vec::new() };
        let task = if dice.percent(system.style.tasks) { dice.wide() } else { 0 };
        let team = hash(worker, 4) % 4 + 1;
        let unit = uuid(wide_hash(hash_text(system.area), municipality as u64 * 8 + team));
        put! { out;
            NEXT (known(self.case)) NEXT (known(self.part)) NEXT (known(task)) NEXT unit NEXT (system.area)
            ", team " team ", " (Municipalities::name(municipality)) " Kommune"
        }
    }

    /// Appends one call's row.
    fn call(&self, out: &mut Vec<u8>, dice: &mut Dice, moment: &Moment) {
        let system = &SYSTEMS[self.system];
        let service = dice.pick(system.services);

        out.push(b'"');
        let transaction = out.len();
        if system.style.uuids {
            put! { out; (uuid(dice.wide())) }
        } else {
            put! { out; (hex(dice.wide().to_be_bytes())) }
        }
        let transaction = transaction..out.len();
        put! { out; NEXT }
        match system.style.time {
            Time::Oracle => put! { out; (moment.oracle()) },
            Time::OracleTwelve => put! { out; (moment.oracle_twelve()) },
            Time::Iso => put! { out; (moment.millis()) },
            Time::Date => put! { out; (moment.date()) },
        }
        put! { out; NEXT (&self.caller) NEXT (uuid(dice.wide())) NEXT }
        if dice.percent(85) {
            out.extend_from_within(transaction);
        } else {
            put! { out; (uuid(dice.wide())) }
        }
        put! { out; NEXT (&self.agreement) NEXT }
        parameters::write(out, dice, service.parameters, self.part, self.case);
        put! { out;
            NEXT (system.package) "." (service.component) NEXT (&self.origin) NEXT (service.name) NEXT
            (dice.word(service.notes)) NEXT (&self.subject) NEXT
        }
        let failure = if dice.one_in(100) { dice.word(&FAILURES) } else { "" };
        put! { out; failure NEXT (self.service_agreement) "\"\n" }
    }
}
