//! NAMES with a full registry. Stock writes every line by itself.

use anyhow::Result;

use crate::client::Request;
use crate::lookups::Registry;
use crate::options::Bench;
use crate::report::{Report, count, number};
use crate::rounds::{Contestant, Slice, interleave};
use crate::server::Peer;

/// Most CPU per request with 1,000 names, as a share of stock's.
const CPU_BAR: f64 = 0.05;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    for names in [900, 1000] {
        let stock = Registry::start(bench, Peer::Stock, names)?;
        let pmd = Registry::start(bench, Peer::Pmd, names)?;
        let contestants =
            [&stock, &pmd].map(|one| Contestant { server: &one.server, request: Request::Names { names } });
        let series = interleave(bench, &contestants, 1)?;
        let [stock, pmd] = &series[..] else { unreachable!("as many series as contestants") };
        let ratio = pmd.ratio(stock, Slice::cpu_us);
        if names == 1000 {
            report.bar("NAMES CPU, pmd / stock, 1,000 names", ratio, CPU_BAR);
        }
        rows.push(vec![
            count(names),
            number(stock.median(Slice::cpu_us)),
            number(pmd.median(Slice::cpu_us)),
            format!("{ratio:.3}"),
            number(stock.median(Slice::rate)),
            number(pmd.median(Slice::rate)),
        ]);
    }
    let head = ["names", "stock µs", "pmd µs", "pmd / stock", "stock /s", "pmd /s"];
    report.table(
        "NAMES",
        &head,
        &rows,
        "µs: CPU time of the server per request, one client that reads all of it.",
    )
}
