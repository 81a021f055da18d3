//! Everything the daemon counts, since its start.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::link::handshake::GreetingError;

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts several more.
    pub fn add_many(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What has been counted since the start of the daemon.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        /// The numbers of [`Counters`] at one moment. What an older daemon does not count, it has none of.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// The numbers now.
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_accepted,
    /// PORT_PLEASE2 requests for a registered name.
    lookups_found,
    /// PORT_PLEASE2 requests for a name that is not registered.
    lookups_not_found,
    /// NAMES requests.
    names_requests,
    /// DUMP requests.
    dump_requests,
    /// KILL requests from this host.
    kill_requests,
    /// STOP requests from this host that were allowed.
    stop_requests,
    /// ALIVE2 requests that registered a node.
    registrations,
    /// ALIVE2 requests refused because the name is in use.
    registrations_duplicate,
    /// ALIVE2 requests refused for their name or extra field.
    registrations_invalid,
    /// ALIVE2 requests closed because the daemon holds as many registrations as its descriptors allow.
    registrations_full,
    /// Registrations ended because their holder was found dead when another node asked for the name.
    evictions,
    /// Registrations that ended.
    unregistrations,
    /// Requests closed without an answer because they were not well formed.
    malformed,
    /// Requests closed without an answer because they came from another host or are not enabled.
    forbidden,
    /// Connections closed because their request did not come in time.
    timeouts,
    /// Waiting connections closed early to make room for others.
    shed,
    /// Times that accept failed.
    accept_errors,
    /// Other daemons that were let in.
    handshakes,
    /// Connections of daemons closed unseen because there were too many handshakes, or no descriptors.
    handshakes_full,
    /// Handshakes that were not complete in time.
    handshakes_timeout,
    /// Handshakes that the other side broke off.
    handshakes_broken,
    /// Handshakes that failed in TLS: no certificate, not one of the authority's, an old version.
    handshakes_tls,
    /// Daemons that did not know the cookie.
    handshakes_cookie,
    /// Daemons of another cluster or another version of the protocol.
    handshakes_foreign,
    /// Daemons that were not who they said they are.
    handshakes_identity,
    /// Handshakes in which something else was sent than belongs there.
    handshakes_protocol,
    /// Attempts to reach another daemon that failed.
    dials_failed,
    /// Frames from other daemons.
    frames_received,
    /// Frames to other daemons.
    frames_sent,
    /// Frames that mean nothing to this version.
    frames_skipped,
    /// Links closed because the peer sent what no honest daemon sends.
    violations,
    /// Frames with news of the registry, to other daemons.
    deltas_sent,
    /// Bytes of these.
    delta_sent_bytes,
    /// Tunnels opened from this host.
    tunnels_opened,
    /// Tunnels of other hosts to this one.
    tunnels_accepted,
    /// Tunnels that did not come about, from this host.
    tunnels_failed,
    /// Tunnels of other hosts that were refused.
    tunnels_refused,
    /// Tunnels and their listeners that there was no room for.
    tunnels_full,
    /// Requests to dial back that were passed on for others, over each link.
    dial_requests_passed,
    /// Requests to dial back that were left, because their sender had sent too many or too many were under way.
    dial_requests_refused,
    /// Requests to dial back, this daemon's own and others', that found no room on a link, for each link.
    dial_requests_dropped,
    /// Connections between other hosts that this one has relayed.
    relayed,
    /// Bytes of such connections, both ways.
    relayed_bytes,
}

impl Counters {
    /// Counts a daemon that was not let in.
    pub fn refused_handshake(&self, error: &GreetingError) {
        match error {
            GreetingError::Late => self.handshakes_timeout.add(),
            GreetingError::Io(_) | GreetingError::Closed | GreetingError::Refused { .. } => {
                self.handshakes_broken.add();
            }
            GreetingError::Tls(_) => self.handshakes_tls.add(),
            GreetingError::Cookie => self.handshakes_cookie.add(),
            GreetingError::Cluster(_) | GreetingError::Protocol(_) | GreetingError::Left => {
                self.handshakes_foreign.add();
            }
            GreetingError::Id
            | GreetingError::Name(_)
            | GreetingError::Oneself
            | GreetingError::Twin
            | GreetingError::Stranger => self.handshakes_identity.add(),
            GreetingError::Frame(_) | GreetingError::Unexpected(_) => self.handshakes_protocol.add(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_an_older_daemon_can_be_read() {
        let counts: Counts = serde_json::from_str(r#"{"lookups_found": 7}"#).expect("read");
        assert_eq!(counts, Counts { lookups_found: 7, ..Counts::default() });
    }
}
