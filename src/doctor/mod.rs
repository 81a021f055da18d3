//! `pmd doctor`: what commonly goes wrong between Erlang nodes and their port mappers, looked at in order.
//!
//! Each check is a module of its own with two halves: one gathers facts, the other (`judge`) makes a [`Finding`] of them
//! and touches nothing. Nothing here changes anything, and nothing needs root; what only the daemon knows is asked
//! of it, and a daemon that does not answer is itself a finding.

mod address;
mod bind;
mod certificate;
mod clock;
mod cookie;
mod descriptors;
mod host_name;
mod loopback;
mod path;
mod peers;
mod port;
mod refusals;

use serde::{Deserialize, Serialize};

use crate::base::text::without_numbers;
use crate::config::settings::Settings;
use crate::control::api::{NodeList, Status};
use crate::control::client::Client;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to complain of.
    Pass,
    /// It works, but may not for long or not for everybody; or it could not be looked at.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check.
    pub check: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen, in a sentence.
    pub what: String,
    /// What to do about it, in a sentence; none if there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All findings, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The worst of them.
    pub verdict: Verdict,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Finding {
    fn pass(check: &str, what: impl Into<String>) -> Finding {
        Finding { check: check.into(), verdict: Verdict::Pass, what: what.into(), remedy: None }
    }

    fn warn(check: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        let (what, remedy) = (without_numbers(&what.into()).into_owned(), Some(remedy.into()));
        Finding { check: check.into(), verdict: Verdict::Warn, what, remedy }
    }

    fn fail(check: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Fail, ..Finding::warn(check, what, remedy) }
    }

    /// Of a check that only the daemon can answer.
    fn unasked(check: &str) -> Finding {
        Finding::warn(
            check,
            "not checked: no daemon answers",
            "start it (pmd start); if one runs, run pmd doctor as its user",
        )
    }
}

/// Looks at everything; with a `node` (`NAME@HOST`), also goes the whole way to it.
pub async fn examine(settings: &Settings, client: &Client, node: Option<&str>) -> Report {
    let status: Option<Status> = client.status().await.ok();
    let members: Option<NodeList> = client.nodes().await.ok();
    let links = client.peers().await.ok();
    let mut findings = port::check(settings.listen_port(), status.as_ref()).await;
    findings.push(bind::judge(&settings.bind, status.as_ref()));
    findings.push(host_name::judge(&settings.host));
    findings.extend(address::check(&settings.host).await);
    findings.extend(settings.cluster.as_ref().map(|cluster| cookie::check(&cluster.cookie_file)));
    let refusals = client.refusals().await.ok();
    findings.extend(refusals::judge(jiff::Timestamp::now(), refusals.as_ref()));
    findings.push(clock::judge(jiff::Timestamp::now(), members.as_ref(), links.as_ref()));
    findings.extend(settings.cluster.as_ref().map(|cluster| certificate::check(&cluster.identity)));
    findings.push(descriptors::check(status.as_ref()));
    findings.push(loopback::check());
    let host = node.and_then(|node| node.rsplit_once('@')).map(|(_, host)| host);
    findings.extend(peers::check(client, members.as_ref(), host).await);
    if let Some(node) = node {
        findings.extend(path::check(client, &settings.host, node, members.as_ref()).await);
    }
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass);
    Report { verdict, findings }
}
