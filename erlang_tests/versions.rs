//! Nodes of different releases of Erlang/OTP, each on a host of its own, reach each other through pmd alone.
//!
//! `scripts/test-otp` runs these tests. `PMD_TEST_OTP` names the other releases, separated by spaces: `27=DIR`, where
//! DIR is the root directory of a system with that release, or the folder of an installation that runs on this one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::netns::{Host, Lan};
use crate::harness::pmd;
use crate::support::cluster::{cluster, islands};
use crate::support::installed;
use crate::support::node::{Node, SMALL};
use crate::variants::{issue_certificates_with, tls};

/// An Erlang/OTP.
struct Release {
    number: u32,
    /// The root directory of its system; none for this machine's.
    root: Option<PathBuf>,
    erl: PathBuf,
}

impl Release {
    /// This machine's release, and those that the environment names, oldest first.
    fn all() -> Vec<Release> {
        let others = std::env::var("PMD_TEST_OTP").expect("PMD_TEST_OTP: run scripts/test-otp");
        let others = others.split_whitespace().map(|word| {
            let (number, folder) = word.split_once('=').expect("NUMBER=FOLDER");
            let number = number.parse().expect("a number");
            let folder = Path::new(folder);
            if folder.join("usr/bin/erl").exists() {
                Release { number, root: Some(folder.to_owned()), erl: "/usr/bin/erl".into() }
            } else {
                Release { number, root: None, erl: folder.join("bin/erl") }
            }
        });
        let ours = Release { number: 25, root: None, erl: installed("erl", "erlang-base") };
        let mut all: Vec<Release> = std::iter::once(ours).chain(others).collect();
        all.sort_by_key(|release| release.number);
        all
    }

    /// A program on a host, in the system of this release.
    fn command(&self, host: &Host, program: impl AsRef<OsStr>) -> Command {
        match &self.root {
            None => host.command(program),
            Some(root) => {
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/in-root");
                let mut command = host.command(script);
                command.arg(root).arg(program);
                command
            }
        }
    }

    /// A node of this release on a host, as `pmd run` starts it.
    fn node(&self, host: &Host, flags: &[&str]) -> Node {
        let mut command = self.command(host, pmd());
        command.args(["run", "--"]).arg(&self.erl).args(SMALL).arg("-noshell");
        // Two nodes at a time: no mesh.
        command.args(["-sname", "node", "-connect_all", "false"]).args(flags);
        command.env("LC_ALL", "C.UTF-8").env("ERL_CRASH_DUMP_SECONDS", "0");
        let mut node = Node::spawn(command);
        assert_eq!(node.otp_release(), self.number);
        assert_eq!(node.ask("net_kernel:epmd_module()"), "pmd_epmd");
        assert_eq!(node.logged(), "", "OTP {} complains at its start", self.number);
        node
    }
}

/// Each node dials each other.
fn assert_all_reach_all(nodes: &mut [(&Host, Node)]) {
    let count = nodes.len();
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        if from == to {
            continue;
        }
        let names = [from, to].map(|place| format!("node@{}", nodes[place].0.name));
        nodes[from].1.wait(&format!("net_adm:ping('{}')", names[1]), "pong");
        let copied = format!("byte_size(rpc:call('{}', binary, copy, [<<7>>, 1048576]))", names[1]);
        assert_eq!(nodes[from].1.ask(&copied), "1048576");
        nodes[from].1.ask(&format!("erlang:disconnect_node('{}')", names[1]));
        for place in [from, to] {
            nodes[place].1.wait("nodes(connected)", "[]");
        }
    }
}

fn assert_releases_reach_each_other(releases: &[Release; 4], flags: &[&str]) {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta", "gamma", "delta"]);
    let _daemons = cluster(&hosts);
    let mut nodes: Vec<(&Host, Node)> =
        hosts.iter().zip(releases).map(|(host, release)| (host, release.node(host, flags))).collect();
    assert_all_reach_all(&mut nodes);
}

fn four() -> [Release; 4] {
    Release::all().try_into().unwrap_or_else(|all: Vec<Release>| panic!("{} releases", all.len()))
}

#[test]
#[ignore = "needs other releases of Erlang/OTP: make test-otp"]
fn all_releases_reach_each_other() {
    assert_releases_reach_each_other(&four(), &[]);
}

#[test]
#[ignore = "needs other releases of Erlang/OTP: make test-otp"]
fn all_releases_reach_each_other_over_ipv6() {
    assert_releases_reach_each_other(&four(), &["-proto_dist", "inet6_tcp"]);
}

/// The OTP 28 of these tests has no TLS.
#[test]
#[ignore = "needs other releases of Erlang/OTP: make test-otp"]
fn releases_with_tls_reach_each_other_over_it() {
    let releases: Vec<Release> = Release::all().into_iter().filter(|release| release.number != 28).collect();
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let lan = Lan::new();
        let hosts = islands(&lan, ["alpha", "beta"]);
        let _daemons = cluster(&hosts);
        // Those that an old release makes, a new one rejects.
        let mut issuer = releases[2].command(&hosts[0], &releases[2].erl);
        issuer.arg("-noshell");
        issue_certificates_with(issuer, [&hosts[0], &hosts[1]]);
        let mut nodes: Vec<(&Host, Node)> = hosts
            .iter()
            .zip([&releases[one], &releases[other]])
            .map(|(host, release)| (host, release.node(host, &tls(host).each_ref().map(String::as_str))))
            .collect();
        assert_all_reach_all(&mut nodes);
    }
}
