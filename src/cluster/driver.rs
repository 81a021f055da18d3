//! The core thread: it owns the [`Node`] and drives it.
//!
//! One change, then drain: after each input the node's outputs are carried out, and each link whose socket has room gets the
//! frames that there are for it. The thread waits for nothing but the next input.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmd_core::membership::Identity;
use pmd_core::node::{Alarm, Command, LinkEvent, LinkId, Node, Now, Output, Settings};
use pmd_epmd::planted::panic_if_planted;
use pmd_protocol::peer::frame::{Depart, Reason};
use pmd_protocol::peer::{Frame, NodeId};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, oneshot, watch};

use super::addresses::advertised;
use super::bridge::{Bridge, Facts};
use super::core::{CoreCommand, Sent, Weight};
use super::view::ClusterView;
use crate::base::clock::now_ms;
use crate::link::dial::Dialer;
use crate::link::inbox::{Close, LinkEnd, LinkMessage};
use crate::link::local_identity::LocalIdentity;
use crate::link::oneshot::Pool;
use crate::link::session::Links;

/// Inputs that are carried out before the links get their turn.
const BATCH: usize = 64;
/// Bytes of an update, so that a heartbeat behind it is not late on a slow line.
const FRAME_BUDGET: usize = 16 * 1024;
/// Alarms that are remembered for people to see.
const ALARMS: usize = 16;
/// Frames that a link still gets when this daemon leaves: its own last changes, a few of them at most.
const LAST_FRAMES: usize = 64;
/// How often the network interfaces are looked at: a host may get its addresses after its daemons, and other ones later.
const ADDRESS_CHECK: Duration = Duration::from_secs(30);

/// What the core thread is started with.
#[derive(Debug)]
pub(super) struct Start {
    /// The node.
    pub node: Node,
    /// What it was made from; its seed is drawn anew each time the daemon has left.
    pub settings: Settings,
    /// The clock that the node's monotonic time is counted from.
    pub clock: Instant,
    /// This daemon, as its connections know it.
    pub local: Arc<LocalIdentity>,
    /// The present identity, for others to watch.
    pub identity: watch::Sender<Identity>,
    /// The addresses that are listened on, if others are told those of the network interfaces.
    pub follow_interfaces: Option<Vec<SocketAddr>>,
    /// Between the core and the rest of the daemon.
    pub bridge: Bridge,
    /// Serves the links that are dialled.
    pub links: Links,
    /// Dials.
    pub dialer: Dialer,
    /// Told when a member has told this daemon to leave.
    pub told_to_leave: mpsc::Sender<()>,
    /// Commands.
    pub commands: mpsc::Receiver<CoreCommand>,
    /// Messages of connections.
    pub messages: mpsc::Receiver<LinkMessage>,
}

/// A seed that nobody can guess.
///
/// # Errors
///
/// If the system has no randomness.
pub(super) fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(std::io::Error::other)?;
    Ok(seed)
}

/// Runs the core on this thread, until it is told to stop.
pub(super) async fn run(start: Start) {
    let Start { node, settings, clock, local, identity, follow_interfaces, bridge, links, dialer, .. } =
        start;
    let (mut commands, mut messages) = (start.commands, start.messages);
    bridge.begin();
    let mut driver = Driver {
        node,
        settings,
        clock,
        local,
        identity,
        bridge,
        serving: links,
        dialer,
        told_to_leave: start.told_to_leave,
        links: LinkTable::default(),
        pool: Pool::default(),
        leaving: Vec::new(),
        alarms: Vec::new(),
    };
    driver.settle();
    let mut address_check = tokio::time::interval(ADDRESS_CHECK);
    loop {
        let due = driver.clock + Duration::from_millis(driver.node.poll_timeout());
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                None | Some(CoreCommand::Stop) => return,
                Some(command) => {
                    // First what was registered before somebody asked.
                    driver.take_changes();
                    driver.command(command);
                }
            },
            message = messages.recv() => {
                let Some(message) = message else { return };
                driver.take_changes();
                driver.message(message);
                for _ in 1..BATCH {
                    let Ok(message) = messages.try_recv() else { break };
                    driver.message(message);
                }
            }
            () = driver.bridge.changed() => driver.take_changes(),
            _ = address_check.tick(), if follow_interfaces.is_some() => {
                driver.check_addresses(follow_interfaces.as_deref().unwrap_or_default());
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let now = driver.now();
        if driver.node.poll_timeout() <= now.mono_ms {
            driver.node.handle_timeout(now);
        }
        driver.settle();
    }
}

/// A node at work.
#[derive(Debug)]
struct Driver {
    node: Node,
    settings: Settings,
    clock: Instant,
    local: Arc<LocalIdentity>,
    identity: watch::Sender<Identity>,
    bridge: Bridge,
    serving: Links,
    dialer: Dialer,
    told_to_leave: mpsc::Sender<()>,
    links: LinkTable,
    pool: Pool,
    /// Told when everybody knows that this daemon leaves.
    leaving: Vec<oneshot::Sender<()>>,
    alarms: Vec<(u64, Alarm)>,
}

/// This daemon's ends of the links.
#[derive(Debug, Default)]
struct LinkTable {
    ends: BTreeMap<LinkId, LinkEnd>,
    last: u64,
}

impl LinkTable {
    fn add(&mut self, end: LinkEnd) -> LinkId {
        self.last += 1;
        let link = LinkId(self.last);
        self.ends.insert(link, end);
        link
    }

    fn to(&self, id: &NodeId) -> Option<&LinkEnd> {
        self.ends.values().find(|end| end.peer.id == *id)
    }
}

impl Driver {
    /// The time, as the node sees it.
    fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono_ms, wall_ms: now_ms() }
    }

    fn command(&mut self, command: CoreCommand) {
        // Whoever has asked may have given up meanwhile.
        match command {
            CoreCommand::View(answer) => {
                let end = |link: LinkId| self.links.ends.get(&link);
                let view = ClusterView::new(&self.node, self.now(), end, &self.alarms);
                let _ = answer.send(Arc::new(view));
            }
            CoreCommand::AskDigests => self.node.request_summaries(self.now()),
            CoreCommand::Weigh(answer) => drop(answer.send(self.weigh())),
            CoreCommand::Leave { members, left } => {
                let _ = members.send(self.node.member_count());
                self.leave(left);
            }
            CoreCommand::Dismiss(member) => self.dismiss(&member),
            CoreCommand::Send { peers, frame, sent } => {
                let _ = sent.send(peers.iter().map(|peer| self.send_to(peer, frame.clone())).collect());
            }
            CoreCommand::Stop => {}
        }
        self.carry_out();
    }

    fn message(&mut self, message: LinkMessage) {
        let now = self.now();
        match message {
            LinkMessage::Up(end, number) => {
                // A dial that was in flight when this daemon left must not bring it back.
                if self.local.has_left() || end.departures != self.local.departures() {
                    return;
                }
                let (host, peer, initiated) = (end.host.clone(), end.peer.clone(), end.initiated);
                let address = end.address;
                let link = self.links.add(*end);
                if number.send(link).is_err() {
                    self.links.ends.remove(&link);
                    return;
                }
                tracing::info!(%host, %address, dialled = initiated, "link up");
                self.node.handle_link(now, LinkEvent::Up { link, peer, initiated });
            }
            LinkMessage::Down { link, reason } => {
                if let Some(end) = self.links.ends.remove(&link) {
                    let why = reason.map_or_else(|| "the connection ended".into(), |it| format!("{it:?}"));
                    tracing::info!(host = %end.host, address = %end.address, reason = why, "link down");
                    self.node.handle_link(now, LinkEvent::Down { link, reason });
                }
            }
            LinkMessage::Frame { link, frame } => {
                if self.links.ends.contains_key(&link) {
                    match frame {
                        Frame::Depart(told) => self.depart(&told),
                        frame => self.node.handle_frame(now, link, frame),
                    }
                }
            }
            // The links get their turn after each input.
            LinkMessage::Writable(_) => {}
            LinkMessage::Dialled(event) => self.node.handle_link(now, event),
            LinkMessage::Oneshot(Frame::Depart(told)) => self.depart(&told),
            LinkMessage::Oneshot(frame) => self.node.handle_one_shot(now, frame),
            LinkMessage::OneshotUp { peer, sender } => self.pool.add(peer, sender),
        }
        self.carry_out();
    }

    /// Sends a frame that is none of the node's to a peer.
    fn send_to(&self, peer: &NodeId, frame: Frame) -> Sent {
        let Some(end) = self.links.to(peer) else { return Sent::NoLink };
        if !end.output.has_room() {
            return Sent::NoRoom;
        }
        self.serving.counters().frames_sent.add();
        end.output.send(frame);
        Sent::Yes
    }

    fn weigh(&self) -> Weight {
        let mut weight = Weight::default();
        for (_, content) in self.node.replica().store().iter() {
            weight.tombstones += content.tombstones();
            for (key, value) in content.iter() {
                weight.bytes += key.name().len() + value.as_bytes().len();
            }
        }
        weight
    }

    /// Leaves the cluster; `left` is told when everybody else has been.
    fn leave(&mut self, left: oneshot::Sender<()>) {
        if self.links.ends.is_empty() && self.node.member_count() == 0 {
            // There is nobody to tell.
            let _ = left.send(());
            return;
        }
        self.leaving.push(left);
        // It fails if the daemon is leaving already, and then the end is the same.
        let _ = self.node.handle_command(self.now(), Command::Leave);
    }

    /// Tells a member to leave the cluster.
    fn dismiss(&mut self, member: &Identity) {
        let frame = Frame::Depart(Depart { target: member.id, generation: member.generation });
        if self.send_to(&member.id, frame.clone()) != Sent::Yes {
            self.pool.send(&self.dialer, self.serving.inbox(), member.clone(), frame);
        }
    }

    /// A member has told this daemon to leave, unless an earlier generation was meant.
    fn depart(&self, told: &Depart) {
        let own = self.node.identity();
        if (told.target, told.generation) != (own.id, own.generation) || self.local.has_left() {
            return;
        }
        tracing::warn!("told to leave the cluster by another member; pmd join brings this daemon back");
        // If it is full, it is about to leave.
        let _ = self.told_to_leave.try_send(());
    }

    /// Tells others where this daemon can be reached, if that has changed.
    fn check_addresses(&mut self, listening: &[SocketAddr]) {
        let addresses = advertised(listening);
        if addresses == self.settings.addresses {
            return;
        }
        tracing::info!(?addresses, "the addresses of this host have changed");
        self.settings.addresses.clone_from(&addresses);
        // Refused only while the daemon is leaving.
        let _ = self.node.handle_command(self.now(), Command::Advertise(addresses));
    }

    /// Tells the node what has changed on this host.
    fn take_changes(&mut self) {
        for command in self.bridge.changes() {
            panic_if_planted("core");
            if let Err(error) = self.node.handle_command(self.now(), command) {
                tracing::debug!("the cluster cannot be told of a change: {error}");
            }
        }
    }

    /// Carries out the node's outputs, and gives the links the frames that there are for them.
    fn settle(&mut self) {
        self.carry_out();
        for (link, end) in &self.links.ends {
            while end.output.has_room() {
                let Some(frame) = self.node.poll_transmit(*link, FRAME_BUDGET) else { break };
                self.serving.counters().frames_sent.add();
                end.output.send(frame);
            }
        }
        let identity = self.node.identity();
        self.identity.send_if_modified(|known| {
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
                    self.dialer.dial(self.serving.clone(), peer, purpose);
                }
                Output::Close { link, reason } => {
                    if let Some(end) = self.links.ends.remove(&link) {
                        tracing::info!(host = %end.host, address = %end.address, ?reason, "link closed");
                        let _ = end.close.send(Close { reason, frames: Vec::new() });
                    }
                }
                Output::OneShot { to, frame } => {
                    self.pool.send(&self.dialer, self.serving.inbox(), to, frame);
                }
                Output::Patch(patch) => {
                    let now_ms = self.now().mono_ms;
                    let facts = Facts { node: &self.node, now_ms, ends: &self.links.ends };
                    self.bridge.patch(facts, &patch);
                }
                Output::Event(event) => {
                    let now_ms = self.now().mono_ms;
                    let facts = Facts { node: &self.node, now_ms, ends: &self.links.ends };
                    self.bridge.event(facts, event);
                }
                Output::Alarm(alarm) => self.alarm(alarm),
                Output::Left => self.left(),
            }
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Forked(id) => tracing::error!(
                ?id,
                "two daemons write under one identity: a key was copied. Remove the key file of one of them and restart it"
            ),
            Alarm::IdentityTaken => tracing::error!(
                "another daemon has this one's identity: remove the key file of one of the two and restart it"
            ),
            Alarm::Violation(id) => {
                self.serving.counters().violations.add();
                tracing::warn!(?id, "protocol violation by a peer, closing its link");
            }
        }
        if self.alarms.len() >= ALARMS {
            self.alarms.remove(0);
        }
        self.alarms.push((now_ms(), alarm));
    }

    /// The daemon has left: every link gets the frames that are left for it, and is closed. The node begins anew and knows
    /// nobody.
    fn left(&mut self) {
        for (link, end) in std::mem::take(&mut self.links.ends) {
            let mut frames = Vec::new();
            while frames.len() < LAST_FRAMES
                && let Some(frame) = self.node.poll_transmit(link, FRAME_BUDGET)
            {
                frames.push(frame);
            }
            let _ = end.close.send(Close { reason: Reason::Leaving, frames });
        }
        self.pool = Pool::default();
        let seed = seed().unwrap_or(self.settings.seed);
        let settings = Settings { seed, ..self.settings.clone() };
        // A node was made from the same settings before.
        if let Ok(node) = Node::new(settings, self.now()) {
            self.node = node;
        }
        self.bridge.reset();
        for told in self.leaving.drain(..) {
            let _ = told.send(());
        }
    }
}
