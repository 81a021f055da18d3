//! Whether this host's name resolves to one of its addresses and, for long names, whether the address resolves back.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::finding::Finding;

const CHECK: &str = "name to address";
const BACK: &str = "address to name";
const TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses that are resolved back to names.
const MAX_ADDRESSES: usize = 8;

pub(super) async fn check(host: &str) -> Vec<Finding> {
    let found = match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect::<Vec<IpAddr>>()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    };
    let own = |ip| UdpSocket::bind((ip, 0)).is_ok();
    // Not for short names, for which the DNS may have a longer one.
    let asked: Vec<IpAddr> = match &found {
        Ok(found) if host.contains('.') => found.iter().copied().filter(|ip| own(*ip)).collect(),
        _ => Vec::new(),
    };
    let mut findings = vec![judge(host, found, own)];
    findings.extend(judge_back(host, &names_of(asked).await));
    findings
}

/// The names of these addresses; addresses without a name are omitted.
async fn names_of(mut addresses: Vec<IpAddr>) -> Vec<(IpAddr, String)> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    let ask = |ip: IpAddr| tokio::task::spawn_blocking(move || name_of(ip).map(|name| (ip, name)));
    let asked = futures_util::future::join_all(addresses.into_iter().map(ask));
    let named = tokio::time::timeout(TIMEOUT, asked).await.unwrap_or_default();
    named.into_iter().filter_map(|answer| answer.ok().flatten()).collect()
}

fn name_of(ip: IpAddr) -> Option<String> {
    let (name, _) = dns_lookup::getnameinfo(&SocketAddr::new(ip, 0), 0).ok()?;
    // For an address without a name, the resolver returns the address itself.
    let numeric = name.split('%').next().is_some_and(|name| name.parse::<IpAddr>().is_ok());
    (!numeric).then(|| name.trim_end_matches('.').to_owned())
}

/// `own` tells whether an address belongs to this host.
fn judge(host: &str, found: Result<Vec<IpAddr>, String>, own: impl Fn(IpAddr) -> bool) -> Finding {
    let found = match found {
        Ok(found) => found,
        Err(_) => {
            return Finding::fail(
                CHECK,
                format!("the name of this host, {host}, does not resolve"),
                format!("add {host} with an address of this host to /etc/hosts or the DNS"),
            );
        }
    };
    let foreign: Vec<String> = found.iter().filter(|ip| !own(**ip)).map(ToString::to_string).collect();
    if !foreign.is_empty() {
        return Finding::fail(
            CHECK,
            format!("{host} resolves to {}, which is not an address of this host", foreign.join(", ")),
            "correct the entry in /etc/hosts or the DNS",
        );
    }
    let mut listed: Vec<String> = found.iter().map(ToString::to_string).collect();
    listed.sort();
    listed.dedup();
    Finding::pass(CHECK, format!("{host} resolves to {}", listed.join(", ")))
}

/// `named` holds the addresses of `host` that have a name. A short `host` has no finding.
fn judge_back(host: &str, named: &[(IpAddr, String)]) -> Option<Finding> {
    if !host.contains('.') {
        return None;
    }
    let Some((ip, other)) = named.iter().find(|(_, name)| !name.eq_ignore_ascii_case(host)) else {
        let what = match named {
            [] => format!("no address of {host} has a name; none is needed"),
            named => {
                let listed: Vec<String> = named.iter().map(|(ip, _)| ip.to_string()).collect();
                format!("{} resolves back to {host}", listed.join(", "))
            }
        };
        return Some(Finding::pass(BACK, what));
    };
    let short = host.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case(other));
    let remedy = if short {
        format!("put the long name first in /etc/hosts: {ip} {host} {other}")
    } else {
        format!("correct the entry of {ip} in /etc/hosts or its PTR record, or set host_name = \"{other}\"")
    };
    let what = format!(
        "{host} resolves to {ip}, which resolves back to {other}: programs see two names for this host"
    );
    Some(Finding::warn(BACK, what, remedy))
}
