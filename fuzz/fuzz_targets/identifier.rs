//! Identifiers and masking: no panic, and no run of ten digits survives masking.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sporlog_record::identifier::{
    cpr, cvr, fodselsnummer, is_ip_or_integer, is_uuid, mask_text, organisasjonsnummer,
};

fuzz_target!(|text: &str| {
    let _ = (fodselsnummer::is_valid(text), organisasjonsnummer::is_valid(text), cvr::is_valid(text));
    let _ = (cpr::is_masked_or_plain(text), cpr::is_date_plausible(text));
    let _ = (is_uuid(text.as_bytes()), is_ip_or_integer(text));
    let masked = mask_text(text);
    let runs = masked.split(|c: char| !c.is_ascii_digit()).map(str::len);
    assert!(!runs.into_iter().any(|n| n == 10 || n == 11), "a personal number is left in a masked text");
});
