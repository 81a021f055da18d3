//! `pmd doctor`: checks for common problems between Erlang nodes and their port mappers.
//!
//! Each check is a module with two halves: `check` gathers facts, and `judge` turns them into a [`Finding`] without
//! I/O. The checks change nothing and do not need root. Checks that need a daemon report it if none answers.

mod address;
mod bind;
mod certificate;
mod clock;
mod cookie;
mod descriptors;
pub mod erlang_cookie;
mod finding;
mod host_name;
mod loopback;
pub mod node;
mod path;
mod peers;
mod port;
mod refusals;

use crate::config::cluster::ClusterSettings;
use crate::config::settings::Settings;
use crate::control::api::{NodeList, Status};
use crate::control::client::Client;

use erlang_cookie::CallersCookie;

pub use finding::{Finding, Report, Verdict};

/// Runs all checks; with a node (`NAME@HOST`) and the caller's Erlang cookie, also tests each hop to it.
pub async fn examine(settings: &Settings, client: &Client, node: Option<(&str, &CallersCookie)>) -> Report {
    let status: Option<Status> = client.status().await.ok();
    let members: Option<NodeList> = client.nodes().await.ok();
    let links = client.peers().await.ok();
    let mut findings = port::check(settings.listen_port(), status.as_ref()).await;
    findings.push(bind::judge(&settings.bind, status.as_ref()));
    findings.push(host_name::judge(&settings.host));
    findings.extend(address::check(&settings.host).await);
    findings.extend(settings.cluster.as_ref().map(cookie::check));
    let refusals = client.refusals().await.ok();
    findings.extend(refusals::judge(jiff::Timestamp::now(), refusals.as_ref()));
    findings.push(clock::judge(jiff::Timestamp::now(), members.as_ref(), links.as_ref()));
    let revoked = client.revocations().await.ok();
    let certificate = |cluster: &ClusterSettings| certificate::check(&cluster.identity, revoked.as_ref());
    findings.extend(settings.cluster.as_ref().map(certificate));
    findings.push(descriptors::check(status.as_ref()));
    findings.push(loopback::check());
    let host = node.and_then(|(node, _)| node.rsplit_once('@')).map(|(_, host)| host);
    findings.extend(peers::check(client, members.as_ref(), host).await);
    if let Some((node, cookie)) = node {
        findings.extend(path::check(client, &settings.host, node, cookie, members.is_some()).await);
    }
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass);
    Report { verdict, findings }
}
