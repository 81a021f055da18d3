//! `pmd metrics`: the daemon's metrics.

use std::io::Write;

use serde::Serialize;

use super::args::Format;
use super::common::output::{json, stdout};
use super::common::{Exit, Output, Result, Target, block_on, explain};

/// The samples as JSON, for programs that do not parse the text format.
#[derive(Debug, Serialize)]
struct Metrics<'a> {
    samples: Vec<Sample<'a>>,
}

/// One sample.
#[derive(Debug, PartialEq, Serialize)]
struct Sample<'a> {
    /// The metric name and labels.
    series: &'a str,
    value: f64,
}

/// Prints the daemon's metrics.
pub fn run(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let text = explain(target, target.client().metrics().await).await?;
        match output.format {
            Format::Json => output.one(&Metrics { samples: samples(&text).collect() }, |_| Ok(()))?,
            Format::Jsonl => {
                let mut out = stdout();
                samples(&text).try_for_each(|sample| json(&mut out, &sample, false))?;
                out.flush()?;
            }
            // The Prometheus text format suits both people and scripts.
            Format::Table | Format::Wide | Format::Plain => {
                let mut out = stdout();
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
        }
        Ok(Exit::Done)
    })
}

fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        Some(Sample { series, value: value.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_except_comments_is_a_sample() {
        let text = "# HELP a b\n# TYPE a gauge\na 1\nb{c=\"d e\",f=\"g\"} 2.5\n";
        let found: Vec<_> = samples(text).collect();
        assert_eq!(found[0], Sample { series: "a", value: 1.0 });
        assert_eq!(found[1], Sample { series: "b{c=\"d e\",f=\"g\"}", value: 2.5 });
        assert_eq!(found.len(), 2);
    }
}
