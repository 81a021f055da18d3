//! Tables and bars on standard output, in Markdown.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::Result;
use jiff::Zoned;

use crate::options::RunOptions;

/// A figure and the limit that it must meet.
#[derive(Debug)]
pub struct Bar {
    what: String,
    measured: f64,
    limit: f64,
    /// Whether the limit is a maximum instead of a minimum.
    at_most: bool,
    unit: &'static str,
    null: Option<f64>,
}

impl Bar {
    /// A figure that must be at most `limit`.
    pub fn at_most(what: impl Into<String>, measured: f64, limit: f64) -> Bar {
        Bar { what: what.into(), measured, limit, at_most: true, unit: "", null: None }
    }

    /// A figure that must be at least `limit`.
    pub fn at_least(what: impl Into<String>, measured: f64, limit: f64) -> Bar {
        Bar { at_most: false, ..Bar::at_most(what, measured, limit) }
    }

    /// Sets the unit.
    #[must_use]
    pub fn unit(self, unit: &'static str) -> Bar {
        Bar { unit, ..self }
    }

    /// Adds the figure of a null server, which is a lower bound for any server.
    #[must_use]
    pub fn null(self, null: f64) -> Bar {
        Bar { null: Some(null), ..self }
    }

    fn is_measured(&self) -> bool {
        self.measured.is_finite()
    }

    fn is_met(&self) -> bool {
        if self.at_most { self.measured <= self.limit } else { self.measured >= self.limit }
    }
}

/// Collects bars and failed measurements while the tables are printed.
#[derive(Debug)]
pub struct Report {
    quick: bool,
    check: bool,
    bars: Vec<Bar>,
    failures: Vec<String>,
}

impl Report {
    /// Prints the title and a description of the run: time, machine, pmd version, and these other `facts`.
    pub fn begin(title: &str, options: &RunOptions, pmd: &Path, facts: &[String]) -> Result<Report> {
        let mut out = io::stdout().lock();
        let kernel = read("/proc/sys/kernel/osrelease");
        writeln!(out, "# {title}\n\n- {}, Linux {kernel}", Zoned::now().strftime("%F %R %Z"))?;
        let cores = thread::available_parallelism().map_or(0, usize::from);
        writeln!(out, "- {}, {cores} cores, load average before {}", processor(), read("/proc/loadavg"))?;
        writeln!(out, "- pmd: {}", version(Command::new(pmd).arg("--version")))?;
        for fact in facts {
            writeln!(out, "- {fact}")?;
        }
        if options.quick || cfg!(debug_assertions) {
            writeln!(out, "- smoke test: the figures are not meaningful")?;
        }
        Ok(Report { quick: options.quick, check: options.check, bars: Vec::new(), failures: Vec::new() })
    }

    /// Adds a bar to the table at the end.
    pub fn bar(&mut self, bar: Bar) {
        self.bars.push(bar);
    }

    /// Records a failed measurement.
    pub fn failure(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Prints the bars and the failed measurements. Returns false if a measurement failed, or if a bar is missed that
    /// must be checked.
    pub fn finish(mut self) -> Result<bool> {
        let with_null = self.bars.iter().any(|bar| bar.null.is_some());
        let row = |bar: &Bar| {
            let verdict = match (bar.is_measured(), bar.is_met()) {
                (false, _) => "NOT MEASURED",
                _ if self.quick => "not checked",
                (_, true) => "met",
                (_, false) => "MISSED",
            };
            let limit =
                format!("{} {} {}", if bar.at_most { "<=" } else { ">=" }, number(bar.limit), bar.unit);
            let mut row = vec![bar.what.clone(), number(bar.measured), limit.trim_end().to_owned()];
            row.extend(with_null.then(|| number(bar.null.unwrap_or(f64::NAN))));
            row.push(verdict.to_owned());
            row
        };
        let rows: Vec<Vec<String>> = self.bars.iter().map(row).collect();
        let head =
            if with_null { "bar | measured | limit | null server | " } else { "bar | measured | limit | " };
        let load = format!("Load average after: {}", read("/proc/loadavg"));
        if rows.is_empty() {
            writeln!(io::stdout(), "\n{load}")?;
        } else {
            table("Bars", head, &rows, &load)?;
        }
        let missing = self.bars.iter().filter(|bar| !bar.is_measured()).map(|bar| bar.what.clone());
        self.failures.extend(missing);
        let mut out = io::stdout().lock();
        for failure in &self.failures {
            writeln!(out, "\nCould not be measured: {failure}")?;
        }
        Ok(self.failures.is_empty() && (!self.check || self.bars.iter().all(Bar::is_met)))
    }
}

/// Prints a table with a note below it. `head` contains the column names, separated by `|`. Columns of numbers are
/// right-aligned.
pub fn table(title: &str, head: &str, rows: &[Vec<String>], note: &str) -> Result<()> {
    let head: Vec<&str> = head.split('|').map(str::trim).collect();
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let columns: Vec<(usize, bool)> = head
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let width = cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
            let is_number =
                |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit() || first == '-');
            (width.max(name.chars().count()).max(2), cells(column).all(is_number))
        })
        .collect();
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(&columns).map(|(cell, (width, is_number))| {
            if *is_number { format!(" {cell:>width$} |") } else { format!(" {cell:<width$} |") }
        });
        format!("|{}", padded.collect::<String>())
    };
    let rule = columns.iter().map(|(width, is_number)| {
        let (dashes, end) = if *is_number { (width - 1, ":") } else { (*width, "") };
        format!(" {}{end} |", "-".repeat(dashes))
    });
    let mut out = io::stdout().lock();
    writeln!(out, "\n## {title}\n\n{}\n|{}", line(&head), rule.collect::<String>())?;
    for row in rows {
        writeln!(out, "{}", line(&row.iter().map(String::as_str).collect::<Vec<_>>()))?;
    }
    if !note.is_empty() {
        writeln!(out, "\n{note}")?;
    }
    Ok(())
}

/// A count, with thousands separators.
pub fn count(value: impl Into<u64>) -> String {
    thousands(&value.into().to_string())
}

/// About three significant digits, with thousands separators; a dash for NaN.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let size = match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => thousands(&format!("{size:.0}")),
        size if size >= 9.995 => format!("{size:.1}"),
        size if size >= 0.0995 => format!("{size:.2}"),
        size => format!("{size:.3}"),
    };
    format!("{sign}{size}")
}

/// The first line of a program's version output.
pub fn version(command: &mut Command) -> String {
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().next().unwrap_or("unknown version").to_owned()
        }
        Err(error) => error.to_string(),
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
