//! Every family of metrics, declared once: type, name, help text and samples.
//!
//! No label contains the name of an Erlang node, and only links, about ten of them, have metrics per peer. The number
//! of time series therefore does not grow with the number of registrations.

use super::observed::{Link, Observed};
use super::text::{Family, Samples};

macro_rules! families {
    (|$seen:ident, $to:ident| { $($kind:ident $name:ident $help:literal = $samples:expr;)* }) => {
        /// All families, in the order of the page.
        pub static FAMILIES: &[Family<Observed>] = &[$(Family {
            name: stringify!($name),
            kind: stringify!($kind),
            help: $help,
            samples: |$seen, $to| $samples,
        },)*];
    };
}

families! { |seen, to| {
    gauge pmd_build_info "Version of the daemon; the value is always 1."
        = to.with("", &[("version", env!("CARGO_PKG_VERSION")), ("called", seen.called)], 1);

    gauge pmd_names "Erlang nodes registered on this host." = to.one(seen.names);
    gauge pmd_names_limit "Most Erlang nodes that can register on this host." = to.one(seen.names_limit);
    gauge pmd_services "Services registered on this host." = to.one(seen.services);
    counter pmd_registrations_total "ALIVE2 requests, by result."
        = to.by("result", [
            ("registered", seen.epmd.registrations),
            ("duplicate", seen.epmd.registrations_duplicate),
            ("invalid", seen.epmd.registrations_invalid),
            ("full", seen.epmd.registrations_full),
        ]);
    counter pmd_unregistrations_total "Registrations that ended, by reason; evicted means that the holder was found dead."
        = to.by("reason", [("closed", seen.epmd.unregistrations), ("evicted", seen.epmd.evictions)]);

    counter pmd_epmd_requests_total "EPMD requests, by request and result." = epmd_requests(seen, to);
    counter pmd_epmd_requests_refused_total "EPMD requests closed without an answer, by reason."
        = to.by("reason", [
            ("malformed", seen.epmd.malformed),
            ("forbidden", seen.epmd.forbidden),
            ("timeout", seen.epmd.timeouts),
        ]);
    histogram pmd_epmd_request_duration_seconds
        "Time from a complete request to its answer, of one request in 64; excludes the check whether the holder of a name is alive."
        = request_durations(seen, to);

    counter pmd_connections_accepted_total "Connections accepted on the EPMD port." = to.one(seen.epmd.connections_accepted);
    gauge pmd_connections_open
        "Open connections, by class; waiting means that the request is incomplete or the answer not yet read."
        = to.by("class", [
            ("registered", seen.connections.registered),
            ("waiting", seen.connections.waiting),
            ("refused", seen.connections.refused),
            ("link", seen.connections.link),
        ]);
    counter pmd_connections_shed_total "Waiting connections closed early to make room for new ones." = to.one(seen.epmd.shed);
    counter pmd_accept_errors_total "Connections that could not be accepted." = to.one(seen.epmd.accept_errors);

    gauge pmd_cluster_members "Members of the cluster, this daemon included, by state."
        = to.by("state", [("alive", seen.cluster.as_ref()?.alive), ("suspect", seen.cluster.as_ref()?.suspect)]);
    gauge pmd_cluster_names "Erlang nodes registered in the whole cluster." = to.one(seen.cluster.as_ref()?.names);
    gauge pmd_cluster_services "Services registered in the whole cluster." = to.one(seen.cluster.as_ref()?.services);
    gauge pmd_cluster_fingerprint_agreement
        "1 if every peer last reported the same registry as this daemon, else 0."
        = to.one(u8::from(seen.cluster.as_ref()?.agrees()));
    gauge pmd_registry_state_bytes "Bytes of all keys and values of the cluster's registry that this daemon holds."
        = to.one(seen.cluster.as_ref()?.state_bytes);
    gauge pmd_registry_tombstones "Deleted entries kept so that other daemons learn of the deletion."
        = to.one(seen.cluster.as_ref()?.tombstones);
    gauge pmd_claims_held "Claims that this host holds; absent without voters." = to.one(seen.claims.as_ref()?.held);
    gauge pmd_claims_voting "1 if this host votes about claims and knows a leader, 0 if it should and does not."
        = to.one(u8::from(seen.claims.as_ref()?.votes?));
    gauge pmd_cluster_secrets "Cluster secrets that are accepted; two while the secret is replaced."
        = to.one(seen.cluster.as_ref()?.secrets);
    gauge pmd_certificate_expiry_timestamp_seconds "When this daemon's certificate expires, in seconds since the Unix epoch."
        = to.one(seen.cluster.as_ref()?.certificate_expires?);

    gauge pmd_cluster_links "Links to other daemons, by path." = to.by("path", [("direct", seen.cluster.as_ref()?.links.len())]);
    gauge pmd_link_rtt_seconds "Round-trip time of a link."
        = by_link(seen, to, |link| link.rtt_us.map(|rtt| f64::from(rtt) / 1e6));
    gauge pmd_link_clock_offset_seconds "How far the peer's clock is ahead of this host's clock."
        = by_link(seen, to, |link| link.clock_ahead_ms.map(|ahead| ahead as f64 / 1e3));
    gauge pmd_link_phi "Suspicion that the peer is down: minus the decimal logarithm of the probability that it is a mistake."
        = by_link(seen, to, |link| Some(link.phi.min(HIGHEST_PHI)));
    gauge pmd_link_agreement "1 if the peer last reported the same registry as this daemon, else 0."
        = by_link(seen, to, |link| Some(f64::from(u8::from(link.agrees))));
    counter pmd_link_received_bytes_total "Bytes received over a link, encrypted."
        = by_link(seen, to, |link| Some(link.received as f64));
    counter pmd_link_sent_bytes_total "Bytes sent over a link, encrypted."
        = by_link(seen, to, |link| Some(link.sent as f64));

    counter pmd_handshakes_total "Completed handshakes with other daemons." = to.one(seen.traffic()?.handshakes);
    counter pmd_handshake_failures_total "Failed handshakes, by reason."
        = to.by("reason", [
            ("full", seen.traffic()?.handshakes_full),
            ("evicted", seen.traffic()?.handshakes_evicted),
            ("timeout", seen.traffic()?.handshakes_timeout),
            ("connection", seen.traffic()?.handshakes_broken),
            ("tls", seen.traffic()?.handshakes_tls),
            ("cookie", seen.traffic()?.handshakes_cookie),
            ("foreign", seen.traffic()?.handshakes_foreign),
            ("identity", seen.traffic()?.handshakes_identity),
            ("protocol", seen.traffic()?.handshakes_protocol),
        ]);
    counter pmd_dial_failures_total "Members that could not be reached for a link." = to.one(seen.traffic()?.dials_failed);
    counter pmd_links_over_share_total "Connections of other daemons closed because their member or address had its share of them."
        = to.one(seen.traffic()?.links_over_share);
    counter pmd_frames_total
        "Frames exchanged with other daemons; skipped are received frames of a kind that this version does not know."
        = to.by("direction", [
            ("received", seen.traffic()?.frames_received),
            ("sent", seen.traffic()?.frames_sent),
            ("skipped", seen.traffic()?.frames_skipped),
        ]);
    counter pmd_protocol_violations_total "Links closed because the peer violated the protocol." = to.one(seen.traffic()?.violations);
    counter pmd_deltas_sent_total "Frames with registry deltas sent." = to.one(seen.traffic()?.deltas_sent);
    counter pmd_delta_sent_bytes_total "Bytes of frames with registry deltas sent, before encryption."
        = to.one(seen.traffic()?.delta_sent_bytes);

    gauge pmd_tunnels_open "Open tunnels, by the end on this host and by path."
        = seen.tunnels.as_ref()?.open.iter().try_for_each(|(side, path, count)| {
            to.with("", &[("side", side), ("path", path)], count)
        });
    gauge pmd_tunnels_limit "Most tunnels that can be open." = to.one(seen.tunnels.as_ref()?.limit);
    counter pmd_tunnels_total
        "Tunnels, by result: opened or failed from this host, accepted or refused by it, refused because a host lied about its name (wrong_host) or had its share (over_share), or over its limit (full)."
        = to.by("result", [
            ("opened", seen.traffic()?.tunnels_opened),
            ("accepted", seen.traffic()?.tunnels_accepted),
            ("failed", seen.traffic()?.tunnels_failed),
            ("refused", seen.traffic()?.tunnels_refused),
            ("wrong_host", seen.traffic()?.tunnels_wrong_host),
            ("over_share", seen.traffic()?.tunnels_over_share),
            ("full", seen.traffic()?.tunnels_full),
        ]);
    counter pmd_tunnel_bytes_total "Bytes carried by tunnels, both ways." = to.one(seen.tunnels.as_ref()?.bytes);
    counter pmd_dial_requests_total
        "Dial-back requests: of other daemons, passed on (once for each link) or refused by the rate limit; of any daemon, dropped because a link had no room."
        = to.by("result", [
            ("passed", seen.traffic()?.dial_requests_passed),
            ("refused", seen.traffic()?.dial_requests_refused),
            ("dropped", seen.traffic()?.dial_requests_dropped),
        ]);
    counter pmd_questions_total
        "Questions between daemons about a name that a lookup has not found: asked by this one, or by others and answered or refused by the rate limit."
        = to.by("result", [
            ("asked", seen.traffic()?.questions_asked),
            ("answered", seen.traffic()?.questions_answered),
            ("refused", seen.traffic()?.questions_refused),
        ]);
    counter pmd_relayed_total "Connections relayed between other hosts." = to.one(seen.traffic()?.relayed);
    counter pmd_relayed_bytes_total "Bytes of relayed connections, both ways." = to.one(seen.traffic()?.relayed_bytes);

    gauge process_start_time_seconds "When the daemon started, in seconds since the Unix epoch."
        = to.one(seen.started_ms as f64 / 1e3);
    counter process_cpu_seconds_total "Processor time used." = to.one(seen.process.cpu_seconds);
    gauge process_resident_memory_bytes "Resident memory." = to.one(seen.process.resident_bytes?);
    gauge process_open_fds "Open file descriptors." = to.one(seen.process.descriptors?);
    gauge process_max_fds "Most file descriptors that can be open." = to.one(seen.descriptors_limit);
} }

/// Upper bound for phi: higher values carry no information, and infinity cannot be plotted.
const HIGHEST_PHI: f64 = 1_000.0;
/// Digits of a peer's id in a label; enough to distinguish the daemons of a cluster.
const PEER_DIGITS: usize = 16;

fn epmd_requests(seen: &Observed, to: &mut Samples<'_>) -> Option<()> {
    let counts = &seen.epmd;
    let refused = counts.registrations_duplicate + counts.registrations_invalid + counts.registrations_full;
    let by_request = [
        ("port_please2", "found", counts.lookups_found),
        ("port_please2", "not_found", counts.lookups_not_found),
        ("names", "answered", counts.names_requests),
        ("dump", "answered", counts.dump_requests),
        ("kill", "answered", counts.kill_requests),
        ("stop", "answered", counts.stop_requests),
        ("alive2", "registered", counts.registrations),
        ("alive2", "refused", refused),
    ];
    by_request.into_iter().try_for_each(|(request, result, count)| {
        to.with("", &[("request", request), ("result", result)], count)
    })
}

fn request_durations(seen: &Observed, to: &mut Samples<'_>) -> Option<()> {
    for histogram in &seen.durations {
        let request = ("request", histogram.asked.label());
        for (bound, count) in &histogram.up_to {
            to.with("_bucket", &[request, ("le", bound)], count)?;
        }
        to.with("_bucket", &[request, ("le", "+Inf")], histogram.count)?;
        to.with("_sum", &[request], histogram.seconds)?;
        to.with("_count", &[request], histogram.count)?;
    }
    Some(())
}

/// Writes a sample for each link whose value is known. Byte counts are exact up to 2^53.
fn by_link(seen: &Observed, to: &mut Samples<'_>, value: fn(&Link) -> Option<f64>) -> Option<()> {
    for link in &seen.cluster.as_ref()?.links {
        if let Some(value) = value(link) {
            let peer = link.peer.get(..PEER_DIGITS).unwrap_or(&link.peer);
            to.with("", &[("peer", peer), ("host", &link.host)], value)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::observed::{Cluster, Tunnels};
    use crate::metrics::text::render;
    use pmd_epmd::latency::EVERY;

    #[test]
    fn family_names_are_unique_and_help_texts_are_sentences() {
        for (number, family) in FAMILIES.iter().enumerate() {
            assert_eq!(
                FAMILIES.iter().position(|other| other.name == family.name),
                Some(number),
                "{}",
                family.name
            );
            assert!(family.help.ends_with('.'), "{}: {}", family.name, family.help);
            assert_eq!(family.kind == "counter", family.name.ends_with("_total"), "{}", family.name);
        }
        let durations = FAMILIES.iter().find(|family| family.kind == "histogram").expect("a histogram");
        assert!(durations.help.contains(&format!("one request in {EVERY}")), "{}", durations.help);
    }

    #[test]
    fn unknown_values_are_omitted() {
        let page = render(FAMILIES, &Observed::default());
        assert!(page.contains("\npmd_names 0\n"), "{page}");
        for absent in ["pmd_cluster_members", "pmd_handshakes_total", "pmd_tunnels_open", "process_open_fds"]
        {
            assert!(!page.contains(absent), "{absent} in {page}");
        }
        let link = Link {
            peer: "0123456789abcdef".repeat(4),
            host: "h2".into(),
            phi: f64::INFINITY,
            ..Link::default()
        };
        let seen = Observed {
            cluster: Some(Cluster { alive: 2, links: vec![link], ..Cluster::default() }),
            tunnels: Some(Tunnels { open: vec![("entry", "direct", 3)], ..Tunnels::default() }),
            ..Observed::default()
        };
        let page = render(FAMILIES, &seen);
        for present in [
            "pmd_cluster_members{state=\"alive\"} 2\npmd_cluster_members{state=\"suspect\"} 0\n",
            "pmd_cluster_fingerprint_agreement 0\n",
            "# TYPE pmd_link_rtt_seconds gauge\n# HELP pmd_link_clock_offset_seconds ",
            "pmd_link_phi{peer=\"0123456789abcdef\",host=\"h2\"} 1000\n",
            "pmd_handshake_failures_total{reason=\"cookie\"} 0\n",
            "pmd_tunnels_open{side=\"entry\",path=\"direct\"} 3\n",
        ] {
            assert!(page.contains(present), "{present} in {page}");
        }
        assert!(!page.contains("pmd_certificate_expiry"), "{page}");
    }
}
