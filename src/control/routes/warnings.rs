//! The warnings about the cluster in `pmd status`.

use pmd_core::node::Alarm;
use pmd_protocol::peer::NodeId;

use crate::base::clock::now_ms;
use crate::base::text::span;
use crate::cluster::alarm::Raised;
use crate::cluster::membership::Cluster;
use crate::cluster::view::ClusterView;
use crate::directory::agreed_aliases::Clash;
use crate::directory::cluster::Claim;
use crate::link::local_identity::Barred;

/// What to do about an alias that several hosts claim.
fn clashing(clash: &Clash, hosts: &[String]) -> String {
    let Clash { address, own, holder, .. } = clash;
    let hosts = hosts.join(" and ");
    let who = match (own, holder) {
        (true, _) => {
            let claim = if clash.by.len() == 1 { "claims" } else { "claim" };
            format!("{hosts} {claim} the alias of this host, {address}, which this host keeps")
        }
        (false, Some(_)) => {
            format!("{hosts} claim the alias {address}; it belongs to the one that was seen first")
        }
        (false, None) => format!("{hosts} claim the alias {address}, so neither is reached by it"),
    };
    format!("{who}: run pmd leave and then pmd join on the one that should have another alias")
}

/// What to do on a host whose certificate is revoked.
pub(super) const REISSUE: &str = "where the authority is, run pmd ca issue with the name of this host, copy the certificate and its new key \
                       here, and restart pmd";
/// The same for another host.
pub(super) const REISSUE_THERE: &str = "to let that host return, run pmd ca issue where the authority is, copy the certificate and its \
                             new key there, and restart pmd there";

/// Problems of the cluster, one sentence each.
pub(super) fn warnings(cluster: &Cluster, view: &ClusterView) -> Vec<String> {
    let own = cluster.local().host().as_str();
    let barred = cluster.local().barred();
    let revoked = cluster.local().own_revocation();
    let contested = cluster.directory().contested(own);
    let mut warnings: Vec<String> = contested.iter().map(contested_name).collect();
    warnings.extend(cluster.directory().alias_clashes().iter().map(|(clash, hosts)| clashing(clash, hosts)));
    if let Some(serial) = revoked {
        warnings.push(format!(
            "the certificate of this host is revoked (serial number {serial}), so no other member accepts it: {REISSUE}"
        ));
    } else if let Some(Barred { is_revoked: true, text }) = barred {
        warnings
            .push(format!("a member says that the certificate of this host is revoked: {text}; {REISSUE}"));
    } else if let Some(Barred { text, .. }) = barred {
        let id = cluster.local().id();
        warnings.push(format!(
            "this host was expelled from the cluster: {text}; to undo that, run pmd readmit {id:.8} on a member, then pmd join here"
        ));
    }
    warnings.extend(cluster.weak_secret().map(str::to_owned));
    for Raised { alarm, host, .. } in &view.alarms {
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
            // By its id, because it may claim the name of another host.
            Alarm::Violation(id, rule) => {
                format!("{} breaks the protocol: {rule}; expel it with pmd expel {id}", named(host, id))
            }
            Alarm::Introductions(id) => format!(
                "{} introduces too many new members at once, and those beyond the limit are not seen; if these hosts do \
                 not exist, expel it with pmd expel {id}",
                named(host, id)
            ),
        };
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// A member in a warning, with its host name as far as it is known.
fn named(host: &str, id: &NodeId) -> String {
    if host.is_empty() { format!("daemon {id:.8}") } else { format!("member {host} ({id:.8})") }
}

/// The warning about a host name that belongs to one daemon and is claimed by another.
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
