//! The rows of each pane: their cells, the search, and the order.

use std::cmp::Ordering;
use std::collections::HashMap;

use jiff::Timestamp;

use super::model::View;
use super::pane::Pane;
use super::world::{Entry, Key, Member, State, World};
use crate::base::text::{ago, bytes, milliseconds, printable, short, span};
use crate::control::api::{Event, Peer};
use crate::control::json;

/// The sort key of a cell.
#[derive(Debug, Clone, PartialEq)]
enum Order {
    Text(String),
    Number(f64),
    /// Unknown: always last.
    None,
}

/// A cell: its text and its sort key.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The text, without control characters.
    pub text: String,
    order: Order,
}

/// The meaning of a row's colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Normal.
    Plain,
    /// Needs attention.
    Warning,
    /// Bad, or gone.
    Bad,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The cells, as many as there are columns.
    pub cells: Vec<Cell>,
    /// The meaning of its colour.
    pub tone: Tone,
}

/// The rows that match the search, in order.
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
    let cursor = view.cursor();
    // Events are in order of time unless another column is selected.
    if view.pane == Pane::Events && cursor.sort == 0 {
        if cursor.reverse {
            rows.reverse();
        }
        return rows;
    }
    rows.sort_by(|a, b| compare(a.cells.get(cursor.sort), b.cells.get(cursor.sort), cursor.reverse));
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
    let row = |(id, member): (&String, &Member)| {
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
                    // In a large cluster, most members have no link to this daemon.
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
    let row = |(key, entry): (&Key, &Entry)| {
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
    let row = |event: &Event| {
        let what = match event.kind.starts_with("node_") {
            true if event.host.is_empty() => short(event.node_id.as_deref().unwrap_or("?")).to_owned(),
            true => event.host.clone(),
            false => format!("{}@{}", event.name, event.host),
        };
        // Only the time of day: the rest is noise in a live view.
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

// Precise enough as a sort key.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> Order {
    Order::Number(value as f64)
}

/// Formats a rate in a few characters.
pub fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}/s") } else { format!("{per_second:.0}/s") }
}
