//! NAMES with a full registry. Stock writes every line with a separate call.

use anyhow::Result;
use pmd_bench::report::{Bar, Report, count, number, table};

use crate::client::Request;
use crate::options::Plan;
use crate::registry::Registry;
use crate::rounds::{Contestant, Slice, interleave};
use crate::server::Peer;

/// The maximum CPU time per request with the larger registry, relative to stock.
const CPU_BAR: f64 = 0.05;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    let sizes = plan.run.pick(&[100][..], &[900, 1000]);
    for names in sizes {
        let stock = Registry::start(plan, Peer::Stock, *names, &[])?;
        let pmd = Registry::start(plan, Peer::Pmd, *names, &[])?;
        let request = Request::Names { names: *names };
        let contestants = [&stock, &pmd].map(|one| Contestant { server: &one.server, request });
        let series = interleave(plan, &contestants, 1)?;
        let [stock, pmd] = &series[..] else { unreachable!("one series per contestant") };
        let ratio = pmd.ratio(stock, Slice::cpu_us);
        if Some(names) == sizes.last() {
            report.bar(Bar::at_most(
                format!("NAMES CPU, pmd / stock, {} names", count(*names)),
                ratio,
                CPU_BAR,
            ));
        }
        rows.push(vec![
            count(*names),
            number(stock.median(Slice::cpu_us)),
            number(pmd.median(Slice::cpu_us)),
            format!("{ratio:.3}"),
            number(stock.median(Slice::rate)),
            number(pmd.median(Slice::rate)),
        ]);
    }
    let head = "names | stock µs | pmd µs | pmd / stock | stock /s | pmd /s";
    let note = "µs: CPU time of the server per request, one client that reads the whole answer.";
    table("NAMES", head, &rows, note)
}
