//! A time: what is understood is written and understood again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sporlog_record::time::{format_local, parse_iso, parse_local};

fuzz_target!(|text: &str| {
    if let Ok(micros) = parse_local(text) {
        assert_eq!(parse_iso(&format_local(micros)), Ok(micros));
    }
    let _ = parse_iso(text);
});
