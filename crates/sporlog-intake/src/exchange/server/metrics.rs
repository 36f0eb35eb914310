//! What is counted about the server.

use ::metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};

/// Gauge: accounts' connections that are signed in.
pub const SESSIONS: &str = "sporlog_sftp_sessions";
/// Counter: sign-ins, by `result`: `ok`, `refused` (a key), `crowd` (the account has too many connections),
/// `slow` (nobody signed in in time).
pub const SIGN_INS: &str = "sporlog_sftp_sign_ins_total";
/// Counter: connections turned away before they were heard, by `reason`: `crowd`, `keys`.
pub const TURNED_AWAY: &str = "sporlog_sftp_turned_away_total";
/// Counter: bytes of files, by `direction`: `up`, `down`.
pub const BYTES: &str = "sporlog_sftp_bytes_total";
/// Counter: files transferred, by `direction` and `outcome`: `complete`, `partial`.
pub const TRANSFERS: &str = "sporlog_sftp_transfers_total";
/// Counter: rows of the access log that could not be written.
pub const UNRECORDED: &str = "sporlog_sftp_unrecorded_total";

/// Says what each is.
pub fn describe() {
    describe_gauge!(SESSIONS, "Connections of accounts that are signed in");
    describe_counter!(SIGN_INS, "Sign-ins over SFTP, by result");
    describe_counter!(TURNED_AWAY, "Connections turned away before they were heard, by reason");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of files over SFTP, by direction");
    describe_counter!(TRANSFERS, "Files transferred over SFTP, by direction and outcome");
    describe_counter!(UNRECORDED, "Rows about SFTP that the access log did not take");
}

/// The counters that each packet would otherwise have to look up.
pub(super) struct Meters {
    pub up: Counter,
    pub down: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        Meters { up: counter!(BYTES, "direction" => "up"), down: counter!(BYTES, "direction" => "down") }
    }
}

/// A session that is counted as long as it lives.
pub(super) struct Session(());

impl Session {
    pub(super) fn new() -> Self {
        gauge!(SESSIONS).increment(1);
        counter!(SIGN_INS, "result" => "ok").increment(1);
        Session(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        gauge!(SESSIONS).decrement(1);
    }
}

/// A transfer has ended.
pub(super) fn transferred(direction: &'static str, complete: bool) {
    let outcome = if complete { "complete" } else { "partial" };
    counter!(TRANSFERS, "direction" => direction, "outcome" => outcome).increment(1);
}
