//! Hosts with pmd on them, a pair of nodes for each side, and the measurements in turn.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pmd::control::api::Join;
use pmd::control::client::Client;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fleet::Fleet;
use crate::fleet::cell::mortal;
use crate::node::{Node, processor_time};
use crate::options::Plan;

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a message.
pub(crate) const SIZES: [usize; 2] = [64 * 1024, 1024 * 1024];
const GIGABYTE: f64 = 1e9;

/// How the nodes of a pair reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Plain,
    Direct,
    Relayed,
    ErlangTls,
}

impl Side {
    pub(crate) const ALL: [Side; 4] = [Side::Plain, Side::Direct, Side::Relayed, Side::ErlangTls];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Plain => "plain TCP",
            Side::Direct => "pmd, direct",
            Side::Relayed => "pmd, relayed",
            Side::ErlangTls => "Erlang TLS",
        }
    }

    /// What pmd calls the way, if it goes through pmd.
    fn path(self) -> Option<&'static str> {
        match self {
            Side::Direct => Some("direct"),
            Side::Relayed => Some("relay"),
            Side::Plain | Side::ErlangTls => None,
        }
    }
}

/// What one side has shown, one value for each round.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Megabytes per second, by size of the messages.
    pub(crate) rate: [Vec<f64>; 2],
    /// Seconds of CPU for a gigabyte, by size of the messages.
    pub(crate) cpu: [Vec<f64>; 2],
    /// Microseconds: the median round trip, and what 99 of 100 stay within.
    pub(crate) trip: [Vec<f64>; 2],
    /// Round trips per second.
    pub(crate) trips: Vec<f64>,
}

/// Hosts and their daemons; the third, if there is one, is the relay.
struct Cluster {
    fleet: Fleet,
    homes: Vec<PathBuf>,
    daemons: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Cluster {
    fn start(plan: &Plan, runtime: &Runtime, folder: &Path, count: usize) -> Result<Cluster> {
        let fleet = Fleet::new(count);
        let homes: Vec<PathBuf> = (0..count).map(|place| folder.join(format!("{count}-{place}"))).collect();
        let mut cluster = Cluster { fleet, homes, daemons: Vec::new() };
        if count > 2 {
            cluster.fleet.cut(&[0], &[1]);
        }
        for place in 0..count {
            let home = &cluster.homes[place];
            std::fs::create_dir_all(home)?;
            let mut cookie =
                File::options().write(true).create_new(true).mode(0o600).open(home.join("cookie"))?;
            writeln!(cookie, "the-cookie-of-the-benchmark")?;
            if place == 2 {
                std::fs::write(home.join("pmd.toml"), "relay = true\n")?;
            }
            let log = File::create(home.join("log"))?;
            let mut command = mortal(&plan.pmd);
            command.args(["start", "--foreground"]).env("PMD_HOME", home).env("PMD_LOG", "warn");
            for other in ["ERL_EPMD_ADDRESS", "ERL_EPMD_PORT", "PMD_CONFIG", "PMD_SOCKET"] {
                command.env_remove(other);
            }
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            cluster.daemons.push(cluster.fleet.sites()[place].cell.run(move || command.spawn())?);
        }
        for home in &cluster.homes {
            wait("a daemon", || Ok(std::os::unix::net::UnixStream::connect(api(home).socket()).is_ok()))?;
        }
        let seed = cluster.fleet.sites()[count - 1].ip;
        for home in &cluster.homes[..count - 1] {
            let join = Join { addresses: vec![seed.to_string()], timeout_ms: Some(30_000) };
            runtime.block_on(api(home).join(&join)).with_context(|| format!("joining {seed}"))?;
        }
        for (home, other) in [(0, "h2"), (1, "h1")] {
            wait("the other host in the hosts file", || {
                let text =
                    std::fs::read_to_string(cluster.homes[home].join("hosts-4369")).unwrap_or_default();
                Ok(text.split_whitespace().any(|word| word == other))
            })?;
        }
        Ok(cluster)
    }
}

struct Pair<'a> {
    cluster: &'a Cluster,
    nodes: [Node; 2],
    figures: Figures,
}

impl<'a> Pair<'a> {
    fn start(runtime: &Runtime, cluster: &'a Cluster, side: Side) -> Result<Pair<'a>> {
        let start = |place: usize| {
            let home = &cluster.homes[place];
            let args = match side {
                Side::ErlangTls => ["-proto_dist", "inet_tls", "-ssl_dist_optfile"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain([home.join("tls.options").display().to_string()])
                    .collect(),
                _ => Vec::new(),
            };
            let inetrc = side.path().map(|_| home.join("erl_inetrc-4369"));
            let name = format!("{side:?}").to_lowercase();
            Node::start(&cluster.fleet.sites()[place], home, &name, &args, inetrc.as_deref())
        };
        let mut nodes = [start(0)?, start(1)?];
        let ping = format!("ping {}", nodes[1].name);
        wait(&ping, || Ok(nodes[0].order(&ping)? == [1.0]))?;
        let name = nodes[1].name.split('@').next().unwrap_or_default();
        let tunnels = runtime.block_on(api(&cluster.homes[0]).tunnels())?.tunnels;
        let found = tunnels.iter().find(|tunnel| tunnel.name == name).map(|tunnel| tunnel.path.as_str());
        ensure!(found == side.path(), "{}: the way is {found:?}", side.name());
        Ok(Pair { cluster, nodes, figures: Figures::default() })
    }

    fn round(&mut self, plan: &Plan) -> Result<()> {
        let pids: Vec<u32> =
            self.nodes.iter().map(Node::pid).chain(self.cluster.daemons.iter().map(Child::id)).collect();
        let [one, two] = &mut self.nodes;
        for (number, size) in SIZES.iter().enumerate() {
            let before = processor_time(&pids)?;
            let answer = one.order(&format!("send {} {size} {}", two.name, plan.send_ms))?;
            let used = processor_time(&pids)?.saturating_sub(before).as_secs_f64();
            let [bytes, micros] = answer[..] else { bail!("odd answer {answer:?}") };
            self.figures.rate[number].push(bytes / micros);
            self.figures.cpu[number].push(used / bytes * GIGABYTE);
        }
        let answer = one.order(&format!("trips {} {}", two.name, plan.trips))?;
        let [median, high, mean] = answer[..] else { bail!("odd answer {answer:?}") };
        self.figures.trip[0].push(median / 1e3);
        self.figures.trip[1].push(high / 1e3);
        self.figures.trips.push(1e9 / mean);
        Ok(())
    }
}

/// Measures all sides in turn, in the order of [`Side::ALL`].
pub(crate) fn measure(plan: &Plan) -> Result<[Figures; 4]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = TempDir::new()?;
    let two = Cluster::start(plan, &runtime, folder.path(), 2)?;
    let three = Cluster::start(plan, &runtime, folder.path(), 3)?;
    issue_certificates(&two.homes)?;
    let mut pairs = Vec::new();
    for side in Side::ALL {
        let cluster = if side == Side::Relayed { &three } else { &two };
        pairs.push(Pair::start(&runtime, cluster, side)?);
    }
    for round in 0..plan.rounds {
        for (side, pair) in Side::ALL.iter().zip(&mut pairs) {
            let begin = Instant::now();
            pair.round(plan).with_context(|| side.name())?;
            eprintln!("tunnel: round {}, {}: {:.1} s", round + 1, side.name(), begin.elapsed().as_secs_f64());
        }
    }
    let figures: Vec<Figures> = pairs.into_iter().map(|pair| pair.figures).collect();
    figures.try_into().ok().context("four sides")
}

/// Certificates as the tests of Erlang's TLS distribution make them.
fn issue_certificates(homes: &[PathBuf]) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/erlang_tests/fixtures/certificates.erl");
    let mut erl = Command::new("erl");
    erl.args(["-noshell", "-eval", &format!("ok = file:eval(\"{script}\"), halt(0)."), "-extra"]);
    erl.arg("h1").arg(&homes[0]).arg("h2").arg(&homes[1]);
    let output = erl.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "no certificates (erlang-ssl, erlang-public-key): {said}");
    Ok(())
}

fn api(home: &Path) -> Client {
    Client::new(home.join("pmd-4369.sock")).with_patience(PATIENCE)
}

fn wait(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        ensure!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
