//! `pmd alias`: the loopback address that stands for a host on all hosts of the cluster.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::common::{Exit, Failure, Output, Result, Target, block_on, explain, note};
use crate::base::text::printable;
use crate::control::api::TunnelList;
use crate::directory::hosts::same_host;

/// A host and its alias.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Document<'a> {
    host: &'a str,
    alias: Ipv4Addr,
    agreed: bool,
}

/// Prints the alias of `host`, or of this host.
pub fn run(target: &Target, host: Option<&str>, output: Output) -> Result<Exit> {
    block_on(async {
        let tunnels = explain(target, target.client().tunnels().await).await?;
        let found = find(&tunnels, host).ok_or_else(|| absent(host))?;
        if !found.agreed {
            note(&format!(
                "note: {} has this alias on this host alone: its daemon is of an older version, or another host claims \
                 the same (pmd status says so)",
                printable(found.host)
            ));
        }
        output.one(&found, |out| writeln!(out, "{}", found.alias))?;
        Ok(Exit::Done)
    })
}

fn find<'a>(tunnels: &'a TunnelList, host: Option<&str>) -> Option<Document<'a>> {
    let own = || Some(Document { host: &tunnels.host, alias: tunnels.alias?, agreed: true });
    let Some(host) = host else { return own() };
    let others = || {
        tunnels.aliases.iter().map(|alias| Document {
            host: &alias.host,
            alias: alias.address,
            agreed: alias.agreed,
        })
    };
    let exact = |found: &Document<'_>| found.host.eq_ignore_ascii_case(host);
    let short = |found: &Document<'_>| same_host(found.host, host);
    own()
        .filter(exact)
        .or_else(|| others().find(exact))
        .or_else(|| own().filter(short))
        .or_else(|| others().find(short))
}

fn absent(host: Option<&str>) -> Failure {
    match host {
        Some(host) => Failure::new(
            Exit::NotFound,
            format!("no member on the host {host:?} has an alias"),
            "list the members with pmd nodes; hosts with tunnel = \"never\" have none",
        ),
        None => Failure::new(
            Exit::NotFound,
            "the daemon does not say what alias this host has",
            "it is of an older version: restart it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::AliasInfo;

    #[test]
    fn a_host_is_found_by_its_whole_name_first() {
        let alias = |host: &str, last| AliasInfo {
            host: host.into(),
            address: Ipv4Addr::new(127, 77, 0, last),
            listed: false,
            names: Vec::new(),
            unlisted: None,
            agreed: last != 3,
            plain: false,
        };
        let tunnels = TunnelList {
            inetrc: "/i".into(),
            hosts_file: "/h".into(),
            module_folder: "/m".into(),
            port: 4369,
            host: "Here.example.org".into(),
            alias: Some(Ipv4Addr::new(127, 77, 0, 1)),
            aliases: vec![alias("db.a.org", 2), alias("db.b.org", 3), alias("here", 4)],
            tunnels: Vec::new(),
        };
        let last = |host| find(&tunnels, host).map(|found| (found.alias.octets()[3], found.agreed));
        assert_eq!(last(None), Some((1, true)));
        for (host, expected) in [
            ("here.example.org", Some((1, true))),
            ("here", Some((4, true))),
            ("DB.b.org", Some((3, false))),
            ("db", Some((2, true))),
            ("db.c.org", None),
            ("nobody", None),
        ] {
            assert_eq!(last(Some(host)), expected, "{host}");
        }
    }
}
