//! `pmd doctor`: checks for common problems.

use std::io::{self, Write};

use super::args;
use super::common::{Colour, Exit, Output, Result, Target, block_on, target, with_progress};
use super::ping::callers_cookie;
use crate::base::text::printable;
use crate::doctor::{Report, Verdict, examine};

/// Checks this host, and the path to a node if one is given.
pub fn run(global: &args::Global, args: &args::Doctor, output: Output) -> Result<Exit> {
    let settings = target::settings(global, &args::Start::default())?;
    let client = Target::of(global)?.client();
    let cookie = callers_cookie(&args.cookie)?;
    block_on(async {
        let node = args.node.as_deref().map(|node| (node, &cookie));
        let report = with_progress("checking", examine(&settings, &client, node)).await;
        output.one(&report, |out| write_report(out, &report, output))?;
        Ok(if report.verdict == Verdict::Fail { Exit::Unhealthy } else { Exit::Done })
    })
}

fn write_report(out: &mut dyn Write, report: &Report, output: Output) -> io::Result<()> {
    for finding in &report.findings {
        let (colour, mark) = match finding.verdict {
            Verdict::Pass => (Colour::Green, "ok  "),
            Verdict::Warn => (Colour::Yellow, "warn"),
            Verdict::Fail => (Colour::Red, "FAIL"),
        };
        let mark = output.paint(colour, mark);
        writeln!(out, "{mark}  {:<15}  {}", finding.check, printable(&finding.what))?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "      {:<15}  -> {}", "", printable(remedy))?;
        }
    }
    Ok(())
}
