//! What each request does, and what is answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use pmd_protocol::epmd::{Alive2, Request, RequestError, encode, parse};
use rustix::net::{SendFlags, getsockname, send};

use super::holder::{Connection, connection};
use super::holder_check::Question;
use super::locality::socket_is_local;
use super::names::table::{Duplicate, Registration};
use super::shard::{Shard, last_words};
use super::table::{Checking, Incoming, State};
use super::trace;
use crate::base::clock::now_ms;
use crate::base::descriptors::Class;
use crate::base::latency::{Asked, EVERY};
use crate::base::shutdown::Reason;
use crate::config::types::EpmdAccess;
use crate::directory::cluster::same_host;
use crate::tunnel::Tunnels;

/// How often a name is tried for whose holder turned out to be gone. More than once only if somebody else takes
/// it in between and goes away as well.
const ATTEMPTS: usize = 3;

/// What is known of the holder of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Nothing yet: worth a check.
    Open,
    /// It was checked and is alive.
    Settled,
}

impl Shard {
    /// Carries out a complete request, and measures how long that takes if it is its turn.
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
        self.context.latency.observe(asked, begin.elapsed());
    }

    fn carry_out(&mut self, incoming: Incoming, body: &[u8]) {
        match parse::parse_request(body) {
            Ok(Request::PortPlease2 { name }) if self.may_ask(&incoming) => self.look_up(&incoming, name),
            Ok(Request::Names) if self.may_ask(&incoming) => self.names(incoming),
            Ok(Request::Alive2(alive2)) if self.allows(&incoming, "ALIVE2") => {
                self.register(incoming, &alive2, body, Doubt::Open);
            }
            Ok(Request::Dump) if self.allows(&incoming, "DUMP") => {
                self.context.counters.dump_requests.add();
                tracing::debug!("got DUMP_REQ");
                let answer = self.context.registry.render_dump();
                self.pause_before_write();
                self.send_and_close(incoming, answer);
            }
            Ok(Request::Kill) if self.allows(&incoming, "KILL") => self.kill(&incoming),
            Ok(Request::Stop { name }) if self.allows(&incoming, "STOP") => self.stop(&incoming, name),
            Ok(_) => self.context.counters.forbidden.add(),
            Err(RequestError::Refused { highest_version, refusal }) => {
                if self.allows(&incoming, "ALIVE2") {
                    self.context.counters.registrations_invalid.add();
                    self.complain(incoming.peer, || format!("ALIVE2_REQ refused: {refusal}"));
                    self.refuse(incoming, highest_version);
                }
            }
            Err(RequestError::Malformed(malformed)) => {
                self.context.counters.malformed.add();
                self.complain(incoming.peer, || malformed.to_string());
            }
        }
    }

    /// The verdict on the holder of a name has come.
    pub(super) fn conclude(&mut self, checking: Checking, dead: bool) {
        let Checking { incoming, body, suspect } = checking;
        if dead {
            self.evict(&suspect, "holder_frozen");
        }
        // The request is parsed once more because what it borrowed from is long gone.
        if let Ok(Request::Alive2(alive2)) = parse::parse_request(&body) {
            self.register(incoming, &alive2, &body, Doubt::Settled);
        }
    }

    /// Ends a registration whose connection has ended.
    pub(super) fn unregister(&self, entry: &Registration<Connection>, reason: &'static str) {
        if self.context.registry.unregister(&entry.name, entry.id, now_ms(), reason) {
            self.context.counters.unregistrations.add();
            self.release_place(entry);
            tracing::debug!("unregistering '{}:{}', port {}", entry.name, entry.creation, entry.port);
            trace::names(&self.context.registry);
        }
    }

    fn look_up(&mut self, incoming: &Incoming, name: &str) {
        self.answer.clear();
        let found = match self.alias_asked(incoming) {
            Some((alias, tunnels)) => tunnels.answer_at(alias, name, &mut self.answer),
            None => {
                self.context.registry.directory().answer(name, &mut self.answer)
                    || self.look_up_in_cluster(incoming, name)
            }
        };
        if found {
            self.context.counters.lookups_found.add();
        } else {
            self.context.counters.lookups_not_found.add();
            self.answer.extend_from_slice(&encode::PORT2_NOT_FOUND);
        }
        self.pause_before_write();
        trace::bytes(&self.answer);
        // An answer is at most 2 kB, which a fresh socket always takes whole.
        let _ = send(&incoming.socket, &self.answer, last_words(incoming.watched));
        tracing::debug!("got PORT2_REQ, {}", if self.answer.len() > 2 { "ok" } else { "not found" });
    }

    /// Looks for `name@host`, which is no name that stock epmd would know: the node `name` on another host, or on
    /// this one.
    fn look_up_in_cluster(&mut self, incoming: &Incoming, name: &str) -> bool {
        let Some((name, host)) = name.rsplit_once('@') else { return false };
        let Some(cluster) = self.context.cluster.get() else { return false };
        let own = cluster.me().host().as_str();
        if same_host(host, own) && self.context.registry.directory().answer(name, &mut self.answer) {
            return true;
        }
        let Some(asked) = own_address(incoming) else { return false };
        cluster.tunnels().answer_on(asked, name, host, &mut self.answer)
    }

    /// The alias at which this daemon was asked, which stands for another host; none on all other addresses.
    fn alias_asked(&self, incoming: &Incoming) -> Option<(Ipv4Addr, Arc<Tunnels>)> {
        let tunnels = self.context.cluster.get()?.tunnels();
        // Only who is on this host can ask there, and the kernel need not be asked about anybody else.
        if !tunnels.any() || !incoming.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
            return None;
        }
        Some((tunnels.alias(own_address(incoming)?)?, Arc::clone(tunnels)))
    }

    /// Whether look-ups are answered to where this one comes from.
    fn may_ask(&mut self, incoming: &Incoming) -> bool {
        let Some(settings) = &self.context.settings.cluster else { return true };
        if settings.epmd_access == EpmdAccess::Open || socket_is_local(&incoming.socket, incoming.peer) {
            return true;
        }
        let is_member = |peer: SocketAddr| {
            self.context.cluster.get().is_some_and(|cluster| cluster.directory().is_member(peer.ip()))
        };
        if settings.epmd_access == EpmdAccess::Members && incoming.peer.is_some_and(is_member) {
            return true;
        }
        self.complain(incoming.peer, || "look-up refused: epmd_access does not allow it".into());
        false
    }

    fn names(&mut self, incoming: Incoming) {
        self.context.counters.names_requests.add();
        tracing::debug!("got NAMES_REQ");
        let answer = match self.alias_asked(&incoming) {
            Some((alias, tunnels)) => tunnels.names_at(alias),
            None => self.context.registry.render_names(),
        };
        let pause = self.context.settings.delay_write;
        if !pause.is_zero() {
            // The test aid pauses before the header and before every line, as often as stock writes.
            let lines = answer.iter().filter(|byte| **byte == b'\n').count();
            std::thread::sleep(pause * (1 + u32::try_from(lines).unwrap_or(u32::MAX)));
        }
        self.send_and_close(incoming, answer);
    }

    fn register(&mut self, incoming: Incoming, alive2: &Alive2<'_>, body: &[u8], doubt: Doubt) {
        if incoming.last || !self.has_room_for(alive2.name) {
            // Its holder may be dead without having left.
            if let Some(current) = self.context.registry.name(alive2.name) {
                return self.doubt(incoming, alive2, body, current, doubt);
            }
            self.context.counters.registrations_full.add();
            let most = self.context.descriptors.max_registered();
            self.complain(incoming.peer, || {
                format!("ALIVE2_REQ for '{}' closed: {most} nodes are registered, the limit", alive2.name)
            });
            return;
        }
        let Incoming { socket, peer, watched, last } = incoming;
        let mut holder = Connection::new(socket);
        for _ in 0..ATTEMPTS {
            match self.context.registry.register(alive2, holder, now_ms()) {
                Ok(entry) => return self.welcome(entry, alive2.highest_version, watched),
                Err(Duplicate { current, newcomer }) => {
                    holder = newcomer;
                    if connection(&current).is_some_and(Connection::is_gone) {
                        self.evict(&current, "holder_gone");
                    } else {
                        self.context.descriptors.release(Class::Registered);
                        let incoming = Incoming { socket: holder.into_socket(), peer, watched, last };
                        return self.doubt(incoming, alive2, body, current, doubt);
                    }
                }
            }
        }
        self.context.descriptors.release(Class::Registered);
        self.refuse_duplicate(Incoming { socket: holder.into_socket(), peer, watched, last }, alive2);
    }

    fn has_room_for(&mut self, name: &str) -> bool {
        self.make_room(Class::Registered) || (self.end_if_gone(name) && self.make_room(Class::Registered))
    }

    /// Ends the registration of this name if its node has left and only its end has not been seen to, so that another
    /// of the name can have its place although there is no other.
    fn end_if_gone(&self, name: &str) -> bool {
        let Some(entry) = self.context.registry.name(name) else { return false };
        let gone = connection(&entry).is_some_and(Connection::is_gone);
        if gone {
            self.evict(&entry, "holder_gone");
        }
        gone
    }

    /// The place of a registration that has ended is free, whenever its connection is closed.
    fn release_place(&self, entry: &Registration<Connection>) {
        if connection(entry).is_some() {
            self.context.descriptors.release(Class::Registered);
        }
    }

    /// A node has its name: tell it, and watch its connection.
    fn welcome(&mut self, entry: Arc<Registration<Connection>>, highest_version: u16, watched: bool) {
        let reply = encode::alive2_reply(highest_version, Some(entry.creation));
        self.pause_before_write();
        trace::bytes(reply.as_bytes());
        // One write of the whole reply: clients take two pieces for garbage.
        let sent = connection(&entry)
            .map_or(Ok(0), |connection| send(connection.socket(), reply.as_bytes(), SendFlags::NOSIGNAL));
        if sent != Ok(reply.as_bytes().len()) {
            self.unregister(&entry, "closed");
            return;
        }
        self.context.counters.registrations.add();
        tracing::debug!("registering '{}:{}', port {}", entry.name, entry.creation, entry.port);
        trace::names(&self.context.registry);
        self.install(State::Registered(entry), watched);
    }

    /// The name is taken by a connection that looks alive: look closer, or refuse.
    fn doubt(
        &mut self,
        incoming: Incoming,
        alive2: &Alive2<'_>,
        body: &[u8],
        suspect: Arc<Registration<Connection>>,
        doubt: Doubt,
    ) {
        if doubt == Doubt::Settled || incoming.last || !self.make_room(Class::Waiting) {
            return self.refuse_duplicate(incoming, alive2);
        }
        let checking = Checking { incoming, body: body.to_vec(), suspect: Arc::clone(&suspect) };
        let asker = self.tables.own().insert(State::Checking(Box::new(checking)));
        let question = Question { suspect, asker, inbox: Arc::clone(&self.inbox) };
        if self.holder_check.ask(question).is_ok() {
            return;
        }
        let asked = self.tables.own().remove(asker);
        if let Some(State::Checking(checking)) = asked {
            self.context.descriptors.release(Class::Waiting);
            self.refuse_duplicate(checking.incoming, alive2);
        }
    }

    fn evict(&self, entry: &Registration<Connection>, reason: &'static str) {
        if self.context.registry.unregister(&entry.name, entry.id, now_ms(), reason) {
            self.context.counters.evictions.add();
            self.release_place(entry);
            tracing::info!(name = &*entry.name, port = entry.port, reason, "evicted a dead node's name");
        }
        if let Some(connection) = connection(entry) {
            connection.disconnect();
        }
    }

    fn refuse_duplicate(&mut self, incoming: Incoming, alive2: &Alive2<'_>) {
        self.context.counters.registrations_duplicate.add();
        self.complain(incoming.peer, || format!("ALIVE2_REQ refused: '{}' is in use", alive2.name));
        self.refuse(incoming, alive2.highest_version);
    }

    /// Answers that a registration is refused, and keeps the connection, as stock does.
    fn refuse(&mut self, incoming: Incoming, highest_version: u16) {
        self.pause_before_write();
        let reply = encode::alive2_reply(highest_version, None);
        let sent = send(&incoming.socket, reply.as_bytes(), SendFlags::NOSIGNAL);
        if sent == Ok(reply.as_bytes().len()) && !incoming.last && self.make_room(Class::Refused) {
            self.install(State::Refused(incoming.socket), incoming.watched);
        }
    }

    fn kill(&mut self, incoming: &Incoming) {
        self.context.counters.kill_requests.add();
        let (names, _) = self.context.registry.count_names();
        let allowed = names == 0 || self.context.settings.relaxed_command_check;
        self.pause_before_write();
        let reply = if allowed { encode::KILL_OK } else { encode::KILL_REFUSED };
        let _ = send(&incoming.socket, reply, SendFlags::NOSIGNAL);
        if allowed {
            tracing::warn!("epmd killed");
            self.context.shutdown.request(Reason::Kill);
        } else {
            self.complain(incoming.peer, || "KILL_REQ refused: nodes are registered".into());
        }
    }

    fn stop(&mut self, incoming: &Incoming, name: &[u8]) {
        if !self.context.settings.relaxed_command_check {
            self.context.counters.forbidden.add();
            return self
                .complain(incoming.peer, || "STOP_REQ refused: it needs -relaxed_command_check".into());
        }
        self.context.counters.stop_requests.add();
        let entry = std::str::from_utf8(name).ok().and_then(|name| self.context.registry.name(name));
        let reply = if let Some(entry) = entry {
            self.unregister(&entry, "stopped");
            if let Some(connection) = connection(&entry) {
                connection.disconnect();
            }
            encode::STOPPED
        } else {
            encode::STOP_NOEXIST
        };
        self.pause_before_write();
        let _ = send(&incoming.socket, reply, SendFlags::NOSIGNAL);
    }

    /// Whether a request that only this host may send comes from this host.
    fn allows(&mut self, incoming: &Incoming, request: &str) -> bool {
        let local = socket_is_local(&incoming.socket, incoming.peer);
        if !local {
            self.complain(incoming.peer, || {
                format!("{request}_REQ refused: it does not come from this host")
            });
        }
        local
    }

    fn pause_before_write(&self) {
        let pause = self.context.settings.delay_write;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

/// The address that a connection was made to.
fn own_address(incoming: &Incoming) -> Option<IpAddr> {
    let own = getsockname(&incoming.socket).ok()?;
    SocketAddr::try_from(own).ok().map(|own| own.ip())
}
