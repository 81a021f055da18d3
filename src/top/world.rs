//! The known state of a daemon and its cluster: lists once, then events; status and links every second.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::control::api::{Event, Node, NodeState, Peer, Status};

/// Events that are kept. `pmd subscribe --since 0` may still have older ones.
const EVENTS: usize = 1000;
/// Members that are still shown after they have left or failed.
const GONE: usize = 256;

/// A change of the known state.
#[derive(Debug, Clone)]
pub enum Update {
    /// All lists, at the start of a stream of events.
    Lists(Box<Lists>),
    /// The members, after some have joined or left.
    Members(Vec<Node>),
    /// The status, and the time since the last such update.
    Status(Box<Status>, Duration),
    /// The links.
    Links(Vec<Peer>),
    /// An event.
    Event(Event),
    /// The daemon cannot be reached; the reason.
    Lost(String),
    /// A notice for the user.
    Notice(String),
}

/// All lists at one moment.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// The daemons.
    pub members: Vec<Node>,
    /// The Erlang nodes and services.
    pub entries: Vec<(Key, Entry)>,
    /// The links.
    pub links: Vec<Peer>,
}

/// Whether the known state is current.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Contact {
    /// The daemon has not answered yet.
    #[default]
    Begun,
    /// The daemon answers.
    Live,
    /// The daemon does not answer; the reason.
    Lost(String),
}

/// The state of a member, including former members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is alive.
    Alive,
    /// A member could not reach it.
    Suspect,
    /// It has failed.
    Down,
    /// It has left.
    Left,
}

impl State {
    /// The name shown for it.
    pub fn word(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Down => "down",
            State::Left => "left",
        }
    }
}

/// A daemon of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name of its host.
    pub host: String,
    /// Whether it is the daemon being read.
    pub oneself: bool,
    /// Its state.
    pub state: State,
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Its version.
    pub version: String,
}

/// Identifies a node or service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The host.
    pub host: String,
    /// The name.
    pub name: String,
    /// Whether it is a service.
    pub service: bool,
    /// The id of the host's daemon.
    pub node_id: String,
}

/// The details of a node or service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its port.
    pub port: u16,
    /// When it registered.
    pub since: Timestamp,
}

/// Rates of the daemon, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Lookups.
    pub lookups: f64,
    /// Registrations.
    pub registrations: f64,
}

/// The known state.
#[derive(Debug, Default)]
pub struct World {
    /// Whether it is current.
    pub contact: Contact,
    /// The status of the daemon.
    pub status: Option<Status>,
    /// The rates; unknown until two statuses can be compared.
    pub rates: Option<Rates>,
    /// The daemons, by id.
    pub members: BTreeMap<String, Member>,
    /// The links.
    pub links: Vec<Peer>,
    /// Erlang nodes and services.
    pub entries: BTreeMap<Key, Entry>,
    /// The events, the latest last.
    pub events: VecDeque<Event>,
    /// A notice for the user.
    pub notice: Option<String>,
}

impl World {
    /// Applies an update.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Lists(lists) => {
                let Lists { members, entries, links } = *lists;
                if matches!(self.contact, Contact::Lost(_)) {
                    self.notice = Some("the daemon is back".to_owned());
                }
                self.contact = Contact::Live;
                self.members(members);
                self.links = links;
                self.entries = entries.into_iter().collect();
            }
            Update::Members(members) => self.members(members),
            Update::Status(status, after) => {
                let before = self.status.as_ref().filter(|before| before.boot_id == status.boot_id);
                self.rates = before.and_then(|before| rates(before, &status, after));
                self.status = Some(*status);
                self.contact = Contact::Live;
            }
            Update::Links(links) => self.links = links,
            Update::Event(event) => self.event(event),
            Update::Lost(why) => {
                self.contact = Contact::Lost(why);
                self.rates = None;
            }
            Update::Notice(notice) => self.notice = Some(notice),
        }
    }

    /// The number of members in this state.
    pub fn count(&self, state: State) -> usize {
        self.members.values().filter(|member| member.state == state).count()
    }

    /// The number of nodes and services of each daemon, by its id.
    pub fn entries_by_member(&self) -> HashMap<&str, usize> {
        let mut numbers = HashMap::new();
        for key in self.entries.keys() {
            *numbers.entry(key.node_id.as_str()).or_default() += 1;
        }
        numbers
    }

    fn own_id(&self) -> Option<String> {
        self.members.iter().find(|(_, member)| member.oneself).map(|(id, _)| id.clone())
    }

    fn members(&mut self, members: Vec<Node>) {
        let mut gone = std::mem::take(&mut self.members);
        for node in members {
            gone.remove(&node.id);
            let state = match node.state {
                NodeState::Alive => State::Alive,
                NodeState::Suspect => State::Suspect,
            };
            let member = Member {
                host: node.host,
                oneself: node.oneself,
                state,
                address: node.addresses.first().copied(),
                version: node.version,
            };
            self.members.insert(node.id, member);
        }
        // Members that are no longer listed, but whose `node_down` or `node_left` was missed.
        for (id, mut member) in gone.into_iter().filter(|(_, member)| !member.oneself).take(GONE) {
            member.state = member.state.max(State::Down);
            self.members.insert(id, member);
        }
    }

    fn event(&mut self, event: Event) {
        // Events of the daemon being read may lack an id.
        let id = event.node_id.clone().or_else(|| self.own_id()).unwrap_or_default();
        let key = |service| Key {
            host: event.host.clone(),
            name: event.name.clone(),
            service,
            node_id: id.clone(),
        };
        let entry = || Entry { port: event.port.unwrap_or_default(), since: event.at };
        let state = match event.kind.as_str() {
            "name_up" => self.entries.insert(key(false), entry()).and(None),
            "name_down" => self.entries.remove(&key(false)).and(None),
            "service_up" => self.entries.insert(key(true), entry()).and(None),
            "service_down" => self.entries.remove(&key(true)).and(None),
            "node_up" => Some(State::Alive),
            "node_suspect" => Some(State::Suspect),
            "node_down" => Some(State::Down),
            "node_left" => Some(State::Left),
            _ => None,
        };
        if let (Some(state), Some(member)) = (state, self.members.get_mut(&id)) {
            member.state = state;
        }
        if state.is_some_and(|state| state >= State::Down) {
            self.entries.retain(|key, _| key.node_id != id);
        }
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

fn rates(before: &Status, now: &Status, after: Duration) -> Option<Rates> {
    let seconds = after.as_secs_f64();
    // Precise enough for display.
    #[allow(clippy::cast_precision_loss)]
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let (before, now) = (&before.counters, &now.counters);
    (seconds > 0.0).then(|| Rates {
        lookups: rate(
            before.epmd.lookups_found + before.epmd.lookups_not_found,
            now.epmd.lookups_found + now.epmd.lookups_not_found,
        ),
        registrations: rate(before.epmd.registrations, now.epmd.registrations),
    })
}
