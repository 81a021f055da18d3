//! The limit of open file descriptors. Every registered node needs one.

use rustix::process::{Resource, getrlimit};

use super::finding::Finding;
use crate::control::api::Status;

const CHECK: &str = "descriptors";
/// Warn below this limit.
const FEW: u64 = 4096;

pub(super) fn check(status: Option<&Status>) -> Finding {
    // The daemon raises its own limit to the hard one.
    let own = || getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    judge(status.map_or_else(own, |status| u64::try_from(status.descriptors.limit).unwrap_or(u64::MAX)))
}

fn judge(limit: u64) -> Finding {
    if limit < FEW {
        return Finding::warn(
            CHECK,
            format!("only {limit} file descriptors may be open, and every node needs one"),
            "raise the limit (LimitNOFILE of systemd, ulimit -Hn) and restart the daemon",
        );
    }
    Finding::pass(CHECK, format!("{limit} may be open"))
}
