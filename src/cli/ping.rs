//! `pmd ping`: whether the way to a node is open, leg by leg.

use std::io::{self, Write};

use super::args;
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::Result;
use super::common::output::Output;
use super::common::runtime::{block_on, with_progress};
use super::common::target::Target;
use crate::base::text::printable;
use crate::control::api::{Ping, Pinged};

/// Asks the daemon to go the way.
pub fn run(target: &Target, args: &args::Ping, output: Output) -> Result<Exit> {
    let ping = Ping { node: args.node.clone() };
    block_on(async {
        let client = target.client();
        let doing = format!("reaching {}", args.node);
        let pinged = with_progress(&doing, async { explain(target, client.ping(&ping).await).await }).await?;
        output.one(&pinged, |out| write_legs(out, &pinged))?;
        Ok(Exit::Done)
    })
}

fn write_legs(out: &mut dyn Write, pinged: &Pinged) -> io::Result<()> {
    for leg in &pinged.legs {
        writeln!(out, "{:<9} {:>10}  {}", leg.leg, milliseconds(leg.took_us), printable(&leg.what))?;
    }
    let (node, path) = (printable(&pinged.node), &pinged.path);
    writeln!(out, "{:<9} {:>10}  {node} answers, {path}", "all", milliseconds(pinged.took_us))
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Leg;

    #[test]
    fn every_leg_has_its_line() {
        let leg = |leg: &str, took_us| Leg { leg: leg.into(), what: "it\nworks".into(), took_us };
        let pinged = Pinged {
            node: "bar@far".into(),
            host: "far".into(),
            port: 5_000,
            path: "direct".into(),
            address: None,
            legs: vec![leg("lookup", 25), leg("daemon", 12_345)],
            took_us: 13_000,
        };
        let mut out = Vec::new();
        write_legs(&mut out, &pinged).expect("memory takes it");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "lookup      0.025 ms  it\\nworks\n\
             daemon     12.345 ms  it\\nworks\n\
             all        13.000 ms  bar@far answers, direct\n"
        );
    }
}
