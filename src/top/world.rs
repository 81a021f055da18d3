//! What is known of a daemon and its cluster: lists once, then events, and numbers every second.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::control::api::{ClusterName, ClusterService, Event, Node, NodeState, Peer, Status};

/// Events that can be looked back at. What is older, `pmd subscribe --since 0` may still have.
const EVENTS: usize = 1000;
/// Members that are shown although they have gone: enough to see what happened, and bounded.
const GONE: usize = 256;

/// Something new about the daemon or its cluster.
#[derive(Debug, Clone)]
pub enum Update {
    /// The lists, when a stream of events has begun.
    Lists(Box<Lists>),
    /// The members again, because some came or went.
    Members(Vec<Node>),
    /// How the daemon is, and how long after the last such update.
    Status(Box<Status>, Duration),
    /// The links.
    Links(Vec<Peer>),
    /// Something happened.
    Event(Event),
    /// The daemon cannot be reached, and why.
    Lost(String),
    /// Something to be told.
    Notice(String),
}

/// Everything that is there at one moment.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// The daemons.
    pub members: Vec<Node>,
    /// The Erlang nodes.
    pub names: Vec<ClusterName>,
    /// The services.
    pub services: Vec<ClusterService>,
    /// The links.
    pub links: Vec<Peer>,
}

/// Whether what is shown is what is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Contact {
    /// Nothing has been heard yet.
    #[default]
    Begun,
    /// The daemon answers.
    Live,
    /// It does not; why not.
    Lost(String),
}

/// How a member is, those included that have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It lives.
    Alive,
    /// Somebody could not reach it.
    Suspect,
    /// It was found dead.
    Down,
    /// It has left.
    Left,
}

impl State {
    /// The word for it.
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
    /// Whether it is the daemon that is asked.
    pub oneself: bool,
    /// How it is.
    pub state: State,
    /// Where it can be reached.
    pub address: Option<SocketAddr>,
    /// The version of its program.
    pub version: String,
}

/// What goes by a name somewhere.
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

/// The rest about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its port.
    pub port: u16,
    /// When it registered.
    pub since: Timestamp,
}

/// How often something happens on the daemon, in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Look-ups.
    pub lookups: f64,
    /// Registrations.
    pub registrations: f64,
}

/// What is known.
#[derive(Debug, Default)]
pub struct World {
    /// Whether it is still true.
    pub contact: Contact,
    /// How the daemon is.
    pub status: Option<Status>,
    /// How busy it is; unknown until there are two numbers to compare.
    pub rates: Option<Rates>,
    /// The daemons, by id.
    pub members: BTreeMap<String, Member>,
    /// The links.
    pub links: Vec<Peer>,
    /// Erlang nodes and services.
    pub entries: BTreeMap<Key, Entry>,
    /// What happened, the latest last.
    pub events: VecDeque<Event>,
    /// What there is to be told, besides.
    pub notice: Option<String>,
}

impl World {
    /// Takes in something new.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Lists(lists) => {
                let Lists { members, names, services, links } = *lists;
                if matches!(self.contact, Contact::Lost(_)) {
                    self.notice = Some("the daemon is back".to_owned());
                }
                self.contact = Contact::Live;
                self.members(members);
                self.links = links;
                self.entries = names.into_iter().map(name).chain(services.into_iter().map(service)).collect();
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

    /// How many members are in this state.
    pub fn count(&self, state: State) -> usize {
        self.members.values().filter(|member| member.state == state).count()
    }

    /// How many names and services there are on each daemon.
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
        // Those that the list does not have any more and that nobody saw leave.
        for (id, mut member) in gone.into_iter().filter(|(_, member)| !member.oneself).take(GONE) {
            member.state = member.state.max(State::Down);
            self.members.insert(id, member);
        }
    }

    fn event(&mut self, event: Event) {
        // What happens on the daemon that is asked has no id.
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

fn name(name: ClusterName) -> (Key, Entry) {
    let ClusterName { name, host, node_id, port, registered_at, .. } = name;
    (Key { host, name, service: false, node_id }, Entry { port, since: registered_at })
}

fn service(service: ClusterService) -> (Key, Entry) {
    let ClusterService { name, host, node_id, port, registered_at, .. } = service;
    (Key { host, name, service: true, node_id }, Entry { port, since: registered_at })
}

fn rates(before: &Status, now: &Status, after: Duration) -> Option<Rates> {
    let seconds = after.as_secs_f64();
    // Precise enough for what is shown.
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
