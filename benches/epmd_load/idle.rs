//! Lookups while other connections send nothing or half a request.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use pmd_bench::options::name_of;
use pmd_bench::process::{descriptors, memory};
use pmd_bench::report::{Bar, Report, count, number, table};

use crate::client::with_clients;
use crate::hold::{Holder, Kind};
use crate::options::Plan;
use crate::registry::Registry;
use crate::rounds::{Slice, interleave};
use crate::server::Peer;

const NAMES: u32 = 10;
/// The maximum p99 with idle connections, relative to the p99 without them.
const LATENCY_BAR: f64 = 2.0;
/// Both servers close connections without a complete request; this delays it beyond the end of the run.
const FLAGS: [&str; 2] = ["-packet_timeout", "600"];

/// A server and its idle connections.
#[derive(Debug)]
struct Case {
    registry: Registry,
    kind: Option<Kind>,
    idle: u32,
    seconds: f64,
    bytes: f64,
    descriptors: usize,
    _holder: Option<Holder>,
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    compare(plan, report, Peer::Stock, plan.run.pick(200, 900))?;
    compare(plan, report, Peer::Pmd, plan.run.pick(200, 10_000.min(plan.largest)))
}

fn compare(plan: &Plan, report: &mut Report, peer: Peer, idle: u32) -> Result<()> {
    let cases = [None, Some(Kind::Silent), Some(Kind::Half)]
        .into_iter()
        .map(|kind| prepare(plan, peer, kind, idle))
        .collect::<Result<Vec<_>>>()?;
    let contestants: Vec<_> = cases.iter().map(|case| case.registry.lookups()).collect();
    let mut rows = Vec::new();
    for clients in [1, 16] {
        eprintln!("  {idle} idle, {}", with_clients(clients));
        let series = interleave(plan, &contestants, clients)?;
        for (case, one) in cases.iter().zip(&series) {
            let ratio = one.ratio(&series[0], Slice::p99_us);
            if peer == Peer::Pmd && clients == 1 && case.kind.is_some() {
                let what = format!("lookup p99 with {} idle ({}) / without", count(idle), label(case.kind));
                report.bar(Bar::at_most(what, ratio, LATENCY_BAR));
            }
            rows.push(vec![
                count(case.idle),
                label(case.kind),
                clients.to_string(),
                number(one.median(Slice::p50_us)),
                number(one.median(Slice::p99_us)),
                number(ratio),
                number(one.median(Slice::cpu_us)),
                number(one.ratio(&series[0], Slice::cpu_us)),
                one.total(|slice| slice.dropped).to_string(),
                case.descriptors.to_string(),
                format!("{:.2}", case.seconds),
                number(case.bytes),
            ]);
        }
    }
    let name = if peer == Peer::Stock { "stock" } else { "pmd" };
    let head = "idle | kind | clients | p50 µs | p99 µs | p99 vs none | CPU µs | CPU vs none | \
                dropped | open descriptors | s to connect | bytes each";
    let note = "Silent: connected, nothing sent. Half: half a lookup sent. Open descriptors: connections that the server \
                has accepted (TCP_DEFER_ACCEPT keeps silent connections in the kernel).";
    table(&format!("Lookups on {name} with idle connections"), head, &rows, note)
}

fn prepare(plan: &Plan, peer: Peer, kind: Option<Kind>, idle: u32) -> Result<Case> {
    let registry = Registry::start(plan, peer, NAMES, &FLAGS)?;
    let pid = registry.server.pid();
    let Some(some) = kind else {
        let descriptors = descriptors(pid)?;
        return Ok(Case { registry, kind, idle: 0, seconds: 0.0, bytes: 0.0, descriptors, _holder: None });
    };
    eprintln!("  opening {idle} idle connections ({})", name_of(&some));
    let before = memory(pid)?.resident;
    let holder = Holder::start(registry.server.port(), some, idle, 16)?;
    let descriptors =
        settled_descriptors(pid, plan.run.pick(Duration::from_millis(50), Duration::from_secs(1)))?;
    let bytes = (memory(pid)?.resident as f64 - before as f64) / f64::from(idle);
    let seconds = holder.took.as_secs_f64();
    Ok(Case { registry, kind, idle, seconds, bytes, descriptors, _holder: Some(holder) })
}

/// The number of descriptors once it has not changed for `interval`. Deferred connections arrive when the kernel stops
/// waiting for their data.
fn settled_descriptors(pid: u32, interval: Duration) -> Result<usize> {
    let begin = Instant::now();
    let mut last = descriptors(pid)?;
    loop {
        thread::sleep(interval);
        let now = descriptors(pid)?;
        if now == last || begin.elapsed() > Duration::from_secs(15) {
            return Ok(now);
        }
        last = now;
    }
}

fn label(kind: Option<Kind>) -> String {
    kind.as_ref().map_or_else(|| "none".to_owned(), name_of)
}
