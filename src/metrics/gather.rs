//! All numbers of a daemon at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use pmd_core::membership::Liveness;
use pmd_protocol::peer::Kind as EntryKind;
use rustix::time::{ClockId, clock_gettime};

use super::latency::{EVERY, Told};
use super::text::Kind::{Counter, Gauge, Histogram};
use super::text::Page;
use crate::daemon::Context;
use crate::daemon::cluster::Cluster;
use crate::daemon::core_task::{Ended, Running};
use crate::daemon::counters::Counts;
use crate::daemon::descriptors::Class;
use crate::tunnel::table::Side;

/// Phi beyond this says no more than that the peer is gone, and infinity is nothing to draw.
const HIGHEST_PHI: f64 = 1_000.0;

/// The page of metrics.
pub async fn render(context: &Arc<Context>) -> String {
    let counts = context.counters.read();
    let mut page = Page::default();
    about(&mut page, context);
    names(&mut page, context, &counts);
    requests(&mut page, context, &counts);
    connections(&mut page, context, &counts);
    if let Some(cluster) = context.cluster.get() {
        // A daemon that is about to end has no numbers of the cluster any more.
        if let Ok(seen) = Seen::now(cluster).await {
            members(&mut page, cluster, &seen);
            links(&mut page, &seen);
        }
        traffic(&mut page, &counts);
        tunnels(&mut page, cluster, &counts);
    }
    // Reads files in /proc: short, but not for a thread that must not wait.
    let process = tokio::task::spawn_blocking(Process::now).await.unwrap_or_default();
    process.write(&mut page, context);
    page.finish()
}

fn about(page: &mut Page, context: &Context) {
    let called = if context.cluster.get().is_some() { "pmd" } else { "epmd" };
    page.family("pmd_build_info", Gauge, "The program; always 1.").sample(
        "",
        &[("version", env!("CARGO_PKG_VERSION")), ("called", called)],
        1,
    );
}

fn names(page: &mut Page, context: &Context, counts: &Counts) {
    let (registered, _) = context.registry.count_names();
    page.one("pmd_names", Gauge, "Erlang nodes registered on this host.", registered);
    page.one(
        "pmd_names_limit",
        Gauge,
        "Erlang nodes that can be registered on this host.",
        context.descriptors.max_registered(),
    );
    page.one("pmd_services", Gauge, "Services registered on this host.", context.registry.count_services());
    page.by(
        "pmd_registrations_total",
        Counter,
        "Requests to register an Erlang node (ALIVE2), by result.",
        "result",
        [
            ("registered", counts.registrations),
            ("duplicate", counts.registrations_duplicate),
            ("invalid", counts.registrations_invalid),
            ("full", counts.registrations_full),
        ],
    );
    page.by(
        "pmd_unregistrations_total",
        Counter,
        "Registrations that ended, by reason; evicted means that the holder was found dead.",
        "reason",
        [("closed", counts.unregistrations), ("evicted", counts.evictions)],
    );
}

fn requests(page: &mut Page, context: &Context, counts: &Counts) {
    let mut family =
        page.family("pmd_epmd_requests_total", Counter, "Requests of the EPMD protocol, by kind and result.");
    for (request, result, count) in [
        ("port_please2", "found", counts.lookups_found),
        ("port_please2", "not_found", counts.lookups_not_found),
        ("names", "answered", counts.names_requests),
        ("dump", "answered", counts.dump_requests),
        ("kill", "answered", counts.kill_requests),
        ("stop", "answered", counts.stop_requests),
        ("alive2", "registered", counts.registrations),
        (
            "alive2",
            "refused",
            counts.registrations_duplicate + counts.registrations_invalid + counts.registrations_full,
        ),
    ] {
        family.sample("", &[("request", request), ("result", result)], count);
    }
    page.by(
        "pmd_epmd_requests_refused_total",
        Counter,
        "Requests closed without an answer, by reason.",
        "reason",
        [("malformed", counts.malformed), ("forbidden", counts.forbidden), ("timeout", counts.timeouts)],
    );
    let help = format!(
        "Time from a complete request to its answer, of one request in {EVERY}; the look at the holder of a name not included."
    );
    let mut family = page.family("pmd_epmd_request_duration_seconds", Histogram, &help);
    for Told { asked, up_to, count, seconds } in context.latency.read() {
        let request = ("request", asked.label());
        for (bound, below) in up_to {
            family.sample("_bucket", &[request, ("le", bound)], below);
        }
        family.sample("_bucket", &[request, ("le", "+Inf")], count);
        family.sample("_sum", &[request], seconds);
        family.sample("_count", &[request], count);
    }
}

fn connections(page: &mut Page, context: &Context, counts: &Counts) {
    let open = |class| context.descriptors.count(class);
    page.one(
        "pmd_connections_accepted_total",
        Counter,
        "Connections accepted on the EPMD port.",
        counts.connections_accepted,
    );
    page.by(
        "pmd_connections_open",
        Gauge,
        "Open connections, by what for; waiting means an incomplete request or an answer that is not read.",
        "class",
        [
            ("registered", open(Class::Registered)),
            ("waiting", open(Class::Waiting)),
            ("refused", open(Class::Refused)),
            ("link", open(Class::Link)),
        ],
    );
    page.one(
        "pmd_connections_shed_total",
        Counter,
        "Waiting connections closed early to make room for others.",
        counts.shed,
    );
    page.one(
        "pmd_accept_errors_total",
        Counter,
        "Connections that could not be accepted.",
        counts.accept_errors,
    );
}

/// The cluster at one moment, as the core sees it.
#[derive(Debug, Default)]
struct Seen {
    alive: usize,
    suspect: usize,
    links: Vec<SeenLink>,
    left: bool,
    names: usize,
    services: usize,
    state_bytes: usize,
    tombstones: usize,
}

#[derive(Debug)]
struct SeenLink {
    peer: String,
    host: String,
    rtt_us: Option<u32>,
    clock_ahead_ms: Option<i64>,
    phi: f64,
    received: u64,
    sent: u64,
    agrees: bool,
}

impl Seen {
    async fn now(cluster: &Cluster) -> Result<Seen, Ended> {
        let left = cluster.me().has_left();
        cluster.core().visit(move |running| Seen { left, ..Seen::of(running) }).await
    }

    fn of(running: &Running) -> Seen {
        let (node, now_ms) = (running.node(), running.now().mono_ms);
        let mut seen = Seen { alive: 1, ..Seen::default() };
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
                // Content of daemons that are gone is kept for a while, and is not to be seen.
                if node.registry().is_live(&id) {
                    seen.names += usize::from(key.kind() == EntryKind::NAME);
                    seen.services += usize::from(key.kind() == EntryKind::SERVICE);
                }
            }
        }
        let summary = node.registry().summary();
        let links = node.links().filter_map(|(id, link)| Some((link, running.link(id)?)));
        let links = links.map(|(link, end)| SeenLink {
            peer: link.peer.id.to_string(),
            host: end.host.to_string(),
            rtt_us: end.traffic.rtt_us().or(link.rtt_us),
            clock_ahead_ms: end.clock.ahead_ms(),
            phi: link.phi.phi(now_ms).min(HIGHEST_PHI),
            received: end.traffic.received(),
            sent: end.traffic.sent(),
            agrees: link.summary().is_some_and(|theirs| theirs.fingerprint == summary.fingerprint),
        });
        // For a moment there may be two links to a peer, but a series must not be told twice.
        let by_peer: BTreeMap<String, SeenLink> = links.map(|link| (link.peer.clone(), link)).collect();
        Seen { links: by_peer.into_values().collect(), ..seen }
    }

    /// Whether this daemon and all its peers have the same.
    fn agrees(&self) -> bool {
        let alone = self.alive + self.suspect == 1;
        !self.left && self.links.iter().all(|link| link.agrees) && (alone || !self.links.is_empty())
    }
}

fn members(page: &mut Page, cluster: &Cluster, seen: &Seen) {
    page.by(
        "pmd_cluster_members",
        Gauge,
        "Daemons of the cluster, this one included, by state.",
        "state",
        [("alive", seen.alive), ("suspect", seen.suspect)],
    );
    page.one("pmd_cluster_names", Gauge, "Erlang nodes registered in the whole cluster.", seen.names);
    page.one("pmd_cluster_services", Gauge, "Services registered in the whole cluster.", seen.services);
    page.one(
        "pmd_cluster_fingerprint_agreement",
        Gauge,
        "1 if all peers said last that they have the same registry as this daemon, else 0.",
        u8::from(seen.agrees()),
    );
    page.one(
        "pmd_registry_state_bytes",
        Gauge,
        "Names and values of all entries that this daemon holds of the cluster.",
        seen.state_bytes,
    );
    page.one(
        "pmd_registry_tombstones",
        Gauge,
        "Ended entries that are remembered so that others can be told of their end.",
        seen.tombstones,
    );
    let tls = cluster.me().tls();
    if let Some(expires) = tls.checks_names().then(|| tls.expires()).flatten() {
        page.one(
            "pmd_certificate_expiry_timestamp_seconds",
            Gauge,
            "When this daemon's certificate ends, in seconds since the Unix epoch.",
            expires,
        );
    }
}

fn links(page: &mut Page, seen: &Seen) {
    page.by(
        "pmd_cluster_links",
        Gauge,
        "Standing links to other daemons, by path.",
        "path",
        [("direct", seen.links.len())],
    );
    let mut by_link = |name, kind, help, value: fn(&SeenLink) -> Option<f64>| {
        let mut family = page.family(name, kind, help);
        for link in &seen.links {
            if let Some(value) = value(link) {
                let peer = link.peer.get(..16).unwrap_or(&link.peer);
                family.sample("", &[("peer", peer), ("host", &link.host)], value);
            }
        }
    };
    by_link("pmd_link_rtt_seconds", Gauge, "Round-trip time of a link.", |link| {
        link.rtt_us.map(|rtt| f64::from(rtt) / 1e6)
    });
    by_link(
        "pmd_link_clock_offset_seconds",
        Gauge,
        "How far a peer's clock is ahead of this host's.",
        |link| link.clock_ahead_ms.map(|ahead| ahead as f64 / 1e3),
    );
    by_link(
        "pmd_link_phi",
        Gauge,
        "How sure it is that a peer is gone, as minus the decimal logarithm of the chance to be wrong.",
        |link| Some(link.phi),
    );
    by_link(
        "pmd_link_agreement",
        Gauge,
        "1 if the peer said last that it has the same registry, else 0.",
        |link| Some(f64::from(u8::from(link.agrees))),
    );
    // Exact up to 2^53 bytes.
    by_link("pmd_link_received_bytes_total", Counter, "Bytes received over a link, encrypted.", |link| {
        Some(link.received as f64)
    });
    by_link("pmd_link_sent_bytes_total", Counter, "Bytes sent over a link, encrypted.", |link| {
        Some(link.sent as f64)
    });
}

fn traffic(page: &mut Page, counts: &Counts) {
    page.one("pmd_handshakes_total", Counter, "Other daemons that were let in.", counts.handshakes);
    page.by(
        "pmd_handshake_failures_total",
        Counter,
        "Other daemons, or strangers, that were not let in, by reason.",
        "reason",
        [
            ("full", counts.handshakes_full),
            ("timeout", counts.handshakes_timeout),
            ("connection", counts.handshakes_broken),
            ("tls", counts.handshakes_tls),
            ("cookie", counts.handshakes_cookie),
            ("foreign", counts.handshakes_foreign),
            ("identity", counts.handshakes_identity),
            ("protocol", counts.handshakes_protocol),
        ],
    );
    page.one(
        "pmd_dial_failures_total",
        Counter,
        "Members that could not be reached for a link.",
        counts.dials_failed,
    );
    page.by(
        "pmd_frames_total",
        Counter,
        "Frames from and to other daemons; skipped are those received that mean nothing to this version.",
        "direction",
        [
            ("received", counts.frames_received),
            ("sent", counts.frames_sent),
            ("skipped", counts.frames_skipped),
        ],
    );
    page.one(
        "pmd_protocol_violations_total",
        Counter,
        "Links closed because the peer sent what no honest daemon sends.",
        counts.violations,
    );
    page.one("pmd_deltas_sent_total", Counter, "Frames with news of the registry sent.", counts.deltas_sent);
    page.one(
        "pmd_delta_sent_bytes_total",
        Counter,
        "Bytes of frames with news of the registry sent, before encryption.",
        counts.delta_sent_bytes,
    );
}

fn tunnels(page: &mut Page, cluster: &Cluster, counts: &Counts) {
    let open = cluster.tunnels().table().all();
    let mut family =
        page.family("pmd_tunnels_open", Gauge, "Open tunnels, by the end that is here and by path.");
    for side in ["entry", "exit"] {
        for path in ["direct", "reverse", "relay"] {
            let is_meant = |tunnel: &Side| matches!(tunnel, Side::Entry(..)) == (side == "entry");
            let count = open.iter().filter(|tunnel| is_meant(&tunnel.side) && tunnel.path == path).count();
            family.sample("", &[("side", side), ("path", path)], count);
        }
    }
    page.one("pmd_tunnels_limit", Gauge, "Tunnels that can be open.", cluster.tunnels().table().limit());
    page.by(
        "pmd_tunnels_total",
        Counter,
        "Tunnels, by what became of them: opened from here, accepted here, failed from here, refused here, or no room.",
        "result",
        [
            ("opened", counts.tunnels_opened),
            ("accepted", counts.tunnels_accepted),
            ("failed", counts.tunnels_failed),
            ("refused", counts.tunnels_refused),
            ("full", counts.tunnels_full),
        ],
    );
    let bytes = cluster.tunnels().table().bytes();
    page.one("pmd_tunnel_bytes_total", Counter, "Bytes through tunnels, both ways.", bytes);
    page.by(
        "pmd_dial_requests_total",
        Counter,
        "Requests to dial back: of others passed on, over each link, or refused because they were too many; dropped, of \
         others or its own, because a link had no room.",
        "result",
        [
            ("passed", counts.dial_requests_passed),
            ("refused", counts.dial_requests_refused),
            ("dropped", counts.dial_requests_dropped),
        ],
    );
    page.one("pmd_relayed_total", Counter, "Connections between other hosts relayed.", counts.relayed);
    page.one(
        "pmd_relayed_bytes_total",
        Counter,
        "Bytes of relayed connections, both ways.",
        counts.relayed_bytes,
    );
}

/// What the system knows of this process, under the names that all programs give to it.
#[derive(Debug, Default)]
struct Process {
    descriptors: Option<usize>,
    resident_bytes: Option<u64>,
    cpu_seconds: f64,
}

impl Process {
    fn now() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        let used = clock_gettime(ClockId::ProcessCPUTime);
        Process {
            // The listing itself needs one.
            descriptors: std::fs::read_dir("/proc/self/fd").ok().map(|open| open.count().saturating_sub(1)),
            resident_bytes: resident.map(|kib| kib * 1024),
            cpu_seconds: used.tv_sec as f64 + used.tv_nsec as f64 / 1e9,
        }
    }

    fn write(&self, page: &mut Page, context: &Context) {
        let started = context.started_ms as f64 / 1e3;
        page.one(
            "process_start_time_seconds",
            Gauge,
            "When the daemon started, in seconds since the Unix epoch.",
            started,
        );
        page.one("process_cpu_seconds_total", Counter, "Processor time used.", self.cpu_seconds);
        if let Some(resident) = self.resident_bytes {
            page.one("process_resident_memory_bytes", Gauge, "Memory in use.", resident);
        }
        if let Some(open) = self.descriptors {
            page.one("process_open_fds", Gauge, "Open descriptors.", open);
        }
        page.one("process_max_fds", Gauge, "Descriptors that may be open.", context.descriptors.limit());
    }
}
