//! Fills [`Observed`] from the parts of a running daemon.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_core::replica::view::Liveness;
use pmd_protocol::peer::Kind;

use super::observed::{self, Observed, Process};
use crate::base::descriptors::Class;
use crate::cluster::Cluster;
use crate::cluster::driver::Running;
use crate::daemon::Context;
use crate::tunnel::table::{Side, Table};

/// Everything that monitoring reads, now.
pub async fn observe(context: &Arc<Context>) -> Observed {
    let open = |class| context.descriptors.count(class);
    let cluster = context.cluster.get();
    Observed {
        called: if cluster.is_some() { "pmd" } else { "epmd" },
        started_ms: context.started_ms,
        names: context.registry.count_names().0,
        names_limit: context.descriptors.max_registered(),
        services: context.registry.count_services(),
        counts: context.counters.read(),
        durations: context.latency.read().collect(),
        connections: observed::Connections {
            registered: open(Class::Registered),
            waiting: open(Class::Waiting),
            refused: open(Class::Refused),
            link: open(Class::Link),
        },
        descriptors_limit: context.descriptors.limit(),
        cluster: match cluster {
            Some(cluster) => members_and_links(cluster).await,
            None => None,
        },
        tunnels: cluster.map(|cluster| tunnels(cluster.tunnels().table())),
        process: tokio::task::spawn_blocking(Process::now).await.unwrap_or_default(),
    }
}

async fn members_and_links(cluster: &Cluster) -> Option<observed::Cluster> {
    let tls = cluster.me().tls();
    let seen = cluster.core().visit(|running| seen(running)).await.ok()?;
    Some(observed::Cluster {
        left: cluster.me().has_left(),
        certificate_expires: tls.checks_names().then(|| tls.expires()).flatten(),
        ..seen
    })
}

fn seen(running: &Running) -> observed::Cluster {
    let (node, now_ms) = (running.node(), running.now().mono_ms);
    let mut seen = observed::Cluster { alive: 1, ..observed::Cluster::default() };
    for (_, liveness) in node.members() {
        match liveness {
            Liveness::Suspect => seen.suspect += 1,
            Liveness::Alive => seen.alive += 1,
        }
    }
    for (id, content) in node.registry().store().iter() {
        seen.tombstones += content.tombstones();
        for (key, value) in content.iter() {
            seen.state_bytes += key.name().len() + value.as_bytes().len();
            // The content of a dead daemon is kept for a while, but is not visible.
            if node.registry().is_live(&id) {
                seen.names += usize::from(key.kind() == Kind::NAME);
                seen.services += usize::from(key.kind() == Kind::SERVICE);
            }
        }
    }
    let summary = node.registry().summary();
    let links = node.links().filter_map(|(id, link)| Some((link, running.link(id)?)));
    let links = links.map(|(link, end)| observed::Link {
        peer: link.peer.id.to_string(),
        host: end.host.to_string(),
        rtt_us: end.traffic.rtt_us().or(link.rtt_us),
        clock_ahead_ms: end.clock.ahead_ms(),
        phi: link.phi.phi(now_ms),
        received: end.traffic.received(),
        sent: end.traffic.sent(),
        agrees: link.summary().is_some_and(|theirs| theirs.fingerprint == summary.fingerprint),
    });
    // There may be two links to a peer for a moment, but each series may appear only once.
    let by_peer: BTreeMap<String, _> = links.map(|link| (link.peer.clone(), link)).collect();
    observed::Cluster { links: by_peer.into_values().collect(), ..seen }
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
