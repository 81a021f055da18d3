//! The rows of each pane: which columns there are, what is in them, which rows match, and in which order.

use std::cmp::Ordering;
use std::collections::HashMap;

use jiff::Timestamp;

use super::model::{Pane, View};
use super::world::{State, World};
use crate::base::text::{ago, bytes, milliseconds, printable, short, span};
use crate::control::api::Peer;
use crate::control::json;

/// A column: its heading, and the least letters it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub heading: &'static str,
    /// The letters it needs.
    pub width: u16,
    /// Columns of the greatest number are left out first where there is no room.
    pub dispensable: u8,
}

const fn column(heading: &'static str, width: u16, dispensable: u8) -> Column {
    Column { heading, width, dispensable }
}

/// What a cell is sorted by.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    Text(String),
    Number(f64),
    /// Unknown, which is always last.
    None,
}

/// A cell: its text, and what it is sorted by.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The text, without anything that would do something to a terminal.
    pub text: String,
    order: Order,
}

/// What the colour of a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Plain,
    /// To be looked after.
    Warning,
    /// Bad, or gone.
    Bad,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The cells, as many as there are columns.
    pub cells: Vec<Cell>,
    /// What its colour stands for.
    pub tone: Tone,
}

/// The columns of a pane. The first one takes the room that is left.
pub fn columns(pane: Pane) -> &'static [Column] {
    const MEMBERS: [Column; 8] = [
        column("HOST", 19, 0),
        column("STATE", 7, 0),
        column("NAMES", 5, 1),
        column("RTT", 8, 2),
        column("PHI", 5, 4),
        column("PATH", 6, 5),
        column("ADDRESS", 21, 3),
        column("VERSION", 7, 6),
    ];
    const NAMES: [Column; 5] = [
        column("NAME", 10, 0),
        column("HOST", 14, 0),
        column("PORT", 5, 1),
        column("KIND", 7, 2),
        column("AGE", 8, 3),
    ];
    const LINKS: [Column; 9] = [
        column("HOST", 10, 0),
        column("RTT", 8, 0),
        column("PHI", 5, 1),
        column("HEARD", 6, 4),
        column("UP", 8, 5),
        column("RECEIVED", 9, 6),
        column("SENT", 9, 6),
        column("ADDRESS", 21, 3),
        column("AGREES", 6, 2),
    ];
    const EVENTS: [Column; 4] =
        [column("WHAT", 14, 0), column("KIND", 12, 0), column("TIME", 8, 1), column("REASON", 16, 2)];
    match pane {
        Pane::Members => &MEMBERS,
        Pane::Names => &NAMES,
        Pane::Links => &LINKS,
        Pane::Events => &EVENTS,
    }
}

/// The rows that match what is searched for, in order.
pub fn rows(view: &View) -> Vec<Row> {
    let mut rows = match view.pane {
        Pane::Members => members(&view.world),
        Pane::Names => names(&view.world, view.now),
        Pane::Links => view.world.links.iter().map(link).collect(),
        Pane::Events => events(&view.world),
    };
    if !view.search.is_empty() {
        let wanted = view.search.to_lowercase();
        rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&wanted)));
    }
    let place = view.place();
    // Events are in their order, unless another one is asked for.
    if view.pane == Pane::Events && place.sort == 0 {
        if place.reverse {
            rows.reverse();
        }
        return rows;
    }
    rows.sort_by(|a, b| compare(a.cells.get(place.sort), b.cells.get(place.sort), place.reverse));
    rows
}

fn compare(a: Option<&Cell>, b: Option<&Cell>, reverse: bool) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return Ordering::Equal };
    let order = match (&a.order, &b.order) {
        (Order::None, Order::None) => return Ordering::Equal,
        (Order::None, _) => return Ordering::Greater,
        (_, Order::None) => return Ordering::Less,
        (Order::Number(a), Order::Number(b)) => a.total_cmp(b),
        (Order::Text(a), Order::Text(b)) => a.cmp(b),
        (Order::Number(_), Order::Text(_)) => Ordering::Less,
        (Order::Text(_), Order::Number(_)) => Ordering::Greater,
    };
    if reverse { order.reverse() } else { order }
}

fn members(world: &World) -> Vec<Row> {
    let numbers = world.entries_by_member();
    let links: HashMap<&str, &Peer> = world.links.iter().map(|link| (link.id.as_str(), link)).collect();
    let row = |(id, member): (&String, &super::world::Member)| {
        let link = links.get(id.as_str()).filter(|_| member.state < State::Down);
        let host = match (member.host.as_str(), member.oneself) {
            ("", _) => "(not heard yet)".to_owned(),
            (host, true) => format!("{host} (this one)"),
            (host, false) => host.to_owned(),
        };
        let tone = match member.state {
            State::Alive => Tone::Plain,
            State::Suspect => Tone::Warning,
            State::Down | State::Left => Tone::Bad,
        };
        let state = f64::from(member.state as u8);
        let names = numbers.get(id.as_str()).copied().unwrap_or_default();
        Row {
            cells: vec![
                text(&host),
                Cell { text: member.state.word().to_owned(), order: Order::Number(state) },
                count(names),
                rtt(link.and_then(|link| link.rtt_us)),
                phi(link.map(|link| link.phi)),
                text(match (link, member.oneself) {
                    (Some(_), _) => "direct",
                    (None, true) => "-",
                    // Most members of a large cluster have no link to each other.
                    (None, false) => "",
                }),
                text(&member.address.map(|address| address.to_string()).unwrap_or_default()),
                text(&member.version),
            ],
            tone,
        }
    };
    world.members.iter().map(row).collect()
}

fn names(world: &World, now: Timestamp) -> Vec<Row> {
    let row = |(key, entry): (&super::world::Key, &super::world::Entry)| {
        let age = now.duration_since(entry.since).as_secs();
        let age = u64::try_from(age).unwrap_or_default();
        Row {
            cells: vec![
                text(&key.name),
                text(&key.host),
                count(usize::from(entry.port)),
                text(if key.service { "service" } else { "node" }),
                Cell { text: span(age), order: number(age) },
            ],
            tone: Tone::Plain,
        }
    };
    world.entries.iter().map(row).collect()
}

fn link(link: &Peer) -> Row {
    let host = if link.host.is_empty() { short(&link.id) } else { &link.host };
    Row {
        cells: vec![
            text(host),
            rtt(link.rtt_us),
            phi(Some(link.phi)),
            Cell { text: ago(link.heard_ms), order: number(link.heard_ms) },
            Cell { text: span(link.up_seconds), order: number(link.up_seconds) },
            Cell { text: bytes(link.received_bytes), order: number(link.received_bytes) },
            Cell { text: bytes(link.sent_bytes), order: number(link.sent_bytes) },
            text(&link.address.to_string()),
            text(if link.agrees { "yes" } else { "no" }),
        ],
        tone: if link.agrees { Tone::Plain } else { Tone::Warning },
    }
}

fn events(world: &World) -> Vec<Row> {
    let row = |event: &crate::control::api::Event| {
        let what = match event.kind.starts_with("node_") {
            true if event.host.is_empty() => short(event.node_id.as_deref().unwrap_or("?")).to_owned(),
            true => event.host.clone(),
            false => format!("{}@{}", event.name, event.host),
        };
        // The date and the fraction of the second say little to somebody who watches.
        let time = json::rfc3339(event.at).get(11..19).unwrap_or_default().to_owned();
        let at = u64::try_from(event.at.as_millisecond()).unwrap_or_default();
        let tone = match event.kind.as_str() {
            "node_suspect" => Tone::Warning,
            "node_down" => Tone::Bad,
            _ => Tone::Plain,
        };
        Row {
            cells: vec![
                text(&what),
                text(&event.kind),
                Cell { text: time, order: number(at) },
                text(event.reason.as_deref().unwrap_or_default()),
            ],
            tone,
        }
    };
    world.events.iter().map(row).collect()
}

fn text(text: &str) -> Cell {
    let text = printable(text).into_owned();
    let order = if text.is_empty() { Order::None } else { Order::Text(text.clone()) };
    Cell { text, order }
}

fn count(value: usize) -> Cell {
    Cell { text: value.to_string(), order: number(u64::try_from(value).unwrap_or(u64::MAX)) }
}

fn rtt(us: Option<u64>) -> Cell {
    let Some(us) = us else { return Cell { text: String::new(), order: Order::None } };
    Cell { text: milliseconds(us), order: number(us) }
}

fn phi(phi: Option<f64>) -> Cell {
    let Some(phi) = phi else { return Cell { text: String::new(), order: Order::None } };
    Cell { text: format!("{phi:.1}"), order: Order::Number(phi) }
}

// Precise enough to sort by.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> Order {
    Order::Number(value as f64)
}

/// How often something happens, in a few letters.
pub fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}/s") } else { format!("{per_second:.0}/s") }
}
