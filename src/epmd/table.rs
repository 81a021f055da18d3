//! The connections of one shard that have to wait for something, and when they have waited long enough.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use slab::Slab;

use super::holder::Connection;
use crate::registry::names::Registration;

/// What a connection waits for.
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
pub enum State {
    /// For the rest of its request.
    Reading(Box<Reading>),
    /// For the peer to read the rest of the answer.
    Writing(Box<Writing>),
    /// For the verdict on the holder of the name it wants.
    Checking(Box<Checking>),
    /// For the end of its node.
    Registered(Arc<Registration<Connection>>),
    /// For nothing: its registration was refused, and stock epmd leaves such a connection open.
    Refused(OwnedFd),
}

/// A connection at the moment something is done with it.
#[derive(Debug)]
pub struct Incoming {
    /// The connection.
    pub socket: OwnedFd,
    /// Its other end; none if that is no internet address.
    pub peer: Option<SocketAddr>,
    /// Whether epoll knows the socket already.
    pub watched: bool,
    /// Whether it uses the last descriptor of the process, so that it cannot stay.
    pub last: bool,
}

/// A connection whose request is not complete.
#[derive(Debug)]
pub struct Reading {
    /// The connection.
    pub incoming: Incoming,
    /// What has come so far.
    pub input: Vec<u8>,
    /// When it is closed. Only a complete request counts as a sign of life, so this never moves.
    pub deadline: Instant,
}

/// A connection whose answer is longer than its socket takes at once.
#[derive(Debug)]
pub struct Writing {
    /// The connection.
    pub socket: OwnedFd,
    /// The whole answer, shared with everybody who gets the same.
    pub answer: Arc<[u8]>,
    /// How much of it is written.
    pub written: usize,
    /// When it is closed unless the peer reads.
    pub deadline: Instant,
}

/// A registration that waits to hear whether the holder of its name is alive.
#[derive(Debug)]
pub struct Checking {
    /// The connection.
    pub incoming: Incoming,
    /// The whole request, to be carried out once more.
    pub body: Vec<u8>,
    /// The registration in question.
    pub suspect: Arc<Registration<Connection>>,
}

/// Names a connection for epoll and for verdicts; never equal for two connections of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// The waiting connections of one shard.
#[derive(Debug, Default)]
pub struct Table {
    slots: Slab<(u32, State)>,
    generation: u32,
    deadlines: BTreeSet<(Instant, Token)>,
    /// By token, which is by age.
    refused: BTreeSet<Token>,
}

impl Table {
    /// Adds a connection.
    pub fn insert(&mut self, state: State) -> Token {
        // 31 bits, so that the top bit of a token is free for what is no connection.
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

    /// Takes a connection out, if it is still there.
    pub fn remove(&mut self, token: Token) -> Option<State> {
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
    pub fn get(&self, token: Token) -> Option<&State> {
        let key = self.key(token)?;
        self.slots.get(key).map(|(_, state)| state)
    }

    /// The next moment at which a connection has waited long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A connection that has waited long enough at `now`.
    pub fn overdue(&self, now: Instant) -> Option<Token> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, token)| *token)
    }

    /// The connection to give up first when there are too many: the one closest to its deadline, or the
    /// registration refused longest ago, whichever kind there is more of. So neither kind can crowd out the other.
    pub fn least_valuable(&self) -> Option<Token> {
        if self.refused.len() > self.deadlines.len() {
            self.refused.first().copied()
        } else {
            self.deadlines.first().map(|(_, token)| *token)
        }
    }

    fn key(&self, token: Token) -> Option<usize> {
        let key = usize::try_from(token.0 & u64::from(u32::MAX)).ok()?;
        let (generation, _) = self.slots.get(key)?;
        (u64::from(*generation) == token.0 >> 32).then_some(key)
    }
}

/// The tables of all shards, as one of them sees them: it works with its own, and makes room in the others' if that
/// is what it takes.
#[derive(Debug)]
pub struct Tables {
    all: Arc<[Mutex<Table>]>,
    own: usize,
}

impl Tables {
    /// Tables for `count` shards, at least one: the first one's and those of the others.
    pub fn for_shards(count: usize) -> (Tables, impl Iterator<Item = Tables>) {
        let all: Arc<[Mutex<Table>]> = (0..count.max(1)).map(|_| Mutex::default()).collect();
        let of = move |own| Tables { all: Arc::clone(&all), own };
        (of(0), (1..count).map(of))
    }

    /// The shard's own. Nobody holds it for longer than a change takes.
    pub fn own(&self) -> MutexGuard<'_, Table> {
        self.all[self.own].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection out that has to make room: one of this shard, or else of another.
    pub fn give_up(&self) -> Option<State> {
        (self.own..self.all.len()).chain(0..self.own).find_map(|number| {
            let mut table = self.all[number].lock().unwrap_or_else(PoisonError::into_inner);
            let token = table.least_valuable()?;
            table.remove(token)
        })
    }
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
        for expected in [soon, late, refused] {
            assert_eq!(table.least_valuable(), Some(expected));
            table.remove(expected);
        }
        assert_eq!(table.least_valuable(), None);
        let [oldest, newer] = [(); 2].map(|()| table.insert(State::Refused(socket())));
        let waiting = table.insert(reading(now));
        for expected in [oldest, waiting, newer] {
            assert_eq!(table.least_valuable(), Some(expected));
            table.remove(expected);
        }
    }

    #[test]
    fn room_is_made_in_the_tables_of_others_when_the_own_has_none() {
        let (first, others) = Tables::for_shards(3);
        let others: Vec<Tables> = others.collect();
        others[0].own().insert(reading(Instant::now()));
        first.own().insert(State::Refused(socket()));
        assert!(matches!(first.give_up(), Some(State::Refused(_))));
        assert!(matches!(first.give_up(), Some(State::Reading(_))));
        assert!(first.give_up().is_none() && others[1].give_up().is_none());
    }
}
