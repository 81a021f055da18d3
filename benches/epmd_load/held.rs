//! Held registrations: the time to make them, and their memory.

use anyhow::Result;
use pmd_bench::process::memory;
use pmd_bench::report::{Bar, Report, count as grouped, number, table};
use pmd_bench::stats::median;

use crate::client::with_clients;
use crate::hold::{Holder, Kind};
use crate::options::Plan;
use crate::server::{Peer, Server};

/// The maximum resident bytes per registration, so that 50,000 fit into 64 MB.
const MEMORY_BAR: f64 = 1200.0;
/// The maximum seconds for 10,000 registrations by 16 concurrent clients.
const TIME_BAR: f64 = 1.0;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut cases = vec![(Peer::Stock, plan.run.pick(200, 1000)), (Peer::Pmd, plan.run.pick(200, 1000))];
    if !plan.run.quick {
        cases.extend([(Peer::Pmd, 10_000.min(plan.largest)), (Peer::Pmd, plan.largest)]);
    }
    let cases: Vec<_> =
        cases.into_iter().flat_map(|(peer, count)| [1, 16].map(|clients| (peer, count, clients))).collect();
    let mut samples: Vec<Vec<Sample>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds {
        for ((peer, count, clients), samples) in cases.iter().zip(&mut samples) {
            samples.push(measure(plan, *peer, *count, *clients)?);
        }
    }
    let mut rows = Vec::new();
    for ((peer, count, clients), samples) in cases.iter().zip(&samples) {
        let seconds = median(samples.iter().map(|sample| sample.seconds));
        let bytes = median(samples.iter().map(|sample| sample.bytes));
        if *peer == Peer::Pmd && *count >= 10_000 {
            let what =
                format!("bytes per registration, {} made by {}", grouped(*count), with_clients(*clients));
            report.bar(Bar::at_most(what, bytes, MEMORY_BAR));
        }
        if *peer == Peer::Pmd && *count == 10_000 && *clients == 16 {
            report.bar(Bar::at_most("seconds to make 10,000 registrations, 16 clients", seconds, TIME_BAR));
        }
        rows.push(vec![
            if *peer == Peer::Stock { "stock" } else { "pmd" }.to_owned(),
            grouped(*count),
            clients.to_string(),
            format!("{seconds:.3}"),
            number(seconds * 1e6 / f64::from(*count)),
            number(bytes),
            number(median(samples.iter().map(|sample| sample.before)) / 1024.0),
        ]);
    }
    let head = "server | registrations | clients | s | µs each | bytes each | KB before";
    let note = "Wall time from the first connection to the last answer, clients on the same cores. Bytes: growth of the \
                resident set of a fresh server, divided by the registrations; the kernel's socket memory is not \
                included.";
    table("Held registrations", head, &rows, note)
}

/// One round of a case.
#[derive(Debug)]
struct Sample {
    seconds: f64,
    bytes: f64,
    before: f64,
}

fn measure(plan: &Plan, peer: Peer, count: u32, clients: u32) -> Result<Sample> {
    let server = Server::start(plan, peer, &[])?;
    let before = memory(server.pid())?.resident as f64;
    let holder = Holder::start(server.port(), Kind::Registered, count, clients)?;
    let after = memory(server.pid())?.resident as f64;
    Ok(Sample { seconds: holder.took.as_secs_f64(), bytes: (after - before) / f64::from(count), before })
}
