//! `pmd join`: joins a cluster.

use std::time::Duration;

use super::args;
use super::common::{Exit, Output, Result, Target, block_on, explain, note, with_progress};
use crate::base::text::{count, listed, printable};
use crate::control::api::{Join, JoinFailure, Joined, JoinedPeer};

/// Added to the daemon's timeout, so that its error arrives before this client gives up.
const MARGIN: Duration = Duration::from_secs(5);

/// Joins the cluster through the given daemons.
pub fn run(target: &Target, args: &args::Join, output: Output) -> Result<Exit> {
    let join = Join {
        addresses: args.addresses.clone(),
        timeout_ms: Some(u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX)),
    };
    let client = target.client().with_timeout(args.timeout.saturating_add(MARGIN));
    block_on(async {
        let doing = format!("joining through {}", listed(&args.addresses));
        let joined = explain(target, with_progress(&doing, client.join(&join)).await).await?;
        joined.failed.iter().for_each(|failed| note(&failure(failed)));
        output.one(&joined, |out| writeln!(out, "{}", sentence(&joined)))?;
        Ok(Exit::Done)
    })
}

fn sentence(joined: &Joined) -> String {
    let peer = |peer: &JoinedPeer| {
        // The peer may not have sent its host name yet.
        let host = if peer.host.is_empty() { &peer.asked } else { &peer.host };
        format!("{} ({})", printable(host), peer.address)
    };
    let peers: Vec<String> = joined.peers.iter().map(peer).collect();
    format!(
        "joined cluster {} through {}: {}",
        printable(&joined.cluster),
        listed(&peers),
        count(joined.members, "member", "members")
    )
}

fn failure(failed: &JoinFailure) -> String {
    let (asked, error) = (printable(&failed.asked), &failed.error);
    format!(
        "note: joining through {asked} failed: {} ({})",
        printable(&error.message),
        printable(&error.hint)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::ErrorInfo;

    fn peer(asked: &str, address: &str, host: &str) -> JoinedPeer {
        JoinedPeer {
            asked: asked.into(),
            address: address.parse().expect("an address"),
            id: "ab".repeat(32),
            host: host.into(),
        }
    }

    #[test]
    fn the_members_that_admitted_this_host_are_named() {
        let mut joined = Joined {
            cluster: "pmd".into(),
            peers: vec![peer("host1", "10.0.0.1:4369", "host1")],
            failed: Vec::new(),
            members: 3,
        };
        assert_eq!(sentence(&joined), "joined cluster pmd through host1 (10.0.0.1:4369): 3 members");
        joined.peers.push(peer("db\u{1b}", "[fd00::2]:4369", ""));
        assert_eq!(
            sentence(&joined),
            "joined cluster pmd through host1 (10.0.0.1:4369) and db\\u{1b} ([fd00::2]:4369): 3 members"
        );
    }

    #[test]
    fn an_address_that_failed_is_a_note_with_advice() {
        let error = ErrorInfo {
            code: "unresolvable".into(),
            message: "the name has no address".into(),
            hint: "check the spelling".into(),
        };
        assert_eq!(
            failure(&JoinFailure { asked: "hsot1".into(), error }),
            "note: joining through hsot1 failed: the name has no address (check the spelling)"
        );
    }
}
