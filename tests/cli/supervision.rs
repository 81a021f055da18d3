//! `pmd start --foreground` under a service manager: socket activation and notifications.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::PATIENCE;
use crate::harness::program::Program;
use crate::support::Home;

/// One notification from the daemon, with its process id replaced.
fn heard(manager: &UnixDatagram, daemon: &Program) -> String {
    let mut datagram = [0; 512];
    let length = manager.recv(&mut datagram).expect("a notification");
    String::from_utf8_lossy(&datagram[..length]).replace(&daemon.pid().to_string(), "PID")
}

/// `pmd ARGS`, started as by a service manager that passes it a socket.
fn handed_over(home: &Home, listener: TcpListener, args: &[&str]) -> Command {
    // A shell gets the socket as standard input and execs pmd, so that LISTEN_PID is right.
    let script = "LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\" 3<&0 </dev/null";
    let pmd = home.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(pmd.get_program()).args(pmd.get_args());
    for (name, value) in pmd.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.env("LISTEN_FDNAMES", "pmd.socket");
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn sockets_are_taken_from_the_service_manager_which_is_notified() {
    let home = Home::new();
    let manager = UnixDatagram::bind(home.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    // On one address, while pmd would bind all: this shows which socket is used.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, home.port)).expect("the port");

    let mut command = handed_over(&home, listener, &["start", "--foreground"]);
    command.env("NOTIFY_SOCKET", home.path().join("notify"));
    let mut daemon = Program::adopt(command.spawn().expect("a shell"), "pmd under a service manager");

    assert_eq!(heard(&manager, &daemon), "READY=1\nSTATUS=Processing port mapping requests...\nMAINPID=PID");
    let _node = home.node("rabbit", 25672);
    let status = home.run(&["status", "--json"]).ended_with(0).json();
    assert_eq!(status["listening"], serde_json::json!([format!("127.0.0.1:{}", home.port)]));
    daemon.signal(Signal::TERM);
    assert_eq!(heard(&manager, &daemon), "STOPPING=1");
    assert_eq!(daemon.wait(PATIENCE).code(), Some(0));
}

#[test]
fn addresses_overridden_by_the_socket_unit_are_warned_of() {
    let home = Home::new();
    home.configure("bind = [\"127.0.0.2\"]\n");
    for (flags, option) in [
        (&["--bind", "127.0.0.3"][..], Some("--bind (127.0.0.3)")),
        (&[], Some("bind in the configuration file (127.0.0.2)")),
        (&["--bind", "127.0.0.1"], None),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, home.port)).expect("the port");
        let mut args = vec!["start", "--foreground"];
        args.extend(flags);
        let mut command = handed_over(&home, listener, &args);
        let log = home.path().join("log");
        command.stderr(std::fs::File::create(&log).expect("a file"));
        let mut daemon = Program::adopt(command.spawn().expect("a shell"), "pmd with a socket");
        home.wait_for(&mut daemon);
        let said = std::fs::read_to_string(&log).expect("the log");
        let warning = option.map(|option| {
            format!(
                "{option} has no effect: systemd passed sockets that listen on 127.0.0.1:{}; set ListenStream= \
                 instead: systemctl edit pmd.socket",
                home.port
            )
        });
        let lines: Vec<_> = said.lines().filter(|line| line.contains("has no effect")).collect();
        assert_eq!(lines.len(), usize::from(warning.is_some()), "{said}");
        assert!(warning.is_none_or(|warning| lines[0].ends_with(&warning)), "{said}");
        daemon.signal(Signal::TERM);
        assert!(daemon.wait(PATIENCE).success());
    }
}
