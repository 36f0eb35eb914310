//! `leverteData`: what was handed out, as JSON. Incomes by month, or benefits by period.

use chrono::{Datelike, Days, Months, NaiveDate};

use crate::chance::Dice;
use crate::people;
use crate::text::{digits, put};

const INCOMES: [&str; 8] = [
    "fastloenn",
    "timeloenn",
    "overtidsgodtgjoerelse",
    "feriepenger",
    "fastTillegg",
    "bonus",
    "elektroniskKommunikasjon",
    "sluttvederlag",
];
const STATES: [&str; 4] = ["LOEPENDE", "UTBETALT", "OPPHOERT", "INNVILGET"];

/// One answer in so many is very large.
const LARGE: u64 = 1_500;

/// Appends an answer about `tema`, with everything up to `day`.
pub(crate) fn write(out: &mut Vec<u8>, dice: &mut Dice, tema: &str, day: NaiveDate, employer: u64) {
    let entries = if dice.one_in(LARGE) {
        dice.within(400, 700)
    } else {
        // Mostly a few, seldom two years and more.
        1 + dice.below(4) + if dice.percent(22) { dice.below(22) } else { 0 }
    };
    put! { out;
        "{\"versjon\":\"2.1\",\"referanse\":\"" (&digits::<12>(dice.bits())) "\",\"tema\":\"" tema
        "\",\"uttrekksdato\":\"" (day.to_string())
    }
    if tema == "INK" || tema == "OPP" {
        put! { out; "\",\"arbeidsinntekt\":[" }
        each(out, entries, |out, nth| income(out, dice, nth, day, employer));
    } else {
        put! { out; "\",\"ytelser\":[" }
        each(out, entries, |out, nth| benefit(out, dice, tema, nth, day));
    }
    put! { out; "]}" }
}

fn each(out: &mut Vec<u8>, count: u64, mut entry: impl FnMut(&mut Vec<u8>, u64)) {
    for nth in 0..count {
        if nth > 0 {
            out.push(b',');
        }
        entry(out, nth);
    }
}

fn income(out: &mut Vec<u8>, dice: &mut Dice, nth: u64, day: NaiveDate, employer: u64) {
    let month = day.checked_sub_months(Months::new(nth as u32 % 120 + 1)).unwrap_or(day);
    put! { out;
        "{\"aarMaaned\":\"" (month.format("%Y-%m").to_string()) "\",\"opplysningspliktig\":\""
        (&people::organisasjonsnummer(1_000 + employer))
        "\",\"inntektstype\":\"LOENNSINNTEKT\",\"beskrivelse\":\"" (dice.word(&INCOMES)) "\",\"beloep\":"
        (dice.within(2_500, 78_000)) ".00}"
    }
}

fn benefit(out: &mut Vec<u8>, dice: &mut Dice, tema: &str, nth: u64, day: NaiveDate) {
    let until = day.checked_sub_days(Days::new(nth % 200 * 28 + dice.below(20))).unwrap_or(day);
    let from = until.checked_sub_days(Days::new(27)).unwrap_or(until);
    put! { out;
        "{\"ytelse\":\"" tema "\",\"fom\":\"" (from.to_string()) "\",\"tom\":\"" (until.to_string()) "\",\"grad\":"
        (20 * dice.within(1, 5)) ",\"dagsats\":" (dice.within(310, 2_950)) ",\"status\":\""
        (dice.word(&STATES)) "\",\"regelverksaar\":" (u64::from(from.year().unsigned_abs())) "}"
    }
}
