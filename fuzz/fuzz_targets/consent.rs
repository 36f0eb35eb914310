//! A consent token: decoded and judged without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sporlog_record::consent::{Disclosure, judge};
use sporlog_record::jose::KeySet;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (token, keys) = text.split_once('\n').unwrap_or((text, ""));
    let keys = KeySet::from_jwks(keys.as_bytes()).ok();
    let disclosure = Disclosure {
        person: "01810112345",
        mottaker: "123456789",
        leverandoer: Some("987654321"),
        uthentings_tidspunkt: Some(1_700_000_000_000_000),
    };
    judge(token, &disclosure, keys.as_ref());
});
