//! One of the threads that serve the EPMD port.
//!
//! The first shard waits for the listening sockets. It accepts one connection per wake-up, because a failing accept
//! costs almost as much as a successful one, and more only while several are pending. Under sustained load it calls the
//! next shard, which accepts until none is left and then goes back to sleep: a quiet host uses one warm thread, a busy
//! one all cores. A connection stays with the shard that accepted it.
//!
//! A shard never blocks on a peer, and survives every error of accept. When the process runs out of descriptors, a
//! shard closes the least valuable connection; if there is none, it serves new ones through a descriptor kept in
//! [reserve](crate::reserve).
//!
//! This file has more than 500 lines, because all methods work on the state of one thread and splitting it would only
//! scatter that state.

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
use super::lookup::Asker;
use super::shared::{Options, Shared, Watched};
use super::trace;
use crate::descriptors::{Class, Full};
use crate::names::holder::socket_of;
use crate::rate_limit::{BURST, Decision, PERIOD, RateLimit};

/// The number of connections accepted in a row before waiting connections are handled and other shards are asked to
/// help.
const ACCEPT_BATCH: usize = 64;
/// The number of wake-ups between checks whether more than one connection is pending.
const PROBE: u32 = 16;
/// The number of events fetched from the kernel at a time.
const EVENTS: usize = 256;
/// The bit of an epoll token that marks events that do not concern a connection.
const SPECIAL: u64 = 1 << 63;
/// The token of the inbox; listeners are the special tokens from 0.
const INBOX: u64 = SPECIAL | (1 << 32);
/// How long a thread sleeps that can neither accept nor make room, because the kernel's file table is full.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(5);
/// Longer than any daemon runs; stands for an unlimited packet timeout.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The state of one thread.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) shared: Arc<Shared>,
    pub(super) options: Arc<Options>,
    pub(super) holder_check: HolderCheck,
    pub(super) inbox: Arc<Inbox>,
    pub(super) tables: Tables,
    /// The buffer for answers, reused so that answering allocates nothing.
    pub(super) answer: Vec<u8>,
    listeners: Arc<[Listener]>,
    /// The other shards, if this is the first.
    helpers: Vec<Arc<Inbox>>,
    epoll: OwnedFd,
    /// The bytes read from the current connection.
    input: Vec<u8>,
    /// Wake-ups by a listening socket so far.
    wakes: u32,
    /// Whether several connections were pending at the last check.
    several_pending: bool,
    log_limit: RateLimit,
    /// The number of requests, of which some are measured.
    pub(super) requests: u32,
    packet_timeout: Duration,
}

impl Shard {
    /// A shard that only accepts connections when called for help.
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
            several_pending: false,
            log_limit: RateLimit::new(Instant::now(), BURST, PERIOD),
            requests: 0,
            packet_timeout: options.packet_timeout.min(FOREVER),
            shared,
            options,
        })
    }

    /// The shard that waits for the listening sockets, and calls `helpers` when necessary.
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

    /// The inbox for messages to this shard.
    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Serves until it is told to stop.
    pub(super) fn run(mut self) {
        let watched = Watched::new(Arc::clone(&self.shared.host), "epmd");
        match self.serve() {
            Ok(()) => watched.done(),
            Err(error) => watched.failed(format!("cannot wait for connections: {error}")),
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
            // Existing connections come first: closing them makes room for newcomers and frees names.
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

    /// Logs bad input within the rate limit; `line` is only called if it is written.
    pub(super) fn log_bad_input(&mut self, peer: Option<SocketAddr>, line: impl FnOnce() -> String) {
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
        // One millisecond is added so that the deadline has passed when epoll returns.
        (wait + Duration::from_millis(1)).try_into().ok()
    }

    /// Handles a connection pending on a listening socket.
    fn wake(&mut self, listener: u64) {
        let pause = self.options.delay_accept;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let Some(index) = usize::try_from(listener).ok().filter(|index| *index < self.listeners.len()) else {
            return;
        };
        if self.listeners[index].is_closed() {
            // Otherwise epoll would report its end forever.
            let _ = epoll::delete(&self.epoll, &self.listeners[index]);
            return;
        }
        self.wakes = self.wakes.wrapping_add(1);
        if !self.several_pending && !self.wakes.is_multiple_of(PROBE) {
            self.accept(index, 1);
            return;
        }
        let accepted = self.accept(index, ACCEPT_BATCH);
        self.several_pending = accepted > 1;
        if accepted == ACCEPT_BATCH {
            // Only the first idle helper is woken; waking more than one at a time is useless.
            let _ = self.helpers.iter().any(|helper| helper.call_for_help());
        }
    }

    /// Accepts and serves at most `most` connections; returns their number.
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
                // Some connections may have ended since they were last checked.
                Err(Errno::MFILE) if accepted > 0 => break,
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.shared.counters.accept_errors.add();
                    self.log_bad_input(None, || format!("cannot accept a connection: {error}"));
                    if self.shed() {
                        continue;
                    }
                    if !self.accept_with_the_last_descriptor(&listeners[listener]) {
                        break;
                    }
                    accepted += 1;
                }
                // The listener was closed a moment ago.
                Err(Errno::INVAL) if listeners[listener].is_closed() => break,
                Err(error) => {
                    // Network errors that hit the connection before it was accepted; accept(2) says to treat them like
                    // EAGAIN.
                    self.shared.counters.accept_errors.add();
                    self.log_bad_input(None, || format!("cannot accept a connection: {error}"));
                    break;
                }
            }
        }
        accepted
    }

    /// Releases the reserved descriptor, serves one connection with it, and takes it back.
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

    /// Reads what a new connection has already sent, which is usually the whole request.
    fn receive(&mut self, incoming: Incoming) {
        self.shared.counters.connections_accepted.add();
        let pause = self.options.delay_accept;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        // Moved out of `self` temporarily, so that the request can borrow from it while it is carried out.
        let mut input = std::mem::take(&mut self.input);
        input.clear();
        match rustix::io::read(&incoming.socket, rustix::buffer::spare_capacity(&mut input)) {
            Ok(0) => {
                self.log_bad_input(incoming.peer, || "connection closed before a request arrived".into());
            }
            Ok(_) => self.carry_out_if_complete(incoming, &input),
            Err(Errno::AGAIN | Errno::INTR) => self.wait_for_more(incoming, &[]),
            Err(error) => self.log_bad_input(incoming.peer, || format!("cannot read a request: {error}")),
        }
        self.input = input;
    }

    /// Carries out the request if the bytes received so far complete it.
    fn carry_out_if_complete(&mut self, incoming: Incoming, input: &[u8]) {
        trace::bytes(input);
        let Some(incoming) = self.pass_on(incoming, input) else { return };
        match parse::frame(input) {
            Ok(Some(body)) => self.answer(incoming, body),
            Ok(None) => self.wait_for_more(incoming, input),
            Err(error) => {
                self.shared.counters.malformed.add();
                self.log_bad_input(incoming.peer, || error.to_string());
            }
        }
    }

    /// Hands off a connection that is not EPMD; returns any other.
    fn pass_on(&self, incoming: Incoming, input: &[u8]) -> Option<Incoming> {
        let Some(handoff) = &self.shared.handoff else { return Some(incoming) };
        if !handoff.wants(&Asker::new(&incoming.socket, incoming.peer), input) {
            return Some(incoming);
        }
        let Some(peer) = incoming.peer.filter(|_| !incoming.last) else { return Some(incoming) };
        if incoming.watched && epoll::delete(&self.epoll, &incoming.socket).is_err() {
            return Some(incoming);
        }
        handoff.take(incoming.socket, peer, input);
        None
    }

    /// Stops watching a connection that others serve from now on.
    pub(super) fn forget(&self, socket: &OwnedFd) {
        let _ = epoll::delete(&self.epoll, socket);
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

    /// Sends a whole answer. Keeps the connection if the answer does not fit into the socket's buffer, and closes it
    /// otherwise.
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
            match send(&writing.socket, rest, final_send_flags(watched)) {
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

    /// Counts one more connection of `class`, closing the least valuable one if necessary.
    pub(super) fn make_room(&mut self, class: Class) -> bool {
        loop {
            match self.shared.descriptors.reserve(class) {
                Ok(()) => return true,
                Err(Full::Class) => return false,
                // Tried again, because another thread may take the freed place first.
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
        // One shot: the first event moves the connection on, and a registration's socket may outlive its entry in the
        // table while another thread uses it.
        let input = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        // Without RDHUP, which would stay signalled: a peer that has shut down its side and does not read would keep
        // the thread busy.
        let output = epoll::EventFlags::OUT | epoll::EventFlags::ONESHOT;
        let (socket, flags) = match state {
            State::Reading(reading) => (&reading.incoming.socket, input),
            State::Writing(writing) => (&writing.socket, output),
            State::Refused(socket) => (socket, input),
            State::Registered(entry) => {
                let Some(node) = socket_of(entry) else { return };
                (node.socket(), input)
            }
            // Not watched, because the result of the check arrives soon in any case.
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

    /// Handles an event on a waiting connection.
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
            Ok(0) => self.log_bad_input(reading.incoming.peer, || {
                "connection closed before its request was complete".into()
            }),
            Ok(length) => {
                reading.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                self.read_more(reading);
            }
            Err(Errno::AGAIN | Errno::INTR) => self.read_more(reading),
            Err(error) => {
                self.log_bad_input(reading.incoming.peer, || format!("cannot read a request: {error}"));
            }
        }
    }

    fn read_more(&mut self, reading: Box<Reading>) {
        match parse::frame(&reading.input) {
            // The deadline is not extended, because only a complete request counts.
            Ok(None) => {
                if self.make_room(Class::Waiting) {
                    self.install(State::Reading(reading), true);
                }
            }
            _ => {
                let Reading { incoming, input, .. } = *reading;
                self.carry_out_if_complete(Incoming { watched: true, ..incoming }, &input);
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
            // Looked up first, because the table must not be locked while a connection is closed.
            let overdue = self.tables.own().overdue(now);
            let Some(token) = overdue else { return };
            self.shared.counters.timeouts.add();
            tracing::debug!("closing a connection that did not complete its request in time");
            self.close(token, "timeout");
        }
    }

    /// Removes and returns a connection from the table, if it is still there.
    fn take(&mut self, token: Token) -> Option<State> {
        self.tables.own().remove(token)
    }

    /// Closes a connection and ends its registration, if any.
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

/// The flags for the last data before a close: the kernel holds it back until the close, so that the answer and the end
/// of the stream leave in one segment, which halves the packets and the client's wake-ups.
///
/// This does not apply if the request arrived in pieces (`watched`): more input may have arrived, and a close with
/// unread input discards the data held back.
pub(super) fn final_send_flags(watched: bool) -> SendFlags {
    if watched { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::MORE }
}

/// Reads the remaining input of a connection that is about to be closed. Unread input would turn the end of the stream
/// into a reset.
fn drain(socket: &OwnedFd) {
    // As much as stock reads; anything beyond that ends in a reset there as well.
    let _ = rustix::io::read(socket, &mut [0; MAX_FIRST_READ + 1]);
}
