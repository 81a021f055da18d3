//! PORT_PLEASE2: the server's cost of a lookup, by registry size and by number of clients.

use anyhow::Result;
use pmd_bench::report::{Bar, Report, count, number, table};
use pmd_bench::stats::median;

use crate::client::{Request, with_clients};
use crate::null::Variant;
use crate::options::Plan;
use crate::registry::Registry;
use crate::rounds::{Contestant, Series, Slice, interleave};
use crate::server::{Peer, Server};

/// Stock accepts at most 1,019 connections; 900 names leave some for the clients.
const SIZES: [u32; 4] = [10, 200, 700, 900];
const CLIENTS: [u32; 5] = [1, 4, 16, 64, 256];
/// The numbers of clients that the bars apply to.
const JUDGED: [u32; 2] = [1, 16];
/// The maximum CPU time per lookup relative to stock, by registry size.
const BARS: [(u32, f64); 3] = [(10, 0.95), (200, 0.5), (700, 0.2)];
/// The maximum CPU time per lookup, relative to the null server.
const NULL_BAR: f64 = 1.2;
/// The maximum CPU time per lookup with the largest registry, relative to ten names.
const FLAT_BAR: f64 = 1.1;

/// Stock, pmd and null with registries that stock can hold.
pub(crate) fn by_registry_size(plan: &Plan, report: &mut Report) -> Result<()> {
    let nulls = NullServers::start(plan)?;
    let cheapest = nulls.table(plan)?;
    let mut rows = Vec::new();
    let mut against_null: Vec<(u32, Vec<f64>)> =
        JUDGED.iter().map(|clients| (*clients, Vec::new())).collect();
    for names in plan.run.pick(&SIZES[..2], &SIZES) {
        let stock = Registry::start(plan, Peer::Stock, *names, &[])?;
        let pmd = Registry::start(plan, Peer::Pmd, *names, &[])?;
        for clients in plan.run.pick(&JUDGED[..], &CLIENTS) {
            eprintln!("  {names} names, {}", with_clients(*clients));
            // With one client, every request finds the server asleep; with several, few do. The cases are therefore
            // judged separately.
            let null = nulls.contestant(if *clients == 1 { cheapest[0] } else { cheapest[1] });
            let series = interleave(plan, &[stock.lookups(), pmd.lookups(), null], *clients)?;
            let [stock, pmd, null] = &series[..] else { unreachable!("one series per contestant") };
            if let Some((_, pool)) = against_null.iter_mut().find(|(judged, _)| judged == clients) {
                pool.extend(pmd.ratios(null, Slice::cpu_us));
                if let Some((_, bar)) = BARS.iter().find(|(size, _)| size == names) {
                    let what = format!("lookup CPU, pmd / stock, {names} names, {}", with_clients(*clients));
                    let ratio = pmd.ratio(stock, Slice::cpu_us);
                    report.bar(Bar::at_most(what, ratio, *bar).null(null.ratio(stock, Slice::cpu_us)));
                }
            }
            rows.push(row(*names, *clients, stock, pmd, null));
        }
    }
    for (clients, pool) in against_null {
        let what = format!("lookup CPU, pmd / null, {}, all registry sizes", with_clients(clients));
        report.bar(Bar::at_most(what, median(pool), NULL_BAR));
    }
    let head = "names | clients | stock µs | pmd µs | null µs | pmd / stock | pmd / null | \
                stock /s | pmd /s | null /s | stock dropped | pmd dropped";
    let note = "µs: CPU time of the server per lookup (user and system). /s: lookups answered per second of wall time, \
                clients on the same cores. Dropped: requests closed or reset without an answer.";
    table("Lookups", head, &rows, note)
}

fn row(names: u32, clients: u32, stock: &Series, pmd: &Series, null: &Series) -> Vec<String> {
    vec![
        count(names),
        clients.to_string(),
        number(stock.median(Slice::cpu_us)),
        number(pmd.median(Slice::cpu_us)),
        number(null.median(Slice::cpu_us)),
        number(pmd.ratio(stock, Slice::cpu_us)),
        number(pmd.ratio(null, Slice::cpu_us)),
        number(stock.median(Slice::rate)),
        number(pmd.median(Slice::rate)),
        number(null.median(Slice::rate)),
        stock.total(|slice| slice.dropped).to_string(),
        pmd.total(|slice| slice.dropped).to_string(),
    ]
}

/// Measures pmd alone, from ten names to the largest registry, with all sizes running at the same time.
pub(crate) fn flatness(plan: &Plan, report: &mut Report) -> Result<()> {
    let sizes = plan.run.pick(vec![10, plan.largest], vec![10, 1000, 10_000.min(plan.largest), plan.largest]);
    let registries = sizes
        .iter()
        .map(|names| {
            eprintln!("  registering {names} names");
            Registry::start(plan, Peer::Pmd, *names, &[])
        })
        .collect::<Result<Vec<_>>>()?;
    let contestants: Vec<_> = registries.iter().map(Registry::lookups).collect();
    let mut rows = Vec::new();
    let mut growth = Vec::new();
    for clients in plan.run.pick(&JUDGED[..], &CLIENTS) {
        eprintln!("  {}", with_clients(*clients));
        let series = interleave(plan, &contestants, *clients)?;
        for (names, one) in sizes.iter().zip(&series) {
            let ratio = one.ratio(&series[0], Slice::cpu_us);
            if JUDGED.contains(clients) && *names == plan.largest {
                growth.push(ratio);
            }
            rows.push(vec![
                count(*names),
                clients.to_string(),
                number(one.median(Slice::cpu_us)),
                number(ratio),
                number(one.median(Slice::rate)),
                number(one.median(Slice::p50_us)),
                number(one.median(Slice::p99_us)),
                one.total(|slice| slice.dropped).to_string(),
            ]);
        }
    }
    let what = format!("lookups with {} names against 10: ratio", count(plan.largest));
    // `f64::max` would hide NaN.
    let worst =
        growth.into_iter().reduce(|a, b| if a >= b || a.is_nan() { a } else { b }).unwrap_or(f64::NAN);
    report.bar(Bar::at_most(what, worst, FLAT_BAR));
    let head = "names | clients | pmd µs | vs 10 names | pmd /s | p50 µs | p99 µs | dropped";
    let mut note = "The bar takes the larger of the ratios with 1 and 16 clients.".to_owned();
    if !plan.run.quick && plan.largest < 19_000 {
        note += " The hard descriptor limit does not allow a larger registry here.";
    }
    table("Lookups on pmd by registry size", head, &rows, &note)
}

/// One null server of each variant.
#[derive(Debug)]
struct NullServers(Vec<Server>);

impl NullServers {
    fn start(plan: &Plan) -> Result<NullServers> {
        let servers = Variant::ALL.iter().map(|variant| Server::start(plan, Peer::Null(*variant), &[]));
        Ok(NullServers(servers.collect::<Result<_>>()?))
    }

    fn contestant(&self, which: usize) -> Contestant<'_> {
        Contestant { server: &self.0[which], request: Request::LookupUnchecked }
    }

    /// Compares the variants, and returns the cheapest for each number of [`JUDGED`] clients.
    fn table(&self, plan: &Plan) -> Result<[usize; 2]> {
        let contestants: Vec<_> = (0..self.0.len()).map(|which| self.contestant(which)).collect();
        let mut rows: Vec<_> = Variant::ALL.iter().map(|variant| vec![variant.label()]).collect();
        let mut cheapest = [0; 2];
        for (clients, cheapest) in JUDGED.iter().zip(&mut cheapest) {
            let series = interleave(plan, &contestants, *clients)?;
            let figures: Vec<f64> = series.iter().map(|one| one.median(Slice::cpu_us)).collect();
            let order = |a: &usize, b: &usize| figures[*a].total_cmp(&figures[*b]);
            *cheapest = (0..figures.len()).min_by(order).unwrap_or(0);
            for (row, (figure, one)) in rows.iter_mut().zip(figures.iter().zip(&series)) {
                row.extend([number(*figure), number(one.median(Slice::rate))]);
            }
        }
        let head = "server | µs, 1 client | /s | µs, 16 clients | /s";
        let note = format!(
            "In the following tables \"null\" is the cheapest: with one client {}, with more {}.",
            Variant::ALL[cheapest[0]].label(),
            Variant::ALL[cheapest[1]].label()
        );
        table("Null servers", head, &rows, &note)?;
        Ok(cheapest)
    }
}
