//! Churn: register, close, and immediately register the same name again, as a node that is killed and restarted does.
//!
//! The daemon learns about the close from an event that may still be queued when the next request arrives. Stock then
//! sometimes refuses the name; pmd must not.

use anyhow::Result;
use pmd_bench::report::{Bar, Report, number, table};

use crate::client::{Request, with_clients};
use crate::null::Variant;
use crate::options::Plan;
use crate::registry::Registry;
use crate::rounds::{Contestant, Slice, interleave};
use crate::server::{Peer, Server};

/// The maximum CPU time per cycle, relative to stock.
const CPU_BAR: f64 = 0.7;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    let null = Server::start(plan, Peer::Null(Variant::HELD), &[])?;
    for names in plan.run.pick(&[10][..], &[10, 700]) {
        let stock = Registry::start(plan, Peer::Stock, *names, &[])?;
        let pmd = Registry::start(plan, Peer::Pmd, *names, &[])?;
        let contestants =
            [&stock.server, &pmd.server, &null].map(|server| Contestant { server, request: Request::Churn });
        for clients in [1, 16] {
            eprintln!("  {names} other names, {}", with_clients(clients));
            let series = interleave(plan, &contestants, clients)?;
            let [stock, pmd, null] = &series[..] else { unreachable!("one series per contestant") };
            let ratio = pmd.ratio(stock, Slice::cpu_us);
            let refused = pmd.total(|slice| slice.refused);
            if *names == 10 {
                let what = format!("churn CPU, pmd / stock, {}", with_clients(clients));
                report.bar(Bar::at_most(what, ratio, CPU_BAR).null(null.ratio(stock, Slice::cpu_us)));
            }
            let what = format!("churn refused by pmd, {names} other names, {}", with_clients(clients));
            report.bar(Bar::at_most(what, refused as f64, 0.0));
            rows.push(vec![
                names.to_string(),
                clients.to_string(),
                number(stock.median(Slice::cpu_us)),
                number(pmd.median(Slice::cpu_us)),
                number(null.median(Slice::cpu_us)),
                number(ratio),
                number(pmd.ratio(stock, Slice::cpu_us_granted)),
                number(pmd.ratio(null, Slice::cpu_us)),
                number(stock.median(Slice::rate)),
                number(pmd.median(Slice::rate)),
                format!(
                    "{} of {}",
                    stock.total(|slice| slice.refused),
                    stock.total(|slice| slice.answered + slice.refused)
                ),
                format!("{refused} of {}", pmd.total(|slice| slice.answered + slice.refused)),
            ]);
        }
    }
    let head = "other names | clients | stock µs | pmd µs | null µs | pmd / stock | granted | \
                pmd / null | stock /s | pmd /s | stock refused | pmd refused";
    let note = "µs: CPU time of the server per cycle, refused or not; granted: pmd / stock per cycle that was not \
                refused. Each client registers its own name again as soon as it has closed the connection that held \
                it. Null: accepts, answers fixed bytes, waits for the close.";
    table("Register and unregister", head, &rows, note)
}
