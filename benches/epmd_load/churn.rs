//! Register, close, and register the same name again at once, as a node that is killed and restarted does.
//!
//! The daemon learns of the close by an event that may still be in its queue when the next request arrives. Stock
//! refuses the name then, now and again; pmd must not.

use anyhow::Result;

use crate::client::Request;
use crate::lookups::Registry;
use crate::null::Variant;
use crate::options::Bench;
use crate::report::{Report, number, with_clients};
use crate::rounds::{Contestant, Slice, interleave};
use crate::server::{Peer, Server};

/// Most CPU per cycle, as a share of stock's.
const CPU_BAR: f64 = 0.7;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    let null = Server::start(bench, Peer::Null(Variant::HELD), &[])?;
    for names in [10, 700] {
        let stock = Registry::start(bench, Peer::Stock, names)?;
        let pmd = Registry::start(bench, Peer::Pmd, names)?;
        let contestants =
            [&stock.server, &pmd.server, &null].map(|server| Contestant { server, request: Request::Churn });
        for clients in [1, 16] {
            eprintln!("  {names} other names, {}", with_clients(clients));
            let series = interleave(bench, &contestants, clients)?;
            let [stock, pmd, null] = &series[..] else { unreachable!("as many series as contestants") };
            let ratio = pmd.ratio(stock, Slice::cpu_us);
            let refused = pmd.total(|slice| slice.refused);
            if names == 10 {
                let floor = null.ratio(stock, Slice::cpu_us);
                report.bar_above(
                    format!("churn CPU, pmd / stock, {}", with_clients(clients)),
                    ratio,
                    CPU_BAR,
                    floor,
                );
            }
            report.bar(
                format!("churn refused by pmd, {names} other names, {}", with_clients(clients)),
                refused as f64,
                0.0,
            );
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
    let head = [
        "other names",
        "clients",
        "stock µs",
        "pmd µs",
        "null µs",
        "pmd / stock",
        "granted",
        "pmd / null",
        "stock /s",
        "pmd /s",
        "stock refused",
        "pmd refused",
    ];
    let note = "µs: CPU time of the server per cycle, refused or not; granted: pmd / stock per cycle that was not \
                refused. Each client has its own name and registers it again as soon as it \
                has closed the connection that held it. Null: accepts, answers fixed bytes, waits for the close.";
    report.table("Register and unregister", &head, &rows, note)
}
