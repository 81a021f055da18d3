//! `pmd leave`: leaves the cluster.

use super::common::{Exit, Output, Result, Target, block_on, explain, with_progress};
use crate::base::text::{count, printable};
use crate::control::api::{Leave, LeftCluster};

/// Leaves the cluster, or tells one member to leave it.
pub fn run(target: &Target, peer: Option<String>, output: Output) -> Result<Exit> {
    block_on(async {
        let leave = Leave { peer };
        let left = with_progress("leaving", target.client().leave(&leave)).await;
        let left = explain(target, left).await?;
        output.one(&left, |out| writeln!(out, "{}", sentence(&left, leave.peer.as_deref())))?;
        Ok(Exit::Done)
    })
}

fn sentence(left: &LeftCluster, peer: Option<&str>) -> String {
    let cluster = printable(&left.cluster);
    match (peer, left.members) {
        (Some(peer), 0 | 1) => format!("{} has left cluster {cluster}", printable(peer)),
        (Some(peer), matching) => {
            format!("{} has left cluster {cluster}: {matching} daemons had that name", printable(peer))
        }
        (None, 0) => format!("left cluster {cluster}, which had no other members"),
        (None, members) => {
            format!("left cluster {cluster}, which has {}", count(members, "other member", "other members"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_that_was_left_is_named() {
        let left = |members| LeftCluster { cluster: "pmd".into(), members };
        assert_eq!(sentence(&left(0), None), "left cluster pmd, which had no other members");
        assert_eq!(sentence(&left(4), None), "left cluster pmd, which has 4 other members");
        assert_eq!(sentence(&left(1), Some("host1")), "host1 has left cluster pmd");
        assert_eq!(sentence(&left(2), Some("host1")), "host1 has left cluster pmd: 2 daemons had that name");
    }
}
