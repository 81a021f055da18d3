//! One of the threads that serve the EPMD port.
//!
//! The first shard waits for the listening sockets. It accepts one connection per wake-up, because a failing accept costs
//! almost as much as a successful one, and more only while several are waiting. If that does not end, it calls the next
//! shard, which accepts until none is left and rests again: a quiet host keeps one thread warm, a busy one uses its cores. A
//! connection stays with the shard that has accepted it.
//!
//! A shard never blocks on a peer, and survives every error of accept. When the process runs out of descriptors, a shard
//! gives up the least valuable connection; when there is none, it serves new ones through a descriptor that is kept in
//! [reserve](crate::reserve) for that.
//!
//! More than 500 lines: every method works on the state of the one thread, and splitting it would only spread that state.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmd_protocol::epmd::parse;
use pmd_protocol::limits::{MAX_FIRST_READ, MAX_PORT2_REPLY};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, acceptfrom_with, send};

use super::connections::{Incoming, Reading, State, Tables, Token, Writing};
use super::holder_check::HolderCheck;
use super::inbox::Inbox;
use super::listener::Listener;
use super::shared::{Options, Shared, Watched};
use super::trace;
use crate::descriptors::{Class, Full};
use crate::names::holder::socket_of;
use crate::rate_limit::{BURST, Decision, PERIOD, RateLimit};

/// Connections accepted in a row before waiting connections get their turn, and other shards are asked to help.
const ACCEPT_BATCH: usize = 64;
/// Every how many wake-ups it is tried whether more than one connection waits.
const PROBE: u32 = 16;
/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
/// Bit of an epoll token that says: no connection.
const SPECIAL: u64 = 1 << 63;
/// The token of the inbox; listeners are the special tokens from 0.
const INBOX: u64 = SPECIAL | (1 << 32);
/// How long a thread rests that can neither accept nor make room: the kernel's table of files is full.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(5);
/// Longer than any daemon runs: what a packet timeout without end comes down to.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The state of one thread.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) shared: Arc<Shared>,
    pub(super) options: Arc<Options>,
    pub(super) holder_check: HolderCheck,
    pub(super) inbox: Arc<Inbox>,
    pub(super) tables: Tables,
    /// Where answers are put together; kept so that answering allocates nothing.
    pub(super) answer: Vec<u8>,
    listeners: Arc<[Listener]>,
    /// The other shards, if this is the first.
    helpers: Vec<Arc<Inbox>>,
    epoll: OwnedFd,
    /// What was read from the connection at hand.
    input: Vec<u8>,
    /// Wake-ups by a listening socket so far.
    wakes: u32,
    /// Whether there were several connections to be had at the last try.
    crowded: bool,
    log_limit: RateLimit,
    /// Counts requests, to measure some of them.
    pub(super) requests: u32,
    packet_timeout: Duration,
}

impl Shard {
    /// A shard that [runs](Self::run) on calls for help only.
    pub(super) fn helper(
        shared: Arc<Shared>,
        options: Arc<Options>,
        listeners: Arc<[Listener]>,
        holder_check: HolderCheck,
        tables: Tables,
    ) -> Result<Shard, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let inbox = Inbox::new()?;
        epoll::add(&epoll, inbox.bell(), epoll::EventData::new_u64(INBOX), epoll::EventFlags::IN)?;
        Ok(Shard {
            holder_check,
            inbox: Arc::new(inbox),
            tables,
            answer: Vec::with_capacity(MAX_PORT2_REPLY),
            listeners,
            helpers: Vec::new(),
            epoll,
            input: Vec::with_capacity(MAX_FIRST_READ),
            wakes: 0,
            crowded: false,
            log_limit: RateLimit::new(Instant::now(), BURST, PERIOD),
            requests: 0,
            packet_timeout: options.packet_timeout.min(FOREVER),
            shared,
            options,
        })
    }

    /// The shard that waits for the listening sockets, and calls `helpers` when it needs to.
    pub(super) fn first(
        shared: Arc<Shared>,
        options: Arc<Options>,
        listeners: Arc<[Listener]>,
        holder_check: HolderCheck,
        tables: Tables,
        helpers: &[Shard],
    ) -> Result<Shard, Errno> {
        let mut shard = Shard::helper(shared, options, listeners, holder_check, tables)?;
        for (index, listener) in (0..).zip(shard.listeners.iter()) {
            let data = epoll::EventData::new_u64(SPECIAL | index);
            epoll::add(&shard.epoll, listener, data, epoll::EventFlags::IN)?;
        }
        shard.helpers = helpers.iter().map(|helper| Arc::clone(&helper.inbox)).collect();
        Ok(shard)
    }

    /// Takes messages for this shard.
    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Serves until it is told to stop.
    pub(super) fn run(mut self) {
        let watched = Watched::new(Arc::clone(&self.shared.host), "epmd");
        match self.serve() {
            Ok(()) => watched.done(),
            Err(error) => watched.failed(format!("the kernel refuses to wait for connections: {error}")),
        }
    }

    fn serve(&mut self) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let timeout = self.time_to_next_deadline();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            // First what has ended: it makes room for newcomers, and frees names that they may want.
            for event in &events {
                let token = event.data.u64();
                if token & SPECIAL == 0 {
                    self.progress(Token(token));
                }
            }
            for event in &events {
                match event.data.u64() {
                    INBOX => self.open_inbox(),
                    special if special & SPECIAL != 0 => self.wake(special & !SPECIAL),
                    _ => {}
                }
            }
            if self.inbox.is_stopped() {
                return Ok(());
            }
            self.close_overdue();
        }
    }

    /// Writes a log line about bad input, unless there were too many; `line` is only called if it is written.
    pub(super) fn complain(&mut self, peer: Option<SocketAddr>, line: impl FnOnce() -> String) {
        match self.log_limit.check(Instant::now()) {
            Decision::HoldBack { .. } => return,
            Decision::Write { held_back: 0 } => {}
            Decision::Write { held_back } => tracing::warn!("{held_back} lines like the next were left out"),
        }
        match peer {
            Some(peer) => tracing::warn!(%peer, "{}", line()),
            None => tracing::warn!("{}", line()),
        }
    }

    fn time_to_next_deadline(&self) -> Option<Timespec> {
        let wait = self.tables.own().next_deadline()?.saturating_duration_since(Instant::now());
        // One millisecond more, so that the deadline is over when the kernel's clock says so.
        (wait + Duration::from_millis(1)).try_into().ok()
    }

    /// A connection waits at a listening socket.
    fn wake(&mut self, listener: u64) {
        let pause = self.options.delay_accept;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let Some(index) = usize::try_from(listener).ok().filter(|index| *index < self.listeners.len()) else {
            return;
        };
        if self.listeners[index].is_closed() {
            // The kernel would tell of its end for ever.
            let _ = epoll::delete(&self.epoll, &self.listeners[index]);
            return;
        }
        self.wakes = self.wakes.wrapping_add(1);
        if !self.crowded && !self.wakes.is_multiple_of(PROBE) {
            self.accept(index, 1);
            return;
        }
        let accepted = self.accept(index, ACCEPT_BATCH);
        self.crowded = accepted > 1;
        if accepted == ACCEPT_BATCH {
            // The first that rests: there is no use in waking more than one at a time.
            let _ = self.helpers.iter().any(|helper| helper.call_for_help());
        }
    }

    /// Accepts and serves at most `most` connections; returns how many there were.
    fn accept(&mut self, listener: usize, most: usize) -> usize {
        let listeners = Arc::clone(&self.listeners);
        let mut accepted = 0;
        while accepted < most && !listeners[listener].is_closed() {
            if self.shared.reserve.is_missing() {
                self.shared.reserve.restore();
            }
            match acceptfrom_with(&listeners[listener], SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((socket, peer)) => {
                    accepted += 1;
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    let last = self.shared.reserve.is_missing();
                    self.receive(Incoming { socket, peer, watched: false, last });
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Some connections may have ended since the last look at them.
                Err(Errno::MFILE) if accepted > 0 => break,
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.shared.counters.accept_errors.add();
                    self.complain(None, || format!("cannot accept a connection: {error}"));
                    if self.shed() {
                        continue;
                    }
                    if !self.accept_with_the_last_descriptor(&listeners[listener]) {
                        break;
                    }
                    accepted += 1;
                }
                // Closed a moment ago.
                Err(Errno::INVAL) if listeners[listener].is_closed() => break,
                Err(error) => {
                    // Errors of the network that the connection has met before it was accepted; accept(2)
                    // says to treat them like a connection that is not there.
                    self.shared.counters.accept_errors.add();
                    self.complain(None, || format!("cannot accept a connection: {error}"));
                    break;
                }
            }
        }
        accepted
    }

    /// Gives the reserved descriptor up, serves one connection with it, and takes it back.
    fn accept_with_the_last_descriptor(&mut self, listener: &Listener) -> bool {
        let shared = Arc::clone(&self.shared);
        let served = shared.reserve.lend(|| {
            match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((socket, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    self.receive(Incoming { socket, peer, watched: false, last: true });
                    true
                }
                Err(_) => false,
            }
        });
        if !served && shared.reserve.is_missing() {
            std::thread::sleep(EXHAUSTED_PAUSE);
        }
        served
    }

    /// Reads what a new connection has sent already, which mostly is all of it.
    fn receive(&mut self, incoming: Incoming) {
        self.shared.counters.connections_accepted.add();
        let pause = self.options.delay_accept;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        // Out of `self` for the moment, so that the request may borrow from it while it is carried out.
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        match rustix::io::read(&incoming.socket, rustix::buffer::spare_capacity(&mut input)) {
            Ok(0) => self.complain(incoming.peer, || "connection closed before a request came".into()),
            Ok(_) => self.digest(incoming, &input),
            Err(Errno::AGAIN | Errno::INTR) => self.wait_for_more(incoming, &[]),
            Err(error) => self.complain(incoming.peer, || format!("cannot read a request: {error}")),
        }
        self.input = input;
    }

    /// Carries out what has come so far, if it is a whole request.
    fn digest(&mut self, incoming: Incoming, input: &[u8]) {
        trace::bytes(input);
        let Some(incoming) = self.pass_on(incoming, input) else { return };
        match parse::frame(input) {
            Ok(Some(body)) => self.answer(incoming, body),
            Ok(None) => self.wait_for_more(incoming, input),
            Err(error) => {
                self.shared.counters.malformed.add();
                self.complain(incoming.peer, || error.to_string());
            }
        }
    }

    /// Hands a connection that is not EPMD over; gives back any other.
    fn pass_on(&self, incoming: Incoming, input: &[u8]) -> Option<Incoming> {
        let Some(handoff) = &self.shared.handoff else { return Some(incoming) };
        if !handoff.wants(input) {
            return Some(incoming);
        }
        let Some(peer) = incoming.peer.filter(|_| !incoming.last) else { return Some(incoming) };
        if incoming.watched && epoll::delete(&self.epoll, &incoming.socket).is_err() {
            return Some(incoming);
        }
        handoff.take(incoming.socket, peer, input);
        None
    }

    fn wait_for_more(&mut self, incoming: Incoming, input: &[u8]) {
        if incoming.last || !self.make_room(Class::Waiting) {
            self.shared.counters.shed.add();
            return;
        }
        let watched = incoming.watched;
        let deadline = Instant::now() + self.packet_timeout;
        let reading = Reading { incoming, input: input.to_vec(), deadline };
        self.install(State::Reading(Box::new(reading)), watched);
    }

    /// Sends a whole answer; keeps the connection if it does not fit the socket, closes it otherwise.
    pub(super) fn send_and_close(&mut self, incoming: Incoming, answer: Arc<[u8]>) {
        let writing = Writing { socket: incoming.socket, answer, written: 0, deadline: Instant::now() };
        self.write(Box::new(writing), incoming.watched, incoming.last);
    }

    fn write(&mut self, mut writing: Box<Writing>, watched: bool, last: bool) {
        loop {
            let rest = writing.answer.get(writing.written..).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
            match send(&writing.socket, rest, last_words(watched)) {
                Ok(sent) => writing.written += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return,
            }
        }
        if last || !self.make_room(Class::Waiting) {
            self.shared.counters.shed.add();
            return;
        }
        writing.deadline = Instant::now() + self.packet_timeout;
        self.install(State::Writing(writing), watched);
    }

    /// Counts one more connection of `class`, closing the least valuable one if that is what it takes.
    pub(super) fn make_room(&mut self, class: Class) -> bool {
        loop {
            match self.shared.descriptors.reserve(class) {
                Ok(()) => return true,
                Err(Full::Class) => return false,
                // Tried again, because another thread may be quicker to take the place that was made.
                Err(Full::Process) if self.shed() => {}
                Err(Full::Process) => return false,
            }
        }
    }

    fn shed(&mut self) -> bool {
        let Some(state) = self.tables.give_up() else { return false };
        self.shared.counters.shed.add();
        self.end(state, "shed");
        true
    }

    /// Puts a connection into the table and into epoll. Its class has been counted by the caller.
    pub(super) fn install(&mut self, state: State, watched: bool) {
        let mut table = self.tables.own();
        let token = table.insert(state);
        let Some(state) = table.get(token) else { return };
        // One shot: whatever happens first moves the connection on, and a registration's socket may outlive
        // its place in the table for as long as somebody else looks at it.
        let input = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        // Not the end of the peer's side, which is there to stay: a peer that has sent its last and does not read
        // would keep the thread busy.
        let output = epoll::EventFlags::OUT | epoll::EventFlags::ONESHOT;
        let (socket, flags) = match state {
            State::Reading(reading) => (&reading.incoming.socket, input),
            State::Writing(writing) => (&writing.socket, output),
            State::Refused(socket) => (socket, input),
            State::Registered(entry) => {
                let Some(node) = socket_of(entry) else { return };
                (node.socket(), input)
            }
            // Not watched: the verdict comes in any case, and soon.
            State::Checking(_) => return,
        };
        let data = epoll::EventData::new_u64(token.0);
        let done = if watched {
            epoll::modify(&self.epoll, socket, data, flags)
        } else {
            epoll::add(&self.epoll, socket, data, flags)
        };
        drop(table);
        if let Err(error) = done {
            tracing::error!("cannot watch a connection: {error}");
            self.close(token, "unwatchable");
        }
    }

    /// Something has happened on a waiting connection.
    fn progress(&mut self, token: Token) {
        let next = match self.tables.own().get(token) {
            None | Some(State::Checking(_)) => return,
            Some(State::Registered(entry)) => {
                if let Some(node) = socket_of(entry) {
                    drain(node.socket());
                }
                Self::close_ended
            }
            Some(State::Refused(socket)) => {
                drain(socket);
                Self::close_ended
            }
            Some(State::Reading(_)) => Self::read_on,
            Some(State::Writing(_)) => Self::write_on,
        };
        next(self, token);
    }

    fn close_ended(&mut self, token: Token) {
        self.close(token, "closed");
    }

    fn write_on(&mut self, token: Token) {
        let Some(State::Writing(writing)) = self.take(token) else { return };
        self.shared.descriptors.release(Class::Waiting);
        self.write(writing, true, false);
    }

    fn read_on(&mut self, token: Token) {
        let Some(State::Reading(mut reading)) = self.take(token) else { return };
        self.shared.descriptors.release(Class::Waiting);
        let mut buffer = [0; MAX_FIRST_READ];
        let limit = parse::read_limit(&reading.input).min(buffer.len());
        match rustix::io::read(&reading.incoming.socket, buffer.get_mut(..limit).unwrap_or_default()) {
            Ok(0) => self.complain(reading.incoming.peer, || {
                "connection closed before its request was complete".into()
            }),
            Ok(length) => {
                reading.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                self.read_more(reading);
            }
            Err(Errno::AGAIN | Errno::INTR) => self.read_more(reading),
            Err(error) => self.complain(reading.incoming.peer, || format!("cannot read a request: {error}")),
        }
    }

    fn read_more(&mut self, reading: Box<Reading>) {
        match parse::frame(&reading.input) {
            // Its deadline stays what it was: only a complete request is a sign of life.
            Ok(None) => {
                if self.make_room(Class::Waiting) {
                    self.install(State::Reading(reading), true);
                }
            }
            _ => {
                let Reading { incoming, input, .. } = *reading;
                self.digest(Incoming { watched: true, ..incoming }, &input);
            }
        }
    }

    fn open_inbox(&mut self) {
        for (token, dead) in self.inbox.collect() {
            if let Some(State::Checking(checking)) = self.take(token) {
                self.shared.descriptors.release(Class::Waiting);
                self.conclude(*checking, dead);
            }
        }
        if self.inbox.is_help_wanted() {
            let accepted: usize =
                (0..self.listeners.len()).map(|index| self.accept(index, ACCEPT_BATCH)).sum();
            if accepted == 0 {
                self.inbox.rest();
            } else {
                self.inbox.ring();
            }
        }
    }

    fn close_overdue(&mut self) {
        let Some(deadline) = self.tables.own().next_deadline() else { return };
        let now = Instant::now();
        if now < deadline {
            return;
        }
        loop {
            // Looked up first: the table must not be held while a connection is closed.
            let overdue = self.tables.own().overdue(now);
            let Some(token) = overdue else { return };
            self.shared.counters.timeouts.add();
            tracing::debug!("a connection has not completed its request in time, closing it");
            self.close(token, "timeout");
        }
    }

    /// Takes a connection out of the table, if it is still there.
    fn take(&mut self, token: Token) -> Option<State> {
        self.tables.own().remove(token)
    }

    /// Closes a connection and ends what it held.
    fn close(&mut self, token: Token, reason: &'static str) {
        if let Some(state) = self.take(token) {
            self.end(state, reason);
        }
    }

    fn end(&mut self, state: State, reason: &'static str) {
        match state {
            State::Reading(_) | State::Writing(_) | State::Checking(_) => {
                self.shared.descriptors.release(Class::Waiting);
            }
            State::Refused(_) => self.shared.descriptors.release(Class::Refused),
            State::Registered(entry) => self.unregister(&entry, reason),
        }
    }
}

/// How to send what a connection is closed after: held back until the close, so that the answer and the end of the
/// stream leave in one segment, which halves the packets and the client's wake-ups.
///
/// Not if the request came in pieces (`watched`): then more may have come that nobody reads, and a close with
/// unread input discards what is held back.
pub(super) fn last_words(watched: bool) -> SendFlags {
    if watched { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::MORE }
}

/// Reads what has come on a connection that is about to be closed: left unread, it would turn the end of the
/// stream into a reset.
fn drain(socket: &OwnedFd) {
    // As much as stock reads; whatever is beyond that ends in a reset there as well.
    let _ = rustix::io::read(socket, &mut [0; MAX_FIRST_READ + 1]);
}
