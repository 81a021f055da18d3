//! From the start of the process to its first answer.

use anyhow::Result;

use crate::options::Bench;
use crate::report::{Report, number};
use crate::rounds::median;
use crate::server::{Peer, Server};

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let peers = [Peer::Stock, Peer::Pmd];
    let mut times = [Vec::new(), Vec::new()];
    // One start takes milliseconds: three per round, so that the median stands on more.
    for _ in 0..bench.rounds * 3 {
        for (peer, times) in peers.iter().zip(&mut times) {
            times.push(Server::time_to_answer(bench, *peer)?.as_secs_f64() * 1e3);
        }
    }
    let starts = times[0].len();
    let [stock, pmd] = times.map(median);
    let row = vec![number(stock), number(pmd), number(pmd / stock), starts.to_string()];
    let head = ["stock ms", "pmd ms", "pmd / stock", "starts"];
    report.table(
        "Start to first answer",
        &head,
        &[row],
        "From `fork` to the first byte of a NAMES answer, asked every 0.1 ms.",
    )
}
