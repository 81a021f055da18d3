//! Which addresses are listened on.

use std::net::IpAddr;

use super::Finding;
use crate::control::api::Status;

const CHECK: &str = "bind";

pub(super) fn judge(configured: &[IpAddr], status: Option<&Status>) -> Finding {
    let Some(status) = status else { return Finding::unasked(CHECK) };
    let ips: Vec<IpAddr> = status.listening.iter().map(|address| address.ip()).collect();
    let listed: Vec<String> = status.listening.iter().map(ToString::to_string).collect();
    let everywhere = ips.iter().any(IpAddr::is_unspecified);
    let missing: Vec<String> = configured
        .iter()
        .filter(|ip| !ips.contains(ip) && !everywhere && !ips.is_empty())
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Finding::warn(
            CHECK,
            format!("the configuration names {}, which the daemon does not listen on", missing.join(", ")),
            "restart the daemon: pmd stop, then pmd start",
        );
    }
    if !ips.is_empty() && ips.iter().all(IpAddr::is_loopback) {
        return Finding::warn(
            CHECK,
            format!("only loopback addresses are listened on ({})", listed.join(", ")),
            "add an address of this host to bind, unless other hosts are not meant to reach it",
        );
    }
    match listed.as_slice() {
        [] => Finding::pass(CHECK, "listens on sockets of a supervisor"),
        listed => Finding::pass(CHECK, format!("listens on {}", listed.join(", "))),
    }
}
