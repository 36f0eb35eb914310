//! The metrics of the SFTP server.

use ::metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};

/// Gauge: accounts' connections that are signed in.
pub const SESSIONS: &str = "sporlog_sftp_sessions";
/// Counter: sign-ins, by `result`: `ok`, `refused` (a key), `crowd` (the account has too many connections),
/// `slow` (the client did not sign in in time).
pub const SIGN_INS: &str = "sporlog_sftp_sign_ins_total";
/// Counter: connections rejected before the SSH handshake, by `reason`: `crowd` (too many connections),
/// `keys` (too many refused keys).
pub const TURNED_AWAY: &str = "sporlog_sftp_turned_away_total";
/// Counter: bytes of files, by `direction`: `up`, `down`.
pub const BYTES: &str = "sporlog_sftp_bytes_total";
/// Counter: files transferred, by `direction` and `outcome`: `complete`, `partial`.
pub const TRANSFERS: &str = "sporlog_sftp_transfers_total";
/// Counter: rows of the access log that could not be written.
pub const UNRECORDED: &str = "sporlog_sftp_unrecorded_total";

/// Describes the metrics to the exporter.
pub fn describe() {
    describe_gauge!(SESSIONS, "Connections of accounts that are signed in");
    describe_counter!(SIGN_INS, "Sign-ins over SFTP, by result");
    describe_counter!(TURNED_AWAY, "Connections rejected before the SSH handshake, by reason");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of files over SFTP, by direction");
    describe_counter!(TRANSFERS, "Files transferred over SFTP, by direction and outcome");
    describe_counter!(UNRECORDED, "Rows about SFTP that the access log did not take");
}

/// Counters that are incremented with each packet, looked up once.
pub(super) struct Meters {
    pub up: Counter,
    pub down: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        Meters { up: counter!(BYTES, "direction" => "up"), down: counter!(BYTES, "direction" => "down") }
    }
}

/// Counts a signed-in connection as long as it lives.
pub(super) struct SessionGauge(());

impl SessionGauge {
    pub(super) fn new() -> Self {
        gauge!(SESSIONS).increment(1);
        counter!(SIGN_INS, "result" => "ok").increment(1);
        SessionGauge(())
    }
}

impl Drop for SessionGauge {
    fn drop(&mut self) {
        gauge!(SESSIONS).decrement(1);
    }
}

/// Counts a transfer that has ended.
pub(super) fn transferred(direction: &'static str, complete: bool) {
    let outcome = if complete { "complete" } else { "partial" };
    counter!(TRANSFERS, "direction" => direction, "outcome" => outcome).increment(1);
}
