//! An ejabberd cluster of two hosts that know each other through pmd alone, set up as its page in `docs/` describes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run_within;
use crate::harness::wait_within;
use crate::support::cluster::{cluster, inetrc, islands};
use crate::support::mapper::assert_no_stock_epmd;
use crate::support::{installed, succeeded, told};

/// Other tests share the machine. Nothing here is timed.
const PATIENCE: Duration = Duration::from_secs(120);

/// No client ports: the test is about the path between the nodes.
const CONFIGURATION: &str = "\
hosts: [localhost]
loglevel: info
listen: []
modules:
  mod_admin_extra: {}
";

/// `ejabberdctl`, set up so that ejabberd stays inside the host's directory.
fn command(host: &Host, args: &[&str]) -> Command {
    let home = host.dir().join("ejabberd");
    let mut command = host.command(installed("ejabberdctl", "ejabberd"));
    command
        .env("CONFIG_DIR", &home)
        .env("SPOOL_DIR", home.join("spool"))
        .env("LOGS_DIR", home.join("log"))
        .env("LC_ALL", "C.UTF-8")
        .args(args);
    command
}

fn control(host: &Host, args: &[&str]) -> Output {
    run_within(PATIENCE, command(host, args))
}

/// The output of an `ejabberdctl` that must succeed.
fn ejabberdctl(host: &Host, args: &[&str]) -> String {
    succeeded(&control(host, args))
}

/// Writes the files of an ejabberd on a host. `ejabberdctl` sets `ERL_INETRC` to the file beside its configuration, and
/// runs the node as a user of its own, who needs access to all files. The node listens on loopback only, so the host's
/// own name must resolve to loopback for `ejabberdctl`.
fn prepare(host: &Host) {
    let own = format!("127.0.0.1 localhost {}\n::1 localhost\n", host.name);
    fs::write(host.dir().join("hosts"), own).expect("a hosts file");
    let home = host.dir().join("ejabberd");
    fs::create_dir_all(&home).expect("a directory for ejabberd");
    fs::set_permissions(host.dir(), Permissions::from_mode(0o711)).expect("the mode of the host's directory");
    symlink(inetrc(host), home.join("inetrc")).expect("linking the resolver file");
    fs::write(home.join("ejabberd.yml"), CONFIGURATION).expect("the configuration");
    let settings = format!(
        "ERLANG_NODE=ejabberd@{}\nINET_DIST_INTERFACE=127.0.0.1\nEJABBERD_PID_PATH={}\n\
         ERL_OPTIONS='-setcookie KEKSDOSE +S 1:1 +SDio 1 -env ERL_CRASH_DUMP_BYTES 0'\n",
        host.name,
        home.join("log/pid").display()
    );
    fs::write(home.join("ejabberdctl.cfg"), settings).expect("the settings");
    let mut install = host.command("install");
    install.args(["-d", "-o", "ejabberd"]).args([home.join("spool"), home.join("log")]);
    succeeded(&run_within(PATIENCE, install));
}

fn start(host: &Host) {
    ejabberdctl(host, &["start"]);
    wait_within(PATIENCE, &format!("ejabberd on {}", host.name), || {
        control(host, &["status"]).status.success()
    });
}

/// Kills the node, as a crash would.
fn kill(host: &Host) {
    let text = fs::read_to_string(host.dir().join("ejabberd/log/pid")).expect("the file with its process id");
    let pid = text.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
    assert!(host.netns.processes().contains(&pid), "{text} is no process of {}", host.name);
    kill_process(pid, Signal::KILL).expect("a node that runs");
}

/// Waits until a host's ejabberd has these nodes in its cluster, including itself.
fn wait_for_cluster(observer: &Host, expected: &[&Host]) {
    wait_within(PATIENCE, &format!("{} to see {} nodes", observer.name, expected.len()), || {
        // A node that is still starting does not know the command.
        let (listed, _, code) = told(&control(observer, &["list_cluster"]));
        if code != Some(0) {
            return false;
        }
        let mut nodes: Vec<&str> = listed.lines().collect();
        nodes.sort_unstable();
        nodes.into_iter().eq(expected.iter().map(|host| format!("ejabberd@{}", host.name)))
    });
}

/// Nodes that listen on loopback only, behind firewalls, with host names that no resolver knows.
#[test]
fn ejabberd_clusters_through_tunnels_alone() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["jabber1", "jabber2"]);
    let _daemons = cluster(&hosts);
    let [one, two] = &hosts;
    for host in [one, two] {
        prepare(host);
        start(host);
    }
    ejabberdctl(two, &["join_cluster", "ejabberd@jabber1"]);
    wait_for_cluster(one, &[one, two]);
    wait_for_cluster(two, &[one, two]);
    // They share one database: a user registered on one host is known on the other.
    ejabberdctl(two, &["register", "alice", "localhost", "wonderland"]);
    ejabberdctl(one, &["check_password", "alice", "localhost", "wonderland"]);

    kill(two);
    wait_for_cluster(one, &[one]);
    ejabberdctl(one, &["register", "bob", "localhost", "builder"]);
    start(two);
    wait_for_cluster(one, &[one, two]);
    ejabberdctl(two, &["check_password", "bob", "localhost", "builder"]);
    hosts.iter().for_each(assert_no_stock_epmd);
}
