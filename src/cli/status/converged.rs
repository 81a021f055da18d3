//! `pmd status --wait-converged`: waits until all daemons have the same registry.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::base::text::{count, time};
use crate::cli::common::runtime::deadline;
use crate::cli::common::{Exit, Failure, Result, with_progress};
use crate::control::api::{ClusterStatus, ErrorCode, Status};
use crate::control::client::{Client, ClientError};

/// Pause between attempts, short enough not to delay users and scripts.
const POLL: Duration = Duration::from_millis(100);

/// Waits until all daemons have the same registry, and returns the status of this daemon.
pub(super) async fn wait(client: &Client, timeout: Duration) -> Result<Status> {
    with_progress("waiting for all daemons to have the same registry", poll(client, timeout)).await
}

async fn poll(client: &Client, timeout: Duration) -> Result<Status> {
    let deadline = deadline(timeout);
    let mut seen = Agreement::default();
    let mut last = Last::NoAnswer("the daemon did not answer".to_owned());
    loop {
        // The deadline may be earlier than the client's own timeout.
        match timeout_at(deadline, client.status_asking_peers()).await {
            Err(_) => return Err(timed_out(timeout, &last)),
            Ok(Ok(status)) => {
                let cluster = status.cluster.as_ref().ok_or_else(no_cluster)?;
                if seen.holds(cluster) {
                    return Ok(status);
                }
                last = Last::Disagreement(missing(cluster));
            }
            // The daemon may start later, as start scripts require.
            Ok(Err(error)) if is_not_yet(&error) => {
                seen = Agreement::default();
                last = Last::NoAnswer(error.to_string());
            }
            Ok(Err(error)) => return Err(error.into()),
        }
        if Instant::now() + POLL > deadline {
            tokio::time::sleep_until(deadline).await;
            return Err(timed_out(timeout, &last));
        }
        sleep(POLL).await;
    }
}

/// The last answer. A single answer is not enough, because the last report of a peer may be about an earlier registry.
#[derive(Debug, Default)]
struct Agreement {
    last: Option<(String, usize)>,
}

impl Agreement {
    /// Whether all daemons agree, on the same registry as in the previous attempt.
    fn holds(&mut self, cluster: &ClusterStatus) -> bool {
        let now = cluster.converged.then(|| (cluster.fingerprint.clone(), cluster.members));
        let holds = now.is_some() && now == self.last;
        self.last = now;
        holds
    }
}

fn is_not_yet(error: &ClientError) -> bool {
    error.is_absence() || matches!(error, ClientError::Api { status: 503, .. })
}

fn missing(cluster: &ClusterStatus) -> String {
    if cluster.converged {
        return "the registry kept changing".to_owned();
    }
    let links = count(cluster.links, "peer", "peers");
    format!("only {} of {links} agreed", cluster.agreeing)
}

/// The outcome of the last attempt.
#[derive(Debug)]
enum Last {
    /// The daemon did not answer.
    NoAnswer(String),
    /// The daemons did not agree.
    Disagreement(String),
}

fn timed_out(timeout: Duration, last: &Last) -> Failure {
    let (reason, hint) = match last {
        Last::NoAnswer(reason) => (reason, "check whether it is running: pmd status; start it: pmd start"),
        Last::Disagreement(reason) => (
            reason,
            "run pmd peers to see which peers disagree and pmd nodes to see suspect members, or wait longer",
        ),
    };
    let message = format!("the daemons did not converge within {}: {reason}", time(timeout));
    Failure::new(Exit::TimedOut, message, hint)
}

fn no_cluster() -> Failure {
    Failure {
        code: ErrorCode::NoCluster.as_str().to_owned(),
        ..Failure::new(
            Exit::Conflict,
            "this daemon is not part of a cluster",
            "restart it with pmd start: a daemon started as epmd or by an earlier version does not join a cluster",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::IdentityMode;

    fn cluster(fingerprint: &str, members: usize, converged: bool) -> ClusterStatus {
        ClusterStatus {
            name: "pmd".into(),
            id: "ab".repeat(32),
            identity: IdentityMode::Auto,
            addresses: Vec::new(),
            left: false,
            members,
            suspects: 0,
            links: 3,
            agreeing: if converged { 3 } else { 1 },
            converged,
            fingerprint: fingerprint.into(),
            names: 0,
            services: 0,
            certificate_expires_at: None,
        }
    }

    #[test]
    fn agreement_counts_when_it_is_the_same_twice_in_a_row() {
        let mut seen = Agreement::default();
        for (fingerprint, members, converged, holds) in [
            ("a", 3, true, false),
            ("b", 3, true, false),
            ("b", 4, true, false),
            ("b", 4, false, false),
            ("b", 4, true, false),
            ("b", 4, true, true),
            ("b", 4, true, true),
        ] {
            assert_eq!(
                seen.holds(&cluster(fingerprint, members, converged)),
                holds,
                "{fingerprint} {members}"
            );
        }
    }

    #[test]
    fn a_timeout_is_explained() {
        assert_eq!(missing(&cluster("a", 3, false)), "only 1 of 3 peers agreed");
        assert_eq!(missing(&cluster("a", 3, true)), "the registry kept changing");
        let failure = timed_out(Duration::from_secs(10), &Last::NoAnswer("no answer".into()));
        assert_eq!(failure.exit, Exit::TimedOut);
        assert_eq!(failure.message, "the daemons did not converge within 10s: no answer");
        assert_eq!((no_cluster().exit, no_cluster().code.as_str()), (Exit::Conflict, "no_cluster"));
    }
}
