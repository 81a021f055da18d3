//! Standing registrations: how long it takes to make them, and what they cost in memory.

use anyhow::Result;

use crate::hold::{Holder, Stand};
use crate::options::Bench;
use crate::proc::resident;
use crate::report::{Report, count as grouped, number, with_clients};
use crate::rounds::median;
use crate::server::{Peer, Server};

/// Most resident bytes per registration: 50,000 then fit in 64 MB.
const MEMORY_BAR: f64 = 1200.0;
/// Most seconds for 10,000 registrations, made by 16 clients at a time.
const TIME_BAR: f64 = 1.0;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut cases = vec![(Peer::Stock, 1000), (Peer::Pmd, 1000)];
    if !bench.quick {
        cases.extend([(Peer::Pmd, 10_000.min(bench.largest)), (Peer::Pmd, bench.largest)]);
    }
    let cases: Vec<_> =
        cases.into_iter().flat_map(|(peer, count)| [1, 16].map(|clients| (peer, count, clients))).collect();
    let mut made: Vec<Vec<Made>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..bench.rounds {
        for ((peer, count, clients), made) in cases.iter().zip(&mut made) {
            made.push(make(bench, *peer, *count, *clients)?);
        }
    }
    let mut rows = Vec::new();
    for ((peer, count, clients), made) in cases.iter().zip(&made) {
        let seconds = median(made.iter().map(|one| one.seconds).collect());
        let bytes = median(made.iter().map(|one| one.bytes).collect());
        if *peer == Peer::Pmd && *count >= 10_000 {
            report.bar(
                format!("bytes per registration, {} made by {}", grouped(*count), with_clients(*clients)),
                bytes,
                MEMORY_BAR,
            );
        }
        if *peer == Peer::Pmd && *count == 10_000 && *clients == 16 {
            report.bar("seconds to make 10,000 registrations, 16 clients", seconds, TIME_BAR);
        }
        rows.push(vec![
            if *peer == Peer::Stock { "stock" } else { "pmd" }.to_owned(),
            grouped(*count),
            clients.to_string(),
            format!("{seconds:.3}"),
            number(seconds * 1e6 / f64::from(*count)),
            number(bytes),
            number(median(made.iter().map(|one| one.before).collect()) / 1024.0),
        ]);
    }
    let head = ["server", "registrations", "clients", "s", "µs each", "bytes each", "KB before"];
    let note = "Wall time from the first connection to the last answer, clients on the same cores. Bytes: growth of the \
                resident set of a fresh server, divided by the registrations; socket memory of the kernel is not in it.";
    report.table("Standing registrations", &head, &rows, note)
}

/// One round of one case.
#[derive(Debug)]
struct Made {
    seconds: f64,
    bytes: f64,
    before: f64,
}

fn make(bench: &Bench, peer: Peer, count: u32, clients: u32) -> Result<Made> {
    let server = Server::start(bench, peer, &[])?;
    let before = resident(server.pid())?;
    let holder = Holder::start(&server, Stand::Registered, count, clients)?;
    let after = resident(server.pid())?;
    let bytes = (after as f64 - before as f64) / f64::from(count);
    Ok(Made { seconds: holder.took.as_secs_f64(), bytes, before: before as f64 })
}
