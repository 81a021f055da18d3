//! The binary installed in place of Erlang's own epmd.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::harness::netns::{Host, Lan};
use crate::harness::program::run;
use crate::harness::{pmd, wait_until};
use crate::support::cluster::{api, flags, islands};
use crate::support::mapper::{Mapper, assert_no_stock_epmd, epmd, stock_epmd, wait_for_names};
use crate::support::node::{Node, erl};
use crate::support::{hosts, installed, succeeded, told};

/// A copy of the installed Erlang root in the host's directory, made of links; only the files that contain the path of
/// the root are real copies, and `erts-*/bin/epmd` is this mapper. Returns the root and that file.
fn erlang_root(host: &Host, mapper: Mapper) -> (PathBuf, PathBuf) {
    let erl = installed("erl", "erlang-base").canonicalize().expect("the real erl");
    let original = erl.ancestors().nth(2).expect("bin is in the root").to_owned();
    let root = host.dir().join("erlang");
    let erts = entries(&original).into_iter().find(|entry| entry.starts_with("erts-")).expect("an erts");

    link_all(&original, &root, &["bin", &erts]);
    link_all(&original.join("bin"), &root.join("bin"), &["erl"]);
    link_all(&original.join(&erts), &root.join(&erts), &["bin"]);
    link_all(&original.join(&erts).join("bin"), &root.join(&erts).join("bin"), &["epmd"]);

    let script = fs::read_to_string(&erl).expect("erl is a script");
    let script = script.replace(original.to_str().unwrap(), root.to_str().unwrap());
    assert!(script.contains(&format!("ROOTDIR={}", root.display())), "erl does not name its root");
    fs::write(root.join("bin/erl"), script).expect("writing erl");
    fs::set_permissions(root.join("bin/erl"), fs::Permissions::from_mode(0o755)).expect("the mode of erl");

    let program = match mapper {
        Mapper::Pmd => PathBuf::from(pmd()),
        Mapper::Stock => stock_epmd(),
    };
    let epmd = root.join(erts).join("bin/epmd");
    symlink(program, &epmd).expect("linking epmd");
    (root, epmd)
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Makes `copy` a directory of links to everything in `original`, except the names in `except`.
fn link_all(original: &Path, copy: &Path, except: &[&str]) {
    fs::create_dir(copy).expect("a directory");
    for entry in entries(original).iter().filter(|entry| !except.contains(&entry.as_str())) {
        symlink(original.join(entry), copy.join(entry)).expect("a link");
    }
}

#[test]
fn erl_starts_the_binary_in_place_of_its_epmd() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let (root, own_epmd) = erlang_root(&host, Mapper::under_test());
    let start = |name: &str| {
        let mut command = host.command(root.join("bin/erl"));
        command.args(["-noshell", "+S", "1:1", "-sname", name]).env("ERL_CRASH_DUMP_SECONDS", "0");
        Node::spawn(command)
    };
    assert!(host.netns.processes().is_empty(), "processes are already running");
    let mut first = start("first");
    let mut second = start("second");
    assert!(first.reaches("second@alpha"));
    assert_no_stock_epmd(&host);
    wait_for_names(&host, &["first", "second"]);
    assert_eq!(first.ask("code:root_dir()"), format!("\"{}\"", root.display()));
    assert_eq!(first.ask("os:find_executable(\"epmd\")"), format!("\"{}\"", own_epmd.display()));
    // Package scripts look for a process with this name.
    let comms = host
        .netns
        .processes()
        .into_iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok());
    assert_eq!(comms.filter(|comm| comm == "epmd\n").count(), 1);

    // Commands that nodes run reach it as well: its directory is first in their PATH.
    let listed = second.ask("os:cmd(\"epmd -names\")");
    assert!(listed.contains("name first at port") && listed.contains("name second at port"), "{listed}");
    // The pipe of os:cmd closes with the launcher, not with the daemon.
    assert_eq!(second.ask("os:cmd(\"epmd -daemon\")"), "[]");

    let mut refused = epmd(&host);
    refused.arg("-kill");
    assert_eq!(told(&run(refused)).2, Some(1));
    first.kill();
    second.kill();
    wait_for_names(&host, &[]);
    let mut end = epmd(&host);
    end.arg("-kill");
    assert_eq!(succeeded(&run(end)), "Killed\n");
    wait_until("the end of the daemon", || host.netns.processes().is_empty());
}

/// An image of a release with one file replaced: the environment makes the daemon that `erl` starts a member.
#[test]
fn the_daemon_that_erl_starts_joins_if_the_environment_says_so() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["alpha", "beta"]);
    let [mut one, mut two] = [("one", ""), ("two", &*hosts[0].ip.to_string())].map(|(name, join)| {
        let host = if join.is_empty() { &hosts[0] } else { &hosts[1] };
        let (root, _) = erlang_root(host, Mapper::Pmd);
        let secret = host.dir().join("secret");
        fs::rename(host.pmd_home().join("cookie"), &secret).expect("the secret");
        let mut command = host.command(root.join("bin/erl"));
        command.args(["-noshell", "+S", "1:1", "-sname", name]).env("ERL_CRASH_DUMP_SECONDS", "0");
        command.env("PMD_CLUSTER", "shop").env("PMD_JOIN", join).env("PMD_COOKIE_FILE", secret);
        command.env("ERL_AFLAGS", flags(host));
        Node::spawn(command)
    });
    two.wait("net_adm:ping('one@alpha')", "pong");
    assert_eq!(api(&hosts[1], "GET", "/v1/tunnels", "")["tunnels"][0]["host"], "alpha");
    // A node finds by stock means what is on the alias of a host.
    let alias = api(&hosts[0], "GET", "/v1/tunnels", "")["alias"].as_str().expect("an alias").to_owned();
    let named = format!("app@{alias}");
    let _app = Node::erl(&hosts[0], &["-name", &named]);
    let mut plain = Node::erl(&hosts[1], &["-name", "plain@beta.example"]);
    plain.wait(&format!("net_adm:ping('{named}')"), "pong");
    for host in &hosts {
        assert_no_stock_epmd(host);
    }
    let comm = |pid: rustix::process::Pid| fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
    let is_epmd = |pid: &rustix::process::Pid| comm(*pid).is_ok_and(|comm| comm == "epmd\n");
    let daemon = hosts[0].netns.processes().into_iter().find(is_epmd).expect("a daemon");
    assert_eq!(one.ask("length(nodes())"), "1");
    rustix::process::kill_process(daemon, rustix::process::Signal::TERM).expect("it runs");
    wait_until("the other host to be told", || {
        let events = api(&hosts[1], "GET", "/v1/nodes", "");
        events["nodes"].as_array().is_some_and(|nodes| nodes.len() == 1)
    });
}

/// `-epmd` replaces the whole command, for environments without write access to Erlang's files.
#[test]
fn erl_starts_the_program_named_by_its_epmd_flag() {
    let lan = Lan::new();
    let [host] = hosts(&lan, ["alpha"]);
    let program = Mapper::under_test().as_epmd(&host);
    let mut command = erl(&host);
    command.args(["-sname", "one", "-epmd", &format!("\"{}\" -daemon", program.display())]);
    let one = Node::spawn(command);
    wait_for_names(&host, &["one"]);
    assert_no_stock_epmd(&host);
    drop(one);
}
