//! `pmd start --foreground` under a service manager: sockets handed over, readiness told.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::PATIENCE;
use crate::harness::program::Program;
use crate::support::Home;

/// One datagram of the daemon, with its process id replaced.
fn heard(manager: &UnixDatagram, daemon: &Program) -> String {
    let mut datagram = [0; 512];
    let length = manager.recv(&mut datagram).expect("a notification");
    String::from_utf8_lossy(&datagram[..length]).replace(&daemon.pid().to_string(), "PID")
}

#[test]
fn the_service_manager_hands_sockets_over_and_is_told_of_start_and_end() {
    let home = Home::new();
    let manager = UnixDatagram::bind(home.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    // Only on one address, where pmd by itself would take all: so it is seen which socket is served.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, home.port)).expect("the port");

    // A shell takes the socket as its input, the only way in, and becomes pmd, so that the pid is right.
    let script = "LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\" 3<&0 </dev/null";
    let pmd = home.command(&["start", "--foreground"]);
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(pmd.get_program()).args(pmd.get_args());
    for (name, value) in pmd.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.env("NOTIFY_SOCKET", home.path().join("notify"));
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Program::adopt(command.spawn().expect("a shell"), "pmd under a service manager");

    assert_eq!(heard(&manager, &daemon), "READY=1\nSTATUS=Processing port mapping requests...\nMAINPID=PID");
    let _node = home.node("rabbit", 25672);
    let status = home.run(&["status", "--json"]).ended_with(0).json();
    assert_eq!(status["listening"], serde_json::json!([format!("127.0.0.1:{}", home.port)]));
    daemon.signal(Signal::TERM);
    assert_eq!(heard(&manager, &daemon), "STOPPING=1");
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0));
}
