//! One table for each size, and the bars, on standard output, in Markdown.

use std::fs;
use std::io::{self, Write};
use std::process::Command;

use anyhow::Result;
use jiff::Zoned;

use crate::options::{Part, Plan};
use crate::figures::Figures;

/// A limit that a figure is held to.
#[derive(Debug)]
struct Bar {
    what: String,
    measured: f64,
    limit: f64,
    unit: &'static str,
}

/// Collects the bars while the tables are printed.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    plan: &'a Plan,
    bars: Vec<Bar>,
    /// Figures of pmd by size, for what shall be the same at all sizes.
    sizes: Vec<(usize, Figures)>,
}

impl<'a> Report<'a> {
    /// Prints what was measured where.
    pub(crate) fn begin(plan: &'a Plan) -> Result<Report<'a>> {
        let mut out = io::stdout().lock();
        writeln!(out, "# pmd and serf as clusters\n")?;
        let kernel = read("/proc/sys/kernel/osrelease");
        writeln!(out, "- {}, Linux {kernel}", Zoned::now().strftime("%F %R %Z"))?;
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        writeln!(out, "- {}, {cores} cores, load average before {}", processor(), read("/proc/loadavg"))?;
        writeln!(out, "- pmd: {}", version(Command::new(&plan.pmd).arg("--version")))?;
        writeln!(
            out,
            "- serf: {}, not encrypted, profile `lan`",
            version(Command::new("serf").arg("version"))
        )?;
        writeln!(
            out,
            "- joins: {}, changes: {} and {}, kills: {}, cables: {}, idle for {} s after {} s, split for {} s",
            plan.joins,
            plan.changes[0],
            plan.changes[1],
            plan.kills,
            plan.cables,
            plan.idle.as_secs(),
            plan.settle.as_secs(),
            plan.split.as_secs()
        )?;
        if plan.quick {
            writeln!(out, "- a smoke run: the figures mean little")?;
        }
        Ok(Report { plan, bars: Vec::new(), sizes: Vec::new() })
    }

    /// Prints the figures of both sides at one size, and notes the bars.
    pub(crate) fn size(&mut self, size: usize, [pmd, serf]: &[Figures; 2]) -> Result<()> {
        let mut rows = Vec::new();
        let mut row = |part: Option<Part>, what: &str, figure: &dyn Fn(&Figures) -> f64| {
            if part.is_none_or(|part| self.plan.parts.contains(&part)) {
                let (mine, theirs) = (figure(pmd), figure(serf));
                rows.push(vec![what.to_owned(), number(mine), number(theirs), number(mine / theirs)]);
            }
        };
        row(None, "join at once, all see all, median [ms]", &|f| f.join.median());
        row(None, "join at once, all see all, worst [ms]", &|f| f.join.worst());
        let part = Some(Part::Changes);
        row(part, "change, on one member, p50 [ms]", &|f| f.change_one.median());
        row(part, "change, on one member, p99 [ms]", &|f| f.change_one.percentile(99));
        row(part, "change, on all members, p50 [ms]", &|f| f.change_all.median());
        row(part, "change, on all members, p99 [ms]", &|f| f.change_all.percentile(99));
        row(part, "change, CPU of all processes together [ms]", &|f| f.change_cpu.median());
        let part = Some(Part::Kills);
        row(part, "killed process, known to all, median [ms]", &|f| f.kill.median());
        row(part, "killed process, known to all, worst [ms]", &|f| f.kill.worst());
        let part = Some(Part::Cables);
        row(part, "vanished host, known to all, median [ms]", &|f| f.cable.median());
        row(part, "vanished host, known to all, worst [ms]", &|f| f.cable.worst());
        let part = Some(Part::Split);
        row(part, "third cut off, heal until all see all [ms]", &|f| f.heal_members.worst());
        row(part, "third cut off, heal until equal fingerprints [ms]", &|f| f.heal_prints.worst());
        let part = Some(Part::Idle);
        row(part, "idle, CPU per process [% of a core]", &|f| f.idle.cpu);
        row(part, "idle, sent per process [B/s]", &|f| f.idle.sent[0]);
        row(part, "idle, sent by the busiest [B/s]", &|f| f.idle.sent[1]);
        row(part, "idle, packets sent per process [1/s]", &|f| f.idle.packets);
        row(part, "resident per process [MB]", &|f| f.idle.resident[0]);
        row(part, "resident of the largest [MB]", &|f| f.idle.resident[1]);
        row(part, "own and shared part of it [MB]", &|f| f.idle.share);
        table(&format!("{size} hosts"), &["", "pmd", "serf", "ratio"], &rows)?;
        self.bars_of(size, pmd);
        self.sizes.push((size, pmd.clone()));
        Ok(())
    }

    /// The goals that one size is held to.
    fn bars_of(&mut self, size: usize, pmd: &Figures) {
        let parts = &self.plan.parts;
        let bars = &mut self.bars;
        let mut bar = |part: Option<Part>, what: &str, measured: f64, limit: f64, unit: &'static str| {
            if part.is_none_or(|part| parts.contains(&part)) {
                bars.push(Bar { what: format!("{what}, {size} hosts"), measured, limit, unit });
            }
        };
        bar(None, "G3 all joined at once", pmd.join.median(), 1e3, "ms");
        bar(Some(Part::Changes), "G3 change on all, p50", pmd.change_all.median(), 50.0, "ms");
        bar(Some(Part::Changes), "G3 change on all, p99", pmd.change_all.percentile(99), 100.0, "ms");
        bar(Some(Part::Idle), "G4 idle, sent per process", pmd.idle.sent[0], 1024.0, "B/s");
        bar(Some(Part::Idle), "G4 idle, CPU per process", pmd.idle.cpu, 0.1, "%");
        bar(Some(Part::Idle), "G4 resident per process", pmd.idle.resident[0], 12.0, "MB");
        bar(Some(Part::Kills), "G5 killed process known, median", pmd.kill.median(), 1e3, "ms");
        bar(Some(Part::Kills), "G5 killed process known, worst", pmd.kill.worst(), 3e3, "ms");
        bar(Some(Part::Cables), "G5 vanished host known, median", pmd.cable.median(), 5e3, "ms");
        bar(Some(Part::Split), "G6 equal fingerprints after the heal", pmd.heal_prints.worst(), 2e3, "ms");
    }

    /// Prints the bars and says whether all were met. A figure that could not be had misses its bar.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.flatness();
        let met = |bar: &Bar| bar.measured <= bar.limit;
        let row = |bar: &Bar| {
            let verdict = if met(bar) { "met" } else { "MISSED" };
            let limit = format!("<= {} {}", number(bar.limit), bar.unit);
            vec![bar.what.clone(), number(bar.measured), limit, verdict.to_owned()]
        };
        let rows: Vec<Vec<String>> = self.bars.iter().map(row).collect();
        table("Bars", &["bar", "measured", "limit", ""], &rows)?;
        writeln!(io::stdout().lock(), "\nLoad average after: {}", read("/proc/loadavg"))?;
        Ok(self.bars.iter().all(met))
    }

    /// What is flat in the size of the cluster: at the largest as at ten hosts, where every daemon has its full number
    /// of links, but for half as much again.
    fn flatness(&mut self) {
        let of = |wanted: usize| self.sizes.iter().find(|(size, _)| *size == wanted);
        let Some(((_, base), (largest, at_most))) = of(10).zip(self.sizes.last()) else { return };
        if *largest <= 10 || !self.plan.parts.contains(&Part::Idle) {
            return;
        }
        for (what, figure) in [
            ("bytes sent", (|f: &Figures| f.idle.sent[0]) as fn(&Figures) -> f64),
            ("CPU", |f: &Figures| f.idle.cpu),
        ] {
            let measured = figure(at_most) / figure(base);
            let what = format!("G4 idle, {what}, {largest} hosts to 10");
            self.bars.push(Bar { what, measured, limit: 1.5, unit: "x" });
        }
    }
}

/// Prints one table.
fn table(title: &str, head: &[&str], rows: &[Vec<String>]) -> Result<()> {
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
    Ok(())
}

/// Three significant digits or so; a dash for what could not be had.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
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

/// The first line that a program says about its version.
fn version(command: &mut Command) -> String {
    let text = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match text {
        Ok(text) => text.lines().next().unwrap_or("of unknown version").to_owned(),
        Err(error) => error.to_string(),
    }
}
