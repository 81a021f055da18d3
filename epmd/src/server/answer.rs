//! The effect of each request, and its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use pmd_protocol::epmd::{Alive2, Request, RequestError, encode, parse};
use rustix::net::{SendFlags, getsockname, send};
use rustix::process::geteuid;

use super::connections::{Checking, Incoming, State};
use super::holder_check::Check;
use super::locality::socket_is_local;
use super::lookup::{Asker, Later, NotFound, reply};
use super::shard::{Shard, final_send_flags};
use super::trace;
use crate::descriptors::Class;
use crate::kernel::sockets;
use crate::latency::{Asked, EVERY};
use crate::names::Registration;
use crate::names::holder::{NodeSocket, socket_of};
use crate::names::table::Duplicate;
use crate::planted::panic_if_planted;

/// The number of attempts to register a name whose holder turned out to be gone. More than one is only needed if
/// another node takes the name in between and is gone as well.
const ATTEMPTS: usize = 3;

/// What is known about the holder of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HolderState {
    /// It was not checked yet.
    Unchecked,
    /// It was checked and is alive.
    Alive,
}

impl Shard {
    /// Carries out a complete request, and measures the latency of one in [`EVERY`].
    pub(super) fn answer(&mut self, incoming: Incoming, body: &[u8]) {
        let measured = self.requests.is_multiple_of(EVERY);
        self.requests = self.requests.wrapping_add(1);
        if !measured {
            return self.carry_out(incoming, body);
        }
        let begin = Instant::now();
        let asked = match parse::parse_request(body) {
            Ok(Request::PortPlease2 { .. }) => Asked::Lookup,
            Ok(Request::Names) => Asked::Names,
            Ok(Request::Alive2(_)) => Asked::Registration,
            _ => Asked::Other,
        };
        self.carry_out(incoming, body);
        self.shared.latency.observe(asked, begin.elapsed());
    }

    fn carry_out(&mut self, incoming: Incoming, body: &[u8]) {
        panic_if_planted("epmd");
        match parse::parse_request(body) {
            Ok(Request::PortPlease2 { name }) if self.may_ask(&incoming) => self.look_up(incoming, name),
            Ok(Request::Names) if self.may_ask(&incoming) => self.names(incoming),
            Ok(Request::Alive2(alive2)) if self.allows(&incoming, "ALIVE2") => {
                self.register(incoming, &alive2, body, HolderState::Unchecked);
            }
            Ok(Request::Dump) if self.allows(&incoming, "DUMP") => {
                self.shared.counters.dump_requests.add();
                tracing::debug!("got DUMP_REQ");
                let answer = self.shared.names.render_dump();
                self.pause_before_write();
                self.send_and_close(incoming, answer);
            }
            Ok(Request::Kill) if self.allows(&incoming, "KILL") => self.kill(&incoming),
            Ok(Request::Stop { name }) if self.allows(&incoming, "STOP") => self.stop(&incoming, name),
            Ok(_) => self.shared.counters.forbidden.add(),
            Err(RequestError::Refused { highest_version, refusal }) => {
                if self.allows(&incoming, "ALIVE2") {
                    self.shared.counters.registrations_invalid.add();
                    self.log_bad_input(incoming.peer, || format!("ALIVE2_REQ refused: {refusal}"));
                    self.refuse(incoming, highest_version);
                }
            }
            Err(RequestError::Malformed(malformed)) => {
                self.shared.counters.malformed.add();
                self.log_bad_input(incoming.peer, || malformed.to_string());
            }
        }
    }

    /// Completes a registration after the check of the name's holder.
    pub(super) fn conclude(&mut self, checking: Checking, dead: bool) {
        let Checking { incoming, body, suspect } = checking;
        if dead {
            self.evict(&suspect, "holder_frozen");
        }
        // The request is parsed again because the buffer that it borrowed from is gone.
        if let Ok(Request::Alive2(alive2)) = parse::parse_request(&body) {
            self.register(incoming, &alive2, &body, HolderState::Alive);
        }
    }

    /// Ends a registration whose connection has ended.
    pub(super) fn unregister(&self, entry: &Registration, reason: &'static str) {
        if self.shared.names.unregister(&entry.name, entry.id, (self.shared.now_ms)(), reason) {
            self.shared.counters.unregistrations.add();
            self.release_descriptor(entry);
            tracing::debug!("unregistering '{}:{}', port {}", entry.name, entry.creation, entry.port);
            trace::names(&self.shared.names);
        }
    }

    fn look_up(&mut self, incoming: Incoming, name: &str) {
        let answer = &mut self.answer;
        answer.clear();
        let asker = Asker::new(&incoming.socket, incoming.peer);
        let found = self.shared.directory.find(&asker, name, &mut |node| encode::port2_found(node, answer));
        let incoming = match found {
            Err(NotFound { for_now: true, .. }) => match self.look_up_later(incoming, name) {
                None => return,
                Some(incoming) => incoming,
            },
            _ => incoming,
        };
        self.pause_before_write();
        let flags = final_send_flags(incoming.watched);
        reply(&self.shared.counters, &incoming.socket, found, &mut self.answer, flags);
    }

    /// Leaves a lookup to the directory. Returns it if there is no room for one more that waits.
    fn look_up_later(&mut self, incoming: Incoming, name: &str) -> Option<Incoming> {
        if incoming.last || !self.make_room(Class::Waiting) {
            return Some(incoming);
        }
        let Incoming { socket, peer, watched, .. } = incoming;
        if watched {
            self.forget(&socket);
        }
        let lookup =
            Later::new(socket, peer, Arc::clone(&self.shared.counters), Arc::clone(&self.shared.descriptors));
        self.shared.directory.find_later(lookup, name);
        None
    }

    /// Whether this peer's lookups are answered.
    fn may_ask(&mut self, incoming: &Incoming) -> bool {
        if self.shared.directory.may_ask(incoming.peer) || socket_is_local(&incoming.socket, incoming.peer) {
            return true;
        }
        self.log_bad_input(incoming.peer, || "lookup refused: epmd_access does not allow it".into());
        false
    }

    fn names(&mut self, incoming: Incoming) {
        self.shared.counters.names_requests.add();
        tracing::debug!("got NAMES_REQ");
        let asker = Asker::new(&incoming.socket, incoming.peer);
        let answer = self.shared.directory.names(&asker);
        let pause = self.options.delay_write;
        if !pause.is_zero() {
            // The test aid pauses before the header and before every line, because stock writes each separately.
            let lines = answer.iter().filter(|byte| **byte == b'\n').count();
            std::thread::sleep(pause * (1 + u32::try_from(lines).unwrap_or(u32::MAX)));
        }
        self.send_and_close(incoming, answer);
    }

    fn register(&mut self, incoming: Incoming, alive2: &Alive2<'_>, body: &[u8], holder_state: HolderState) {
        if incoming.last || !self.has_room_for(alive2.name) {
            // Its holder may be dead without having unregistered.
            if let Some(current) = self.shared.names.get(alive2.name) {
                return self.check_or_refuse(incoming, alive2, body, current, holder_state);
            }
            self.shared.counters.registrations_full.add();
            let most = self.shared.descriptors.max_registered();
            self.log_bad_input(incoming.peer, || {
                format!(
                    "ALIVE2_REQ for '{}' closed: the limit of {most} registered nodes is reached",
                    alive2.name
                )
            });
            return;
        }
        let Incoming { socket, peer, watched, last } = incoming;
        let mut holder = NodeSocket::new(socket);
        for _ in 0..ATTEMPTS {
            match self.shared.names.register(alive2, holder, (self.shared.now_ms)()) {
                Ok(entry) => return self.confirm(entry, alive2.highest_version, watched),
                Err(Duplicate { current, newcomer }) => {
                    holder = newcomer;
                    if socket_of(&current).is_some_and(NodeSocket::is_gone) {
                        self.evict(&current, "holder_gone");
                    } else {
                        self.shared.descriptors.release(Class::Registered);
                        let incoming = Incoming { socket: holder.into_socket(), peer, watched, last };
                        return self.check_or_refuse(incoming, alive2, body, current, holder_state);
                    }
                }
            }
        }
        self.shared.descriptors.release(Class::Registered);
        self.refuse_duplicate(Incoming { socket: holder.into_socket(), peer, watched, last }, alive2);
    }

    fn has_room_for(&mut self, name: &str) -> bool {
        self.make_room(Class::Registered) || (self.end_if_gone(name) && self.make_room(Class::Registered))
    }

    /// Ends the registration of this name if its node is gone but the end was not processed yet, so that a new node of
    /// that name can take its place even if the registry is full.
    fn end_if_gone(&self, name: &str) -> bool {
        let Some(entry) = self.shared.names.get(name) else { return false };
        let gone = socket_of(&entry).is_some_and(NodeSocket::is_gone);
        if gone {
            self.evict(&entry, "holder_gone");
        }
        gone
    }

    /// Releases the descriptor of an ended registration, even if its connection is closed later.
    fn release_descriptor(&self, entry: &Registration) {
        if socket_of(entry).is_some() {
            self.shared.descriptors.release(Class::Registered);
        }
    }

    /// Confirms a registration to its node, and watches the connection.
    fn confirm(&mut self, entry: Arc<Registration>, highest_version: u16, watched: bool) {
        let reply = encode::alive2_reply(highest_version, Some(entry.creation));
        self.pause_before_write();
        trace::bytes(reply.as_bytes());
        // The whole reply is sent in one write, because clients reject it if it arrives in two pieces.
        let sent = socket_of(&entry)
            .map_or(Ok(0), |node| send(node.socket(), reply.as_bytes(), SendFlags::NOSIGNAL));
        if sent != Ok(reply.as_bytes().len()) {
            self.unregister(&entry, "closed");
            return;
        }
        self.shared.counters.registrations.add();
        tracing::debug!("registering '{}:{}', port {}", entry.name, entry.creation, entry.port);
        trace::names(&self.shared.names);
        self.install(State::Registered(entry), watched);
    }

    /// Handles a name that is held by a connection that looks alive: checks the holder, or refuses the newcomer.
    fn check_or_refuse(
        &mut self,
        incoming: Incoming,
        alive2: &Alive2<'_>,
        body: &[u8],
        suspect: Arc<Registration>,
        holder_state: HolderState,
    ) {
        if holder_state == HolderState::Alive || incoming.last || !self.make_room(Class::Waiting) {
            return self.refuse_duplicate(incoming, alive2);
        }
        let checking = Checking { incoming, body: body.to_vec(), suspect: Arc::clone(&suspect) };
        let asker = self.tables.own().insert(State::Checking(Box::new(checking)));
        let check = Check { suspect, asker, inbox: Arc::clone(&self.inbox) };
        if self.holder_check.ask(check).is_ok() {
            return;
        }
        let asked = self.tables.own().remove(asker);
        if let Some(State::Checking(checking)) = asked {
            self.shared.descriptors.release(Class::Waiting);
            self.refuse_duplicate(checking.incoming, alive2);
        }
    }

    fn evict(&self, entry: &Registration, reason: &'static str) {
        if self.shared.names.unregister(&entry.name, entry.id, (self.shared.now_ms)(), reason) {
            self.shared.counters.evictions.add();
            self.release_descriptor(entry);
            tracing::info!(name = &*entry.name, port = entry.port, reason, "evicted a dead node's name");
        }
        if let Some(node) = socket_of(entry) {
            node.disconnect();
        }
    }

    fn refuse_duplicate(&mut self, incoming: Incoming, alive2: &Alive2<'_>) {
        self.shared.counters.registrations_duplicate.add();
        self.log_bad_input(incoming.peer, || format!("ALIVE2_REQ refused: '{}' is in use", alive2.name));
        self.refuse(incoming, alive2.highest_version);
    }

    /// Refuses a registration and keeps the connection open, as stock does.
    fn refuse(&mut self, incoming: Incoming, highest_version: u16) {
        self.pause_before_write();
        let reply = encode::alive2_reply(highest_version, None);
        let sent = send(&incoming.socket, reply.as_bytes(), SendFlags::NOSIGNAL);
        if sent == Ok(reply.as_bytes().len()) && !incoming.last && self.make_room(Class::Refused) {
            self.install(State::Refused(incoming.socket), incoming.watched);
        }
    }

    fn kill(&mut self, incoming: &Incoming) {
        self.shared.counters.kill_requests.add();
        let (names, _) = self.shared.names.count();
        let refusal = if self.options.relaxed_command_check {
            None
        } else if names > 0 {
            Some("nodes are registered")
        } else if !self.options.kill_by_anyone && !is_of_trusted_user(incoming) {
            Some("only root and the daemon's user may end it, with pmd stop")
        } else {
            None
        };
        self.pause_before_write();
        let reply = if refusal.is_none() { encode::KILL_OK } else { encode::KILL_REFUSED };
        let _ = send(&incoming.socket, reply, SendFlags::NOSIGNAL);
        if let Some(refusal) = refusal {
            self.log_bad_input(incoming.peer, || format!("KILL_REQ refused: {refusal}"));
        } else {
            tracing::warn!("epmd killed");
            self.shared.host.killed();
        }
    }

    fn stop(&mut self, incoming: &Incoming, name: &[u8]) {
        if !self.options.relaxed_command_check {
            self.shared.counters.forbidden.add();
            return self.log_bad_input(incoming.peer, || {
                "STOP_REQ refused: it requires -relaxed_command_check".into()
            });
        }
        self.shared.counters.stop_requests.add();
        let entry = std::str::from_utf8(name).ok().and_then(|name| self.shared.names.get(name));
        let reply = if let Some(entry) = entry {
            self.unregister(&entry, "stopped");
            if let Some(node) = socket_of(&entry) {
                node.disconnect();
            }
            encode::STOPPED
        } else {
            encode::STOP_NOEXIST
        };
        self.pause_before_write();
        let _ = send(&incoming.socket, reply, SendFlags::NOSIGNAL);
    }

    /// Whether a request that is only allowed from this host comes from this host, and is meant for it.
    fn allows(&mut self, incoming: &Incoming, request: &str) -> bool {
        let is_elsewhere = self.shared.directory.is_elsewhere(&Asker::new(&incoming.socket, incoming.peer));
        let local = !is_elsewhere && socket_is_local(&incoming.socket, incoming.peer);
        if !local {
            let rule = if is_elsewhere { "at the address of another host" } else { "from another host" };
            self.log_bad_input(incoming.peer, || format!("{request}_REQ refused: it is not allowed {rule}"));
        }
        local
    }

    fn pause_before_write(&self) {
        let pause = self.options.delay_write;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

/// Whether root or the user of this process has opened this connection, according to the kernel. If the kernel does not
/// say who did, nobody is trusted.
fn is_of_trusted_user(incoming: &Incoming) -> bool {
    let own = getsockname(&incoming.socket).ok().and_then(|own| SocketAddr::try_from(own).ok());
    let (Some(peer), Some(own)) = (incoming.peer, own) else { return false };
    let user = sockets::user_of(peer, own);
    user.is_some_and(|user| user == 0 || user == geteuid().as_raw())
}
