//! The tables and the bars.

use anyhow::Result;
use pmd_bench::options::RunOptions;
use pmd_bench::report::{Bar, Report, number, table};
use pmd_bench::stats::median;

use crate::figures::{Connects, Figures, SIZES, Side, Way};
use crate::options::Plan;

/// The maximum time that a tunnel may add to the median round trip, in microseconds.
const ADDED_BAR: f64 = 150.0;

/// The maximum time that a node takes to connect by the epmd module, compared with an alias.
const CONNECT_BAR: f64 = 1.3;

/// Prints the description of the run.
pub(crate) fn begin(options: &RunOptions, plan: &Plan) -> Result<Report> {
    let facts =
        format!("rounds: {}, {} ms of messages, {} round trips", plan.rounds, plan.send_ms, plan.trips);
    Report::begin("Erlang distribution through pmd", options, &plan.pmd, &[facts])
}

/// Prints the medians of the rounds, with ratios, and the bars. Returns whether the run has succeeded.
pub(crate) fn print(mut report: Report, figures: &[Figures; 4], connects: &Connects) -> Result<bool> {
    for (index, (_, size)) in SIZES.iter().enumerate() {
        let rates = figures.each_ref().map(|side| middle(&side.rate[index]));
        compare(&format!("Messages of {size}, throughput"), "MB/s", rates)?;
        let cpu = figures.each_ref().map(|side| middle(&side.cpu[index]));
        compare(&format!("Messages of {size}, CPU"), "CPU s per GB", cpu)?;
        let [_, direct, _, tls] = rates;
        report.bar(Bar::at_least(format!("throughput against Erlang TLS, {size}"), direct / tls, 1.0));
        let [_, direct, _, tls] = cpu;
        report.bar(Bar::at_most(format!("CPU against Erlang TLS, {size}"), direct / tls, 1.0));
    }
    let medians = figures.each_ref().map(|side| middle(&side.trip[0]));
    compare("Round trip, median", "µs", medians)?;
    compare("Round trip, p99", "µs", figures.each_ref().map(|side| middle(&side.trip[1])))?;
    compare("Round trips per second", "1/s", figures.each_ref().map(|side| middle(&side.trips)))?;
    let [plain, direct, ..] = medians;
    report.bar(Bar::at_most("round trip added to plain TCP, median", direct - plain, ADDED_BAR).unit("µs"));
    let [module, alias, plain] = connects.each_ref().map(|times| middle(times));
    let rows: Vec<Vec<String>> = Way::ALL
        .iter()
        .zip([module, alias, plain])
        .map(|(way, value)| vec![way.name().to_owned(), number(value), number(value / plain)])
        .collect();
    table("Time to connect, median", " | µs | vs plain TCP", &rows, "")?;
    report.bar(Bar::at_most("time to connect by the module against an alias", module / alias, CONNECT_BAR));
    report.finish()
}

fn middle(rounds: &[f64]) -> f64 {
    median(rounds.iter().copied())
}

/// Prints one figure of all sides.
fn compare(title: &str, unit: &str, values: [f64; 4]) -> Result<()> {
    let [plain, _, _, tls] = values;
    let row = |(side, value): (&Side, f64)| {
        vec![side.name().to_owned(), number(value), number(value / plain), number(value / tls)]
    };
    let rows: Vec<Vec<String>> = Side::ALL.iter().zip(values).map(row).collect();
    table(title, &format!(" | {unit} | vs plain TCP | vs Erlang TLS"), &rows, "")
}
