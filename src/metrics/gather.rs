//! Fills [`Observed`] from the parts of a running daemon.

use std::collections::BTreeMap;

use pmd_epmd::counters::Counters as EpmdCounters;
use pmd_epmd::descriptors::{Class, Descriptors};
use pmd_epmd::latency::Latency;

use super::observed::{self, Observed, Process};
use crate::base::stats::Counters;
use crate::claims::Claims;
use crate::cluster::membership::Cluster;
use crate::directory::local::Local;
use crate::tunnel::table::{Side, Table};

/// The parts of a daemon that metrics are read from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// When it started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The registrations on this host.
    pub local: &'a Local,
    /// The process's descriptors.
    pub descriptors: &'a Descriptors,
    /// Counters of the EPMD port.
    pub epmd: &'a EpmdCounters,
    /// Latency of requests on the EPMD port.
    pub latency: &'a Latency,
    /// All other counters.
    pub counters: &'a Counters,
    /// The cluster, if the daemon is a member of one.
    pub cluster: Option<&'a Cluster>,
    /// Claims, if the configuration names voters.
    pub claims: Option<&'a Claims>,
    /// The tunnels, if the daemon is a member of a cluster.
    pub tunnels: Option<&'a Table>,
}

/// Reads all values.
pub async fn observe(sources: Sources<'_>) -> Observed {
    let open = |class| sources.descriptors.count(class);
    Observed {
        called: if sources.cluster.is_some() { "pmd" } else { "epmd" },
        started_ms: sources.started_ms,
        names: sources.local.names().count().0,
        names_limit: sources.descriptors.max_registered(),
        services: sources.local.count_services(),
        epmd: sources.epmd.read(),
        counts: sources.counters.read(),
        durations: sources.latency.read().collect(),
        connections: observed::Connections {
            registered: open(Class::Registered),
            waiting: open(Class::Waiting),
            refused: open(Class::Refused),
            link: open(Class::Link),
        },
        descriptors_limit: sources.descriptors.limit(),
        cluster: match sources.cluster {
            Some(cluster) => members_and_links(cluster, sources.local).await,
            None => None,
        },
        claims: sources.claims.map(|claims| observed::Claims { held: claims.held(), votes: claims.votes() }),
        tunnels: sources.tunnels.map(tunnels),
        process: tokio::task::spawn_blocking(Process::now).await.unwrap_or_default(),
    }
}

/// The cluster; none if the daemon is shutting down.
async fn members_and_links(cluster: &Cluster, local: &Local) -> Option<observed::Cluster> {
    let tls = cluster.local().tls();
    let view = cluster.core().view().await.ok()?;
    let weight = cluster.core().weigh().await.ok()?;
    let (mut names, mut services) = (local.names().count().0, local.count_services());
    for (_, origin) in cluster.directory().origins() {
        names += origin.count_names();
        services += origin.count_services();
    }
    let links = view.links.iter().map(|link| observed::Link {
        peer: link.id.to_string(),
        host: link.host.to_string(),
        rtt_us: link.rtt_us(),
        clock_ahead_ms: link.clock.ahead_ms(),
        phi: link.phi,
        received: link.traffic.received(),
        sent: link.traffic.sent(),
        agrees: link.agrees,
    });
    // There may be two links to a peer for a moment, but each series may appear only once.
    let by_peer: BTreeMap<String, _> = links.map(|link| (link.peer.clone(), link)).collect();
    Some(observed::Cluster {
        alive: 1 + view.members.len() - view.suspects(),
        suspect: view.suspects(),
        left: cluster.local().has_left(),
        names,
        services,
        state_bytes: weight.bytes,
        tombstones: weight.tombstones,
        links: by_peer.into_values().collect(),
        secrets: cluster.local().cookies().keys().count(),
        certificate_expires: tls.checks_names().then(|| tls.expires()).flatten(),
    })
}

fn tunnels(table: &Table) -> observed::Tunnels {
    let all = table.all();
    let mut open = Vec::new();
    for side in ["entry", "exit"] {
        for path in ["direct", "reverse", "relay"] {
            let is_meant = |tunnel: &Side| matches!(tunnel, Side::Entry(..)) == (side == "entry");
            let count = all.iter().filter(|tunnel| is_meant(&tunnel.side) && tunnel.path == path).count();
            open.push((side, path, count));
        }
    }
    observed::Tunnels { open, limit: table.limit(), bytes: table.bytes() }
}
