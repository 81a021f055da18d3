//! Tests each hop to one node.

use std::time::Duration;

use super::erlang_cookie::CallersCookie;
use super::finding::Finding;
use super::node::{self, COOKIE_REMEDY};
use crate::control::api::{CookieTest, Pinged};
use crate::control::client::{Client, ClientError};
use crate::directory::hosts::same_host;

const PATH: &str = "path";
const COOKIE: &str = "Erlang cookie";
/// How long the system's resolver may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of addresses of a name that are looked at.
const MAX_ADDRESSES: usize = 16;

pub(super) async fn check(
    client: &Client,
    own: &str,
    node: &str,
    cookie: &CallersCookie,
    in_cluster: bool,
) -> Vec<Finding> {
    let Some((_, host)) = node.rsplit_once('@') else {
        return vec![Finding::fail("node name", format!("{node:?} has no host"), "use the form NAME@HOST")];
    };
    let mut findings = vec![judge_style(own, host)];
    if !in_cluster {
        findings.push(Finding::unchecked(PATH));
        return findings;
    }
    let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, 0))).await;
    let addresses: Vec<String> = match resolved {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).map(|address| address.ip().to_string()).collect(),
        _ => Vec::new(),
    };
    let tested = node::test(client, node, cookie).await;
    let member = match &tested {
        Ok(pinged) => Some(pinged.host.clone()),
        Err(_) => meant(client, host, &addresses).await,
    };
    findings.push(judge_member(host, member.as_deref()));
    let listed = client.tunnels().await.is_ok_and(|list| {
        let is_host = |alias: &str| member.as_ref().is_some_and(|member| same_host(member, alias));
        list.aliases.iter().any(|alias| alias.listed && is_host(&alias.host))
    });
    findings.push(judge_resolver(host, member.is_some(), listed, !addresses.is_empty()));
    findings.extend(judge_test(tested));
    findings
}

/// The member that `host` means to the daemon, as it is written or by one of its addresses.
async fn meant(client: &Client, host: &str, addresses: &[String]) -> Option<String> {
    for host in [host].into_iter().chain(addresses.iter().map(String::as_str)) {
        if client.cluster_names(Some(host)).await.is_ok() {
            return Some(host.to_owned());
        }
    }
    None
}

fn judge_test(tested: Result<Pinged, ClientError>) -> Vec<Finding> {
    match tested {
        Ok(pinged) => {
            let cookie = judge_cookie(&pinged);
            let hops = pinged.hops.into_iter().filter(|hop| hop.hop != node::HOP);
            hops.map(|hop| Finding::pass(&hop.hop, hop.what)).chain([cookie]).collect()
        }
        Err(error) => {
            let hint = error.hint();
            vec![
                Finding::fail(PATH, error.to_string(), hint),
                Finding::warn(COOKIE, "not tried: the node was not reached", "solve that first"),
            ]
        }
    }
}

/// Only an answer of the node's own counts.
fn judge_cookie(pinged: &Pinged) -> Finding {
    let what = node::cookie_hop(pinged).unwrap_or("not tried").to_owned();
    match pinged.cookie {
        Some(CookieTest::Accepted) => Finding::pass(COOKIE, what),
        Some(CookieTest::Refused) => Finding::fail(COOKIE, what, COOKIE_REMEDY),
        _ if pinged.tls => Finding::warn(
            COOKIE,
            "not tried: the node speaks TLS distribution",
            "make sure that erlang:get_cookie() returns the same on both nodes",
        ),
        _ => Finding::warn(
            COOKIE,
            what,
            "name a file with the Erlang cookie of your nodes: --erlang-cookie FILE",
        ),
    }
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

fn judge_member(host: &str, member: Option<&str>) -> Finding {
    match member {
        Some(member) if member == host => Finding::pass("member", format!("{host} is a host of the cluster")),
        Some(member) => Finding::pass("member", format!("{host} is {member}, a host of the cluster")),
        None => {
            let remedy = format!("join it: pmd join {host}; or find the right name: pmd nodes");
            Finding::fail("member", format!("the cluster has no host named {host}"), remedy)
        }
    }
}

/// What the system's resolver and the hosts file for nodes say. A node that asks pmd needs neither for a member.
fn judge_resolver(host: &str, member: bool, listed: bool, resolves: bool) -> Finding {
    match (resolves, listed, member) {
        (true, _, _) => Finding::pass("resolver", format!("the system resolves {host}")),
        (false, true, _) => {
            let what =
                format!("the system does not resolve {host}; the hosts file for Erlang nodes lists it");
            Finding::pass("resolver", what)
        }
        (false, false, true) => {
            let what = format!(
                "the system does not resolve {host}; nodes started with pmd run (or pmd env) ask pmd"
            );
            Finding::pass("resolver", what)
        }
        (false, false, false) => Finding::fail(
            "resolver",
            format!("the system does not resolve {host}"),
            "check the name, or add the host to /etc/hosts",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Hop;
    use crate::doctor::finding::Verdict;

    #[test]
    fn short_and_long_names_do_not_mix() {
        assert_eq!(judge_style("h1", "h2").verdict, Verdict::Pass);
        assert_eq!(judge_style("h1.a.org", "h2.a.org").verdict, Verdict::Pass);
        assert_eq!(judge_style("h1", "h2.a.org").verdict, Verdict::Warn);
        assert_eq!(judge_style("h1.a.org", "h2").verdict, Verdict::Warn);
    }

    #[test]
    fn only_a_host_that_is_no_member_is_told_to_join() {
        assert_eq!(judge_member("h2", Some("h2")).verdict, Verdict::Pass);
        let by_address = judge_member("10.0.0.2", Some("h2"));
        assert_eq!(by_address.what, "10.0.0.2 is h2, a host of the cluster");
        let absent = judge_member("h9", None);
        assert_eq!(absent.verdict, Verdict::Fail);
        assert!(absent.remedy.is_some_and(|remedy| remedy.contains("pmd join h9")));
    }

    #[test]
    fn the_resolver_is_blamed_only_for_hosts_that_pmd_does_not_know() {
        for known in [(true, false, false), (false, true, true), (false, false, true)] {
            assert_eq!(judge_resolver("h2", known.2, known.1, known.0).verdict, Verdict::Pass);
        }
        assert_eq!(judge_resolver("h2", false, false, false).verdict, Verdict::Fail);
    }

    #[test]
    fn a_cookie_passes_only_if_the_node_said_so() {
        let pinged = |cookie, tls| Pinged {
            node: "bar@far".into(),
            host: "far".into(),
            port: 5_000,
            path: "direct".into(),
            address: None,
            hops: vec![Hop { hop: node::HOP.into(), what: "said".into(), took_us: 1 }],
            took_us: 1,
            entry: None,
            tls,
            cookie,
        };
        for (cookie, tls, verdict) in [
            (Some(CookieTest::Accepted), false, Verdict::Pass),
            (Some(CookieTest::Refused), false, Verdict::Fail),
            (Some(CookieTest::NotTried), false, Verdict::Warn),
            (Some(CookieTest::NotTried), true, Verdict::Warn),
            (None, false, Verdict::Warn),
        ] {
            let findings = judge_test(Ok(pinged(cookie, tls)));
            assert_eq!(findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [verdict]);
        }
    }
}
