//! `pmd ping` agrees with Erlang's own `net_adm:ping`, and says why if it is `pang`: generated cases of names, address
//! families, Erlang cookies, TLS and firewalls.
//!
//! Three sides are compared: what the rules in this file expect, what a node says, and what `pmd ping` says. All nodes run
//! from the beginning to the end; each node that asks is closed to the others after each case. With TLS, `pmd ping` says that
//! it did not check name, certificate and cookie, so there the cases have the right ones.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{self, configure, firewall, islands};
use crate::support::node::Node;
use crate::support::{fixture, told};
use crate::variants::{issue_certificates, tls};

/// The seed of the cases. Other ones are as good.
const SEED: u64 = 20_261_130;
/// Cases in each state of the network. In the last one, each takes seconds.
const CASES: [(Network, usize); 4] =
    [(Network::OnePort, 47), (Network::Open, 26), (Network::OneWay, 26), (Network::Cut, 1)];

/// How the host of the called nodes can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// Its firewall lets in pmd's port.
    OnePort,
    /// It has no firewall.
    Open,
    /// It must dial back.
    OneWay,
    /// Neither host can dial the other. Their link is still there.
    Cut,
}

impl Network {
    fn apply(self, alpha: &Host, beta: &Host) {
        let rules = |ports: &str, verdict: &str| {
            format!(
                "flush ruleset
                 table inet filter {{
                     chain input {{
                         type filter hook input priority 0; policy accept;
                         iif lo accept
                         ct state established,related accept
                         tcp dport {ports} {verdict}
                     }}
                 }}"
            )
        };
        let (open, one_port) = ("flush ruleset".to_owned(), rules("!= 4369", "drop"));
        let closed = rules("1-65535", "reject with tcp reset");
        firewall(alpha, if self == Network::Cut { &closed } else { &one_port });
        firewall(
            beta,
            match self {
                Network::OnePort => &one_port,
                Network::Open => &open,
                Network::OneWay | Network::Cut => &closed,
            },
        );
    }
}

/// The kind of a node's distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Four,
    Six,
    Tls,
}

impl Kind {
    fn flags(self, host: &Host) -> Vec<String> {
        match self {
            Kind::Four => Vec::new(),
            Kind::Six => ["-proto_dist", "inet6_tcp"].map(str::to_owned).to_vec(),
            Kind::Tls => tls(host).to_vec(),
        }
    }
}

/// Why Erlang says `pang`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    NoSuchHost,
    NoSuchNode,
    /// A rule of the other host.
    Rule,
    /// Nothing listens on the registered port.
    Deaf,
    /// The two hosts cannot reach each other.
    Cut,
    /// The node has another name.
    Name,
    Cookie,
    /// One of the two speaks TLS.
    Tls,
}

impl Reason {
    /// What `pmd ping` says, and its exit code.
    fn said(self) -> (&'static str, i32) {
        match self {
            Reason::NoSuchHost => ("the cluster has no host named", 4),
            Reason::NoSuchNode => ("no node named", 4),
            Reason::Rule => ("no rule allows", 5),
            Reason::Deaf => ("is registered but cannot be reached: nothing listens", 8),
            Reason::Cut => ("cannot reach", 3),
            Reason::Name => ("so Erlang refuses", 5),
            Reason::Cookie => ("refused: the Erlang cookie differs", 5),
            Reason::Tls => ("", 0),
        }
    }
}

/// A node that is called.
struct Target {
    name: &'static str,
    /// The host in its own name.
    own: String,
    kind: Kind,
    /// Whether it is on the host of the callers.
    is_here: bool,
    state: Option<Reason>,
}

/// The hosts in names, and whether that is the host of the callers (`Some(true)`), the other one, or none.
fn places(beta: &Host) -> Vec<(String, Option<bool>)> {
    let beta_ip = beta.ip.to_string();
    let there =
        ["beta", "BETA", "beta.example.org", "mq", &beta_ip].map(|host| (host.to_owned(), Some(false)));
    let here = ["alpha", "localhost", "127.0.0.1"].map(|host| (host.to_owned(), Some(true)));
    let nowhere = ["nowhere", "192.0.2.7"].map(|host| (host.to_owned(), None));
    [&there[..], &here, &nowhere].concat()
}

/// One case.
struct Case<'a> {
    asked: String,
    caller: Kind,
    right_cookie: bool,
    target: &'a Target,
    place: Option<bool>,
    network: Network,
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cookie = if self.right_cookie { "the cookie" } else { "another cookie" };
        write!(f, "{} from {:?} with {cookie}, {:?}", self.asked, self.caller, self.network)
    }
}

impl Case<'_> {
    /// What Erlang must say.
    fn expected(&self) -> Result<(), Reason> {
        let Target { name, own, kind, is_here, state } = self.target;
        let place = self.place.ok_or(Reason::NoSuchHost)?;
        if place != *is_here {
            return Err(Reason::NoSuchNode);
        }
        if !is_here && self.network == Network::Cut {
            return Err(Reason::Cut);
        }
        state.map_or(Ok(()), Err)?;
        if (*kind == Kind::Tls) != (self.caller == Kind::Tls) {
            // With the right name, TLS is all that is wrong.
            return Err(if *kind == Kind::Tls || self.asked == format!("{name}@{own}") {
                Reason::Tls
            } else {
                Reason::Name
            });
        }
        if self.asked != format!("{name}@{own}") {
            return Err(Reason::Name);
        }
        if self.right_cookie { Ok(()) } else { Err(Reason::Cookie) }
    }
}

/// SplitMix64, to choose.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let limit = u64::try_from(limit).expect("a small number");
        usize::try_from((mixed ^ (mixed >> 31)) % limit).expect("a small number")
    }

    fn case<'a>(
        &mut self,
        network: Network,
        targets: &'a [Target],
        places: &[(String, Option<bool>)],
    ) -> Case<'a> {
        let target = if network == Network::Cut {
            targets.iter().find(|target| !target.is_here).expect("one")
        } else {
            &targets[self.below(targets.len())]
        };
        let own = places.iter().find(|(host, _)| *host == target.own).expect("its own host");
        // Most names are right, or there would be nothing but wrong names.
        let is_right = self.below(10) < 6 || target.kind == Kind::Tls || network == Network::Cut;
        let (host, place) = if is_right { own } else { &places[self.below(places.len())] };
        let caller = match target.kind {
            // Nodes of one host reach each other without pmd, and only over the same family.
            kind if *place == Some(true) => kind,
            Kind::Tls => [Kind::Tls, Kind::Tls, Kind::Four][self.below(3)],
            // A node with TLS waits for seconds for the answer of one without.
            _ if !host.contains('.') && self.below(25) == 0 => Kind::Tls,
            _ => [Kind::Four, Kind::Six][self.below(2)],
        };
        let is_tls = target.kind == Kind::Tls || caller == Kind::Tls;
        let right_cookie = is_tls || self.below(4) > 0;
        Case {
            asked: format!("{}@{host}", target.name),
            caller,
            right_cookie,
            target,
            place: *place,
            network,
        }
    }
}

/// A cookie file that only its owner reads.
fn cookie(host: &Host, name: &str, cookie: &str) -> String {
    let file = host.dir().join(name);
    fs::write(&file, cookie).expect("a cookie");
    fs::set_permissions(&file, Permissions::from_mode(0o400)).expect("its mode");
    file.display().to_string()
}

const RIGHT: &str = "KEKSDOSE";
const OTHER: &str = "ANOTHER";

/// Nodes that call, by their kind and whether they have long names.
type Callers = BTreeMap<(Kind, bool), Node>;

/// Starts the nodes that are called, and those that call, all at the same time.
fn start_all(alpha: &Host, beta: &Host, targets: &[Target]) -> (Vec<Node>, Callers) {
    let runs = |target: &&Target| !matches!(target.state, Some(Reason::Deaf | Reason::NoSuchNode));
    let calls = [
        (Kind::Four, "alpha"),
        (Kind::Four, "alpha.example.org"),
        (Kind::Six, "alpha"),
        (Kind::Six, "alpha.example.org"),
        (Kind::Tls, "alpha"),
    ];
    std::thread::scope(|scope| {
        let nodes: Vec<_> = targets
            .iter()
            .filter(runs)
            .map(|target| {
                let host = if target.is_here { alpha } else { beta };
                scope.spawn(|| start(host, target.name, &target.own, target.kind, &[]))
            })
            .collect();
        let callers: Vec<_> = calls
            .into_iter()
            .map(|(kind, own)| {
                scope.spawn(move || {
                    let is_long = own.contains('.');
                    let name = format!("c_{kind:?}_{is_long}").to_lowercase();
                    // How long one with TLS waits for the answer of one without.
                    let waits = ["-kernel", "net_setuptime", if kind == Kind::Tls { "3" } else { "7" }];
                    ((kind, is_long), start(alpha, &name, own, kind, &waits))
                })
            })
            .collect();
        let nodes = nodes.into_iter().map(|node| node.join().expect("a node")).collect();
        (nodes, callers.into_iter().map(|node| node.join().expect("a node")).collect())
    })
}

fn start(host: &Host, name: &str, own: &str, kind: Kind, more: &[&str]) -> Node {
    let style = if own.contains('.') { "-name" } else { "-sname" };
    let mut command = cluster::erl(host);
    command
        .args([style, &format!("{name}@{own}"), "-connect_all", "false"])
        .args(kind.flags(host))
        .args(more);
    command.args(["-eval", &format!("ok = file:eval(\"{}\").", fixture("answers.erl").display())]);
    Node::up(command)
}

#[test]
fn pmd_ping_agrees_with_erlang_in_a_hundred_generated_cases() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let [alpha, beta] = &hosts;
    for host in [alpha, beta] {
        let names = host.dir().join("hosts");
        let text = fs::read_to_string(&names).expect("the hosts file");
        fs::write(&names, format!("{text}{} mq\n", beta.ip)).expect("the hosts file");
    }
    configure(beta, "[[allow]]\nhost = \"*\"\nname = \"t_*\"\n");
    let _daemons = cluster::cluster(&hosts);
    issue_certificates([alpha, beta]);

    let target = |name, own: &str, kind| Target { name, own: own.into(), kind, is_here: false, state: None };
    let beta_ip = beta.ip.to_string();
    let targets = [
        target("t_short", "beta", Kind::Four),
        target("t_long", "beta.example.org", Kind::Four),
        target("t_ip", &beta_ip, Kind::Four),
        target("t_mq", "mq", Kind::Four),
        target("t_six", "beta", Kind::Six),
        target("t_tls", "beta", Kind::Tls),
        Target { is_here: true, ..target("t_here", "alpha", Kind::Four) },
        Target { is_here: true, ..target("t_local", "localhost", Kind::Four) },
        Target { state: Some(Reason::Deaf), ..target("t_deaf", "beta", Kind::Four) },
        Target { state: Some(Reason::Rule), ..target("guarded", "beta", Kind::Four) },
        Target { state: Some(Reason::NoSuchNode), ..target("t_gone", "beta", Kind::Four) },
    ];
    let (mut nodes, mut callers) = start_all(alpha, beta, &targets);
    nodes[0].ask(
        "begin {ok, S} = gen_tcp:connect({127,0,0,1}, 4369, [binary, {active, false}]),
           Body = <<120, 9:16, 77, 0, 6:16, 5:16, 6:16, \"t_deaf\", 0:16>>,
           ok = gen_tcp:send(S, <<(byte_size(Body)):16, Body/binary>>), {ok, <<118, 0, _:32>>} = gen_tcp:recv(S, 6),
           put(held, S), ok end",
    );
    let ping = |node: &str, cookie: &str| {
        let mut command = alpha.command(pmd());
        command.args(["ping", node, "--json", "--erlang-cookie", cookie]);
        told(&run(command))
    };
    let right = cookie(alpha, "right", RIGHT);
    let other = cookie(alpha, "other", OTHER);
    for target in targets.iter().filter(|target| target.state.is_none()) {
        let whole = format!("{}@{}", target.name, target.own);
        wait_until(&whole, || ping(&whole, &right).2 == Some(0));
    }

    let places = places(beta);
    let (mut chance, mut reasons) = (Chance(SEED), BTreeMap::<Option<Reason>, usize>::new());
    let mut wrong = Vec::new();
    for (network, count) in CASES {
        network.apply(alpha, beta);
        for _ in 0..count {
            let case = chance.case(network, &targets, &places);
            let expected = case.expected();
            *reasons.entry(expected.err()).or_default() += 1;
            let (node, file) = if case.right_cookie { (RIGHT, &right) } else { (OTHER, &other) };
            let is_long = case.asked.contains('.');
            let caller = callers.get_mut(&(case.caller, is_long)).expect("a caller");
            let (erlang, (out, why, code)) = std::thread::scope(|scope| {
                let asked = &case.asked;
                let said = scope.spawn(move || ping(asked, file));
                let erlang = caller.ask(&format!(
                    "begin erlang:set_cookie('{asked}', '{node}'), P = net_adm:ping('{asked}'), disconnect_node('{asked}'), P end"
                ));
                (erlang, said.join().expect("a command"))
            });
            let pinged: Value = serde_json::from_str(&out).unwrap_or_default();
            let speaks_tls = pinged["tls"].as_bool().unwrap_or_default();
            let tried = if speaks_tls { "not_tried" } else { "accepted" };
            let (reason, exit) = expected.err().map_or(("", 0), Reason::said);
            let agree = erlang == if expected.is_ok() { "pong" } else { "pang" }
                && code == Some(exit)
                && why.contains(reason)
                // If only TLS is in the way, the answer says so.
                && (exit != 0 || (speaks_tls != (case.caller == Kind::Tls)) == expected.is_err())
                && (exit != 0 || pinged["cookie"] == tried);
            if !agree {
                wrong.push(format!(
                    "{case}: expected {expected:?}, Erlang says {erlang}, pmd {code:?} {out}{why}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    let all: usize = CASES.iter().map(|(_, count)| count).sum();
    assert!(all >= 100 && reasons.len() == 9, "every reason must occur: {reasons:?}");
    assert!(reasons[&None] >= all / 4, "too few of them are reached: {reasons:?}");
    println!("{reasons:?}");
}
