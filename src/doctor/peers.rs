//! Whether the other daemons can be reached. The daemon tests each step of a connection, including certificates and the
//! cluster secret, and reports the one that failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::{StreamExt, stream};

use super::finding::Finding;
use crate::control::api::{NodeList, Reach, ReachFailure, ReachStep};
use crate::control::client::Client;
use crate::directory::hosts::same_host;

const CHECK: &str = "peers";
/// Members that are dialled: all of a small cluster, a sample of a large one.
const MAX_DIALLED: usize = 64;
/// Members that are dialled at once.
const AT_ONCE: usize = 16;
/// Daemons named in a finding.
const NAMED: usize = 5;

/// Dials the members, starting with the one on the host `first`, and seeds that are not members.
pub(super) async fn check(client: &Client, members: Option<&NodeList>, first: Option<&str>) -> Vec<Finding> {
    let Some(members) = members else { return vec![Finding::unchecked(CHECK)] };
    let mut others: Vec<_> = members.nodes.iter().filter(|node| !node.oneself).collect();
    others.sort_by_key(|node| !first.is_some_and(|first| same_host(first, &node.host)));
    let mut wanted: Vec<(String, Reach)> = others
        .into_iter()
        .take(MAX_DIALLED)
        .map(|node| {
            let addresses = node.addresses.iter().map(SocketAddr::to_string).collect();
            (node.host.clone(), Reach { addresses, id: Some(node.id.clone()) })
        })
        .collect();
    // Seeds that should be members but are not.
    let found = client.discover().await.map(|list| list.found).unwrap_or_default();
    let absent = found.into_iter().filter(|found| !found.member && found.source == "seeds").take(MAX_DIALLED);
    wanted.extend(absent.map(|found| {
        let addresses = vec![found.address.clone()];
        (found.address, Reach { addresses, id: None })
    }));
    let tried = wanted.into_iter().map(async |(host, reach)| match client.reach(&reach).await {
        Ok(reached) if reached.address.is_some() => Ok(()),
        // The failure at the latest step is the most informative one.
        Ok(reached) => Err((host, reached.failed.into_iter().max_by_key(|failure| failure.step))),
        Err(_) => Err((host, None)),
    });
    judge(stream::iter(tried).buffer_unordered(AT_ONCE).collect().await)
}

fn judge(tried: Vec<Result<(), (String, Option<ReachFailure>)>>) -> Vec<Finding> {
    let all = tried.len();
    if all == 0 {
        return vec![Finding::pass(CHECK, "there are no other daemons")];
    }
    let mut by_step: BTreeMap<Option<ReachStep>, Vec<(String, Option<ReachFailure>)>> = BTreeMap::new();
    for (host, failure) in tried.into_iter().filter_map(Result::err) {
        by_step.entry(failure.as_ref().map(|failure| failure.step)).or_default().push((host, failure));
    }
    if by_step.is_empty() {
        return vec![Finding::pass(CHECK, format!("{all} of {all} other daemons accept this one"))];
    }
    by_step.into_iter().map(|(step, failed)| judge_step(all, step, &failed)).collect()
}

/// The finding for the daemons, out of `all`, that failed at the same step.
fn judge_step(all: usize, step: Option<ReachStep>, failed: &[(String, Option<ReachFailure>)]) -> Finding {
    let named = failed.iter().take(NAMED).map(|(host, failure)| match failure {
        Some(failure) => format!("{host} ({})", failure.error.message),
        None => host.clone(),
    });
    let mut named = named.collect::<Vec<_>>().join(", ");
    if failed.len() > NAMED {
        named += &format!(" and {} more", failed.len() - NAMED);
    }
    let hint = failed.iter().find_map(|(_, failure)| Some(failure.as_ref()?.error.hint.clone()));
    let (why, remedy) = match step {
        None => ("for an unknown reason", "check the log of the daemon".to_owned()),
        Some(step) => explain(step, hint.unwrap_or_default()),
    };
    let what = format!("{} of {all} other daemons cannot be reached, {why}: {named}", failed.len());
    Finding::fail(CHECK, what, remedy)
}

/// A description of the failed step, and the remedy, which is the hint of the daemon for most steps.
fn explain(step: ReachStep, hint: String) -> (&'static str, String) {
    match step {
        ReachStep::Name => ("no address", hint),
        ReachStep::Route => {
            let remedy = "fix the address, the route (ip route get ADDRESS) or the firewalls in between";
            ("no route", remedy.to_owned())
        }
        ReachStep::Timeout => {
            let remedy = "check that the host is up and that no firewall blocks TCP port 4369";
            ("timeout", remedy.to_owned())
        }
        ReachStep::Listener => {
            let remedy =
                "start pmd there (pmd start), and check with pmd status which addresses it listens on";
            ("refused by the host", remedy.to_owned())
        }
        ReachStep::Handshake => ("no handshake", hint),
        ReachStep::Tls => ("TLS", hint),
        ReachStep::Cluster => ("refused by the daemon", hint),
        ReachStep::Cookie => ("cookie", hint),
    }
}
