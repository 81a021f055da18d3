//! Limits on how many of the process's descriptors each class of connections may use.
//!
//! Four classes of connections compete: registrations, connections whose request is incomplete (or whose answer has not
//! been read), refused registrations, which stock epmd keeps open, and links to other daemons. Each class leaves room
//! for more important ones, so that neither a full registry nor a flood of idle connections prevents lookups from being
//! answered.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of descriptors that registrations must leave free: a twentieth, within these bounds.
const RESERVE: (usize, usize) = (24, 1000);
/// The number of descriptors assumed for the daemon itself until they have been counted.
const OWN: usize = 32;
/// The number of descriptors that the daemon may need later, for control connections and short-lived files: a 64th,
/// within these bounds.
const LATER: (usize, usize) = (1, 16);
const FOR_A_MOMENT: usize = 4;
/// Waiting connections that are possible even with a full registry.
const LEAST_WAITING: usize = 4;

/// A class of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Holds a registered name.
    Registered,
    /// Its request is incomplete, or its answer has not been read.
    Waiting,
    /// Its registration was refused; stock epmd leaves it open.
    Refused,
    /// A connection to another daemon, or from one that has not proven its identity yet.
    Link,
}

/// The limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The limit of the class: closing a connection of another class does not help.
    Class,
    /// The limit of the process: closing any connection helps.
    Process,
}

/// The number of descriptors, and their use.
#[derive(Debug)]
pub struct Descriptors {
    limit: usize,
    own: AtomicUsize,
    registered: AtomicUsize,
    waiting: AtomicUsize,
    refused: AtomicUsize,
    links: AtomicUsize,
}

impl Descriptors {
    /// For a process that may open `limit` descriptors.
    pub fn new(limit: usize) -> Descriptors {
        Descriptors {
            limit,
            own: AtomicUsize::new(OWN),
            registered: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            links: AtomicUsize::new(0),
        }
    }

    /// The number of descriptors that the process may open.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Sets how many descriptors the daemon uses for itself: those that are not connections, and one for each thread
    /// that may have just accepted a connection.
    pub fn set_own(&self, own: usize) {
        self.own.store(own, Ordering::Relaxed);
    }

    /// The maximum number of registrations.
    pub fn max_registered(&self) -> usize {
        let for_others = (self.limit / 20).clamp(RESERVE.0, RESERVE.1);
        self.limit.saturating_sub(for_others).min(self.ceiling().saturating_sub(LEAST_WAITING))
    }

    /// The number of connections of `class`.
    pub fn count(&self, class: Class) -> usize {
        self.counter(class).load(Ordering::Relaxed)
    }

    /// Counts one more connection of `class`, if there is room. After `Ok`, the caller must call
    /// [`release`](Self::release) when the connection ends.
    pub fn reserve(&self, class: Class) -> Result<(), Full> {
        let before = self.counter(class).fetch_add(1, Ordering::Relaxed);
        let full = if class == Class::Registered && before >= self.max_registered() {
            Full::Class
        } else if self.total() > self.ceiling() {
            Full::Process
        } else {
            return Ok(());
        };
        self.release(class);
        Err(full)
    }

    /// Counts one connection of `class` less.
    pub fn release(&self, class: Class) {
        self.counter(class).fetch_sub(1, Ordering::Relaxed);
    }

    fn total(&self) -> usize {
        let all = [Class::Registered, Class::Waiting, Class::Refused, Class::Link];
        all.map(|class| self.count(class)).iter().sum()
    }

    /// The maximum number of connections of all classes together.
    fn ceiling(&self) -> usize {
        let later = (self.limit / 64).clamp(LATER.0, LATER.1) + FOR_A_MOMENT;
        self.limit.saturating_sub(self.own.load(Ordering::Relaxed) + later)
    }

    fn counter(&self, class: Class) -> &AtomicUsize {
        match class {
            Class::Registered => &self.registered,
            Class::Waiting => &self.waiting,
            Class::Refused => &self.refused,
            Class::Link => &self.links,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_20_000_holds_19_000_registrations() {
        assert_eq!(Descriptors::new(20_000).max_registered(), 19_000);
    }

    #[test]
    fn waiting_connections_leave_headroom_even_under_a_full_registry() {
        let descriptors = Descriptors::new(20_000);
        while descriptors.reserve(Class::Registered).is_ok() {}
        assert_eq!(descriptors.count(Class::Registered), 19_000);
        while descriptors.reserve(Class::Waiting).is_ok() {}
        assert_eq!(descriptors.count(Class::Waiting), 20_000 - 19_000 - OWN - 16 - FOR_A_MOMENT);
        assert_eq!(descriptors.reserve(Class::Registered), Err(Full::Class));
        descriptors.release(Class::Waiting);
        assert_eq!(descriptors.reserve(Class::Refused), Ok(()));
    }

    #[test]
    fn small_limits_leave_something_for_everybody() {
        let descriptors = Descriptors::new(64);
        assert_eq!(descriptors.max_registered(), 64 - OWN - 1 - FOR_A_MOMENT - LEAST_WAITING);
        assert_eq!(descriptors.reserve(Class::Waiting), Ok(()));
    }

    #[test]
    fn with_any_limit_a_full_registry_leaves_places_to_waiting_connections() {
        for limit in [64, 128, 256, 1_024, 4_096, 20_000, 1_000_000] {
            let descriptors = Descriptors::new(limit);
            let registered =
                (0..limit).take_while(|_| descriptors.reserve(Class::Registered).is_ok()).count();
            assert_eq!(registered, descriptors.max_registered(), "of {limit}");
            assert!((0..LEAST_WAITING).all(|_| descriptors.reserve(Class::Waiting).is_ok()), "of {limit}");
        }
    }
}
