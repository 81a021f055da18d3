//! Whether this host's name leads to an address of this host.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use super::Finding;

const CHECK: &str = "name to address";
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn check(host: &str) -> Finding {
    let found = match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    judge(host, found, |ip| UdpSocket::bind((ip, 0)).is_ok())
}

/// `own` tells whether an address is one of this host.
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
    let strange: Vec<String> = found.iter().filter(|ip| !own(**ip)).map(ToString::to_string).collect();
    if !strange.is_empty() {
        return Finding::fail(
            CHECK,
            format!("{host} resolves to {}, which is no address of this host", strange.join(", ")),
            "correct the entry in /etc/hosts or the DNS",
        );
    }
    let mut listed: Vec<String> = found.iter().map(ToString::to_string).collect();
    listed.sort();
    listed.dedup();
    Finding::pass(CHECK, format!("{host} resolves to {}", listed.join(", ")))
}
