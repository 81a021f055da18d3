//! `pmd ping`: tests each hop to a node.

use std::io::{self, Write};

use super::args;
use super::common::{Exit, Output, Result, Target, block_on, explain, with_progress};
use crate::base::text::printable;
use crate::control::api::{Ping, Pinged};

/// Asks the daemon to test each hop to the node.
pub fn run(target: &Target, args: &args::Ping, output: Output) -> Result<Exit> {
    let ping = Ping { node: args.node.clone() };
    block_on(async {
        let client = target.client();
        let doing = format!("testing the path to {}", args.node);
        let pinged = with_progress(&doing, async { explain(target, client.ping(&ping).await).await }).await?;
        output.one(&pinged, |out| write_hops(out, &pinged))?;
        Ok(Exit::Done)
    })
}

fn write_hops(out: &mut dyn Write, pinged: &Pinged) -> io::Result<()> {
    for hop in &pinged.hops {
        writeln!(out, "{:<9} {:>10}  {}", hop.hop, milliseconds(hop.took_us), printable(&hop.what))?;
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
    use crate::control::api::Hop;

    #[test]
    fn every_hop_has_a_line() {
        let hop = |hop: &str, took_us| Hop { hop: hop.into(), what: "it\nworks".into(), took_us };
        let pinged = Pinged {
            node: "bar@far".into(),
            host: "far".into(),
            port: 5_000,
            path: "direct".into(),
            address: None,
            hops: vec![hop("lookup", 25), hop("daemon", 12_345)],
            took_us: 13_000,
        };
        let mut out = Vec::new();
        write_hops(&mut out, &pinged).expect("in-memory write");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "lookup      0.025 ms  it\\nworks\n\
             daemon     12.345 ms  it\\nworks\n\
             all        13.000 ms  bar@far answers, direct\n"
        );
    }
}
