//! The table and the bars, on standard output, in Markdown.

use std::io::{self, Write};

use anyhow::Result;

use crate::options::Plan;
use crate::measure::{Figures, SIZES, Side};

/// What a tunnel may add to the median round trip, in microseconds.
const ADDED: f64 = 150.0;

/// Prints medians of rounds, with ratios, and says whether all bars were met.
pub(crate) fn print(plan: &Plan, [plain, direct, relayed, tls]: &[Figures; 4]) -> Result<bool> {
    let mut out = io::stdout().lock();
    writeln!(out, "# Erlang distribution through pmd\n")?;
    writeln!(out, "- rounds: {}, {} ms of messages, {} trips", plan.rounds, plan.send_ms, plan.trips)?;
    if plan.quick || cfg!(debug_assertions) {
        writeln!(out, "- a smoke run: the figures mean little")?;
    }
    for (number, size) in SIZES.iter().enumerate() {
        table(
            &mut out,
            &format!("{} KiB, MB/s", size / 1024),
            [plain, direct, relayed, tls].map(|f| median(&f.rate[number])),
        )?;
        table(
            &mut out,
            &format!("{} KiB, CPU s per GB", size / 1024),
            [plain, direct, relayed, tls].map(|f| median(&f.cpu[number])),
        )?;
    }
    table(&mut out, "round trip, median µs", [plain, direct, relayed, tls].map(|f| median(&f.trip[0])))?;
    table(&mut out, "round trip, p99 µs", [plain, direct, relayed, tls].map(|f| median(&f.trip[1])))?;
    table(&mut out, "round trips per second", [plain, direct, relayed, tls].map(|f| median(&f.trips)))?;

    writeln!(out, "\n| bar | measured | limit | |\n| --- | --: | --: | --- |")?;
    let mut all = true;
    let mut bar = |what: String, measured: f64, limit: String, met: bool| {
        all &= met;
        writeln!(out, "| {what} | {measured:.2} | {limit} | {} |", if met { "met" } else { "MISSED" })
    };
    for (number, size) in SIZES.iter().enumerate() {
        let size = size / 1024;
        let rate = median(&direct.rate[number]) / median(&tls.rate[number]);
        bar(format!("throughput to Erlang TLS, {size} KiB"), rate, ">= 1".into(), rate >= 1.0)?;
        let cpu = median(&direct.cpu[number]) / median(&tls.cpu[number]);
        bar(format!("CPU to Erlang TLS, {size} KiB"), cpu, "< 1".into(), cpu < 1.0)?;
    }
    let added = median(&direct.trip[0]) - median(&plain.trip[0]);
    bar("round trip added to plain TCP, µs".into(), added, format!("< {ADDED}"), added < ADDED)?;
    Ok(all)
}

fn table(out: &mut impl Write, title: &str, values: [f64; 4]) -> Result<()> {
    let [plain, _, _, tls] = values;
    writeln!(out, "\n| {title} | | to plain TCP | to Erlang TLS |\n| --- | --: | --: | --: |")?;
    for (side, value) in Side::ALL.iter().zip(values) {
        let (to_plain, to_tls) = (value / plain, value / tls);
        writeln!(out, "| {} | {value:.2} | {to_plain:.2} | {to_tls:.2} |", side.name())?;
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
