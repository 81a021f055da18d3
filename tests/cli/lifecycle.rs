//! `pmd start`, `stop`, `status` and `health`.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::harness::program::{Program, full_pipe};
use crate::harness::{PATIENCE, wait_until};
use crate::support::{Home, said};

#[test]
fn start_returns_once_the_daemon_answers_and_stop_once_it_has_exited() {
    let home = Home::new();
    assert_eq!(home.prints(&["start"]), "pmd is running on port PORT (pid PID)\n");
    // Deliberately without waiting.
    let _node = home.node("rabbit", 25672);
    assert_eq!(home.prints(&["start"]), "pmd is already running on port PORT (pid PID)\n");
    assert_eq!(home.prints(&["start", "--foreground"]), "pmd is already running on port PORT (pid PID)\n");
    assert_eq!(home.prints(&["stop"]), "pmd on port PORT has stopped (pid PID)\n");
    assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, home.port)).is_ok(), "the port is still held");
    assert!(!home.socket().exists());
    assert_eq!(
        home.complains(&["stop"]),
        (3, "error: no pmd answers on HOME/pmd-PORT.sock\nhint: start it: pmd start\n".into())
    );
}

#[test]
fn start_and_stop_speak_json() {
    let home = Home::new();
    let started = home.run(&["start", "--json"]).ended_with(0).json();
    assert_eq!(started["started"], true);
    assert_eq!(started["port"], home.port);
    assert_eq!(started["listening"].as_array().map(Vec::len), Some(2));
    let again = home.run(&["start", "--json"]).ended_with(0).json();
    assert_eq!((&again["started"], &again["pid"]), (&false.into(), &started["pid"]));
    let stopped = home.run(&["stop", "-o", "jsonl"]).ended_with(0);
    assert_eq!(stopped.stdout.lines().count(), 1);
    assert_eq!((&stopped.json()["stopped"], &stopped.json()["pid"]), (&true.into(), &started["pid"]));
    let absent = home.run(&["status", "--json"]).ended_with(3);
    assert_eq!(absent.json()["error"]["code"], "not_reachable");
    assert_eq!(absent.json()["error"]["hint"], "start it: pmd start");
    assert!(absent.stderr.starts_with("error: no pmd answers on "), "{absent:?}");
}

#[test]
fn the_foreground_suggests_commands_and_exits_cleanly() {
    let (home, mut daemon) = Home::started();
    daemon.wait_for_text("Stop with Ctrl-C.");
    assert_eq!(
        home.normal(&daemon.stdout()),
        format!(
            "pmd {} is running on port PORT of HOST (pid PID)\n  \
             addresses       0.0.0.0:PORT, [::]:PORT\n  \
             control socket  HOME/pmd-PORT.sock\n\n\
             Try in another terminal:\n  \
             ERL_EPMD_PORT=PORT erl -sname foo\n  pmd --port PORT names\n  pmd --port PORT status\n\n\
             Stop with Ctrl-C.\n",
            env!("CARGO_PKG_VERSION")
        )
    );
    daemon.signal(Signal::INT);
    assert!(daemon.wait(PATIENCE).success());
    assert!(!home.socket().exists());
}

#[test]
fn start_ends_with_130_if_it_is_interrupted_while_it_finds_out_who_holds_the_port() {
    let home = Home::new();
    let holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, home.port)).expect("a free port");
    let mut start = Program::spawn(home.command(&["start", "--foreground"]));
    // It is asked for its names, and does not answer.
    let (mut asked, _) = holder.accept().expect("a question");
    asked.read_exact(&mut [0; 3]).expect("a request");
    start.signal(Signal::INT);
    assert_eq!(start.wait(PATIENCE).code(), Some(130), "{}", start.stderr());
    assert!(!start.stderr().contains("error:"), "{}", start.stderr());
}

#[test]
fn a_rotation_that_is_interrupted_leaves_the_secret_alone() {
    let home = Home::new();
    home.run(&["cookie", "rotate"]).ended_with(0);
    let before = home.prints(&["cookie", "show"]);
    let daemon = UnixListener::bind(home.socket()).expect("a socket");
    let mut rotate = Program::spawn(home.command(&["cookie", "rotate"]));
    let (mut asked, _) = daemon.accept().expect("a request");
    asked.read_exact(&mut [0; 4]).expect("a request");
    rotate.signal(Signal::INT);
    assert_eq!(rotate.wait(PATIENCE).code(), Some(130), "{}", rotate.stderr());
    assert_eq!(home.prints(&["cookie", "show"]), before);
}

#[test]
fn a_daemon_with_a_stalled_log_stops_on_request() {
    let home = Home::new();
    let (_reader, writer) = full_pipe();
    let mut daemon = Program::spawn_complaining_to(home.command(&["start", "--foreground"]), writer.into());
    home.wait_for(&mut daemon);
    // It handles signals before it answers on the EPMD port.
    let _node = home.node("node", 1);
    daemon.signal(Signal::TERM);
    let status = daemon.wait(PATIENCE);
    assert!(status.success(), "{status}");
}

#[test]
fn the_control_socket_is_private_and_a_stale_one_is_replaced() {
    let (home, mut daemon) = Home::started();
    let mode = || std::fs::metadata(home.socket()).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    daemon.kill();
    assert!(home.socket().exists(), "a killed daemon leaves its socket behind");
    assert!(UnixStream::connect(home.socket()).is_err());
    assert_eq!(home.run(&["status"]).code, 3);
    let _next = home.daemon(&[]);
    assert_eq!(mode(), 0o600);
    home.run(&["status"]).ended_with(0);
}

#[test]
fn a_port_held_by_another_program_is_a_conflict_that_names_it() {
    let home = Home::new();
    let _squatter = TcpListener::bind((Ipv4Addr::UNSPECIFIED, home.port)).expect("the port");
    let pid = std::process::id();
    for args in [&["start"][..], &["start", "--foreground"]] {
        let said = home.run(args).ended_with(7);
        let expected = format!("error: port {} is held by a program that is not a port mapper: ", home.port);
        assert!(said.stderr.starts_with(&expected), "{said:?}");
        assert!(said.stderr.contains(&format!("(pid {pid}, ")), "{said:?}");
        assert!(said.stderr.contains("\nhint: stop it, or choose another port with --port"), "{said:?}");
    }
    let json = home.run(&["start", "--json"]).ended_with(7).json();
    assert_eq!(json["error"]["code"], "conflict");
}

#[test]
fn another_pmd_on_the_same_port_is_recognised() {
    let (home, _daemon) = Home::started();
    let elsewhere = home.path().join("other.sock");
    let said = home.run(&["start", "--socket", elsewhere.to_str().expect("a path")]).ended_with(7);
    assert!(said.stderr.contains("is held by another pmd, which does not answer on "), "{said:?}");
    // A socket that serves one port is not used for another.
    let socket = home.socket();
    let said =
        home.run(&["start", "--port", "1", "--socket", socket.to_str().expect("a path")]).ended_with(7);
    assert!(said.stderr.contains(" serves port "), "{said:?}");
}

#[test]
fn an_address_of_another_host_is_rejected() {
    let home = Home::new();
    for args in [&["start", "--bind", "192.0.2.1"][..], &["start", "--foreground", "--bind", "192.0.2.1"]] {
        let said = home.run(args).ended_with(5);
        assert!(
            said.stderr.contains(&format!("error: cannot listen on 192.0.2.1:{}: ", home.port)),
            "{said:?}"
        );
        assert!(said.stderr.contains("\nhint: choose addresses of this host with --bind"), "{said:?}");
    }
    assert_eq!(home.run(&["status"]).code, 3);
}

#[test]
fn a_failed_start_leaves_nothing_behind() {
    let home = Home::new();
    let said = home.run(&["start", "--socket", "/proc/nowhere/pmd.sock"]).ended_with(1);
    assert!(said.stderr.contains("its control socket does not answer, so it was stopped"), "{said:?}");
    assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, home.port)).is_ok(), "the port is still held");
}

#[test]
fn bind_restricts_the_listen_addresses() {
    let home = Home::new();
    home.run(&["start", "--bind", "127.0.0.2"]).ended_with(0);
    let status = home.run(&["status", "--json"]).ended_with(0).json();
    let listening: Vec<String> =
        ["127.0.0.1", "[::1]", "127.0.0.2"].map(|ip| format!("{ip}:{}", home.port)).into();
    assert_eq!(status["listening"], serde_json::json!(listening));
}

#[test]
fn health_reports_through_its_exit_code() {
    let (home, _daemon) = Home::started();
    assert_eq!(home.prints(&["health"]), "healthy\n");
    assert_eq!(home.prints(&["health", "--ready"]), "ready\n");
    let json = home.run(&["health", "--ready", "--json"]).ended_with(0).json();
    assert_eq!(json, serde_json::json!({ "healthy": true, "problems": [] }));
    drop(_daemon);
    assert_eq!(home.run(&["health"]).code, 3);
}

#[test]
fn a_frozen_daemon_is_unhealthy() {
    let (home, daemon) = Home::started();
    // The kernel still accepts connections for it.
    daemon.signal(Signal::STOP);
    let said = home.run(&["health"]).ended_with(8);
    assert!(home.normal(&said.stderr).starts_with("error: the pmd behind HOME/pmd-PORT.sock did not answer"));
    daemon.signal(Signal::CONT);
    home.run(&["health"]).ended_with(0);
}

#[test]
fn a_full_daemon_is_healthy_but_not_ready() {
    let home = Home::new();
    let _daemon = limited(&home, 64);
    let limit = home.run(&["status", "--json"]).ended_with(0).json()["names"]["limit"].clone();
    let nodes: Vec<_> =
        (0..limit.as_u64().expect("a number")).map(|number| home.node(&format!("n{number}"), 1)).collect();
    home.run(&["health"]).ended_with(0);
    let said = home.run(&["health", "--ready"]).ended_with(8);
    assert_eq!(said.stdout, "unhealthy\n  all node slots are in use\n");
    let json = home.run(&["health", "--ready", "--json"]).ended_with(8).json();
    assert_eq!(json["healthy"], false);
    let status = home.run(&["status", "--json"]).ended_with(0).json();
    assert_eq!(
        status["warnings"][1],
        format!("all {limit} node slots are in use: no more nodes can register")
    );
    drop(nodes);
    wait_until("room for nodes", || home.run(&["health", "--ready"]).code == 0);
}

/// A daemon with this descriptor limit.
fn limited(home: &Home, descriptors: usize) -> Program {
    let own = home.command(&["start", "--foreground"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors} && exec \"$@\""), "sh"]);
    command.arg(own.get_program()).args(own.get_args());
    command.env("PMD_HOME", home.path()).env("ERL_EPMD_PORT", home.port.to_string());
    let daemon = Program::spawn(command);
    wait_until("the daemon", || UnixStream::connect(home.socket()).is_ok());
    daemon
}

#[test]
fn status_is_one_screen() {
    let (home, _daemon) = Home::started();
    let _node = home.node("rabbit", 25672);
    home.run(&["register", "web", "-P", "8080"]).ended_with(0);
    home.run(&["lookup", "rabbit"]).ended_with(0);
    let status = home.prints(&["status"]);
    let lines: Vec<&str> = status.lines().collect();
    assert!(
        lines[0].starts_with(&format!("pmd {} on HOST, port PORT, pid PID, up ", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(lines[1], "  addresses       0.0.0.0:PORT, [::]:PORT");
    assert_eq!(lines[2], "  control socket  HOME/pmd-PORT.sock");
    let row = |title: &str| {
        let row = lines.iter().find_map(|line| line.trim_start().strip_prefix(title));
        row.unwrap_or_else(|| panic!("no {title} in\n{status}")).trim()
    };
    assert_eq!(row("cluster "), "pmd: 1 member, 0 links, 1 name, 1 service");
    assert!(row("names ").starts_with("1 registered, 0 remembered, room for "), "{status}");
    assert_eq!(row("services "), "1 registered, room for 10000");
    assert!(row("descriptors ").contains(": 1 registered, 0 waiting, 0 refused"), "{status}");
    assert!(row("registrations ").starts_with("1 made, 0 ended, "), "{status}");
    assert!(lines.len() <= 18, "{status}");

    let json = home.run(&["status", "--json"]).ended_with(0).json();
    assert_eq!(json["names"]["registered"], 1);
    assert_eq!(json["services"]["registered"], 1);
    assert_eq!(json["counters"]["registrations"], 1);
    assert_eq!(json["port"], home.port);
    let plain = home.prints(&["status", "-o", "plain"]);
    assert!(plain.contains("\nnames.registered\t1\n"), "{plain}");
}

#[test]
fn a_low_descriptor_limit_is_a_warning() {
    let home = Home::new();
    let _daemon = limited(&home, 256);
    let json = home.run(&["status", "--json"]).ended_with(0).json();
    let warning = json["warnings"][0].as_str().expect("a warning");
    let limit = &json["names"]["limit"];
    assert!(
        warning
            .starts_with(&format!("only 256 descriptors may be open, so at most {limit} nodes can register")),
        "{warning}"
    );
}

#[test]
fn another_user_is_refused_with_a_hint() {
    let (home, _daemon) = Home::started();
    // The directory is accessible to them, the socket is not.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("changing the mode");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    // The built binary may be in a directory that only root can access.
    let program = home.path().join("pmd");
    std::fs::copy(crate::harness::pmd(), &program).expect("copying the program");
    command.arg(program).arg("reload");
    command.env("PMD_HOME", home.path()).env("ERL_EPMD_PORT", home.port.to_string());
    let said = said(command);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.stderr.starts_with("error: no permission to use "), "{said:?}");
    assert!(
        said.stderr
            .contains("\nhint: run the command as the user that runs the daemon, or set control_group")
    );
}
