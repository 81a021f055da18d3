//! PORT_PLEASE2: what a look-up costs the server, by registry size and by number of clients.

use anyhow::Result;

use crate::client::Request;
use crate::hold::{Holder, Stand};
use crate::null::Variant;
use crate::options::Bench;
use crate::report::{Report, count, number, with_clients};
use crate::rounds::{Contestant, Series, Slice, interleave, median};
use crate::server::{Peer, Server};

/// Stock ends at 1,019 connections; 900 names leave it some for the clients.
const SIZES: [u32; 4] = [10, 200, 700, 900];
const CLIENTS: [u32; 5] = [1, 4, 16, 64, 256];
/// The bars hold here.
const JUDGED: [u32; 2] = [1, 16];
/// Most CPU per look-up, as a share of stock's, by registry size.
const BARS: [(u32, f64); 3] = [(10, 0.95), (200, 0.5), (700, 0.2)];
/// Most CPU per look-up, as a multiple of the null server's.
const NULL_BAR: f64 = 1.2;
/// Most CPU per look-up with the largest registry, as a multiple of that with ten names.
const FLAT_BAR: f64 = 1.15;

/// A server with registered names.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) server: Server,
    pub(crate) names: u32,
    _holder: Holder,
}

impl Registry {
    pub(crate) fn start(bench: &Bench, peer: Peer, names: u32) -> Result<Registry> {
        Registry::start_with(bench, peer, names, &[])
    }

    pub(crate) fn start_with(bench: &Bench, peer: Peer, names: u32, flags: &[&str]) -> Result<Registry> {
        let server = Server::start(bench, peer, flags)?;
        let holder = Holder::start(&server, Stand::Registered, names, 1)?;
        Ok(Registry { server, names, _holder: holder })
    }

    /// Look-ups of the registered names.
    pub(crate) fn look_ups(&self) -> Contestant<'_> {
        Contestant { server: &self.server, request: Request::LookUp { names: self.names } }
    }
}

/// Stock, pmd and null with registries that stock can hold.
pub(crate) fn by_registry_size(bench: &Bench, report: &mut Report) -> Result<()> {
    let floor = Floor::start(bench)?;
    let cheapest = floor.table(bench, report)?;
    let mut rows = Vec::new();
    let mut to_null: Vec<(u32, Vec<f64>)> = JUDGED.iter().map(|clients| (*clients, Vec::new())).collect();
    for names in SIZES {
        let stock = Registry::start(bench, Peer::Stock, names)?;
        let pmd = Registry::start(bench, Peer::Pmd, names)?;
        for clients in some(bench, &CLIENTS) {
            eprintln!("  {names} names, {}", with_clients(clients));
            // With one client every request finds the server asleep, with several it seldom does: judged apart.
            let null = floor.contestant(if clients == 1 { cheapest[0] } else { cheapest[1] });
            let series = interleave(bench, &[stock.look_ups(), pmd.look_ups(), null], clients)?;
            let [stock, pmd, null] = &series[..] else { unreachable!("as many series as contestants") };
            let ratio = pmd.ratio(stock, Slice::cpu_us);
            if let Some((_, pool)) = to_null.iter_mut().find(|(judged, _)| *judged == clients) {
                pool.extend(pmd.ratios(null, Slice::cpu_us));
                if let Some((_, bar)) = BARS.iter().find(|(size, _)| *size == names) {
                    report.bar_above(
                        format!("look-up CPU, pmd / stock, {names} names, {}", with_clients(clients)),
                        ratio,
                        *bar,
                        null.ratio(stock, Slice::cpu_us),
                    );
                }
            }
            rows.push(row(names, clients, stock, pmd, null));
        }
    }
    for (clients, pool) in to_null {
        report.bar(
            format!("look-up CPU, pmd / null, {}, all registry sizes", with_clients(clients)),
            median(pool),
            NULL_BAR,
        );
    }
    let head = [
        "names",
        "clients",
        "stock µs",
        "pmd µs",
        "null µs",
        "pmd / stock",
        "pmd / null",
        "stock /s",
        "pmd /s",
        "null /s",
        "stock dropped",
        "pmd dropped",
    ];
    let note = "µs: CPU time of the server per look-up (user and system). /s: look-ups answered per second of wall time, \
                clients on the same cores. Dropped: requests closed or reset without an answer.";
    report.table("Look-ups", &head, &rows, note)
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

/// pmd alone, from ten names to the largest registry, all sizes standing at the same time.
pub(crate) fn flatness(bench: &Bench, report: &mut Report) -> Result<()> {
    let sizes = if bench.quick { vec![10, 1000] } else { vec![10, 1000, 10_000, bench.largest] };
    let registries =
        sizes.iter().map(|names| Registry::start(bench, Peer::Pmd, *names)).collect::<Result<Vec<_>>>()?;
    let contestants: Vec<_> = registries.iter().map(Registry::look_ups).collect();
    let mut rows = Vec::new();
    for clients in some(bench, &CLIENTS) {
        eprintln!("  {}", with_clients(clients));
        let series = interleave(bench, &contestants, clients)?;
        for (names, one) in sizes.iter().zip(&series) {
            let ratio = one.ratio(&series[0], Slice::cpu_us);
            if JUDGED.contains(&clients) && Some(names) == sizes.last() {
                report.bar(
                    format!("look-up CPU, {} names / 10 names, {}", count(*names), with_clients(clients)),
                    ratio,
                    FLAT_BAR,
                );
            }
            rows.push(vec![
                count(*names),
                clients.to_string(),
                number(one.median(Slice::cpu_us)),
                number(ratio),
                number(one.median(Slice::rate)),
                number(one.median(|slice| slice.latency_us(50))),
                number(one.median(|slice| slice.latency_us(99))),
                one.total(|slice| slice.dropped).to_string(),
            ]);
        }
    }
    let head = ["names", "clients", "pmd µs", "to 10 names", "pmd /s", "p50 µs", "p99 µs", "dropped"];
    let note =
        if bench.largest < 19_000 { "The hard descriptor limit allows no larger registry here." } else { "" };
    report.table("Look-ups on pmd by registry size", &head, &rows, note)
}

/// The null servers.
#[derive(Debug)]
struct Floor(Vec<Server>);

impl Floor {
    fn start(bench: &Bench) -> Result<Floor> {
        let servers = Variant::ALL.iter().map(|variant| Server::start(bench, Peer::Null(*variant), &[]));
        Ok(Floor(servers.collect::<Result<_>>()?))
    }

    fn contestant(&self, which: usize) -> Contestant<'_> {
        Contestant { server: &self.0[which], request: Request::LookUpUnchecked }
    }

    /// Measures the variants against each other and returns the cheapest for each of [`JUDGED`].
    fn table(&self, bench: &Bench, report: &Report) -> Result<[usize; 2]> {
        let contestants: Vec<_> = (0..self.0.len()).map(|which| self.contestant(which)).collect();
        let mut rows: Vec<_> = Variant::ALL.iter().map(|variant| vec![variant.label()]).collect();
        let mut cheapest = [0; 2];
        for (clients, cheapest) in JUDGED.iter().zip(&mut cheapest) {
            let series = interleave(bench, &contestants, *clients)?;
            let figures: Vec<f64> = series.iter().map(|one| one.median(Slice::cpu_us)).collect();
            let order = |a: &usize, b: &usize| figures[*a].total_cmp(&figures[*b]);
            *cheapest = (0..figures.len()).min_by(order).unwrap_or(0);
            for (row, (figure, one)) in rows.iter_mut().zip(figures.iter().zip(&series)) {
                row.extend([number(*figure), number(one.median(Slice::rate))]);
            }
        }
        let head = ["server", "µs, 1 client", "/s", "µs, 16 clients", "/s"];
        let note = format!(
            "Below, \"null\" is the cheapest: with one client {}, with more {}.",
            Variant::ALL[cheapest[0]].label(),
            Variant::ALL[cheapest[1]].label()
        );
        report.table("Null servers", &head, &rows, &note)?;
        Ok(cheapest)
    }
}

/// All of them, or the judged ones in a smoke run.
fn some(bench: &Bench, clients: &[u32]) -> Vec<u32> {
    clients.iter().copied().filter(|clients| !bench.quick || JUDGED.contains(clients)).collect()
}
