//! How what is told looks, for the API's description.
#![allow(dead_code, non_snake_case, reason = "it describes what is written elsewhere")]

use utoipa::ToSchema;

/// A file that was delivered, and what became of it.
#[derive(ToSchema)]
pub struct Delivery {
    /// Its id.
    #[schema(example = "20261103T061500Z-5f0c9ab1")]
    delivery: String,
    /// The supplier; for a file that came by HTTP, `http:` and the name of the key or of the token's client.
    account: String,
    /// The file's name; what is not printable in it is escaped.
    file: String,
    /// The log that its rows are in.
    log: String,
    /// What was decided: `accepted`, `repeated` (the same bytes had come before) or `refused`.
    #[schema(pattern = "^(accepted|repeated|refused)$")]
    outcome: String,
    /// When it was taken, RFC 3339.
    #[schema(format = DateTime)]
    takenAt: String,
    /// When its rows were received into the log.
    #[schema(required = false, format = DateTime)]
    receivedAt: String,
    /// The file's size.
    bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    #[schema(required = false)]
    sha256: String,
    /// Rows stored.
    accepted: u64,
    /// Rows refused.
    quarantined: u64,
    /// Remarks on stored rows.
    remarks: u64,
    /// Rows that had come before, in other files.
    overlapping: u64,
    /// Of these, how many were not stored again.
    skipped: u64,
    /// The first stored row's id.
    #[schema(required = false, minimum = 1)]
    firstId: u64,
    /// The last stored row's id.
    #[schema(required = false, minimum = 1)]
    lastId: u64,
    /// The delivery that had the same bytes.
    #[schema(required = false, value_type = Object)]
    repeats: (),
    /// The deliveries that rows of this one had come in.
    #[schema(required = false, value_type = Vec<Object>)]
    overlaps: (),
    /// Remarks on the file as a whole.
    #[schema(required = false, value_type = Vec<Object>)]
    fileRemarks: (),
    /// Why the file was refused whole.
    #[schema(required = false, value_type = Vec<Object>)]
    refused: (),
    /// The refused rows: `line`, `column`, `field`, `rule`, `text`, and the row's `TransaktionsId`; the first 10,000 of
    /// these notes. Only in the answer to the file itself.
    #[schema(required = false, value_type = Vec<Object>)]
    quarantinedRows: (),
    /// The remarks on accepted rows, in the same shape; the first 10,000 of them. Only in the answer to the file itself.
    #[schema(required = false, value_type = Vec<Object>)]
    remarkedRows: (),
    /// What the file's records are. Only in the answer to the file itself.
    #[schema(required = false)]
    kind: String,
    /// Since when the same bytes have been there. Only in the answer to the file itself.
    #[schema(required = false, format = DateTime)]
    alreadySince: String,
    /// From the moment that it was taken to its receipt.
    seconds: f64,
}

/// A supplier, and how it stands.
#[derive(ToSchema)]
pub struct Supplier {
    /// Its account.
    account: String,
    /// How often it is expected to deliver.
    #[schema(pattern = "^(daily|weekly|irregular)$")]
    rhythm: String,
    /// Whether it does.
    #[schema(pattern = "^(on-time|late|never)$")]
    state: String,
    /// When its next delivery has to be there; absent if none is expected.
    #[schema(required = false, format = DateTime)]
    due: String,
    /// Since when a delivery is missing: since it was due; of one who never delivered, since Sporlog made its
    /// folders. Absent if none is missing.
    #[schema(required = false, format = DateTime)]
    lateSince: String,
    /// What is missing.
    #[schema(required = false)]
    missing: Missing,
    /// The newest file, whatever became of it.
    #[schema(required = false)]
    last: Delivered,
    /// The newest file that was accepted: only this one counts.
    #[schema(required = false)]
    lastAccepted: Delivered,
    /// Rows refused for each row of the newest file that had not come before; 1 if it was refused whole.
    #[schema(required = false, minimum = 0, maximum = 1)]
    errorRate: f64,
    /// The last 35 days, all together.
    recent: Recent,
    /// Whether its newest day brought as many rows as usual.
    volume: VolumeVerdict,
}

/// Deliveries that did not come.
#[derive(ToSchema)]
pub struct Missing {
    /// The first day that nothing came on, in UTC.
    #[schema(format = Date)]
    from: String,
    /// The last day of the periods that are over.
    #[schema(format = Date)]
    to: String,
    /// How many should have come.
    #[schema(minimum = 1)]
    deliveries: u64,
}

/// A delivery, in short.
#[derive(ToSchema)]
pub struct Delivered {
    /// Its id.
    delivery: String,
    /// The file's name.
    file: String,
    /// What was decided.
    #[schema(pattern = "^(accepted|repeated|refused)$")]
    outcome: String,
    /// When it was taken.
    #[schema(format = DateTime)]
    takenAt: String,
    /// Its rows, as delivered.
    rows: u64,
    /// Its size.
    bytes: u64,
    /// Rows of it that were refused.
    quarantined: u64,
}

/// What came within some days.
#[derive(ToSchema)]
pub struct Recent {
    /// How many days.
    days: u64,
    /// Files.
    deliveries: u64,
    /// Files that were accepted.
    accepted: u64,
    /// Files that had come before.
    repeated: u64,
    /// Files that were refused whole.
    refused: u64,
    /// Rows of the accepted ones, as delivered.
    rows: u64,
    /// Bytes of the accepted ones.
    bytes: u64,
    /// Rows of the accepted ones that were refused.
    quarantined: u64,
    /// Rows refused for each row of the accepted ones.
    #[schema(required = false, minimum = 0, maximum = 1)]
    errorRate: f64,
}

/// Whether a supplier's newest day brought as many rows as usual.
#[derive(ToSchema)]
pub struct VolumeVerdict {
    /// `low`: less than a third of the median; `high`: more than three times the median; `unknown`: there
    /// are fewer than four days to compare with.
    #[schema(pattern = "^(usual|low|high|unknown)$")]
    volume: String,
    /// The day that was judged, in UTC.
    #[schema(required = false, format = Date)]
    day: String,
    /// The rows of that day.
    #[schema(required = false)]
    rows: u64,
    /// What the day was compared with.
    #[schema(required = false)]
    usual: UsualVolume,
    /// What is unusual, in words.
    #[schema(required = false)]
    text: String,
}

/// What a day is compared with, in rows.
#[derive(ToSchema)]
pub struct UsualVolume {
    /// How many earlier days of the same weekday, eight at most.
    days: u64,
    /// The median of their rows.
    median: u64,
    /// Fewer than this are low.
    low: u64,
    /// More than this are high.
    high: u64,
}
