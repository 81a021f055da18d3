//! `pmd join` and `pmd leave`.

use std::time::Duration;

use super::args;
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::Result;
use super::common::output::{Output, note};
use super::common::runtime::{block_on, with_progress};
use super::common::target::Target;
use crate::base::text::{count, listed, printable};
use crate::control::api::{Join, JoinFailure, Joined, JoinedPeer, Leave, LeftCluster};

/// How much longer than the daemon itself this waits for its answer: the reason it gives is worth more than that there
/// was none.
const MARGIN: Duration = Duration::from_secs(5);

/// Joins the cluster of whoever lets this host in.
pub fn run(target: &Target, args: &args::Join, output: Output) -> Result<Exit> {
    let join = Join {
        addresses: args.addresses.clone(),
        timeout_ms: Some(u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX)),
    };
    let client = target.client().with_patience(args.timeout.saturating_add(MARGIN));
    block_on(async {
        let doing = format!("joining through {}", listed(&args.addresses));
        let joined = explain(target, with_progress(&doing, client.join(&join)).await).await?;
        joined.failed.iter().for_each(|failed| note(&failure(failed)));
        output.one(&joined, |out| writeln!(out, "{}", joined_sentence(&joined)))?;
        Ok(Exit::Done)
    })
}

/// Leaves the cluster, or tells one member to.
pub fn leave(target: &Target, peer: Option<String>, output: Output) -> Result<Exit> {
    block_on(async {
        let leave = Leave { peer };
        let left = with_progress("leaving", target.client().leave(&leave)).await;
        let left = explain(target, left).await?;
        output.one(&left, |out| writeln!(out, "{}", left_sentence(&left, leave.peer.as_deref())))?;
        Ok(Exit::Done)
    })
}

fn joined_sentence(joined: &Joined) -> String {
    let peer = |peer: &JoinedPeer| {
        // It may not have said yet what it is called.
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
    format!("note: {asked} led nowhere: {} ({})", printable(&error.message), printable(&error.hint))
}

fn left_sentence(left: &LeftCluster, peer: Option<&str>) -> String {
    let cluster = printable(&left.cluster);
    match (peer, left.members) {
        (Some(peer), 0 | 1) => format!("{} has left cluster {cluster}", printable(peer)),
        (Some(peer), told) => {
            format!("{} has left cluster {cluster}: {told} daemons go by that", printable(peer))
        }
        (None, 0) => format!("left cluster {cluster}, which had no other member"),
        (None, members) => {
            format!("left cluster {cluster}; {} stay in it", count(members, "other member", "other members"))
        }
    }
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
    fn who_has_let_this_host_in_is_said() {
        let mut joined = Joined {
            cluster: "pmd".into(),
            peers: vec![peer("host1", "10.0.0.1:4369", "host1")],
            failed: Vec::new(),
            members: 3,
        };
        assert_eq!(joined_sentence(&joined), "joined cluster pmd through host1 (10.0.0.1:4369): 3 members");
        joined.peers.push(peer("db\u{1b}", "[fd00::2]:4369", ""));
        assert_eq!(
            joined_sentence(&joined),
            "joined cluster pmd through host1 (10.0.0.1:4369) and db\\u{1b} ([fd00::2]:4369): 3 members"
        );
    }

    #[test]
    fn an_address_that_led_nowhere_is_a_note_with_advice() {
        let error = ErrorInfo {
            code: "unresolvable".into(),
            message: "the name has no address".into(),
            hint: "check the spelling".into(),
        };
        assert_eq!(
            failure(&JoinFailure { asked: "hsot1".into(), error }),
            "note: hsot1 led nowhere: the name has no address (check the spelling)"
        );
    }

    #[test]
    fn what_was_left_is_said() {
        let left = |members| LeftCluster { cluster: "pmd".into(), members };
        assert_eq!(left_sentence(&left(0), None), "left cluster pmd, which had no other member");
        assert_eq!(left_sentence(&left(4), None), "left cluster pmd; 4 other members stay in it");
        assert_eq!(left_sentence(&left(1), Some("host1")), "host1 has left cluster pmd");
        assert_eq!(
            left_sentence(&left(2), Some("host1")),
            "host1 has left cluster pmd: 2 daemons go by that"
        );
    }
}
