//! What another user of the host can do to a daemon, and the files that the daemon leaves behind. Needs root, to be
//! another user.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use crate::harness::daemon::without_variables;
use crate::harness::program::Program;
use crate::harness::said::said;
use crate::harness::{PATIENCE, pmd, wait_until};
use crate::support::Home;

/// A user who owns nothing.
const STRANGER: u32 = 54_321;
const KILL: &[u8] = b"\0\x01k";

/// Does something on a thread that belongs to this user.
fn as_user<T: Send>(user: u32, action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let user = Uid::from_raw(user);
            set_thread_res_uid(user, user, user).expect("this test needs root");
            action()
        });
        thread.join().expect("the action ends")
    })
}

/// The response to a request on the EPMD port.
fn asked(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a daemon");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request).expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a response");
    answer
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").mode() & 0o777
}

/// `pmd ARGS`, run by a shell that does something first.
fn after(home: &Home, first: &str, args: &[&str]) -> Command {
    let plain = home.command(args);
    let mut command = Command::new("sh");
    without_variables(&mut command);
    command
        .args(["-c", &format!("{first}; exec \"$@\""), "sh"])
        .arg(plain.get_program())
        .args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn only_root_and_the_daemons_user_end_a_daemon_by_kill() {
    let (home, mut daemon) = Home::started();
    assert_eq!(as_user(STRANGER, || asked(home.port, KILL)), b"NO");
    // The kernel says that a connection is root's as soon as its process has closed it.
    as_user(STRANGER, || {
        for _ in 0..100 {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, home.port)).expect("a daemon");
            stream.write_all(KILL).expect("a request");
        }
    });
    // The daemon has answered all of them when it answers this one.
    assert!(as_user(STRANGER, || asked(home.port, b"\0\x01n")).len() >= 4);
    assert!(daemon.is_running());
    daemon.wait_for_text("KILL_REQ refused: only root and the daemon's user may end it, with pmd stop");
    assert_eq!(asked(home.port, KILL), b"OK");
    assert!(daemon.wait(PATIENCE).success());
}

#[test]
fn under_the_name_epmd_and_with_the_relaxed_check_every_local_user_may() {
    let home = Home::new();
    let mut epmd = home.command(&[]);
    epmd.arg0("epmd");
    let mut epmd = Program::spawn(epmd);
    home.wait_for(&mut epmd);
    assert_eq!(as_user(STRANGER, || asked(home.port, KILL)), b"OK");
    assert!(epmd.wait(PATIENCE).success());

    let mut relaxed = home.daemon(&["--relaxed-command-check"]);
    let _node = home.node("node", 1);
    assert_eq!(as_user(STRANGER, || asked(home.port, KILL)), b"OK");
    assert!(relaxed.wait(PATIENCE).success());
}

#[test]
fn another_user_does_not_reach_the_control_socket_and_only_reads_the_page() {
    let (home, _daemon) = Home::started();
    // Everybody may enter the directory, so that the mode of the socket alone decides.
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("ours");
    assert!(as_user(STRANGER, || UnixStream::connect(home.socket())).is_err());
    assert!(as_user(0, || UnixStream::connect(home.socket())).is_ok());
    let page = |method: &str, path: &str| {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: localhost:{}\r\nconnection: close\r\n\r\n", home.port);
        String::from_utf8_lossy(&as_user(STRANGER, || asked(home.port, request.as_bytes()))).into_owned()
    };
    assert!(page("GET", "/").starts_with("HTTP/1.1 200 "));
    for method in ["POST", "PUT", "DELETE"] {
        let answer = page(method, "/");
        assert!(answer.starts_with("HTTP/1.1 4"), "{method}: {answer}");
    }
}

#[test]
fn the_umask_opens_no_file() {
    let home = Home::new();
    let said = said(after(&home, "umask 0", &["start"])).ended_with(0);
    assert_eq!(said.stderr, "");
    let log = home.socket().with_extension("log");
    for (path, expected) in [(home.socket(), 0o600), (log, 0o600), (home.path().join("cookie"), 0o600)] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    // Nodes of other users read the hosts file, whatever the umask is.
    home.run(&["stop"]).ended_with(0);
    said_ok(after(&home, "umask 0777", &["start"]));
    wait_until("a hosts file", || home.path().join(format!("hosts-{}", home.port)).exists());
    assert_eq!(mode(&home.path().join(format!("hosts-{}", home.port))), 0o644);
}

fn said_ok(command: Command) {
    said(command).ended_with(0);
}

#[test]
fn the_log_is_not_written_through_a_link() {
    let home = Home::new();
    let target = home.path().join("precious");
    fs::write(&target, "mine").expect("a file");
    symlink(&target, home.socket().with_extension("log")).expect("a link");
    said_ok(home.command(&["start"]));
    home.run(&["stop"]).ended_with(0);
    assert_eq!(fs::read_to_string(&target).expect("it exists"), "mine");
}

#[test]
fn a_secret_of_another_user_is_refused() {
    for name in ["cookie", "node-PORT.key"] {
        let (home, mut daemon) = Home::started();
        let path = home.path().join(name.replace("PORT", &home.port.to_string()));
        home.run(&["stop"]).ended_with(0);
        daemon.wait(PATIENCE);
        chown(&path, Some(STRANGER), None).expect("this test needs root");
        let said = home.run(&["start", "--foreground"]);
        assert_eq!(said.code, 1, "{said:?}");
        let expected = format!("{} belongs to another user (uid {STRANGER})", path.display());
        assert!(said.stderr.contains(&expected), "{said:?}");
        assert!(said.stderr.contains(&format!("chown 0 {}", path.display())), "{said:?}");
        chown(&path, Some(0), None).expect("this test needs root");
        let _daemon = home.daemon(&[]);
    }
}

#[test]
fn a_user_without_a_home_gets_no_shared_directory() {
    let port = Home::new().port;
    // The user has no access to the directory of the binary, but to its descriptor.
    let mut command = Command::new("sh");
    without_variables(&mut command).env_remove("HOME").env("ERL_EPMD_PORT", port.to_string());
    command.args(["-c", "exec /proc/self/fd/0 start"]).stdin(File::open(pmd()).expect("the binary"));
    command.uid(STRANGER).gid(STRANGER).current_dir("/");
    let output = command.output().expect("a shell");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(
        stderr,
        format!(
            "error: the user with uid {STRANGER} has no home directory for pmd's files\n\
             hint: set PMD_HOME to a directory that belongs to this user alone, or set HOME\n"
        )
    );
}
