//! The environment of a test: a host, a daemon, and a few resident nodes that must stay unaffected.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::client::{Client, Verdict, ask};
use crate::harness::daemon::{wait_until_up, without_variables};
use crate::harness::netns::NetNs;
use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::wire::{self, Alive2};
use crate::{budget, harness};

/// The port of the daemon; every host has its own.
const PORT: u16 = 4369;
/// Descriptors that the daemon itself may open after it was first inspected.
pub(crate) const LATE_DESCRIPTORS: usize = 4;

/// Options for the daemon and its host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    args: Vec<&'static str>,
    threads: Option<usize>,
    descriptors: Option<usize>,
    mtu: Option<u32>,
    stderr: Option<Arc<OwnedFd>>,
    log: Option<&'static str>,
}

impl Setting {
    /// All defaults.
    pub(crate) fn new() -> Setting {
        Setting::default()
    }

    /// With these arguments.
    pub(crate) fn args(self, args: &[&'static str]) -> Setting {
        Setting { args: args.to_vec(), ..self }
    }

    /// With this many threads serving the port: as `pmd`, because `epmd` takes no configuration.
    pub(crate) fn threads(self, threads: usize) -> Setting {
        Setting { threads: Some(threads), ..self }
    }

    /// With at most this many descriptors.
    pub(crate) fn descriptors(self, limit: usize) -> Setting {
        Setting { descriptors: Some(limit), ..self }
    }

    /// With the MTU of an ordinary network instead of the loopback's 64 KiB, so that the kernel buffers no more of a
    /// response than it does for a remote peer.
    pub(crate) fn ordinary_packets(self) -> Setting {
        Setting { mtu: Some(1500), ..self }
    }

    /// With this standard error.
    pub(crate) fn stderr(self, stderr: OwnedFd) -> Setting {
        Setting { stderr: Some(stderr.into()), ..self }
    }

    /// With this log level, as `pmd`.
    pub(crate) fn log(self, level: &'static str) -> Setting {
        Setting { log: Some(level), ..self }
    }

    /// The daemon's command, with its files in `dir`.
    fn command(&self, dir: &Path) -> Command {
        let mut words = Vec::new();
        if let Some(limit) = self.descriptors {
            words.extend(["prlimit".into(), format!("--nofile={limit}")]);
        }
        if let Some(threads) = self.threads {
            std::fs::write(dir.join("pmd.toml"), format!("threads = {threads}\n")).expect("a configuration");
            words.extend([harness::pmd().into(), "start".into(), "--foreground".into()]);
        } else {
            let link = dir.join("epmd");
            std::os::unix::fs::symlink(harness::pmd(), &link).expect("a link to pmd");
            words.extend([link.display().to_string(), "-port".into(), PORT.to_string()]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.args);
        command
    }
}

/// A registered node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) request: Alive2,
    pub(crate) creation: u32,
    pub(crate) client: Client,
}

/// The host and the programs on it.
#[derive(Debug)]
pub(crate) struct World {
    epmd: Program,
    /// The nodes registered at the start, oldest first.
    residents: Vec<Node>,
    /// Descriptors in use once they were registered.
    descriptors: usize,
    _dir: TempDir,
}

/// Runs `scenario` against a daemon with a few registered nodes, and proves that both are unaffected.
pub(crate) fn play(setting: &Setting, scenario: impl FnOnce(&World) + Send) {
    // Raised before any child process could inherit the lower limit.
    budget::descriptor_limit();
    let netns = starting(|| {
        let netns = NetNs::new();
        if let Some(mtu) = setting.mtu {
            netns.ip(&["link", "set", "lo", "mtu", &mtu.to_string()]);
        }
        netns
    });
    netns.enter(|| {
        let mut world = starting(|| World::start(setting));
        scenario(&world);
        world.prove_untouched();
    });
    starting(|| drop(netns));
}

/// Held for reading while a process is started, and for writing while none may be started.
static STARTS: RwLock<()> = RwLock::new(());

/// Runs work that starts processes.
pub(crate) fn starting<T>(work: impl FnOnce() -> T) -> T {
    let _held = STARTS.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Runs work that relies on dropped connections being closed. No process is started meanwhile, because a new one holds
/// copies of all descriptors until it execs.
pub(crate) fn without_new_processes<T>(work: impl FnOnce() -> T) -> T {
    let _held = STARTS.write().unwrap_or_else(PoisonError::into_inner);
    work()
}

impl World {
    fn start(setting: &Setting) -> World {
        let dir = TempDir::new().expect("a directory");
        let mut command = setting.command(dir.path());
        without_variables(&mut command)
            .env("PMD_HOME", dir.path())
            .envs(setting.log.map(|level| ("PMD_LOG", level)));
        let mut epmd = match &setting.stderr {
            Some(stderr) => Program::spawn_complaining_to(
                command,
                stderr.try_clone().expect("duplicating a descriptor").into(),
            ),
            None => Program::spawn(command),
        };
        wait_until_up(&mut epmd, &dir.path().join(format!("pmd-{PORT}.sock")));
        let mut world = World { epmd, residents: Vec::new(), descriptors: 0, _dir: dir };
        let residents = [
            Alive2::new("alpha").port(41_001),
            Alive2::new("beta").port(41_002).extra(b"\0extra\xff"),
            Alive2::new("gämma-中").port(41_003).highest(5),
            Alive2::new("with a space").port(0),
            Alive2::new("d".repeat(254)).port(65_535),
        ];
        world.residents = residents.map(|request| world.register(request)).into();
        // Waits until it has closed the descriptors it used during start-up.
        world.wait_until_at_rest();
        world.descriptors = world.descriptors_in_use().len();
        world
    }

    /// The daemon's address.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, PORT).into()
    }

    /// The daemon's address in another loopback network, to have a separate range of client ports, because connections
    /// to a single address would exhaust it.
    pub(crate) fn other_address(&self, network: u8) -> SocketAddr {
        (Ipv4Addr::new(127, network, 0, 1), PORT).into()
    }

    /// Connects to the daemon.
    pub(crate) fn dial(&self) -> Client {
        Client::connect(self.address())
    }

    /// Connects to the daemon and sends all of `bytes` at once.
    pub(crate) fn send(&self, bytes: &[u8]) -> Client {
        Client::sending(self.address(), bytes)
    }

    /// Sends one request on a new connection and returns the whole response.
    pub(crate) fn ask(&self, request: &[u8]) -> Vec<u8> {
        ask(self.address(), request)
    }

    // ---- nodes

    /// The nodes that must stay unaffected, oldest first.
    pub(crate) fn residents(&self) -> &[Node] {
        &self.residents
    }

    /// Registers a node, which must succeed.
    pub(crate) fn register(&self, request: Alive2) -> Node {
        let name = request.name.escape_ascii().to_string();
        self.try_register(request).unwrap_or_else(|verdict| panic!("registering {name}: {verdict:?}"))
    }

    /// Registers a node, or returns the other outcome.
    pub(crate) fn try_register(&self, request: Alive2) -> Result<Node, Verdict> {
        let client = self.send(&request.bytes());
        // Old clients get a shorter response with a creation of two bits.
        let verdict = match request.highest {
            6.. => client.verdict(),
            _ => match client.read(4).as_slice() {
                [121, 0, 0, creation] => Verdict::Accepted(u32::from(*creation)),
                other => panic!("no answer to an old ALIVE2_REQ: {}", other.escape_ascii()),
            },
        };
        match verdict {
            Verdict::Accepted(creation) => Ok(Node { request, creation, client }),
            other => Err(other),
        }
    }

    /// Looks a node up, which must be registered exactly as requested.
    pub(crate) fn look_up(&self, node: &Alive2) {
        let answer = self.ask(&wire::port2(&node.name));
        let name = node.name.escape_ascii();
        assert!(answer == found(node), "lookup of {name}: {}", answer.escape_ascii());
    }

    /// Looks up every resident.
    pub(crate) fn look_up_residents(&self) {
        self.residents.iter().for_each(|node| self.look_up(&node.request));
    }

    /// Runs `scenario` while another thread keeps looking up the residents, which must succeed.
    pub(crate) fn while_looked_up<T>(&self, scenario: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    self.look_up_residents();
                }
            });
            let end = OnDrop(|| over.store(true, Ordering::Relaxed));
            let value = scenario();
            drop(end);
            if let Err(panic) = asker.join() {
                std::panic::resume_unwind(panic);
            }
            value
        })
    }

    /// Waits until exactly the residents and `others` are listed, newest first.
    pub(crate) fn wait_until_listed<'a>(&'a self, others: impl IntoIterator<Item = &'a Node>) {
        let mut expected = names_header();
        let mut all: Vec<&Node> = self.residents.iter().chain(others).collect();
        all.reverse();
        all.iter().for_each(|node| expected.extend(names_line(&node.request)));
        wait_until("exactly the nodes that are there to be listed", || self.ask(&wire::names()) == expected);
    }

    // ---- the daemon

    /// The number of descriptors the daemon has open beyond its own and those of the residents.
    pub(crate) fn count_connections(&self) -> usize {
        self.descriptors_in_use().len().saturating_sub(self.descriptors)
    }

    /// The daemon's open descriptors, in ascending order.
    pub(crate) fn descriptors_in_use(&self) -> Vec<usize> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.epmd.pid())).expect("the daemon runs");
        let mut numbers: Vec<usize> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Sets the descriptor limit of the running daemon.
    pub(crate) fn limit_descriptors(&self, limit: usize) {
        let limit = u64::try_from(limit).expect("64 bits");
        let pid = Pid::from_raw(i32::try_from(self.epmd.pid()).expect("a pid"));
        let limit = Rlimit { current: Some(limit), maximum: u64::try_from(budget::descriptor_limit()).ok() };
        prlimit(pid, Resource::Nofile, limit).expect("changing a limit of the daemon");
    }

    /// The daemon's resident memory, in KiB.
    pub(crate) fn resident_memory(&self) -> usize {
        self.epmd.resident_memory()
    }

    /// Waits until the daemon is idle.
    pub(crate) fn wait_until_at_rest(&self) {
        // A single observation might be a coincidence.
        let mut restful = 0;
        wait_until("the daemon to rest", || {
            restful = if self.is_at_rest() { restful + 1 } else { 0 };
            restful == 5
        });
    }

    /// Whether all of the daemon's threads are sleeping.
    fn is_at_rest(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.epmd.pid())).expect("it runs");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
        })
    }

    /// The daemon's log.
    pub(crate) fn log(&self) -> String {
        self.epmd.stderr()
    }

    /// Stops the daemon while `meanwhile` runs, so that it sees everything that happened at once.
    pub(crate) fn while_stopped<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        self.epmd.freeze();
        let thaw = OnDrop(|| self.epmd.thaw());
        let value = meanwhile();
        drop(thaw);
        value
    }

    // ---- the proof

    /// Proves that the same daemon still has the residents, and only them, and accepts new nodes.
    fn prove_untouched(&mut self) {
        assert!(self.epmd.is_running(), "the daemon has ended");
        self.wait_until_listed([]);
        self.look_up_residents();
        let newcomer = self.register(Alive2::new("newcomer").port(42_000));
        self.look_up(&newcomer.request);
        self.wait_until_listed([&newcomer]);
        drop(newcomer);
        self.wait_until_listed([]);
        for node in &self.residents {
            let name = node.request.name.escape_ascii();
            assert!(node.client.is_open(), "{name} received data, or its connection was closed");
        }
        wait_until("the daemon to close unused descriptors", || self.count_connections() <= LATE_DESCRIPTORS);
    }
}

/// PORT2_RESP for a registered node.
fn found(node: &Alive2) -> Vec<u8> {
    let length = |of: &[u8]| u16::try_from(of.len()).expect("a short field").to_be_bytes();
    let mut answer = vec![119, 0];
    answer.extend(node.port.to_be_bytes());
    answer.extend([node.kind, node.protocol]);
    answer.extend(node.highest.to_be_bytes());
    answer.extend(node.lowest.to_be_bytes());
    answer.extend(length(&node.name));
    answer.extend(&node.name);
    answer.extend(length(&node.extra));
    answer.extend(&node.extra);
    answer
}

/// The header of NAMES_RESP.
pub(crate) fn names_header() -> Vec<u8> {
    u32::from(PORT).to_be_bytes().to_vec()
}

/// A node's line in NAMES_RESP.
pub(crate) fn names_line(node: &Alive2) -> Vec<u8> {
    [b"name ", node.name.as_slice(), b" at port ", node.port.to_string().as_bytes(), b"\n"].concat()
}

/// Runs a function when the scope is left, even by a panic.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
