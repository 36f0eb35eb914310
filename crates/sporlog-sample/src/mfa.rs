//! MFA logs: log-ins of a municipality's staff that are confirmed on a telephone or with a key.

use crate::chance::{Dice, hash};
use crate::clock::{Clock, Moment};
use crate::text::put;
use crate::{Options, people};

const CLIENTS: [&str; 5] = ["ANDROID", "IOS", "CHROME", "WINDOWS", "YUBIKEY"];
const STATUS: [&str; 8] =
    ["ACCEPTED", "ACCEPTED", "ACCEPTED", "ACCEPTED", "ACCEPTED", "ACCEPTED", "REJECTED", "NOT_RESPONDED"];

/// The records of an MFA log.
pub(crate) struct Source {
    dice: Dice,
    clock: Clock,
    staff: u64,
    id: u64,
}

impl Source {
    /// The source of a sample.
    pub(crate) fn new(options: &Options, clock: Clock) -> Self {
        let staff = (options.records / 30).clamp(40, 30_000);
        Source { dice: Dice::new(options.seed, 0), clock, staff, id: 0 }
    }
}

impl crate::Source for Source {
    fn record(&mut self, out: &mut Vec<u8>) {
        let dice = &mut self.dice;
        let moment = self.clock.next(dice);
        // Ids skip by what the cluster's other nodes have taken.
        self.id += dice.within(1, 3);
        let person = dice.skewed(self.staff);
        let device = hash(person, 0x6d66_6100);
        let status = *dice.pick(&STATUS);
        let initials = people::initials(hash(person, 5)).map(|byte| byte.to_ascii_lowercase());
        put! { out; "{\"id\":" (self.id) ",\"clientType\":\"" (*CLIENTS.get(device as usize % 5).unwrap_or(&"IOS"))
        "\",\"createdTts\":\"" (spaced(&moment)) "\",\"deviceId\":\"" (100 + device % 900) "-" (100 + device / 7 % 900)
        "-" (100 + device / 49 % 900) "-" (100 + device / 343 % 900) "\"" }
        for name in ["fetchTts", "pushTts"] {
            put! { out; ",\"" name "\":\"" (spaced(&moment)) "\"" }
        }
        match status {
            "NOT_RESPONDED" => put! { out; ",\"responseTts\":null" },
            _ => put! { out; ",\"responseTts\":\"" (spaced(&moment)) "\"" },
        }
        put! { out; ",\"status\":\"" status "\",\"systemName\":\"OS2faktor Login\",\"username\":\"" (&initials) "\"}\n" }
    }
}

/// `2026-11-03 06:50:55`.
fn spaced(moment: &Moment) -> String {
    moment.seconds().replacen('T', " ", 1)
}
