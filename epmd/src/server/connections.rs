//! The waiting connections of one shard, and their deadlines.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use slab::Slab;

use crate::names::Registration;

/// The state of a waiting connection.
///
/// ```text
///               request complete                  name free
///   Reading ───────────────────▶ (answered) ───────────────────▶ Registered ─▶ closed
///      │                             │ │ name taken, holder silent
///      │ timeout, shed               │ └───────────▶ Checking ─▶ Registered or Refused
///      ▼                             │ answer does not fit the socket
///    closed                          └───────────▶ Writing ─▶ closed
/// ```
#[derive(Debug)]
pub(super) enum State {
    /// Waits for the rest of its request.
    Reading(Box<Reading>),
    /// Waits for the peer to read the rest of the answer.
    Writing(Box<Writing>),
    /// Waits for the check of the holder of its name.
    Checking(Box<Checking>),
    /// Waits for the end of its node.
    Registered(Arc<Registration>),
    /// Waits for nothing: its registration was refused, and stock epmd leaves such connections open.
    Refused(OwnedFd),
}

/// A connection that is being handled.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The connection.
    pub socket: OwnedFd,
    /// The address of its peer; `None` if that is not an IP address.
    pub peer: Option<SocketAddr>,
    /// Whether the socket is already registered with epoll.
    pub watched: bool,
    /// Whether it uses the last descriptor of the process, so that it must be closed soon.
    pub last: bool,
}

/// A connection whose request is incomplete.
#[derive(Debug)]
pub(super) struct Reading {
    /// The connection.
    pub incoming: Incoming,
    /// The bytes received so far.
    pub input: Vec<u8>,
    /// When it is closed. This is never extended, because only a complete request counts.
    pub deadline: Instant,
}

/// A connection whose answer does not fit into the socket's buffer.
#[derive(Debug)]
pub(super) struct Writing {
    /// The connection.
    pub socket: OwnedFd,
    /// The whole answer, shared between all connections that get the same one.
    pub answer: Arc<[u8]>,
    /// The number of bytes already written.
    pub written: usize,
    /// When it is closed unless the peer reads the answer.
    pub deadline: Instant,
}

/// A registration that waits for the check of the holder of its name.
#[derive(Debug)]
pub(super) struct Checking {
    /// The connection.
    pub incoming: Incoming,
    /// The whole request, to be carried out again.
    pub body: Vec<u8>,
    /// The registration that is being checked.
    pub suspect: Arc<Registration>,
}

/// Identifies a connection for epoll and for holder checks; unique within a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token(pub u64);

/// The waiting connections of one shard.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Slab<(u32, State)>,
    generation: u32,
    deadlines: BTreeSet<(Instant, Token)>,
    /// Ordered by token, and therefore by age.
    refused: BTreeSet<Token>,
}

impl Table {
    /// Adds a connection.
    pub(super) fn insert(&mut self, state: State) -> Token {
        // 31 bits, so that the top bit of a token is free for events that do not concern a connection.
        self.generation = (self.generation + 1) & (u32::MAX >> 1);
        let deadline = deadline(&state);
        let refused = matches!(state, State::Refused(_));
        let key = self.slots.insert((self.generation, state));
        let key = u64::try_from(key).unwrap_or(u64::MAX) & u64::from(u32::MAX);
        let token = Token(u64::from(self.generation) << 32 | key);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, token));
        }
        if refused {
            self.refused.insert(token);
        }
        token
    }

    /// Removes and returns a connection, if it is still there.
    pub(super) fn remove(&mut self, token: Token) -> Option<State> {
        let key = self.key(token)?;
        let (_, state) = self.slots.remove(key);
        if let Some(deadline) = deadline(&state) {
            self.deadlines.remove(&(deadline, token));
        }
        if matches!(state, State::Refused(_)) {
            self.refused.remove(&token);
        }
        Some(state)
    }

    /// The connection, if it is still there.
    pub(super) fn get(&self, token: Token) -> Option<&State> {
        let key = self.key(token)?;
        self.slots.get(key).map(|(_, state)| state)
    }

    /// The next deadline of a connection.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A connection whose deadline has passed at `now`.
    pub(super) fn overdue(&self, now: Instant) -> Option<Token> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, token)| *token)
    }

    /// The oldest connection of this kind: the one closest to its deadline, or refused first.
    fn oldest(&self, kind: Kind) -> Option<Token> {
        match kind {
            Kind::Waiting => self.deadlines.first().map(|(_, token)| *token),
            Kind::Refused => self.refused.first().copied(),
        }
    }

    fn key(&self, token: Token) -> Option<usize> {
        let key = usize::try_from(token.0 & u64::from(u32::MAX)).ok()?;
        let (generation, _) = self.slots.get(key)?;
        (u64::from(*generation) == token.0 >> 32).then_some(key)
    }
}

/// The tables of all shards, as seen by one of them. It works with its own, and makes room in the others if necessary.
#[derive(Debug)]
pub(super) struct Tables {
    all: Arc<[Mutex<Table>]>,
    own: usize,
}

impl Tables {
    /// Tables for `count` shards, but at least one: those of the first shard, then those of the others.
    pub(super) fn for_shards(count: usize) -> (Tables, impl Iterator<Item = Tables>) {
        let all: Arc<[Mutex<Table>]> = (0..count.max(1)).map(|_| Mutex::default()).collect();
        let of = move |own| Tables { all: Arc::clone(&all), own };
        (of(0), (1..count).map(of))
    }

    /// The shard's own table. The lock is only held for the duration of a change.
    pub(super) fn own(&self) -> MutexGuard<'_, Table> {
        self.all[self.own].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes and returns the connection to close: the oldest of the more numerous kind in all tables together, so
    /// that neither kind can crowd out the other.
    pub(super) fn give_up(&self) -> Option<State> {
        let count = |count: fn(&Table) -> usize| self.each().map(|table| count(&table)).sum::<usize>();
        let refused = count(|table| table.refused.len());
        let waiting = count(|table| table.deadlines.len());
        let kinds = [Kind::Refused, Kind::Waiting];
        let [first, second] = if refused > waiting { kinds } else { [kinds[1], kinds[0]] };
        self.give_up_of(first).or_else(|| self.give_up_of(second))
    }

    fn give_up_of(&self, kind: Kind) -> Option<State> {
        // The ages of refused connections cannot be compared between tables, so the fullest table gives one up.
        let mut table = match kind {
            Kind::Waiting => self
                .each()
                .enumerate()
                .filter_map(|(number, table)| Some((table.next_deadline()?, number)))
                .min()
                .map(|(_, number)| number),
            Kind::Refused => self
                .each()
                .enumerate()
                .map(|(number, table)| (table.refused.len(), number))
                .max()
                .map(|(_, n)| n),
        }
        .and_then(|number| self.all.get(number))?
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
        let token = table.oldest(kind)?;
        table.remove(token)
    }

    /// All tables, each locked only while it is used.
    fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Table>> {
        self.all.iter().map(|table| table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The two kinds of connections that can be closed to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its request is not complete, or its answer not read.
    Waiting,
    /// Its registration was refused.
    Refused,
}

fn deadline(state: &State) -> Option<Instant> {
    match state {
        State::Reading(reading) => Some(reading.deadline),
        State::Writing(writing) => Some(writing.deadline),
        State::Checking(_) | State::Registered(_) | State::Refused(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn socket() -> OwnedFd {
        std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket").into()
    }

    fn reading(deadline: Instant) -> State {
        let incoming = Incoming { socket: socket(), peer: None, watched: false, last: false };
        State::Reading(Box::new(Reading { incoming, input: Vec::new(), deadline }))
    }

    #[test]
    fn a_token_never_finds_a_later_connection() {
        let mut table = Table::default();
        let first = table.insert(State::Refused(socket()));
        assert!(table.remove(first).is_some());
        let second = table.insert(State::Refused(socket()));
        assert_ne!(first, second);
        assert!(table.get(first).is_none() && table.remove(first).is_none());
        assert!(table.get(second).is_some());
    }

    #[test]
    fn the_earliest_deadline_goes_first_and_refused_ones_when_they_are_more() {
        let mut table = Table::default();
        let now = Instant::now();
        let refused = table.insert(State::Refused(socket()));
        let late = table.insert(reading(now + Duration::from_secs(9)));
        let soon = table.insert(reading(now + Duration::from_secs(1)));
        assert_eq!(table.next_deadline(), Some(now + Duration::from_secs(1)));
        assert_eq!(table.overdue(now), None);
        assert_eq!(table.overdue(now + Duration::from_secs(1)), Some(soon));
        for (kind, expected) in [(Kind::Waiting, soon), (Kind::Waiting, late), (Kind::Refused, refused)] {
            assert_eq!(table.oldest(kind), Some(expected));
            table.remove(expected);
        }
        assert_eq!((table.oldest(Kind::Waiting), table.oldest(Kind::Refused)), (None, None));
    }

    #[test]
    fn the_kind_there_is_more_of_gives_one_up_wherever_it_is() {
        let (first, others) = Tables::for_shards(3);
        let others: Vec<Tables> = others.collect();
        first.own().insert(reading(Instant::now()));
        others[0].own().insert(reading(Instant::now()));
        for _ in 0..3 {
            others[1].own().insert(State::Refused(socket()));
        }
        for expected in ["refused", "waiting", "refused", "waiting", "refused"] {
            let given_up = first.give_up().expect("there are more");
            let kind = if matches!(given_up, State::Refused(_)) { "refused" } else { "waiting" };
            assert_eq!(kind, expected);
        }
        assert!(first.give_up().is_none());
    }
}
