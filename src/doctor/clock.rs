//! Clocks, as far as members tell: when each of them was started, by its own clock.
//!
//! A member that was started later than now has a clock that is ahead of this host's. One that is behind shows itself
//! on the other hosts only, or here in that all others are ahead.

use std::time::Duration;

use jiff::Timestamp;

use super::Finding;
use crate::control::api::NodeList;
use crate::text::span;

const CHECK: &str = "clock";
/// Certificates are issued to be valid from an hour ago; well below that nothing breaks, and logs still compare.
const ALLOWED: Duration = Duration::from_secs(5);

pub(super) fn judge(now: Timestamp, members: Option<&NodeList>) -> Finding {
    let Some(members) = members else { return Finding::unasked(CHECK) };
    let ahead = |started: Timestamp| u64::try_from(started.as_second() - now.as_second()).unwrap_or(0);
    let worst = members.nodes.iter().map(|node| (ahead(node.started_at), node)).max_by_key(|(by, _)| *by);
    match worst {
        Some((by, node)) if by > ALLOWED.as_secs() => Finding::fail(
            CHECK,
            format!("the clock of {} is at least {} ahead of this one", node.host, span(by)),
            "set both clocks by NTP (timedatectl set-ntp true) and restart the daemon that was wrong",
        ),
        _ => Finding::pass(CHECK, "no member was started in the future of this host's clock"),
    }
}
