//! `pmd ping` and `pmd doctor` say of a node what Erlang would say: by every way to write its host, by the name that it calls
//! itself, by its Erlang cookie, and with TLS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{self, cluster, islands, node};
use crate::support::node::Node;
use crate::support::told;
use crate::variants::{issue_certificates, tls};

fn command(host: &Host, args: &[&str]) -> Command {
    let mut command = host.command(pmd());
    command.args(args);
    command
}

/// Standard output, standard error and exit code of `pmd ARGS`.
fn said(host: &Host, args: &[&str]) -> (String, String, Option<i32>) {
    told(&run(command(host, args)))
}

/// Waits until a host knows the node `name` of the other one.
fn wait_for(host: &Host, name: &str) {
    wait_until(&format!("{name} to be known"), || said(host, &["lookup", name]).2 == Some(0));
}

/// What `pmd ping --json` says of a node that it reaches.
fn pinged(host: &Host, node: &str) -> Value {
    let (out, why, code) = said(host, &["ping", node, "--json"]);
    assert_eq!(code, Some(0), "{node}: {why}");
    serde_json::from_str(&out).expect("JSON")
}

/// The verdict of a check of `pmd doctor`, and what it says.
fn finding(host: &Host, args: &[&str], check: &str) -> (String, String) {
    let (out, why, _) = said(host, &[&["doctor", "--json"], args].concat());
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{why}"));
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} in {report:#}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("what") + " -> " + &text("remedy"))
}

/// Writes a cookie file that only its owner reads.
fn cookie(host: &Host, name: &str, cookie: &str) -> String {
    let file = host.dir().join(name);
    let _ = fs::remove_file(&file);
    fs::write(&file, cookie).expect("a cookie");
    fs::set_permissions(&file, Permissions::from_mode(0o400)).expect("its mode");
    file.display().to_string()
}

/// On acceptance, the node sees a hidden connection for a moment, and nothing else: it logs nothing, it is connected to
/// nobody afterwards, and nothing in it keeps the name in `nodes(known)`. On refusal it logs, as it does for any node.
#[test]
fn the_callers_erlang_cookie_is_tried() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    let hosts = [alpha, beta];
    let _daemons = cluster(&hosts);
    let [alpha, beta] = &hosts;
    // The names of nodes that have gone are kept for one second, instead of a minute.
    let mut two = node(beta, &["-sname", "two", "+zdntgc", "1"]);
    two.ask("net_kernel:monitor_nodes(true)");
    wait_for(alpha, "two@beta");
    for (host, name) in [(alpha, "two@beta"), (beta, "two")] {
        let (out, why, code) = said(host, &["ping", name]);
        assert_eq!(code, Some(0), "{why}");
        assert!(out.contains("accepted: the node has the one in") && out.contains(".erlang.cookie"), "{out}");
        assert_eq!(pinged(host, name)["cookie"], "accepted");
    }
    assert_eq!(finding(alpha, &["two@beta"], "Erlang cookie").0, "pass");
    two.wait("nodes(connected)", "[]");
    // The garbage of its own processes has the name for a while, as that of any node that was connected.
    two.wait(
        "begin [garbage_collect(P) || P <- processes()], lists:delete(nonode@nohost, nodes(known)) end",
        "[two@beta]",
    );
    assert_eq!(two.ask("receive Any -> Any after 0 -> nothing end"), "nothing");
    assert_eq!(two.logged(), "", "the node has logged something");

    let other = cookie(alpha, "other", "ANOTHER");
    let refused = |result: (String, String, Option<i32>)| {
        let (out, why, code) = result;
        assert_eq!(code, Some(5), "{out}{why}");
        assert!(why.contains("two@beta: refused: the Erlang cookie differs from the one in"), "{why}");
        assert!(!out.contains("ANOTHER") && !why.contains("ANOTHER"), "{out}{why}");
    };
    refused(said(alpha, &["ping", "two@beta", "--erlang-cookie", &other]));
    let mut by_variable = command(alpha, &["ping", "two@beta"]);
    by_variable.env("RELEASE_COOKIE", "ANOTHER");
    refused(told(&run(by_variable)));
    two.wait("nodes(connected)", "[]");
    let logged = two.logged();
    assert!(logged.contains("'pmd-ping@alpha' rejected. Invalid challenge reply"), "{logged}");
    let (verdict, what) = finding(alpha, &["two@beta", "--erlang-cookie", &other], "Erlang cookie");
    assert!(verdict == "fail" && what.contains("give all nodes the same Erlang cookie"), "{what}");
    // Erlang's own answer is the same.
    let mut stranger = node(alpha, &["-sname", "stranger", "-setcookie", "ANOTHER"]);
    assert!(!stranger.reaches("two@beta"));

    fs::remove_file(alpha.dir().join(".erlang.cookie")).expect("the cookie");
    let (out, _, code) = said(alpha, &["ping", "two@beta"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("not tried: no Erlang cookie found at") && out.contains(".erlang.cookie"), "{out}");
    assert_eq!(pinged(alpha, "two@beta")["cookie"], "not_tried");
    let (verdict, what) = finding(alpha, &["two@beta"], "Erlang cookie");
    assert!(verdict == "warn" && what.contains("--erlang-cookie FILE"), "{what}");
    let (_, why, code) = said(alpha, &["ping", "two@beta", "--erlang-cookie", "/absent"]);
    assert!(code == Some(2) && why.contains("/absent"), "{why}");
}

/// A node is reached by no other name than the one that it calls itself.
#[test]
fn the_name_in_the_handshake_is_compared() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    let hosts = [alpha, beta];
    let _daemons = cluster(&hosts);
    let [alpha, beta] = &hosts;
    let mut lh = node(beta, &["-name", "lh@127.0.0.1"]);
    wait_for(alpha, "lh@beta");
    for (host, name) in [(alpha, "lh@beta"), (beta, "lh@localhost")] {
        let (out, why, code) = said(host, &["ping", name]);
        assert_eq!(code, Some(5), "{out}{why}");
        let sentence = format!("the node calls itself lh@127.0.0.1, so Erlang refuses {name}");
        assert!(why.contains(&sentence), "{why}");
    }
    let (verdict, what) = finding(alpha, &["lh@beta"], "path");
    assert!(verdict == "fail" && what.contains("calls itself lh@127.0.0.1"), "{what}");
    assert_eq!(finding(alpha, &["lh@beta"], "Erlang cookie").0, "warn");
    assert_eq!(pinged(beta, "lh@127.0.0.1")["node"], "lh@127.0.0.1");
    assert_eq!(lh.ask("nodes(connected)"), "[]");
}

/// Addresses of members, other names for those addresses, and localhost.
#[test]
fn the_host_is_taken_as_erlang_takes_it() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    let hosts = [alpha, beta];
    let names = hosts[0].dir().join("hosts");
    let text = fs::read_to_string(&names).expect("the hosts file");
    fs::write(&names, format!("{text}{} mq\n192.0.2.9 stranger\n", hosts[1].ip)).expect("the hosts file");
    let _daemons = cluster(&hosts);
    let [alpha, beta] = &hosts;
    let ipn = format!("ipn@{}", beta.ip);
    let _nodes: [Node; 4] = [
        node(beta, &["-name", &ipn]),
        node(beta, &["-sname", "rabbit@mq"]),
        node(beta, &["-name", "long@beta.example.org"]),
        node(alpha, &["-sname", "ejabberd@localhost"]),
    ];
    for name in ["ipn@beta", "rabbit@beta", "long@beta"] {
        wait_for(alpha, name);
    }
    for name in [&*ipn, "rabbit@mq", "long@beta.example.org", "ejabberd@localhost"] {
        let answer = pinged(alpha, name);
        assert_eq!((&answer["node"], &answer["cookie"]), (&name.into(), &"accepted".into()), "{answer}");
        let (verdict, what) = finding(alpha, &[name], "member");
        assert_eq!(verdict, "pass", "{what}");
        assert_eq!(finding(alpha, &[name], "Erlang cookie").0, "pass");
    }
    // Also if there is no such node, a member is not told to join.
    for name in [format!("nobody@{}", beta.ip), "nobody@mq".to_owned(), "nobody@localhost".to_owned()] {
        let (_, why, code) = said(alpha, &["ping", &name]);
        assert!(code == Some(4) && why.contains("no node named \"nobody\""), "{why}");
        let (verdict, what) = finding(alpha, &[&name], "member");
        assert_eq!(verdict, "pass", "{what}");
    }
    for name in ["nobody@stranger", "nobody@nowhere", "nobody@192.0.2.9"] {
        let (_, why, code) = said(alpha, &["ping", name]);
        assert!(code == Some(4) && why.contains("the cluster has no host named"), "{why}");
        let (verdict, what) = finding(alpha, &[name], "member");
        assert!(verdict == "fail" && what.contains("pmd join"), "{what}");
    }
}

#[test]
fn nodes_with_tls_or_ipv6_answer_too() {
    let lan = Lan::new();
    let [alpha, beta] = islands(&lan, ["alpha", "beta"]);
    let hosts = [alpha, beta];
    let _daemons = cluster(&hosts);
    let [alpha, beta] = &hosts;
    issue_certificates([alpha, beta]);
    let mut secure = cluster::erl(beta);
    secure.args(["-sname", "secure"]).args(tls(beta));
    let mut secure = Node::spawn(secure);
    let mut six = node(beta, &["-sname", "six", "-proto_dist", "inet6_tcp"]);
    for (name, node) in [("secure@beta", "secure"), ("six@beta", "six")] {
        wait_for(alpha, name);
        for (host, name) in [(alpha, name), (beta, node)] {
            let answer = pinged(host, name);
            assert_eq!(answer["node"], format!("{node}@beta"), "{answer}");
            let (tls, cookie) = if node == "secure" { (true, "not_tried") } else { (false, "accepted") };
            assert_eq!(answer["tls"].as_bool().unwrap_or_default(), tls, "{answer}");
            assert_eq!(answer["cookie"], cookie, "{answer}");
        }
    }
    let (out, _, _) = said(alpha, &["ping", "secure@beta"]);
    assert!(
        out.contains("speaks TLS distribution; its name, certificate and cookie were not checked"),
        "{out}"
    );
    let (verdict, what) = finding(alpha, &["secure@beta"], "Erlang cookie");
    assert!(verdict == "warn" && what.contains("not tried"), "{what}");
    assert_eq!(secure.ask("nodes(connected)"), "[]");
    six.wait("nodes(connected)", "[]");
    assert_eq!(six.logged(), "");
}
