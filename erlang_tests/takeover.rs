//! pmd replaces a running stock epmd and hands the port back, while the nodes keep running.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::{Signal, kill_process};

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster;
use crate::support::mapper::{
    Daemon, Mapper, assert_no_stock_epmd, epmd, listens, names, stock_epmd, wait_for_names,
};
use crate::support::node::Node;
use crate::support::{hosts, succeeded};

/// Two hosts with nodes; the daemon of the first is replaced.
struct Cluster {
    hosts: [Host; 2],
    nodes: [Node; 2],
    far: Node,
    names: BTreeMap<String, u16>,
    identities: [(u32, u32); 2],
    fresh: u32,
    _far_daemon: Daemon,
    _lan: Lan,
}

impl Cluster {
    /// Starts the nodes, on hosts whose daemons the caller has started.
    fn start(bring_up: impl FnOnce(&Host)) -> Cluster {
        let lan = Lan::new();
        let hosts = hosts(&lan, ["alpha", "beta"]);
        bring_up(&hosts[0]);
        let far_daemon = Daemon::start(&hosts[1]);
        let mut nodes = ["one", "two"].map(|name| Node::erl(&hosts[0], &["-sname", name]));
        let far = Node::erl(&hosts[1], &["-sname", "far"]);
        let names = names(&hosts[0]);
        let identities = nodes.each_mut().map(|node| (node.pid(), node.creation()));
        Cluster { hosts, nodes, far, names, identities, fresh: 0, _far_daemon: far_daemon, _lan: lan }
    }

    /// The same nodes run under the same names, and a new node on either host finds them.
    fn assert_whole(&mut self) {
        assert_eq!(names(&self.hosts[0]), self.names);
        let identities = self.nodes.each_mut().map(|node| (node.pid(), node.creation()));
        assert_eq!(identities, self.identities, "a node was restarted");
        for host in &self.hosts {
            self.fresh += 1;
            let mut fresh = Node::erl(host, &["-sname", &format!("fresh{}", self.fresh)]);
            assert!(fresh.reaches("one@alpha"));
            assert!(fresh.reaches("two@alpha"));
            assert!(fresh.reaches("far@beta"));
        }
        wait_until("the fresh node to be forgotten", || names(&self.hosts[0]) == self.names);
        assert!(self.far.reaches("one@alpha"));
        assert!(self.nodes[1].reaches("far@beta"));
    }

    /// The daemon holds the nodes' connections, not only their names: it notices when they end.
    fn assert_ends_are_seen(self) {
        let [one, two] = self.nodes;
        one.kill();
        wait_for_names(&self.hosts[0], &["two"]);
        two.kill();
        wait_for_names(&self.hosts[0], &[]);
    }
}

/// A stock epmd in the background, as `erl` starts it.
fn stock_in_background(host: &Host) {
    let mut command = host.command(stock_epmd());
    command.arg("-daemon");
    succeeded(&run(command));
    wait_until("the stock epmd", || listens(host));
}

/// The command under test; when stock epmd is under test, the manual procedure that the command replaces.
fn change_daemon(host: &Host, word: &str) {
    match Mapper::under_test() {
        Mapper::Pmd => {
            let mut command = host.command(pmd());
            command.arg(word);
            let said = succeeded(&run(command));
            for name in ["one", "two"] {
                assert!(said.contains(name), "pmd {word} does not name {name}:\n{said}");
            }
        }
        Mapper::Stock => {
            let before = names(host);
            for pid in host.netns.processes() {
                let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
                if name.is_ok_and(|name| name.trim_end() == "epmd") {
                    kill_process(pid, Signal::TERM).expect("ending epmd");
                }
            }
            wait_until("the end of epmd", || !listens(host));
            stock_in_background(host);
            wait_until("the nodes", || names(host) == before);
        }
    }
}

fn assert_only_stock_epmd(host: &Host) {
    let stock = stock_epmd().canonicalize().expect("the stock epmd");
    let programs = host
        .netns
        .processes()
        .into_iter()
        .filter_map(|pid| fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok());
    let programs: Vec<_> = programs.collect();
    assert!(programs.contains(&stock), "no stock epmd among {programs:?}");
    let own = Path::new(pmd()).canonicalize().expect("the pmd binary");
    assert!(!programs.contains(&own), "pmd still runs");
}

#[test]
fn takeover_replaces_a_running_stock_epmd_under_its_nodes() {
    let mut cluster = Cluster::start(stock_in_background);
    cluster.assert_whole();
    change_daemon(&cluster.hosts[0], "takeover");
    cluster.assert_whole();
    assert_no_stock_epmd(&cluster.hosts[0]);
    cluster.assert_ends_are_seen();
}

#[test]
fn handover_gives_the_nodes_back_to_stock_epmd() {
    let mut cluster = Cluster::start(|host| {
        let mut command = epmd(host);
        command.arg("-daemon");
        succeeded(&run(command));
        wait_until("the daemon", || listens(host));
    });
    cluster.assert_whole();
    change_daemon(&cluster.hosts[0], "handover");
    cluster.assert_whole();
    assert_only_stock_epmd(&cluster.hosts[0]);
    cluster.assert_ends_are_seen();
}

#[test]
fn takeover_and_handover_can_be_repeated() {
    let mut cluster = Cluster::start(stock_in_background);
    for _ in 0..2 {
        change_daemon(&cluster.hosts[0], "takeover");
        assert_no_stock_epmd(&cluster.hosts[0]);
        change_daemon(&cluster.hosts[0], "handover");
        assert_only_stock_epmd(&cluster.hosts[0]);
    }
    cluster.assert_whole();
}

/// Nodes that run with pmd's epmd module reach other hosts whenever pmd serves the port, and others on their own host always.
#[test]
fn nodes_with_the_module_outlive_handover_and_takeover() {
    let lan = Lan::new();
    let hosts = cluster::islands(&lan, ["alpha", "beta"]);
    let _daemons = cluster::cluster(&hosts);
    let [alpha, beta] = &hosts;
    let _two = cluster::node(beta, &["-sname", "two"]);
    let mut one = cluster::node(alpha, &["-sname", "one"]);
    let mut near = cluster::node(alpha, &["-sname", "near"]);
    let identity = (one.pid(), one.creation());
    one.wait("net_adm:ping('two@beta')", "pong");
    let change = |word: &str| {
        let mut command = alpha.command(pmd());
        command.arg(word);
        let said = succeeded(&run(command));
        assert!(said.contains("one") && said.contains("near"), "{said}");
        wait_for_names(alpha, &["near", "one"]);
    };
    change("handover");
    assert_only_stock_epmd(alpha);
    one.wait("nodes()", "[]");
    assert!(!one.reaches("two@beta"));
    assert!(near.reaches("one@alpha"));
    change("takeover");
    assert_no_stock_epmd(alpha);
    cluster::join(alpha, beta);
    one.wait("net_adm:ping('two@beta')", "pong");
    assert!(near.reaches("two@beta") && near.reaches("one@alpha"));
    assert_eq!((one.pid(), one.creation()), identity, "it was restarted");
}
