//! Look-ups beside connections that say nothing, or say half of something and stop.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::hold::{Holder, Stand};
use crate::lookups::Registry;
use crate::options::Bench;
use crate::proc::{descriptors, resident};
use crate::report::{Report, count, number, with_clients};
use crate::rounds::{Slice, interleave};
use crate::server::Peer;

const NAMES: u32 = 10;
/// Most p99 with idle connections, as a multiple of that without.
const LATENCY_BAR: f64 = 2.0;
/// The servers close a connection that completes no request; not within this run. Stock and pmd alike.
const FLAGS: [&str; 2] = ["-packet_timeout", "600"];

/// A server and its idle connections.
#[derive(Debug)]
struct Crowd {
    registry: Registry,
    stand: Option<Stand>,
    idle: u32,
    seconds: f64,
    bytes: f64,
    descriptors: usize,
    _holder: Option<Holder>,
}

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    for (peer, idle) in
        [(Peer::Stock, 900), (Peer::Pmd, if bench.quick { 900 } else { 10_000.min(bench.largest) })]
    {
        compare(bench, report, peer, idle)?;
    }
    Ok(())
}

fn compare(bench: &Bench, report: &mut Report, peer: Peer, idle: u32) -> Result<()> {
    let crowds = [None, Some(Stand::Silent), Some(Stand::Half)]
        .into_iter()
        .map(|stand| crowd(bench, peer, stand, idle))
        .collect::<Result<Vec<_>>>()?;
    let contestants: Vec<_> = crowds.iter().map(|one| one.registry.look_ups()).collect();
    let mut rows = Vec::new();
    for clients in [1, 16] {
        eprintln!("  {idle} idle, {}", with_clients(clients));
        let series = interleave(bench, &contestants, clients)?;
        for (crowd, one) in crowds.iter().zip(&series) {
            let p99 = |slice: &Slice| slice.latency_us(99);
            let ratio = one.ratio(&series[0], p99);
            if peer == Peer::Pmd && clients == 1 && crowd.stand.is_some() {
                let kind = label(crowd.stand);
                report.bar(
                    format!("look-up p99 with {} idle ({kind}) / without", count(idle)),
                    ratio,
                    LATENCY_BAR,
                );
            }
            rows.push(vec![
                count(crowd.idle),
                label(crowd.stand).to_owned(),
                clients.to_string(),
                number(one.median(|slice| slice.latency_us(50))),
                number(one.median(p99)),
                number(ratio),
                number(one.median(Slice::cpu_us)),
                number(one.ratio(&series[0], Slice::cpu_us)),
                one.total(|slice| slice.dropped).to_string(),
                crowd.descriptors.to_string(),
                format!("{:.2}", crowd.seconds),
                number(crowd.bytes),
            ]);
        }
    }
    let name = if peer == Peer::Stock { "stock" } else { "pmd" };
    let head = [
        "idle",
        "kind",
        "clients",
        "p50 µs",
        "p99 µs",
        "p99 to none",
        "CPU µs",
        "CPU to none",
        "dropped",
        "open descriptors",
        "s to connect",
        "bytes each",
    ];
    let note = "Silent: connected, nothing sent. Half: half a look-up sent. Open descriptors: what the server has taken \
                from the kernel (TCP_DEFER_ACCEPT leaves silent connections there).";
    report.table(&format!("Look-ups on {name} beside idle connections"), &head, &rows, note)
}

fn crowd(bench: &Bench, peer: Peer, stand: Option<Stand>, idle: u32) -> Result<Crowd> {
    let registry = Registry::start_with(bench, peer, NAMES, &FLAGS)?;
    let Some(kind) = stand else {
        let descriptors = descriptors(registry.server.pid())?;
        return Ok(Crowd { registry, stand, idle: 0, seconds: 0.0, bytes: 0.0, descriptors, _holder: None });
    };
    eprintln!("  making {idle} idle connections ({})", label(stand));
    let pid = registry.server.pid();
    let before = resident(pid)?;
    let holder = Holder::start(&registry.server, kind, idle, 16)?;
    let descriptors = settled_descriptors(pid)?;
    let bytes = (resident(pid)? as f64 - before as f64) / f64::from(idle);
    let seconds = holder.took.as_secs_f64();
    Ok(Crowd { registry, stand, idle, seconds, bytes, descriptors, _holder: Some(holder) })
}

/// The number of descriptors once it stands still for a second: deferred connections arrive when the kernel gives up
/// waiting for their data.
fn settled_descriptors(pid: u32) -> Result<usize> {
    let begin = Instant::now();
    let mut last = descriptors(pid)?;
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = descriptors(pid)?;
        if now == last || begin.elapsed() > Duration::from_secs(15) {
            return Ok(now);
        }
        last = now;
    }
}

fn label(stand: Option<Stand>) -> &'static str {
    match stand {
        Some(Stand::Silent) => "silent",
        Some(Stand::Half) => "half",
        _ => "none",
    }
}
