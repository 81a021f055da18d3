//! Tests each hop to one node.

use super::finding::Finding;
use crate::control::api::{NodeList, Ping};
use crate::control::client::Client;
use crate::directory::hosts::same_host;

const PATH: &str = "path";

pub(super) async fn check(
    client: &Client,
    own: &str,
    node: &str,
    members: Option<&NodeList>,
) -> Vec<Finding> {
    let Some((_, host)) = node.rsplit_once('@') else {
        return vec![Finding::fail("node name", format!("{node:?} has no host"), "use the form NAME@HOST")];
    };
    let mut findings = vec![judge_style(own, host)];
    let Some(members) = members else {
        findings.push(Finding::unchecked(PATH));
        return findings;
    };
    let member = same_host(host, own) || members.nodes.iter().any(|node| same_host(host, &node.host));
    findings.push(judge_member(host, member));
    let tunnels = client.tunnels().await;
    let listed = tunnels
        .is_ok_and(|list| list.aliases.iter().any(|alias| alias.listed && same_host(host, &alias.host)));
    let resolves = tokio::net::lookup_host((host, 0)).await.is_ok();
    findings.push(judge_hosts(host, same_host(host, own) || listed, resolves));
    match client.ping(&Ping { node: node.to_owned() }).await {
        Ok(pinged) => {
            findings.extend(pinged.hops.into_iter().map(|hop| Finding::pass(&hop.hop, hop.what)));
        }
        Err(error) => {
            let hint = error.hint();
            findings.push(Finding::fail(PATH, error.to_string(), hint));
        }
    }
    findings.push(Finding::warn(
        "Erlang cookie",
        "not checked: pmd knows only the cluster secret, not the Erlang cookie that the two nodes share",
        "make sure that erlang:get_cookie() returns the same on both nodes",
    ));
    findings
}

/// Nodes with short names do not connect to nodes with long names.
fn judge_style(own: &str, host: &str) -> Finding {
    let style = |host: &str| if host.contains('.') { "long" } else { "short" };
    if style(own) == style(host) {
        return Finding::pass(
            "name style",
            format!("{host} is a {} name, like that of this host", style(host)),
        );
    }
    Finding::warn(
        "name style",
        format!("{host} is a {} name, but this host has a {} name, {own}", style(host), style(own)),
        "start the nodes of both hosts with -name, or all of them with -sname",
    )
}

fn judge_member(host: &str, member: bool) -> Finding {
    if member {
        return Finding::pass("member", format!("{host} is a host of the cluster"));
    }
    let remedy = format!("join it: pmd join {host}; or find the right name: pmd nodes");
    Finding::fail("member", format!("the cluster has no host named {host}"), remedy)
}

fn judge_hosts(host: &str, listed: bool, resolves: bool) -> Finding {
    match (listed, resolves) {
        (true, _) => {
            Finding::pass("resolver", format!("nodes started with pmd run (or pmd env) resolve {host}"))
        }
        (false, true) => Finding::pass("resolver", format!("the system resolves {host}, which has no alias")),
        (false, false) => Finding::fail(
            "resolver",
            format!("neither an alias nor the system resolves {host}"),
            "check tunnel and [[tunnel_rule]] in the configuration, or add the host to /etc/hosts",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn short_and_long_names_do_not_mix() {
        assert_eq!(judge_style("h1", "h2").verdict, Verdict::Pass);
        assert_eq!(judge_style("h1.a.org", "h2.a.org").verdict, Verdict::Pass);
        assert_eq!(judge_style("h1", "h2.a.org").verdict, Verdict::Warn);
        assert_eq!(judge_style("h1.a.org", "h2").verdict, Verdict::Warn);
    }
}
