//! Whether `::1` is there: what `localhost` means to many programs, and where IPv6 nodes ask their port mapper.

use std::net::{Ipv6Addr, UdpSocket};

use super::Finding;

pub(super) fn check() -> Finding {
    judge(UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok())
}

fn judge(there: bool) -> Finding {
    if there {
        return Finding::pass("IPv6 loopback", "::1 is there");
    }
    Finding::warn(
        "IPv6 loopback",
        "::1 is not there: nodes with -proto_dist inet6_tcp find no port mapper",
        "enable it (sysctl net.ipv6.conf.lo.disable_ipv6=0, ip addr add ::1/128 dev lo), or use IPv4 only",
    )
}
