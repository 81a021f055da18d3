//! Tables and bars on standard output, in Markdown.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use jiff::Zoned;

use crate::options::Bench;

/// A limit that a figure is held to.
#[derive(Debug)]
struct Bar {
    what: String,
    measured: f64,
    limit: f64,
    /// What the null server would have measured; not a number where there is none.
    floor: f64,
}

/// Collects the bars while the tables are printed.
#[derive(Debug)]
pub(crate) struct Report {
    bars: Vec<Bar>,
}

impl Report {
    /// Prints what was measured where.
    pub(crate) fn begin(bench: &Bench) -> Result<Report> {
        let mut out = io::stdout().lock();
        writeln!(out, "# pmd and stock epmd under load\n")?;
        writeln!(
            out,
            "- {}, Linux {}",
            Zoned::now().strftime("%F %R %Z"),
            read("/proc/sys/kernel/osrelease")
        )?;
        writeln!(out, "- {}, {} cores, load average before {}", processor(), cores(), read("/proc/loadavg"))?;
        writeln!(out, "- pmd: {}", version(&bench.pmd))?;
        writeln!(out, "- stock: {}", bench.stock.display())?;
        writeln!(
            out,
            "- medians of {} rounds, {} ms per server and round, interleaved; ratios are medians of the rounds' ratios",
            bench.rounds,
            bench.slice.as_millis()
        )?;
        if bench.quick {
            writeln!(out, "- a smoke run: the figures mean little")?;
        }
        Ok(Report { bars: Vec::new() })
    }

    /// Prints one table, with a note below it.
    pub(crate) fn table(&self, title: &str, head: &[&str], rows: &[Vec<String>], note: &str) -> Result<()> {
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            format!("| {} |", cells.join(" | "))
        };
        let rule: Vec<String> =
            widths.iter().map(|width| format!("{}:", "-".repeat(width.saturating_sub(1)))).collect();
        let mut out = io::stdout().lock();
        writeln!(out, "\n## {title}\n\n{}\n{}", line(&head), line(&rule))?;
        for row in rows {
            writeln!(out, "{}", line(row))?;
        }
        if !note.is_empty() {
            writeln!(out, "\n{note}")?;
        }
        Ok(())
    }

    /// Holds `measured` to at most `limit`.
    pub(crate) fn bar(&mut self, what: impl Into<String>, measured: f64, limit: f64) {
        self.bar_above(what, measured, limit, f64::NAN);
    }

    /// The same, beside what the null server has in place of `measured`: the bar cannot be met below that.
    pub(crate) fn bar_above(&mut self, what: impl Into<String>, measured: f64, limit: f64, floor: f64) {
        self.bars.push(Bar { what: what.into(), measured, limit, floor });
    }

    /// Prints the bars and says whether all were met. A figure that could not be had misses its bar.
    pub(crate) fn finish(self) -> Result<bool> {
        let met = |bar: &Bar| bar.measured <= bar.limit;
        let row = |bar: &Bar| {
            let verdict = if met(bar) { "met" } else { "MISSED" };
            vec![
                bar.what.clone(),
                number(bar.measured),
                format!("<= {}", number(bar.limit)),
                number(bar.floor),
                verdict.to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> = self.bars.iter().map(row).collect();
        let note = format!("Load average after: {}", read("/proc/loadavg"));
        self.table("Bars", &["bar", "measured", "limit", "null server", ""], &rows, &note)?;
        Ok(self.bars.iter().all(met))
    }
}

/// A count, with thousands set apart.
pub(crate) fn count(value: impl Into<u64>) -> String {
    thousands(&value.into().to_string())
}

/// "1 client", "16 clients".
pub(crate) fn with_clients(count: u32) -> String {
    format!("{count} client{}", if count == 1 { "" } else { "s" })
}

/// Three significant digits or so, whole numbers from a hundred on with thousands set apart.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    match value.abs() {
        size if size >= 99.95 => thousands(&format!("{value:.0}")),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    model.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn version(pmd: &Path) -> String {
    let output = Command::new(pmd).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match text {
        Ok(text) if text.is_empty() => "of unknown version".to_owned(),
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}
