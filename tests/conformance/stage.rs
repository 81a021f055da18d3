//! The environment of a case: a host, a server, the connections to it, and the notes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::battery::Setting;
use crate::harness::daemon::without_variables;
use crate::harness::netns::NetNs;
use crate::harness::program::{Program, run};
use crate::harness::{PATIENCE, wait_until};
use crate::implementation::Implementation;
use crate::peer::{Notes, Peer, printable};
use crate::{sockets, wire};

/// The environment of one case.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) netns: &'a NetNs,
    pub(crate) server: Option<Program>,
    /// A directory that is deleted with the case.
    pub(crate) dir: TempDir,
    epmd: &'a Implementation,
    setting: &'a Setting,
    notes: Notes,
}

/// A node registered as set-up.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) name: Vec<u8>,
    pub(crate) creation: u32,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(epmd: &'a Implementation, netns: &'a NetNs, setting: &'a Setting) -> Stage<'a> {
        let dir = TempDir::new().expect("a directory for the case");
        Stage { netns, server: None, dir, epmd, setting, notes: Rc::default() }
    }

    /// Ends all programs of the case and returns its notes.
    pub(crate) fn finish(self) -> Vec<String> {
        drop(self.server);
        for pid in self.netns.processes() {
            // All processes in this namespace were started by the case; some may have exited meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        // A listener of the case may briefly survive in a process that another thread is starting.
        wait_until("the programs of the case to end", || {
            self.netns.processes().is_empty() && sockets::all_listeners().is_empty()
        });
        self.notes.take()
    }

    // ---- programs

    /// A command for the program under test, with the environment of the case.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut words = self.setting.wrapper.iter().map(String::as_str).map(std::ffi::OsStr::new);
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.epmd.program);
                command
            }
            None => Command::new(&self.epmd.program),
        };
        without_variables(&mut command)
            .args(args)
            .envs(self.setting.env.iter().map(|(name, value)| (name, value)));
        self.at_home(&mut command);
        command
    }

    /// Gives a command its own home directory, because instances of pmd must not share files.
    pub(crate) fn at_home(&self, command: &mut Command) {
        let home = tempfile::Builder::new().tempdir_in(self.dir.path()).expect("a home").keep();
        command.env("PMD_HOME", &home).env("HOME", &home);
    }

    /// Starts the server with the settings of the case, and waits until it listens.
    pub(crate) fn start(&mut self) {
        let args: Vec<&str> = self.setting.args.iter().map(String::as_str).collect();
        self.start_with(&args);
    }

    /// Starts the server with these arguments, and waits until it listens on the port of the case.
    pub(crate) fn start_with(&mut self, args: &[&str]) {
        self.server = None;
        let program = Program::spawn(self.command(args));
        self.server = Some(program);
        self.wait_until_listening();
    }

    /// Waits for listeners on the port of the case.
    pub(crate) fn wait_until_listening(&mut self) {
        self.wait_until_listening_at(self.setting.port);
    }

    /// Waits for a listener of each address family that the host has.
    pub(crate) fn wait_until_listening_at(&mut self, port: u16) {
        let ipv6 = self.setting.ipv6;
        wait_until(&format!("a server at port {port}"), || {
            let listeners = sockets::listeners(port);
            let ended = self.server.as_mut().is_some_and(|server| !server.is_running());
            assert!(!ended, "the server has ended instead of listening: {}", self.server_log());
            listeners.iter().any(IpAddr::is_ipv4) && (!ipv6 || listeners.iter().any(IpAddr::is_ipv6))
        });
    }

    /// Kills the server.
    pub(crate) fn kill_server(&mut self) {
        self.server = None;
        wait_until("the port to be free", || sockets::listeners(self.setting.port).is_empty());
    }

    /// The server's process id.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("a server").pid()
    }

    /// Signals the server.
    pub(crate) fn signal(&self, signal: Signal) {
        self.server.as_ref().expect("a server").signal(signal);
    }

    /// Stops the server, so that it sees everything that happens meanwhile at once when it continues.
    pub(crate) fn stop_server(&self) {
        self.server.as_ref().expect("a server").freeze();
    }

    /// Resumes a stopped server.
    pub(crate) fn continue_server(&self) {
        self.signal(Signal::CONT);
    }

    /// The server's log.
    pub(crate) fn server_log(&self) -> String {
        self.server.as_ref().map_or(String::new(), |server| server.stdout() + &server.stderr())
    }

    /// Waits for the server to exit and notes how it ended.
    pub(crate) fn server_ends(&mut self) {
        let status = self.server.as_mut().expect("a server").wait(PATIENCE);
        self.note(&format!("server: {}", ending(status)));
    }

    /// Notes whether the server is running and answers.
    pub(crate) fn server_lives(&mut self) {
        let running = self.server.as_mut().expect("a server").is_running();
        let answers = running && self.names_text().is_some();
        self.note(if answers { "server: lives" } else { "server: is gone" });
    }

    /// Runs the program under test as a client and notes its output.
    pub(crate) fn runs(&self, what: &str, args: &[&str]) {
        let output = run(self.command(args));
        self.note(&format!("{what}: {}", said(&output)));
    }

    // ---- connections

    /// The server's address for ordinary connections.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.setting.port)
    }

    /// Connects over IPv4 loopback.
    pub(crate) fn dial(&self, who: &str) -> Peer {
        Peer::connect(who, None, self.address(), &self.notes)
    }

    /// Connects over IPv4 loopback, unless nothing is listening any more.
    pub(crate) fn try_dial(&self, who: &str) -> Option<Peer> {
        Peer::try_connect(who, None, self.address(), &self.notes).ok()
    }

    /// Connects to any address.
    pub(crate) fn dial_at(&self, who: &str, address: SocketAddr) -> Peer {
        Peer::connect(who, None, address, &self.notes)
    }

    /// Connects from one address to another.
    pub(crate) fn dial_between(&self, who: &str, from: &str, to: &str) -> Peer {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        Peer::connect(who, Some(address(from)), SocketAddr::new(address(to), self.setting.port), &self.notes)
    }

    /// Connects to a Unix socket.
    pub(crate) fn dial_unix(&self, who: &str, path: &Path) -> Peer {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("a socket");
        connect(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a listener there");
        Peer::over(who, socket, self.address(), &self.notes)
    }

    /// A peer on a socket that is connected already.
    pub(crate) fn over(&self, who: &str, socket: OwnedFd) -> Peer {
        Peer::over(who, socket, self.address(), &self.notes)
    }

    /// Sends one request on a new connection and notes the response.
    pub(crate) fn ask(&self, who: &str, request: &[u8]) {
        let peer = self.dial(who);
        peer.send(request);
        peer.reads_to_end();
    }

    /// Sends one request on a new connection and waits for its end.
    pub(crate) fn ask_silently(&self, request: &[u8]) {
        let peer = self.dial("aside");
        peer.send(request);
        peer.all();
    }

    /// Registers a node, which must succeed.
    pub(crate) fn register(&self, name: impl AsRef<[u8]>) -> Node {
        self.register_as(&wire::Alive2::new(name))
    }

    /// Registers a node with this request, which must succeed.
    pub(crate) fn register_as(&self, request: &wire::Alive2) -> Node {
        let peer = self.dial(&printable(&request.name));
        peer.send(&request.bytes());
        let creation = peer.is_registered();
        Node { peer, name: request.name.clone(), creation }
    }

    /// Registers and unregisters a node, so that its name becomes an old one. Returns its creation.
    pub(crate) fn remember(&self, name: impl AsRef<[u8]>) -> u32 {
        let node = self.register(name);
        let Node { peer, name, creation } = node;
        drop(peer);
        self.wait_until_unregistered(&name);
        creation
    }

    /// Waits until a name is no longer listed.
    pub(crate) fn wait_until_unregistered(&self, name: &[u8]) {
        wait_until(&format!("{} to be unregistered", printable(name)), || !self.has(name));
    }

    /// Whether a name is listed.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        let text = self.names_text().unwrap_or_default();
        let entry = [b"name ", name, b" at port "].concat();
        text.windows(entry.len()).any(|window| window == entry)
    }

    /// Notes the listed names, in order.
    pub(crate) fn lists(&self, what: &str) {
        let text = self.names_text().unwrap_or_default();
        let names: Vec<String> = text
            .split_inclusive(|&byte| byte == b'\n')
            .map(|line| printable(line).replace("name ", "").replace(r"\n", ""))
            .map(|line| line.split(" at port ").next().unwrap_or_default().to_owned())
            .collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        self.note(&format!("{what}: {names}"));
    }

    /// The lines of NAMES; none if the server does not answer.
    pub(crate) fn names_text(&self) -> Option<Vec<u8>> {
        self.answer(&wire::names())
    }

    /// The lines of DUMP, without the NUL bytes and with every descriptor number replaced by `N`.
    pub(crate) fn dump_lines(&self) -> Vec<String> {
        let text = self.answer(&wire::dump()).expect("an answer to DUMP");
        let lines = text.split(|&byte| byte == 0).filter(|line| !line.is_empty());
        lines.map(|line| without_descriptor(&printable(line))).collect()
    }

    fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let peer = self.try_dial("probe")?;
        if !peer.try_send(request) {
            return None;
        }
        peer.all().get(4..).map(<[u8]>::to_vec)
    }

    /// Notes that a connection is open and silent after the server has answered another client.
    pub(crate) fn stays_open(&self, peer: &Peer) {
        assert!(self.names_text().is_some(), "the server does not answer");
        peer.is_open();
    }

    /// Notes a line.
    pub(crate) fn note(&self, line: &str) {
        self.notes.borrow_mut().push(line.to_owned());
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u32::try_from(now.as_secs()).expect("a clock before 2106")
}

/// How a process ended, as a shell would report it.
pub(crate) fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "neither exit nor signal".to_owned(),
    }
}

/// The exit status and output of a program.
pub(crate) fn said(output: &Output) -> String {
    let mut text = ending(output.status);
    for (stream, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            text += &format!(", {stream} {}", printable(bytes));
        }
    }
    text
}

/// Replaces the number after `fd = `, which varies.
fn without_descriptor(line: &str) -> String {
    match line.rsplit_once("fd = ") {
        Some((front, tail)) => {
            format!("{front}fd = N{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    }
}
