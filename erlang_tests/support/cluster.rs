//! Hosts that know each other through pmd alone: no DNS, nothing in `/etc/hosts`, and firewalls between them.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::mapper::{Daemon, Mapper};
use super::node::{self, Node};
use crate::harness::netns::{Host, Lan};
use crate::harness::wait_until;

/// What the firewall of a host lets in: established connections, and pmd's one port.
const FIREWALL: &str = "table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        meta l4proto { icmp, ipv6-icmp } accept
        ct state established,related accept
        tcp dport 4369 accept
    }
}";

/// Hosts of these names that no resolver knows, each behind a firewall, with one cluster secret.
pub fn islands<const N: usize>(lan: &Lan, names: [&str; N]) -> [Host; N] {
    let hosts = super::hosts(lan, names);
    for host in &hosts {
        // A host knows its own name.
        let own = format!("127.0.0.1 localhost\n::1 localhost\n{} {}\n", host.ip, host.name);
        fs::write(host.dir().join("hosts"), own).expect("a hosts file");
        fs::create_dir_all(host.pmd_home()).expect("a home for pmd");
        let cookie = host.pmd_home().join("cookie");
        fs::write(&cookie, format!("{}\n", "c0".repeat(32))).expect("a cookie");
        fs::set_permissions(&cookie, Permissions::from_mode(0o600)).expect("its mode");
        firewall(host, FIREWALL);
    }
    hosts
}

/// Applies nftables rules on a host.
pub fn firewall(host: &Host, rules: &str) {
    let file = host.dir().join("firewall");
    fs::write(&file, rules).expect("writing the rules");
    let output = Command::new("ip")
        .args(["netns", "exec", host.netns.name(), "nft", "-f"])
        .arg(&file)
        .output()
        .expect("the tests need `nft` of nftables");
    assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes a configuration file for a daemon that is started later.
pub fn configure(host: &Host, toml: &str) {
    fs::write(host.pmd_home().join("pmd.toml"), toml).expect("writing the configuration");
}

/// Starts pmd, also when the run tests stock epmd, which knows no other hosts.
pub fn start(host: &Host) -> Daemon {
    Daemon::start_as(Mapper::Pmd, host)
}

/// Starts pmd on every host, and makes all others join the first.
pub fn cluster<const N: usize>(hosts: &[Host; N]) -> [Daemon; N] {
    let daemons = std::array::from_fn(|number| start(&hosts[number]));
    for host in hosts.iter().skip(1) {
        join(host, &hosts[0]);
    }
    wait_for_members(hosts);
    daemons
}

/// Makes one daemon join another.
pub fn join(host: &Host, other: &Host) {
    let body = format!("{{\"addresses\":[\"{}\"]}}", other.ip);
    let answer = api(host, "POST", "/v1/join", &body);
    assert!(answer["peers"].is_array(), "{} cannot join {}: {answer:#}", host.name, other.name);
}

/// Waits until every host can resolve all others.
pub fn wait_for_members<const N: usize>(hosts: &[Host; N]) {
    for host in hosts {
        // Nobody has read the file so far, so the daemon has not written it yet.
        api(host, "GET", "/v1/tunnels?for=node", "");
        wait_until(&format!("the others in the hosts file of {}", host.name), || {
            let text = fs::read_to_string(hosts_file(host)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            hosts
                .iter()
                .filter(|other| other.name != host.name)
                .all(|other| lines.iter().any(|line| line.split(' ').skip(1).any(|name| name == other.name)))
        });
    }
}

/// The hosts file that pmd keeps.
pub fn hosts_file(host: &Host) -> PathBuf {
    host.pmd_home().join("hosts-4369")
}

/// The value of `ERL_AFLAGS` on a host.
pub fn flags(host: &Host) -> String {
    let folder = host.pmd_home().join("erlang-4369");
    format!("-mode interactive -pa {} -epmd_module pmd_epmd", folder.display())
}

/// The value of `ERL_INETRC` on a host.
pub fn inetrc(host: &Host) -> PathBuf {
    host.pmd_home().join("erl_inetrc-4369")
}

/// `erl` on a host, with the variables that `pmd env` prints.
pub fn erl(host: &Host) -> Command {
    let mut command = node::erl(host);
    command.env("ERL_AFLAGS", flags(host)).env("PMD_HOSTS_FILE", hosts_file(host));
    command
}

/// `erl` on a host, with the variable that `pmd env --resolver-only` prints.
pub fn erl_with_resolver(host: &Host) -> Command {
    let mut command = node::erl(host);
    command.env("ERL_INETRC", inetrc(host));
    command
}

/// A node that resolves other hosts through pmd.
pub fn node(host: &Host, args: &[&str]) -> Node {
    let mut command = erl(host);
    command.args(args);
    Node::spawn(command)
}

/// Sends one request to the control socket of a host's daemon; returns the JSON response.
pub fn api(host: &Host, method: &str, path: &str, body: &str) -> Value {
    let mut stream = UnixStream::connect(host.pmd_home().join("pmd-4369.sock")).expect("a daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .expect("sending a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a response");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: not JSON ({error}): {answer}"))
}
