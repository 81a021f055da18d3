//! Tunnel rules that change while the daemon runs.

use rustix::process::Signal;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{cluster, configure, hosts_file, islands, node};
use crate::support::told;

fn reload(host: &Host) -> (String, String, Option<i32>) {
    let mut command = host.command(pmd());
    command.arg("reload");
    told(&run(command))
}

#[test]
fn new_rules_apply_to_new_tunnels_and_existing_ones_stay() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let daemons = cluster(&hosts);
    let [alpha, beta] = &hosts;
    let mut one = node(alpha, &["-sname", "one"]);
    let _two = node(beta, &["-sname", "two"]);
    let _three = node(beta, &["-sname", "three"]);
    one.wait("net_adm:ping('two@beta')", "pong");
    let still = "rpc:call('two@beta', erlang, node, [])";

    configure(beta, "[[allow]]\nname = \"open*\"\n");
    let (said, why, code) = reload(beta);
    assert!(code == Some(0) && said.contains("applied: allow"), "{said}{why}");
    assert_eq!(one.ask(still), "two@beta", "an existing tunnel must not be closed");
    assert!(!one.reaches("three@beta"));

    // An invalid file changes nothing.
    configure(beta, "[[allow]]\nnmae = \"three\"\n");
    let (said, why, code) = reload(beta);
    assert!(code != Some(0) && why.contains("pmd.toml:2: ") && why.contains("nmae"), "{said}{why}");
    assert!(!one.reaches("three@beta"));

    configure(beta, "[[allow]]\nname = \"thr*\"\n");
    daemons[1].program.signal(Signal::HUP);
    daemons[1].program.wait_for_text("reloaded: applied allow");
    one.wait("net_adm:ping('three@beta')", "pong");

    // A host left to plain Erlang has no line in the hosts file, until the rule is gone.
    configure(alpha, "[[tunnel_rule]]\nhost = \"beta\"\nmode = \"never\"\n");
    let (said, why, code) = reload(alpha);
    assert!(code == Some(0) && said.contains("applied: tunnel_rule"), "{said}{why}");
    let listed = || std::fs::read_to_string(hosts_file(alpha)).unwrap_or_default().contains(" beta\n");
    wait_until("no line for beta", || !listed());
    assert_eq!(one.ask(still), "two@beta", "an existing tunnel must not be closed");
    configure(alpha, "tunnel = \"always\"\n");
    reload(alpha);
    wait_until("a line for beta", listed);
    one.ask("erlang:disconnect_node('three@beta')");
    one.wait("net_adm:ping('three@beta')", "pong");
}
