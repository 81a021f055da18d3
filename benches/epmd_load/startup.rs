//! The time from process start to first answer.

use anyhow::Result;
use pmd_bench::report::{number, table};
use pmd_bench::stats::median;

use crate::options::Plan;
use crate::server::{Peer, Server};

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let peers = [Peer::Stock, Peer::Pmd];
    let mut times = [Vec::new(), Vec::new()];
    // A start only takes milliseconds, so three per round make the median more robust.
    for _ in 0..plan.rounds * 3 {
        for (peer, times) in peers.iter().zip(&mut times) {
            times.push(Server::time_to_answer(plan, *peer)?.as_secs_f64() * 1e3);
        }
    }
    let starts = times[0].len();
    let [stock, pmd] = times.map(median);
    table(
        "Start to first answer",
        "stock ms | pmd ms | pmd / stock | starts",
        &[vec![number(stock), number(pmd), number(pmd / stock), starts.to_string()]],
        "From `fork` to the first byte of a NAMES answer, requested every 0.1 ms.",
    )
}
