//! Problems of the cluster that need attention, as sentences.

use std::collections::BTreeMap;

use pmd_core::node::Alarm;
use pmd_protocol::peer::NodeId;

use crate::base::clock::now_ms;
use crate::base::foreign::ForeignText;
use crate::base::text::{count, listed, span};
use crate::cluster::membership::Cluster;
use crate::cluster::rotator::Progress;
use crate::cluster::view::ClusterView;
use crate::control::json::timestamp;
use crate::directory::cluster::Claim;
use crate::link::local_identity::LocalIdentity;
use crate::link::refusals::{Refusal, Refusals};

/// A rotation that takes longer than this waits for a host. It takes less than five seconds on 30 hosts.
const ROTATION_MS: u64 = 10_000;
/// Time for an administrator to give a secret to all hosts by hand.
const BY_HAND_MS: u64 = 24 * 3_600 * 1_000;
/// An expelled daemon that has not tried for this long has stopped. One that runs tries about once a minute.
const LATELY_MS: u64 = 3_600 * 1_000;

/// Problems of the cluster, one sentence each.
pub(super) async fn warnings(cluster: &Cluster, view: &ClusterView, refusals: &Refusals) -> Vec<String> {
    let own = cluster.local().host().as_str();
    let expelled = cluster.local().expelled();
    let contested = cluster.directory().contested(own);
    let mut warnings: Vec<String> = contested.iter().map(contested_name).collect();
    if let Some(text) = expelled {
        let id = cluster.local().id();
        warnings.push(format!(
            "this host was expelled from the cluster: {text}; to undo that, run pmd readmit {id:.8} on a member, then pmd join here"
        ));
    }
    warnings.extend(cluster.weak_secret().map(str::to_owned));
    if cluster.local().cookies().keys().count() > 1 {
        let (progress, stored_ms) = (cluster.rotator().progress().await, cluster.secret_stored_ms().await);
        warnings.extend(two_secrets(now_ms(), progress.as_ref(), stored_ms));
    }
    warnings.extend(returning(now_ms(), cluster.local(), &refusals.list()));
    for (_, alarm) in &view.alarms {
        let warning = match alarm {
            Alarm::Forked(id) => format!(
                "two daemons use the identity {id:.8}: remove the key file of one of them and restart it"
            ),
            Alarm::IdentityTaken => {
                "another daemon has the same key as this one: remove the key file of one of them and restart it"
                    .to_owned()
            }
            Alarm::Full => "this host has more registrations than the cluster allows one host: other hosts do not see \
                            the newest"
                .to_owned(),
            Alarm::IgnoredDecision(id) => format!(
                "daemon {id:.8} wants to expel members and is not among the administrators of this host"
            ),
            Alarm::TooManyDecisions(id) => format!(
                "more decisions to expel or readmit members come from daemon {id:.8} than this host takes: see pmd expelled, \
                 and set administrators in the configuration so that only theirs count"
            ),
            Alarm::TableFull => "the member table is full: new members are not seen".to_owned(),
            Alarm::Future(id) => format!(
                "daemon {id:.8} was rejected because it started more than 100 years ahead of this host's clock: check both clocks"
            ),
            Alarm::Violation(id) => format!("daemon {id:.8} violated the protocol: see the log"),
        };
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// The warning about a host name that a daemon claims and another one has.
fn contested_name(claim: &Claim) -> String {
    let Claim { host, by, holder, gone_ms } = claim;
    let Some(holder) = holder else {
        return format!(
            "daemon {by:.8} claims the name of this host, {host}: rename one of the hosts and restart its daemon"
        );
    };
    let who = match gone_ms {
        None => format!(
            "daemons {holder:.8} and {by:.8} both claim the host name {host}; the first one had it before"
        ),
        Some(gone_ms) => {
            let ago = span(now_ms().saturating_sub(*gone_ms) / 1_000);
            format!(
                "daemon {by:.8} claims the host name {host} of daemon {holder:.8}, which failed {ago} ago"
            )
        }
    };
    format!(
        "{who}, and only that one is used: rename a host, or give the name to the other: pmd expel {holder:.8}"
    )
}

/// The warning about a rotation of the cluster secret that does not come to its end. `progress` is how far the latest one
/// is, and `stored_ms` is when the file of the secret was changed.
fn two_secrets(now_ms: u64, progress: Option<&Progress>, stored_ms: Option<u64>) -> Option<String> {
    let since = |begun_ms: u64, at_least: u64| {
        Some(now_ms.saturating_sub(begun_ms))
            .filter(|since| *since >= at_least)
            .map(|since| span(since / 1_000))
    };
    let Some(rotation) = progress.filter(|progress| !progress.finished) else {
        let since = since(stored_ms?, BY_HAND_MS)?;
        return Some(format!(
            "two cluster secrets have been accepted for {since}: once every host has the new one, drop the old one with \
             pmd cookie rotate --finish"
        ));
    };
    let since = since(rotation.begun_ms, ROTATION_MS)?;
    let missing = match rotation.missing.as_slice() {
        [] => String::new(),
        hosts => format!(", but not {}", listed(hosts)),
    };
    let hosts = count(rotation.have + rotation.missing.len(), "host has", "hosts have");
    Some(format!(
        "two cluster secrets have been accepted for {since}, because a rotation has not finished: {} of {hosts} the new one\
         {missing}; to drop the old one now, run pmd cookie rotate --finish",
        rotation.have
    ))
}

/// The warnings about daemons that were expelled and try to come back.
fn returning(now_ms: u64, local: &LocalIdentity, refusals: &[Refusal]) -> Vec<String> {
    let mut attempts: BTreeMap<NodeId, Vec<&Refusal>> = BTreeMap::new();
    for refusal in refusals.iter().filter(|refusal| now_ms.saturating_sub(refusal.last_ms) < LATELY_MS) {
        // A daemon that was readmitted since may join.
        if let Some(id) = refusal.expelled.filter(|id| local.expulsion_of(id).is_some()) {
            attempts.entry(id).or_default().push(refusal);
        }
    }
    let sentence = |(id, attempts): (NodeId, Vec<&Refusal>)| {
        let host = local.expulsion_of(&id).map(|expulsion| ForeignText::new(&expulsion.host))?;
        let number = attempts.iter().map(|refusal| refusal.count).fold(0, u64::saturating_add);
        let times = count(usize::try_from(number).unwrap_or(usize::MAX), "time", "times");
        let since_ms = attempts.iter().map(|refusal| refusal.first_ms).min()?;
        // The list begins with the latest.
        let address = attempts.first()?.address;
        Some(format!(
            "expelled {host} ({id:.8}) tries to come back, {times} since {:.0}, the last time from {address}: stop pmd \
             there, or let it return with pmd readmit {id:.8}",
            timestamp(since_ms)
        ))
    };
    attempts.into_iter().filter_map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_does_not_finish_is_a_warning() {
        let rotation = |finished, missing: &[&str]| Progress {
            begun_ms: 1_000,
            finished,
            have: 7,
            missing: missing.iter().map(|host| (*host).to_owned()).collect(),
            late: 0,
        };
        let offered = rotation(false, &["h8", "h9"]);
        assert_eq!(two_secrets(10_999, Some(&offered), Some(0)), None);
        assert_eq!(
            two_secrets(61_000, Some(&offered), Some(0)).as_deref(),
            Some(
                "two cluster secrets have been accepted for 1m, because a rotation has not finished: 7 of 9 hosts have the \
                 new one, but not h8 and h9; to drop the old one now, run pmd cookie rotate --finish"
            )
        );
        let all = two_secrets(61_000, Some(&rotation(false, &[])), None).expect("a warning");
        assert!(all.contains("7 of 7 hosts have the new one; to drop"), "{all}");
        // By hand, whatever was rotated before.
        for progress in [None, Some(rotation(true, &[]))] {
            assert_eq!(two_secrets(BY_HAND_MS, progress.as_ref(), Some(1)), None);
            assert_eq!(
                two_secrets(BY_HAND_MS + 1, progress.as_ref(), Some(1)).as_deref(),
                Some(
                    "two cluster secrets have been accepted for 1d: once every host has the new one, drop the old one \
                     with pmd cookie rotate --finish"
                )
            );
            assert_eq!(two_secrets(BY_HAND_MS, progress.as_ref(), None), None);
        }
    }
}
