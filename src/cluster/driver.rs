//! The core thread, which owns the [`Node`] and drives it.
//!
//! After each input, the node's outputs are executed and its pending frames are sent on every link that has room. The
//! thread only ever waits for the next input.

mod administration;
mod reports;
mod revocation;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pmd_core::membership::Identity;
use pmd_core::node::{Alarm, Command, LinkEvent, LinkId, Node, Now, Output, Rule, Settings};
use pmd_epmd::planted::panic_if_planted;
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Frame, NodeId, Rotation};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, oneshot, watch};

use super::addresses::advertised;
use super::alarm::Alarms;
use super::bridge::{Bridge, Facts};
use super::core::{CoreCommand, Sent, Weight};
use super::view::ClusterView;
use crate::auth::cookie::CookieKey;
use crate::auth::revocation::VerifiedList;
use crate::base::clock::now_ms;
use crate::base::log::limited::LimitedLog;
use crate::link::dial::Dialer;
use crate::link::inbox::{Close, LinkEnd, LinkMessage};
use crate::link::local_identity::LocalIdentity;
use crate::link::oneshot::Pool;
use crate::link::session::Links;

/// Messages that are processed before frames are sent.
const BATCH: usize = 64;
/// Maximum size of an update in bytes, so that a heartbeat queued behind it is not late on a slow line.
const FRAME_BUDGET: usize = 16 * 1024;
/// Frames that are still sent on a link when this daemon leaves: its own last changes.
const LAST_FRAMES: usize = 64;
/// How often the network interfaces are checked: a host may get its addresses after the daemon has started, or change
/// them.
const ADDRESS_CHECK: Duration = Duration::from_secs(30);

/// The arguments of the core thread.
#[derive(Debug)]
pub(super) struct Start {
    /// The node.
    pub node: Node,
    /// The settings that the node was created from. Its seed is replaced each time the daemon leaves.
    pub settings: Settings,
    /// The origin of the node's monotonic time.
    pub clock: Instant,
    /// This daemon's identity, as used by its connections.
    pub local: Arc<LocalIdentity>,
    /// Publishes the current identity.
    pub identity: watch::Sender<Identity>,
    /// Changes whenever a peer has sent a summary of its registry.
    pub summaries: watch::Sender<u64>,
    /// The listening addresses, if the advertised addresses are derived from the network interfaces.
    pub follow_interfaces: Option<Vec<SocketAddr>>,
    /// Limits log lines that peers can cause.
    pub log: Arc<LimitedLog>,
    /// Limits log lines about links, by peer.
    pub changes: Arc<LimitedLog>,
    /// Connects the core with the rest of the daemon.
    pub bridge: Bridge,
    /// Serves the links that this daemon dials.
    pub links: Links,
    /// Dials peers.
    pub dialer: Dialer,
    /// Whether a member may tell this daemon to leave.
    pub leave_on_request: bool,
    /// Notified when a member has told this daemon to leave.
    pub told_to_leave: mpsc::Sender<()>,
    /// Commands to the core.
    pub commands: mpsc::Receiver<CoreCommand>,
    /// Messages from connections.
    pub messages: mpsc::Receiver<LinkMessage>,
}

/// Generates an unpredictable seed.
///
/// # Errors
///
/// If the system's random number generator fails.
pub(super) fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(std::io::Error::other)?;
    Ok(seed)
}

/// Runs the core on this thread until it receives the stop command.
pub(super) async fn run(start: Start) {
    let Start { node, settings, clock, local, identity, summaries, .. } = start;
    let Start { follow_interfaces, log, changes, bridge, links, dialer, .. } = start;
    let (mut commands, mut messages) = (start.commands, start.messages);
    bridge.begin();
    let mut driver = Driver {
        node,
        settings,
        clock,
        local,
        identity,
        summaries,
        log,
        changes,
        bridge,
        serving: links,
        dialer,
        leave_on_request: start.leave_on_request,
        told_to_leave: start.told_to_leave,
        links: LinkTable::default(),
        pool: Pool::default(),
        leaving: Vec::new(),
        alarms: Alarms::default(),
        alias_is_open: true,
        rotation: None,
        owed: BTreeMap::new(),
    };
    driver.flush();
    let mut address_check = tokio::time::interval(ADDRESS_CHECK);
    loop {
        let due = driver.clock + Duration::from_millis(driver.node.poll_timeout());
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                None | Some(CoreCommand::Stop) => return,
                Some(command) => {
                    // A command must see everything that was registered before it.
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
        // There is no other host without a link, and a link brings heartbeats.
        if driver.alias_is_open {
            driver.review_alias();
        }
        driver.flush();
    }
}

/// The node and the state around it.
#[derive(Debug)]
struct Driver {
    node: Node,
    settings: Settings,
    clock: Instant,
    local: Arc<LocalIdentity>,
    identity: watch::Sender<Identity>,
    summaries: watch::Sender<u64>,
    log: Arc<LimitedLog>,
    changes: Arc<LimitedLog>,
    bridge: Bridge,
    serving: Links,
    dialer: Dialer,
    leave_on_request: bool,
    told_to_leave: mpsc::Sender<()>,
    links: LinkTable,
    pool: Pool,
    /// Notified when every member knows that this daemon leaves.
    leaving: Vec<oneshot::Sender<()>>,
    alarms: Alarms,
    /// Whether this host's alias may still have to be given up for another.
    alias_is_open: bool,
    /// The latest rotation of the secret, for peers that do not have it.
    rotation: Option<(Rotation, CookieKey)>,
    /// Lists of revoked certificates that have not been sent yet because a link had no room: of each link, one of each
    /// authority.
    owed: BTreeMap<LinkId, Vec<Arc<VerifiedList>>>,
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
        // Answers are best effort: the caller may have given up meanwhile.
        match command {
            CoreCommand::View(answer) => {
                let end = |link: LinkId| self.links.ends.get(&link);
                let now = self.now();
                let view = ClusterView::new(&self.node, now, end, self.alarms.shown(now.mono_ms));
                let _ = answer.send(Arc::new(view));
            }
            CoreCommand::AskDigests => self.node.request_summaries(self.now()),
            CoreCommand::Weigh(answer) => drop(answer.send(self.weigh())),
            CoreCommand::Leave { members, left } => {
                let _ = members.send(self.node.member_count());
                self.leave(left);
            }
            CoreCommand::Decide { member, host, expelled, done } => {
                let decide = Command::Decide { member, host, expelled };
                let _ = done.send(self.node.handle_command(self.now(), decide).is_ok());
            }
            CoreCommand::Dismiss(member) => self.dismiss(&member),
            CoreCommand::Send { peers, frame, sent } => {
                let _ = sent.send(peers.iter().map(|peer| self.send_to(peer, frame.clone())).collect());
            }
            CoreCommand::Rotate(rotating) => self.rotate(*rotating),
            CoreCommand::SendRotation(peer) => self.send_rotation(&peer),
            CoreCommand::Known(answer) => drop(answer.send(self.node.known_members().collect())),
            CoreCommand::Proven(key, answer) => {
                let proven = self.links.ends.values().filter(|end| end.proof.is_of(&key));
                let _ = answer.send(proven.map(|end| end.peer.id).collect());
            }
            CoreCommand::CloseUnproven(key) => self.close_unproven(&key),
            CoreCommand::Revoke(list) => self.revoke(&list),
            CoreCommand::Violated(link) => self.violated(link),
            CoreCommand::Stop => {}
        }
        self.execute_outputs();
    }

    fn message(&mut self, message: LinkMessage) {
        let now = self.now();
        match message {
            LinkMessage::Up(end, number) => {
                // A dial that was in flight when this daemon left must not make it rejoin.
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
                self.owe_revocations(link);
                if self.close_if_revoked(link) {
                    return;
                }
                self.dialer.linked(peer.id, address.ip());
                let named = host.clone();
                self.log_link(peer.id, move |more| {
                    tracing::info!(host = %named, %address, dialled = initiated, "link up{more}");
                });
                let id = peer.id;
                self.node.handle_link(now, LinkEvent::Up { link, peer, initiated, host });
                // The core closes a link at once whose peer is expelled.
                self.execute_outputs();
                self.send_rotation(&id);
            }
            LinkMessage::Down { link, reason } => {
                if let Some(end) = self.links.ends.remove(&link) {
                    let why = reason.map_or_else(|| "the connection ended".into(), |it| format!("{it:?}"));
                    let (host, address) = (end.host, end.address);
                    self.log_link(end.peer.id, move |more| {
                        tracing::info!(%host, %address, reason = why, "link down{more}");
                    });
                    self.node.handle_link(now, LinkEvent::Down { link, reason });
                }
            }
            LinkMessage::Frame { link, frame, room } => {
                // What it is made into counts elsewhere.
                drop(room);
                if let Some(peer) = self.links.ends.get(&link).map(|end| end.peer.id) {
                    match frame {
                        Frame::Depart(told) => self.depart(&peer, &told),
                        frame => {
                            let is_summary = matches!(&frame, Frame::Tally(_))
                                || matches!(&frame, Frame::Heartbeat(beat) if beat.summary.is_some());
                            self.node.handle_frame(now, link, frame);
                            if is_summary {
                                self.summaries.send_modify(|heard| *heard = heard.wrapping_add(1));
                            }
                        }
                    }
                }
            }
            LinkMessage::Violated(link) => {
                if let Some(peer) = self.links.ends.get(&link).map(|end| end.peer.id) {
                    self.alarm(Alarm::Violation(peer, Rule::NoFrame));
                }
            }
            // Frames are sent after every input, so nothing else is needed.
            LinkMessage::Writable(_) => {}
            LinkMessage::Dialled(event) => self.node.handle_link(now, event),
            LinkMessage::Oneshot { peer, .. } | LinkMessage::OneshotUp { peer, .. }
                if self.node.expulsions().is_expelled(&peer) => {}
            LinkMessage::Oneshot { peer, frame: Frame::Depart(told) } => self.depart(&peer, &told),
            LinkMessage::Oneshot { frame, .. } => self.node.handle_one_shot(now, frame),
            LinkMessage::OneshotUp { peer, sender } => self.pool.add(peer, sender),
        }
        self.execute_outputs();
    }

    /// Sends a frame that does not come from the node to a peer.
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

    /// Leaves the cluster; `left` is notified when all members have been told.
    fn leave(&mut self, left: oneshot::Sender<()>) {
        if self.links.ends.is_empty() && self.node.member_count() == 0 {
            // There are no members to notify.
            let _ = left.send(());
            return;
        }
        self.leaving.push(left);
        // This fails if the daemon is already leaving, with the same result.
        let _ = self.node.handle_command(self.now(), Command::Leave);
    }

    /// Advertises this daemon's addresses to the other members if they have changed.
    fn check_addresses(&mut self, listening: &[SocketAddr]) {
        let addresses = advertised(listening);
        if addresses == self.settings.addresses {
            return;
        }
        tracing::info!(?addresses, "this host's addresses have changed");
        self.settings.addresses.clone_from(&addresses);
        // This fails only while the daemon is leaving.
        let _ = self.node.handle_command(self.now(), Command::Advertise(addresses));
    }

    /// Passes changes of this host's registrations to the node.
    fn take_changes(&mut self) {
        for command in self.bridge.changes() {
            panic_if_planted("core");
            if let Err(error) = self.node.handle_command(self.now(), command) {
                tracing::debug!("cannot publish a change to the cluster: {error}");
            }
        }
    }

    /// Executes the node's outputs and sends its pending frames on all links that have room.
    fn flush(&mut self) {
        self.execute_outputs();
        self.send_revocations();
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

    fn execute_outputs(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Dial { peer, purpose } => {
                    self.dialer.dial(self.serving.clone(), peer, purpose);
                }
                Output::Close { link, reason } => {
                    if let Some(end) = self.links.ends.remove(&link) {
                        let (host, address) = (end.host, end.address);
                        self.log_link(end.peer.id, move |more| {
                            tracing::info!(%host, %address, ?reason, "link closed{more}");
                        });
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
                    self.log_lost_claim(&patch);
                }
                Output::Event(event) => {
                    let now_ms = self.now().mono_ms;
                    let facts = Facts { node: &self.node, now_ms, ends: &self.links.ends };
                    self.bridge.event(facts, event);
                }
                Output::Alarm(alarm) => self.alarm(alarm),
                Output::Decided(decision) => self.decided(&decision),
                Output::Left => self.left(),
            }
        }
    }

    /// Finishes leaving: sends the remaining frames on every link, closes it, and replaces the node with a new one
    /// without members.
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
        // This cannot fail: a node was created from the same settings before.
        if let Ok(node) = Node::new(settings, self.now()) {
            self.node = node;
        }
        self.bridge.reset();
        self.alias_is_open = true;
        for left in self.leaving.drain(..) {
            let _ = left.send(());
        }
    }
}
