//! The counters of the daemon, except for those of the EPMD port.

pmd_epmd::counters! {
    /// Counters since the daemon started.
    Counters,
    /// A snapshot of [`Counters`]. A counter that an older daemon does not have reads as 0.
    Counts:
    /// Peers that completed the handshake.
    handshakes,
    /// Connections closed before the handshake because there were too many, or no descriptors were left.
    handshakes_full,
    /// Connections closed before the end of their handshake to make room for others.
    handshakes_evicted,
    /// Handshakes that timed out.
    handshakes_timeout,
    /// Handshakes that the other side aborted.
    handshakes_broken,
    /// Handshakes that failed in TLS: no certificate, not issued by the cluster's CA, or an old TLS version.
    handshakes_tls,
    /// Peers that did not know the cluster secret.
    handshakes_cookie,
    /// Peers of another cluster or with another protocol version.
    handshakes_foreign,
    /// Peers whose identity did not match their key or certificate.
    handshakes_identity,
    /// Handshakes with an unexpected or malformed frame.
    handshakes_protocol,
    /// Links and one-shot connections closed because their member or address had its share of them already.
    links_over_share,
    /// Attempts to reach another daemon that failed.
    dials_failed,
    /// Frames from other daemons.
    frames_received,
    /// Frames to other daemons.
    frames_sent,
    /// Frames unknown to this version, skipped.
    frames_skipped,
    /// Links closed for a protocol violation.
    violations,
    /// Frames with registry changes sent to other daemons.
    deltas_sent,
    /// Bytes of frames with registry changes sent to other daemons.
    delta_sent_bytes,
    /// Tunnels opened from this host.
    tunnels_opened,
    /// Tunnels accepted from other hosts.
    tunnels_accepted,
    /// Tunnels that could not be opened from this host.
    tunnels_failed,
    /// Tunnels from other hosts that were rejected.
    tunnels_refused,
    /// Tunnels rejected at either end because the other daemon proved another host name than the registry shows.
    tunnels_wrong_host,
    /// Tunnels from other hosts rejected because their member or address had its share of tunnels already.
    tunnels_over_share,
    /// Tunnels and listeners that there was no room for.
    tunnels_full,
    /// Dial-back requests forwarded for others, once per link.
    dial_requests_passed,
    /// Dial-back requests dropped because their sender sent too many, or too many were in progress.
    dial_requests_refused,
    /// Dial-back requests, this daemon's own and others', dropped because a link's send queue was full, once per link.
    dial_requests_dropped,
    /// Questions to other daemons about what is registered on their hosts.
    questions_asked,
    /// Questions of other daemons that this one answered.
    questions_answered,
    /// Questions of other daemons that were not answered because they ask too often, or are no members.
    questions_refused,
    /// Connections between other hosts that this one relayed.
    relayed,
    /// Bytes of relayed connections, in both directions.
    relayed_bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_an_older_daemon_can_be_parsed() {
        let counts: Counts = serde_json::from_str(r#"{"tunnels_opened": 7}"#).expect("read");
        assert_eq!(counts, Counts { tunnels_opened: 7, ..Counts::default() });
    }
}
