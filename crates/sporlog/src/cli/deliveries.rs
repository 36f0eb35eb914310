//! What `sporlog deliveries` takes.

use chrono::NaiveDate;
use clap::Args;

use crate::timerange::parse_date;

/// Show which suppliers have delivered, and which are late.
///
/// Prints a line for each supplier of [sftp]: whether it is on time, when its last accepted file was
/// taken, that file's rows, how many rows a day usually has at least and at most, the rows refused of its
/// newest file in percent, files refused whole within 35 days, and remarks: since when a delivery is
/// missing, a day with an unusual volume, a newest file that was refused.
///
/// A daily supplier is late 12 hours after a UTC day on which nothing came, a weekly one 24 hours after
/// seven such days; an irregular one never is. It is late since the moment that the delivery was due, which
/// is the end of that day or of these seven. A supplier that has never delivered has as long, from the day on
/// which Sporlog made its folders; before that, nothing is expected of it, unless there is no folder of the
/// exchange at all. Only accepted files count: one that was refused, or that had come before, does not.
///
/// A volume is low with less than a third, and high with more than three times, the median of the last eight
/// days of the same weekday. All files of a day count together. With fewer than four such days, nothing is said.
///
/// With --late, only suppliers are printed of which a delivery is missing, and the exit code is 1 if there
/// is any (0 if not, 2 if it cannot be found out), so that it may be run by cron, or as a Nagios plugin.
/// With --list, each delivery is printed on a line, the newest first. With --json, each supplier or delivery is
/// an object on a line, with more than is printed here: what came in the last 35 days, and which numbers a
/// volume was compared with. No rows are shown, so this leaves nothing in the log `access`.
#[derive(Debug, Args)]
#[command(after_help = super::examples::DELIVERIES)]
pub struct DeliveriesArgs {
    /// Only suppliers of which a delivery is missing; exit with 1 if there is any
    #[arg(long)]
    pub late: bool,
    /// Only this supplier; again for more
    #[arg(short, long = "account", value_name = "NAME")]
    pub accounts: Vec<String>,
    /// Print the deliveries themselves, the newest first
    #[arg(long, conflicts_with = "late")]
    pub list: bool,
    /// With --list: only what was taken on this day (UTC) or later
    #[arg(long, value_name = "DATE", value_parser = parse_date, requires = "list")]
    pub since: Option<NaiveDate>,
}
