//! `pmd hosts`: lines for `/etc/hosts`, for programs that reach other hosts by names that the system resolves.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use serde::Serialize;

use super::args::Format;
use super::common::output::{json, stdout};
use super::common::{Exit, Output, Result, Target, block_on, explain, note};
use crate::base::text::printable;
use crate::control::api::{AliasInfo, Unlisted};

/// All hosts.
#[derive(Debug, Serialize)]
struct Document<'a> {
    hosts: Vec<Line<'a>>,
}

/// A host, the address that leads to it, and the names that may mean it on this host.
#[derive(Debug, Serialize)]
struct Line<'a> {
    host: &'a str,
    address: Ipv4Addr,
    names: &'a [String],
    agreed: bool,
    plain: bool,
    #[serde(skip)]
    unlisted: Option<Unlisted>,
}

impl<'a> From<&'a AliasInfo> for Line<'a> {
    fn from(alias: &'a AliasInfo) -> Line<'a> {
        let AliasInfo { host, address, names, agreed, plain, unlisted, .. } = alias;
        Line { host, address: *address, names, agreed: *agreed, plain: *plain, unlisted: *unlisted }
    }
}

/// Prints one line for each host.
pub fn run(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let tunnels = explain(target, target.client().tunnels_for_a_node().await).await?;
        // The alias of a host that is absent leads nowhere.
        let is_here = |alias: &&AliasInfo| alias.unlisted != Some(Unlisted::Absent);
        let lines: Vec<Line<'_>> = tunnels.aliases.iter().filter(is_here).map(Line::from).collect();
        let mut out = stdout();
        match output.format {
            Format::Json => json(&mut out, &Document { hosts: lines }, true)?,
            Format::Jsonl => lines.iter().try_for_each(|line| json(&mut out, line, false))?,
            Format::Table | Format::Wide | Format::Plain => {
                lines.iter().try_for_each(|line| write_line(&mut out, line))?;
                note(
                    "note: with these lines in /etc/hosts, C and Java nodes on this host find the others; print them again \
                     when a host has joined, and see pmd env for Erlang nodes",
                );
            }
        }
        out.flush()?;
        Ok(Exit::Done)
    })
}

/// The line of a host that is not listed is a comment with the reason.
fn write_line(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    let Line { host, address, names, unlisted, .. } = line;
    if names.is_empty() {
        let why = match unlisted {
            Some(Unlisted::Absent) => "it is no member at the moment",
            Some(Unlisted::OtherDomain) => "it is in another domain, so name it in a [[tunnel_rule]]",
            Some(Unlisted::PortTaken) => "another program has pmd's port at this address, see pmd status",
            // A name that was known before pmd keeps its meaning. Older daemons give no reason.
            Some(Unlisted::Known) | None => "the system knows this name",
        };
        writeln!(out, "# {address} {}: {why}", printable(host))
    } else {
        writeln!(out, "{address} {}", names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_not_listed_is_a_comment_with_the_reason() {
        let names = ["far.example.org".to_owned(), "far".to_owned()];
        let line = |names, unlisted| {
            let address = Ipv4Addr::new(127, 77, 1, 2);
            let mut out = Vec::new();
            let line = Line { host: "far.example.org", address, names, agreed: true, plain: false, unlisted };
            write_line(&mut out, &line).expect("in-memory write");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(line(&names, None), "127.77.1.2 far.example.org far\n");
        let known = "# 127.77.1.2 far.example.org: the system knows this name\n";
        assert_eq!(line(&[], Some(Unlisted::Known)), known);
        let other =
            "# 127.77.1.2 far.example.org: it is in another domain, so name it in a [[tunnel_rule]]\n";
        assert_eq!(line(&[], Some(Unlisted::OtherDomain)), other);
        assert!(line(&[], Some(Unlisted::PortTaken)).contains("another program"));
    }
}
