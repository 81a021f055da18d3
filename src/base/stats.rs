//! What the daemon counts besides the EPMD port, since its start.

pmd_epmd::counters! {
    /// What has been counted since the daemon started.
    Counters,
    /// The numbers of [`Counters`] at one moment. A number that an older daemon does not have reads as 0.
    Counts:
    /// Peers that completed the handshake.
    handshakes,
    /// Connections closed before the handshake because there were too many, or no descriptors.
    handshakes_full,
    /// Handshakes that timed out.
    handshakes_timeout,
    /// Handshakes that the other side broke off.
    handshakes_broken,
    /// Handshakes that failed in TLS: no certificate, not one of the authority's, an old version.
    handshakes_tls,
    /// Peers that did not know the cluster secret.
    handshakes_cookie,
    /// Peers of another cluster or with another protocol version.
    handshakes_foreign,
    /// Peers whose identity did not match their key or certificate.
    handshakes_identity,
    /// Handshakes with an unexpected or malformed frame.
    handshakes_protocol,
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
    /// Frames with registry changes, to other daemons.
    deltas_sent,
    /// Bytes of these.
    delta_sent_bytes,
    /// Tunnels opened from this host.
    tunnels_opened,
    /// Tunnels of other hosts to this one.
    tunnels_accepted,
    /// Tunnels that could not be opened from this host.
    tunnels_failed,
    /// Tunnels of other hosts that were refused.
    tunnels_refused,
    /// Tunnels and their listeners that there was no room for.
    tunnels_full,
    /// Requests to dial back that were forwarded for others, once per link.
    dial_requests_passed,
    /// Requests to dial back that were dropped because their sender had sent too many, or too many were in progress.
    dial_requests_refused,
    /// Requests to dial back, this daemon's own and others', that a link had no room for, once per link.
    dial_requests_dropped,
    /// Connections between other hosts that this one has relayed.
    relayed,
    /// Bytes of such connections, both ways.
    relayed_bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_an_older_daemon_can_be_read() {
        let counts: Counts = serde_json::from_str(r#"{"tunnels_opened": 7}"#).expect("read");
        assert_eq!(counts, Counts { tunnels_opened: 7, ..Counts::default() });
    }
}
