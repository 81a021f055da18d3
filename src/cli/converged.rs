//! `pmd status --wait-converged`: waiting until all daemons have the same registry.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::runtime::{deadline, with_progress};
use crate::base::text::{count, time};
use crate::control::api::{ClusterStatus, ErrorCode, Status};
use crate::control::client::{Client, ClientError};

/// How often it is asked: soon enough for a person and for a script.
const AGAIN: Duration = Duration::from_millis(100);

/// Waits until all daemons have the same registry, and returns how the daemon is then.
pub async fn wait(client: &Client, patience: Duration) -> Result<Status> {
    with_progress("waiting for all daemons to have the same registry", look(client, patience)).await
}

async fn look(client: &Client, patience: Duration) -> Result<Status> {
    let deadline = deadline(patience);
    let mut seen = Agreement::default();
    let mut last = Last::Silence("the daemon did not answer".to_owned());
    loop {
        // Less patient than the client by itself is: the time may be over long before.
        match timeout_at(deadline, client.status_asking_peers()).await {
            Err(_) => return Err(late(patience, &last)),
            Ok(Ok(status)) => {
                let cluster = status.cluster.as_ref().ok_or_else(no_cluster)?;
                if seen.holds(cluster) {
                    return Ok(status);
                }
                last = Last::Disagreement(missing(cluster));
            }
            // It may still come, as a start script expects.
            Ok(Err(error)) if is_not_yet(&error) => {
                seen = Agreement::default();
                last = Last::Silence(error.to_string());
            }
            Ok(Err(error)) => return Err(error.into()),
        }
        if Instant::now() + AGAIN > deadline {
            tokio::time::sleep_until(deadline).await;
            return Err(late(patience, &last));
        }
        sleep(AGAIN).await;
    }
}

/// What was seen at the last look. Once is not enough: what the peers said last may be about an earlier registry.
#[derive(Debug, Default)]
struct Agreement {
    last: Option<(String, usize)>,
}

impl Agreement {
    /// Whether all agree now, about the same as at the last look.
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
    format!("{} of {links} agreed in the end", cluster.agreeing)
}

/// What the last look found.
#[derive(Debug)]
enum Last {
    /// No daemon.
    Silence(String),
    /// Daemons that do not agree.
    Disagreement(String),
}

fn late(patience: Duration, last: &Last) -> Failure {
    let (reason, hint) = match last {
        Last::Silence(reason) => (reason, "see whether it runs: pmd status; start it: pmd start"),
        Last::Disagreement(reason) => {
            (reason, "pmd peers shows who disagrees, pmd nodes who is suspected; or wait longer")
        }
    };
    let message =
        format!("the daemons did not come to the same registry within {}: {reason}", time(patience));
    Failure::new(Exit::TimedOut, message, hint)
}

fn no_cluster() -> Failure {
    Failure {
        code: ErrorCode::NoCluster.as_str().to_owned(),
        ..Failure::new(
            Exit::Conflict,
            "this daemon takes no part in a cluster",
            "stop it and start it again with pmd start: one that was started as epmd, or by an earlier version, is \
             alone",
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
    fn only_the_same_agreement_twice_in_a_row_is_one() {
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
    fn what_was_missing_is_said() {
        assert_eq!(missing(&cluster("a", 3, false)), "1 of 3 peers agreed in the end");
        assert_eq!(missing(&cluster("a", 3, true)), "the registry kept changing");
        let failure = late(Duration::from_secs(10), &Last::Silence("nobody answers".into()));
        assert_eq!(failure.exit, Exit::TimedOut);
        assert_eq!(
            failure.message,
            "the daemons did not come to the same registry within 10s: nobody answers"
        );
        assert_eq!((no_cluster().exit, no_cluster().code.as_str()), (Exit::Conflict, "no_cluster"));
    }
}
