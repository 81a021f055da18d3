//! A pair of nodes for each side, measured in turn.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pmd_bench::process::cpu_time;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::connects;
use crate::figures::{Connects, Figures, SIZES, Side};
use crate::hosts::{Hosts, wait};
use crate::node::{self, Finds, Node};
use crate::options::Plan;

const GIGABYTE: f64 = 1e9;

/// The nodes of one side.
struct Pair<'a> {
    side: Side,
    hosts: &'a Hosts,
    nodes: [Node; 2],
    figures: Figures,
}

impl<'a> Pair<'a> {
    /// Starts the nodes, without waiting for them.
    fn start(hosts: &'a Hosts, code: &Path, side: Side) -> Result<Pair<'a>> {
        let start = |host: usize| {
            let home = hosts.home(host);
            let args = match side {
                Side::ErlangTls => {
                    let options = home.join("tls.options").display().to_string();
                    vec!["-proto_dist".into(), "inet_tls".into(), "-ssl_dist_optfile".into(), options]
                }
                _ => Vec::new(),
            };
            let finds = side.path().map_or(Finds::Itself, |_| Finds::ByModule(home.join("erlang-4369")));
            let name = format!("{side:?}").to_lowercase();
            Node::start(hosts.site(host), home, code, &name, &args, &finds)
        };
        Ok(Pair { side, hosts, nodes: [start(0)?, start(1)?], figures: Figures::default() })
    }

    /// Connects the nodes, and checks that they use the expected path.
    fn connect(&mut self, runtime: &Runtime) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::wait_until_ready)?;
        let [one, two] = &mut self.nodes;
        let ping = format!("ping {}", two.name);
        wait(&ping, || Ok(one.order(&ping)? == [1.0]))?;
        let name = two.name.split('@').next().unwrap_or_default();
        let tunnels = runtime.block_on(self.hosts.client(0).tunnels())?.tunnels;
        let path = tunnels.iter().find(|tunnel| tunnel.name == name).map(|tunnel| tunnel.path.as_str());
        ensure!(path == self.side.path(), "{}: the path is {path:?}", self.side.name());
        Ok(())
    }

    fn round(&mut self, plan: &Plan) -> Result<()> {
        let pids: Vec<u32> = self.nodes.iter().map(Node::pid).chain(self.hosts.pids()).collect();
        let [one, two] = &mut self.nodes;
        for (index, (size, _)) in SIZES.iter().enumerate() {
            let before = cpu_time(&pids)?;
            let [bytes, micros] = one.order(&format!("send {} {size} {}", two.name, plan.send_ms))?;
            let used = cpu_time(&pids)?.saturating_sub(before).as_secs_f64();
            self.figures.rate[index].push(bytes / micros);
            self.figures.cpu[index].push(used / bytes * GIGABYTE);
        }
        let [median, high, mean] = one.order(&format!("trips {} {}", two.name, plan.trips))?;
        self.figures.trip[0].push(median / 1e3);
        self.figures.trip[1].push(high / 1e3);
        self.figures.trips.push(1e9 / mean);
        Ok(())
    }
}

/// Measures all sides in turn, in the order of [`Side::ALL`], and before that the ways to find a node.
pub(crate) fn measure(plan: &Plan) -> Result<([Figures; 4], Connects)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = TempDir::new()?;
    let direct = Hosts::direct(plan, &runtime, folder.path())?;
    let relayed = Hosts::relayed(plan, &runtime, folder.path())?;
    issue_certificates(&direct)?;
    node::compile(folder.path())?;
    let connects = connects::measure(plan, &runtime, &direct, folder.path())?;
    let mut pairs = Side::ALL
        .map(|side| Pair::start(if side == Side::Relayed { &relayed } else { &direct }, folder.path(), side))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    pairs.iter_mut().try_for_each(|pair| pair.connect(&runtime))?;
    for round in 1..=plan.rounds {
        for pair in &mut pairs {
            let begin = Instant::now();
            let name = pair.side.name();
            pair.round(plan).context(name)?;
            eprintln!("tunnel: round {round}, {name}: {:.1} s", begin.elapsed().as_secs_f64());
        }
    }
    let figures: Vec<Figures> = pairs.into_iter().map(|pair| pair.figures).collect();
    Ok((figures.try_into().ok().context("one pair per side")?, connects))
}

/// Creates certificates as the tests of Erlang's TLS distribution do.
fn issue_certificates(hosts: &Hosts) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/erlang_tests/fixtures/certificates.erl");
    let mut erl = Command::new("erl");
    erl.args(["-noshell", "-eval", &format!("ok = file:eval(\"{script}\"), halt(0)."), "-extra"]);
    erl.arg("h1").arg(hosts.home(0)).arg("h2").arg(hosts.home(1));
    let output = erl.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "cannot create certificates (install erlang-ssl and erlang-public-key): {printed}"
    );
    Ok(())
}
