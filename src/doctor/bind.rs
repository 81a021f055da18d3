//! Whether the daemon listens on the configured addresses.

use std::net::{IpAddr, SocketAddr};

use super::finding::Finding;
use crate::control::api::Status;

const CHECK: &str = "bind";

pub(super) fn judge(configured: &[IpAddr], status: Option<&Status>) -> Finding {
    status.map_or_else(|| Finding::unchecked(CHECK), |status| compare(configured, &status.listening))
}

fn compare(configured: &[IpAddr], listening: &[SocketAddr]) -> Finding {
    let ips: Vec<IpAddr> = listening.iter().map(SocketAddr::ip).collect();
    let listed: Vec<String> = listening.iter().map(ToString::to_string).collect();
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
    if everywhere && !configured.is_empty() && !configured.iter().any(IpAddr::is_unspecified) {
        return Finding::warn(
            CHECK,
            format!(
                "the configuration names specific addresses, but the daemon listens on {}",
                listed.join(", ")
            ),
            "restart the daemon; if systemd opens the port, set ListenStream= in its socket unit",
        );
    }
    if !ips.is_empty() && ips.iter().all(IpAddr::is_loopback) {
        return Finding::warn(
            CHECK,
            format!("the daemon listens only on loopback addresses ({})", listed.join(", ")),
            "add an address of this host to bind if other hosts should reach it",
        );
    }
    match listed.as_slice() {
        [] => Finding::pass(CHECK, "listens on sockets inherited from a supervisor"),
        listed => Finding::pass(CHECK, format!("listens on {}", listed.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn listening_on_other_addresses_than_configured_is_a_warning() {
        let one: &[IpAddr] = &["10.0.0.1".parse().expect("an address")];
        for (configured, addresses, expected) in [
            (one, vec!["10.0.0.1:4369", "127.0.0.1:4369"], None),
            (&[], vec!["0.0.0.0:4369", "[::]:4369"], None),
            (one, vec!["0.0.0.0:4369"], Some("specific addresses")),
            (one, vec!["10.0.0.2:4369"], Some("does not listen on")),
            (&[], vec!["127.0.0.1:4369"], Some("only on loopback")),
        ] {
            let finding = compare(configured, &listening(&addresses));
            assert_eq!(finding.remedy.is_some(), expected.is_some(), "{finding:?}");
            assert!(expected.is_none_or(|expected| finding.what.contains(expected)), "{finding:?}");
        }
    }
}
