//! One host of a cluster: its daemon, its home, and the nodes registered there.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pmd::control::client::Client;
use rustix::process::Signal;

use crate::fleet::Site;
use crate::fleet::cell::mortal;
use crate::harness::daemon::{accepted, alive2, register, send, wait_until_up, without_variables};
use crate::harness::program::{Program, run_within};
pub(crate) use crate::harness::said::Said;
use crate::harness::{PATIENCE, pmd};

/// The port of every daemon; each is on its own host.
pub(crate) const PORT: u16 = 4369;
/// Timeout of a command; joining alone may take ten seconds.
const COMMAND: Duration = Duration::from_secs(60);

/// A host and the programs on it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    home: PathBuf,
    daemon: Option<Program>,
    /// Former daemons, kept for their logs.
    former: Vec<Program>,
}

/// An Erlang node as a port mapper sees it: registered until this value is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) host: String,
    stream: TcpStream,
}

impl Registered {
    /// Whether the daemon has neither closed the connection nor sent anything.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let mut byte = [0];
        matches!(self.stream.peek(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Its entry in `names --cluster`.
    pub(crate) fn entry(&self) -> (String, String, u16) {
        (self.name.clone(), self.host.clone(), self.port)
    }
}

impl Machine {
    /// The host `site`, with its files in `home`.
    pub(crate) fn new(site: &Site, home: PathBuf) -> Machine {
        std::fs::create_dir_all(&home).expect("a home");
        Machine { name: site.name.clone(), ip: site.ip, home, daemon: None, former: Vec::new() }
    }

    /// The path of a file in its home.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Writes the configuration file, replacing an earlier one.
    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.file("pmd.toml"), text).expect("writing the configuration");
    }

    /// Writes the cookie file, one cookie per line.
    pub(crate) fn set_cookies(&self, cookies: &[&str]) {
        let place = self.file("cookie");
        let _ = std::fs::remove_file(&place);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place);
        let text: String = cookies.iter().map(|cookie| format!("{cookie}\n")).collect();
        file.expect("a cookie file").write_all(text.as_bytes()).expect("writing the cookie");
    }

    /// Its daemon's API.
    pub(crate) fn api(&self) -> Client {
        Client::new(self.file(&format!("pmd-{PORT}.sock")))
    }

    /// `pmd ARGS` with this host's home; the caller decides where it runs.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = mortal(pmd());
        without_variables(&mut command).args(args).env("PMD_HOME", &self.home).env("HOME", &self.home);
        command
    }

    /// Runs `pmd ARGS` on the host, to its end.
    pub(crate) fn run(&self, site: &Site, args: &[&str]) -> Said {
        let command = self.command(args);
        Said::of(&site.cell.run(move || run_within(COMMAND, command)))
    }

    // ---- the daemon

    /// Starts the daemon and returns at once.
    pub(crate) fn launch(&mut self, site: &Site, environment: &[(&str, &str)]) {
        assert!(self.daemon.is_none(), "one daemon at a time on {}", self.name);
        let mut command = self.command(&["start", "--foreground"]);
        command.envs(environment.iter().copied());
        self.daemon = Some(site.cell.run(move || Program::spawn(command).quietly()));
    }

    /// Waits until the daemon answers.
    pub(crate) fn wait_until_up(&mut self) {
        let socket = self.file(&format!("pmd-{PORT}.sock"));
        let daemon = self.daemon.as_mut().expect("a daemon that was launched");
        wait_until_up(daemon, &socket);
    }

    /// The daemon.
    pub(crate) fn daemon(&mut self) -> &mut Program {
        self.daemon.as_mut().expect("a daemon runs")
    }

    fn running(&self) -> &Program {
        self.daemon.as_ref().expect("a daemon runs")
    }

    /// The daemon's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Kills the daemon.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        daemon.kill();
        self.former.push(daemon);
    }

    /// Terminates the daemon as a service manager does, and waits for its exit.
    pub(crate) fn terminate(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        daemon.signal(Signal::TERM);
        let status = daemon.wait(PATIENCE);
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, daemon.stderr());
        self.former.push(daemon);
    }

    /// Stops tracking a daemon that is about to exit, so that another can be started.
    pub(crate) fn let_go(&mut self) {
        self.former.push(self.daemon.take().expect("a daemon runs"));
    }

    /// Freezes the daemon's process.
    pub(crate) fn freeze(&self) {
        self.running().freeze();
    }

    /// Resumes a frozen daemon.
    pub(crate) fn thaw(&self) {
        self.running().thaw();
    }

    /// Whether a daemon runs here.
    pub(crate) fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// The daemon's resident memory, in KiB.
    pub(crate) fn resident_memory(&self) -> usize {
        self.running().resident_memory()
    }

    /// The logs of its daemons, oldest first.
    pub(crate) fn log(&self) -> String {
        let all = self.former.iter().chain(&self.daemon);
        all.map(|daemon| daemon.stdout() + &daemon.stderr()).collect()
    }

    // ---- nodes

    /// Registers a node over EPMD.
    pub(crate) fn register(&self, site: &Site, name: &str, port: u16) -> Registered {
        let own_name = name.to_owned();
        let stream = site.cell.run(move || register(loopback(), &own_name, port).expect("a registration"));
        Registered { name: name.to_owned(), port, host: self.name.clone(), stream }
    }

    /// Registers `count` nodes at once: all requests are sent before the first response is read.
    pub(crate) fn register_burst(&self, site: &Site, prefix: &str, count: u16) -> Vec<Registered> {
        let names: Vec<String> = (0..count).map(|number| format!("{prefix}{number}")).collect();
        let requests: Vec<Vec<u8>> =
            names.iter().zip(10_000..).map(|(name, port)| alive2(name, port)).collect();
        let streams = site.cell.run(move || {
            let sent: Vec<TcpStream> =
                requests.iter().map(|request| send(loopback(), request).expect("a port mapper")).collect();
            sent.into_iter().map(|stream| accepted(stream).expect("a registration").0).collect::<Vec<_>>()
        });
        let nodes = names.into_iter().zip(10_000..).zip(streams);
        nodes
            .map(|((name, port), stream)| Registered { name, port, host: self.name.clone(), stream })
            .collect()
    }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}
