//! What other users of a host can do beside a daemon that is not theirs, and what they are told. Needs root, to be other
//! users.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::daemon::without_variables;
use crate::harness::netns::NetNs;
use crate::harness::program::Program;
use crate::harness::{PATIENCE, pmd, stock_epmd, wait_until};
use crate::support::{Home, Said};

/// A user who owns nothing.
const STRANGER: u32 = 54_321;
/// Another one.
const MALLORY: u32 = 54_322;

/// Runs a command of another user to its end.
fn said(mut command: Command) -> Said {
    // The harness would replace its standard input.
    Said::of(&command.output().expect("a shell"))
}

/// `pmd ARGS` of another user, who names only the port.
fn of_user(user: u32, port: u16, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    without_variables(&mut command).env("ERL_EPMD_PORT", port.to_string()).env("HOME", "/nonexistent");
    // The user has no access to the directory of the binary, but to its descriptor.
    command.args(["-c", "exec /proc/self/fd/0 \"$@\"", "sh"]).args(args);
    command.stdin(File::open(pmd()).expect("the binary")).uid(user).gid(user).current_dir("/");
    command
}

/// The same, if the user names the directory of the daemon.
fn with_home(home: &Home, args: &[&str]) -> Command {
    let mut command = of_user(STRANGER, home.port, args);
    command.env("PMD_HOME", home.path());
    command
}

/// A running daemon whose directory everybody may enter, so that the mode of the socket alone decides.
fn passable(configuration: &str) -> (Home, Program) {
    let home = Home::new();
    home.configure(configuration);
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("ours");
    let daemon = home.daemon(&[]);
    wait_until("a module", || home.path().join(format!("erlang-{}/pmd_epmd.beam", home.port)).exists());
    (home, daemon)
}

/// What a command says, without what differs from one moment to the next.
fn steady(home: &Home, said: &Said) -> (i32, String, String) {
    let steady = |text: &str| {
        let lines = home.normal(text).lines().map(str::to_owned).collect::<Vec<_>>();
        lines.into_iter().filter(|line| !line.contains(" ms  ")).collect::<Vec<_>>().join("\n")
    };
    (said.code, steady(&said.stdout), steady(&said.stderr))
}

#[test]
fn every_user_reads_beside_a_daemon_that_is_not_theirs() {
    let (home, mut daemon) = passable("");
    let _rabbit = home.node("rabbit", 1);
    home.run(&["register", "web", "-P", "8080"]).ended_with(0);
    let reading: &[&[&str]] = &[
        &["names", "-o", "plain"],
        &["names", "--cluster"],
        &["nodes"],
        &["peers"],
        &["services"],
        &["services", "--cluster"],
        &["lookup", "rabbit"],
        &["lookup", "web", "--json"],
        &["lookup", "none"],
        &["ping", "rabbit"],
        &["env"],
        &["env", "--resolver-only"],
        &["alias"],
        &["alias", "nowhere"],
        &["hosts", "--json"],
        &["run", "--", "sh", "-c", "echo $ERL_AFLAGS $PMD_HOSTS_FILE"],
    ];
    for args in reading {
        let own = steady(&home, &home.run(args));
        for command in [with_home(&home, args), of_user(STRANGER, home.port, args)] {
            assert_eq!(steady(&home, &said(command)), own, "{args:?}");
        }
    }
    for command in [with_home(&home, &["status"]), of_user(STRANGER, home.port, &["status"])] {
        let status = said(command).ended_with(0);
        assert!(status.stdout.contains(&format!("port {}", home.port)), "{status:?}");
    }
    for args in
        [&["stop"][..], &["reload"], &["register", "x", "-P", "1"], &["leave"], &["join", "127.0.0.9"]]
    {
        let refused = said(with_home(&home, args)).ended_with(5);
        assert!(refused.stderr.starts_with("error: no permission to use "), "{args:?}: {refused:?}");
        let refused = said(of_user(STRANGER, home.port, args)).ended_with(5);
        let pid = daemon.pid();
        let expected = format!("is held by the pmd of root (pid {pid}), whose control socket, ");
        assert!(refused.stderr.contains(&expected), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains("run the command as root, or set control_group"), "{refused:?}");
    }
    assert!(daemon.is_running());
    // A socket that belongs to another port is not replaced by whoever serves that port.
    let (other, _daemon) = passable("");
    let mut wrong = with_home(&home, &["names"]);
    wrong.env("PMD_SOCKET", other.socket());
    assert!(said(wrong).ended_with(5).stderr.starts_with("error: no permission to use "));
}

#[test]
fn a_daemon_without_a_page_says_how_to_be_read() {
    let (home, daemon) = passable("web = \"off\"\n");
    let refused = said(with_home(&home, &["names"])).ended_with(5);
    assert!(
        refused.stderr.contains("and the daemon's status page, which needs none, is off\n"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("hint: set control_group "), "{refused:?}");
    let refused = said(of_user(STRANGER, home.port, &["names"])).ended_with(5);
    assert!(refused.stderr.contains("is held by the pmd of root"), "{refused:?}");
    assert!(
        refused.stderr.contains("and whose status page, which everybody may read, is off"),
        "{refused:?}"
    );
    drop(daemon);
    let absent = said(of_user(STRANGER, home.port, &["names"])).ended_with(3);
    assert!(absent.stderr.contains("hint: start it: pmd start"), "{absent:?}");
}

/// In a mount namespace, because the files of the system daemon are at fixed paths.
#[test]
fn without_a_page_nodes_get_the_files_of_the_system_daemon_while_it_runs() {
    let port = Home::new().port;
    let script = format!(
        "set -e
        mount -t tmpfs none /run; mount -t tmpfs none /var/lib; mount -t tmpfs none /etc/pmd 2>/dev/null || true
        mkdir -p /run/bin; cp {pmd} /run/bin/pmd; printf 'web = \"off\"\\n' > /run/pmd.toml
        /run/bin/pmd start --port {port} --config /run/pmd.toml
        while [ ! -e /var/lib/pmd/erlang-{port}/pmd_epmd.beam ]; do sleep 0.02; done
        user() {{ setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups env HOME=/nonexistent /run/bin/pmd --port {port} \"$@\"; }}
        user env
        user run -- cat /var/lib/pmd/erlang-{port}/pmd_epmd.beam | cmp - /var/lib/pmd/erlang-{port}/pmd_epmd.beam && echo loaded
        /run/bin/pmd --port {port} stop
        user env || echo \"ended with $?\"",
        pmd = pmd()
    );
    let mut command = Command::new("unshare");
    without_variables(&mut command).args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let said = said(command).ended_with(0);
    assert!(
        said.stdout.contains(&format!("-pa /var/lib/pmd/erlang-{port} -epmd_module pmd_epmd")),
        "{said:?}"
    );
    assert!(said.stdout.contains("\nloaded\n") && said.stdout.ends_with("\nended with 3\n"), "{said:?}");
}

#[test]
fn code_of_a_daemon_that_belongs_to_somebody_else_is_not_loaded() {
    let home = Home::new();
    // Mallory was first on the port. Root has a daemon of their own in mind, or none.
    let folder = TempDir::new().expect("a folder");
    chown(folder.path(), Some(MALLORY), Some(MALLORY)).expect("root may");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("root may");
    let mut daemon = of_user(MALLORY, home.port, &["start", "--foreground"]);
    daemon.env("PMD_HOME", folder.path());
    let daemon = Program::spawn_with(daemon, File::open(pmd()).expect("the binary").into());
    wait_until("a module", || folder.path().join(format!("erlang-{}/pmd_epmd.beam", home.port)).exists());
    for args in [&["run", "--", "true"][..], &["env"], &["env", "--resolver-only"]] {
        let refused = said(of_user(STRANGER, home.port, args)).ended_with(5);
        assert!(refused.stderr.contains("contain code and are not to be trusted: "), "{refused:?}");
        assert!(refused.stderr.contains(&format!("belongs to the user with uid {MALLORY}")), "{refused:?}");
    }
    // Reading is as safe as with EPMD, and a user's own daemon is trusted.
    said(of_user(STRANGER, home.port, &["names"])).ended_with(0);
    let mut own = of_user(MALLORY, home.port, &["run", "--", "true"]);
    own.env("PMD_HOME", folder.path());
    said(own).ended_with(0);
    drop(daemon);
}

#[test]
fn the_daemon_of_another_user_is_not_taken_for_an_epmd() {
    let (home, daemon) = passable("");
    let own = TempDir::new().expect("a folder");
    chown(own.path(), Some(STRANGER), Some(STRANGER)).expect("root may");
    for command in ["start", "takeover"] {
        let mut command = of_user(STRANGER, home.port, &[command]);
        command.env("HOME", own.path());
        let said = said(command).ended_with(7);
        let expected = format!(
            "error: port {} is held by the pmd of root (pid {}), which serves every user of this host\n",
            home.port,
            daemon.pid()
        );
        assert!(said.stderr.starts_with(&expected) && !said.stderr.contains("pmd takeover"), "{said:?}");
    }
    let handover = said(of_user(STRANGER, home.port, &["handover", "--dry-run"])).ended_with(5);
    assert!(handover.stderr.contains("is held by the pmd of root"), "{handover:?}");
    let doctor = said(of_user(STRANGER, home.port, &["doctor"]));
    assert!(!doctor.stdout.contains("pmd takeover"), "{doctor:?}");
}

#[test]
fn takeover_is_suggested_to_whom_it_works_for() {
    let home = Home::new();
    let mut stock = Command::new(stock_epmd());
    without_variables(&mut stock).args(["-port", &home.port.to_string()]);
    let _stock = Program::spawn(stock);
    wait_until("an epmd", || TcpStream::connect((Ipv4Addr::LOCALHOST, home.port)).is_ok());
    let own = TempDir::new().expect("a folder");
    chown(own.path(), Some(STRANGER), Some(STRANGER)).expect("root may");
    let mut start = of_user(STRANGER, home.port, &["start"]);
    start.env("HOME", own.path());
    let told = said(start).ended_with(7);
    let hint =
        "\nhint: replace it without restarting a node, as root or as the user who runs it: pmd takeover\n";
    assert!(told.stderr.contains("is held by an epmd: ") && told.stderr.ends_with(hint), "{told:?}");
    let told = home.run(&["start"]).ended_with(7);
    assert!(
        told.stderr.ends_with("\nhint: replace it without restarting a node: pmd takeover\n"),
        "{told:?}"
    );
}

#[test]
fn an_outgoing_connection_on_the_port_is_named() {
    let host = NetNs::new();
    let (_here, _there, home) = host.enter(|| {
        let home = Home::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        let own = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, home.port));
        rustix::net::bind(&socket, &own).expect("the port");
        rustix::net::connect(&socket, &listener.local_addr().expect("bound")).expect("a connection");
        (socket, listener, home)
    });
    let told = host.enter(|| home.run(&["start"])).ended_with(7);
    let expected =
        format!("error: port {} is in use as the source port of a connection to 127.0.0.1:", home.port);
    assert!(told.stderr.starts_with(&expected), "{told:?}");
    assert!(told.stderr.contains(&format!("(pid {}, ", std::process::id())), "{told:?}");
    assert!(told.stderr.contains(&format!("net.ipv4.ip_local_reserved_ports={}\n", home.port)), "{told:?}");
}

/// The name and the first argument of a process.
fn called(pid: u32) -> (String, String) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
    let first = read("cmdline").split('\0').next().unwrap_or_default().to_owned();
    (read("comm").trim_end().to_owned(), first)
}

#[test]
fn a_background_daemon_has_the_name_and_the_path_of_its_program() {
    let home = Home::new();
    let started = home.run(&["start", "--json"]).ended_with(0).json();
    let pid = started["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id");
    let path = fs::canonicalize(pmd()).expect("a path").display().to_string();
    assert_eq!(called(pid), ("pmd".into(), path));
}

#[test]
fn under_the_name_epmd_it_keeps_the_path_by_which_it_was_started() {
    let home = Home::new();
    let link = home.path().join("epmd");
    std::os::unix::fs::symlink(pmd(), &link).expect("a link");
    let mut daemon = Command::new(&link);
    without_variables(&mut daemon).env("ERL_EPMD_PORT", home.port.to_string()).arg("-daemon");
    said(daemon).ended_with(0);
    let found = fs::read_dir("/proc").expect("processes").filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        line.starts_with(link.to_str()?).then_some(pid)
    });
    let found: Vec<u32> = found.collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(called(found[0]), ("epmd".into(), link.display().to_string()));
    let mut kill = Command::new(&link);
    without_variables(&mut kill).env("ERL_EPMD_PORT", home.port.to_string()).arg("-kill");
    said(kill).ended_with(0);
}

/// The response to a request for a ping on the EPMD port.
fn ping(home: &Home, head: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, home.port)).expect("a daemon");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let body = r#"{"node":"none"}"#;
    let length = body.len();
    let request = format!(
        "POST /v1/ping HTTP/1.1\r\n{head}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    // Closing with an unread body causes a reset; the response may have arrived before it.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_ping_on_the_port_is_limited_and_out_of_reach_of_browsers() {
    let (home, _daemon) = Home::started();
    let json = "content-type: application/json\r\n";
    assert!(ping(&home, &format!("host: localhost\r\n{json}")).starts_with("HTTP/1.1 404 "));
    assert!(ping(&home, "host: localhost\r\ncontent-type: text/plain\r\n").starts_with("HTTP/1.1 415 "));
    assert!(ping(&home, &format!("host: evil.example\r\n{json}")).starts_with("HTTP/1.1 403 "));
    let answers: Vec<String> = (0..60).map(|_| ping(&home, &format!("host: localhost\r\n{json}"))).collect();
    let refused =
        answers.iter().find(|answer| answer.starts_with("HTTP/1.1 503 ")).expect("there is a limit");
    assert!(refused.contains("have sent too many pings"), "{refused}");
    // The control socket has no such limit.
    for _ in 0..5 {
        home.run(&["ping", "none"]).ended_with(4);
    }
}
