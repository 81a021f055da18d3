//! Whether `::1` exists. Many programs reach `localhost` there, and IPv6 nodes their port mapper.

use std::net::{Ipv6Addr, UdpSocket};

use super::finding::Finding;

pub(super) fn check() -> Finding {
    judge(UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok())
}

fn judge(exists: bool) -> Finding {
    if exists {
        return Finding::pass("IPv6 loopback", "::1 exists");
    }
    Finding::warn(
        "IPv6 loopback",
        "::1 does not exist: nodes with -proto_dist inet6_tcp find no port mapper",
        "enable it (sysctl net.ipv6.conf.lo.disable_ipv6=0, ip addr add ::1/128 dev lo), or use IPv4 only",
    )
}
