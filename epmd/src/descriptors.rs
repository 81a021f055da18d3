//! Who may use how many of the process's descriptors.
//!
//! Four classes of connections compete: registrations, connections whose request is not complete (or whose answer is
//! not read), refused registrations, which stock epmd keeps open, and those to other daemons. Each class leaves room
//! for the ones that matter more, so that neither a full registry nor a flood of idle connections keeps a
//! look-up from being answered.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Descriptors that registrations leave to everything else: a twentieth, within these bounds.
const RESERVE: (usize, usize) = (24, 1000);
/// What the daemon uses for itself until it has been counted.
const OWN: usize = 32;
/// What it may come to use later: for control connections (a 64th, within these bounds), and for a moment.
const LATER: (usize, usize) = (1, 16);
const FOR_A_MOMENT: usize = 4;
/// Places that even a full registry leaves to connections that have to wait.
const LEAST_WAITING: usize = 4;

/// A class of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Holds a registered name.
    Registered,
    /// Its request is not complete, or its answer not read.
    Waiting,
    /// Its registration was refused; stock epmd leaves it open.
    Refused,
    /// Leads to another daemon, or comes from one that has still to prove it.
    Link,
}

/// What there is no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The class: giving up a connection of another class does not help.
    Class,
    /// The process: giving up any connection helps.
    Process,
}

/// How many descriptors there are and who uses them.
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
    /// Of a process that may open `limit` descriptors.
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

    /// How many descriptors the process may open.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Sets how many descriptors the daemon uses for itself: those that are no connection, and one for each thread
    /// that may just have accepted one.
    pub fn set_own(&self, own: usize) {
        self.own.store(own, Ordering::Relaxed);
    }

    /// How many registrations there can be.
    pub fn max_registered(&self) -> usize {
        let for_others = (self.limit / 20).clamp(RESERVE.0, RESERVE.1);
        self.limit.saturating_sub(for_others).min(self.ceiling().saturating_sub(LEAST_WAITING))
    }

    /// How many connections of `class` there are.
    pub fn count(&self, class: Class) -> usize {
        self.counter(class).load(Ordering::Relaxed)
    }

    /// Counts one more connection of `class`, if there is room; whoever got `Ok` calls
    /// [`release`](Self::release) in the end.
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

    /// Connections of all classes together.
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
