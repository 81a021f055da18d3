//! Whether others were not let in.

use super::Finding;
use crate::daemon::counters::Counts;

const CHECK: &str = "refused daemons";

pub(super) fn judge(counts: Option<&Counts>) -> Finding {
    let Some(counts) = counts else { return Finding::unasked(CHECK) };
    if counts.handshakes_cookie > 0 {
        return Finding::warn(
            CHECK,
            format!(
                "{} times since the daemon started, one with another cookie was not let in",
                counts.handshakes_cookie
            ),
            "copy the cookie file to the host that the log names (pmd cookie path), then pmd reload there",
        );
    }
    let others = [
        (counts.handshakes_tls, "certificate that is not accepted", "pmd ca show FILE on that host"),
        (
            counts.handshakes_foreign,
            "cluster name or version that is another one",
            "pmd status on both hosts",
        ),
        (counts.handshakes_identity, "name or key that is not its own", "the log, which says whose"),
    ];
    for (count, whose, see) in others {
        if count > 0 {
            return Finding::warn(
                CHECK,
                format!("{count} times since the daemon started, another was not let in: {whose}"),
                format!("see {see}"),
            );
        }
    }
    Finding::pass(CHECK, "nobody was refused since the daemon started")
}
