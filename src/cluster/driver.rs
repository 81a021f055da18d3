//! The core: the one thread that owns the [`Node`], and the loop that drives it.
//!
//! One change, then drain: after each input, what the node wants is carried out, and each link whose socket has room gets
//! what there is for it. Nothing in here waits for anything but the next input.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmd_core::event::{Event, Happening};
use pmd_core::membership::Identity;
use pmd_core::node::{Alarm, Command, LinkEvent, LinkId, Node, Now, Output, Settings};
use pmd_core::replica::view::Patch;
use pmd_protocol::HostName;
use pmd_protocol::epmd::reply;
use pmd_protocol::peer::frame::{Depart, Reason};
use pmd_protocol::peer::{Entry, Frame, Metadata, Name, NodeId, Service};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::addresses::advertised;
use crate::base::clock::now_ms;
use crate::daemon::Context;
use crate::directory::changes::Changed;
use crate::directory::cluster::ClusterDirectory;
use crate::directory::events::{EventKind, Origin};
use crate::epmd::holder::Connection;
use crate::epmd::names::table::Registration;
use crate::link::connection::Traffic;
use crate::link::dial::Dialer;
use crate::link::oneshot::Pool;
use crate::link::peer_clock::PeerClock;
use crate::link::session;

/// Inputs that wait for the core. Senders beyond that wait in turn, each with one: a link that has much to say is read
/// no faster than the core works.
const INPUTS: usize = 256;
/// Inputs that are carried out before the links get their turn.
const BATCH: usize = 64;
/// Bytes of an update, so that a heartbeat behind it is not late on a slow line.
const FRAME_BUDGET: usize = 16 * 1024;
/// Alarms that are remembered for people to see.
const ALARMS: usize = 16;
/// How often the network interfaces are looked at: a host may get its addresses after its daemons, and other ones later.
const LOOK_AROUND: Duration = Duration::from_secs(30);

/// The way to the core, for everybody else.
#[derive(Debug, Clone)]
pub struct Core(mpsc::Sender<Input>);

/// The core has ended, and with it the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is about to end")]
pub struct Ended;

/// What the core is told.
pub enum Input {
    /// A peer is proven; the number of its link goes back.
    LinkUp(Box<LinkEnd>, oneshot::Sender<LinkId>),
    /// A link has ended by itself.
    LinkDown {
        /// Which.
        link: LinkId,
        /// What the peer said.
        farewell: Option<Reason>,
    },
    /// A frame came over a link.
    Frame {
        /// Which.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// There is room for frames again.
    Writable(LinkId),
    /// What came of a dial.
    Link(LinkEvent),
    /// A packet came over a short connection.
    Packet(Frame),
    /// A peer has made a short connection, which takes answers.
    PacketsUp {
        /// Who.
        peer: NodeId,
        /// Takes frames for it.
        sender: mpsc::Sender<Frame>,
    },
    /// Something is to be looked at, or done.
    Visit(Box<dyn FnOnce(&mut Running) + Send>),
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

/// This daemon's end of a link.
#[derive(Debug)]
pub struct LinkEnd {
    /// Who is at the other end.
    pub peer: Identity,
    /// What it calls its host.
    pub host: HostName,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether this daemon dialled.
    pub initiated: bool,
    /// What has gone over it.
    pub traffic: Arc<Traffic>,
    /// What its clock says.
    pub clock: Arc<PeerClock>,
    /// Takes frames for it.
    pub output: session::Output,
    /// Ends it.
    pub close: oneshot::Sender<Reason>,
}

/// What the core is started with.
#[derive(Debug)]
pub struct Start {
    /// The daemon.
    pub context: Arc<Context>,
    /// What the node is started with; its seed is drawn anew for each life.
    pub settings: Settings,
    /// What other threads may read of the cluster.
    pub directory: Arc<ClusterDirectory>,
    /// Where the present identity is told.
    pub identity: watch::Sender<Identity>,
    /// Whether the addresses to tell are those of the network interfaces.
    pub follow_interfaces: bool,
    /// Changes whenever a member comes or goes.
    pub members: watch::Sender<u64>,
    /// Does the dialling.
    pub dialer: Dialer,
    /// Where connections are served.
    pub runtime: Handle,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Yes,
    /// Dropped: the link has as much to send as it takes.
    NoRoom,
    /// There is no link to that peer.
    NoLink,
}

/// A core at work.
#[derive(Debug)]
pub struct Running {
    start: Start,
    node: Node,
    core: Core,
    links: BTreeMap<LinkId, LinkEnd>,
    next_link: u64,
    pool: Pool,
    clock: Instant,
    /// Told when the farewell of this life has been said.
    farewells: Vec<oneshot::Sender<()>>,
    alarms: Vec<(u64, Alarm)>,
    /// Members that have come and whose host has no name yet, with the time: what they say about themselves follows within
    /// moments, and is what people know them by.
    nameless: BTreeMap<NodeId, u64>,
}

impl Core {
    /// The way to a core that does not run yet, and what it will receive.
    pub fn new() -> (Core, mpsc::Receiver<Input>) {
        let (sender, receiver) = mpsc::channel(INPUTS);
        (Core(sender), receiver)
    }

    /// Tells the core something; waits for room.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub async fn send(&self, input: Input) -> Result<(), Ended> {
        self.0.send(input).await.map_err(|_| Ended)
    }

    /// Looks at the core, or does something with it, between two inputs.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub async fn visit<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Running) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (sender, receiver) = oneshot::channel();
        let visit = move |running: &mut Running| drop(sender.send(look(running)));
        self.send(Input::Visit(Box::new(visit))).await?;
        receiver.await.map_err(|_| Ended)
    }
}

/// A seed that nobody can guess.
///
/// # Errors
///
/// If the system has no randomness.
pub fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(std::io::Error::other)?;
    Ok(seed)
}

/// Runs the core on this thread, until every way to it is gone or the daemon has left for good.
pub async fn run(node: Node, start: Start, core: Core, mut inputs: mpsc::Receiver<Input>, clock: Instant) {
    start.context.registry.mark_all();
    let context = Arc::clone(&start.context);
    let mut running = Running {
        start,
        node,
        core,
        links: BTreeMap::new(),
        next_link: 1,
        pool: Pool::default(),
        clock,
        farewells: Vec::new(),
        alarms: Vec::new(),
        nameless: BTreeMap::new(),
    };
    running.settle();
    let mut look_around = tokio::time::interval(LOOK_AROUND);
    loop {
        let due = running.clock + Duration::from_millis(running.node.poll_timeout());
        tokio::select! {
            biased;
            input = inputs.recv() => {
                let Some(input) = input else { return };
                // First what was registered before somebody asked.
                running.tell_changes();
                running.take(input);
                for _ in 1..BATCH {
                    let Ok(input) = inputs.try_recv() else { break };
                    running.take(input);
                }
            }
            () = context.registry.changes().wait() => running.tell_changes(),
            _ = look_around.tick(), if running.start.follow_interfaces => running.look_around(),
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let now = running.now();
        if running.node.poll_timeout() <= now.mono_ms {
            running.node.handle_timeout(now);
        }
        running.settle();
    }
}

impl Running {
    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// This daemon's end of a link.
    pub fn link(&self, link: LinkId) -> Option<&LinkEnd> {
        self.links.get(&link)
    }

    /// Sends a message that is none of the node's to a peer.
    pub fn send_to(&self, peer: &NodeId, frame: Frame) -> Sent {
        let Some(end) = self.links.values().find(|end| end.peer.id == *peer) else { return Sent::NoLink };
        if !end.output.has_room() {
            return Sent::NoRoom;
        }
        self.start.context.counters.frames_sent.add();
        end.output.send(frame);
        Sent::Yes
    }

    /// The time, as the node sees it.
    pub fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, wall_ms: now_ms() }
    }

    /// What was wrong lately: when, in milliseconds since the Unix epoch, and what.
    pub fn alarms(&self) -> &[(u64, Alarm)] {
        &self.alarms
    }

    /// Asks all linked peers what their registries amount to.
    pub fn ask_tallies(&mut self) {
        self.node.ask_tallies(self.now());
    }

    /// Leaves the cluster; what is returned is told when everybody else has been.
    pub fn leave(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        if self.links.is_empty() && self.node.member_count() == 0 {
            // There is nobody to tell.
            let _ = sender.send(());
            return receiver;
        }
        self.farewells.push(sender);
        // It fails if the daemon is leaving already, and then the end is the same.
        let _ = self.node.handle_command(self.now(), Command::Leave);
        receiver
    }

    /// The address of the link to a peer, if there is one.
    pub fn address_of(&self, peer: &NodeId) -> Option<SocketAddr> {
        self.links.values().find(|end| end.peer.id == *peer).map(|end| end.address)
    }

    /// Tells a member to leave the cluster: over the link to it, or a short connection. It may get lost.
    pub fn dismiss(&mut self, member: &Identity) {
        let frame = Frame::Depart(Depart { target: member.id, generation: member.generation });
        if self.send_to(&member.id, frame.clone()) != Sent::Yes {
            self.pool.send(&self.start.runtime, &self.start.dialer, &self.core, member.clone(), frame);
        }
    }

    /// Leaves, as a member has told this daemon, unless an earlier life was meant.
    fn depart(&self, told: &Depart) {
        let own = self.node.identity();
        let Some(cluster) = self.start.context.cluster.get().map(Arc::clone) else { return };
        if (told.target, told.generation) != (own.id, own.generation) || cluster.me().has_left() {
            return;
        }
        tracing::warn!("another member has told this daemon to leave: pmd join brings it back");
        self.start.runtime.spawn(async move {
            // It fails if the daemon ends, and then it leaves anyway.
            let _ = cluster.leave().await;
        });
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::LinkUp(end, tell) => {
                let link = LinkId(self.next_link);
                self.next_link += 1;
                if tell.send(link).is_ok() {
                    tracing::info!(host = %end.host, address = %end.address, dialled = end.initiated, "link up");
                    let up = LinkEvent::Up { link, peer: end.peer.clone(), initiated: end.initiated };
                    self.links.insert(link, *end);
                    self.node.handle_link(now, up);
                }
            }
            Input::LinkDown { link, farewell } => {
                if let Some(end) = self.links.remove(&link) {
                    let reason =
                        farewell.map_or_else(|| "the connection has ended".into(), |it| format!("{it:?}"));
                    tracing::info!(host = %end.host, address = %end.address, reason, "link down");
                    self.node.handle_link(now, LinkEvent::Down { link, farewell });
                }
            }
            Input::Frame { link, frame } => {
                if self.links.contains_key(&link) {
                    match frame {
                        Frame::Depart(told) => self.depart(&told),
                        frame => self.node.handle_frame(now, link, frame),
                    }
                }
            }
            // The links get their turn after each input.
            Input::Writable(_) => {}
            Input::Link(event) => self.node.handle_link(now, event),
            Input::Packet(Frame::Depart(told)) => self.depart(&told),
            Input::Packet(frame) => self.node.handle_packet(now, frame),
            Input::PacketsUp { peer, sender } => self.pool.add(peer, sender),
            Input::Visit(visit) => visit(self),
        }
        self.carry_out();
    }

    /// Tells others where this daemon can be reached, if that has changed.
    fn look_around(&mut self) {
        let addresses = advertised(&self.start.context.listening);
        if addresses == self.start.settings.addresses {
            return;
        }
        tracing::info!(?addresses, "this host has other addresses now");
        self.start.settings.addresses.clone_from(&addresses);
        // Refused only while the daemon is leaving.
        let _ = self.node.handle_command(self.now(), Command::Advertise(addresses));
    }

    /// Tells the node what has changed on this host.
    fn tell_changes(&mut self) {
        let context = Arc::clone(&self.start.context);
        for changed in context.registry.changes().take() {
            let command = match &changed {
                Changed::Name(name) => match context.registry.name(name) {
                    Some(entry) => name_entry(&entry).map(Command::Put),
                    None => gone_name(name).map(Command::Remove),
                },
                Changed::Service(name) => match context.registry.service(name) {
                    Some(service) => service_entry(&service).map(Command::Put),
                    None => gone_service(name).map(Command::Remove),
                },
            };
            let Some(command) = command else { continue };
            if let Err(error) = self.node.handle_command(self.now(), command) {
                tracing::debug!(?changed, "the cluster is not told: {error}");
            }
        }
    }

    /// Carries out what the node wants, and gives the links what there is for them.
    fn settle(&mut self) {
        self.carry_out();
        let links = std::mem::take(&mut self.links);
        for (link, end) in &links {
            while end.output.has_room() {
                let Some(frame) = self.node.poll_transmit(*link, FRAME_BUDGET) else { break };
                self.start.context.counters.frames_sent.add();
                end.output.send(frame);
            }
        }
        self.links = links;
        let identity = self.node.identity();
        self.start.identity.send_if_modified(|known| {
            let changed = known != identity;
            if changed {
                known.clone_from(identity);
            }
            changed
        });
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Dial { peer, purpose } => {
                    self.start.dialer.dial(self.core.clone(), peer, purpose);
                }
                Output::Close { link, reason } => {
                    if let Some(end) = self.links.remove(&link) {
                        tracing::info!(host = %end.host, address = %end.address, ?reason, "link closed");
                        let _ = end.close.send(reason);
                    }
                }
                Output::Packet { to, frame } => {
                    self.pool.send(&self.start.runtime, &self.start.dialer, &self.core, to, frame);
                }
                Output::Patch(patch) => {
                    self.start.directory.apply(self.node.identity().id, &patch);
                    let (Patch::Change { origin, .. } | Patch::Hide { origin, .. }) = patch;
                    self.introduce(origin);
                }
                Output::Event(event) => self.tell_event(event),
                Output::Alarm(alarm) => self.sound(alarm),
                Output::Left => self.part(),
            }
        }
    }

    fn tell_event(&mut self, event: Event) {
        let Event { at_ms, origin, host, what, .. } = event;
        let kind = match &what {
            Happening::NodeUp => EventKind::NodeUp,
            Happening::NodeSuspect => EventKind::NodeSuspect,
            Happening::NodeDown => EventKind::NodeDown,
            Happening::NodeLeft => EventKind::NodeLeft,
            Happening::NameUp(_) => EventKind::NameUp,
            Happening::NameDown(_) => EventKind::NameDown,
            Happening::ServiceUp(_) => EventKind::ServiceUp,
            Happening::ServiceDown(_) => EventKind::ServiceDown,
        };
        if matches!(kind, EventKind::NodeUp | EventKind::NodeDown | EventKind::NodeLeft) {
            self.start.members.send_modify(|changes| *changes += 1);
        }
        if kind == EventKind::NodeUp {
            let member = self.node.members().find(|(identity, _)| identity.id == origin);
            let addresses = member.map(|(identity, _)| identity.addresses.as_slice());
            self.start.directory.set_addresses(origin, addresses.unwrap_or_default());
        }
        if origin == self.node.identity().id {
            // What happens here is told when it happens.
            return;
        }
        let host = host.map(|host| host.to_string()).unwrap_or_else(|| self.host_of(&origin));
        if kind == EventKind::NodeUp && host.is_empty() {
            self.nameless.insert(origin, at_ms);
            return;
        }
        if kind != EventKind::NodeUp {
            self.introduce_as(origin, &host);
        }
        self.publish(at_ms, kind, origin, &host, &what);
    }

    /// Tells of a member that has come, now that its host has a name.
    fn introduce(&mut self, origin: NodeId) {
        let host = self.host_of(&origin);
        if !host.is_empty() {
            self.introduce_as(origin, &host);
        }
    }

    fn introduce_as(&mut self, origin: NodeId, host: &str) {
        if let Some(at_ms) = self.nameless.remove(&origin) {
            self.publish(at_ms, EventKind::NodeUp, origin, host, &Happening::NodeUp);
        }
    }

    /// The name of a member's host; empty if it is not known.
    fn host_of(&self, id: &NodeId) -> String {
        let said = self.node.registry().directory().host(id).map(ToString::to_string);
        let end = || self.links.values().find(|end| end.peer.id == *id).map(|end| end.host.to_string());
        said.or_else(end).unwrap_or_default()
    }

    fn publish(&self, at_ms: u64, kind: EventKind, origin: NodeId, host: &str, what: &Happening) {
        match kind {
            EventKind::NodeUp => tracing::info!(%host, id = ?origin, "member up"),
            EventKind::NodeSuspect => {
                tracing::warn!(%host, id = ?origin, reason = self.silence_of(&origin), "member suspected");
            }
            EventKind::NodeDown => {
                tracing::warn!(%host, id = ?origin, reason = self.silence_of(&origin), "member down");
            }
            EventKind::NodeLeft => tracing::info!(%host, id = ?origin, "member left"),
            _ => {}
        }
        let (name, port) = match what {
            Happening::NameUp(entry)
            | Happening::NameDown(entry)
            | Happening::ServiceUp(entry)
            | Happening::ServiceDown(entry) => (entry.name().into(), entry.port()),
            _ => (host.into(), None),
        };
        let origin = Origin { id: origin, host: host.into() };
        self.start.context.registry.events().publish_remote(at_ms, kind, name, port, origin);
    }

    /// What this daemon itself knows of a member's silence.
    fn silence_of(&self, id: &NodeId) -> String {
        let now_ms = self.now().mono_ms;
        match self.node.links().find(|(_, link)| link.peer.id == *id) {
            Some((_, link)) => {
                let silence = now_ms.saturating_sub(link.phi.last_ms());
                format!("silent on its link for {silence} ms, phi {:.1}", link.phi.phi(now_ms))
            }
            None => "there is no link to it".into(),
        }
    }

    fn sound(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Forked(id) => tracing::error!(
                ?id,
                "two daemons write under one identity: a key was copied. Remove the key file of one of them and restart it"
            ),
            Alarm::IdentityTaken => tracing::error!(
                "another daemon has this one's identity: remove the key file of one of the two and restart it"
            ),
            Alarm::Violation(id) => {
                self.start.context.counters.violations.add();
                tracing::warn!(?id, "a peer has sent what no honest daemon sends, its link is closed");
            }
        }
        if self.alarms.len() >= ALARMS {
            self.alarms.remove(0);
        }
        self.alarms.push((now_ms(), alarm));
    }

    /// Ends this life: every link gets what is left to say, and its farewell. A new life begins, which knows nobody.
    fn part(&mut self) {
        for (link, end) in std::mem::take(&mut self.links) {
            while end.output.has_room() {
                let Some(frame) = self.node.poll_transmit(link, FRAME_BUDGET) else { break };
                end.output.send(frame);
            }
            let _ = end.close.send(Reason::Leaving);
        }
        self.pool = Pool::default();
        let seed = seed().unwrap_or(self.start.settings.seed);
        let settings = Settings { seed, ..self.start.settings.clone() };
        // It was made from the same settings before, so it can be made again.
        if let Ok(node) = Node::new(settings, self.now()) {
            self.node = node;
        }
        self.start.directory.clear();
        self.nameless.clear();
        self.start.members.send_modify(|changes| *changes += 1);
        self.start.context.registry.mark_all();
        for farewell in self.farewells.drain(..) {
            let _ = farewell.send(());
        }
    }
}

fn name_entry(entry: &Registration<Connection>) -> Option<Entry> {
    // What the node has said about itself is kept in the form in which it is told to others.
    let reply = reply::parse_reply(reply::Expected::Port2, &entry.reply, true);
    let Ok(Some((reply::Reply::Port2Found(found), _))) = reply else { return None };
    Some(Entry::Name(Name {
        name: entry.name.parse().ok()?,
        port: entry.port,
        node_type: entry.node_type,
        protocol: found.protocol,
        highest_version: entry.highest_version,
        lowest_version: entry.lowest_version,
        creation: entry.creation,
        registered_ms: entry.registered_ms,
        extra: found.extra.to_vec().into(),
    }))
}

fn gone_name(name: &str) -> Option<Entry> {
    Some(Entry::Name(Name {
        name: name.parse().ok()?,
        port: 0,
        node_type: 0,
        protocol: 0,
        highest_version: 0,
        lowest_version: 0,
        creation: 0,
        registered_ms: 0,
        extra: Box::default(),
    }))
}

fn service_entry(service: &crate::directory::services::Service) -> Option<Entry> {
    Some(Entry::Service(Service {
        name: service.name.parse().ok()?,
        instance: 0,
        port: service.port,
        registered_ms: service.registered_ms,
        metadata: Metadata::new(service.metadata.clone()).ok()?,
    }))
}

fn gone_service(name: &str) -> Option<Entry> {
    Some(Entry::Service(Service {
        name: name.parse().ok()?,
        instance: 0,
        port: 0,
        registered_ms: 0,
        metadata: Metadata::default(),
    }))
}
