//! Counters of a server.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only increases.
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
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a struct of [`Counter`]s, a struct with their values at one moment, and the conversion between them.
#[macro_export]
macro_rules! counters {
    (
        $(#[$counters_doc:meta])* $counters:ident,
        $(#[$counts_doc:meta])* $counts:ident:
        $($(#[$doc:meta])* $name:ident,)*
    ) => {
        $(#[$counters_doc])*
        #[derive(Debug, Default)]
        pub struct $counters { $($(#[$doc])* pub $name: $crate::counters::Counter,)* }

        $(#[$counts_doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $counts { $($(#[$doc])* pub $name: u64,)* }

        impl $counters {
            /// The current values.
            #[must_use]
            pub fn read(&self) -> $counts {
                $counts { $($name: self.$name.get(),)* }
            }
        }
    };
}

crate::counters! {
    /// The counters of a server since its start.
    Counters,
    /// The values of [`Counters`] at one moment. A value that an older server does not report reads as 0.
    Counts:
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
    /// ALIVE2 requests closed because the descriptors allow no more registrations.
    registrations_full,
    /// Registrations ended because their holder was found dead when another node asked for the name.
    evictions,
    /// Registrations that ended.
    unregistrations,
    /// Requests closed without an answer because they were malformed.
    malformed,
    /// Requests closed without an answer because they came from another host or are not enabled.
    forbidden,
    /// Connections closed because their request did not arrive in time.
    timeouts,
    /// Waiting connections closed early to make room for others.
    shed,
    /// Times that accept failed.
    accept_errors,
}
