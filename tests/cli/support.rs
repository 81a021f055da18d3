//! A separate pmd for each test: its home, its port, and its commands.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::daemon::{register, wait_until_up, without_variables};
use crate::harness::pmd;
use crate::harness::program::Program;
pub(crate) use crate::harness::said::{Said, said};

/// The home directory and port of a test's pmd.
#[derive(Debug)]
pub(crate) struct Home {
    folder: TempDir,
    pub(crate) port: u16,
}

impl Home {
    /// An empty home and a free port.
    pub(crate) fn new() -> Home {
        Home { folder: TempDir::new().expect("a folder"), port: own_port() }
    }

    /// A home with a running daemon.
    pub(crate) fn started() -> (Home, Program) {
        let home = Home::new();
        let daemon = home.daemon(&[]);
        (home, daemon)
    }

    /// The home's folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the control socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join(format!("pmd-{}.sock", self.port))
    }

    /// Writes the configuration file.
    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.path().join("pmd.toml"), text).expect("writing the configuration");
    }

    /// `pmd ARGS` with only this home in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(pmd());
        without_variables(&mut command).args(args);
        command.env("PMD_HOME", self.path()).env("ERL_EPMD_PORT", self.port.to_string());
        command
    }

    /// Runs `pmd ARGS` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(self.command(args))
    }

    /// Runs `pmd ARGS`, which must succeed with empty standard error, and returns its output, with everything that
    /// differs from run to run replaced.
    pub(crate) fn prints(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "pmd {args:?} printed\n{}", said.stdout);
        self.normal(&said.stdout)
    }

    /// Runs `pmd ARGS`, whose standard output must be empty, and returns its exit code and standard error, with
    /// everything that differs from run to run replaced.
    pub(crate) fn complains(&self, args: &[&str]) -> (i32, String) {
        let said = self.run(args);
        assert_eq!(said.stdout, "", "pmd {args:?} printed something\n{}", said.stderr);
        (said.code, self.normal(&said.stderr))
    }

    /// Text with this test's port, folder, host, process ids and times replaced.
    pub(crate) fn normal(&self, text: &str) -> String {
        let text = text
            .replace(&self.path().display().to_string(), "HOME")
            .replace(&self.port.to_string(), "PORT")
            .replace(&host_name(), "HOST");
        masked(&masked(&text, "pid ", "PID"), "\"pid\": ", "PID")
    }

    /// Starts the daemon in the foreground and waits until it answers.
    pub(crate) fn daemon(&self, args: &[&str]) -> Program {
        let mut command = self.command(&["start", "--foreground"]);
        command.args(args);
        let mut program = Program::spawn(command);
        self.wait_for(&mut program);
        program
    }

    /// Waits until the daemon `program` answers.
    pub(crate) fn wait_for(&self, program: &mut Program) {
        wait_until_up(program, &self.socket());
    }

    /// Sends bytes to the control socket and returns the whole response.
    pub(crate) fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("a daemon");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("writing the request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("a response");
        answer
    }

    /// One request of the control API: the HTTP status and the body.
    pub(crate) fn http(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let answer = self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| unchunked(body));
        let body = body.map(|body| serde_json::from_str(&body).unwrap_or(Value::String(body)));
        (status.expect("a status"), body.expect("a body"))
    }

    /// Registers a node over EPMD; it stays registered while the returned connection is open.
    pub(crate) fn node(&self, name: &str, port: u16) -> TcpStream {
        register((Ipv4Addr::LOCALHOST, self.port).into(), name, port).expect("a registration")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Background daemons are not children of the test.
        let _ = self.command(&["stop"]).output();
    }
}

/// A port for this test: below the ephemeral range, and different each time.
fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).expect("it is below 10,000");
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let free = |address: IpAddr| TcpListener::bind((address, port)).is_ok();
        if free(Ipv4Addr::UNSPECIFIED.into()) && free(Ipv6Addr::UNSPECIFIED.into()) {
            return port;
        }
    }
}

/// What `hostname` prints.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Replaces the number after each `before`.
fn masked(text: &str, before: &str, with: &str) -> String {
    let mut pieces = text.split(before);
    let mut masked = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        masked.push_str(before);
        masked.push_str(if rest.len() == piece.len() { "" } else { with });
        masked.push_str(rest);
    }
    masked
}

/// Decodes a body in chunked transfer coding, if it is (RFC 9112, section 7.1).
fn unchunked(body: &str) -> String {
    let mut rest = body;
    let mut whole = String::new();
    while let Some((length, chunk)) = rest.split_once("\r\n") {
        let Ok(length) = usize::from_str_radix(length, 16) else { return body.to_owned() };
        whole.push_str(&chunk[..length]);
        rest = &chunk[length + 2..];
        if length == 0 {
            return whole;
        }
    }
    body.to_owned()
}
